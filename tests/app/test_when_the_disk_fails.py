"""A disk that is lost, full, or slow, under the whole gateway: what devices, actuators and operators are told."""

from __future__ import annotations

import asyncio
import errno
import functools
import signal

import aiohttp
import pytest

from gateway.app import process
from gateway.app.gateway import Gateway
from gateway.config.settings import HttpSettings, ListenSettings
from tests.app.peer import Peer
from tests.app.test_rules_survive_a_kill import HEATER, OFF, ON, THERMOSTAT, until_heating
from tests.faults import FaultyStorage, StallingStorage
from tests.scenarios.site import free_port, until

CLIMATE = "devices/living/climate"
FOR_GOOD = 1_000_000


@pytest.fixture(autouse=True)
def signals():
    """What `_live` installs is taken back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def health(gateway: Gateway) -> tuple[int, str]:
    """Status and body of /healthz."""
    url = f"http://127.0.0.1:{gateway.web.port}/healthz"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_a_disk_that_is_lost_acknowledges_nothing_and_makes_actuators_safe(lives, clock):
    """Laws L1, L10: no PUBACK for what is not on disk, the heater goes off at once, and the reason is told."""
    faulty = FaultyStorage()
    life = lives(THERMOSTAT)
    gateway = await life.begin(faulty)
    peer = await life.peer(HEATER)
    await until_heating(life, clock, peer)
    assert (await health(gateway))[0] == 200
    faulty.fail("sync", 1, errno.EIO, times=FOR_GOOD)
    mids = {peer.publish(CLIMATE, {"temperature": 19, "n": number}) for number in range(20)}
    await asyncio.wait_for(gateway.failed.wait(), 20)
    await until(lambda: peer.heard(HEATER)[-1:] == [OFF], "the heater goes off", 6)
    code, text = await health(gateway)
    assert code == 503
    assert "the disk is lost" in text
    assert not await gateway.drain()
    life.gateway = None
    assert not mids & peer.acknowledged
    assert peer.heard(HEATER)[-1] == OFF


async def test_the_process_ends_with_1_when_the_disk_is_lost(lives, clock, monkeypatch):
    """Law: whoever supervises it learns that it could not go on; a new start may."""
    faulty = FaultyStorage()
    life = lives(THERMOSTAT)
    port = free_port()
    built = life.build(faulty, listen=ListenSettings(port=port), http=HttpSettings(port=free_port()))
    made = []

    def build(*_args):
        made.append(built)
        return built

    monkeypatch.setattr(process, "Gateway", build)
    running = asyncio.create_task(process._live(built.settings, built.rules.engine.ruleset))
    await until(lambda: made and built.ready, "it is ready", 10)
    peer = await asyncio.to_thread(Peer, port, HEATER)
    faulty.fail("write", 1, errno.EIO, times=FOR_GOOD)
    mid = peer.publish(CLIMATE, {"temperature": 19})
    assert await asyncio.wait_for(running, 15) == 1
    await asyncio.to_thread(peer.close)
    assert mid not in peer.acknowledged
    assert peer.heard(HEATER)[-1] == OFF


async def test_a_full_disk_is_told_and_got_over(lives, clock):
    """Law L6: nothing is acknowledged while there is no space, the gateway says so, and goes on when there is some."""
    faulty = FaultyStorage()
    life = lives()
    gateway = await life.begin(faulty)
    peer = await life.peer()
    for call in ("write", "create"):
        faulty.fail(call, 1, errno.ENOSPC, times=FOR_GOOD)
    mid = peer.publish(CLIMATE, {"temperature": 19})
    await until(lambda: "events" in gateway.store.committer.held, "the disk is full", 10)
    assert mid not in peer.acknowledged
    code, text = await health(gateway)
    assert (code, "No space left" in text) == (503, True)
    faulty.heal()
    await until(lambda: mid in peer.acknowledged, "there is space again", 10)
    assert (await health(gateway))[0] == 200
    assert not gateway.failed.is_set()


async def test_a_disk_that_stalls_is_told_and_a_command_does_not_wait_for_it(lives, clock):
    """Laws L1, L10: after five seconds /healthz says so; after `act_within` the command goes out, and is counted."""
    slow = StallingStorage()
    life = lives(THERMOSTAT)
    gateway = await life.begin(slow)
    peer = await life.peer(HEATER)
    await life.say(peer, CLIMATE, temperature=19)
    clock.advance(2)
    slow.go.clear()
    try:
        mid = peer.publish(CLIMATE, {"temperature": 19})
        await until(lambda: gateway.ingest.received == 2, "it has arrived", 10)
        assert gateway.status().healthy
        assert peer.heard(HEATER)[-1:] != [ON]
        clock.advance(6)

        def heard_while_time_passes() -> bool:
            clock.advance(0.05)
            return peer.heard(HEATER)[-1:] == [ON]

        await until(heard_while_time_passes, "the command goes ahead of its record", 10)
        assert gateway.act.ahead_of_record >= 1
        code, text = await health(gateway)
        assert (code, "the disk has not taken a write for" in text) == (503, True)
        assert mid not in peer.acknowledged
    finally:
        slow.go.set()
    await until(lambda: mid in peer.acknowledged, "the disk goes on", 10)
    assert (await health(gateway))[0] == 200


@pytest.mark.parametrize("call", ["create", "sync"])
async def test_a_start_that_the_disk_refuses_is_one_line_and_exit_code_1(lives, monkeypatch, capsys, call):
    """Law: the operator gets a sentence, not a stack."""
    faulty = FaultyStorage()
    faulty.fail(call, 1, errno.EROFS, times=FOR_GOOD)
    life = lives()
    monkeypatch.setattr(process, "Gateway", functools.partial(Gateway, storage=faulty))
    code = await asyncio.wait_for(process._live(life.settings(), life.rules()), 20)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gateway: ")]
    assert (code, len(errors)) == (1, 1)


async def test_a_disk_that_stalls_keeps_nobody_from_ending(lives, clock, monkeypatch):
    """Law L10: the heater is off and the gateway gone in time; what the disk never took was never acknowledged."""
    monkeypatch.setattr("gateway.app.gateway.DRAIN_S", 1.5)
    monkeypatch.setattr("gateway.app.gateway._STEP_S", 0.5)
    slow = StallingStorage()
    life = lives(THERMOSTAT)
    gateway = await life.begin(slow)
    peer = await life.peer(HEATER)
    await until_heating(life, clock, peer)
    slow.go.clear()
    try:
        mid = peer.publish(CLIMATE, {"temperature": 19})
        await until(lambda: gateway.ingest.received == 3, "it has arrived", 10)
        assert not await asyncio.wait_for(gateway.drain(), 20)
        assert peer.heard(HEATER)[-1] == OFF
        assert mid not in peer.acknowledged
    finally:
        slow.go.set()

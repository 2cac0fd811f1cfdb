"""Decisions and outcomes, kept where telemetry cannot evict them."""

from __future__ import annotations

import pytest

from gateway.act.records import decode_records
from gateway.config.settings import LogSettings
from gateway.model import Batch, Decision, Outcome
from gateway.ringlog import inspect
from tests.app.test_rules_survive_a_kill import THERMOSTAT
from tests.scenarios.site import until

CLIMATE = "devices/living/climate"
HEATER = "devices/living/heater/set"


def trail(life) -> list[Decision | Outcome]:
    """What the audit log holds, oldest first."""
    return [
        record
        for batch in inspect.scan_log(life.home / "data", "audit")
        if isinstance(batch, Batch)
        for _, record in decode_records(batch)
    ]


async def test_what_is_decided_and_what_came_of_it_is_copied_once(lives, clock):
    """Law L12: the trail is the log's own decisions, in their order, over clean stops."""
    life = lives(THERMOSTAT)
    for temperature in (19, 23, 18):
        gateway = await life.begin()
        peer = await life.peer(HEATER)
        clock.advance(300)
        await life.say(peer, CLIMATE, temperature=temperature)
        await until(lambda gateway=gateway: gateway.store.audit.durable.seq > 0, "something is in the trail", 10)
        assert await gateway.drain()
        life.gateway = None
    assert trail(life) == life.records()
    assert len(trail(life)) >= 6


@pytest.mark.parametrize("cursor", ["missing", "of the life before"])
async def test_a_life_without_farewell_leaves_nothing_out_and_nothing_twice(lives, clock, cursor):
    """Law L3: around a crash the copy goes on where it ended, and what it holds already is not copied again."""
    life = lives(THERMOSTAT)
    path = life.home / "data" / "cursors" / "audit.cursor"
    former = b""
    for temperature in (19, 23, 18, 23):
        former = path.read_bytes() if path.exists() and cursor != "missing" else b""
        gateway = await life.begin()
        peer = await life.peer(HEATER)
        clock.advance(300)
        await life.say(peer, CLIMATE, temperature=temperature)
        before = gateway.store.audit.recovered.end.seq
        await until(lambda gateway=gateway, b=before: gateway.store.audit.durable.seq > b, "it was copied", 10)
        await life.drop()
        path.write_bytes(former)  # as if the last one had not been written
    gateway = await life.begin()
    seen = len(life.records())
    await until(lambda: gateway.store.audit.durable.seq >= seen, "the rest is copied", 10)
    assert await gateway.drain()
    life.gateway = None
    assert trail(life) == life.records()


async def test_telemetry_evicts_no_decision_from_the_trail(lives, clock):
    """Law L6: the two logs have sizes of their own."""
    life = lives(THERMOSTAT)
    small = LogSettings(compress=False, segment_size_bytes=64 * 1024, max_size_bytes=128 * 1024)
    gateway = await life.begin(log=small)
    peer = await life.peer(HEATER)
    await life.say(peer, CLIMATE, temperature=19)
    await until(lambda: gateway.store.audit.durable.seq > 0, "the decision is in the trail", 10)
    first = next(record for record in trail(life) if isinstance(record, Decision))
    for _ in range(8):
        await life.say(peer, "devices/a/climate", temperature=20, padding="." * 30_000)
    assert gateway.store.events.floor.seq > 0
    assert first not in life.records()
    assert first in trail(life)

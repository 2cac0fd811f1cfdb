"""Pieces of the composition root: what the journal appends and in which order; a listener and a broker side by side."""

from __future__ import annotations

import asyncio

from gateway.act.records import decode_records
from gateway.app.journal import Journal, records_of
from gateway.config.settings import ConnectSettings
from gateway.model import DERIVED, HOPS_SHIFT, MAX_HOPS, Command, Decision, Emit, Kind, Outcome, Position
from tests.app.peer import Peer
from tests.app.test_rules_survive_a_kill import HEATER, OFF, ON, THERMOSTAT
from tests.scenarios.site import free_port, start_mosquitto, until


def decided(name: str, action) -> Decision:
    return Decision(name, "r", "", action, 5, None, "")


async def test_a_derived_event_stands_ahead_of_the_decision_that_made_it(lives):
    """Law L12: a crash between the two repeats the event rather than losing it; its hops are in its flags."""
    store = (await lives().begin()).store
    journal = Journal(store.events)
    start = store.events.appended
    emits = [Emit("alerts/a", b'{"n": 1}', 1), Emit("alerts/b", b'{"n": 2}', MAX_HOPS)]
    command = Command("t", b"on", "on")
    outcome = Outcome("x", "sent", "", 5)
    records = [decided("r//5/0", emits[0]), decided("r//5/1", command), decided("r//5/2", emits[1]), outcome]
    journal.record(records)
    reader = store.reader(Position(*start), durable_only=False)
    derived, batch = reader.poll(100), reader.poll(100)
    assert (derived.kind, batch.kind) == (Kind.EVENTS, Kind.DECISIONS)
    assert derived.topics == ["alerts/a", "alerts/b"]
    assert derived.values == [{"n": 1}, {"n": 2}]
    assert [flags >> HOPS_SHIFT for flags in derived.flags] == [1, MAX_HOPS]
    assert all(flags & DERIVED for flags in derived.flags)
    assert [record for _, record in decode_records(batch)] == records
    assert list(records_of(batch)) == records
    assert journal.derived == 2


async def test_without_a_derived_event_there_is_one_batch(lives):
    """Law L13: a decision costs one append."""
    store = (await lives().begin()).store
    journal = Journal(store.events)
    before = store.events.appended
    journal.record([decided("r//5/0", Command("t", b"on"))])
    assert store.events.appended == Position(before.seq + 1, before.ordinal)
    assert journal.derived == 0


async def test_devices_on_the_listener_and_behind_a_broker_are_one_house(lives, clock, tmp_path):
    """Law: both receivers feed one log and one account, and a command reaches devices on either side, once each."""
    port = free_port()
    broker = start_mosquitto(tmp_path, port)
    life = lives(THERMOSTAT)
    behind = None
    try:
        gateway = await life.begin(connect=ConnectSettings(host="127.0.0.1", port=port))
        await until(lambda: gateway.status().broker.connected, "the gateway is connected to the broker", 20)
        direct = await life.peer(HEATER)
        behind = await asyncio.to_thread(Peer, port, HEATER)
        await life.say(behind, "devices/living/climate", temperature=19)
        await until(lambda: gateway.ingest.received == 1, "what the broker brings is stored", 10)
        clock.advance(2)
        await life.say(direct, "devices/living/climate", temperature=19)
        for peer in (direct, behind):
            await until(lambda heater=peer: heater.heard(HEATER)[-1:] == [ON], "both sides hear the command", 10)
            assert peer.heard(HEATER).count(ON) == 1
        status = gateway.status()
        assert (status.ingest.received, status.ingest.stored) == (2, 2)
        assert (status.listener.received, status.broker.received) == (1, 1)
        assert await gateway.drain()
        life.gateway = None
        for peer in (direct, behind):
            await until(lambda heater=peer: heater.heard(HEATER)[-1:] == [OFF], "and both are left safe", 10)
    finally:
        if behind is not None:
            await asyncio.to_thread(behind.close)
        broker.kill()
        broker.wait(10)

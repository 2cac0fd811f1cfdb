"""2026-11-28: a start that was killed too took entries for good whose events had never come to disk.

Entries of the clients' log are written before the events that they belong to. A kill between the two leaves entries
that count for nothing, which a start finds out from how far the event log got. The start after that no longer could:
the first had begun a new epoch. A QoS 2 message was then taken for a repetition, answered, and stored nowhere.
"""

from __future__ import annotations

import asyncio

from gateway.mqtt.ledger import Bound, Taken
from tests.app.lives import Lives
from tests.mqtt.conftest import RawClient, connect, publish


async def _device(lives) -> RawClient:
    device = RawClient(*await asyncio.open_connection("127.0.0.1", lives.gateway.listener.port))
    device.send(connect("device", clean=False, keepalive=0))
    assert (await device.packet())[0] == 0x20
    return device


async def test_every_start_finds_that_an_event_never_came_to_disk(tmp_path, clock):
    """Laws L2, L12: however many starts were killed before one got through."""
    lives = Lives(tmp_path, clock)
    try:
        gateway = await lives.begin()
        device = await _device(lives)
        # As a kill between the syncs of the two logs leaves it.
        epoch, end_seq = gateway.clients.place()
        gateway.clients.append([Bound(epoch, end_seq + 1), Taken("device", (7,))])
        await gateway.store.committer.flush()
        await lives.drop()
        await device.close()
        for _ in range(2):  # each is killed when its first records are on disk, before it has a snapshot of the clients
            lives.gateway = lives.build()
            lives.gateway.rulebook.begin()
            await lives.gateway.store.committer.flush()
            await lives.drop()
        gateway = await lives.begin()
        device = await _device(lives)
        before = gateway.store.events.appended.ordinal
        device.send(publish("devices/a/meter", b"1", qos=2, mid=7, dup=True))
        assert await device.packet() == (0x50, b"\0\7")
        assert gateway.store.events.appended.ordinal == before + 1
        await device.close()
    finally:
        await lives.close()

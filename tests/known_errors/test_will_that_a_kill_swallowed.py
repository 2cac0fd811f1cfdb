"""2026-11-28: that a last will was out came to disk before the will itself; a kill between the two lost the will."""

from __future__ import annotations

import asyncio
from itertools import chain

import msgspec

from gateway.model import Batch
from gateway.mqtt.ledger import Bound, Entry, WillGone
from gateway.ringlog import inspect
from tests.app.lives import Lives
from tests.mqtt.conftest import RawClient, packet, text
from tests.scenarios.site import until


def _with_will(expiry_s: int) -> bytes:
    """CONNECT, 5.0, with a will at QoS 1 that is due when the connection breaks off."""
    properties = b"\x05\x11" + expiry_s.to_bytes(4, "big")
    body = text("MQTT") + b"\x05\x0c\0\0" + properties + text("ghost")
    return packet(0x10, body + b"\0" + text("devices/ghost/will") + text("{}"))


async def test_what_a_turn_notes_and_what_it_publishes_come_to_disk_together(tmp_path, clock):
    """L2: a will that is not in the event log is not said to be out, nor its session to be over."""
    lives = Lives(tmp_path, clock)
    try:
        await lives.begin()
        ghost = RawClient(*await asyncio.open_connection("127.0.0.1", lives.gateway.listener.port))
        ghost.send(_with_will(3_600))
        assert (await ghost.packet())[0] == 0x20
        before = lives.gateway.store.events.durable.seq
        await ghost.close()
        await until(lambda: lives.gateway.store.events.durable.seq > before, "the will is stored")
    finally:
        await lives.close()
    decode = msgspec.msgpack.Decoder(list[Entry]).decode
    batches = [each for each in inspect.scan_log(tmp_path / "data", "clients") if isinstance(each, Batch)]
    turns = [decode(payload) for payload in chain.from_iterable(each.payloads for each in batches)]
    (turn,) = [turn for turn in turns if any(isinstance(entry, WillGone) for entry in turn)]
    assert isinstance(turn[0], Bound)
    assert turn[0].end_seq > before

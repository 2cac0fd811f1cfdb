"""Connections that break in mid-stream: what is sent again, and what that comes to. Packets are literal bytes."""

from __future__ import annotations

import asyncio
import collections
import random

import pytest

from gateway.model import DUPLICATE
from tests.mqtt.broker_process import (
    CONNACK_V5,
    CONNACK_V5_SESSION,
    Ingest,
    Naps,
    ScriptedBroker,
    connected_client,
    publish_packet,
    until,
)

CONNECTIONS, WINDOW = 500, 20


class Disk:
    """Stores batches at once or some milliseconds later, often a later one first; or stalls until told to go on."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.is_stalled = False
        self.held = []
        self.stored: set[int] = set()
        self.copies: collections.Counter[int] = collections.Counter()
        self.unmarked: collections.Counter[int] = collections.Counter()

    def __call__(self, arrivals) -> None:
        for payload, flags in zip(arrivals.payloads, arrivals.flags, strict=True):
            self.copies[int(payload)] += 1
            self.unmarked[int(payload)] += not flags & DUPLICATE
        if self.is_stalled:
            self.held.append(arrivals)
        elif self.rng.random() < 0.5:
            self.settle(arrivals)
        else:
            asyncio.get_running_loop().call_later(self.rng.random() / 100, self.settle, arrivals)

    def settle(self, arrivals) -> None:
        self.stored.update(map(int, arrivals.payloads))
        arrivals.settle()

    def go_on(self) -> None:
        self.is_stalled = False
        self.rng.shuffle(self.held)
        for arrivals in self.held:
            self.settle(arrivals)
        self.held = []


class KeepingBroker:
    """Sends again, marked, what was not acknowledged when a connection ended; or forgets it, and uses its ids anew."""

    def __init__(self, rng: random.Random, disk: Disk, *, forgets: bool) -> None:
        self.rng = rng
        self.disk = disk
        self.forgets = forgets
        self.forgotten: set[int] = set()
        self.open: dict[int, int] = {}
        """Message by packet id, in the order in which they were first sent."""
        self.sent = 0
        self.resent: collections.Counter[int] = collections.Counter()
        self.losses = 0
        self.done = asyncio.Event()

    async def __call__(self, peer) -> None:
        await peer.expect(1)
        is_last = peer.number >= CONNECTIONS
        may_send, may_hear = self.rng.randint(0, WINDOW), self.rng.randint(0, WINDOW)
        if self.forgets:
            self.forgotten.update(self.open.values())
            self.open = {}
        packets = [CONNACK_V5 if self.forgets or peer.number == 1 else CONNACK_V5_SESSION]
        for mid, number in self.open.items():
            self.resent[number] += 1
            packets.append(publish_packet("t/a", b"%d" % number, mid, dup=True))
        await peer.send(*packets, *self._fresh(may_send))
        self.disk.go_on()  # also with what an earlier connection brought, under ids that are in use again
        stays_open = 0 if is_last else max(0, len(self.open) - may_hear)
        while len(self.open) > stays_open:
            first, body = await peer.packet()
            if first == 0x40:
                number = self.open.pop(int.from_bytes(body[:2], "big"))
                assert number in self.disk.stored, "nothing is acknowledged before it is stored"
            elif first == 0x82:
                await peer.send(b"\x90\x04" + body[:2] + b"\0\1")
        if is_last:
            self.done.set()
        if not is_last and self.rng.random() < 0.5:
            self.disk.is_stalled = True
            await peer.send(*self._fresh(may_send))
            await until(lambda: set(self.open.values()) <= set(self.disk.copies), "it reaches the disk")
        self.losses += bool(self.open)
        peer.writer.transport.abort()

    def _fresh(self, count: int) -> list[bytes]:
        packets = []
        for _ in range(min(count, WINDOW - len(self.open))):
            mid = next(mid for mid in range(1, WINDOW + 1) if mid not in self.open)
            self.open[mid] = self.sent
            packets.append(publish_packet("t/a", b"%d" % self.sent, mid))
            self.sent += 1
        return packets


async def no_pause(_seconds: float) -> None:
    """Come back at once."""
    await asyncio.sleep(0)


@pytest.mark.parametrize("forgets", [False, True])
async def test_500_connections_that_break_lose_nothing_and_repeat_only_what_was_sent_again(seed, forgets):
    """M3, M4: with 0 to 20 messages under way at each break, and packet ids that soon mean other messages.

    Whatever is acknowledged is on disk and, where the broker keeps the session, everything arrives.
    """
    rng = random.Random(seed)
    disk = Disk(rng)
    script = KeepingBroker(rng, disk, forgets=forgets)
    async with ScriptedBroker(script) as broker, connected_client(broker.port, disk, sleep=no_pause) as client:
        await asyncio.wait_for(script.done.wait(), 60)
        assert len(broker.peers) == CONNECTIONS
        assert client.stats.stale_acks_dropped > CONNECTIONS / 4
    assert script.losses > CONNECTIONS / 4, "the breaks came while something was under way"
    assert set(disk.copies) >= set(range(script.sent)) - script.forgotten
    for number, copies in disk.copies.items():
        assert copies <= 1 + script.resent[number]
        assert disk.unmarked[number] <= 1


async def test_commands_given_to_a_connection_that_is_half_open_reach_the_broker_in_the_end():
    """M7 on the way out: what the silence swallowed goes again, in order, on the next connection."""

    async def script(peer):
        await peer.accept()
        await peer.grant()
        if peer.number == 1:
            deaf.set()
            await asyncio.Event().wait()
        while True:
            first, body = await peer.packet()
            if first >> 4 == 3:
                await peer.send(b"\x40\x02" + body[7:9])

    deaf = asyncio.Event()
    async with (
        ScriptedBroker(script) as broker,
        connected_client(broker.port, Ingest(), keepalive_s=1, sleep=Naps()) as client,
    ):
        await deaf.wait()
        for number in range(5):
            client.publish("cmd/a", b"%d" % number)
        await until(lambda: client.stats.published_total == 5, "all are acknowledged")
        assert client.stats.generation == 2
        assert [body[-1:] for body in broker.peers[1].of_kind(3)] == [b"0", b"1", b"2", b"3", b"4"]
    assert len(broker.peers) == 2

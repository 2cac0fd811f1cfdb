"""Whatever bytes come in: no crash, no hang, no memory kept. `make fuzz` sends a million packets, a test run some.

The whole server side is under test, from the transport's callback to sessions and retained messages; only the socket
is not real. A generator writes conversations that make sense, then bends them.
"""

import asyncio
import gc
import os
import random
import time
import tracemalloc

import pytest

from gateway.config.settings import ListenSettings, Permission, User
from gateway.mqtt.connection import Connection
from gateway.mqtt.listener import Listener
from gateway.observe import events
from tests.mqtt.conftest import HandSeconds, connect, packet, publish, text, varint

PACKETS = int(os.environ.get("FUZZ_PACKETS", "20000"))
LONGEST_S = 1.0
KEPT_BYTES = 256 * 1024
TOPICS = ["a", "a/b", "devices/x/t", "", "a/+", "#", "$SYS/x", "a\0b", "x" * 300, "\u00e9/\U0001f600", "$share/g/a"]
FILTERS = ["a", "#", "+/b", "a/#", "$share/g/a/#", "$share//a", "a/#/b", "", "$SYS/#", "+"]
PROPERTIES = [b"", b"\x23\0\1", b"\x23\0\xff", b"\x01\1", b"\x02\0\0\0\1", b"\x26\0\1k\0\1v", b"\x0b\5", b"\x09\0\2xx"]
PROPERTIES += [
    b"\x08\0\1r",
    b"\x11\0\0\0\5",
    b"\x21\0\5",
    b"\x22\0\2",
    b"\x27\0\0\0\x40",
    b"\x15\0\1m",
    b"\x99",
    b"\x26",
]


class Wire(asyncio.Transport):
    """A socket that swallows everything and may stop doing so."""

    def __init__(self):
        super().__init__()
        self.closing = False
        self.sent_bytes = 0

    def get_extra_info(self, name, default=None):
        return ("10.0.0.1", 1) if name == "peername" else default

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def get_write_buffer_size(self):
        return 0

    def write(self, data):
        self.sent_bytes += len(data)

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    abort = close


class Writer:
    """Makes packets, most of them sound."""

    def __init__(self, rng):
        self.rng = rng

    def properties(self, v5):
        chosen = b"".join(self.rng.choice(PROPERTIES) for _ in range(self.rng.choice([0, 0, 0, 1, 2])))
        return chosen if v5 else b""

    def hello(self, v5):
        rng = self.rng
        with_will = rng.random() < 0.3
        return connect(
            rng.choice(["c1", "c2", "c3", "", "\u00e9" * 400]),
            v5=v5,
            clean=rng.random() < 0.5,
            keepalive=rng.choice([0, 5, 65_535]),
            will=(rng.choice(TOPICS), b"gone") if with_will else None,
            will_flags=rng.choice([0, 0x08, 0x10, 0x18, 0x20]) if with_will else 0,
            username=rng.choice([None, "u", "u"]),
            password=rng.choice([None, "p", "p"]),
            properties=self.properties(v5),
        )

    def packet(self, v5):
        rng = self.rng
        listed = self.properties(v5)
        head = rng.choice([1, 2, 3, 7, 65_535, 0]).to_bytes(2, "big")
        head_5 = head + (varint(len(listed)) + listed if v5 else b"")
        match rng.randrange(9):
            case 0 | 1 | 2:
                return publish(
                    rng.choice(TOPICS),
                    rng.randbytes(rng.choice([0, 1, 50, 3_000])),
                    qos=rng.choice([0, 1, 1, 2, 3]),
                    mid=rng.choice([1, 2, 3, 500, 0]),
                    v5=v5,
                    retain=rng.random() < 0.3,
                    dup=rng.random() < 0.2,
                    properties=listed,
                )
            case 3:
                wanted = rng.choices(FILTERS, k=rng.choice([1, 2, 5]))
                return packet(0x82, head_5 + b"".join(text(one) + bytes([rng.randrange(64)]) for one in wanted))
            case 4:
                return packet(0xA2, head_5 + b"".join(map(text, rng.choices(FILTERS, k=2))))
            case 5:
                return packet(rng.choice([0x40, 0x50, 0x62, 0x70]), head + rng.choice([b"", b"\x10", b"\x87\0"]))
            case 6:
                return rng.choice([b"\xc0\0", b"\xe0\0", b"\xe0\1\4", b"\xf0\0", b"\xf0\2\x18\0", b"\0\0"])
            case 7:
                return self.hello(v5)
            case _:
                return packet(rng.randrange(256), rng.randbytes(rng.randrange(20)))


def bent(rng, data):
    """One packet with something wrong: bits, length, bytes too many or too few, another packet's end."""
    raw = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        if not raw:
            break
        place = rng.randrange(len(raw))
        match rng.randrange(6):
            case 0:
                raw[place] ^= 1 << rng.randrange(8)
            case 1:
                raw[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 2:
                del raw[place : place + rng.randrange(1, 5)]
            case 3:
                raw[place:place] = rng.randbytes(rng.randrange(1, 5))
            case 4:
                raw[1:2] = rng.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x80\x80\1", b"\0", b"\x7f"])
            case _:
                del raw[place:]
    return bytes(raw)


def converse(listener, clock, rng, arrivals):
    """One connection from its beginning to its end. Returns how many bent packets it took in, and the longest wait."""
    wire, connection = Wire(), Connection(listener)
    connection.connection_made(wire)
    writer, v5 = Writer(rng), rng.random() < 0.6
    packets = [writer.hello(v5), *(writer.packet(v5) for _ in range(rng.randrange(1, 40)))]
    data, bent_at = b"", []
    for one in packets:
        is_bent = rng.random() < 0.3
        if is_bent:
            bent_at.append(len(data))
        data += bent(rng, one) if is_bent else one
    longest_s = 0.0
    at = 0
    while at < len(data) and not wire.closing:
        size = rng.choice([1, 7, 100, 5_000])
        began_s = time.perf_counter()
        connection.data_received(data[at : at + size])
        listener.gathering.end_turn()
        if rng.random() < 0.7:
            while arrivals:
                arrivals.pop(0).settle()
        listener.gathering.flush()
        longest_s = max(longest_s, time.perf_counter() - began_s)
        at += size
    clock.advance(rng.choice([0.1, 10.0, 4_000.0]))
    listener.tick()
    connection.connection_lost(None)
    while arrivals:
        arrivals.pop(0).settle()
    return sum(begin < at for begin in bent_at), longest_s


@pytest.mark.timeout(1_800)
async def test_no_bytes_crash_hang_or_stay(monkeypatch):
    """Law: what a stranger sends raises nothing, holds up nobody for a second, and leaves nothing behind."""
    seed = int(os.environ.get("FUZZ_SEED", random.randrange(1 << 32)))
    print(f"FUZZ_SEED={seed} FUZZ_PACKETS={PACKETS}")
    rng, clock, arrivals, failures = random.Random(seed), HandSeconds(), [], []
    monkeypatch.setattr(events, "task_failed", lambda task, error: failures.append((task, error)))
    for quiet in ("protocol_broken", "refused", "queue_full"):
        monkeypatch.setattr(events, quiet, lambda *_, **__: None)
    users = (User(username="u", password="p"),)
    mine = Permission(publish=("a/#", "devices/{device}/#"), subscribe=("#",))
    listeners = [
        Listener(ListenSettings(port=0, **settings), arrivals.append, clock)
        for settings in ({}, {"users": users, "permissions": (mine,)}, {"max_packet_bytes": 1_024, "max_in_flight": 3})
    ]
    for listener in listeners:  # bound to a loop, without a port
        listener._loop = asyncio.get_running_loop()
        listener.gathering.bind(listener._loop)
        listener._access.bind(Never())
    count, longest_s, base_bytes = 0, 0.0, 0
    tracemalloc.start()
    try:
        while count < PACKETS:
            taken, took_s = converse(rng.choice(listeners), clock, rng, arrivals)
            count, longest_s = count + taken, max(longest_s, took_s)
            await asyncio.sleep(0)  # what was called for soon
            assert not failures, (seed, count, failures)
            if not base_bytes and count > PACKETS // 5:
                base_bytes = settled_bytes(listeners, clock, arrivals)
        kept_bytes = settled_bytes(listeners, clock, arrivals) - base_bytes
    finally:
        tracemalloc.stop()
    print(f"{count} bent packets, longest call {longest_s * 1e3:.1f} ms, {kept_bytes} bytes more than at a fifth")
    assert longest_s < LONGEST_S, seed
    assert kept_bytes < KEPT_BYTES, seed
    for listener in listeners:
        stats = listener.stats
        assert (stats.connections, stats.sessions, stats.subscriptions, stats.unsettled_bytes) == (0, 0, 0, 0), seed


class Never:
    """A loop on which nobody waits: guesses that must wait get no answer."""

    def call_later(self, *_):
        return None


def settled_bytes(listeners, clock, arrivals):
    """What is allocated once all sessions are over and what is retained is forgotten."""
    clock.advance(8 * 86_400.0)
    for listener in listeners:
        listener.tick()
        listener.gathering.end_turn()
        while arrivals:
            arrivals.pop(0).settle()
        for message in list(listener.exchange._retained.kept()):
            listener.exchange.retain(message._replace(payload=b""))
        listener.house.known.clear()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]

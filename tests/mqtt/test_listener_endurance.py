"""Damaged input by the thousand, churn, and the other event loop."""

import asyncio
import gc
import random
import time

import pytest
import uvloop

from gateway.config.settings import ListenSettings
from gateway.mqtt.connection import Connection
from gateway.mqtt.listener import Listener
from gateway.observe import events


class DeafTransport(asyncio.Transport):
    """Takes everything, is never full, remembers whether it was closed."""

    def __init__(self):
        super().__init__()
        self.written = []
        self.is_closed = False

    def write(self, data):
        assert isinstance(data, bytes)
        self.written.append(data)

    def close(self):
        self.is_closed = True

    abort = close

    def is_closing(self):
        return self.is_closed

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def get_write_buffer_size(self):
        return 0

    def pause_reading(self):
        pass

    resume_reading = pause_reading


def conversation(rng, wire):
    """What a client may say in one connection."""
    v5 = rng.random() < 0.5
    nothing = b"\0" if v5 else b""
    said = [wire.connect(f"dev{rng.randrange(20)}", v5=v5, clean=rng.random() < 0.5, will=("w", "x"))]
    for _ in range(rng.randint(1, 6)):
        topic = rng.choice(["a", "a/b", "$SYS/x", "ü/" * 20, "x" * 300])
        said.append(
            rng.choice(
                [
                    wire.publish(topic, rng.randbytes(rng.randrange(200)), qos=rng.randrange(3), mid=3, v5=v5),
                    wire.publish(topic, retain=True, qos=1, v5=v5, properties=b"\x23\0\1" if v5 else b""),
                    wire.packet(0x82, b"\0\1" + nothing + wire.text(rng.choice(["a/#", "+", "$share/g/a"])) + b"\1"),
                    wire.packet(0xA2, b"\0\1" + nothing + wire.text("a/#")),
                    b"\xc0\x00",
                    b"\x40\x02\x00\x01",
                    b"\x62\x02\x00\x03",
                    b"\xe0\x00",
                ]
            )
        )
    return said


def test_no_damage_to_the_stream_raises_or_leaves_anything_behind(seed, wire, monkeypatch):
    """M18: 100,000 packets, most of them damaged, in random pieces: no exception, no hang, no memory kept."""
    rng = random.Random(seed)
    bugs = []
    monkeypatch.setattr(events, "task_failed", lambda task, error: bugs.append(error))
    loop = asyncio.new_event_loop()
    now_s = [0.0]
    listener = Listener(ListenSettings(max_connections=50), lambda arrivals: arrivals.settle(), lambda: now_s[0])
    listener.gathering.bind(loop)
    packets, slowest_s = 0, 0.0
    while packets < 100_000:
        connection = Connection(listener)
        connection.connection_made(DeafTransport())
        said = conversation(rng, wire)
        packets += len(said)
        stream = bytearray(b"".join(said))
        for _ in range(rng.choice((0, 1, 1, 3))):
            stream[rng.randrange(len(stream))] = rng.randrange(256)
        start_s = time.perf_counter()
        while stream:
            size = rng.randint(1, len(stream))
            connection.data_received(bytes(stream[:size]))
            del stream[:size]
        slowest_s = max(slowest_s, time.perf_counter() - start_s)
        listener.gathering.end_turn()
        listener.gathering.flush()
        connection.connection_lost(None)
        if rng.random() < 0.01:
            now_s[0] += 1_000_000
            listener.tick()
    now_s[0] += 1_000_000
    listener.tick()
    listener.gathering.end_turn()
    loop.close()
    assert not bugs
    assert slowest_s < 1
    stats = listener.stats
    assert (stats.connections, stats.sessions, stats.subscriptions, stats.unsettled_bytes) == (0, 0, 0, 0)
    assert not listener.gathering._unsettled
    assert not listener.exchange._subscriptions._tree._root.below


def test_connections_that_are_gone_are_garbage(wire):
    """Nothing refers to a connection, its session or its messages once it is closed and settled."""
    loop = asyncio.new_event_loop()
    listener = Listener(ListenSettings(), lambda arrivals: arrivals.settle(), lambda: 0.0)
    listener.gathering.bind(loop)
    for number in range(200):
        connection = Connection(listener)
        connection.connection_made(DeafTransport())
        connection.data_received(wire.connect(f"dev{number}") + wire.publish("a", bytes(100), qos=1))
        listener.gathering.end_turn()
        listener.gathering.flush()
        connection.connection_lost(None)
    del connection
    loop.close()
    gc.collect()
    # Others' connections may still be on their way out; those of this listener may not.
    kept = [one for one in gc.get_objects() if isinstance(one, Connection)]
    assert not [one for one in kept if listener in gc.get_referents(one)]


def test_no_interleaving_of_settling_and_reconnecting_acknowledges_a_wrong_message(seed, wire):
    """M4: 1,000 random lives of one client that always uses the same few packet ids."""
    rng = random.Random(seed)
    for _ in range(1_000):
        loop = asyncio.new_event_loop()
        pending = []
        listener = Listener(ListenSettings(), pending.append, lambda: 0.0)
        listener.gathering.bind(loop)
        connections = []
        for _ in range(30):
            action = rng.random()
            if not connections or action < 0.15:  # takes over from the one before
                connection, transport = Connection(listener), DeafTransport()
                connection.connection_made(transport)
                connection.data_received(wire.connect("dev", clean=False))
                connections.append((connection, transport, []))
            elif action < 0.6:
                connection, _, sent = connections[-1]
                for _ in range(rng.randint(1, 3)):
                    sent.append(rng.randint(1, 3))
                    connection.data_received(wire.publish("a", qos=1, mid=sent[-1]))
                if rng.random() < 0.7:
                    listener.gathering.end_turn()
            elif pending:
                pending.pop(rng.randrange(len(pending))).settle()
                listener.gathering.flush()
        listener.gathering.end_turn()
        for arrivals in pending:
            arrivals.settle()
        listener.gathering.flush()
        loop.close()
        for index, (_, transport, sent) in enumerate(connections):
            written = b"".join(transport.written)[4:]
            acknowledged = [int.from_bytes(written[at + 2 : at + 4], "big") for at in range(0, len(written), 4)]
            assert written[::4] == b"\x40" * len(acknowledged)
            is_last = index == len(connections) - 1
            assert acknowledged == (sent if is_last else sent[: len(acknowledged)])


async def _churn(wire) -> None:
    """Everything once, over real sockets."""
    held = []

    def intake(arrivals):
        held.append(arrivals)
        asyncio.get_running_loop().call_later(0.001, arrivals.settle)

    listener = Listener(ListenSettings(port=0, max_unsettled_bytes=50_000), intake, time.monotonic)
    await listener.start()
    streams = []
    for number in range(8):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        streams.append((reader, writer))
        writer.write(wire.connect(f"dev{number}") + wire.packet(0x82, b"\0\1" + wire.text("all") + b"\1"))
        assert await reader.readexactly(9) == b"\x20\x02\0\0\x90\x03\0\1\1"

    async def send(reader, writer, number):
        for start in range(1, 1_001, 100):
            writer.write(
                b"".join(wire.publish(f"t/{number}", bytes(100), qos=1, mid=mid) for mid in range(start, start + 100))
            )
            await writer.drain()
        expected = b"".join(b"\x40\x02" + mid.to_bytes(2, "big") for mid in range(1, 1_001))
        assert await reader.readexactly(4_000) == expected

    await asyncio.gather(*(send(*stream, number) for number, stream in enumerate(streams)))
    assert sum(len(arrivals.topics) for arrivals in held) == 8_000
    assert listener.publish("all", b"hello") == 8
    for reader, writer in streams:
        assert (await reader.readexactly(14))[-5:] == b"hello"
        writer.write(b"\x40\x02\0\1")
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(wire.connect("dev0"))
    assert await streams[0][0].read() == b"", "taken over"
    await listener.stop()
    for its_reader, its_writer in [*streams, (reader, writer)]:
        await its_reader.read()
        its_writer.close()
    assert listener.stats.unsettled_bytes == 0


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_both_event_loops_carry_it(run, wire):
    """8,000 acknowledged messages through back-pressure, a fan-out, a take-over and a stop."""
    run(asyncio.wait_for(_churn(wire), 30))


async def _paused(wire) -> None:
    came = []
    listener = Listener(ListenSettings(port=0), came.append, time.monotonic)
    await listener.start()
    listener.pause()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(wire.connect("early") + wire.publish("a"))
    while not listener.stats.connections:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not listener.clients()
    listener.resume()
    assert await reader.readexactly(4) == b"\x20\x02\0\0"
    await listener.stop()
    assert [arrivals.topics for arrivals in came] == [["a"]]
    writer.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_connection_made_during_a_pause_is_not_read(run, wire):
    """The backlog of a full disk must not grow with every new device."""
    run(asyncio.wait_for(_paused(wire), 30))


async def _lazy(wire) -> None:
    listener = Listener(
        ListenSettings(port=0, max_queued_messages=10), lambda arrivals: arrivals.settle(), time.monotonic
    )
    await listener.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(wire.connect("lazy") + wire.packet(0x82, b"\0\1" + wire.text("a") + b"\1"))
    assert await reader.readexactly(9)
    writer.transport.pause_reading()
    (connection,) = listener._connections
    for _ in range(800):
        listener.publish("a", bytes(60_000), qos=0)
        await asyncio.sleep(0)
        assert connection._transport.get_write_buffer_size() < 1_000_000
    assert listener.stats.dropped_total["slow"] > 100
    for number in range(20):
        listener.publish("a", b"%d" % number)
    assert listener.clients()[0].queued == 10
    writer.transport.resume_reading()
    seen = b""
    while not seen.endswith(b"\x00\x01a\x00\x0a9"):
        seen = (seen + await reader.read(1_000_000))[-100:]
    await listener.stop()
    writer.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_subscriber_that_reads_again_gets_what_was_queued(run, wire):
    """Above the high-water mark QoS 0 is dropped and QoS 1 waits; below it, it flows on."""
    run(asyncio.wait_for(_lazy(wire), 30))

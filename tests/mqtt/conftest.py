"""A real listener on a free port, a disk that settles when told to, and a client that speaks plain bytes.

The client builds and reads packets by hand, so that it shares no mistake with the codec under test.
"""

import asyncio
import contextlib
import dataclasses

import pytest

from gateway.config.settings import ListenSettings
from gateway.mqtt.listener import Listener
from tests.mqtt.referee import Referee

PATIENCE_S = 10.0
both = pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5.0"])
"""What a test demands, it demands of both versions."""


class HandSeconds:
    """Monotonic seconds that only pass when told to."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class Desk:
    """Takes arrivals; settles them at once, or when asked."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self.arrivals = []
        self._came = asyncio.Event()

    def __call__(self, arrivals) -> None:
        self.arrivals.append(arrivals)
        self._came.set()
        if self.at_once:
            arrivals.settle()

    @property
    def messages(self) -> list[tuple[str, bytes, int]]:
        return [row for one in self.arrivals for row in zip(one.topics, one.payloads, one.flags, strict=True)]

    async def wait_for(self, count: int) -> None:
        """Until so many messages have come in."""

        async def enough() -> None:
            while len(self.messages) < count:
                self._came.clear()
                await self._came.wait()

        await asyncio.wait_for(enough(), PATIENCE_S)


@dataclasses.dataclass
class Bench:
    """A running listener and what it is made of."""

    listener: Listener
    desk: Desk
    clock: HandSeconds
    clients: list

    async def client(self, client_id="", **how):
        """A connected client; its CONNACK is in `client.connack`."""
        client = await self.socket()
        client.v5 = how.get("v5", False)
        client.send(connect(client_id, **how))
        client.connack = await client.packet()
        assert client.connack[0] == 0x20, client.connack
        return client

    async def socket(self):
        """A client that has said nothing yet."""
        client = RawClient(*await asyncio.open_connection("127.0.0.1", self.listener.port))
        self.clients.append(client)
        return client


class RawClient:
    """One socket, packet by packet. What it reads, a referee sees."""

    def __init__(self, reader, writer) -> None:
        self.reader = reader
        self.writer = writer
        self.v5 = False
        self.referee = Referee()

    def send(self, *packets: bytes) -> None:
        data = b"".join(packets)
        if not self.referee.is_greeted and data[:1] == b"\x10":
            with contextlib.suppress(AssertionError, IndexError):  # tests send strange things
                self.referee.introduce(data)
        self.writer.write(data)

    async def packet(self) -> tuple[int, bytes]:
        """The next packet: first byte, body."""
        return await asyncio.wait_for(self._packet(), PATIENCE_S)

    async def _packet(self) -> tuple[int, bytes]:
        first = (await self.reader.readexactly(1))[0]
        length = shift = 0
        while True:
            byte = (await self.reader.readexactly(1))[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                body = await self.reader.readexactly(length)
                self.referee.judge(first, body, shift // 7)
                return first, body

    async def message(self):
        """The next packet, which must be a PUBLISH."""
        first, body = await self.packet()
        assert first >> 4 == 3, (hex(first), body)
        return taken_apart(first, body, v5=self.v5)

    async def silence(self) -> None:
        """Nothing has been sent so far: the answer to a ping comes first."""
        self.send(b"\xc0\x00")
        assert await self.packet() == (0xD0, b"")

    async def closed(self) -> bytes:
        """What is left until the server closes."""
        try:
            data = await asyncio.wait_for(self.reader.read(), PATIENCE_S)
        except ConnectionResetError:
            return b""
        at = 0
        while at < len(data):
            length, shift, start = 0, 0, at + 1
            while True:
                byte, start = data[start], start + 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            self.referee.judge(data[at], data[start : start + length], shift // 7)
            at = start + length
        return data

    async def subscribe(self, *filters: str, options: int = 1, properties: bytes = b"") -> bytes:
        """Subscribe; returns the reason codes."""
        body = b"\x00\x07" + (varint(len(properties)) + properties if self.v5 else b"")
        body += b"".join(text(one) + bytes([options]) for one in filters)
        self.send(packet(0x82, body))
        first, answer = await self.packet()
        assert first == 0x90, (hex(first), answer)
        if not self.v5:
            return answer[2:]
        assert answer[2] < 0x80, "sentences are short"
        return answer[3 + answer[2] :]

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@dataclasses.dataclass
class Received:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    mid: int
    properties: bytes


def taken_apart(first: int, body: bytes, *, v5: bool) -> Received:
    size = int.from_bytes(body[:2], "big")
    topic, at = body[2 : 2 + size].decode(), 2 + size
    qos, mid, properties = first >> 1 & 3, 0, b""
    if qos:
        mid, at = int.from_bytes(body[at : at + 2], "big"), at + 2
    if v5:
        length = body[at]
        assert length < 0x80, "tests keep properties short"
        properties, at = body[at + 1 : at + 1 + length], at + 1 + length
    return Received(topic, body[at:], qos, bool(first & 1), bool(first & 8), mid, properties)


def varint(value: int) -> bytes:
    out = b""
    while True:
        value, low = value >> 7, value & 0x7F
        out += bytes([low | (0x80 if value else 0)])
        if not value:
            return out


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + varint(len(body)) + body


def connect(
    client_id="",
    *,
    v5=False,
    clean=True,
    keepalive=60,
    will=None,
    will_flags=0,
    will_properties=b"",
    username=None,
    password=None,
    properties=b"",
) -> bytes:
    flags = 0x02 if clean else 0
    body = varint(len(properties)) + properties if v5 else b""
    body += text(client_id)
    if will is not None:
        flags |= 0x04 | will_flags
        body += (varint(len(will_properties)) + will_properties if v5 else b"") + text(will[0]) + text(will[1])
    if username is not None:
        flags |= 0x80
        body += text(username)
    if password is not None:
        flags |= 0x40
        body += text(password)
    return packet(0x10, text("MQTT") + bytes([5 if v5 else 4, flags]) + keepalive.to_bytes(2, "big") + body)


def publish(topic, payload=b"x", *, qos=0, mid=1, v5=False, retain=False, dup=False, properties=b"") -> bytes:
    body = text(topic) + (mid.to_bytes(2, "big") if qos else b"")
    body += varint(len(properties)) + properties if v5 else b""
    return packet(0x30 | dup << 3 | qos << 1 | retain, body + payload)


@pytest.fixture
def wire():
    """The packet builders, for tests that write bytes."""

    class Wire:
        pass

    for builder in (connect, publish, packet, text, varint):
        setattr(Wire, builder.__name__, staticmethod(builder))
    return Wire


@pytest.fixture
def eventually():
    """`await eventually(condition)`: until it holds; every turn of the loop looks again."""

    async def wait(condition) -> None:
        async def look() -> None:
            while not condition():
                await asyncio.sleep(0)

        await asyncio.wait_for(look(), PATIENCE_S)

    return wait


@pytest.fixture
async def open_listener():
    """Starts listeners: `await open_listener(at_once=..., users=...)`."""
    benches = []

    async def build(*, at_once=True, **settings) -> Bench:
        clock, desk = HandSeconds(), Desk(at_once=at_once)
        listener = Listener(ListenSettings(**({"port": 0} | settings)), desk, clock)
        await listener.start()
        benches.append(Bench(listener, desk, clock, []))
        return benches[-1]

    yield build
    for bench in benches:
        for client in bench.clients:
            await client.close()
        await bench.listener.stop()


@pytest.fixture
async def bench(open_listener):
    """A listener with default settings whose disk settles at once."""
    return await open_listener()


@pytest.fixture
async def slow_bench(open_listener):
    """A listener whose disk settles when the test says so."""
    return await open_listener(at_once=False)

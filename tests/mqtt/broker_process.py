"""Brokers for the tests of the client: a real mosquitto, and one that misbehaves on request.

`ScriptedBroker` is an independent witness: it writes and reads literal packet bytes and shares no code with the
gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

from gateway.config.settings import ConnectSettings, Credentials, TlsSettings
from gateway.model import Arrivals
from gateway.mqtt.client import BrokerClient

TIMEOUT_S = 15.0
"""For anything that a test waits for; none takes as long when all is well."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def until(claim, what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Wait until `claim()` holds."""
    try:
        async with asyncio.timeout(timeout_s):
            while not claim():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"did not happen within {timeout_s} s: {what}") from None


class Mosquitto:
    """A mosquitto of its own on a port of its own."""

    def __init__(self, folder: Path, *lines: str, listener: tuple[str, ...] = (), keeps: bool = True) -> None:
        self.port = free_port()
        self.config = folder / f"mosquitto-{self.port}.conf"
        store = folder / f"store-{self.port}"
        store.mkdir()
        self.config.write_text(
            "\n".join(
                [
                    "per_listener_settings false",
                    f"listener {self.port} 127.0.0.1",
                    *listener,
                    "user root",  # as root it would else become a user that may not write here; else ignored
                    "allow_anonymous true",
                    "max_queued_messages 0",
                    f"persistence {'true' if keeps else 'false'}",
                    f"persistence_location {store}/",
                    *lines,
                    "",
                ]
            )
        )
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.process = subprocess.Popen(
            ["mosquitto", "-c", str(self.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                assert self.process.poll() is None, "mosquitto did not start"
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
                    return

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(sign)
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(TIMEOUT_S)
            self.process = None

    def send_signal(self, sign: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(sign)

    async def publish(self, topic: str, payloads: list[str], *, qos: int = 1, retain: bool = False, extra=()) -> None:
        """Every payload as one message, in order, acknowledged by the broker when this returns."""
        process = await asyncio.create_subprocess_exec(
            "mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.port), "-t", topic, "-q", str(qos), "-l",
            *(("-r",) if retain else ()), *extra,
            stdin=subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(TIMEOUT_S):
            await process.communicate("".join(f"{payload}\n" for payload in payloads).encode())
        assert process.returncode == 0


class Ingest:
    """What stands in for ingest: keeps batches, and settles them at once or when told to."""

    def __init__(self, *, settles: bool = True) -> None:
        self.settles = settles
        self.batches: list[Arrivals] = []
        self.failing: list[Exception] = []

    def __call__(self, arrivals: Arrivals) -> None:
        if self.failing:
            raise self.failing.pop(0)
        self.batches.append(arrivals)
        if self.settles:
            arrivals.settle()

    @property
    def payloads(self) -> list[str]:
        return [payload.decode() for batch in self.batches for payload in batch.payloads]

    @property
    def flags(self) -> list[int]:
        return [flags for batch in self.batches for flags in batch.flags]

    @property
    def topics(self) -> list[str]:
        return [topic for batch in self.batches for topic in batch.topics]

    def settle(self) -> None:
        for batch in self.batches:
            batch.settle()


class Naps:
    """A `sleep` for the client that remembers what it was asked for, and waits for nothing or until told."""

    def __init__(self, *, held: bool = False) -> None:
        self.asked: list[float] = []
        self.go = asyncio.Event()
        if not held:
            self.go.set()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await asyncio.sleep(0.01)
        await self.go.wait()


@contextlib.asynccontextmanager
async def connected_client(
    port: int,
    intake,
    *,
    filters=("t/#",),
    client_id: str = "gateway-test",
    remember: Path | None = None,
    sleep=None,
    waits: bool = True,
    max_age_s: float = 60.0,
    host: str = "127.0.0.1",
    keepalive_s: int = 30,
    max_unsettled_bytes: int = 16 * 1024 * 1024,
    tls: TlsSettings | None = None,
    credentials: Credentials | None = None,
):
    """A client at work; stopped at the end, whatever happens."""
    settings = ConnectSettings(
        host=host,
        port=port,
        keepalive_s=keepalive_s,
        max_unsettled_bytes=max_unsettled_bytes,
        tls=tls,
        credentials=credentials,
    )
    client = BrokerClient(
        settings,
        client_id,
        filters,
        intake,
        random.Random(7),
        remember=remember,
        publish_max_age_s=max_age_s,
        sleep=sleep or Naps(),
    )
    await client.start()
    try:
        if waits:
            await until(lambda: client.stats.connected, "the client connects")
        yield client
    finally:
        await client.stop()


# Literal packets, 3.1.1 unless they say otherwise.

CONNACK = bytes.fromhex("20020000")
CONNACK_SESSION = bytes.fromhex("20020100")
CONNACK_V5 = bytes.fromhex("2003000000")
CONNACK_V5_SESSION = bytes.fromhex("2003010000")
PINGRESP = bytes.fromhex("d000")


def string(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return len(raw).to_bytes(2, "big") + raw


def varint(value: int) -> bytes:
    out = b""
    while True:
        value, digit = divmod(value, 128)
        out += bytes([digit | (0x80 if value else 0)])
        if not value:
            return out


def publish_packet(
    topic: str | bytes,
    payload: bytes,
    mid: int = 0,
    *,
    qos: int = 1,
    dup: bool = False,
    v5: bool = True,
    properties=b"",
) -> bytes:
    body = string(topic)
    if qos:
        body += mid.to_bytes(2, "big")
    if v5:
        body += varint(len(properties)) + properties
    body += payload
    return bytes([0x30 | (8 if dup else 0) | (qos << 1)]) + varint(len(body)) + body


class Peer:
    """One connection of the client under test, seen from the broker's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number
        """1 for the first connection."""
        self.packets: list[tuple[int, bytes]] = []
        """All that came: first byte and body."""

    async def packet(self) -> tuple[int, bytes]:
        """The next packet; raises IncompleteReadError at the end."""
        first = (await self.reader.readexactly(1))[0]
        length = shift = 0
        while True:
            digit = (await self.reader.readexactly(1))[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                break
        body = await self.reader.readexactly(length)
        self.packets.append((first, body))
        return first, body

    async def expect(self, kind: int) -> bytes:
        """Skip to the next packet of this type."""
        while True:
            first, body = await self.packet()
            if first >> 4 == kind:
                return body

    async def send(self, *packets: bytes) -> None:
        self.writer.write(b"".join(packets))
        await self.writer.drain()

    def of_kind(self, kind: int) -> list[bytes]:
        return [body for first, body in self.packets if first >> 4 == kind]

    @property
    def version(self) -> int:
        return self.of_kind(1)[0][6]

    async def accept(self, *, session: bool = False, v5: bool = True, properties: bytes = b"") -> None:
        """CONNECT and CONNACK."""
        await self.expect(1)
        flags = b"\x01" if session else b"\x00"
        if v5:
            await self.send(
                b"\x20" + varint(3 + len(properties)) + flags + b"\0" + varint(len(properties)) + properties
            )
        else:
            await self.send(b"\x20\x02" + flags + b"\0")

    async def grant(self, *, v5: bool = True, code: int = 1) -> bytes:
        """SUBSCRIBE and SUBACK of one filter. Returns the SUBSCRIBE's body."""
        body = await self.expect(8)
        content = body[:2] + (b"\0" if v5 else b"") + bytes([code])
        await self.send(b"\x90" + varint(len(content)) + content)
        return body

    async def serve(self) -> None:
        """Answer pings, collect everything, until the client leaves."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                first, _ = await self.packet()
                if first == 0xC0:
                    await self.send(PINGRESP)
                elif first == 0xE0:
                    return


class ScriptedBroker:
    """Plays `script(peer)` to everybody who connects. What it raises fails the test."""

    def __init__(self, script) -> None:
        self.script = script
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.server.wait_closed()
        if self.failures and _exc[1] is None:
            raise self.failures[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self.tasks.add(task)
        peer = Peer(reader, writer, len(self.peers) + 1)
        self.peers.append(peer)
        try:
            await self.script(peer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            self.tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

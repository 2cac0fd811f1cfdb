"""What it costs to receive from a broker: the gateway's client beside C subscribers and paho-mqtt, in one run.

    python -m benches.broker_client [--streams qos1 qos0 ...] [--messages 100000] [--rounds 3] [--topics 50]

One mosquitto, one producer (window 1,000, in a process of its own), one consumer at a time, and all of them in each
round, so that the ratios are of one run. Messages are 105 bytes of JSON.

    qos1         every message at QoS 1, and acknowledged
    qos0         every message at QoS 0, but for one in 250, which tells the producer how far the broker is
    properties   QoS 1 by an MQTT 5 client, with a content type and an expiry
    window       QoS 1 from a broker that strictly has at most 20 messages without acknowledgement under way

Consumers: `counting in C` (counting_subscriber.c) does the least that a subscriber can do; `mosquitto_sub` writes to
/dev/null; `at once` settles in the call; `commits` settles like a log whose sync takes 2 ms; `paho-mqtt` is what the
client would be without a parser of its own. Rate: from the producer's first packet to the consumer's last message. CPU
is the consumer's own. Takes about 3 s per round and consumer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import random
import resource
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog
import uvloop
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from gateway.config.settings import ConnectSettings
from gateway.mqtt.client import BrokerClient
from gateway.mqtt.packets import V5, V311

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAYLOAD = b'{"temperature": 21.53, "humidity": 55.2, "seq": 1234567, "at": 1700000000, "unit": "C", "note": "bench"}  '[
    :105
]
PROPERTIES = b"\x02\0\0\x0e\x10\x03\0\x10application/json"
WINDOW = 1_000
STEP = WINDOW // 4
STRICT_WINDOW = 20
COMMIT_S = 0.002
STREAMS = ("qos1", "qos0", "properties", "window")


class Figures(NamedTuple):
    rate: float
    cpu_us: float
    batch: float = 0.0


# The producers, in a process of their own: ready-made packets, large writes, PUBACKs only counted.


def produce(stream: str, port: int, messages: int, topics: int) -> None:
    sock = socket.create_connection(("127.0.0.1", port))
    hello = b"\0\4MQTT\5\2\0\x3c\0\0\x08producer" if stream == "properties" else b"\0\4MQTT\4\2\0\x3c\0\x08producer"
    sock.sendall(bytes((0x10, len(hello))) + hello)
    assert sock.recv(64)[:1] == b"\x20"
    packets = [packet(stream, number, topics) for number in range(1, WINDOW + 1)]
    quarters = [b"".join(packets[start : start + STEP]) for start in range(0, WINDOW, STEP)]
    acks_of_step = 1 if stream == "qos0" else STEP
    sent = acked_bytes = 0
    print(time.perf_counter(), flush=True)  # the clock is the same in all processes
    while (acked := acked_bytes // 4 // acks_of_step * STEP) < messages:
        while sent < messages and sent - acked <= WINDOW - STEP:
            sock.sendall(quarters[sent // STEP % 4])
            sent += STEP
        acked_bytes += len(sock.recv(65_536))
    sock.sendall(b"\xe0\0")


def packet(stream: str, number: int, topics: int) -> bytes:
    topic = f"bench/{number % topics}/climate".encode()
    has_mid = stream != "qos0" or not number % STEP
    body = len(topic).to_bytes(2, "big") + topic + (number.to_bytes(2, "big") if has_mid else b"")
    if stream == "properties":
        body += bytes((len(PROPERTIES),)) + PROPERTIES
    body += PAYLOAD
    length = bytes((len(body),)) if len(body) < 128 else bytes((len(body) & 0x7F | 0x80, len(body) >> 7))
    return (b"\x32" if has_mid else b"\x30") + length + body


def feed(server: socket.socket, messages: int, topics: int) -> None:
    """In the broker's place: one subscriber of 3.1.1, and never more than the strict window without acknowledgement."""
    sock, _ = server.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    came = b""
    while b"bench/#" not in came:
        came += sock.recv(4_096)
        if came[0] == 0x10:
            sock.sendall(b"\x20\2\0\0")
            came = came[2 + came[1] :]
    sock.sendall(b"\x90\3" + came[2:4] + b"\1")
    packets = [packet("window", number, topics) for number in range(1, WINDOW + 1)]
    sent = acked_bytes = 0
    print(time.perf_counter(), flush=True)
    while acked_bytes < 4 * messages:
        free = min(messages, STRICT_WINDOW + acked_bytes // 4) - sent
        for number in range(sent, sent + free):  # each by itself, as mosquitto does
            sock.sendall(packets[number % WINDOW])
        sent += free
        acked_bytes += len(sock.recv(65_536))
    while sock.recv(4_096):
        pass


class Source(NamedTuple):
    """Where a stream comes from."""

    stream: str
    port: int
    messages: int
    topics: int
    feeder: subprocess.Popen[bytes] | None
    """Runs before the consumer does, in the broker's place."""

    def start(self) -> subprocess.Popen[bytes]:
        """Begin to send, if that does not begin by itself."""
        words = (self.stream, f"{self.port}", f"{self.messages}", f"{self.topics}")
        return self.feeder or subprocess.Popen([sys.executable, __file__, "--produce", *words], stdout=subprocess.PIPE)


def begun_s(sender: subprocess.Popen[bytes]) -> float:
    """When the sender sent its first message."""
    assert sender.stdout is not None
    return float(sender.stdout.readline())


# The consumers.


def measure_client(source: Source, *, version: int = V5, commits: bool = False) -> Figures:
    return uvloop.run(consume(source, version=version, commits=commits))


async def consume(source: Source, *, version: int, commits: bool) -> Figures:
    loop = asyncio.get_running_loop()
    ready, done = asyncio.Event(), asyncio.Event()
    received = batches = 0
    waiting: list = []

    def commit() -> None:
        written, waiting[:] = waiting[:], []
        for settle in written:
            settle()

    def intake(arrivals) -> None:
        nonlocal received, batches
        if arrivals.topics == ["bench/ready"]:
            arrivals.settle()
            ready.set()
            return
        received += len(arrivals.topics)
        batches += 1
        if commits:
            if not waiting:
                loop.call_later(COMMIT_S, commit)
            waiting.append(arrivals.settle)
        else:
            arrivals.settle()
        if received >= source.messages:
            done.set()

    settings = ConnectSettings(host="127.0.0.1", port=source.port)
    client = BrokerClient(settings, "bench", ["bench/#"], intake, random.Random(1), mono_s=time.perf_counter)
    client._version = version  # mosquitto takes both, so that nothing else makes the client speak 3.1.1
    started_cpu_s = time.process_time()
    await client.start()
    if source.feeder is None:
        client.publish("bench/ready", b"comes back once the subscription stands")
        await asyncio.wait_for(ready.wait(), 10)
        started_cpu_s = time.process_time()
    sender = source.start()
    await asyncio.wait_for(done.wait(), 120)
    wall_s, cpu_s = time.perf_counter() - begun_s(sender), time.process_time() - started_cpu_s
    commit()
    await asyncio.sleep(0.05)
    await client.stop()
    sender.wait(10)
    return Figures(source.messages / wall_s, cpu_s / source.messages * 1e6, source.messages / batches)


def measure_process(source: Source, *command: str) -> Figures:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    consumer = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    time.sleep(0.2)
    sender = source.start()
    assert consumer.wait(120) == 0
    ended_s = time.perf_counter()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall_s = ended_s - begun_s(sender)
    sender.wait(10)
    cpu_s = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
    return Figures(source.messages / wall_s, cpu_s / source.messages * 1e6)


def measure_c(program: Path, source: Source) -> Figures:
    qos = "0" if source.stream == "qos0" else "1"
    return measure_process(source, str(program), f"{source.port}", qos, f"{source.messages}")


def measure_mosquitto_sub(source: Source) -> Figures:
    version = "5" if source.stream == "properties" else "311"
    words = ("-p", f"{source.port}", "-q", "1", "-t", "bench/#", "-C", f"{source.messages}", "-i", "sub", "-V", version)
    return measure_process(source, "mosquitto_sub", *words)


def measure_paho(source: Source) -> Figures:
    """The library by itself, driven like the gateway's client: manual acknowledgement, one message at a time."""
    client = Client(CallbackAPIVersion.VERSION2, client_id="paho", manual_ack=True)
    received = 0

    def on_message(_client, _data, message) -> None:
        nonlocal received
        received += 1
        if message.qos:
            client.ack(message.mid, message.qos)

    client.on_message = on_message
    client.on_connect = lambda *_told: client.subscribe("bench/#", 1)
    client.connect("127.0.0.1", source.port)
    started_s = time.perf_counter()
    while time.perf_counter() - started_s < 0.2:
        client.loop(0.05)
    started_cpu_s = time.process_time()
    sender = source.start()
    while received < source.messages:
        select.select([client.socket()], [], [], 1.0)
        client.loop_read()
        if client.want_write():
            client.loop_write()
    wall_s, cpu_s = time.perf_counter() - begun_s(sender), time.process_time() - started_cpu_s
    client.disconnect()
    sender.wait(10)
    return Figures(source.messages / wall_s, cpu_s / source.messages * 1e6, 1.0)


# The run.


@contextlib.contextmanager
def open_source(stream: str, messages: int, topics: int) -> Iterator[Source]:
    """A mosquitto without sessions of earlier consumers, or the strict broker."""
    with contextlib.ExitStack() as stack:
        if stream == "window":
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            words = (f"{server.fileno()}", f"{messages}", f"{topics}")
            feeder = subprocess.Popen(
                [sys.executable, __file__, "--feed", *words], stdout=subprocess.PIPE, pass_fds=[server.fileno()]
            )
            stack.callback(feeder.kill)
            yield Source(stream, server.getsockname()[1], messages, topics, feeder)
        else:
            yield Source(stream, stack.enter_context(fresh_broker()), messages, topics, None)


@contextlib.contextmanager
def fresh_broker() -> Iterator[int]:
    """A mosquitto. Yields its port."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        config = Path(folder) / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
        broker = subprocess.Popen(["mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        try:
            yield port
        finally:
            broker.terminate()
            broker.wait()


def consumers(stream: str, program: Path | None) -> dict[str, Callable[[Source], Figures]]:
    """Who takes turns with a stream. The first is what the others are compared with."""
    rows: dict[str, Callable[[Source], Figures]] = {}
    if program is not None and stream != "properties":
        rows["counting in C"] = partial(measure_c, program)
    rows["mosquitto_sub"] = measure_mosquitto_sub
    if stream == "window":
        rows["gateway, at once"] = partial(measure_client, version=V311)
        rows["gateway, commits"] = partial(measure_client, version=V311, commits=True)
        return rows
    rows["gateway, MQTT 5, at once"] = measure_client
    rows["gateway, MQTT 5, commits"] = partial(measure_client, commits=True)
    if stream == "qos1":
        rows["gateway, 3.1.1, at once"] = partial(measure_client, version=V311)
        rows["gateway, 3.1.1, commits"] = partial(measure_client, version=V311, commits=True)
    rows["paho-mqtt by itself"] = measure_paho
    return rows


def report(stream: str, program: Path | None, messages: int, topics: int, rounds: int) -> None:
    rows = consumers(stream, program)
    found: dict[str, list[Figures]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, measure in rows.items():
            with open_source(stream, messages, topics) as source:
                found[name].append(measure(source))
    first = next(iter(found.values()))
    print(f"\n{stream + ':':26} {'k msg/s':>8} {'of the first':>13} {'CPU us/msg':>11} {'msg/batch':>10}")
    for name, figures in found.items():
        rate, cpu_us, batch = (statistics.median(column) for column in zip(*figures, strict=True))
        share = statistics.median(one.rate / base.rate for one, base in zip(figures, first, strict=True))
        print(f"{name:26} {rate / 1000:8.1f} {share:13.2f} {cpu_us:11.2f} {batch:10.0f}", flush=True)


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # errors only
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=STREAMS)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--topics", type=int, default=50)
    parser.add_argument("--produce", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--feed", nargs=3, type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.produce:
        produce(words.produce[0], *map(int, words.produce[1:]))
        return
    if words.feed:
        feed(socket.socket(fileno=words.feed[0]), *words.feed[1:])
        return
    messages = words.messages - words.messages % STEP
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, uvloop {uvloop.__version__}"
    )
    print(f"{messages:,} messages of {len(PAYLOAD)} bytes, {words.topics} topics; median of {words.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        program = None
        if compiler := shutil.which("cc"):
            program = Path(folder) / "counting_subscriber"
            source = Path(__file__).with_name("counting_subscriber.c")
            subprocess.run([compiler, "-O2", "-o", program, source], check=True)
        for stream in words.streams:
            report(stream, program, messages, words.topics, words.rounds)


if __name__ == "__main__":
    main()

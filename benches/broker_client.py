"""What it costs to receive from a broker: the gateway's client beside mosquitto_sub, on the same stream, in one run.

    python benches/broker_client.py [--messages 100000] [--rounds 3] [--topics 50]

One mosquitto, one producer (QoS 1, window 1,000, in a process of its own), one consumer at a time. Every message is 105
bytes of JSON and is acknowledged. `at once` settles in the call; `commits` settles like a log whose sync takes 2 ms, so
that batches gather. CPU is the consumer's own. Takes about 2 s per round and consumer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import random
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog
import uvloop

from gateway.config.settings import ConnectSettings
from gateway.mqtt.client import BrokerClient
from gateway.mqtt.packets import V5, V311

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAYLOAD = b'{"temperature": 21.53, "humidity": 55.2, "seq": 1234567, "at": 1700000000, "unit": "C", "note": "bench"}  '[
    :105
]
PRODUCER_WINDOW = 1_000
COMMIT_S = 0.002


class Figures(NamedTuple):
    rate: float
    cpu_us: float
    batch: float


# The producer, in its own process: ready-made packets, large writes, PUBACKs only counted.


def produce(port: int, messages: int, topics: int) -> None:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(b"\x10\x14\0\4MQTT\4\2\0\x3c\0\x08producer")
    assert sock.recv(4)[:2] == b"\x20\x02"
    packets = [packet(f"bench/{mid % topics}/climate".encode(), mid) for mid in range(1, PRODUCER_WINDOW + 1)]
    step = PRODUCER_WINDOW // 4
    quarters = [b"".join(packets[start : start + step]) for start in range(0, PRODUCER_WINDOW, step)]
    sent = acked_bytes = 0
    while acked_bytes < 4 * messages:
        while sent < messages and sent - acked_bytes // 4 <= PRODUCER_WINDOW - step:
            sock.sendall(quarters[sent // step % 4])
            sent += step
        acked_bytes += len(sock.recv(65_536))
    sock.sendall(b"\xe0\0")


def packet(topic: bytes, mid: int) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic + mid.to_bytes(2, "big") + PAYLOAD
    assert len(body) < 16_384
    length = bytes((len(body),)) if len(body) < 128 else bytes((len(body) & 0x7F | 0x80, len(body) >> 7))
    return b"\x32" + length + body


def start_producer(port: int, messages: int, topics: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "--produce", f"{port}", f"{messages}", f"{topics}"])


# The consumers.


def measure_client(port: int, messages: int, topics: int, *, version: int, commits: bool) -> Figures:
    return uvloop.run(consume(port, messages, topics, version=version, commits=commits))


async def consume(port: int, messages: int, topics: int, *, version: int, commits: bool) -> Figures:
    loop = asyncio.get_running_loop()
    ready, done = asyncio.Event(), asyncio.Event()
    received = batches = 0
    first: tuple[float, float] | None = None
    waiting: list = []

    def commit() -> None:
        written, waiting[:] = waiting[:], []
        for settle in written:
            settle()

    def intake(arrivals) -> None:
        nonlocal received, batches, first
        if arrivals.topics == ["bench/ready"]:
            arrivals.settle()
            ready.set()
            return
        if first is None:
            first = (time.perf_counter(), time.process_time())
        received += len(arrivals.topics)
        batches += 1
        if commits:
            if not waiting:
                loop.call_later(COMMIT_S, commit)
            waiting.append(arrivals.settle)
        else:
            arrivals.settle()
        if received >= messages:
            done.set()

    client = BrokerClient(ConnectSettings(host="127.0.0.1", port=port), "bench", ["bench/#"], intake, random.Random(1))
    client._version = version  # mosquitto takes both, so that nothing else makes the client speak 3.1.1
    await client.start()
    client.publish("bench/ready", b"comes back once the subscription stands")
    await asyncio.wait_for(ready.wait(), 10)
    producer = start_producer(port, messages, topics)
    await asyncio.wait_for(done.wait(), 120)
    wall_s, cpu_s = time.perf_counter() - first[0], time.process_time() - first[1]
    commit()
    await asyncio.sleep(0.05)
    assert client.stats.acked_total == messages + 1, client.stats
    producer.wait()
    await client.stop()
    return Figures(messages / wall_s, cpu_s / messages * 1e6, messages / batches)


def measure_mosquitto_sub(port: int, messages: int, topics: int) -> Figures:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    consumer = subprocess.Popen(
        ["mosquitto_sub", "-p", f"{port}", "-q", "1", "-t", "bench/#", "-C", f"{messages}", "-i", "sub"],
        stdout=subprocess.PIPE,
    )
    time.sleep(0.2)
    producer = start_producer(port, messages, topics)
    assert consumer.stdout is not None
    os.read(consumer.stdout.fileno(), 1)
    started_s = time.perf_counter()
    while os.read(consumer.stdout.fileno(), 1 << 20):
        pass
    wall_s = time.perf_counter() - started_s
    consumer.wait()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    producer.wait()
    cpu_s = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
    return Figures(messages / wall_s, cpu_s / messages * 1e6, 0.0)


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # errors only
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--topics", type=int, default=50)
    parser.add_argument("--produce", nargs=3, type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.produce:
        produce(*words.produce)
        return
    messages = words.messages - words.messages % (PRODUCER_WINDOW // 4)
    report(messages, words.topics, words.rounds)


@contextlib.contextmanager
def fresh_broker() -> Iterator[int]:
    """A mosquitto without sessions of earlier consumers. Yields its port."""
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


def report(messages: int, topics: int, rounds: int) -> None:
    rows: dict[str, Callable[[int], Figures]] = {
        "mosquitto_sub": lambda port: measure_mosquitto_sub(port, messages, topics),
        "gateway, MQTT 5, at once": lambda port: measure_client(port, messages, topics, version=V5, commits=False),
        "gateway, MQTT 5, commits": lambda port: measure_client(port, messages, topics, version=V5, commits=True),
        "gateway, 3.1.1, at once": lambda port: measure_client(port, messages, topics, version=V311, commits=False),
        "gateway, 3.1.1, commits": lambda port: measure_client(port, messages, topics, version=V311, commits=True),
    }
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, uvloop {uvloop.__version__}"
    )
    print(f"{messages:,} messages of {len(PAYLOAD)} bytes, {topics} topics; median of {rounds} rounds")
    print(f"{'consumer':26} {'k msg/s':>8} {'CPU us/msg':>11} {'msg/batch':>10}")
    found: dict[str, list[Figures]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, measure in rows.items():
            with fresh_broker() as port:
                found[name].append(measure(port))
    for name, figures in found.items():
        rate, cpu_us, batch = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"{name:26} {rate / 1000:8.1f} {cpu_us:11.2f} {batch:10.0f}")


if __name__ == "__main__":
    main()

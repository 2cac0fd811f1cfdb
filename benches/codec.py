"""What receiving costs, in µs per PUBLISH on one core, without sockets and disk.

    python benches/codec.py [--messages 200000]

Fixed inputs; each row is the best of five runs, so that neighbours on the machine count as little as possible. The last
rows go through a real `Connection` with a transport that only counts, so they hold everything that a message costs the
listener from `data_received` to its PUBACK, but for system calls.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable

from gateway.config.settings import ListenSettings
from gateway.mqtt.codec import decode, encode_pubacks, encode_publish
from gateway.mqtt.connection import Connection
from gateway.mqtt.listener import Listener
from gateway.mqtt.packets import V5, V311
from gateway.mqtt.turn import Turn, learn, scan
from gateway.mqtt.wire import Body, frame_at

PAYLOAD = b'{"temperature": 21.53, "humidity": 48.1, "battery": 3.02, "seq": 123456, "ts": 1700000000123, "unit": "C"}'
READ_BYTES = 256 * 1024
TOPICS = [f"devices/sensor-{number:03}/climate" for number in range(100)]


def stream(messages: int, version: int, qos: int) -> bytes:
    """So many PUBLISH packets, one after the other."""
    return b"".join(
        encode_publish(
            TOPICS[number % len(TOPICS)], PAYLOAD, version=version, qos=qos, retain=False, mid=number % 65_535 + 1
        )
        for number in range(messages)
    )


def best_us(run: Callable[[], None], messages: int) -> float:
    """The fastest of five."""
    times_s = []
    for _ in range(5):
        start_s = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - start_s)
    return min(times_s) / messages * 1e6


def scanning(data: bytes, version: int) -> Callable[[], None]:
    """The tight loop alone, in reads of the size that asyncio makes."""
    known: dict[bytes, str] = {}
    for topic in TOPICS:
        learn(known, topic)
    size = READ_BYTES // (len(data) // data.count(PAYLOAD)) * (len(data) // data.count(PAYLOAD))
    reads = [data[start : start + size] for start in range(0, len(data), size)]

    def run() -> None:
        for read in reads:
            stopped = scan(read, 0, 1 << 20, known, Turn(), [], v5=version == V5)
            assert stopped == len(read), stopped

    return run


def general(data: bytes, version: int) -> Callable[[], None]:
    """The way of packets that are out of the ordinary."""

    def run() -> None:
        position = 0
        while position < len(data):
            frame = frame_at(data, position, 1 << 20)
            decode(frame.first, Body(data, frame.start, frame.stop), version)
            position = frame.stop

    return run


class CountingTransport(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written_bytes = 0

    def write(self, data: bytes) -> None:
        self.written_bytes += len(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False


def listening(data: bytes, version: int, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """From `data_received` to the PUBACKs, each turn settled at once."""
    listener = Listener(ListenSettings(max_unsettled_bytes=1 << 40), lambda arrivals: arrivals.settle(), time.monotonic)
    listener.gathering.bind(loop)
    reads = [data[start : start + READ_BYTES] for start in range(0, len(data), READ_BYTES)]

    def run() -> None:
        connection = Connection(listener)
        connection.connection_made(CountingTransport())
        properties = b"\0" if version == V5 else b""
        hello = b"\0\4MQTT" + bytes((version, 2)) + b"\0\0" + properties + b"\0\5bench"
        connection.data_received(bytes((0x10, len(hello))) + hello)
        for read in reads:
            connection.data_received(read)
            listener.gathering.end_turn()
            listener.gathering.flush()
        connection.connection_lost(None)

    return run


def main() -> None:
    """Print one line per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200_000)
    messages = parser.parse_args().messages
    loop = asyncio.new_event_loop()
    mids = [number.to_bytes(2, "big") for number in range(1, 1_001)]
    print(f"Python {sys.version.split()[0]}, {messages} messages, payload {len(PAYLOAD)} B, {len(TOPICS)} topics")
    print(f"{'case':44} {'µs each':>8} {'per second':>12}")
    rows: list[tuple[str, float]] = []
    for name, version in (("3.1.1", V311), ("5.0", V5)):
        for qos in (0, 1):
            data = stream(messages, version, qos)
            rows.append((f"scan, {name}, QoS {qos}", best_us(scanning(data, version), messages)))
        few = messages // 10
        rows.append((f"general decoder, {name}, QoS 1", best_us(general(stream(few, version, 1), version), few)))
        rows.append((f"data_received to PUBACK, {name}, QoS 1", best_us(listening(data, version, loop), messages)))
    rows.append(("encode PUBACK, 1,000 at a time", best_us(lambda: void(encode_pubacks(mids)), 1_000)))
    rows.append(
        ("encode PUBLISH, 3.1.1, QoS 1", best_us(lambda: void(stream(messages // 10, V311, 1)), messages // 10))
    )
    for name, us in rows:
        print(f"{name:44} {us:8.3f} {1e6 / us:12,.0f}")
    loop.close()


def void(_: object) -> None:
    """Nothing more to do with it."""


if __name__ == "__main__":
    main()

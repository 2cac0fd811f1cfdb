"""A load of QoS 1 publishes from many connections, each with a window. Literal MQTT 3.1.1 bytes, made beforehand."""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import struct
import time

PAYLOAD = b'{"temperature": 21.5, "humidity": 40.1, "seq": %d, "ts": 1795449600123, "status": "ok", "battery": 3.71}'


def _packet(kind: int, body: bytes) -> bytes:
    length, rest = b"", len(body)
    while True:
        rest, digit = rest >> 7, rest & 0x7F
        length += bytes([digit | (0x80 if rest else 0)])
        if not rest:
            return bytes([kind]) + length + body


def _text(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


class Connection:
    """One device: at most `window` publishes without acknowledgement, in two halves so that the pipe stays full."""

    def __init__(self, port: int, number: int, count: int, window: int) -> None:
        topic = _text(b"devices/dev-%d/climate" % number)
        half = max(1, window // 2)
        self.blocks = [
            b"".join(
                _packet(0x32, topic + struct.pack(">H", index % 65_000 + 1) + PAYLOAD % index)
                for index in range(start, min(start + half, count))
            )
            for start in range(0, count, half)
        ]
        self.half, self.window, self.count = half, window, count
        self.sent_blocks = self.acked_bytes = 0
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(_packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + _text(b"load-%d" % number)))
        if self.socket.recv(4)[:2] != b"\x20\x02":
            raise SystemExit("no CONNACK")

    def pump(self) -> None:
        """Send what the window allows."""
        acked = self.acked_bytes // 4
        while self.sent_blocks < len(self.blocks):
            outstanding = min(self.sent_blocks * self.half, self.count) - acked
            if outstanding + self.half > max(self.window, self.half):
                return
            self.socket.sendall(self.blocks[self.sent_blocks])
            self.sent_blocks += 1

    def take(self) -> bool:
        """Read acknowledgements. True when all have come."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise SystemExit("the server closed the connection")
        self.acked_bytes += len(data)
        return self.acked_bytes >= 4 * self.count


def run(port: int, connections: int, window: int, events: int) -> float:
    """Publish `events` in all. Returns acknowledged events per second."""
    each = [Connection(port, number, events // connections, window) for number in range(connections)]
    selector = selectors.DefaultSelector()
    for connection in each:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    started = time.perf_counter()
    for connection in each:
        connection.pump()
    left = len(each)
    while left:
        for key, _ in selector.select(30) or [(None, 0)]:
            if key is None:
                raise SystemExit("no acknowledgement for 30 s")
            connection = key.data
            if connection.take():
                selector.unregister(connection.socket)
                left -= 1
            else:
                connection.pump()
    return events / (time.perf_counter() - started)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("port", "connections", "window", "events"):
        parser.add_argument(f"--{name}", type=int, required=True)
    print(json.dumps(run(**vars(parser.parse_args()))))

"""The listener under what a site does to it: a fleet, a lone device, commands, a crowd that idles, one that floods.

    python -m benches.listener [idle] [loris] [flood] [fleet] [lone] [command]      # all, if none is named

The gateway runs as `gateway run` does, in a process of its own, with its log on the disk of --folder; mosquitto beside
it where the two are compared. This process is the devices. Ratios within one run are what counts.

--sync-ms 5 makes every sync of the gateway take so much longer, by strace, as on a memory card.
"""

from __future__ import annotations

import argparse
import os
import selectors
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PAYLOAD = b'{"temperature": 21.5, "humidity": 40.1, "seq": %d, "ts": 1795449600123, "status": "ok", "battery": 3.71}'
RULE = """
rules:
  - id: echo
    on: devices/{device}/ask
    most_per_minute: 60000
    then: [{publish: {topic: "devices/{device}/answer", payload: "{seq}"}}]
"""


def packet(kind: int, body: bytes) -> bytes:
    assert len(body) < 128 * 128
    low, high = len(body) & 0x7F, len(body) >> 7
    return bytes([kind, low | 0x80, high] if high else [kind, low]) + body


def text(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


class Device:
    """One raw connection."""

    def __init__(self, port: int, name: str) -> None:
        self.name = name.encode()
        self.topic = text(b"devices/%s/climate" % self.name)
        self.sent = 0
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def hello(self) -> Device:
        self.socket.sendall(packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + text(self.name)))
        assert self.socket.recv(4)[:2] == b"\x20\x02", "no CONNACK"
        return self

    def message(self, qos: int = 1, topic: bytes | None = None, payload: bytes = PAYLOAD) -> bytes:
        self.sent += 1
        mid = struct.pack(">H", (self.sent - 1) % 65_000 + 1) if qos else b""
        return packet(0x30 | qos << 1, (topic or self.topic) + mid + payload % self.sent)

    def round_trip_s(self) -> float:
        data = self.message()
        began = time.perf_counter()
        self.socket.sendall(data)
        assert self.socket.recv(4)[0] == 0x40
        return time.perf_counter() - began


class Server:
    """A gateway or a mosquitto, with what its process costs."""

    slower_ms = 0.0
    """How much longer each of the gateway's syncs takes."""

    def __init__(self, command: list, home: Path, port: int) -> None:
        self.port = port
        with (home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                threading.Event().wait(0.05)
            else:
                return
        raise SystemExit((home / "server.log").read_text()[-2_000:])

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def gateway(home: Path) -> Server:
    port = free_port()
    shutil.rmtree(home / "data", ignore_errors=True)
    (home / "rules.yaml").write_text(RULE)
    (home / "gateway.yaml").write_text(
        f"gateway: {{id: bench, data_dir: ./data}}\n"
        f"mqtt: {{listen: {{url: mqtt://127.0.0.1:{port}, max_connections: 12000}}}}\n"
        'ingest: {topics: [{topic: "devices/{device}/{type}"}]}\n'
        "rules: rules.yaml\n"
    )
    return Server([*slowed(), sys.executable, "-m", "gateway.cli", "run", "-c", home / "gateway.yaml"], home, port)


def slowed() -> list[str]:
    """What to start a process with so that its syncs take longer; nothing else of it is stopped at."""
    if not Server.slower_ms:
        return []
    delay = f"inject=fdatasync:delay_exit={round(Server.slower_ms * 1e3)}"
    return ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", delay]


def mosquitto(home: Path) -> Server:
    port = free_port()
    (home / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nset_tcp_nodelay true\n"
    )
    return Server([shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", home / "mosquitto.conf"], home, port)


def sync_s(home: Path, rounds: int = 400) -> list[float]:
    """What one write of a small record and its `fdatasync` take on this disk."""
    times = []
    with (home / "probe").open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 20)
        for number in range(rounds):
            began = time.perf_counter()
            os.pwrite(file.fileno(), bytes(200), 200 * number)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began + Server.slower_ms / 1e3)
    return times


def ms(times: list[float]) -> str:
    ordered = sorted(times)
    at = [ordered[int(len(ordered) * part)] for part in (0.5, 0.99)]
    return f"p50 {at[0] * 1e3:6.2f} ms  p99 {at[1] * 1e3:6.2f} ms"


def p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def idle(home: Path) -> None:
    """10,000 connections that say nothing after CONNECT."""
    server, count = gateway(home), 9_500
    first = [Device(server.port, f"warm-{number}").hello() for number in range(100)]
    before = server.rss_bytes()
    crowd = [Device(server.port, f"idle-{number}").hello() for number in range(count)]
    threading.Event().wait(2)
    grown = (server.rss_bytes() - before) / count
    print(f"idle     {count} connections: {grown / 1024:.2f} KiB each (target <= 8)")
    for device in first + crowd:
        device.socket.close()
    server.stop()


def loris(home: Path) -> None:
    """500 connections that send their CONNECT a byte a second, beside a device that works."""
    server = gateway(home)
    device = Device(server.port, "good").hello()
    alone = [device.round_trip_s() for _ in range(1_000)]
    crowd = [Device(server.port, "slow") for _ in range(500)]
    hello = packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + text(b"slow"))
    beside: list[float] = []
    for byte in hello[:12]:
        until_s = time.perf_counter() + 1.0
        for slow in crowd:
            try:
                slow.socket.sendall(bytes([byte]))
            except OSError:
                continue
        while time.perf_counter() < until_s:
            beside.append(device.round_trip_s())
    closed = 0
    for slow in crowd:
        slow.socket.settimeout(5)
        try:
            closed += slow.socket.recv(1) == b""
        except ConnectionError:
            closed += 1
    print(f"loris    alone {ms(alone)};  beside 500 {ms(beside)};  {closed} of 500 closed after 10 s")
    server.stop()


def flood(home: Path) -> None:
    """20 devices with 20 messages a second each, alone and beside one that sends all it can."""
    for make in (gateway, mosquitto):
        server = make(home)
        alone = _others(server.port, 5.0)
        for qos in (1, 0):
            flooder = subprocess.Popen([sys.executable, "-m", "benches.listener", "--flood", f"{server.port}:{qos}"])
            beside = _others(server.port, 5.0)
            flooder.terminate()
            flooder.wait()
            print(
                f"flood    {make.__name__:9}  alone {ms(alone)};  beside one flood of QoS {qos} {ms(beside)};"
                f"  p99 x {p99(beside) / p99(alone):.1f}"
            )
        server.stop()


def _others(port: int, seconds: float) -> list[float]:
    devices = [Device(port, f"other-{number}").hello() for number in range(20)]
    times: list[float] = []
    until_s = time.perf_counter() + seconds
    turn = 0
    while time.perf_counter() < until_s:
        began = time.perf_counter()
        times.append(devices[turn % len(devices)].round_trip_s())
        turn += 1
        threading.Event().wait(max(0.0, began + 1 / 400 - time.perf_counter()))
    for device in devices:
        device.socket.close()
    return times


def _flood(port: int, qos: int) -> None:
    device = Device(port, "flood").hello()
    device.socket.setblocking(False)
    data = b"".join(device.message(qos) for _ in range(65_000))
    place = 0
    selector = selectors.DefaultSelector()
    selector.register(device.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
    while True:
        for _, ready in selector.select():
            if ready & selectors.EVENT_READ and not device.socket.recv(1 << 20):
                return
            if ready & selectors.EVENT_WRITE:
                place += device.socket.send(data[place : place + (1 << 18)])
                place %= len(data)


def fleet(home: Path) -> None:
    """1,000 connections with 10 messages a second each: what that costs."""
    spent = {}
    for make in (gateway, mosquitto):
        server = make(home)
        devices = [Device(server.port, f"dev-{number}").hello() for number in range(1_000)]
        selector = selectors.DefaultSelector()
        for device in devices:
            device.socket.setblocking(False)
            selector.register(device.socket, selectors.EVENT_READ)
        began_cpu, began = server.cpu_s(), time.perf_counter()
        sent = answers = 0
        while (passed := time.perf_counter() - began) < 10.0:
            while sent < passed * 10_000:
                devices[sent % 1_000].socket.send(devices[sent % 1_000].message())
                sent += 1
            for key, _ in selector.select(0.0005):
                answers += len(key.fileobj.recv(65_536))
        spent[make.__name__] = cpu = (server.cpu_s() - began_cpu) / (time.perf_counter() - began)
        rates = f"{sent / passed:,.0f} sent/s, {answers / 4 / passed:,.0f} PUBACK/s"
        print(f"fleet    {make.__name__:9}  {rates}, CPU {cpu:.1%}")
        server.stop()
    print(
        f"fleet    CPU x {spent['gateway'] / spent['mosquitto']:.1f} of mosquitto's, which stores nothing (target <= 2)"
    )


def lone(home: Path) -> None:
    """One device, one message at a time."""
    server = gateway(home)
    device = Device(server.port, "lone").hello()
    trips, syncs = [], []
    for _ in range(8):  # by turns, so that the disk is the same for both
        trips += [device.round_trip_s() for _ in range(250)]
        syncs += sync_s(home, 250)
    more = statistics.median(trips) - statistics.median(syncs)
    print(
        f"lone     PUBACK {ms(trips)};  write + fdatasync alone {ms(syncs)};  median + {more * 1e3:.2f} ms (target 0.2)"
    )
    server.stop()


def command(home: Path) -> None:
    """An event that a rule answers with a command to a subscriber, while 1,000 others come in each second."""
    server = gateway(home)
    crowd = subprocess.Popen([sys.executable, "-m", "benches.listener", "--crowd", f"{server.port}"])
    actor = Device(server.port, "actor").hello()
    actor.socket.sendall(packet(0x82, b"\0\1" + text(b"devices/x/answer") + b"\0"))
    assert actor.socket.recv(5)[0] == 0x90
    asker = Device(server.port, "asker").hello()
    topic = text(b"devices/x/ask")
    times: list[float] = []
    for _ in range(1_000):
        data = asker.message(1, topic, b'{"temperature": 31, "seq": %d}')
        asked_s = time.perf_counter()
        asker.socket.sendall(data)
        assert actor.socket.recv(4_096)[0] & 0xF0 == 0x30
        times.append(time.perf_counter() - asked_s)
        assert asker.socket.recv(4)[0] == 0x40
        threading.Event().wait(0.004)
    crowd.terminate()
    crowd.wait()
    syncs = sync_s(home)
    print(
        f"command  {ms(times)};  one sync {ms(syncs)};  p99 is {p99(times) / p99(syncs):.1f} syncs of p99 (target <= 2)"
    )
    server.stop()


def _crowd(port: int) -> None:
    """1,000 messages a second from 100 connections."""
    crowd = [Device(port, f"dev-{number}").hello() for number in range(100)]
    began, sent = time.perf_counter(), 0
    while True:
        while sent < (time.perf_counter() - began) * 1_000:
            crowd[sent % 100].socket.send(crowd[sent % 100].message())
            sent += 1
        threading.Event().wait(0.001)


ALL = (idle, loris, flood, fleet, lone, command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*(each.__name__ for each in ALL), []])
    parser.add_argument("--folder", default=".", help="on the disk that is to hold the log")
    parser.add_argument("--sync-ms", type=float, default=0.0, help="how much longer each sync takes")
    parser.add_argument("--flood", help=argparse.SUPPRESS)
    parser.add_argument("--crowd", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.flood:
        _flood(*map(int, arguments.flood.split(":")))
        return
    if arguments.crowd:
        _crowd(arguments.crowd)
        return
    Server.slower_ms = arguments.sync_ms
    for each in ALL:
        if not arguments.what or each.__name__ in arguments.what:
            with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
                each(Path(name))


if __name__ == "__main__":
    main()

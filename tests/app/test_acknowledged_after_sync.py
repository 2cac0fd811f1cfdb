"""M1 and M2 on the wire: a system-call trace shows that each PUBACK leaves after the sync that covers its event."""

from __future__ import annotations

import asyncio
import os
import re
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from tests.app.trace import CALLS, judge
from tests.scenarios.site import ROOT, GatewayProcess, Upstream, until

DEVICES, PER_DEVICE, WINDOW = 8, 1_250, 50
PATIENCE_S = 120


def test_the_checker_sees_an_acknowledgement_that_comes_too_early():
    """Law of the test itself: it can fail, in each of the ways in which a gateway could."""
    write = '7 pwrite64(9</d/1>, "\\x00"..., 100, 0) = 100\n'
    sync = "7 fdatasync(9</d/1>) = 0\n"
    puback = '8 write(12<TCP:[127.0.0.1:1->127.0.0.1:99]>, "\\x40\\x02\\x00\\x01", 4) = 4\n'
    places = {(99, 1): ("/d/1", 10, 60)}
    good = judge(write + sync + puback, places)
    assert (good.early, dict(good.acknowledged), good.syncs) == ([], {99: [1]}, 1)
    begun, ended = "7 fdatasync(9</d/1> <unfinished ...>\n", "7 <... fdatasync resumed>) = 0\n"
    late_write = '6 pwrite64(9</d/1>, "\\x00"..., 100, 0) = 100\n'
    for bad in (
        write + puback + sync,
        sync + write + puback,
        write + begun + puback + ended,
        begun + late_write + ended + puback,
        write + sync.replace("/d/1", "/d/2") + puback,
        write.replace("100, 0)", "100, 40)") + sync + puback,
    ):
        assert judge(bad, places).early == [(99, 1)], bad


def marker(device: int, number: int) -> bytes:
    """By which an event is found again in the file."""
    return b"<%d/%05d>" % (device, number)


def publish(port: int) -> dict[int, int]:
    """Every device keeps a window full. Returns the devices by their local port."""
    devices = [Device(port, number) for number in range(DEVICES)]
    by_port = {device.socket.getsockname()[1]: device.number for device in devices}
    with selectors.DefaultSelector() as selector:
        for device in devices:
            selector.register(device.socket, selectors.EVENT_READ, device)
            device.fill()
        while selector.get_map():
            ready = selector.select(PATIENCE_S)
            assert ready, "no answer"
            for key, _ in ready:
                if key.data.take():
                    selector.unregister(key.fileobj)
    for device in devices:
        device.socket.close()
    return by_port


class Device:
    """One connection that publishes, `WINDOW` at a time."""

    def __init__(self, port: int, number: int) -> None:
        self.number, self.sent, self.answers = number, 0, b""
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.socket.sendall(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03m-%d" % number)
        assert self.socket.recv(4) == b"\x20\x02\x00\x00"

    def fill(self) -> None:
        topic = b"devices/%d/climate" % self.number
        data = b""
        while self.sent < PER_DEVICE and self.sent - len(self.answers) // 4 < WINDOW:
            self.sent += 1
            body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", self.sent)
            body += b'{"temperature": 20, "seq": "%s"}' % marker(self.number, self.sent)
            data += bytes([0x32, len(body)]) + body
        if data:
            self.socket.sendall(data)

    def take(self) -> bool:
        """Whether everything was acknowledged, in the order in which it was sent."""
        got = self.socket.recv(65_536)
        assert got, "closed"
        self.answers += got
        self.fill()
        if len(self.answers) < 4 * PER_DEVICE:
            return False
        assert self.answers == b"".join(b"\x40\x02" + struct.pack(">H", n) for n in range(1, PER_DEVICE + 1))
        return True


def places(data: Path, by_port: dict[int, int]) -> dict[tuple[int, int], tuple[str, int, int]]:
    """Where each event lies, found by its text: the log is not compressed."""
    found = {}
    ports = {device: port for port, device in by_port.items()}
    for path in sorted(data.rglob("*")):
        if path.is_file():
            for match in re.finditer(rb"<(\d+)/(\d{5})>", path.read_bytes()):
                found.setdefault((ports[int(match[1])], int(match[2])), (str(path), match.start(), match.end()))
    return found


async def test_every_puback_leaves_after_the_sync_of_its_event_and_in_order(tmp_path):
    """Laws M1 and M2: 10,000 of 10,000 events lay under a sync that had returned, and 0 PUBACKs were out of order."""
    strace = shutil.which("strace")
    assert strace, "strace is missing: apt-get install strace"
    gateway = GatewayProcess(tmp_path, Upstream(), None)
    config = gateway.config.read_text()
    head, tail = config[: config.index("rules:")], config[config.index("\nhttp:") :]
    gateway.config.write_text(head + "log: {compress: false}" + tail)  # no sink, no rule
    trace = tmp_path / "trace"
    command = [strace, "-f", "-qq", "-yy", "-xx", "-s", "1024", "-e", CALLS, "-o", trace]
    with (tmp_path / "gateway.log").open("ab") as log:
        gateway.process = subprocess.Popen(
            [*command, sys.executable, "-m", "gateway.cli", "run", "-c", gateway.config],
            cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        await until(gateway.is_ready, "the gateway is ready")
        by_port = await asyncio.to_thread(publish, gateway.port)
        where = places(tmp_path / "data", by_port)
    finally:
        traced = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
        for child in traced:
            os.kill(int(child), signal.SIGTERM)
        gateway.process.wait(20)
    assert len(where) == DEVICES * PER_DEVICE
    verdict = judge(trace.read_text(), where)
    in_order = list(range(1, PER_DEVICE + 1))
    assert {port: verdict.acknowledged[port] for port in by_port} == dict.fromkeys(by_port, in_order)
    assert verdict.early == []
    assert verdict.syncs >= PER_DEVICE // WINDOW

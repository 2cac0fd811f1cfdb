"""M1 and M2 on the wire: a system-call trace shows that each PUBACK leaves after the sync that covers its event."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from tests.scenarios.site import ROOT, GatewayProcess, Upstream, until

EVENTS = 300
_LINE = re.compile(r"^(?P<pid>\d+)\s+(?:<\.\.\. )?(?P<call>\w+)(?P<rest>.*)$")
_PUBACK = re.compile(r'"(@\\2(?:\\.|[^"\\])*)"')


def early_acknowledgements(trace: str) -> tuple[int, int]:
    """`(acknowledged, too early)` for a client that sends one event and waits for its PUBACK before the next.

    Each event then needs a sync of its own: the n-th PUBACK may leave only after n syncs have returned.
    """
    syncs = acknowledged = early = 0
    for line in trace.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        call, rest = match["call"], match["rest"]
        if call == "fdatasync" and rest.rstrip().endswith("= 0"):
            syncs += 1
        elif call in {"write", "sendto", "sendmsg", "writev"} and _PUBACK.search(rest):
            acknowledged += 1
            early += syncs < acknowledged
    return acknowledged, early


def test_the_checker_sees_an_acknowledgement_that_comes_too_early():
    """Law of the test itself: it can fail."""
    good = '7 fdatasync(9) = 0\n8 write(12, "@\\2\\0\\1", 4) = 4\n'
    assert early_acknowledgements(good) == (1, 0)
    assert early_acknowledgements(good + '8 write(12, "@\\2\\0\\2", 4) = 4\n7 fdatasync(9) = 0\n') == (2, 1)
    unfinished = '7 fdatasync(9 <unfinished ...>\n8 write(12, "@\\2\\0\\1", 4) = 4\n7 <... fdatasync resumed>) = 0\n'
    assert early_acknowledgements(unfinished) == (1, 1)


def publish_one_by_one(port: int) -> int:
    """`EVENTS` publishes, each after the PUBACK of the one before. Returns how many came back in order."""
    topic = b"devices/a/climate"
    in_order = 0
    with socket.create_connection(("127.0.0.1", port), 30) as device:
        device.sendall(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03m-1")
        assert device.recv(4) == b"\x20\x02\x00\x00"
        for number in range(1, EVENTS + 1):
            body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", number)
            body += json.dumps({"temperature": 20, "seq": number}).encode()
            device.sendall(bytes([0x32, len(body)]) + body)
            in_order += device.recv(4) == b"\x40\x02" + struct.pack(">H", number)
    return in_order


async def test_every_puback_leaves_after_its_sync_and_in_order(tmp_path):
    """Law L1: `fdatasync` has returned before the PUBACK of the event that it covers is written."""
    strace = shutil.which("strace")
    assert strace, "strace is missing: apt-get install strace"
    upstream = Upstream()
    gateway = GatewayProcess(tmp_path, upstream, None)
    config = gateway.config.read_text()
    gateway.config.write_text(
        config[: config.index("rules:")] + config[config.index("\nhttp:") :]
    )  # no sink, no cursor
    trace = tmp_path / "trace"
    command = [strace, "-f", "-qq", "-s", "64", "-e", "trace=fdatasync,write,writev,sendto,sendmsg", "-o", trace]
    with (tmp_path / "gateway.log").open("ab") as log:
        gateway.process = subprocess.Popen(
            [*command, sys.executable, "-m", "gateway.cli", "run", "-c", gateway.config],
            cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        await until(gateway.is_ready, "the gateway is ready")
        before = trace.read_text().count("fdatasync")
        assert await asyncio.to_thread(publish_one_by_one, gateway.port) == EVENTS
    finally:
        traced = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
        for child in traced:
            os.kill(int(child), signal.SIGTERM)
        gateway.process.wait(20)
    lines = trace.read_text().splitlines()
    start = [index for index, line in enumerate(lines) if "fdatasync" in line][before - 1] + 1 if before else 0
    acknowledged, early = early_acknowledgements("\n".join(lines[start:]))
    assert acknowledged == EVENTS
    assert early == 0

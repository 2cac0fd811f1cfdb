"""The two that are compared, each a process of its own on a free port.

Where both may choose and mosquitto can be told, it is told to do as the listener does, so that no mere default counts
as a difference.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mqtt.broker_process import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
MOSQUITTO = """
listener {port} 127.0.0.1
allow_anonymous true
user root
persistence false
set_tcp_nodelay true
sys_interval 0
log_type none
max_inflight_messages 1000
max_queued_messages 1000
max_packet_size 1048576
max_topic_alias 32
allow_duplicate_messages true
persistent_client_expiration 7d
"""


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[int]:
    """The listener's port. Whatever it says on stderr is a bug, and raised."""
    said = folder / "ours.err"
    with said.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.mqtt.differential.ours"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | {"PYTHONDEVMODE": "", "PYTHONWARNINGS": "error"},
        )
    assert process.stdout is not None
    try:
        with process.stdout as stdout:
            line = stdout.readline()
            assert line, said.read_text()
            yield int(line)
            assert process.poll() is None, f"the listener ended: {said.read_text()}"
    finally:
        process.kill()
        process.wait()
    assert not said.read_text(), said.read_text()


@contextlib.contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """Mosquitto's port."""
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(MOSQUITTO.format(port=port))
    process = subprocess.Popen(["mosquitto", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            assert process.poll() is None, "mosquitto did not start"
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
        yield port
        assert process.poll() is None, "mosquitto ended"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def both(folder: Path) -> Iterator[tuple[int, int]]:
    """Their ports."""
    with ours(folder) as port, mosquitto(folder) as other:
        yield port, other

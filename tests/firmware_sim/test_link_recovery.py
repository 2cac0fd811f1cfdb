"""A connection that breaks badly: the broker is killed in mid-flight, stands still, or refuses the device."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from firmware_sim import Fleet, LinkSettings
from firmware_sim.client import LastingClient

TIMEOUT_S = 20.0
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


class Rig:
    """A mosquitto that writes down what it received."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._conf = directory / "mosquitto.conf"
        self._log = directory / "mosquitto.log"
        self._processes: list[subprocess.Popen[bytes]] = []

    async def start(self, access: str = "allow_anonymous true") -> None:
        """Start the broker and wait until it answers; what it logs shows what devices did."""
        # Started as root it would become another user, who may not write here. Only a log file is written line by line.
        user = f"user {self._conf.parent.owner()}\n"
        self._conf.write_text(
            f"listener {self.port} 127.0.0.1\n{access}\n{user}log_dest file {self._log}\nlog_type all\n"
        )
        broker = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._processes.append(broker)
        await until(lambda: self._answers() or broker.poll() is not None)
        assert broker.poll() is None, self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send the broker a signal; a deadly one is waited for."""
        broker = self._processes[-1]
        broker.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            broker.wait(TIMEOUT_S)

    def publishes(self) -> list[tuple[bool, int]]:
        """Every PUBLISH that the broker read since its first start, in order: whether marked DUP, and its packet id."""
        found = []
        for line in self._log.read_text(errors="replace").splitlines():
            if "Received PUBLISH from sim-greenhouse" in line:
                flags = line.partition("(")[2].split(", ")
                found.append((flags[0] == "d1", int(flags[3].removeprefix("m"))))
        return found

    def stop(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait(TIMEOUT_S)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


async def until(holds: Callable[[], object]) -> None:
    """Wait for a condition; fail if it does not come true in time."""
    async with asyncio.timeout(TIMEOUT_S):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A broker that is not yet running."""
    made = Rig(tmp_path)
    yield made
    made.stop()


def _fleet(rig: Rig, *, devices: int = 1, drain_s: float = TIMEOUT_S, **link) -> Fleet:
    settings = LinkSettings(**{"backoff_base_s": 0.02, "backoff_max_s": 0.1, "timeout_s": 0.3, "window": 8, **link})
    return Fleet(rig.url, devices, 7, rate_per_s=100, link=settings, drain_s=drain_s)


@pytest.mark.parametrize("protocol", [4, 5])
async def test_what_was_in_flight_when_the_broker_was_killed_is_repeated_marked_dup(rig, protocol):
    """Law: unacknowledged messages come first on the next connection, under their old packet ids, marked DUP."""
    await rig.start()
    async with _fleet(rig, protocol=protocol) as fleet:
        account = fleet.accounts["greenhouse"]
        await until(lambda: account.acked > 20)
        rig.signal(signal.SIGSTOP)
        await until(lambda: account.unacknowledged == 8 and account.queued > 20)
        rig.signal(signal.SIGKILL)
        before = len(rig.publishes())
        await rig.start()
        await until(lambda: account.acked > account.last_seq - 5 and account.queued < 5)
    repeated = rig.publishes()[before : before + 8]
    assert [is_dup for is_dup, _ in repeated] == [True] * 8
    first = repeated[0][1]
    assert [packet_id for _, packet_id in repeated] == list(range(first, first + 8))
    summary = fleet.summary()
    assert (summary.unacknowledged, summary.dropped, summary.resent) == (0, 0, 0)
    assert summary.acked == summary.offered


async def test_broker_that_stands_still_for_a_while_loses_nothing_and_blocks_nobody(rig):
    """Law: no half-open connection hangs a device; when the broker goes on, everything is acknowledged."""
    await rig.start()
    async with _fleet(rig, keepalive_s=1) as fleet:
        account = fleet.accounts["greenhouse"]
        await until(lambda: account.acked > 20)
        rig.signal(signal.SIGSTOP)
        await until(lambda: not fleet.devices[0].connected)
        frozen = account.acked
        await until(lambda: account.queued > 200)
        rig.signal(signal.SIGCONT)
        await until(lambda: account.acked > frozen + 300 and fleet.devices[0].connected)
    summary = fleet.summary()
    assert (summary.unacknowledged, summary.dropped) == (0, 0)
    assert summary.acked == summary.offered


async def test_end_while_the_broker_stands_still_is_bounded_and_counts_what_is_left(rig):
    """Law: draining has an end, and nothing unacknowledged is claimed."""
    await rig.start()
    async with _fleet(rig, drain_s=0.1) as fleet:
        account = fleet.accounts["greenhouse"]
        await until(lambda: account.acked > 20)
        rig.signal(signal.SIGSTOP)
        await until(lambda: account.unacknowledged == 8)
    summary = fleet.summary()
    assert summary.unacknowledged == 8
    assert summary.offered == summary.acked + summary.unacknowledged + summary.queued


@pytest.mark.parametrize("protocol", [4, 5])
async def test_device_that_is_refused_keeps_trying_until_it_is_let_in(rig, tmp_path, protocol):
    """Law: a refusal, at first or after a good connection, is just another reason to try again."""
    refusing = f"allow_anonymous false\npassword_file {tmp_path}/nobody"
    (tmp_path / "nobody").touch()
    await rig.start(refusing)
    async with _fleet(rig, protocol=protocol) as fleet:
        await until(lambda: fleet.summary().never_connected[0] not in ("greenhouse: ", ""))
        for _ in range(2):
            rig.signal(signal.SIGKILL)
            await rig.start()
            acked = fleet.accounts["greenhouse"].acked
            await until(lambda acked=acked: fleet.accounts["greenhouse"].acked > acked + 20)
            rig.signal(signal.SIGKILL)
            await rig.start(refusing)
            await until(lambda: not fleet.devices[0].connected)
        rig.signal(signal.SIGKILL)
        await rig.start()
        await until(lambda: fleet.devices[0].connected)
    assert fleet.summary().acked == fleet.summary().offered


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_ten_kills_lose_nothing_and_duplicate_at_most_a_window_each(run, tmp_path, seed):
    """Law: at least once, on any loop and without a complaint from it; at most a window is repeated per kill."""
    rig = Rig(tmp_path)
    complaints = []

    async def scenario():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await rig.start()
        async with _fleet(rig, devices=5) as fleet:
            account = fleet.accounts["greenhouse"]
            for kill in range(10):
                acked = account.acked
                await until(lambda acked=acked, more=(seed >> kill) % 23: account.acked > acked + more)
                rig.signal(signal.SIGKILL)
                await rig.start()
        return fleet

    try:
        fleet = run(scenario())
    finally:
        rig.stop()
    summary, greenhouse = fleet.summary(), fleet.accounts["greenhouse"]
    assert complaints == []
    assert (summary.unacknowledged, summary.dropped, summary.queued) == (0, 0, 0)
    assert summary.acked == summary.offered
    assert greenhouse.acked <= len(rig.publishes()) <= greenhouse.acked + 10 * 2 * 8


async def test_socket_is_watched_for_writing_only_while_there_is_something_to_write(rig, monkeypatch):
    """Law: what repeats after a broken connection leaves no watch behind that turns the loop for nothing."""
    writes = []
    write = LastingClient._write
    monkeypatch.setattr(LastingClient, "_write", lambda self, client: (writes.append(self), write(self, client)))
    await rig.start()
    async with _fleet(rig) as fleet:
        account = fleet.accounts["greenhouse"]
        await until(lambda: account.acked > 20)
        rig.signal(signal.SIGSTOP)
        await until(lambda: account.unacknowledged == 8)
        rig.signal(signal.SIGKILL)
        await rig.start()
        resumed = account.acked
        await until(lambda: account.acked > resumed + 50)
        sent, written = account.sent, len(writes)
        for _ in range(500):
            await asyncio.sleep(0)
        assert len(writes) - written <= account.sent - sent + 10

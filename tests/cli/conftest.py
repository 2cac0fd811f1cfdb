"""The command line in this process, a data directory with something in it, and a status to show."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.config.settings import LogSettings
from gateway.model import Batch, DeadLetter, Format, Kind
from gateway.observe import status as s
from gateway.ringlog import Store


@dataclass
class Ran:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self):
        return self.out.splitlines()


@pytest.fixture
def gateway(monkeypatch, capsys):
    """Runs `gateway ARGS...` as the console script would."""

    def run(*args) -> Ran:
        monkeypatch.setattr(sys, "argv", ["gateway", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return Ran(end.value.code or 0, said.out, said.err)

    return run


@pytest.fixture
def letter():
    """Builds a dead letter; every field has a value."""
    return _letter


def _letter(name: str, **changes) -> DeadLetter:
    fields = {
        "id": name,
        "topic": "devices/a/climate",
        "payload": b'{"t": 21.5}',
        "flags": 1,
        "stage": "cloud",
        "code": "http_400",
        "detail": "the receiver said: no",
        "attempts": 3,
        "first_wall_ns": 1_700_000_000_000_000_000,
        "last_wall_ns": 1_700_000_060_000_000_000,
    }
    return DeadLetter(**(fields | changes))


@dataclass
class Filler:
    """Writes to a data directory the way a gateway would."""

    data_dir: Path
    clock: object
    segment_size_bytes: int = 1 << 20

    def fill(self, *batches: Batch, letters: tuple[DeadLetter, ...] = ()) -> None:
        asyncio.run(self._fill(batches, letters))

    async def _fill(self, batches, letters):
        settings = LogSettings(max_size_bytes=32 << 20, segment_size_bytes=self.segment_size_bytes, compress=False)
        store = Store(self.data_dir, "g", settings, self.clock, _fail)
        try:
            for batch in batches:
                batch.stamp = store.events.stamp()
                store.events.append(batch)
                await store.committer.flush()
            if letters:
                await store.dead_letters.store(letters)
        finally:
            await store.close()


def _fail(error):
    raise error


@pytest.fixture
def batch_of():
    """Builds a batch from topics and payloads."""
    return _batch_of


def _batch_of(*records: tuple[str, bytes], kind=Kind.EVENTS, flags=1, form=Format.JSON) -> Batch:
    return Batch(
        kind=kind,
        stamp=None,
        topics=[topic for topic, _ in records],
        formats=[form] * len(records),
        flags=[flags] * len(records),
        payloads=[payload for _, payload in records],
    )


@pytest.fixture
def filler(tmp_path, clock):
    return Filler(tmp_path / "data", clock)


@pytest.fixture
def a_status():
    """Builds a status with something in every place."""
    return _status


def _status(**changes) -> s.GatewayStatus:
    syncs = s.LatencyRecorder()
    for duration_s in (0.0004, 0.0004, 0.02):
        syncs.observe(duration_s)
    fields = {
        "gateway_id": "greenhouse-01",
        "version": "0.1.0",
        "started_wall_ns": 1_700_000_000_000_000_000,
        "uptime_s": 3_725.0,
        "ready": True,
        "healthy": True,
        "log": s.LogStatus(
            appended_seq=12_345,
            durable_seq=12_300,
            appended=12_345,
            events=12_000,
            bytes=3_500_000,
            max_bytes=16 << 20,
            segments=4,
            sync=syncs.snapshot(),
        ),
        "ingest": s.IngestStatus(received=12_348, stored=12_345, rejected={"json": 3}),
        "listener": s.ListenerStatus(address="127.0.0.1:1883", connections=10),
        "rules": (
            s.RuleStatus(id="living-room", kind="thermostat", state="on", firings=12),
            s.RuleStatus(id="freezer-warm", kind="rule", state="false"),
        ),
        "commands": {"confirmed": 11},
        "sinks": (
            s.SinkStatus(
                name="cloud", type="http", up=False, received=12_345, delivered=7_135, pending=5_210,
                last_error="connection refused", next_try_s=1.5,
            ),
            s.SinkStatus(
                name="history", type="influxdb", up=True, received=12_345, delivered=12_343,
                dead_lettered={"http_400": 2}, pending=0,
            ),
        ),
        "dead_letters": s.DeadLetterStatus(records=5, bytes=1_000),
    }  # fmt: skip
    return s.GatewayStatus(**(fields | changes))


@pytest.fixture(autouse=True)
def an_ordinary_terminal(monkeypatch):
    """Wherever the tests run: rich draws 80 columns on a dumb terminal, however wide it is told to be."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)

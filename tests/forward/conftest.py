"""A log in memory, scripted sinks, a loop whose time is virtual, and the real servers that sinks talk to."""

from __future__ import annotations

import asyncio
import random
import selectors
import shutil
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field

import pytest

from gateway.config.settings import RetrySettings, SinkSettings
from gateway.forward.runner import Runner
from gateway.forward.verdict import Delivered
from gateway.model import Batch, Cursor, DeadLetter, Format, Gap, Kind, Origin, Position, Stamp

STAMP = Stamp(1_700_000_000_123_456_789, 5_000_000_000, 0, bytes(16), True)
ORIGIN = Origin("gw", "0123456789abcdef", 1)


# Virtual time: a loop that, when it would wait, moves its clock instead.


class VirtualSelector(selectors.SelectSelector):
    """Never waits: time jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout=None):
        if timeout is None:
            raise RuntimeError("everything waits for something that can never happen")
        self.now_s += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Timers fire in order and at once."""

    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


@pytest.fixture
def virtual():
    """Runs a coroutine in virtual time and returns its result."""

    def run(main):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(main)

    return run


# A log in memory, of the same shape as the real one.


def batch_of(payloads, *, topic="devices/a/climate", kind=Kind.EVENTS, stamp=STAMP, format_=Format.JSON) -> Batch:
    """A batch as ingest would append it."""
    topics = [topic] * len(payloads) if isinstance(topic, str) else list(topic)
    count = len(payloads)
    return Batch(kind, stamp, topics, [int(format_)] * count, [1] * count, list(payloads))


class MemoryLog:
    """Marks and batches. `evict(seq)` forgets what lies before."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.floor = self.durable = self.appended = Position(0, 0)
        self.changed = asyncio.Event()

    def append(self, batch: Batch) -> None:
        batch.origin = ORIGIN
        batch.seq, batch.ordinal = self.appended
        self.batches.append(batch)
        self.appended = self.durable = Position(batch.end, batch.end_ordinal)
        self.changed.set()
        self.changed = asyncio.Event()

    def evict(self, batches: int) -> None:
        """Forget the oldest batches."""
        for batch in self.batches[:batches]:
            self.floor = Position(batch.end, batch.end_ordinal)
        del self.batches[:batches]


class MemoryReader:
    def __init__(self, log: MemoryLog, start: Position) -> None:
        self._log = log
        self.position = start

    async def read(self, max_records: int) -> Batch | Gap:
        while True:
            log, here = self._log, self.position
            if here.seq < log.floor.seq:
                self.position = log.floor
                return Gap(here.seq, log.floor.seq, log.floor.ordinal - here.ordinal, "evicted")
            for batch in log.batches:
                if batch.seq <= here.seq < batch.end:
                    start = here.seq - batch.seq
                    part = batch.slice(start, min(len(batch), start + max_records))
                    self.position = Position(part.end, part.end_ordinal)
                    return part
            await log.changed.wait()


@dataclass
class MemoryStore:
    """An open data directory that forgets nothing but what is told to."""

    events: MemoryLog = field(default_factory=MemoryLog)
    stored: dict[str, Cursor] = field(default_factory=dict)
    history: list[Cursor] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    fail_letters: int = 0
    fail_cursors: int = 0
    journal: list[tuple[str, int]] = field(default_factory=list)

    @property
    def cursors(self):
        return self

    @property
    def dead_letters(self):
        return _Letters(self)

    def load(self, name: str) -> Cursor | None:
        return self.stored.get(name)

    def note(self, name: str, cursor: Cursor) -> None:
        pass

    async def store(self, name: str, cursor: Cursor, *, after_events: bool = True) -> None:
        await asyncio.sleep(0)
        if self.fail_cursors:
            self.fail_cursors -= 1
            raise OSError("no space")
        self.stored[name] = cursor
        self.history.append(cursor)
        self.journal.append(("cursor", cursor.ordinal))

    def reader(self, start: Position, *, durable_only: bool) -> MemoryReader:
        assert durable_only, "a sink never reads past the durable mark (L1)"
        return MemoryReader(self.events, start)


@dataclass
class _Letters:
    store_: MemoryStore

    async def store(self, letters) -> None:
        await asyncio.sleep(0)
        if self.store_.fail_letters:
            self.store_.fail_letters -= 1
            raise OSError("no space")
        self.store_.letters += letters
        self.store_.journal.append(("letter", len(letters)))


@pytest.fixture
def store() -> MemoryStore:
    """An empty data directory in memory."""
    return MemoryStore()


# Scripted sinks.


class ScriptedSink:
    """Answers as its script says: a function from the sequence numbers offered to a verdict."""

    def __init__(self, script=None) -> None:
        self.script = script or (lambda seqs: Delivered(len(seqs)))
        self.offers: list[list[int]] = []
        self.taken: list[int] = []
        self.gaps: list[Gap] = []
        self.times_s: list[float] = []
        self.opened = self.closed = 0

    async def open(self) -> None:
        self.opened += 1

    async def send(self, parcel):
        seqs = [batch.seq + index for batch in parcel.batches for index in range(len(batch))]
        assert len(seqs) == len(parcel) > 0
        self.offers.append(seqs)
        self.times_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        verdict = self.script(seqs)
        if isinstance(verdict, Delivered):
            dead = {refusal.index for refusal in verdict.refused}
            self.taken += [seq for index, seq in enumerate(seqs[: verdict.count]) if index not in dead]
        return verdict

    async def announce(self, gap, wall_ns):
        self.gaps.append(gap)
        await asyncio.sleep(0)
        return Delivered(1)

    async def close(self) -> None:
        self.closed += 1


def balance(runner: Runner) -> None:
    """L7, and the cursor's own invariant."""
    status = runner.status()
    ends = status.delivered + sum(status.dead_lettered.values()) + status.evicted + status.pending
    assert status.received == ends, status


async def until(condition, timeout_s: float = 60.0) -> None:
    """Return when the condition holds; fail after the time is up."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def make_runner(clock):
    """A runner over a store, with a fixed seed."""

    def build(store, sink, *, seed=7, **settings) -> Runner:
        settings.setdefault("retry", RetrySettings(base_s=0.5, max_s=60.0))
        config = SinkSettings(name="cloud", **settings)
        return Runner(config, sink, store, clock=clock, rng=random.Random(seed), kind="scripted")

    return build


# Real servers.


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Server:
    """A process that serves a port; can be killed and started again on the same one."""

    def __init__(self, program: str, arguments, port: int) -> None:
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
        assert path is not None, f"{program} is not installed; the tests need it"
        self._command = [path, *arguments]
        self.port = port
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert self._process.poll() is None, f"{self._command[0]} ended at once"
                assert time.monotonic() < deadline, f"{self._command[0]} does not listen"
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        return self._process.pid


@pytest.fixture
def mosquitto(tmp_path):
    """A broker on a free port that keeps nothing."""
    port = free_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n",
        encoding="utf-8",
    )
    server = Server("mosquitto", ["-c", str(config)], port)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def victoria(tmp_path):
    """VictoriaMetrics on a free port with an empty store."""
    port = free_port()
    arguments = [
        f"-storageDataPath={tmp_path / 'vm'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
        "-memory.allowedBytes=64MB",
    ]
    server = Server("victoria-metrics", arguments, port)
    server.start()
    yield server
    server.kill()


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as response:
        return response.read()

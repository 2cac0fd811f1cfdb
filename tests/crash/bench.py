"""A directory in which one damaged log after the other is laid out, opened, read and written to.

Everything runs in one thread, in memory where the machine has a file system for that, and without a sync, so that many
hundred cases run in a second. The log, its recovery, its readers and its cursors are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.model import Batch, Format, Gap, Kind, Position
from gateway.ringlog.chain import RingSettings
from gateway.ringlog.cursor import CursorStore
from gateway.ringlog.reader import Reader
from gateway.ringlog.ring import RingLog
from gateway.ringlog.room import Reserve
from gateway.ringlog.storage import DiskFile, DiskStorage
from tests.conftest import HandClock
from tests.crash.damage import FRAME_HEAD_BYTES, Left, Log, Record, frames_of

TOPIC = "devices/a/climate"
ONE_RECORD_BYTES = FRAME_HEAD_BYTES + 2 + 3 + len(TOPIC) + 2 + 1 + 4
"""A frame of one record, less its payload."""
LONGEST_FRAME_BYTES = 6_500
"""No frame that `fill` makes is longer."""
Files = Mapping[str, bytes]


class _CalmFile(DiskFile):
    def sync(self) -> None:
        """Nothing here is about power."""


class CalmStorage(DiskStorage):
    """The machine's disk, without the cost of syncs."""

    def create(self, path: Path) -> DiskFile:
        return _CalmFile(super().create(path)._fd)

    def open(self, path: Path, *, writable: bool = False) -> DiskFile:
        return _CalmFile(super().open(path, writable=writable)._fd)

    def sync_dir(self, path: Path) -> None:
        """Nothing here is about power."""


class _NoThread:
    """Stands where the committer does; the bench writes when it wants to."""

    def add(self, log: object) -> None:
        pass

    def request(self) -> None:
        pass

    async def run(self, task: Callable[[], None], **_: object) -> None:
        task()


class _Spacious:
    """Stands where the reserve does: there is always room."""

    def claim(self) -> None:
        pass

    def may_evict(self, end: Position, *, disk_full: bool) -> bool:
        return True

    def relieve(self) -> bool:
        return False

    def before_unlink(self) -> None:
        pass

    def slowest(self) -> Position | None:
        return None


class _Inline(ThreadPoolExecutor):
    """Runs what is submitted at once: a reader's trip to a thread would be most of a case's cost."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@dataclass
class Bench:
    """A directory in which one log after the other is laid out, opened, read and written to."""

    directory: Path
    compress: bool = False
    segment_bytes: int = 16_384
    storage: DiskStorage = field(default_factory=CalmStorage)
    clock: HandClock = field(default_factory=HandClock)
    committer: _NoThread = field(default_factory=_NoThread)

    def __post_init__(self) -> None:
        self.directory.mkdir(exist_ok=True)

    @classmethod
    @contextlib.contextmanager
    def on_light_storage(cls, *, compress: bool = False, segment_bytes: int = 16_384) -> Iterator[Bench]:
        """A bench in memory, where the machine has a file system for that: a case costs a tenth."""
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(prefix="gateway-damage-", dir=memory if memory.is_dir() else None) as name:
            yield cls(Path(name), compress=compress, segment_bytes=segment_bytes)

    def lay(self, files: Files) -> None:
        """These files and no others."""
        for path in self.directory.iterdir():
            if path.name not in files:
                path.unlink()
        for name, data in files.items():
            (self.directory / name).write_bytes(data)

    def files(self) -> dict[str, bytes]:
        """What lies there now."""
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}

    def open(self) -> RingLog:
        """Open the log, recovering it."""
        sizes = RingSettings(2**30, self.segment_bytes, 4_096, self.compress)
        return RingLog(self.directory, "gw", sizes, self.clock, self.storage, self.committer, _Spacious())

    def cursors(self, log_id: str = "00000000000000aa") -> CursorStore:
        """The cursors that lie there."""
        store = CursorStore(self.directory, self.storage, self.committer)
        store.belong_to(log_id, self, Reserve(self.storage, self.directory / "reserve", 0))
        return store

    def append(self, ring: RingLog, payloads: list[bytes], *, kind: Kind = Kind.EVENTS, topic: str = TOPIC) -> Batch:
        """One batch, written."""
        count = len(payloads)
        batch = Batch(kind, ring.stamp(), [topic] * count, [Format.JSON] * count, [1] * count, payloads)
        ring.append(batch)
        self.write(ring)
        return batch

    def write(self, ring: RingLog) -> None:
        """What the committer does with all that was appended."""
        batches = ring.take()
        held = ring.write(batches, sync=True)
        assert held is None, held
        ring.finished(batches)

    def reader(self, ring: RingLog, start: Position) -> Reader:
        """A consumer that begins there."""
        return Reader(ring, self.storage, start, durable_only=True)

    async def read(self, ring: RingLog, start: Position = Position(0, 0)) -> Left:
        """All that a reader gets from `start` on."""
        asyncio.get_running_loop().set_default_executor(_Inline())
        records: list[Record] = []
        gaps: list[Gap] = []
        reader = self.reader(ring, start)
        async with asyncio.timeout(20):  # a reader that turns in circles still gives way to the loop
            while reader.position.seq < ring.durable.seq:
                item = await reader.read(100_000)
                if isinstance(item, Gap):
                    gaps.append(item)
                else:
                    seqs, kinds = range(item.seq, item.end), [item.kind] * len(item)
                    records += zip(seqs, kinds, item.topics, item.payloads, strict=True)
        return Left(records, gaps)

    async def read_files(self, files: Files, start: Position = Position(0, 0)) -> Left:
        """Lay these files, open them, and read all from `start` on."""
        self.lay(files)
        return await self.read(self.open(), start)

    async def goes_on(self, ring: RingLog, found: Left) -> None:
        """The law of every kind of damage: the log takes more, and reopens with what it had and that, nothing else."""
        added = await self.add_one(ring)
        again = self.open()
        assert again.recovered.torn is None, "a log that was closed has no torn tail"
        assert again.appended == ring.appended
        (await self.read(again)).should_be(Left([*found.records, added], found.gaps), "reopened")

    async def add_one(self, ring: RingLog) -> Record:
        """Append a record, and close the log."""
        batch = self.append(ring, [b'{"after": "the damage"}'])
        ring.close()
        return batch.seq, batch.kind, TOPIC, batch.payloads[0]


def payloads_of(rng: random.Random, seq: int, count: int) -> list[bytes]:
    """Readings such as devices send, no two alike."""
    return [
        b'{"n": %d, "temperature": %.2f, "trace": "%s"}'
        % (number, rng.uniform(-20, 40), rng.randbytes(rng.choice((0, 4, 40, 80))).hex().encode())
        for number in range(seq, seq + count)
    ]


def _shapes(rng: random.Random) -> Iterator[tuple[int, Kind]]:
    while True:
        yield rng.choice((1, 1, 2, 5, 13, 21)), Kind.DECISIONS if rng.random() < 0.2 else Kind.EVENTS


def fill(bench: Bench, ring: RingLog, rng: random.Random, until_bytes: int) -> list[Record]:
    """Batches of many shapes, until the active segment holds at least that many bytes."""
    records: list[Record] = []
    for count, kind in _shapes(rng):
        batch = bench.append(ring, payloads_of(rng, ring.appended.seq, count), kind=kind)
        records += [(batch.seq + at, kind, TOPIC, payload) for at, payload in enumerate(batch.payloads)]
        active = ring.layout.active
        assert active is not None
        if frames_of((bench.directory / active.name).read_bytes())[-1].stop >= until_bytes:
            return records
    raise AssertionError


def _fill_to_the_brim(bench: Bench, ring: RingLog, rng: random.Random) -> list[Record]:
    """The same, with a last frame that ends with the segment's last allocated byte. It holds what does not compress."""
    records = fill(bench, ring, rng, bench.segment_bytes - LONGEST_FRAME_BYTES)
    active = ring.layout.active
    assert active is not None
    used = frames_of((bench.directory / active.name).read_bytes())[-1].stop
    payload = rng.randbytes(bench.segment_bytes - used - ONE_RECORD_BYTES)
    batch = bench.append(ring, [payload])
    assert ring.layout.active == active, "the last frame is made to fit"
    return [*records, (batch.seq, batch.kind, TOPIC, payload)]


def build(bench: Bench, rng: random.Random, *, tail_bytes: int | None = None) -> Log:
    """A log of three openings: a short segment, a full one, and one that was never sealed.

    Args:
        bench: where; its `segment_bytes` are the size of the second segment, to the byte.
        rng: what the payloads come from.
        tail_bytes: at least so much of the third segment is in use, the rest is zeros; by default a few frames.
    """
    bench.lay({})
    records: list[Record] = []
    for part in ("short", "full", "tail"):
        ring = bench.open()
        if part == "short":
            records += fill(bench, ring, rng, 600)
        elif part == "full":
            records += _fill_to_the_brim(bench, ring, rng)
        else:
            records += fill(bench, ring, rng, tail_bytes or 600)
            log = Log(bench.files(), records, ring.epoch)
        ring.close()
    assert [record[0] for record in records] == list(range(len(records)))
    assert len(log.segments) == 3
    assert len(log.files[log.segments[1]]) == bench.segment_bytes == len(log.files[log.segments[2]])
    return log


def build_short(bench: Bench, rng: random.Random, parts: int) -> Log:
    """A log of so many openings, each a short sealed segment."""
    bench.lay({})
    records: list[Record] = []
    for _ in range(parts):
        ring = bench.open()
        records += fill(bench, ring, rng, 600)
        ring.close()
    return Log(bench.files(), records, ring.epoch)


def without_tail(log: Log) -> Log:
    """The same log before its last opening wrote anything: the full segment is the tail."""
    tail = log.segments[-1]
    end = frames_of(log.files[tail])[0].seq
    files = {name: data for name, data in log.files.items() if name != tail}
    return replace(log, files=files, records=log.records[:end])

"""Somebody who writes to a store on a file system that fails, and knows outside of it what was promised.

`Witness` is everything outside: the senders' journal, what a sink received, which ids, cursors and snapshots were heard
of. It outlives every opening of the store and judges the next one. A sender is told that its message is safe only by
`committer.when_durable`, or by the return of `dead_letters.store`.

`Upstream` is one consumer with a durable cursor. `Disk` is the real disk with a hold on every file that was opened for
writing, so that a life that ends badly gives its descriptors back as a dead process would.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from gateway.config.settings import LogSettings
from gateway.errors import StorageError
from gateway.forward import ledger
from gateway.model import Batch, DeadLetter, Format, Gap, Kind, Position
from gateway.ringlog import Reader, RingLog, Store, letters_of
from gateway.ringlog.storage import DiskFile, DiskStorage
from tests.conftest import HandClock
from tests.oracle import Journal, Judgement, Name, digest, judge, read_journal

KIB = 1024
SMALL = LogSettings(
    max_size_bytes=96 * KIB,
    segment_size_bytes=8 * KIB,
    tip_bytes=4 * KIB,
    dead_letters_max_size_bytes=256 * KIB,
    audit_max_size_bytes=256 * KIB,
    compress=False,
)
"""Twelve short segments, so that a life of a few dozen batches sees every kind of operation."""
SINK = "cloud"
LETTERS, AUDIT = "letters", "audit"
_WAIT_S = 20.0
_PAUSE_S = 0.0005


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that nobody announces. The pause lets the writer thread run."""
    async with asyncio.timeout(_WAIT_S):
        while not condition():
            await asyncio.sleep(_PAUSE_S)


def open_store(data_dir: Path, clock: HandClock, settings: LogSettings = SMALL, storage=None, failures=None) -> Store:
    """A store; `failures` is a list that gets what `on_failure` is told."""
    return Store(data_dir, "gw", settings, clock, (failures if failures is not None else []).append, storage)


class Disk(DiskStorage):
    """The machine's own file system. Whoever inherits hears in `note` of every change before it is made."""

    def __init__(self) -> None:
        self._open_files: set[TrackedFile] = set()

    def note(self, call: str, path: Path) -> None:
        """About to happen."""

    def make_dir(self, path: Path) -> None:
        if not path.is_dir():
            self.note("make_dir", path)
        super().make_dir(path)

    def create(self, path: Path) -> TrackedFile:
        self.note("create", path)
        return TrackedFile(super().create(path), path, self)

    def open(self, path: Path, *, writable: bool = False) -> DiskFile | TrackedFile:
        file = super().open(path, writable=writable)
        return TrackedFile(file, path, self) if writable else file

    def rename(self, old: Path, new: Path) -> None:
        self.note("rename", new)
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self.note("remove", path)
        super().remove(path)

    def sync_dir(self, path: Path) -> None:
        self.note("sync_dir", path)
        super().sync_dir(path)

    @property
    def open_files(self) -> list[TrackedFile]:
        """Those that were opened for writing."""
        return list(self._open_files)

    def die(self) -> None:
        """Close every file that is still open."""
        for file in self.open_files:
            file.close()


class TrackedFile:
    """A file of a `Disk`, opened for writing."""

    def __init__(self, file: DiskFile, path: Path, disk: Disk) -> None:
        self.path = path
        self._file, self._disk = file, disk
        disk._open_files.add(self)
        self.unsynced: list[tuple[int, bytes]] = []
        """What was written since the last sync, with its offset."""

    def read(self, size_bytes: int, offset: int) -> bytes:
        return self._file.read(size_bytes, offset)

    def write(self, data: bytes, offset: int) -> None:
        self._disk.note("write", self.path)
        self._file.write(data, offset)
        self.unsynced.append((offset, data))

    def sync(self) -> None:
        self._disk.note("sync", self.path)
        self._file.sync()
        self.unsynced.clear()

    def truncate(self, size_bytes: int) -> None:
        self._disk.note("truncate", self.path)
        self._file.truncate(size_bytes)

    def allocate(self, size_bytes: int) -> None:
        self._disk.note("allocate", self.path)
        self._file.allocate(size_bytes)

    def size_bytes(self) -> int:
        return self._file.size_bytes()

    def close(self) -> None:
        if self in self._disk._open_files:
            self._disk._open_files.remove(self)
            self._file.close()


class Witness:
    """What everybody outside knows. See the module."""

    def __init__(self, journal: Path, rng: random.Random) -> None:
        """Args: journal: a file that the fault does not touch; one that is there is continued."""
        self.is_cut_off: Callable[[], bool] = lambda: False
        """A machine without power tells nobody anything: what it promises then is not heard."""
        self.told = 0
        """Acknowledgements so far."""
        self._path = journal
        self._journal = Journal(journal)
        self.rng = rng
        self._next: dict[str, int] = {}
        self._ids: dict[str, Name] = {}
        self.reused_ids: list[str] = []
        self._places: dict[Name, int] = {}
        """Sequence number in its log under which a message was appended last."""
        self.delivered: list[tuple[Name, str]] = []
        """What the sink received."""
        self.cursor_kept = self.cursor_noted = 0
        """Sequence numbers: of the last cursor whose storing was confirmed, of the last that was tried."""
        self.snapshot_kept = self.snapshot_tried = 0

    def close(self) -> None:
        self._journal.close()

    # Sending.

    def compose(self, stream: str, count: int, size_bytes: int | None = None) -> dict[Name, bytes]:
        """The next messages of a stream, in the journal as sent. Random bytes: none passes for another."""
        messages: dict[Name, bytes] = {}
        for _ in range(count):
            number = self._next[stream] = self._next.get(stream, -1) + 1
            body = self.rng.randbytes(size_bytes or self.rng.choice((10, 60, 150, 400)))
            messages[stream, number] = b"%d " % number + body
        self._journal.sent(messages.items())
        return messages

    def append(self, store: Store, ring: RingLog, messages: dict[Name, bytes]) -> None:
        """Into a log; acknowledged when the committer says so."""
        batch = Batch(
            kind=Kind.DECISIONS if ring is store.audit else Kind.EVENTS,
            stamp=ring.stamp(),
            topics=[stream for stream, _ in messages],
            formats=[Format.RAW] * len(messages),
            flags=[1] * len(messages),
            payloads=list(messages.values()),
        )
        ring.append(batch)
        self._placed(batch.seq, messages)
        for event, name in zip(batch.events(), messages, strict=True):
            self.heard_of(event.id, name)
        store.committer.when_durable(partial(self._promised, tuple(messages)))

    def send(
        self, store: Store, count: int, *, stream: str = "devices/0/climate", size_bytes: int | None = None
    ) -> None:
        """A batch of events from one device."""
        self.append(store, store.events, self.compose(stream, count, size_bytes))

    async def bury(self, store: Store, count: int = 1, size_bytes: int | None = None) -> None:
        """Dead letters; acknowledged when storing them returns.

        Raises:
            StorageError: if that failed.
        """
        messages = self.compose(LETTERS, count, size_bytes)
        self._placed(store.dead_letters.ring.appended.seq, messages)
        letters = [DeadLetter("", LETTERS, data, 1, "ingest", "json", "", 1, 0, 0) for data in messages.values()]
        await store.dead_letters.store(letters)
        self._promised(messages)

    async def snap(self, store: Store, size_bytes: int = 3_000) -> None:
        """Replace the rule snapshot by the next one.

        Raises:
            StorageError: if that failed.
        """
        self.snapshot_tried += 1
        number = self.snapshot_tried
        await store.store_rules(snapshot_of(number, size_bytes))
        if not self.is_cut_off():
            self.snapshot_kept = number

    def heard_of(self, event_id: str, name: Name) -> None:
        """Law L3: an id never names two events, whatever became of the first."""
        known = self._ids.setdefault(event_id, name)
        if known != name:
            self.reused_ids.append(event_id)

    def _promised(self, names: Iterable[Name]) -> None:
        if not self.is_cut_off():
            names = tuple(names)
            self.told += len(names)
            self._journal.acknowledged(names)

    def received(self, batch: Batch) -> None:
        """At the sink."""
        if not self.is_cut_off():
            self.delivered += named(batch)

    def _placed(self, seq: int, messages: dict[Name, bytes]) -> None:
        self._places.update(zip(messages, range(seq, seq + len(messages)), strict=True))

    # Judging.

    def journal(self) -> tuple[dict[Name, str], set[Name]]:
        """`(sent, acknowledged)` so far."""
        return read_journal(self._path)

    async def judge(self, store: Store) -> Judgement:
        """Hold what a store gives, just opened, against everything that was promised.

        What the sink received counts as promised too: nothing may be let out that a power cut can take back. What the
        log gave up is not lost if a reader is told so by a gap.
        """
        sent, acknowledged = self.journal()
        acknowledged |= {name for name, _ in self.delivered}
        found = [item for ring in store.rings for item in await self.read(store, ring)]
        evicted = self.evicted(store)
        self._check_snapshot(store)
        self._check_cursor(store)
        judgement = judge(sent, acknowledged, found, evicted=evicted)
        assert not self.reused_ids, f"ids of two events each: {self.reused_ids[:5]}"
        assert judgement.repeats == 0, f"{judgement.repeats} records are in the log twice"
        return judgement

    def evicted(self, store: Store) -> set[Name]:
        """What the logs do not have any more, as their readers are told in the first gap: see `read`."""
        others = {LETTERS: store.dead_letters.ring, AUDIT: store.audit}
        floors = {stream: ring.floor.seq for stream, ring in others.items()}
        return {name for name, seq in self._places.items() if seq < floors.get(name[0], store.events.floor.seq)}

    async def read(self, store: Store, ring: RingLog) -> list[tuple[Name, str]]:
        """All that a log gives. Every gap is announced, and one before the log's beginning as an eviction."""
        found: list[tuple[Name, str]] = []
        events = 0
        reader = store.reader(Position(0, 0), durable_only=True, log=ring)
        while reader.position.seq < ring.durable.seq:
            item = await reader.read(1_000)
            if isinstance(item, Gap):
                events += item.events
                assert (item.reason == "evicted") == (item.to_seq == ring.floor.seq), item
                continue
            events += len(item) if item.kind is Kind.EVENTS else 0
            found += named(item)
            if item.kind is not Kind.DEAD_LETTERS:
                for event, (name, _) in zip(item.events(), named(item), strict=True):
                    self.heard_of(event.id, name)
        assert reader.position.ordinal == events == ring.durable.ordinal, "the accounts of the log do not balance (L7)"
        return found

    def _check_snapshot(self, store: Store) -> None:
        value = store.load_rules()
        number = 0 if value is None else int(value.split(b" ")[0])
        assert self.snapshot_kept <= number <= self.snapshot_tried, f"snapshot {number}, {self.snapshot_kept} was kept"
        assert value is None or value == snapshot_of(number, len(value)), f"snapshot {number} is not what was stored"
        self.snapshot_kept = number

    def _check_cursor(self, store: Store) -> None:
        cursor = store.cursors.load(SINK)
        seq = 0 if cursor is None else cursor.seq
        assert self.cursor_kept <= seq <= self.cursor_noted, f"cursor at {seq}, {self.cursor_kept} was kept"
        # One that broke off before its first value was kept has nothing in it.
        assert not store.cursors.unusable or self.cursor_kept == 0
        self.cursor_kept = seq


class Upstream:
    """A consumer: takes what is durable, counts what became of it, keeps its cursor. Its accounts are checked (L7)."""

    def __init__(self, store: Store, witness: Witness) -> None:
        self._store, self._witness = store, witness
        known = store.cursors.load(SINK) or ledger.begin(Position(0, 0))
        self.cursor, self.beyond = ledger.clamp(known, store.events.appended)
        """`beyond`: events that the cursor had counted and that the log has lost from its end."""
        self._reader: Reader = store.reader(Position(known.seq, known.ordinal), durable_only=True)
        self.was_clamped = self._reader.was_clamped
        store.cursors.note(SINK, self.cursor)

    async def take(self) -> None:
        """Receive everything that is durable, and note the cursor.

        Raises:
            OSError: if the disk cannot be read.
        """
        reader, cursor = self._reader, self.cursor
        while reader.position.seq < self._store.events.durable.seq:
            item = await reader.read(20)
            if isinstance(item, Gap):
                cursor = ledger.advance(cursor, reader.position, evicted=item.events)
            else:
                self._witness.received(item)
                cursor = ledger.advance(cursor, reader.position, delivered=len(item))
        self.cursor = cursor
        self._witness.cursor_noted = max(self._witness.cursor_noted, cursor.seq)
        self._store.cursors.note(SINK, cursor)

    async def keep(self) -> None:
        """Put the cursor on disk.

        Raises:
            StorageError: if the disk refuses.
        """
        cursor = self.cursor
        await self._store.cursors.store(SINK, cursor, after_events=False)
        if not self._witness.is_cut_off():
            self._witness.cursor_kept = cursor.seq


def named(batch: Batch) -> list[tuple[Name, str]]:
    """What a batch holds, each with its name and digest. What is none of ours gets a name that nobody sent."""
    if batch.kind is Kind.DEAD_LETTERS:
        letters = letters_of(batch)
        assert len(letters) == len(batch), "a letter does not decode"
        return [(_name(letter.topic, letter.payload), digest(letter.payload)) for letter in letters]
    pairs = zip(batch.topics, batch.payloads, strict=True)
    return [(_name(topic, payload), digest(payload)) for topic, payload in pairs]


def _name(stream: str, payload: bytes) -> Name:
    number = payload.split(b" ", 1)[0]
    return stream, int(number) if number.isdigit() else -1


def snapshot_of(number: int, size_bytes: int) -> bytes:
    """The snapshot of this number, of about this size: its bytes follow from both."""
    head = b"%d " % number
    return head + random.Random(number).randbytes(max(0, size_bytes - len(head)))


def is_dead(store: Store) -> bool:
    """Whether its disk takes nothing any more."""
    return store.committer.failure is not None or bool(store.committer.held)


async def settled(store: Store) -> None:
    """Wait until the events are durable, or cannot be."""
    await until(lambda: store.events.durable == store.events.appended or is_dead(store))


async def end(store: Store) -> None:
    """Close a store as far as its disk lets it."""
    with contextlib.suppress(StorageError):
        await store.close()

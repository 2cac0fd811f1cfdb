"""S4, the other half: random lives with many cuts, held against a model that a reader can check by eye.

`test_weak_ordering` goes through every state that one cut may leave. This goes from cut to cut: what one has left is
what the next life builds on, and dies on. Hypothesis finds the sequences, and shrinks the one that fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from gateway.model import Batch, Cursor, DeadLetter, Format, Kind, Position
from gateway.ringlog import RingLog, RingSettings, snapshot
from gateway.ringlog.deadletters import letters_of
from gateway.ringlog.store import EVENTS_DIR
from tests.conftest import HandClock
from tests.crash.figures import FULL, keep, share
from tests.crash.ordering import FILLS, Aftermath, KilledError, Loss, Recorder
from tests.crash.threadless import Threadless, at_once

HOME = Path("data")
SEGMENTS_START = f"{HOME / EVENTS_DIR}/0"
SEGMENT_BYTES = 2_048
MAX_SIZE_BYTES = 12_288
MAX_AGE_S = 3_600.0
EVENT_SIZES = RingSettings(MAX_SIZE_BYTES, SEGMENT_BYTES, 512, compress=False, max_age_s=MAX_AGE_S)
LETTER_SIZES = RingSettings(8_192, SEGMENT_BYTES, 512, compress=False)
Value = TypeVar("Value")


# The model: what must be there, whatever has happened.


@dataclass
class Ledger:
    """One log: what was appended to it, by sequence number, and how much of that somebody relies on."""

    told: list[bytes | None] = field(default_factory=list)
    """Safe. None: a number whose record a cut took although a later one stayed: a gap."""
    offered: list[bytes] = field(default_factory=list)
    """Appended after those; nobody has been told anything."""
    floor: int = 0
    """What is before has been given up."""

    def settle(self) -> None:
        """Everything offered is safe."""
        self.told += self.offered
        self.offered = []

    def compare(self, found: list[tuple[int, bytes]], start: int = 0) -> None:
        """What a reader got from `start` on: nothing is lost, invented or out of order."""
        known, present = self.told + self.offered, dict(found)
        assert [seq for seq, _ in found] == sorted(present), "out of order, or twice"
        wrong = [seq for seq, payload in found if known[seq] != payload]
        assert not wrong, f"never appended there: {wrong}"
        relied = range(max(start, self.floor), len(self.told))
        lost = [seq for seq in relied if self.told[seq] is not None and seq not in present]
        assert not lost, f"acknowledged and lost: {lost}"

    def reopen(self, found: list[tuple[int, bytes]], end: int) -> None:
        """What a start finds. More than is safe may be there; once served it must stay."""
        safe, most = len(self.told), len(self.told + self.offered)
        assert safe <= end <= most, f"the log ends at {end}, and not between {safe} and {most}"
        self.compare(found)
        self.told += [dict(found).get(seq) for seq in range(safe, end)]
        self.offered = []


@dataclass
class Place(Generic[Value]):
    """A value that is replaced as a whole: a cursor, a snapshot."""

    safe: Value | None = None
    tried: list[Value] = field(default_factory=list)
    """Since then."""

    def settle(self, value: Value) -> None:
        """This one is safe."""
        self.safe, self.tried = value, []

    def reopen(self, found: Value | None) -> None:
        """What a start finds: the safe one or a later one, whole. A later one may be gone again after the next cut."""
        assert found in (self.safe, *self.tried), f"{found} is neither {self.safe} nor one of {self.tried}"


# The life that is held against it.

lives = precondition(lambda self: self.store is not None)
fuses = st.none() | st.integers(0, 3) | st.integers(0, 12)
"""After how many operations the process dies in what it does now, if at all."""


class StoreMachine(RuleBasedStateMachine):
    """Appends, commits, cursors, dead letters, snapshots and evictions, between kills, cuts and clean stops."""

    tally: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.disk = Recorder()
        self.aftermath = Aftermath()
        self.followed = 0
        self.store: Threadless | None = None
        self.events, self.letters = Ledger(), Ledger()
        self.cursor: Place[Cursor] = Place()
        self.noted: Cursor | None = None
        self.snapshot: Place[bytes] = Place()
        self.names: set[tuple[int, int]] = set()
        """Log id and epoch of every life that could give a record a number."""
        self.newest_ns = self.safe_ns = 0
        """The log's own clock at the last record, and at the last that is safe."""
        self.numbers = 0
        self.start()

    # One life.

    @lives
    @rule(
        sizes=st.lists(st.integers(0, 300), min_size=1, max_size=3), kind=st.sampled_from((Kind.EVENTS, Kind.DECISIONS))
    )
    def append(self, sizes: list[int], kind: Kind) -> None:
        self.clock.advance(1)
        payloads = [self.unique() + b"." * size for size in sizes]
        ring, count = self.store.events, len(payloads)
        stamp = ring.stamp()
        ring.append(Batch(kind, stamp, ["devices/a"] * count, [Format.RAW] * count, [1] * count, payloads))
        self.events.offered += payloads
        self.newest_ns = stamp.elapsed_ns

    @lives
    @rule()
    def refuse(self) -> None:
        detail = self.unique()
        self.store.letters.append(
            [DeadLetter("", "devices/a", b"x" * 100, 1, "sink", "http_400", detail.decode(), 1, 0, 0)]
        )
        self.letters.offered.append(detail)

    @lives
    @rule(fuse=fuses)
    def commit(self, fuse: int | None) -> None:
        self.work(self.store.clerk.job, fuse)

    @lives
    @rule(count=st.integers(1, 12), fuse=fuses)
    def roll(self, count: int, fuse: int | None) -> None:
        """Batch after batch, each more than fits behind another: the ring goes round."""
        while count and self.store is not None:
            count -= 1
            self.append([300] * 5, Kind.EVENTS)
            self.commit(None if count else fuse)

    @lives
    @rule()
    def note_cursor(self) -> None:
        """It may wait: a sink tells where it stands more often than that is written."""
        self.noted = self.cursor_here(len(self.letters.told))
        self.store.cursors.note("sink", self.noted)
        self.cursor.tried.append(self.noted)

    @lives
    @rule(fuse=fuses)
    def store_cursor(self, fuse: int | None) -> None:
        """In one job with the dead letters that it takes for granted."""
        cursor = self.noted = self.cursor_here(len(self.letters.told + self.letters.offered))
        self.cursor.tried.append(cursor)
        if self.work(lambda: at_once(self.store.cursors.store("sink", cursor, after_events=False)), fuse):
            self.cursor.settle(cursor)

    @lives
    @rule(size=st.integers(1, 2_000), fuse=fuses)
    def store_snapshot(self, size: int, fuse: int | None) -> None:
        value = self.unique() + b"." * size
        self.snapshot.tried.append(value)
        task = partial(snapshot.store, self.disk, self.store.rules, value)
        if self.work(lambda: self.store.clerk.job([task]), fuse):
            self.snapshot.settle(value)

    @lives
    @rule(seconds=st.sampled_from((1.0, MAX_AGE_S / 4, 2 * MAX_AGE_S)), fuse=fuses)
    def expire(self, seconds: float, fuse: int | None) -> None:
        self.clock.advance(seconds)
        self.work(lambda: at_once(self.store.events.expire()), fuse)

    @lives
    @rule()
    def read(self) -> None:
        """A consumer sees what is safe, from memory and from disk alike."""
        self.events.compare(records(self.store.read(self.store.events)[0]))

    # Its end, and the next.

    @lives
    @rule(fuse=fuses)
    def stop(self, fuse: int | None) -> None:
        if self.work(self.store.clerk.job) and self.work(self.store.close, fuse):
            self.end("stops")

    @lives
    @rule()
    def kill(self) -> None:
        """What was written stays in the page cache."""
        self.end("kills")

    @precondition(lambda self: self.store is not None or self.follow().uncertain)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        """What was not synced is on the medium or not, each operation for itself; one write is torn."""
        aftermath = self.follow()
        indexes = range(len(aftermath.uncertain))
        missing = data.draw(st.sets(st.sampled_from(indexes)) if indexes else st.just(set()), "missing")
        writes = [index for index in indexes if index not in missing and aftermath.uncertain[index].kind == "write"]
        torn = data.draw(st.none() | st.sampled_from(writes) if writes else st.none(), "torn")
        if torn is not None:
            torn = torn, data.draw(st.integers(0, len(aftermath.uncertain[torn].data)), "bytes kept")
        fill = data.draw(st.sampled_from(FILLS), "fill")
        found = aftermath.after(Loss(tuple(missing), torn, fill))
        self.disk, self.aftermath, self.followed = Recorder(found), Aftermath(found, aftermath.stale), 0
        self.clock.reboot()
        self.end("cuts")

    @precondition(lambda self: self.store is None)
    @rule(fuse=fuses)
    def start(self, fuse: int | None = None) -> None:
        self.disk.ops_left = fuse
        try:
            self.store = store = Threadless(self.disk, HOME, self.clock, EVENT_SIZES, LETTER_SIZES)
            cursor = store.cursors.load("sink")
            state = snapshot.load(self.disk, store.rules)
        except KilledError:
            self.end("kills during a start")
            return
        self.disk.ops_left = None
        self.tally["starts"] += 1
        name = store.events.log_id, store.events.epoch
        assert name not in self.names, "an epoch is used twice"
        assert not self.names or store.events.log_id in dict(self.names), "the log has forgotten who it is"
        self.names.add(name)
        assert store.events.elapsed_ns() >= self.safe_ns, "the log's clock went back"
        self.newest_ns = self.safe_ns
        self.events.reopen(records(store.read(store.events)[0]), store.events.appended.seq)
        self.letters.reopen(details(store.read(store.letters.ring)[0]), store.letters.ring.appended.seq)
        self.snapshot.reopen(state)
        self.cursor.reopen(cursor)
        self.noted = cursor
        if cursor is not None:
            place, end = Position(cursor.seq, cursor.ordinal), store.events.appended
            assert place.seq <= end.seq, "the cursor is beyond the log's end"
            assert place.ordinal <= end.ordinal, "the cursor is beyond the log's end"
            assert cursor.dead_lettered <= len(self.letters.told), "the cursor passed a dead letter that is lost"
            self.events.compare(records(store.read(store.events, place)[0]), place.seq)
            store.cursors.note("sink", cursor)

    @invariant()
    def marks_agree(self) -> None:
        """What the log says of itself is what the outside was told."""
        if self.store is not None:
            for ring, ledger in self.rings():
                assert ring.durable.seq == len(ledger.told)
                assert ring.appended.seq == len(ledger.told + ledger.offered)

    # The parts of a rule.

    def work(self, job: Callable[[], None], fuse: int | None = None) -> bool:
        """One job. False if the process died in it."""
        store, ledgers = self.store, self.rings()
        grows = bool(self.events.offered)
        self.disk.ops_left = fuse
        try:
            job()
        except KilledError:
            self.end("kills in a job")
        else:
            self.disk.ops_left = None
            for _, ledger in ledgers:
                ledger.settle()
            self.safe_ns = self.newest_ns
            if grows:
                assert self.used_bytes() <= MAX_SIZE_BYTES + SEGMENT_BYTES, "the log outgrows its size"
        if store.events.floor.seq > self.events.floor:
            self.tally["evictions"] += 1
            if self.noted is not None:
                self.cursor.settle(self.noted)  # written before the segment went
        for ring, ledger in ledgers:
            ledger.floor = max(ledger.floor, ring.floor.seq)
        return self.store is not None

    def end(self, how: str) -> None:
        self.tally[how] += 1
        self.store = None
        self.disk.ops_left = None

    def follow(self) -> Aftermath:
        """What a cut could take now."""
        for op in self.disk.ops[self.followed :]:
            self.aftermath.advance(op)
        self.tally["operations"] += len(self.disk.ops) - self.followed
        self.followed = len(self.disk.ops)
        return self.aftermath

    def rings(self) -> tuple[tuple[RingLog, Ledger], tuple[RingLog, Ledger]]:
        return (self.store.events, self.events), (self.store.letters.ring, self.letters)

    def used_bytes(self) -> int:
        there = self.disk.entries.items()
        return sum(len(self.disk.contents[inode]) for path, inode in there if path.startswith(SEGMENTS_START))

    def cursor_here(self, dead_lettered: int) -> Cursor:
        place = self.store.events.durable
        return Cursor(place.seq, place.ordinal, delivered=place.ordinal, dead_lettered=dead_lettered)

    def unique(self) -> bytes:
        self.numbers += 1
        return b"%08d" % self.numbers


def records(batches: list[Batch]) -> list[tuple[int, bytes]]:
    return [(batch.seq + index, payload) for batch in batches for index, payload in enumerate(batch.payloads)]


def details(batches: list[Batch]) -> list[tuple[int, bytes]]:
    return [
        (batch.seq + index, letter.detail.encode())
        for batch in batches
        for index, letter in enumerate(letters_of(batch))
    ]


@pytest.mark.timeout(3_600 if FULL else 400)  # it takes seconds; to shrink a failure Hypothesis may take 300 s
def test_a_store_keeps_what_it_told_over_kills_and_power_cuts(seed):
    """Laws L1 to L7 over many lives: what was acknowledged stays, until it is evicted; nothing else ever appears."""
    examples = share(100, 10_000)
    StoreMachine.tally = Counter()
    run_state_machine_as_test(
        hypothesis.seed(seed)(StoreMachine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            derandomize=False,
            database=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    tally = StoreMachine.tally
    assert all(tally[what] for what in ("evictions", "cuts", "kills", "kills in a job", "kills during a start"))
    kills = tally["kills"] + tally["kills in a job"] + tally["kills during a start"]
    keep(
        "S4",
        "weak ordering: random lives from cut to cut, beside a model",
        f"{examples:,} examples, {tally['operations']:,} operations, {tally['starts']:,} starts "
        f"after {tally['cuts']:,} cuts, {kills:,} kills and {tally['stops']:,} clean stops; "
        f"{tally['evictions']:,} evictions",
        "0 lost, 0 phantom, 0 disordered, 0 epochs used twice",
        seed=seed,
    )

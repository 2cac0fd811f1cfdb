"""S4: every state that a disk may be in after a power cut, on a disk that orders nothing by itself."""

from __future__ import annotations

import asyncio
import os
import random
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.config.settings import LogSettings
from gateway.model import Batch, Cursor, DeadLetter, Format, Kind
from gateway.ringlog import RingSettings, snapshot
from gateway.ringlog.deadletters import letters_of
from gateway.ringlog.store import DEAD_LETTERS_DIR, EVENTS_DIR, Store
from tests.crash.figures import FULL, keep, share
from tests.crash.ordering import Aftermath, Disk, Recorder
from tests.crash.threadless import Threadless

SETTINGS = LogSettings(
    max_size_bytes=12_288, segment_size_bytes=2_048, tip_bytes=512, dead_letters_max_size_bytes=8_192, compress=False
)
SIZES = RingSettings(12_288, 2_048, 512, compress=False)
LETTER_SIZES = RingSettings(8_192, 2_048, 512, compress=False)
REOPEN_EVERY = 7
"""Of so many states one is also appended to, closed and opened once more."""
CUT_AGAIN_EVERY = 200
"""Of so many states one is also cut after each operation of its recovery, in every way."""


@dataclass
class History:
    """What the outside was told, and after which operation."""

    sent: list[set[bytes]] = field(default_factory=list)
    """By sequence number. A number that a kill took back was offered twice."""
    appended: list[tuple[int, int]] = field(default_factory=list)
    """(operations so far, records offered)."""
    durable: list[tuple[int, int]] = field(default_factory=list)
    """(operations so far, records acknowledged)."""
    cursors: list[tuple[int, int]] = field(default_factory=list)
    """(operations so far, position stored)."""
    letters: list[tuple[int, int]] = field(default_factory=list)
    """(operations so far, dead letters stored)."""
    snapshots: list[tuple[int, int]] = field(default_factory=list)
    """(operations so far, number of the snapshot stored)."""
    snapshots_begun: int = 0
    epochs: list[tuple[int, int]] = field(default_factory=list)
    """(operations before, epoch under which records were offered from there on)."""


def latest(moments: list[tuple[int, int]], upto: int, default: int = 0) -> int:
    """What was so when `upto` operations had been carried out."""
    index = bisect_right(moments, (upto, float("inf")))
    return moments[index - 1][1] if index else default


async def live(disk: Recorder, home: Path, clock, rng: random.Random, steps: int) -> History:
    """A random life on a disk that works: appends, cursors, dead letters, snapshots, evictions, restarts and kills."""
    history = History()

    def open_store() -> Store:
        store = Store(home, "gw", SETTINGS, clock, lambda error: None, disk)
        history.epochs.append((len(disk.ops), store.events.epoch))
        return store

    store = open_store()
    for _ in range(steps):
        match rng.choices(("append", "cursor", "letter", "snapshot", "restart", "kill"), (12, 5, 2, 2, 1, 1))[0]:
            case "append":
                await offer(store, history, disk, rng, clock)
            case "cursor":
                place = store.events.durable
                await store.cursors.store("sink", Cursor(place.seq, place.ordinal), after_events=False)
                history.cursors.append((len(disk.ops), place.seq))
            case "letter":
                await bury(store, history, disk)
            case "snapshot":
                history.snapshots_begun += 1
                await store.store_rules(b"snapshot %d " % history.snapshots_begun * 50)
                history.snapshots.append((len(disk.ops), history.snapshots_begun))
            case "restart":
                await store.close()
                store = open_store()
            case "kill":
                disk.ops_left = rng.randrange(12)
                while store.committer.failure is None:
                    await offer(store, history, disk, rng, clock)
                await drop(store)
                disk.ops_left = None
                store = open_store()
                # What is found is served, so that from here on it must stay.
                found = store.events.durable.seq
                history.appended.append((len(disk.ops), found))
                history.durable.append((len(disk.ops), found))
    await store.close()
    return history


async def drop(store: Store) -> None:
    """The end of a process: nothing is written any more."""
    store.committer.abandon()
    await asyncio.to_thread(store.committer._thread.join)
    os.close(store._lock)


async def offer(store: Store, history: History, disk: Recorder, rng: random.Random, clock) -> None:
    """Some batches in one job, with what the outside is told about them."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        append(store, history, rng, clock)
    end = store.events.appended.seq
    store.committer.when_durable(lambda: history.durable.append((len(disk.ops), end)))
    history.appended.append((len(disk.ops), end))
    await store.committer.flush()
    await asyncio.sleep(0)


def append(store: Store, history: History, rng: random.Random, clock) -> None:
    count = rng.choice((1, 2, 8))
    first = store.events.appended.seq
    payloads = [b"%08d" % seq + rng.randbytes(rng.choice((5, 30, 200))) for seq in range(first, first + count)]
    for seq, payload in enumerate(payloads, first):
        if seq == len(history.sent):
            history.sent.append(set())
        history.sent[seq].add(payload)
    clock.advance(1)
    store.events.append(
        Batch(
            Kind.EVENTS,
            store.events.stamp(),
            ["devices/a/climate"] * count,
            [Format.RAW] * count,
            [1] * count,
            payloads,
        )
    )


async def bury(store: Store, history: History, disk: Recorder) -> None:
    """A dead letter, and a cursor that takes it for granted."""
    number = latest(history.letters, len(disk.ops)) + 1
    letter = DeadLetter(str(number), "devices/a", b"x" * 60, 1, "sink", "http_400", "", 1, 0, 0)
    await store.dead_letters.store([letter])
    history.letters.append((len(disk.ops), number))
    await store.cursors.store("buried", Cursor(number, number), after_events=False)


@dataclass
class Judge:
    """Holds a state against what the outside had been told."""

    home: Path
    history: History
    floors: list[tuple[int, int]]
    """(operations so far, lowest sequence number that has not been given up)."""
    letter_floors: list[tuple[int, int]]
    clock: object
    states: int = 0
    reopened: int = 0
    cut_twice: int = 0
    """States that a cut during the recovery from another state has left."""
    salvaged: int = 0
    """States in which more was found than had been acknowledged."""

    def look(self, disk: Disk, upto: int) -> None:
        history = self.history
        store = self._open(disk)
        ring = store.events
        batches, gaps = store.read(ring)
        seen = {batch.seq + i: payload for batch in batches for i, payload in enumerate(batch.payloads)}
        order = [batch.seq for batch in batches]
        offered, acknowledged = latest(history.appended, upto), latest(history.durable, upto)
        lost = [seq for seq in range(latest(self.floors, upto), acknowledged) if seq not in seen]
        assert not lost, f"lost {lost[:5]}, gaps {gaps}"
        assert order == sorted(order)
        phantom = [seq for seq, payload in seen.items() if seq >= offered or payload not in history.sent[seq]]
        assert not phantom, f"phantom {phantom[:5]}"
        assert ring.epoch > latest(history.epochs, upto), "an epoch is used twice"
        self.salvaged += max(seen, default=-1) >= acknowledged
        self._look_at_the_rest(store, upto)
        self.states += 1
        if self.states % REOPEN_EVERY == 0:
            self._go_on(store, len(seen))

    def cut_again(self, found: Disk, upto: int, stale: bytes) -> None:
        """The power fails while the next start recovers: after each of its operations, in every way."""
        disk = Recorder(found)
        self._open(disk)
        aftermath = Aftermath(found, stale)
        seen = set()
        for op in disk.ops:
            aftermath.advance(op)
            for loss in aftermath.losses():
                state = aftermath.after(loss)
                if (key := key_of(state)) not in seen:
                    seen.add(key)
                    self.look(state, upto)
                    self.cut_twice += 1

    def _open(self, disk: Disk) -> Threadless:
        return Threadless(disk, self.home, self.clock, SIZES, LETTER_SIZES)

    def _look_at_the_rest(self, store: Threadless, upto: int) -> None:
        history, letters = self.history, store.letters.ring
        cursor = store.cursors.load("sink")
        if history.cursors and upto >= history.cursors[0][0]:
            assert cursor is not None
            assert cursor.seq >= latest(history.cursors, upto)
        assert cursor is None or cursor.seq <= store.events.appended.seq, "a cursor stands beyond the log's end"
        there = {letter.id for batch in store.read(letters)[0] for letter in letters_of(batch)}
        buried = store.cursors.load("buried")
        needed = max(latest(history.letters, upto), buried.seq if buried is not None else 0)
        first = max(letters.floor.seq, latest(self.letter_floors, upto))
        assert {str(number) for number in range(first + 1, needed + 1)} <= there, "a dead letter is lost"
        state = snapshot.load(store.disk, store.rules)
        stored = latest(history.snapshots, upto)
        if stored:
            assert state is not None, "the snapshot is lost"
            assert int(state.split()[1]) >= stored

    def _go_on(self, store: Threadless, before: int) -> None:
        """The log takes more, and is there again, whole, after a clean stop."""
        self.reopened += 1
        ring = store.events
        ring.append(Batch(Kind.EVENTS, ring.stamp(), ["devices/a"], [Format.RAW], [1], [b"after the cut"]))
        store.clerk.job()
        floor = ring.floor.seq
        store.close()
        again = self._open(store.disk)
        batches, _ = again.read(again.events)
        assert batches[-1].payloads[-1] == b"after the cut"
        if floor == again.events.floor.seq and not ring.chain.evicted:
            assert sum(len(each) for each in batches) == before + 1


def floors_of(ops, log: str) -> list[tuple[int, int]]:
    """From which operation on which records may be missing because they were given up."""
    present: set[int] = set()
    floors = []
    for index, op in enumerate(ops):
        if f"/{log}/" not in op.path or not op.path.endswith(".seg"):
            continue
        seq = int(Path(op.path).name[:20])
        if op.kind == "create":
            present.add(seq)
        elif op.kind == "remove":
            if seq == min(present) and len(present) > 1:
                floors.append((index + 1, sorted(present)[1]))
            present.discard(seq)
    return floors


def key_of(disk: Disk) -> int:
    """The same for states that look the same."""
    return hash(tuple(sorted((path, bytes(disk.contents[inode])) for path, inode in disk.entries.items())))


@pytest.mark.timeout(3_600 if FULL else 180)
async def test_no_state_after_a_power_cut_loses_or_invents_a_record(tmp_path, clock, seed):
    """Laws L1, L2, L3, L5: whatever the disk had not been asked to keep may be gone; all else is there."""
    rng = random.Random(seed)
    wanted = share(6_000, 150_000)
    states = lives = operations = salvaged = reopened = cut_twice = 0
    while states < wanted:
        home = tmp_path / f"life-{lives}"
        home.mkdir()
        disk = Recorder()
        history = await live(disk, home, clock, rng, share(60, 150))
        floors = floors_of(disk.ops, EVENTS_DIR)
        judge = Judge(home, history, floors, floors_of(disk.ops, DEAD_LETTERS_DIR), clock)
        aftermath = Aftermath()
        seen: set[tuple[int, int]] = set()
        for upto, op in enumerate(disk.ops, 1):
            aftermath.advance(op)
            told = latest(history.durable, upto)
            for loss in aftermath.losses():
                found = aftermath.after(loss)
                key = key_of(found), told
                if key in seen:
                    continue
                seen.add(key)
                try:
                    if len(seen) % CUT_AGAIN_EVERY == 0:
                        judge.cut_again(found, upto, aftermath.stale)
                    judge.look(found, upto)
                except Exception as error:
                    left = [aftermath.uncertain[index][:5] for index in loss.missing]
                    where = f"after operation {upto}, {op[:5]}, {loss}, missing {left}"
                    raise AssertionError(f"{where}: {error}") from error
        lives += 1
        operations += len(disk.ops)
        states, salvaged, reopened = states + judge.states, salvaged + judge.salvaged, reopened + judge.reopened
        cut_twice += judge.cut_twice
        assert floors or lives > 1, "a life is meant to be long enough to evict"
    assert salvaged > 0, "the model is meant to produce states that hold more than was promised"
    keep(
        "S4",
        "weak ordering: any unsynced operations missing, torn or stale",
        f"{states:,} distinct states after {operations:,} operations of {lives} lives, "
        f"{cut_twice:,} of them cut once more during recovery",
        f"0 lost, 0 phantom, 0 disordered, 0 cursors beyond the log; {reopened:,} reopened and written on",
        seed=seed,
    )

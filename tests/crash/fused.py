"""A scripted life of the log, in a process that is killed before a chosen system call.

The script: 400 appends over several segments, cursor commits, evictions, dead letters, rule snapshots, a clean stop
and a second opening in the middle. What the outside was told stands in journals beside the data directory, written with
plain `os.write`, so that they outlive the process.

`Fuse` counts every call that changes a file, in whichever thread, and kills the process before the N-th; or after half
of its bytes, if it is a write.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from gateway.clock import SystemClock
from gateway.config.settings import LogSettings
from gateway.errors import StorageError
from gateway.model import Batch, Cursor, DeadLetter, Format, Gap, Kind, Position
from gateway.ringlog import Store, letters_of
from tests.oracle import Journal, Judgement, Name, digest, judge, leaks_in, read_journal

SETTINGS = LogSettings(
    max_size_bytes=32_768,
    segment_size_bytes=8_192,
    tip_bytes=2_048,
    dead_letters_max_size_bytes=32_768,
    audit_max_size_bytes=32_768,
    compress=False,
)
TOPIC = "devices/a/climate"
APPENDS = 400
RECORDS = 3
COMMIT_EVERY = 10
"""Appends between two commits of the consumer's cursor."""
WINDOW = COMMIT_EVERY * RECORDS
"""What one kill may repeat."""
ASKED_AGAIN = 3
"""Exit code: a sync was asked again on a descriptor that had refused one."""
CALLS = ("pwrite", "fdatasync", "fsync", "ftruncate", "posix_fallocate", "replace", "unlink", "mkdir")


class Fuse:
    """Kills this process before a system call."""

    def __init__(self, at: int, *, torn: bool = False) -> None:
        """Args: at: which call, from 1; 0: none, only count. torn: a write has put half of its bytes by then."""
        self.count = 0
        self._at = at
        self._torn = torn
        self._lock = threading.Lock()

    def insert(self) -> None:
        """From now on every call that changes a file goes through here."""
        for name in CALLS:
            setattr(os, name, self._around(name, getattr(os, name)))
        opened = os.open
        creating = self._around("open", opened)
        os.open = lambda path, flags, *rest, **named: (
            creating(path, flags, *rest, **named) if flags & os.O_CREAT else opened(path, flags, *rest, **named)
        )

    def _around(self, name: str, call: Callable) -> Callable:
        def guarded(*args, **named):
            with self._lock:
                self.count += 1
                if self.count == self._at:
                    if self._torn and name == "pwrite":
                        call(args[0], args[1][: len(args[1]) // 2], args[2])
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **named)

        return guarded


class BadSync:
    """Refuses a sync with EIO, and remembers on which descriptor: nobody may ask there again."""

    def __init__(self, at: int, *, for_good: bool = False) -> None:
        """Args: at: which sync, from 1; 0: none, only count. for_good: and every one after it."""
        self.count = 0
        self.asked_again = 0
        self._at = at
        self._for_good = for_good
        self._refused: set[int] = set()
        self._lock = threading.Lock()

    def insert(self) -> None:
        """From now on every sync goes through here."""
        close = os.close
        os.fdatasync, os.fsync = self._around(os.fdatasync), self._around(os.fsync)

        def closing(fd: int) -> None:
            self._refused.discard(fd)
            close(fd)

        os.close = closing

    def _around(self, call: Callable) -> Callable:
        def guarded(fd: int) -> None:
            with self._lock:
                self.count += 1
                self.asked_again += fd in self._refused
                if self.count == self._at or (self._for_good and 0 < self._at < self.count):
                    self._refused.add(fd)
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            call(fd)

        return guarded


class Places:
    """Where a case keeps its things."""

    def __init__(self, home: Path) -> None:
        self.data = home / "data"
        self.journal = home / "sent.journal"
        self.deliveries = home / "delivered.journal"
        self.count = home / "calls"
        self.error = home / "error"


def open_store(places: Places) -> Store:
    return Store(places.data, "gw", SETTINGS, SystemClock(), lambda error: None)


class Consumer:
    """Reads durable records, journals each as delivered, and then moves its cursor."""

    def __init__(self, store: Store, places: Places) -> None:
        self._store = store
        cursor = store.cursors.load("sink") or Cursor(0, 0)
        self.reader = store.reader(Position(cursor.seq, cursor.ordinal), durable_only=True)
        self._journal = Journal(places.deliveries)
        self.evicted: set[Name] = set()
        self.damaged: list[Gap] = []

    async def consume(self) -> None:
        """Everything up to the durable mark, and the cursor behind it."""
        while self.reader.position.seq < self._store.events.durable.seq:
            item = await self.reader.read(1_000)
            if isinstance(item, Gap):
                (self.damaged.append(item) if item.reason != "evicted" else None)
                self.evicted |= {(TOPIC, seq) for seq in range(item.from_seq, item.to_seq)}
            else:
                self._journal.sent(((TOPIC, int(p.split()[0])), p) for p in item.payloads)
        place = self.reader.position
        await self._store.cursors.store("sink", Cursor(place.seq, place.ordinal), after_events=False)

    def close(self) -> None:
        self._journal.close()


async def script(places: Places) -> None:
    """The whole life, from the first opening to the last clean stop."""
    journal = Journal(places.journal)
    for half in range(2):
        store = open_store(places)
        consumer = Consumer(store, places)
        for turn in range(half * APPENDS // 2, (half + 1) * APPENDS // 2):
            await append(store, journal)
            if turn % COMMIT_EVERY == COMMIT_EVERY - 1:
                await insist(consumer.consume)
            if turn % 40 == 15:
                await insist(partial(bury, store, journal, turn))
            if turn % 60 == 25:
                await insist(partial(store.store_rules, b"state after %d " % turn * 20))
        await insist(consumer.consume)
        consumer.close()
        await store.close()
    journal.close()


async def insist(work: Callable[[], Awaitable[None]]) -> None:
    """Once more if the disk refuses, as a runner does."""
    try:
        await work()
    except StorageError:
        await work()


async def append(store: Store, journal: Journal) -> None:
    first = store.events.appended.seq
    payloads = [b"%d " % seq + b"." * (50 + seq % 17) for seq in range(first, first + RECORDS)]
    names = [(TOPIC, seq) for seq in range(first, first + RECORDS)]
    journal.sent(zip(names, payloads, strict=True))
    stamp = store.events.stamp()
    store.events.append(Batch(Kind.EVENTS, stamp, [TOPIC] * RECORDS, [Format.RAW] * RECORDS, [1] * RECORDS, payloads))
    told: list[bool] = []
    store.committer.when_durable(lambda: (journal.acknowledged(names), told.append(True)))
    await store.committer.flush()
    await asyncio.sleep(0)  # what is durable is told in the turn after
    if not told:
        raise store.committer.failure or AssertionError("durable, and nobody was told")


async def bury(store: Store, journal: Journal, number: int) -> None:
    letter = DeadLetter(str(number), TOPIC, b"x", 1, "sink", "http_400", "", 1, 0, 0)
    journal.sent([(("dlq", number), b"x")])
    await store.dead_letters.store([letter])
    journal.acknowledged([("dlq", number)])


async def start_and_stop(places: Places) -> None:
    """What a start after a crash does, and a clean stop."""
    store = open_store(places)
    store.load_rules()
    consumer = Consumer(store, places)
    await consumer.consume()
    consumer.close()
    await store.close()


def run(home: str, what: str, at: int, torn: bool) -> int:
    """What the process does that is to be killed; its exit code, should it get that far."""
    places = Places(Path(home))
    fuse = BadSync(at, for_good=torn) if what == "refused" else Fuse(at, torn=torn)
    fuse.insert()
    try:
        asyncio.run((start_and_stop if what == "start" else script)(places))
    except BaseException as error:  # whoever waits for the process looks there
        places.error.write_text(repr(error))
        return ASKED_AGAIN if isinstance(fuse, BadSync) and fuse.asked_again else 1
    if isinstance(fuse, BadSync) and fuse.asked_again:
        return ASKED_AGAIN
    places.count.write_text(str(fuse.count))
    return 0


async def verify(places: Places) -> Judgement:
    """Open what the fault has left, as the next start would, and judge it; then see that the log goes on."""
    store = open_store(places)
    store.load_rules()
    consumer = Consumer(store, places)
    await consumer.consume()
    letters = await dead_letters(store)
    assert not consumer.damaged, f"a kill damages nothing: {consumer.damaged}"
    sent, acknowledged = read_journal(places.journal)
    journal = Journal(places.journal)
    await append(store, journal)
    await consumer.consume()
    consumer.close()
    journal.close()
    end = store.events.durable.seq
    await store.close()
    again = open_store(places)
    assert again.events.durable.seq == end, "what was closed cleanly opens as it was"
    await again.close()
    sent, acknowledged = read_journal(places.journal)
    arrivals = [*arrivals_in(places.deliveries), *(((("dlq", int(each.id))), digest(each.payload)) for each in letters)]
    return judge(sent, acknowledged, arrivals, evicted=consumer.evicted, leaks=leaks_in(places.data))


async def dead_letters(store: Store) -> list[DeadLetter]:
    ring = store.dead_letters.ring
    reader = store.reader(ring.floor, durable_only=True, log=ring)
    found: list[DeadLetter] = []
    while reader.position.seq < ring.durable.seq:
        item = await reader.read(1_000)
        assert isinstance(item, Batch), f"a kill damages nothing: {item}"
        found += letters_of(item)
    return found


def arrivals_in(path: Path) -> list[tuple[Name, str]]:
    """Deliveries in their order, with digests."""
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1].splitlines()
    return [((stream, int(seq)), found) for _, stream, seq, found in (line.split(" ") for line in whole)]


def serve() -> None:
    """Fork a life for each line `HOME WHAT AT TORN` on stdin, and answer with how it ended. It then starts at once."""
    for line in sys.stdin:
        home, what, at, torn = line.split()
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # answers are the server's
            os._exit(run(home, what, int(at), torn == "True"))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()

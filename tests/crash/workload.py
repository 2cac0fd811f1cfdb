"""Lives of a data directory that the kill proofs put an end to: `python -m tests.crash.workload script|flood ...`.

A life opens a `Store`, appends small batches, reads them as a sink does, and closes. It keeps its own account outside
the data directory, on storage that the fault leaves alone, in two files that outlive a kill of the process:

JOURNAL           the senders' account, a `tests.oracle.Journal`: a message is acknowledged in it only from
                  `committer.when_durable`
JOURNAL.ledger    the rest, one line each, whole lines only:
    offered EPOCH SEQ STREAM NUMBER    a message was appended under this id of the log
    delivered STREAM NUMBER DIGEST     the sink has it; written before the cursor that passes it
    gap FROM TO REASON                 the sink was told that it missed these
    letter STREAM NUMBER               a dead letter was stored
    cursor SEQ                         the sink's cursor was stored
    refused SEQ                        it was not, and the sink went on: what is behind it may come again
    begun N, snapshot N                a rule snapshot is about to be stored, was stored
    ready MS                           a store was open after so many milliseconds

`script` lives one of two scripted lives: the same calls in the same order each time, so that a kill can be aimed at any
of them. `flood` goes on until it is killed. Both resume as devices do: what was not acknowledged is sent again.

A life can stop itself (SIGSTOP) at a gate: before it opens the store, before it works, before it closes. Whoever traces
it attaches there, so that only the calls of one phase count, nearly all of them by one thread.

Exit codes: 0 fine, 3 the log failed, 4 a cursor or snapshot was refused and all else went on.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.clock import SystemClock
from gateway.config.settings import LogSettings
from gateway.errors import StorageError
from gateway.model import Batch, Cursor, DeadLetter, Format, Gap, Kind, Position
from gateway.ringlog import Store
from tests.oracle import Journal, Name, digest

APPENDS = 200
"""Batches of one scripted life; there are two lives."""
WINDOW = 16
"""What the sink takes in before its cursor is stored: the bound of repeats after a kill."""
IN_FLIGHT = 8
"""Messages on their way to the disk at most: the bound of repeats in the log after a kill."""
FILL = "devices/fill"
"""A stream of large messages, to have a log of full size at once."""
STREAMS = ("devices/a/climate", "devices/b/climate", "devices/c/power")
POISON = 50
"""Of so many messages of a stream, the sink refuses one."""
LAG = range(40, 100)
"""Appends of a life during which the sink looks away, long enough for the ring to overtake it."""
GATES = ("open", "work", "close")
FAILED, REFUSED = 3, 4
SETTINGS = {
    "script": LogSettings(
        max_size_bytes=16 * 1024,
        segment_size_bytes=4 * 1024,
        tip_bytes=1024 * 1024,
        dead_letters_max_size_bytes=16 * 1024,
        audit_max_size_bytes=16 * 1024,
        compress=False,
    ),
    "flood": LogSettings(
        max_size_bytes=64 * 1024 * 1024, segment_size_bytes=4 * 1024 * 1024, tip_bytes=64 * 1024, compress=False
    ),
}
_TAIL_BYTES = 64 * 1024


class Message(NamedTuple):
    """What a device sends."""

    name: Name
    payload: bytes


def message(stream: str, number: int) -> Message:
    """The same bytes for the same name, always."""
    seed = hashlib.sha256(f"{stream} {number}".encode()).hexdigest()
    body = seed * 512 if stream == FILL else seed[: 16 + number % 48]
    return Message((stream, number), f"{stream} {number} {body}".encode())


def name_in(payload: bytes) -> Name:
    """Who a payload says it is. It need not be true: hold its digest against the journal."""
    stream, number, _ = payload.decode().split(" ")
    return stream, int(number)


def is_poison(name: Name) -> bool:
    """Whether the sink refuses it."""
    return name[1] % POISON == POISON - 1


def ledger_of(journal: Path) -> Path:
    return journal.with_name(journal.name + ".ledger")


class Ledger:
    """The second file of the account. See the module."""

    def __init__(self, journal: Path) -> None:
        self._fd = os.open(ledger_of(journal), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, lines: Iterable[tuple]) -> None:
        """Each a kind and its words."""
        os.write(self._fd, "".join(" ".join(map(str, line)) + "\n" for line in lines).encode())

    def close(self) -> None:
        os.close(self._fd)


class Life:
    """One opening of the data directory, with a device for each stream and one sink."""

    def __init__(self, data_dir: Path, journal: Path, settings: LogSettings) -> None:
        began = time.perf_counter()
        self.failures: list[StorageError] = []
        self.refused = 0
        self.in_flight = 0
        """Messages offered and not yet acknowledged."""
        self.store = Store(data_dir, "gw", settings, SystemClock(), self.failures.append)
        self.ready_ms = (time.perf_counter() - began) * 1e3
        self.source = Journal(journal)
        self.ledger = Ledger(journal)
        self.ledger.write([("ready", f"{self.ready_ms:.2f}")])
        self.unacknowledged, self.next_number = _resume(journal)
        self.cursor = self.store.cursors.load("sink") or Cursor(0, 0)
        self._reader = self.store.reader(Position(self.cursor.seq, self.cursor.ordinal), durable_only=True)
        self._since_store = 0

    def fresh(self, stream: str) -> Message:
        """The next message of a device."""
        number = self.next_number.get(stream, 0)
        self.next_number[stream] = number + 1
        return message(stream, number)

    def offer(self, messages: Sequence[Message]) -> None:
        """Append one batch; acknowledged in the journal once it is durable."""
        store, count = self.store, len(messages)
        self.source.sent(messages)
        batch = Batch(
            Kind.EVENTS,
            store.events.stamp(),
            [each.name[0] for each in messages],
            [Format.RAW] * count,
            [1] * count,
            [each.payload for each in messages],
        )
        store.events.append(batch)
        self.ledger.write(("offered", store.events.epoch, batch.seq + i, *m.name) for i, m in enumerate(messages))
        self.in_flight += count
        store.committer.when_durable(lambda: self._acknowledge(messages))

    def _acknowledge(self, messages: Sequence[Message]) -> None:
        self.source.acknowledged(each.name for each in messages)
        self.in_flight -= len(messages)

    async def settle(self) -> None:
        """Everything that was offered is on disk and acknowledged.

        Raises:
            StorageError: if it never will be.
        """
        await self.store.committer.flush()
        await asyncio.sleep(0)  # acknowledgements leave in a turn of their own
        if self.store.committer.failure is not None:
            raise self.store.committer.failure

    async def resend(self) -> None:
        """As devices do after a break: first what was not acknowledged, in order."""
        for start in range(0, len(self.unacknowledged), IN_FLIGHT):
            self.offer([message(*name) for name in self.unacknowledged[start : start + IN_FLIGHT]])
            await self.settle()
        self.unacknowledged = []

    async def consume(self, most: int | None = None) -> None:
        """Let the sink take in what is there, and keep its cursor; only note it if there is a limit."""
        taken = 0
        while self._reader.position.seq < self.store.events.durable.seq and (most is None or taken < most):
            room = WINDOW - self._since_store
            taken += await self.take(await self._reader.read(room if most is None else min(room, most - taken)))
        if most is None:
            await self.keep_cursor()

    async def sink(self) -> None:
        """Take in whatever comes, for ever."""
        while True:
            await self.take(await self._reader.read(WINDOW - self._since_store))

    async def take(self, item: Batch | Gap) -> int:
        """One piece of the log, as a sink takes it. How many records it was."""
        cursor = self.cursor
        if isinstance(item, Gap):
            self.ledger.write([("gap", item.from_seq, item.to_seq, item.reason)])
            evicted = cursor.evicted + item.events
            self.cursor = Cursor(*self._reader.position, 0, cursor.delivered, cursor.dead_lettered, evicted)
            return 0
        names = [name_in(payload) for payload in item.payloads]
        good = [(name, payload) for name, payload in zip(names, item.payloads, strict=True) if not is_poison(name)]
        self.ledger.write([("delivered", *name, digest(payload)) for name, payload in good])
        bad = [(name, event) for name, event in zip(names, item.events(), strict=True) if is_poison(name)]
        for name, event in bad:
            letter = DeadLetter(event.id, event.topic, event.payload, 1, "sink", "http_400", "", 1, 0, 0)
            if not await self._allowed(self.store.dead_letters.store([letter])):
                raise StorageError("a dead letter was refused: the sink cannot go on")
            self.ledger.write([("letter", *name)])
        delivered, dead_lettered = cursor.delivered + len(good), cursor.dead_lettered + len(bad)
        self.cursor = Cursor(*self._reader.position, 0, delivered, dead_lettered, cursor.evicted)
        self.store.cursors.note("sink", self.cursor)
        self._since_store += len(item)
        if self._since_store >= WINDOW:
            await self.keep_cursor()
        return len(item)

    async def keep_cursor(self) -> None:
        """Store where the sink stands."""
        stored = await self._allowed(self.store.cursors.store("sink", self.cursor, after_events=False))
        self.ledger.write([("cursor" if stored else "refused", self.cursor.seq)])
        self._since_store = 0

    async def snapshot(self, number: int) -> None:
        """Replace the rule snapshot."""
        self.ledger.write([("begun", number)])
        if await self._allowed(self.store.store_rules(b"%d " % number + bytes(2_000))):
            self.ledger.write([("snapshot", number)])

    async def close(self) -> None:
        await self.store.close()
        self.source.close()
        self.ledger.close()

    async def _allowed(self, storing) -> bool:
        try:
            await storing
        except StorageError:
            if self.store.committer.failure is not None:
                raise
            self.refused += 1
            return False
        return True


def _resume(journal: Path) -> tuple[list[Name], dict[str, int]]:
    """What was sent and not acknowledged, in order, and the next number of each stream.

    From the end of the journal alone: an acknowledgement is never far behind its message.
    """
    with journal.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
        file.seek(start)
        lines = file.read().decode().splitlines()[1 if start else 0 :]
    words = [line.split(" ") for line in lines]
    sent = dict.fromkeys((stream, int(number)) for kind, stream, number, *_ in words if kind == "s")
    acknowledged = {(stream, int(number)) for kind, stream, number, *_ in words if kind == "a"}
    following: dict[str, int] = {}
    for stream, number in sent:
        following[stream] = max(following.get(stream, 0), number + 1)
    return [name for name in sent if name not in acknowledged], following


async def script(life: Life, number: int) -> None:
    """The scripted life: batches of one to three messages, now and then two in one job."""
    rng = random.Random(number)
    for step in range(APPENDS):
        life.offer([life.fresh(rng.choice(STREAMS)) for _ in range(rng.choice((1, 2, 3)))])
        if step % 10 != 3:
            await life.settle()
        if step not in LAG:
            match step % 10:
                case 2 | 6:
                    await life.consume(most=3)
                case 4 | 9:
                    await life.consume()
        if step == APPENDS // 2:
            await life.snapshot(number)
    await life.consume()


async def fill(life: Life) -> None:
    """Large messages until the log has its full size and gives up the first of them."""
    while life.store.events.floor.seq == 0:
        life.offer([life.fresh(FILL) for _ in range(IN_FLIGHT)])
        await life.settle()
        await life.consume()


async def flood(life: Life, options: argparse.Namespace) -> None:
    """Batches of one to four messages at random intervals, and a sink beside."""
    rng = random.Random(options.seed)
    balloon = []
    await life.resend()
    sink = asyncio.create_task(life.sink(), name="workload.sink")
    for _ in range(options.batches):
        life.offer([life.fresh(rng.choice(STREAMS)) for _ in range(rng.randint(1, 4))])
        balloon.append(b"x" * (options.balloon_kib * 1024))
        if options.rate is None or life.in_flight > IN_FLIGHT - 4:
            await life.settle()
        if options.rate is not None:
            await asyncio.sleep(rng.expovariate(options.rate))
        if sink.done():
            sink.result()
    await life.settle()
    sink.cancel()
    await asyncio.gather(sink, return_exceptions=True)


async def live(options: argparse.Namespace) -> int:
    """Open, work, close. The exit code."""
    gate(options, "open")
    life = Life(options.data_dir, options.journal, SETTINGS[options.what])
    gate(options, "work")
    try:
        if options.what == "script":
            await script(life, options.life)
        elif options.fill:
            await fill(life)
        else:
            await flood(life, options)
        gate(options, "close")
    finally:
        await life.close()
    return REFUSED if life.refused else 0


def gate(options: argparse.Namespace, name: str) -> None:
    """Stop here until somebody lets it go on, if this is the gate that was asked for."""
    if options.gate == name:
        os.kill(os.getpid(), signal.SIGSTOP)


def parser(prog: str) -> argparse.ArgumentParser:
    """What every process of these proofs is told."""
    command = argparse.ArgumentParser(prog=f"python -m {prog}")
    command.add_argument("what", choices=SETTINGS)
    command.add_argument("data_dir", type=Path)
    command.add_argument("journal", type=Path)
    command.add_argument("--gate", choices=GATES, help="stop there until continued (SIGCONT)")
    return command


def main(arguments: list[str]) -> int:
    """A life. The exit code."""
    command = parser("tests.crash.workload")
    command.add_argument("--life", type=int, default=1, help="which of the two scripted lives")
    command.add_argument("--batches", type=int, default=1_000_000)
    command.add_argument("--rate", type=float, help="batches a second; as fast as the disk lets them if not given")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--fill", action="store_true", help="fill the log, and stop")
    command.add_argument("--balloon-kib", type=int, default=0, help="memory to take with every batch and never free")
    options = command.parse_args(arguments)
    options.journal.touch()
    try:
        return asyncio.run(live(options))
    except StorageError as error:
        print(f"the log failed: {error}")
        return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

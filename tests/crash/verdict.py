"""The start after a fault, and what it says of the fault: nothing lost, invented, turned round or left lying about.

`python -m tests.crash.verdict script|flood DATA_DIR JOURNAL` does what a gateway does when it comes back: it opens the
data directory, reads all of it, lets the sink go on from its cursor, lets the devices send again what was not
acknowledged, writes on over a rotation, stops cleanly, and opens once more. It judges

- the log: whatever was acknowledged is in it, unless the ring gave it up; nothing else is; no id names two events;
- the sink: whatever was acknowledged has reached it, unless it was dead-lettered or announced to it as given up;
- the small things: stored cursors, dead letters and snapshots are there, a cursor accounts for all before it (L7);
- the directory: no file without an owner, no descriptor or thread left open, no damage found by `inspect`.

Exit codes: 0 all is well, 1 it is not, 3 the log failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config.settings import LogSettings
from gateway.errors import StorageError
from gateway.model import Cursor, Gap, Position
from gateway.ringlog import RingLog, Store, inspect, letters_of
from tests.crash import workload
from tests.oracle import Baseline, Judgement, Name, digest, judge, leaks_in, read_journal

AFTER = 24
"""Batches that are written once the log is open again: more than a segment of the scripted life."""


@dataclass
class Told:
    """What the ledger says."""

    offered: dict[tuple[int, int], Name] = field(default_factory=dict)
    """By epoch and sequence number."""
    place: dict[Name, int] = field(default_factory=dict)
    """Where in the log a message was last offered."""
    delivered: list[tuple[Name, str]] = field(default_factory=list)
    gaps: list[tuple[int, int, str]] = field(default_factory=list)
    letters: set[Name] = field(default_factory=set)
    cursor: int = 0
    refused: int = 0
    """Cursors: each a window of the sink that may come again."""
    begun: int = 0
    snapshot: int = 0
    ready_ms: list[float] = field(default_factory=list)

    @classmethod
    def by(cls, journal: Path) -> Told:
        """Read it. A last line that was cut off counts for nothing."""
        path, told = workload.ledger_of(journal), cls()
        text = path.read_text() if path.exists() else ""
        for line in text[: text.rfind("\n") + 1].splitlines():
            told.note(*line.split(" "))
        return told

    def note(self, kind: str, *words: str) -> None:
        """Take in one line."""
        match kind:
            case "offered":
                name = words[2], int(words[3])
                self.offered[int(words[0]), int(words[1])] = name
                self.place[name] = int(words[1])
            case "delivered":
                self.delivered.append(((words[0], int(words[1])), words[2]))
            case "gap":
                self.gaps.append((int(words[0]), int(words[1]), words[2]))
            case "letter":
                self.letters.add((words[0], int(words[1])))
            case "cursor":
                self.cursor = int(words[0])
            case "refused":
                self.refused += 1
            case "begun":
                self.begun = int(words[0])
            case "snapshot":
                self.snapshot = int(words[0])
            case "ready":
                self.ready_ms.append(float(words[0]))

    def announced(self) -> set[Name]:
        """What the sink was told that it missed."""
        ranges = [(start, end) for start, end, reason in self.gaps if reason == "evicted"]
        return {name for name, place in self.place.items() if any(start <= place < end for start, end in ranges)}


@dataclass
class Contents:
    """All that a reader gets of a log."""

    arrivals: list[tuple[Name, str]] = field(default_factory=list)
    ids: dict[tuple[int, int], Name] = field(default_factory=dict)
    damaged: list[Gap] = field(default_factory=list)


async def read_all(store: Store, ring: RingLog) -> Contents:
    """From the very first record on, by a reader as everybody has one."""
    found = Contents()
    reader = store.reader(Position(0, 0), durable_only=True, log=ring)
    while reader.position.seq < ring.durable.seq:
        item = await reader.read(1_000)
        if isinstance(item, Gap):
            if item.reason != "evicted":
                found.damaged.append(item)
            continue
        payloads = [letter.payload for letter in letters_of(item)] if ring is not store.events else item.payloads
        for index, payload in enumerate(payloads):
            name = workload.name_in(payload)
            found.arrivals.append((name, digest(payload)))
            found.ids[item.origin.epoch, item.seq + index] = name
    return found


class Examination:
    """Collects what is wrong, in words."""

    def __init__(self, journal: Path, faults: int) -> None:
        self._journal = journal
        self._faults = faults
        self.wrong: list[str] = []
        self.log: Judgement | None = None
        self.sink: Judgement | None = None

    def expect(self, truth: object, otherwise: str) -> None:
        """Note a sentence unless something is so."""
        if not truth:
            self.wrong.append(otherwise)

    async def opened(self, store: Store, told: Told) -> None:
        """The small things, as they are found."""
        epochs = [epoch for epoch, _ in told.offered]
        self.expect(store.events.epoch > max(epochs, default=0), "an epoch is used twice")
        for ring in store.rings:
            self.expect(not ring.recovered.damaged, f"damage in {ring.name}: {ring.recovered.damaged}")
        cursor = store.cursors.load("sink")
        # A file that is there without a cursor that was ever stored: the kill came while the very first was written.
        self.expect(not (store.cursors.unusable and told.cursor), "a cursor is unusable")
        place = Cursor(0, 0) if cursor is None else cursor
        self.expect(place.seq >= told.cursor, f"cursor at {place.seq}, stored at {told.cursor}")
        self.expect(place.seq <= store.events.appended.seq, "a cursor stands beyond the log's end")
        parts = place.delivered + place.dead_lettered + place.evicted
        self.expect(place.ordinal == parts, f"a cursor does not add up: {place}")
        state = store.load_rules()
        number = 0 if state is None else int(state.split(b" ")[0])
        self.expect(told.snapshot <= number <= told.begun, f"snapshot {number} of {told.snapshot} to {told.begun}")

    async def contents(self, store: Store) -> None:
        """Both judgements, of the log as it is now and of the sink as far as it has come."""
        told = Told.by(self._journal)
        sent, acknowledged = read_journal(self._journal)
        events, letters = await read_all(store, store.events), await read_all(store, store.dead_letters.ring)
        self.expect(not events.damaged and not letters.damaged, f"damage: {events.damaged} {letters.damaged}")
        floor = store.events.floor.seq
        given_up = {name for name, place in told.place.items() if place < floor}
        self.log = judge(sent, acknowledged, events.arrivals, evicted=given_up)
        self.expect(self.log.clean, f"the log: {self.log}")
        self._bound(self.log, self._faults * workload.IN_FLIGHT)
        for place, name in events.ids.items():
            self.expect(told.offered.get(place) == name, f"id {place} names {told.offered.get(place)} and {name}")
        buried = {name for name, _ in letters.arrivals}
        self.expect(told.letters <= buried, f"dead letters lost: {sorted(told.letters - buried)[:5]}")
        foreign = [name for name, found in letters.arrivals if sent.get(name) != found]
        self.expect(not foreign, f"dead letters that nobody sent: {foreign[:5]}")
        self._judge_sink(told, sent, acknowledged, buried)

    def _judge_sink(self, told: Told, sent: dict[Name, str], acknowledged: set[Name], buried: Collection[Name]) -> None:
        missed = told.announced()
        self.sink = judge(sent, acknowledged, told.delivered, dead_lettered=buried, evicted=missed)
        self.expect(self.sink.clean, f"the sink: {self.sink}")
        self._bound(self.sink, self._faults * (workload.WINDOW + workload.IN_FLIGHT) + told.refused * workload.WINDOW)

    def _bound(self, judgement: Judgement, most: int) -> None:
        self.expect(judgement.repeats <= most, f"{judgement.repeats} repeats of at most {most}")


async def come_back(options: argparse.Namespace, settings: LogSettings, seen: Examination) -> None:
    """Open, look, go on, stop."""
    told = Told.by(options.journal)
    life = workload.Life(options.data_dir, options.journal, settings)
    await seen.opened(life.store, told)
    before = await read_all(life.store, life.store.events)
    acknowledged = read_journal(options.journal)[1]
    there = {name for name, _ in before.arrivals}
    floor = life.store.events.floor.seq
    gone = {name for name in acknowledged - there if told.place[name] >= floor}
    seen.expect(not gone, f"gone as soon as the log is open again: {sorted(gone)[:5]}")
    await life.resend()
    for _ in range(AFTER):
        await life.consume()
        life.offer([life.fresh(stream) for stream in workload.STREAMS])
        await life.settle()
    await life.consume()
    await life.snapshot(told.begun + 1)
    seen.expect(not life.refused, "something was refused after the fault")
    await life.close()


async def once_more(options: argparse.Namespace, settings: LogSettings, seen: Examination) -> None:
    """What was stopped cleanly opens as it was."""
    told = Told.by(options.journal)
    life = workload.Life(options.data_dir, options.journal, settings)
    seen.expect(not life.unacknowledged, "a message is not acknowledged after a clean stop")
    await seen.opened(life.store, told)
    for ring in life.store.rings:
        seen.expect(ring.recovered.torn is None, f"{ring.name} has a torn tail after a clean stop")
    await seen.contents(life.store)
    await life.close()


def verify(options: argparse.Namespace) -> int:
    """Judge a data directory after its faults. The exit code; the last line that is printed is a summary as JSON."""
    settings = workload.SETTINGS[options.what]
    baseline = Baseline.here()
    seen = Examination(options.journal, options.faults)
    workload.gate(options, "open")
    asyncio.run(come_back(options, settings, seen))
    asyncio.run(once_more(options, settings, seen))
    leaks = leaks_in(options.data_dir, baseline)
    seen.expect(not leaks, f"leaks: {leaks}")
    for name in inspect.logs_in(options.data_dir):
        report = inspect.verify(options.data_dir, name)
        seen.expect(report.sound and report.torn_tail is None, f"{name} is not sound: {report}")
    for sentence in seen.wrong:
        print(sentence)
    assert seen.log is not None
    assert seen.sink is not None
    ready_ms = Told.by(options.journal).ready_ms
    summary = {
        "acknowledged": seen.log.acknowledged,
        "log_repeats": seen.log.repeats,
        "sink_repeats": seen.sink.repeats,
        "ready_ms": max(ready_ms),
    }
    print(json.dumps(summary))
    return 1 if seen.wrong else 0


def main(arguments: list[str]) -> int:
    """A start after a fault. The exit code."""
    command = workload.parser("tests.crash.verdict")
    command.add_argument("--faults", type=int, default=1, help="how many there were since the directory was made")
    options = command.parse_args(arguments)
    options.journal.touch()
    try:
        return verify(options)
    except StorageError as error:
        print(f"the log failed: {error}")
        return workload.FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

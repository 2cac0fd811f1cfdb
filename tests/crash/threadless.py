"""The logs of a data directory without a loop and without the writer thread, so that thousands are opened in a second.

`Clerk` stands in the committer's place. It is faithful because a job of the committer is four steps, in one order: take
what every log has gathered; write and sync the logs in the order in which they were opened; run the tasks; tell the
logs what is durable. `Clerk.job` does these four, at once. What it leaves out is that the loop runs meanwhile, and what
the loop may do meanwhile goes into the next job, here as there. A full disk is not modelled here.

`Threadless` opens the parts in the order in which `gateway.ringlog.store` does. The audit trail, a third log of the
same kind, is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gateway.model import Batch, Gap, Position
from gateway.ringlog import RingLog, RingSettings
from gateway.ringlog.cursor import CursorStore
from gateway.ringlog.deadletters import DeadLetters
from gateway.ringlog.reader import Reader
from gateway.ringlog.room import EventsRoom, Reserve, ReservedRoom
from gateway.ringlog.storage import Storage
from gateway.ringlog.store import CURSORS_DIR, DEAD_LETTERS_DIR, EVENTS_DIR, RESERVE, RULES_SNAPSHOT

RESERVE_BYTES = 4_096


class Clerk:
    """In the committer's place. See the module."""

    def __init__(self) -> None:
        self._logs: list[RingLog] = []

    def add(self, log: RingLog) -> None:
        self._logs.append(log)

    def request(self) -> None:
        """Something was appended. It is written when the test says so."""

    async def run(self, task: Callable[[], None], *, after: object = None) -> None:
        self.job([task])

    def job(self, tasks: Sequence[Callable[[], None]] = ()) -> None:
        """What the committer does in one go."""
        taken = [(log, log.take()) for log in self._logs]
        for log, batches in taken:
            assert log.write(batches, sync=True) is None, "this disk is never full"
        for task in tasks:
            task()
        for log, batches in taken:
            log.finished(batches)


class Threadless:
    """An open data directory."""

    def __init__(self, disk: Storage, home: Path, clock, events: RingSettings, letters: RingSettings) -> None:
        """Recover both logs. Args as for `gateway.ringlog.store.Store`, the sizes as the rings take them."""
        self.disk = disk
        self.rules = home / RULES_SNAPSHOT
        self.clerk = Clerk()
        reserve = Reserve(disk, home / RESERVE, RESERVE_BYTES)
        reserve.fill()
        self.cursors = CursorStore(home / CURSORS_DIR, disk, self.clerk)
        room = ReservedRoom(reserve)
        self.letters = DeadLetters(
            RingLog(home / DEAD_LETTERS_DIR, "gw", letters, clock, disk, self.clerk, room), self.clerk
        )
        room = EventsRoom(reserve, self.cursors, hold=False)
        self.events = RingLog(home / EVENTS_DIR, "gw", events, clock, disk, self.clerk, room)
        self.cursors.belong_to(self.events.origin.log_id, self.letters.ring, reserve)

    def read(self, ring: RingLog, start: Position | None = None) -> tuple[list[Batch], list[Gap]]:
        """What a consumer sees from a position on, or from the log's beginning, up to the durable mark."""
        reader = Reader(ring, self.disk, start if start is not None else ring.floor, durable_only=True)
        batches: list[Batch] = []
        gaps: list[Gap] = []
        with patch.object(asyncio, "to_thread", _here):
            while reader.position.seq < ring.durable.seq:
                item = at_once(reader.read(1_000))
                (gaps if isinstance(item, Gap) else batches).append(item)
        return batches, gaps

    def close(self) -> None:
        """A clean stop, in the order of `Store.close`."""
        self.clerk.job()
        self.events.close()
        self.letters.ring.close()
        self.cursors.close()


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    work.close()
    raise AssertionError("it waits for something that never comes")


async def _here(work: Callable[..., Any], *args: Any) -> Any:
    result = work(*args)
    assert result[0], "the reader stands still"
    return result

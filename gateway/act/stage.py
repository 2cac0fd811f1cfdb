"""The act stage: reads decisions from the log and has them carried out.

Invariants:
- A decision is on disk before anybody acts on it (L1), but for a stalled disk: after `act_within_s` it goes out ahead
  of its record, which is counted and logged.
- Its cursor never passes a command that has no end yet. A restart takes up exactly those (and whatever the crash kept
  from being recorded as ended).
- Its cursor stays near the end of the log however seldom there is something to do: a restart reads little.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.act.records import decode_records
from gateway.model import Batch, Cursor, Decision, Gap, Kind, Position
from gateway.observe import events

if TYPE_CHECKING:
    from gateway.act.dispatch import Dispatcher
    from gateway.ringlog import Store

CURSOR = "act"
_RECORDS_PER_TURN = 20_000
_COMMIT_AFTER_S = 1.0
_COMMIT_AFTER_RECORDS = 100_000


class ActStage:
    """Owns the dispatcher and its place in the log."""

    def __init__(self, dispatcher: Dispatcher, store: Store, act_within_s: float) -> None:
        """See the module.

        Args:
            dispatcher: carries decisions out.
            store: the log and the cursor.
            act_within_s: how long a decision waits for a stalled disk.
        """
        self._dispatcher = dispatcher
        self._store = store
        self._log = store.events
        self._act_within_s = act_within_s
        self.ahead_of_record = 0
        """Decisions carried out before they were on disk."""
        cursor = store.cursors.load(CURSOR)
        start = Position(cursor.seq, cursor.ordinal) if cursor is not None else self._log.appended
        self._reader = store.reader(start, durable_only=False)
        self._done = self._reader.position
        """Behind the last record that was handled; the reader may already hold one that waits for the disk."""
        self._uncommitted = cursor is None
        self._committed_seq = start.seq

    async def recover(self) -> None:
        """Carry out what the log shows as decided and not ended, up to its present end.

        Raises:
            StorageError: if the cursor cannot be stored. Without one, a crash would lose what is decided from now on.
        """
        waiting: dict[str, tuple[int, Decision]] = {}
        while self._reader.position.seq < self._log.appended.seq:
            item = await self._reader.read(_RECORDS_PER_TURN)
            if isinstance(item, Gap) or item.kind is not Kind.DECISIONS:
                continue
            for seq, record in decode_records(item):
                if isinstance(record, Decision):
                    waiting[record.id] = seq, record
                else:
                    waiting.pop(record.decision_id, None)
        if waiting:
            self._uncommitted = True
            self._dispatcher.recover(list(waiting.values()), self._log.elapsed_ns())
        self._done = self._reader.position
        if self._uncommitted:
            await self.commit()

    async def run(self) -> None:
        """Carry out decisions until cancelled."""
        while True:
            item = self._reader.poll(_RECORDS_PER_TURN)
            if item is None and self._reader.position.seq < self._log.appended.seq:
                item = await self._reader.read(_RECORDS_PER_TURN)
            if item is None:
                self._dispatcher.tick(self._log.elapsed_ns())
                await self._wait()
            else:
                if isinstance(item, Batch):
                    await self._take(item)
                self._done = self._reader.position

    async def _take(self, batch: Batch) -> None:
        if batch.kind is Kind.EVENTS:
            self._dispatcher.observe(batch, self._log.elapsed_ns())
            if batch.end - self._committed_seq >= _COMMIT_AFTER_RECORDS:
                self._uncommitted = True
            return
        if not await self._log.durable_past(batch.end, self._act_within_s):
            self.ahead_of_record += len(batch)
            events.command_ahead_of_record(batch.topics[0], waited_s=self._act_within_s)
        self._uncommitted = True
        self._dispatcher.handle(batch, self._log.elapsed_ns())

    async def _wait(self) -> None:
        if self._reader.position.seq == self._log.appended.seq:
            await self._log.wait_until(self._dispatcher.deadline_ns)

    async def keep_cursor(self) -> None:
        """Store the cursor every while if something was carried out, until cancelled."""
        while True:
            await asyncio.sleep(_COMMIT_AFTER_S)
            if self._uncommitted:
                await self.commit()

    async def commit(self) -> None:
        """Store the cursor; durable when this returns.

        Raises:
            StorageError: if the disk refuses.
        """
        self._uncommitted = False
        position = self._done
        self._committed_seq = position.seq
        oldest_seq = self._dispatcher.oldest_open_seq
        seq = position.seq if oldest_seq is None else min(position.seq, oldest_seq)
        await self._store.cursors.store(CURSOR, Cursor(seq, position.ordinal))

"""The act stage: reads decisions from the log and has them carried out.

Invariants:
- A decision is on disk before anybody acts on it (L1), but for a stalled disk: after `act_within_s` it goes out ahead
  of its record, which is counted and logged.
- Its cursor never passes a command that has no end yet. A restart takes up exactly those (and whatever the crash kept
  from being recorded as ended).
- Nor does it pass what the interlock still counts from: the switching on of what is on, the switching off of what has
  not rested. A restart knows of both what the former life knew (L12).
- What is on for days neither makes a restart read days nor is forgotten when the log gives up its record: once that
  lies far behind, what the interlock knows is said anew at the end of the log, and rests upon that once it is durable.
- Else its cursor stays near the end of the log however seldom there is something to do: a restart reads little.
- A cursor that cannot be stored stops nothing: the former one still stands, and a restart only reads more. Without any
  it reads the whole log.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.act.recall import Recall
from gateway.act.records import encode_standings
from gateway.errors import StorageError
from gateway.model import Batch, Cursor, Kind, Position
from gateway.observe import events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.act.actuator import Standing
    from gateway.act.dispatch import Dispatcher
    from gateway.ringlog import Store

CURSOR = "act"
_KEEPING = "act.cursor"
_RECORDS_PER_TURN = 20_000
_COMMIT_AFTER_S = 5.0
"""A sync in which no command goes out: on a card one more of these a second is what commands would have to wait for."""
_COMMIT_AFTER_RECORDS = 100_000
"""Or a quarter of the log, if that is less."""
_FAR_BEHIND_RECORDS = 100_000
"""So far back may lie what the interlock knows; or half the log, if that is less: it must not be evicted."""
_NOT_FAR_RECORDS = 100
_STANDINGS_SHARE = 4
"""What the interlock knows is said anew after so many times its own records at least."""
_RETRY_AFTER_S = 1.0
_RETRY_AFTER_AT_MOST_S = 60.0


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
        start = Position(cursor.seq, cursor.ordinal) if cursor is not None else self._log.floor
        self._reader = store.reader(start, durable_only=False)
        self._done = self._reader.position
        """Behind the last record that was handled; the reader may already hold one that waits for the disk."""
        self._uncommitted = cursor is None
        self._committed_seq = start.seq
        self._is_far_behind = False
        self._standings: Sequence[Standing] = ()
        """What was said anew of actuators and is not durable yet."""
        self._standings_seq = 0
        self._standings_count = 0

    @property
    def position(self) -> Position:
        """Behind the last record that was handled."""
        return self._done

    async def recover(self) -> None:
        """Read what former lives have left, up to the present end of the log.

        Tells the interlock what it knew, and carries out what was decided and has no end.

        Raises:
            OSError: if the disk cannot be read.
        """
        recall = Recall(self._dispatcher.interlock)
        while self._reader.position.seq < self._log.appended.seq:
            item = await self._reader.read(_RECORDS_PER_TURN)
            if isinstance(item, Batch) and item.kind is Kind.DECISIONS:
                recall.take(item)
        now_ns = self._log.elapsed_ns()
        waiting = recall.finish(now_ns, self._log.epoch)
        self._done = self._reader.position
        if waiting:
            self._uncommitted = True
            self._dispatcher.recover(waiting, now_ns)

    async def run(self) -> None:
        """Carry out decisions until cancelled."""
        while True:
            item = self._reader.poll(_RECORDS_PER_TURN)
            if item is None and self._reader.position.seq < self._log.appended.seq:
                item = await self._reader.read(_RECORDS_PER_TURN)
            if item is None:
                self._dispatcher.tick(self._log.elapsed_ns())
                self._say_anew()
                await self._wait()
            else:
                if isinstance(item, Batch):
                    await self._take(item)
                self._done = self._reader.position

    async def _take(self, batch: Batch) -> None:
        if batch.kind is Kind.EVENTS:
            self._dispatcher.observe(batch, self._log.elapsed_ns())
            if batch.end - self._committed_seq >= self._at_most(_COMMIT_AFTER_RECORDS, parts=4):
                self._uncommitted = True
            return
        self._uncommitted = True
        decisions = self._dispatcher.to_do(batch)
        if not decisions:
            return
        if not await self._log.durable_past(batch.end, self._act_within_s):
            self.ahead_of_record += len(decisions)
            events.command_ahead_of_record(batch.topics[0], waited_s=self._act_within_s)
        self._dispatcher.carry_out(decisions, self._log.elapsed_ns())

    async def _wait(self) -> None:
        if self._reader.position.seq == self._log.appended.seq:
            await self._log.wait_until(self._dispatcher.deadline_ns, patient=not self._dispatcher.awaits_reports)

    async def keep_cursor(self) -> None:
        """Store the cursor every while if something was carried out, until cancelled.

        Raises:
            StorageError: if the log has failed for good.
        """
        while True:
            await asyncio.sleep(_COMMIT_AFTER_S)
            if self._uncommitted:
                await self._commit_in_the_end()

    async def _commit_in_the_end(self) -> None:
        """Store the cursor, at the first try or a later one; said once when it fails, and once when it is over."""
        retry_s, failing_since_ns = _RETRY_AFTER_S, None
        while True:
            try:
                await self.commit()
                break
            except StorageError as error:
                if self._store.committer.failure is not None:
                    raise
                if failing_since_ns is None:
                    failing_since_ns = self._log.elapsed_ns()
                    events.task_retried(_KEEPING, error=str(error), retry_s=retry_s)
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, _RETRY_AFTER_AT_MOST_S)
        if failing_since_ns is not None:
            events.disk_recovered(_KEEPING, after_s=(self._log.elapsed_ns() - failing_since_ns) / 1e9)

    async def commit(self) -> None:
        """Store the cursor; durable when this returns.

        Raises:
            StorageError: if the disk refuses. A restart then reads from the former cursor.
        """
        self._uncommitted = False
        position = self._done
        self._look_back(position.seq)
        needed_seq = self._dispatcher.oldest_needed_seq(self._log.elapsed_ns())
        seq = position.seq if needed_seq is None else min(position.seq, needed_seq)
        await self._store.cursors.store(CURSOR, Cursor(seq, position.ordinal))
        self._committed_seq = position.seq

    def _look_back(self, seq: int) -> None:
        """Let the interlock rest upon what was said anew, if it is durable; see whether to say it again."""
        interlock, log = self._dispatcher.interlock, self._log
        if self._standings:
            if log.durable.seq < self._standings_seq + len(self._standings):
                self._uncommitted = True
                return
            interlock.rest_upon(self._standings, self._standings_seq)
            self._standings = ()
        oldest_seq = interlock.oldest_seq(log.elapsed_ns())
        far = max(self._at_most(_FAR_BEHIND_RECORDS, parts=2), _STANDINGS_SHARE * self._standings_count)
        self._is_far_behind = oldest_seq is not None and seq - oldest_seq >= far

    def _at_most(self, records: int, *, parts: int) -> int:
        """So many records, or one of so many parts of the log where that is less; never next to nothing."""
        held = self._log.appended.seq - self._log.floor.seq
        return max(min(records, held // parts), _NOT_FAR_RECORDS)

    def _say_anew(self) -> None:
        """Append what the interlock knows, at an instant at which it knows all that the log tells."""
        if not self._is_far_behind or self._reader.position.seq != self._log.appended.seq:
            return
        self._is_far_behind = False
        self._standings = self._dispatcher.interlock.standings()
        self._standings_seq, self._standings_count = self._log.appended.seq, len(self._standings)
        for batch in encode_standings(self._standings, self._log.stamp()):
            self._log.append(batch)

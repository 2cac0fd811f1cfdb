"""The rules stage: reads the log up to its appended mark, lets the engine decide, hands its decisions back to the log.

Invariants:
- What became of decisions is part of the log that the engine lives on: an actuator that was denied or never answered is
  not believed to have done what it was told.
- Decisions that the log already holds are not recorded a second time: recovery replays from the last snapshot and keeps
  only what is missing (a crash between the event and its decision).
- A deadline never fires ahead of an event that was appended before it: the engine ticks only at the end of the log.
- A stalled disk stalls nobody here: snapshots are written beside the loop that decides.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from gateway.errors import StorageError
from gateway.model import OPERATOR, Batch, Decision, Gap, Kind, Outcome, Position, Set, Value
from gateway.observe import events
from gateway.ringlog.snapshot import decode_placed, encode_placed
from gateway.rules.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.ringlog import Store
    from gateway.rules.compiled import RuleSet

    ValuesOf: TypeAlias = Callable[[Batch], list[Value]]
    Record: TypeAlias = Callable[[Sequence[Decision]], None]
    RecordsOf: TypeAlias = Callable[[Batch], Iterable[Decision | Outcome]]

_RECORDS_PER_TURN = 20_000
"""After so many the loop gets its turn, so that a backlog delays no acknowledgement for long."""
_NOT_DONE = frozenset({"denied", "expired", "unconfirmed"})
"""Outcomes after which an actuator is not what its rule believes it to be."""
_SNAPSHOT_AFTER_S = 10.0
_SNAPSHOT_AFTER_RECORDS = 50_000


class RulesStage:
    """Owns the engine and its place in the log."""

    def __init__(
        self, engine: Engine, store: Store, *, values_of: ValuesOf, records_of: RecordsOf, record: Record
    ) -> None:
        """See the module.

        Args:
            engine: decides.
            store: the log and the snapshot.
            values_of: decoded payloads of a batch.
            records_of: what a batch of kind DECISIONS holds.
            record: appends decisions to the log.
        """
        self.engine = engine
        self._store = store
        self._log = store.events
        self._values_of = values_of
        self._records_of = records_of
        self.record = record
        self._unsaved_records = 0
        self._much_unsaved = asyncio.Event()
        self._reader = store.reader(self._restore(), durable_only=False)

    def _restore(self) -> Position:
        """Take up the last snapshot; the position from which to replay. Without one: the whole log."""
        try:
            placed = decode_placed(self._store.load_rules(), self._log.origin.log_id)
        except ValueError:
            return self._log.floor
        if placed is None:
            return self._log.floor
        position, state = placed
        for dropped in self.engine.restore(state):
            events.rule_failed("rules", key="", error=dropped)
        return position

    async def recover(self) -> None:
        """Replay from the snapshot to the end of the log, and record what a crash kept from being recorded."""
        logged: set[str] = set()
        decisions: list[Decision] = []
        while self._reader.position.seq < self._log.appended.seq:
            item = await self._reader.read(_RECORDS_PER_TURN)
            if isinstance(item, Gap):
                continue
            decisions += self._run(item)
            if item.kind is Kind.DECISIONS:
                logged.update(record.id for record in self._records_of(item) if isinstance(record, Decision))
        decisions += self.engine.start(self._log.elapsed_ns())
        missing = [decision for decision in decisions if decision.id not in logged]
        if missing:
            self.record(missing)

    async def run(self) -> None:
        """Decide until cancelled."""
        while True:
            item = self._reader.poll(_RECORDS_PER_TURN)
            if item is None and self._reader.position.seq < self._log.appended.seq:
                item = await self._reader.read(_RECORDS_PER_TURN)
            if item is None:
                self._say(self.engine.tick(self._log.elapsed_ns()))
                await self._wait()
            elif isinstance(item, Batch):
                self._say(self._run(item))
                if len(item) == _RECORDS_PER_TURN:
                    await asyncio.sleep(0)

    def _run(self, batch: Batch) -> list[Decision]:
        """Let the engine see a batch: events, or what became of its own decisions."""
        if batch.kind is Kind.EVENTS:
            if batch.values is None:
                batch.values = self._values_of(batch)
            self._unsaved_records += len(batch)
            if self._unsaved_records >= _SNAPSHOT_AFTER_RECORDS:
                self._much_unsaved.set()
            return self.engine.run(batch)
        decisions = self.engine.run(batch)
        for record in self._records_of(batch):
            if isinstance(record, Outcome) and record.state in _NOT_DONE:
                self._unsaved_records += 1
                decisions += self.engine.refused(record.decision_id, record.state, batch.stamp.elapsed_ns)
            elif isinstance(record, Decision) and record.rule == OPERATOR and isinstance(record.action, Set):
                self._unsaved_records += 1
                self.engine.world.variables[record.action.name] = record.action.value
        return decisions

    def _say(self, decisions: Sequence[Decision]) -> None:
        if decisions:
            self._unsaved_records += 1
            self.record(decisions)

    async def reload(self, ruleset: RuleSet) -> list[str]:
        """Go on with other rules, from where the log stands. Rules that are the same keep their state and timers.

        What a rule that is gone or has changed had switched on is switched off first.

        Returns:
            One sentence for each rule whose state was dropped.
        """
        before, engine = self.engine, Engine(ruleset)
        dropped = engine.restore(before.snapshot())
        self._say(before.leave(ruleset.fingerprints, self._log.elapsed_ns()))
        self.engine = engine
        await self._save_or_tell()
        return dropped

    async def _wait(self) -> None:
        """Until something is appended, or the engine's next deadline."""
        if self._reader.position.seq == self._log.appended.seq:
            await self._log.wait_until(self.engine.deadline_ns)

    async def keep_snapshots(self) -> None:
        """Save the state every while if something has happened, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_SNAPSHOT_AFTER_S):
                    await self._much_unsaved.wait()
            except TimeoutError:
                pass
            if self._unsaved_records:
                await self._save_or_tell()

    async def _save_or_tell(self) -> None:
        """A snapshot that the disk has no room for only makes the next start slower: the former one still stands."""
        unsaved_records = self._unsaved_records
        try:
            await self.save()
        except StorageError as error:
            if self._store.committer.failure is not None:
                raise
            self._unsaved_records += unsaved_records
            events.disk_failed("rules", operation="snapshot", error=str(error))

    async def save(self) -> None:
        """Save the state at the present position; durable when this returns.

        Raises:
            StorageError: if the disk refuses.
        """
        snapshot = encode_placed(self._log.origin.log_id, self._reader.position, self.engine.snapshot())
        self._unsaved_records = 0
        self._much_unsaved.clear()
        await self._store.store_rules(snapshot)

"""The chain of one command: event, condition, decision, command, confirmation, with the times between them.

Invariants:
- What the events log no longer holds is looked for in the audit trail, which telemetry cannot evict.
- A link that is missing is told, with why; it never stops the others from being shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.cli.rules_account import account
from gateway.cli.rules_comparison import records_of
from gateway.cli.rules_history import History
from gateway.ingest.decode import values_of
from gateway.model import Batch, Command, Decision, Event, Kind, Outcome, Stamp
from gateway.ringlog.by_time import Timed, Window, read_timeline
from gateway.ringlog.contents import look
from gateway.ringlog.inspect import info, logs_in, scan_log
from gateway.ringlog.store import AUDIT_DIR, EVENTS_DIR
from gateway.rules.trying.replay import warm_up_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from gateway.rules.compiled import RuleSet
    from gateway.rules.trying.reasons import Moment

_WAITED_NS = 600_000_000_000
"""So long after a decision its end is looked for: every try of a command lies within."""
_BESIDE_NS = 1_000_000_000


class Found(msgspec.Struct):
    """A command that was decided, and what the log says of it."""

    decision: Decision
    wall_ns: int
    """When it was decided."""
    outcomes: list[Outcome]
    compensations: list[Decision]
    """What its `otherwise` asked for."""
    log: str
    """Which log still holds it: `events` or `audit`."""
    repeated: int = 0
    """How often the same rule said the same again; asked for by its topic, a command is told from its first saying."""
    repeated_wall_ns: int = 0


class Chain(msgspec.Struct):
    """What led to a command, and what came of it. `*_ns` on the log's clock unless named otherwise."""

    found: Found
    cause: Event | None
    """None: the passing of time, or it is no longer there."""
    cause_missing: str
    """Why an event that there was cannot be shown."""
    began: Event | None
    """What the rule had been pending since, if it waited; None: nothing, or it is no longer there."""
    condition: Moment | None
    """The rule's own step; None: the rules are not known, or today's rule takes no such decision."""
    confirmation: Event | None


def find_command(
    data_dir: Path, wanted: str, from_ns: int, to_ns: int, progress: Callable[[int], None] | None = None
) -> Found | None:
    """The command with an id, or the last one to a topic.

    Args:
        data_dir: of the gateway.
        wanted: a decision's id, or an actuator's topic.
        from_ns: where to begin, by the wall clock.
        to_ns: before when.
        progress: told how many bytes have been read since the last call.

    Raises:
        StorageError: there is no log, or it cannot be read.
    """
    logs = [EVENTS_DIR, *(log for log in logs_in(data_dir) if log == AUDIT_DIR)]
    for log in logs:
        # By its end, since a command is on its way for a while.
        window = Window(data_dir, log, from_ns, to_ns + _WAITED_NS)
        decisions = (
            item
            for item in window.read(progress=progress)
            if isinstance(item, Timed) and item.batch.kind is Kind.DECISIONS
        )
        found = _pick(decisions, wanted, to_ns, log)
        if found is not None:
            return found
    return None


def _pick(items: Iterable[Timed], wanted: str, to_ns: int, log: str) -> Found | None:
    found: Found | None = None
    for batch, wall_ns in items:
        for record in records_of(batch):
            if isinstance(record, Outcome):
                if found is not None and record.decision_id == found.decision.id:
                    found.outcomes.append(record)
            elif found is not None and record.id.startswith(f"{found.decision.id}/otherwise/"):
                found.compensations.append(record)
            elif isinstance(record.action, Command) and wanted in {record.id, record.action.topic}:
                decided_ns = wall_ns - (batch.stamp.elapsed_ns - record.elapsed_ns)
                if decided_ns >= to_ns:
                    continue
                if found is not None and (found.decision.rule, found.decision.action) == (record.rule, record.action):
                    found.repeated, found.repeated_wall_ns = found.repeated + 1, decided_ns
                else:
                    found = Found(record, decided_ns, [], [], log)
    return found


def chain_of(data_dir: Path, found: Found, rules: RuleSet | None) -> Chain:
    """Everything that led to a command and came of it.

    Args:
        data_dir: of the gateway.
        found: the command.
        rules: all of the configuration's, for the rule's own step; None: they are not known.

    Raises:
        StorageError: if the log cannot be read.
    """
    decision = found.decision
    condition = None
    if rules is not None and decision.rule in rules.fingerprints:
        stretch = History(data_dir, found.wall_ns - _BESIDE_NS, found.wall_ns + _BESIDE_NS, warm_up_ns(rules))
        moments = account(stretch, decision.rule, rules, None).moments
        condition = next((each for each in moments if decision.id in {one.id for one in each.decisions}), None)
    cause = _before(data_dir, decision.cause_seq, decision)
    began = None if condition is None else _before(data_dir, condition.pending_seq, decision)
    missing = ""
    if decision.cause_seq is not None and cause is None:
        missing = f"its event, number {decision.cause_seq}, is no longer in the log"
    return Chain(found, cause, missing, began, condition, _confirmation(data_dir, found))


def _before(data_dir: Path, seq: int | None, decision: Decision) -> Event | None:
    """The event of a number, if it can have led to a decision: another log may have begun since."""
    found = None if seq is None else event_at(data_dir, seq)
    return found if found is not None and found.stamp.elapsed_ns <= decision.elapsed_ns else None


def _confirmation(data_dir: Path, found: Found) -> Event | None:
    """The report that confirmed it: on the topic that was expected, at the instant that the outcome names."""
    command = found.decision.action
    confirmed = next((outcome for outcome in found.outcomes if outcome.state == "confirmed"), None)
    if confirmed is None or not isinstance(command, Command) or command.expect is None:
        return None
    wall_ns = found.wall_ns + confirmed.elapsed_ns - found.decision.elapsed_ns
    for item in Window(data_dir, EVENTS_DIR, wall_ns - _BESIDE_NS, wall_ns + _BESIDE_NS):
        if not isinstance(item, Timed) or item.batch.stamp.elapsed_ns != confirmed.elapsed_ns:
            continue
        batch = item.batch
        if batch.kind is Kind.EVENTS and command.expect.topic in batch.topics:
            batch.values = values_of(batch)
            return batch.event(batch.topics.index(command.expect.topic))
    return None


def event_at(data_dir: Path, seq: int) -> Event | None:
    """The event of a number; None if the log does not hold it (any more).

    Raises:
        StorageError: if the log cannot be read.
    """
    log = info(data_dir)
    if not log.first_seq <= seq < log.end_seq:
        return None
    for batch in _batches(data_dir, seq):
        if batch.seq <= seq < batch.end:
            if batch.kind is not Kind.EVENTS:
                return None
            batch.values = values_of(batch)
            return batch.event(seq - batch.seq)
        if batch.seq > seq:
            return None
    return None


def wall_ns_of(data_dir: Path, stamp: Stamp) -> int:
    """When a record happened: UTC, ns since 1970, corrected."""
    timeline, _ = read_timeline(look(data_dir, EVENTS_DIR))
    return timeline.wall_ns(stamp)


def _batches(data_dir: Path, from_seq: int) -> Iterator[Batch]:
    return (item for item in scan_log(data_dir, EVENTS_DIR, from_seq) if isinstance(item, Batch))

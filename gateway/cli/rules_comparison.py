"""A backtest: rules replayed over a stretch of a log, beside other rules or beside what the log says was decided.

Invariants:
- Both sides are counted over the same stretch, by the same rules of `gateway.rules.trying.tally`.
- Of what was decided, that of rules which are not on trial is left aside; but whoever drove an actuator that is on
  trial has driven it.
- Memory does not grow with the stretch.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from gateway.act.records import decode_records
from gateway.cli.rules_history import Begin, End
from gateway.clock import SystemClock
from gateway.ingest.decode import values_of
from gateway.model import Batch, Command, Decision, Kind, Outcome
from gateway.rules.trying.replay import Decoder, Replay
from gateway.rules.trying.tally import Balance, Difference, RuleCount, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gateway.cli.rules_history import History
    from gateway.rules.compiled import RuleSet
    from gateway.rules.trace import Trace

_NOT_SENT = frozenset({"denied", "expired"})
FAR_NS = 1 << 63
_CHANGES = frozenset({"pending", "fired", "ended", "queued"})
"""Traces that tell of no near miss."""


class Backtest(msgspec.Struct):
    """What came of it. Times `*_ns` by the wall clock, ns since 1970; `Tally` and `Difference` by the log's own."""

    history: History
    new: Tally
    old: Tally
    difference: Difference | None
    differences: int
    """Decisions that only one side took."""
    overflow: bool
    against_log: bool
    left_aside: Counter[str]
    """Rules that decided and are not on trial, with how often."""
    began_ns: int
    ended_ns: int
    events: int
    """Replayed, warm-up included."""
    took_s: float

    @property
    def same(self) -> bool:
        """Whether both sides did the same."""
        return self.difference is None


class Side:
    """Rules on their way through the log, and what they did since the beginning."""

    def __init__(self, rules: RuleSet) -> None:
        self.tally = Tally()
        self._traced: Counter[tuple[str, str]] = Counter()
        self.replay = Replay(rules, records_of, others=True, trace=self._hear)
        self._firings: dict[str, int] = {}

    def begin(self, at_ns: int) -> None:
        """What follows counts."""
        for decision in self.replay.pass_time(at_ns - 1):
            self.tally.add(decision, counts=False)
        self.tally.begin(at_ns)
        self._traced.clear()
        self._firings = self.replay.engine.firings()

    def take(self, batch: Batch, stretch: _Weighing) -> list[Decision]:
        """What a batch leads to."""
        return self._note(self.replay.take(batch), stretch)

    def finish(self, at_ns: int, stretch: _Weighing) -> list[Decision]:
        """Nothing follows."""
        decisions = self._note(self.replay.finish(at_ns), stretch)
        self.tally.finish(at_ns)
        firings = self.replay.engine.firings()
        for rule in (each.id for each in self.replay.engine.ruleset.rules):
            count = self.tally.rules.setdefault(rule, RuleCount())
            count.firings = self._traced[rule, "fired"]
            count.near_misses = Counter(
                {what: times for (name, what), times in self._traced.items() if name == rule and what not in _CHANGES}
            )
        for rule in (each.id for each in self.replay.engine.ruleset.thermostats):
            count = self.tally.rules.setdefault(rule, RuleCount())
            count.firings = firings[rule] - self._firings.get(rule, 0)
        return decisions

    def _hear(self, trace: Trace) -> None:
        self._traced[trace.rule, trace.what] += 1

    def _note(self, decisions: list[Decision], stretch: _Weighing) -> list[Decision]:
        for decision in decisions:
            self.tally.add(decision, counts=stretch.holds(decision))
        return decisions


class Life:
    """What the log says was decided, of the rules on trial and of the actuators that they drive."""

    def __init__(self, rules: RuleSet) -> None:
        self.tally = Tally()
        self.left_aside: Counter[str] = Counter()
        self._names = frozenset(rules.fingerprints)
        self._actuators = frozenset(rules.actuators)

    def take(self, batch: Batch, stretch: _Weighing) -> Iterator[Decision]:
        """What a batch records as decided by a rule on trial."""
        if batch.kind is not Kind.DECISIONS:
            return
        for record in records_of(batch):
            if isinstance(record, Outcome):
                if record.state in _NOT_SENT:
                    self.tally.refuse(record.decision_id, record.decision_id.partition("/")[0])
                continue
            since = stretch.holds(record)
            if record.rule in self._names:
                is_own = is_of_a_rule(record)
                self.tally.add(record, counts=since and is_own)
                if is_own:
                    yield record
            elif isinstance(record.action, Command) and record.action.topic in self._actuators:
                self.tally.add(record, counts=False)
            if since and record.rule not in self._names:
                self.left_aside[record.rule] += 1


def records_of(batch: Batch) -> Iterator[Decision | Outcome]:
    """What a batch of kind DECISIONS holds."""
    for _, record in decode_records(batch):
        yield record


def is_of_a_rule(decision: Decision) -> bool:
    """Whether a rule took it in the course of events, and not a restart that says it again, or act as compensation."""
    last = decision.id.rsplit("/", 2)
    return not last[-1].startswith("start-") and last[-2:-1] != ["otherwise"]


def compare(
    history: History, rules: RuleSet, others: RuleSet | None, progress: Callable[[int], None] | None = None
) -> Backtest:
    """Run rules over a stretch of a log.

    Args:
        history: the stretch.
        rules: on trial.
        others: what to compare with; None: with what was decided.
        progress: told how many bytes have been read since the last call.

    Raises:
        StorageError: if the log cannot be read.
    """
    clock = SystemClock()
    started_ns = clock.mono_ns()
    new, life, weighing = Side(rules), Life(rules), _Weighing()
    sides = [(True, new)] if others is None else [(True, new), (False, Side(others))]
    decoder = Decoder(values_of, [side.replay.engine for _, side in sides])
    for item in history.read(progress):
        if isinstance(item, Begin):
            for _, side in sides:
                side.begin(item.at_ns)
            life.tally.begin(item.at_ns)
            weighing.began_ns = item.at_ns
        elif isinstance(item, End):
            for is_new, side in sides:
                weighing.weigh(side.finish(item.at_ns, weighing), new=is_new)
            weighing.ended_ns = item.at_ns
        elif isinstance(item, Batch):
            if weighing.ended_ns == FAR_NS:
                decoder.fill(item)
                for is_new, side in sides:
                    weighing.weigh(side.take(item, weighing), new=is_new)
            if others is None:
                weighing.weigh(life.take(item, weighing), new=False)
    life.tally.finish(weighing.ended_ns)
    return Backtest(
        history=history,
        new=new.tally,
        old=life.tally if others is None else sides[1][1].tally,
        difference=weighing.balance.first(),
        differences=len(weighing.balance),
        overflow=weighing.balance.overflow,
        against_log=others is None,
        left_aside=life.left_aside,
        began_ns=history.dates.wall_ns(weighing.began_ns) if history.events else history.from_ns,
        ended_ns=history.dates.wall_ns(weighing.ended_ns) if history.events else history.to_ns,
        events=history.events,
        took_s=(clock.mono_ns() - started_ns) / 1e9,
    )


class _Weighing:
    """Between which instants what is decided counts, on the log's clock, and the balance of both sides."""

    def __init__(self) -> None:
        self.began_ns = self.ended_ns = FAR_NS
        self.balance = Balance()

    def holds(self, decision: Decision) -> bool:
        return self.began_ns <= decision.elapsed_ns <= self.ended_ns

    def weigh(self, decisions: Iterable[Decision], *, new: bool) -> None:
        for decision in decisions:
            if self.holds(decision):
                self.balance.add(decision, new=new)

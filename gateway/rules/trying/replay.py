"""Rules over what a log holds: batches in, decisions out, and nobody acts on them.

Two questions, two ways to run:

    as it was       the rules that lived there: the log's own derived events are what they saw           (`why`)
    other rules     what they derive takes the place of what the log holds from rules of the same name   (`backtest`)

Invariants:
- As it was, a replay decides what the life decided, with the same ids (L12), but for what lies before its beginning.
- Of other rules each deadline fires at its own time, and what it emits is seen before the next one.
- Only what some rule listens to is decoded; a record that nobody listens to costs one look into a dict.
- Of other rules, an outcome is told only to one that has just taken that very decision.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from gateway.model import (
    DERIVED,
    HOPS_SHIFT,
    MAX_HOPS,
    REPLAYED,
    Batch,
    Command,
    Decision,
    Emit,
    Format,
    Kind,
    Outcome,
    Stamp,
)
from gateway.rules.engine import Engine
from gateway.rules.expressions.references import VariableReference, WindowReference
from gateway.rules.plans import EmitPlan
from gateway.rules.thermostat_rule import Thermostat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.model import Marker, Value
    from gateway.rules.compiled import Rule, RuleSet
    from gateway.rules.trace import Tracer

    ValuesOf: TypeAlias = Callable[[Batch], list[Value]]
    RecordsOf: TypeAlias = Callable[[Batch], Iterable[Decision | Outcome | Marker]]

LEAST_WARM_UP_NS = 3_600_000_000_000
NOT_DONE = frozenset({"denied", "expired", "unconfirmed"})
"""Outcomes after which an actuator is not what its rule believes it to be."""
_TOPICS_REMEMBERED = 50_000
_COMMANDS_REMEMBERED = 10_000
_SAME_CLOCK_NS = 100_000_000


class Decoder:
    """Decodes what engines listen to, once for all of them."""

    def __init__(self, values_of: ValuesOf, engines: Sequence[Engine]) -> None:
        """See the class. Args: values_of: decoded payloads of a batch, as `gateway.ingest.decode.values_of`."""
        self._values_of = values_of
        self._engines = engines
        self._heard: dict[str, bool] = {}

    def fill(self, batch: Batch) -> None:
        """Put the values of a batch of events in their place; None for what nobody listens to."""
        if batch.kind is not Kind.EVENTS or batch.values is not None:
            return
        heard = self._heard
        try:
            wanted = [heard[topic] for topic in batch.topics]
        except KeyError:
            wanted = [self._is_heard(topic) for topic in batch.topics]
        if all(wanted):
            batch.values = self._values_of(batch)
            return
        values: list[Value] = [None] * len(wanted)
        picked = [index for index, is_wanted in enumerate(wanted) if is_wanted]
        if picked:
            part = replace(
                batch,
                topics=[batch.topics[index] for index in picked],
                formats=[batch.formats[index] for index in picked],
                flags=[batch.flags[index] for index in picked],
                payloads=[batch.payloads[index] for index in picked],
            )
            for index, value in zip(picked, self._values_of(part), strict=True):
                values[index] = value
        batch.values = values

    def _is_heard(self, topic: str) -> bool:
        heard = self._heard
        if topic not in heard:
            if len(heard) >= _TOPICS_REMEMBERED:
                heard.clear()
            heard[topic] = any(engine.listens(topic) for engine in self._engines)
        return heard[topic]


class Replay:
    """One engine on its way through a log."""

    def __init__(
        self, ruleset: RuleSet, records_of: RecordsOf, *, others: bool = False, trace: Tracer | None = None
    ) -> None:
        """See the module.

        Args:
            ruleset: what to run.
            records_of: what a batch of kind DECISIONS holds.
            others: these are not (all) the rules that lived there.
            trace: told every change of state and every near miss.
        """
        self.engine = Engine(ruleset, trace=trace)
        self._records_of = records_of
        self._others = others
        self._names = frozenset(ruleset.fingerprints)
        self._emits = any(isinstance(plan, EmitPlan) for rule in ruleset.rules for plan in rule.plans)
        self._held: Batch | None = None
        """Derived events whose makers only the next batch names."""
        self._commanded: set[str] = set()
        self._commands: deque[str] = deque()

    def take(self, batch: Batch) -> list[Decision]:
        """What a batch leads to, and the deadlines before it, in the order of time.

        Args:
            batch: the next one of the log; events have been through `Decoder.fill`.
        """
        if not self._others:
            return self._run(batch)
        out: list[Decision] = []
        held, self._held = self._held, None
        if held is not None:
            out += self._run(self._without_ours(held, batch))
        if batch.kind is Kind.EVENTS and any(flags & DERIVED for flags in batch.flags):
            self._held = batch
            return out
        return out + self._run(batch)

    def pass_time(self, elapsed_ns: int) -> list[Decision]:
        """The deadlines up to a time that no record before `elapsed_ns` follows, on the log's clock."""
        if self._held is not None:
            return []  # they come with the next batch, in their order
        return [*self._advance(elapsed_ns), *self.engine.tick(elapsed_ns)]

    def finish(self, elapsed_ns: int) -> list[Decision]:
        """What is left, and the deadlines up to the end of what is replayed, on the log's clock."""
        held, self._held = self._held, None
        out = [] if held is None else self._run(held)
        return out + self.pass_time(elapsed_ns)

    def _run(self, batch: Batch) -> list[Decision]:
        now_ns = batch.stamp.elapsed_ns
        out = self._advance(now_ns) if self._others and self._emits else []
        out += self._follow(self.engine.run(batch), now_ns)
        if batch.kind is Kind.DECISIONS:
            for record in self._records_of(batch):
                if isinstance(record, Outcome) and record.state in NOT_DONE and self._concerns(record.decision_id):
                    out += self._follow(self.engine.refused(record.decision_id, record.state, now_ns), now_ns)
        return out

    def _concerns(self, decision_id: str) -> bool:
        """Whether an outcome in the log is that of a decision which this engine, too, has taken."""
        return not self._others or decision_id in self._commanded

    def _advance(self, until_ns: int) -> list[Decision]:
        out: list[Decision] = []
        while (due_ns := self.engine.deadline_ns) is not None and due_ns <= until_ns:
            out += self._follow(self.engine.tick(due_ns), due_ns)
        return out

    def _follow(self, decisions: list[Decision], now_ns: int) -> list[Decision]:
        """The same, and what comes of the events that they derive."""
        out = decisions
        at = 0
        while at < len(out):
            decision = out[at]
            at += 1
            if not self._others:
                break
            if isinstance(decision.action, Command):
                self._remember(decision.id)
            elif isinstance(decision.action, Emit) and not decision.shadow:
                out = [*out, *self.engine.run(_derived(decision, decision.action, now_ns))]
        return out

    def _remember(self, name: str) -> None:
        self._commanded.add(name)
        self._commands.append(name)
        if len(self._commands) > _COMMANDS_REMEMBERED:
            self._commanded.discard(self._commands.popleft())

    def _without_ours(self, batch: Batch, following: Batch) -> Batch:
        """Derived events of the log, without those that rules of ours derive anew.

        Who derived an event stands in the record that was appended right behind it.
        """
        makers: dict[tuple[str, bytes], str] = {}
        if following.kind is Kind.DECISIONS:
            for record in self._records_of(following):
                if isinstance(record, Decision) and isinstance(record.action, Emit):
                    makers[record.action.topic, record.action.payload] = record.rule
        flags = [
            # A record that is replayed triggers nothing: it keeps its number and moves no machine.
            each | REPLAYED if each & DERIVED and makers.get((topic, payload)) in self._names else each
            for topic, payload, each in zip(batch.topics, batch.payloads, batch.flags, strict=True)
        ]
        return replace(batch, flags=flags)


def _derived(decision: Decision, emit: Emit, now_ns: int) -> Batch:
    """The event that a decision derives, under the number of the record that led to it."""
    return Batch(
        kind=Kind.EVENTS,
        stamp=Stamp(0, 0, now_ns, b"", synced=False),
        topics=[emit.topic],
        formats=[Format.JSON],
        flags=[DERIVED | min(emit.hops, MAX_HOPS) << HOPS_SHIFT],
        payloads=[emit.payload],
        values=[msgspec.json.decode(emit.payload)],
        seq=decision.cause_seq or 0,
    )


class Dates:
    """The wall clock of every instant of a log's own clock, as its records tell."""

    def __init__(self) -> None:
        self._since_ns: list[int] = []
        self._offsets_ns: list[int] = []

    def note(self, elapsed_ns: int, wall_ns: int) -> None:
        """A record tells both. To be called in the order of the log."""
        offset_ns = wall_ns - elapsed_ns
        if not self._offsets_ns or abs(offset_ns - self._offsets_ns[-1]) > _SAME_CLOCK_NS:
            self._since_ns.append(elapsed_ns)
            self._offsets_ns.append(offset_ns)

    def wall_ns(self, elapsed_ns: int) -> int:
        """UTC, ns since 1970, to within a tenth of a second; 0-based before anything was noted."""
        if not self._offsets_ns:
            return elapsed_ns
        return elapsed_ns + self._offsets_ns[max(bisect_right(self._since_ns, elapsed_ns) - 1, 0)]


def warm_up_ns(ruleset: RuleSet) -> int:
    """How long rules must have run for their state to be right: the longest duration that any names, at least an hour.

    What has no end (variables, sequences of other rules, a rule that has been active for days) may reach further.
    """
    found = [LEAST_WARM_UP_NS]
    for rule in ruleset.everyone:
        found += _durations_ns(rule)
    return max(found)


def _durations_ns(rule: Rule | Thermostat) -> list[int]:
    if isinstance(rule, Thermostat):
        limits: dict[str, Any] = rule.limits._asdict()
        return [value for name, value in limits.items() if name.endswith("_ns") and value is not None]
    found = [rule.for_ns + rule.keep_ns, rule.cooldown_ns, rule.stale_after_ns or 0, rule.look_every_ns]
    found.append(sum(step.wait_ns for step in rule.steps))
    if rule.silence is not None:
        found.append(rule.silence.after_ns)
    if rule.follows is not None:
        found.append(rule.follows.within_ns)
    for reference in rule.references:
        if isinstance(reference, WindowReference):
            # A tumbling window shows the last whole stretch: two of them.
            found.append(reference.span.span_ns * (1 + reference.span.tumbling) + reference.span.lateness_ns)
        elif not isinstance(reference, VariableReference):
            found.append(reference.age_ns or 0)
    return found

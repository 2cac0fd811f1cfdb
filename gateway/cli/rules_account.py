"""What happened to one rule, or what came of one event, by replay of the log: what `gateway rules why` tells.

Invariants:
- The rules are those of the configuration now. Where the log shows that others decided, that is told.
- As it was: the log's own derived events and outcomes are what the rules see, so that the replay takes the decisions,
  under the ids, that were taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.cli.rules_comparison import is_of_a_rule, records_of
from gateway.cli.rules_history import Begin, End, History, Mark
from gateway.ingest.decode import values_of
from gateway.model import Batch, Decision, Event, Kind, Marker
from gateway.rules.thermostat_rule import Thermostat
from gateway.rules.trying.reasons import Hearing, Moment, Records, Story, captured_by, key_of, why_not_fresh
from gateway.rules.trying.replay import Decoder, Replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Outcome
    from gateway.rules.compiled import Rule, RuleSet
    from gateway.rules.machines.machine import Status
    from gateway.rules.trace import Trace

_MARKERS = "$gateway/markers"
"""As the journal writes it; importing that would load the whole gateway."""


class Account(msgspec.Struct):
    """What happened to one rule. Times on the log's clock; `history.dates` knows the wall clock's."""

    rule: str
    history: History
    moments: list[Moment]
    story: Story
    records: Records
    hearing: Hearing | None
    """None: the rules are not known, and what was decided is all there is."""
    standing: list[Status]
    """Where it stood at the instant that was asked for."""
    changed_ns: list[int]
    """When the log says that other words stood under this id: up to these instants."""
    not_replayed: list[Decision]
    """Decisions in the log that today's rules do not take."""
    not_logged: set[str]
    """Ids of decisions that today's rules take, and the log does not hold."""
    began_ns: int
    ended_ns: int


def account(
    history: History,
    name: str,
    rules: RuleSet | None,
    device: str | None,
    progress: Callable[[int], None] | None = None,
) -> Account:
    """Replay a stretch of a log, and listen to one rule.

    Args:
        history: the stretch.
        name: the rule's id.
        rules: all of the configuration's; None: tell only what the log says was decided.
        device: only keys of which this is a part.
        progress: told how many bytes have been read since the last call.

    Raises:
        StorageError: if the log cannot be read.
    """
    return _Listening(history, name, rules, device).run(progress)


class _Listening:
    def __init__(self, history: History, name: str, rules: RuleSet | None, device: str | None) -> None:
        self._history = history
        self._story = Story(name, device)
        self._records = Records(self._story)
        self._began_ns = self._ended_ns = -1
        self._standing: list[Status] = []
        self._changed_ns: list[int] = []
        self._replayed: set[str] = set()
        self._hearing: Hearing | None = None
        self._replay: Replay | None = None
        self._fingerprint = ""
        if rules is not None:
            owner = owner_of(rules, name)
            self._fingerprint = owner.fingerprint
            self._hearing = Hearing(owner, self._story)
            self._replay = Replay(rules, records_of, trace=self._story.hear)
            self._decoder = Decoder(values_of, [self._replay.engine])

    def run(self, progress: Callable[[int], None] | None) -> Account:
        for item in self._history.read(progress):
            if isinstance(item, Begin):
                self._pass_time(item.at_ns - 1)
                self._story.begin()
                if self._hearing is not None:
                    self._hearing.begin()
                self._began_ns = item.at_ns
            elif isinstance(item, Mark):
                self._look(item.at_ns)
            elif isinstance(item, End):
                self._pass_time(item.at_ns)
                self._ended_ns = item.at_ns
            else:
                if self._ended_ns < 0:
                    self._replay_batch(item)
                if item.kind is Kind.DECISIONS:
                    self._note(item)
        return self._account()

    def _replay_batch(self, batch: Batch) -> None:
        if self._replay is not None and self._hearing is not None:
            self._decoder.fill(batch)
            self._hearing.take(batch)
            self._tell(self._replay.take(batch))

    def _pass_time(self, until_ns: int) -> None:
        if self._replay is not None:
            self._tell(self._replay.pass_time(until_ns))

    def _tell(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if decision.rule == self._story.rule:
                self._replayed.add(decision.id)
                self._story.decided(decision)

    def _look(self, at_ns: int) -> None:
        """Where it stands at the instant that was asked for. All keys, whatever there are of them."""
        self._pass_time(at_ns)
        if self._replay is not None:
            found = self._replay.engine.status(at_ns, limit=1 << 60)
            story = self._story
            self._standing = [each for each in found if each.rule == story.rule and story.concerns(each.key)]

    def _note(self, batch: Batch) -> None:
        """What the log says was decided, what came of it, and by which rules."""
        for topic, payload in zip(batch.topics, batch.payloads, strict=True):
            if topic == _MARKERS:
                self._note_marker(payload, batch.stamp.elapsed_ns)
        for record in records_of(batch):
            if not isinstance(record, Decision) or self._began_ns <= record.elapsed_ns:
                self._records.take(record)

    def _note_marker(self, payload: bytes, at_ns: int) -> None:
        try:
            marker = msgspec.json.decode(payload, type=Marker)
        except msgspec.MsgspecError:
            return
        known = marker.rules.get(self._story.rule)
        if self._fingerprint and known is not None and known != self._fingerprint:
            self._changed_ns.append(at_ns)

    def _account(self) -> Account:
        records, story = self._records, self._story
        began_ns, ended_ns = max(self._began_ns, 0), self._ended_ns
        if self._replay is None:
            for decision in records.decisions.values():
                if is_of_a_rule(decision):
                    story.decided(decision)
            not_replayed = []
        else:
            decided = [each for each in records.decisions.values() if began_ns <= each.elapsed_ns <= ended_ns]
            not_replayed = [each for each in decided if each.id not in self._replayed and is_of_a_rule(each)]
        moments = [moment for moment in story.moments() if moment.until_ns >= began_ns or moment.what == "pending"]
        told = {decision.id for moment in moments for decision in moment.decisions}
        return Account(
            rule=story.rule,
            history=self._history,
            moments=moments,
            story=story,
            records=records,
            hearing=self._hearing,
            standing=self._standing,
            changed_ns=self._changed_ns,
            not_replayed=not_replayed,
            not_logged=told - records.decisions.keys(),
            began_ns=began_ns,
            ended_ns=ended_ns,
        )


class Reached(msgspec.Struct):
    """One rule that an event concerned, and what it made of it."""

    rule: str
    key: str
    moments: list[Moment]
    """What it did with it, and at once."""
    later: list[Moment]
    """What followed by itself, up to the first change."""
    why_not: str
    """If it did nothing with it: why, as far as can be told."""
    outcomes: dict[str, list[Outcome]]


class EventAccount(msgspec.Struct):
    """What came of one event."""

    history: History
    event: Event
    wall_ns: int
    reached: list[Reached]


def horizon_ns(rules: RuleSet) -> int:
    """How long after an event rules may still make something of it."""
    longest_ns = max((rule.for_ns + sum(step.wait_ns for step in rule.steps) for rule in rules.rules), default=0)
    return longest_ns + 60_000_000_000


def event_account(
    history: History, event: Event, wall_ns: int, rules: RuleSet, progress: Callable[[int], None] | None = None
) -> EventAccount:
    """Replay what lies around an event, and listen to the rules that it concerned.

    Args:
        history: from the event on, for as long as `horizon_ns`, with a warm-up.
        event: which.
        wall_ns: when it happened.
        rules: all of the configuration's.
        progress: told how many bytes have been read since the last call.

    Raises:
        StorageError: if the log cannot be read.
    """
    concerned = [
        (owner, key_of(owner, captured))
        for owner in rules.everyone
        if (captured := _concerns(owner, event.topic)) is not None
    ]
    stories = {owner.id: Story(owner.id) for owner, _ in concerned}
    records = {name: Records(story) for name, story in stories.items()}
    keys = {owner.id: key for owner, key in concerned}

    def hear(trace: Trace) -> None:
        if keys.get(trace.rule) == trace.key:
            stories[trace.rule].hear(trace)

    replay = Replay(rules, records_of, trace=hear)
    decoder = Decoder(values_of, [replay.engine])
    ended = False
    for item in history.read(progress):
        if isinstance(item, Begin):
            replay.pass_time(item.at_ns - 1)
            for story in stories.values():
                story.begin()
        elif isinstance(item, Batch):
            if not ended:
                decoder.fill(item)
                for decision in replay.take(item):
                    if keys.get(decision.rule) == decision.key:
                        stories[decision.rule].decided(decision)
            if item.kind is Kind.DECISIONS:
                for record in records_of(item):
                    for each in records.values():
                        each.take(record)
        elif isinstance(item, End):
            replay.pass_time(item.at_ns)
            ended = True
    reached = [_reached(owner, key, event, stories[owner.id], records[owner.id]) for owner, key in concerned]
    return EventAccount(history, event, wall_ns, reached)


def _reached(owner: Rule | Thermostat, key: str, event: Event, story: Story, records: Records) -> Reached:
    moments: list[Moment] = []
    later: list[Moment] = []
    for moment in story.moments():
        if moment.seq == event.seq or any(each.cause_seq == event.seq for each in moment.decisions):
            moments.append(moment)
        elif moment.at_ns > event.stamp.elapsed_ns and not any(each.is_change for each in later):
            later.append(moment)
    pending = any(moment.pending_ns == event.stamp.elapsed_ns for moment in later)
    waits = pending or any(moment.what == "pending" for moment in moments)
    why_not = "" if moments or waits else _why_not(owner, event)
    return Reached(owner.id, key, moments, later if waits else [], why_not, records.outcomes)


def _why_not(owner: Rule | Thermostat, event: Event) -> str:
    not_fresh = why_not_fresh(event.flags)
    if not_fresh:
        return f"the record is {not_fresh}: it triggers nothing"
    captured = captured_by(owner, event.topic)
    if captured is None:
        return "it is none of its triggers, only what it looks at"
    condition = Hearing(owner, Story(owner.id)).condition
    if condition is None:
        return "nothing changed"
    fields = event.value if isinstance(event.value, dict) else {"value": event.value}
    captured = {"topic": event.topic, **captured}
    readings = condition.readings(fields, captured)
    if condition.references or isinstance(owner, Thermostat):
        return f"nothing changed: {readings}"
    holds = condition.evaluate(fields, captured)
    word = {True: "true, and nothing changed by it", False: "false"}.get(holds, "unknown: it counts as no event")
    return f"`{condition.source}` is {word}: {readings}"


def _concerns(owner: Rule | Thermostat, topic: str) -> dict[str, str] | None:
    return next((captured for source in owner.sources if (captured := source.match(topic)) is not None), None)


def owner_of(rules: RuleSet, name: str) -> Rule | Thermostat:
    """The rule of an id; it is there."""
    return next(owner for owner in rules.everyone if owner.id == name)

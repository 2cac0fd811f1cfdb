"""Why a rule did something, or did not: the steps of its machines, gathered into what a person wants to read. Pure.

    pending ── fired               one moment: fired, pending since ...
    pending ── reset               one near miss: it held for so long and not longer
    the same near miss again       one moment: 14 times until 06:22
    the same command said again    one moment, too

Invariants:
- Every change of state is a moment of its own, in the order of time; only near misses of one kind, of one key, with no
  change between them, are folded.
- A decision belongs to the change that it came with; where no change was traced it is a moment of its own.
- At most `MOST` moments are kept, the newest; what was left out is counted.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.model import DUPLICATE, NOT_FRESH, RETAINED, Command, Decision, Kind, Outcome
from gateway.rules.expressions import logic
from gateway.rules.expressions.expression import show, show_path
from gateway.rules.thermostat_rule import Thermostat

if TYPE_CHECKING:
    from gateway.model import Action, Batch
    from gateway.rules.compiled import Rule
    from gateway.rules.expressions.expression import Expression
    from gateway.rules.trace import Trace

MOST = 10_000
CHANGES = frozenset({"fired", "ended", "stale", "decided"})
"""What is no near miss."""
AGAIN = "again"
"""No change and no near miss: what was commanded before, said once more."""
_PASSED_OVER = frozenset({"refused"})
"""The outcome itself is told beside the decision."""


class Moment(msgspec.Struct):
    """One change of state, or one near miss and its repetitions. Times on the log's clock."""

    at_ns: int
    key: str
    what: str
    """As in `gateway.rules.trace`; `decided` or `again` where nothing was traced."""
    detail: str
    readings: str
    seq: int | None
    times: int = 1
    until_ns: int = 0
    """When it came for the last time."""
    pending_ns: int | None = None
    """Since when it had been pending."""
    pending_seq: int | None = None
    """The record with which that began."""
    decisions: list[Decision] = msgspec.field(default_factory=list)

    @property
    def is_change(self) -> bool:
        """Whether it is no near miss."""
        return self.what in CHANGES


class Story:
    """What happened to one rule."""

    def __init__(self, rule: str, device: str | None = None) -> None:
        """Args: device: only keys of which it is a part; None: all."""
        self.rule = rule
        self.forgotten = 0
        """Moments that were too many to keep."""
        self.near_misses: Counter[str] = Counter()
        self.fired = 0
        self._device = device
        self._moments: deque[Moment] = deque(maxlen=MOST)
        self._last: dict[str, Moment] = {}
        self._pending: dict[str, Moment] = {}
        self._said: dict[str, list[Action]] = {}
        """By key, what the latest change that decided anything decided."""

    def concerns(self, key: str) -> bool:
        """Whether a key is among those asked for; a rule without keys always is."""
        return self._device is None or not key or self._device in key.split(",")

    def begin(self) -> None:
        """What came before is not told, but for what is still pending."""
        self._moments.clear()
        self._last.clear()
        self.near_misses.clear()
        self.forgotten = self.fired = 0

    def hear(self, trace: Trace) -> None:
        """A step of a machine, in the order of time."""
        at_ns, rule, key, what, detail, readings, seq = trace
        if rule != self.rule or what in _PASSED_OVER or not self.concerns(key):
            return
        moment = Moment(at_ns, key, what, detail, readings, seq, until_ns=at_ns)
        if what == "pending":
            self._pending[key] = moment
            return
        if what in {"reset", "fired", "stale"} and (pending := self._pending.pop(key, None)) is not None:
            moment.pending_ns, moment.pending_seq = pending.at_ns, pending.seq
            if what != "fired":
                moment.readings = f"{pending.readings}, then {readings}" if readings else pending.readings
        self._keep(moment)

    def decided(self, decision: Decision) -> None:
        """A decision, after the steps of its batch."""
        if decision.rule != self.rule or not self.concerns(decision.key):
            return
        key, at_ns = decision.key, decision.elapsed_ns
        last = self._last.get(key)
        if last is None or last.until_ns != at_ns or not (last.is_change or last.what == AGAIN):
            is_same = isinstance(decision.action, Command) and decision.action in self._said.get(key, ())
            what = AGAIN if is_same else "decided"
            self._keep(Moment(at_ns, key, what, decision.because, "", decision.cause_seq, until_ns=at_ns))
            last = self._last[key]
        if last.what != AGAIN:
            if not last.decisions:
                self._said[key] = []
            self._said[key].append(decision.action)
        elif last.decisions and last.decisions[0].elapsed_ns != at_ns:
            last.decisions.clear()  # of repetitions, only the latest is kept
        last.decisions.append(decision)

    def moments(self) -> list[Moment]:
        """All that is kept, and what is pending still, by time."""
        return sorted([*self._moments, *self._pending.values()], key=lambda moment: moment.at_ns)

    def _keep(self, moment: Moment) -> None:
        if moment.what == "fired":
            self.fired += 1
        elif not moment.is_change and moment.what != AGAIN:
            self.near_misses[moment.what] += 1
        last = self._last.get(moment.key)
        if last is not None and last.what == moment.what and not moment.is_change:
            last.times += 1
            last.until_ns, last.detail, last.readings = moment.at_ns, moment.detail, moment.readings
            return
        self.forgotten += len(self._moments) == MOST
        self._last[moment.key] = moment
        self._moments.append(moment)


class Extremes(msgspec.Struct):
    """How far a number went, and when."""

    least: float
    least_ns: int
    most: float
    most_ns: int


class Hearing:
    """What one rule has heard, and what stood there: why nothing happened."""

    def __init__(self, owner: Rule | Thermostat, story: Story) -> None:
        """See the class. Args: story: says which keys are asked for."""
        self._owner = owner
        self._story = story
        self._topics: dict[str, dict[str, str] | None] = {}
        self.events = 0
        self.not_fresh = 0
        """Retained, marked as duplicates, or replayed."""
        self.truths: Counter[str] = Counter()
        """How often the condition was `true`, `false` and `unknown`; empty if it looks beyond the event."""
        self.extremes: dict[str, Extremes] = {}
        """Of each number that the condition reads."""
        self.last_ns: int | None = None
        """When the last event came, whether it counted or not; also one before the beginning."""

    def begin(self) -> None:
        """What came before is not told, but for when the last event came."""
        self.events = self.not_fresh = 0
        self.truths.clear()
        self.extremes.clear()

    def take(self, batch: Batch) -> None:
        """The next batch, decoded."""
        if batch.kind is not Kind.EVENTS or batch.values is None:
            return
        now_ns = batch.stamp.elapsed_ns
        for topic, flags, value in zip(batch.topics, batch.flags, batch.values, strict=True):
            captured = self._captured(topic)
            if captured is None:
                continue
            self.events += 1
            self.last_ns = now_ns
            if flags & NOT_FRESH:
                self.not_fresh += 1
            else:
                self._look(value if isinstance(value, dict) else {"value": value}, {"topic": topic, **captured}, now_ns)

    @property
    def condition(self) -> Expression | None:
        """What has to hold; of a thermostat, what it reads."""
        owner = self._owner
        return owner.reading if isinstance(owner, Thermostat) else owner.when or owner.gate

    def _captured(self, topic: str) -> dict[str, str] | None:
        if topic not in self._topics:
            if len(self._topics) > MOST:
                self._topics.clear()
            self._topics[topic] = captured_by(self._owner, topic)
            found = self._topics[topic]
            if found is not None and not self._story.concerns(key_of(self._owner, found)):
                self._topics[topic] = None
        return self._topics[topic]

    def _look(self, fields: dict[str, Any], captured: dict[str, str], now_ns: int) -> None:
        condition = self.condition
        if condition is None:
            return
        if not condition.references and not isinstance(self._owner, Thermostat):
            self.truths[show(condition.evaluate(fields, captured))] += 1
        beyond = {reference.text for reference in condition.references}
        for field in condition.fields:
            number = (
                None if field.captured or field.path[0] in beyond else logic.number(logic.field(fields, *field.path))
            )
            if number is None:
                continue
            found = self.extremes.setdefault(show_path(field), Extremes(number, now_ns, number, now_ns))
            if number < found.least:
                found.least, found.least_ns = number, now_ns
            if number > found.most:
                found.most, found.most_ns = number, now_ns


class Records:
    """What the log says was decided, and what became of it."""

    def __init__(self, story: Story) -> None:
        """Args: story: of the rule that is asked for."""
        self._story = story
        self.decisions: dict[str, Decision] = {}
        """By id, of that rule."""
        self.outcomes: dict[str, list[Outcome]] = {}
        """By the decision's id, in order."""

    def take(self, record: Decision | Outcome) -> None:
        """A record of the log."""
        if isinstance(record, Outcome):
            if record.decision_id.startswith(f"{self._story.rule}/"):
                self.outcomes.setdefault(record.decision_id, []).append(record)
        elif record.rule == self._story.rule and self._story.concerns(record.key):
            self.decisions[record.id] = record


def captured_by(owner: Rule | Thermostat, topic: str) -> dict[str, str] | None:
    """What a rule's triggers, or a thermostat's sensor, capture of a topic; None if that is not what it listens to."""
    sources = owner.sources[:1] if isinstance(owner, Thermostat) else owner.topics
    return next((captured for source in sources if (captured := source.match(topic)) is not None), None)


def key_of(owner: Rule | Thermostat, captured: dict[str, str]) -> str:
    """The key of the machine that captured levels belong to, as decisions carry it."""
    parts = [captured[name] for name in owner.names]
    return ",".join(part if len(parts) == 1 else part.replace("%", "%25").replace(",", "%2C") for part in parts)


def why_not_fresh(flags: int) -> str:
    """What makes a record trigger nothing; empty if it does."""
    if not flags & NOT_FRESH:
        return ""
    return "retained" if flags & RETAINED else "marked as a duplicate" if flags & DUPLICATE else "replayed"

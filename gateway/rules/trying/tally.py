"""What rules did in a stretch of time, counted; and where two such accounts part. Pure.

Invariants:
- Decisions before `begin` set what is on, and are not counted.
- An actuator is on from a command with state `on` to one with state `off`; saying it again switches nothing. What the
  interlock denied, or what came too late, switched nothing either.
- Two decisions are the same if they do the same thing within a second, whichever rule takes them.
- Memory grows with rules, actuators and differences, never with the length of the stretch.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, deque
from typing import NamedTuple

import msgspec

from gateway.model import Action, Command, Decision, Notify

SAME_NS = 1_000_000_000
"""Decisions closer than this are one: what a restart or a deadline decides may come a little later in life."""
_HELD_NS = 60_000_000_000
"""So long after a command its refusal may still come."""
_MOST_DIFFERENCES = 100_000


class RuleCount(msgspec.Struct):
    """One rule in a stretch of time."""

    actions: Counter[str] = msgspec.field(default_factory=Counter)
    """How often, by `command on`, `notify oncall`, `emit` ..."""
    firings: int | None = None
    """How often `then` ran; of a thermostat, how often it switched on. None: only the decisions are known."""
    near_misses: Counter[str] = msgspec.field(default_factory=Counter)
    """By what kept it from firing. See `gateway.rules.trace`."""
    refused: int = 0
    """Commands that came to nothing: denied, or too late."""
    first_ns: int | None = None
    """When it first did something, on the log's clock."""
    last_ns: int | None = None


class ActuatorCount(msgspec.Struct):
    """One actuator in a stretch of time."""

    switched_on: int = 0
    on_ns: int = 0
    is_on: bool | None = None
    """None: nobody has said."""
    since_ns: int = 0


class Tally:
    """One side: what was decided."""

    def __init__(self) -> None:
        self.rules: dict[str, RuleCount] = {}
        self.actuators: dict[str, ActuatorCount] = {}
        self._begun = False
        self._waiting: deque[tuple[int, str, str, str]] = deque()
        """(when, id, rule, topic and state) of commands that may still turn out to have been refused."""
        self._refused: set[str] = set()

    def begin(self, elapsed_ns: int) -> None:
        """What comes from here on counts."""
        self._apply_until(elapsed_ns)
        self.rules.clear()
        for actuator in self.actuators.values():
            actuator.switched_on, actuator.on_ns, actuator.since_ns = 0, 0, elapsed_ns
        self._begun = True

    def add(self, decision: Decision, *, counts: bool = True) -> None:
        """A decision, in the order of time.

        Args:
            decision: which.
            counts: False for what switches actuators and is no rule's doing, such as what a restart says again.
        """
        action = decision.action
        if counts:
            rule = self.rules.setdefault(decision.rule, RuleCount())
            rule.actions[label(action)] += 1
            rule.first_ns = decision.elapsed_ns if rule.first_ns is None else rule.first_ns
            rule.last_ns = decision.elapsed_ns
        if isinstance(action, Command) and action.state is not None and not decision.shadow:
            self._apply_until(decision.elapsed_ns - _HELD_NS)
            self._waiting.append((decision.elapsed_ns, decision.id, action.topic, action.state))

    def refuse(self, decision_id: str, rule: str) -> None:
        """A command has come to nothing."""
        self._refused.add(decision_id)
        if self._begun and rule in self.rules:
            self.rules[rule].refused += 1

    def finish(self, elapsed_ns: int) -> None:
        """The stretch is over."""
        self._apply_until(elapsed_ns)
        for actuator in self.actuators.values():
            if actuator.is_on:
                actuator.on_ns += max(elapsed_ns - actuator.since_ns, 0)
                actuator.since_ns = elapsed_ns

    def _apply_until(self, until_ns: int) -> None:
        waiting = self._waiting
        while waiting and waiting[0][0] <= until_ns:
            at_ns, name, topic, state = waiting.popleft()
            if name in self._refused:
                self._refused.discard(name)
                continue
            actuator = self.actuators.setdefault(topic, ActuatorCount())
            is_on = state == "on"
            if is_on is not actuator.is_on:
                if actuator.is_on:
                    actuator.on_ns += max(at_ns - actuator.since_ns, 0)
                actuator.switched_on += is_on
                actuator.is_on, actuator.since_ns = is_on, at_ns
        if not waiting:
            self._refused.clear()


class Difference(NamedTuple):
    """Where two accounts part first."""

    at_ns: int
    new: tuple[Decision, ...]
    """What only the one side decided then."""
    old: tuple[Decision, ...]
    """What only the other did."""
    next_new: Decision | None
    """If `new` is empty: what it decided next that the other did not."""
    next_old: Decision | None


class Balance:
    """What two sides decided, as far as they differ. Decisions come in any order, of both sides."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, bytes], list[tuple[bool, Decision]]] = {}
        """By what is done: whose it is and the decision, by time."""
        self._count = 0
        self.overflow = False
        """There were so many differences that the later ones were not kept."""

    def add(self, decision: Decision, *, new: bool) -> None:
        """One side's decision: it cancels against one of the other side, or stays."""
        name, at_ns = _name_of(decision.action), decision.elapsed_ns
        entries = self._open.get(name, [])
        begin = bisect_left(entries, at_ns - SAME_NS, key=_time_of)
        for at in range(begin, len(entries)):
            is_new, other = entries[at]
            if other.elapsed_ns > at_ns + SAME_NS:
                break
            if is_new is not new:
                del entries[at]
                self._count -= 1
                if not entries:
                    del self._open[name]
                return
        if self._count >= _MOST_DIFFERENCES:
            self.overflow = True
            return
        self._count += 1
        insort(self._open.setdefault(name, entries), (new, decision), key=_time_of)

    def __len__(self) -> int:
        return self._count

    def first(self) -> Difference | None:
        """The earliest moment at which the sides differ; None if they do not."""
        rest = sorted((entry for entries in self._open.values() for entry in entries), key=_time_of)
        if not rest:
            return None
        at_ns = rest[0][1].elapsed_ns
        now = [entry for entry in rest if entry[1].elapsed_ns - at_ns <= SAME_NS]
        sides = {side: tuple(decision for is_new, decision in now if is_new is side) for side in (True, False)}
        later = rest[len(now) :]
        following = {
            side: None if sides[side] else next((each for is_new, each in later if is_new is side), None)
            for side in (True, False)
        }
        return Difference(at_ns, sides[True], sides[False], following[True], following[False])


def label(action: Action) -> str:
    """What kind of action: `command on`, `notify oncall`, `emit`."""
    kind = str(type(action).__struct_config__.tag)
    if isinstance(action, Notify):
        return f"{kind} {action.to}"
    if isinstance(action, Command) and action.state is not None:
        return f"{kind} {action.state}"
    return kind


def _name_of(action: Action) -> tuple[str, bytes]:
    return label(action), msgspec.json.encode(action)


def _time_of(entry: tuple[bool, Decision]) -> int:
    return entry[1].elapsed_ns

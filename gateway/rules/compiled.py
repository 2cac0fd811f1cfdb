"""Rules as the engine runs them: everything compiled, nothing of YAML left but where it stood.

`language` builds these, `engine` runs them. Durations are nanoseconds of the log's own clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.rules.plans import CommandPlan, Plan, summary

if TYPE_CHECKING:
    from gateway.model import ActuatorLimits
    from gateway.mqtt.topics import TopicFilter
    from gateway.rules.expression import Expression
    from gateway.rules.thermostat_rule import Thermostat


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One entry of `rules`."""

    id: str
    place: str
    """`path:line:column` of the entry."""
    fingerprint: str
    """Of its text: state outlives a reload only while this stays the same."""
    on: TopicFilter
    when: Expression | None
    """None: every event fires `then`, and there is no state."""
    until: Expression | None
    """None: the rule ends when `when` is false."""
    for_ns: int
    stale_after_ns: int | None
    then: tuple[Plan, ...]
    finally_: tuple[Plan, ...]
    roots: frozenset[str]
    """Payload fields that it reads anywhere: all that its state has to keep of an event."""

    @property
    def sources(self) -> tuple[TopicFilter, ...]:
        """What it listens to."""
        return (self.on,)

    @property
    def drives(self) -> bool:
        """Whether it moves an actuator when it begins."""
        return any(isinstance(plan, CommandPlan) for plan in self.then)

    @property
    def releases(self) -> tuple[CommandPlan, ...]:
        """The commands that end what it began."""
        return tuple(plan for plan in self.finally_ if isinstance(plan, CommandPlan))

    @property
    def plans(self) -> tuple[Plan, ...]:
        """All it may do."""
        return self.then + self.finally_

    def describe(self) -> dict[str, Any]:
        """For the status page, as JSON."""
        return {
            "id": self.id,
            "kind": "rule",
            "place": self.place,
            "on": self.on.text,
            "when": None if self.when is None else self.when.source,
            "until": None if self.until is None else self.until.source,
            "for_s": self.for_ns / 1e9,
            "stale_after_s": None if self.stale_after_ns is None else self.stale_after_ns / 1e9,
            "then": [summary(plan) for plan in self.then],
            "finally": [summary(plan) for plan in self.finally_],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleSet:
    """All rules of all files, checked against each other."""

    rules: tuple[Rule, ...] = ()
    thermostats: tuple[Thermostat, ...] = ()
    warnings: tuple[str, ...] = ()
    """What `check` shows and nobody has to act on: `path:line:column: message`."""
    actuators: dict[str, ActuatorLimits] = field(default_factory=dict)
    """What the interlock holds each actuator with a fixed topic to."""
    recipients: dict[str, str] = field(default_factory=dict)
    """Every `notify: {to}` with the place of its first use, to be compared with the configuration's `notify`."""

    @property
    def everyone(self) -> tuple[Rule | Thermostat, ...]:
        """Rules first, then thermostats: the order in which they are asked."""
        return (*self.rules, *self.thermostats)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Rule id to fingerprint."""
        return {rule.id: rule.fingerprint for rule in self.everyone}

    def describe(self) -> list[dict[str, Any]]:
        """Every rule and thermostat, for the status page, as JSON."""
        return [rule.describe() for rule in self.everyone]

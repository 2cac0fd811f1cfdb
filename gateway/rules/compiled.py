"""Rules as the engine runs them: everything compiled, nothing of YAML left but where it stood.

`language` builds these, `engine` runs them. Durations are nanoseconds of the log's own clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.rules.plans import CommandPlan, Plan, Step, summary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.model import ActuatorLimits, Command
    from gateway.mqtt.topics import TopicFilter
    from gateway.rules.expressions.expression import Expression
    from gateway.rules.expressions.references import Reference
    from gateway.rules.schedules.schedule import Every, Schedule
    from gateway.rules.thermostat_rule import Thermostat

MODES = ("single", "restart", "queued", "parallel")


class Silence(NamedTuple):
    """`{topic, silent: 10m}`: the trigger is that nothing comes."""

    after_ns: int
    on_start: bool
    """Silence counts from the start too, not only from the last event."""


class Crossing(NamedTuple):
    """`{topic, field, above, below}`: the trigger is that a value passes a threshold, not that it is beyond it."""

    on_start: bool
    """A first value beyond it counts as well."""


class Follows(NamedTuple):
    """`after` and `within`: what must have happened shortly before."""

    on: TopicFilter
    when: Expression | None
    within_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One entry of `rules`."""

    id: str
    place: str
    """`path:line:column` of the entry."""
    fingerprint: str
    """Of its text: state outlives a reload only while this stays the same."""
    topics: tuple[TopicFilter, ...]
    schedules: tuple[Schedule | Every, ...] = ()
    silence: Silence | None = None
    crossing: Crossing | None = None
    when: Expression | None = None
    """What must hold, for as long as the rule is active. None: each trigger fires `then`, and there are no phases."""
    gate: Expression | None = None
    """What must hold at the moment of the trigger."""
    until: Expression | None = None
    """None: the rule ends when `when` is false."""
    for_ns: int = 0
    keep_ns: int = 0
    cooldown_ns: int = 0
    follows: Follows | None = None
    mode: str = "single"
    most_runs: int = 10
    stale_after_ns: int | None = None
    ends_on_silence: bool = False
    """A silent sensor ends it: it drives an actuator, and `on_stale` is off."""
    time: Expression | None = None
    """The event's own time; None: when it arrived."""
    max_age_ns: int = 60_000_000_000
    look_every_ns: int = 10_000_000_000
    """How often what may change without an event is looked at: windows, other devices, variables."""
    most_per_minute: int | None = None
    """Firings of one key; None: no limit."""
    shadow: bool = False
    allow_loop: bool = False
    steps: tuple[Step, ...] = ()
    finally_: tuple[Plan, ...] = ()
    roots: frozenset[str] = frozenset()
    """Payload fields that it reads anywhere: all that its state has to keep of an event."""
    references: tuple[Reference, ...] = ()
    """What it looks at beyond the event."""

    @property
    def sources(self) -> tuple[TopicFilter, ...]:
        """What it listens to: its triggers, then what it follows."""
        return self.topics if self.follows is None else (*self.topics, self.follows.on)

    @property
    def names(self) -> tuple[str, ...]:
        """The captured levels that tell one machine from another."""
        return self.topics[0].names if self.topics else ()

    @property
    def reads_wall(self) -> bool:
        """Whether the wall clock bears on it."""
        return bool(self.schedules)

    @property
    def has_phases(self) -> bool:
        """Whether it is active for a while, and not only fires."""
        return self.when is not None or self.silence is not None

    @property
    def then(self) -> tuple[Plan, ...]:
        """All it does when it begins, now or after a while."""
        return tuple(plan for step in self.steps for plan in step.plans)

    @property
    def drives(self) -> bool:
        """Whether it moves an actuator when it begins."""
        return any(isinstance(plan, CommandPlan) for plan in self.then)

    @property
    def releases(self) -> tuple[CommandPlan, ...]:
        """The commands that end what it began."""
        return tuple(plan for plan in self.finally_ if isinstance(plan, CommandPlan))

    def constant_offs(self) -> list[Command]:
        """What switches off what it may have switched on, as far as no event is needed to say it."""
        offs = [plan for plan in self.then if isinstance(plan, CommandPlan) and plan.state == "off"]
        return [plan.render({}, {}, 0) for plan in (*self.releases, *offs) if plan.constant]

    @property
    def plans(self) -> tuple[Plan, ...]:
        """All it may do."""
        return self.then + self.finally_

    def describe(self) -> dict[str, Any]:
        """For the status page, as JSON."""
        condition = self.when or self.gate
        triggers = [topic.text for topic in self.topics] + [schedule.describe() for schedule in self.schedules]
        return {
            "id": self.id,
            "kind": "rule",
            "place": self.place,
            "on": ", ".join(triggers),
            "when": None if condition is None else condition.source,
            "until": None if self.until is None else self.until.source,
            "for_s": self.for_ns / 1e9,
            "stale_after_s": None if self.stale_after_ns is None else self.stale_after_ns / 1e9,
            "then": [summary(plan) for plan in self.then],
            "finally": [summary(plan) for plan in self.finally_],
            "shadow": self.shadow,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleSet:
    """All rules of all files, checked against each other."""

    rules: tuple[Rule, ...] = ()
    thermostats: tuple[Thermostat, ...] = ()
    warnings: tuple[str, ...] = ()
    """What `check` shows and nobody has to act on: `path:line:column: message`."""
    actuators: Mapping[str, ActuatorLimits] = field(default_factory=dict)
    """What the interlock holds each actuator to. Iterating gives those with a fixed topic."""
    recipients: dict[str, str] = field(default_factory=dict)
    """Every `notify: {to}` with the place of its first use, to be compared with the configuration's `notify`."""
    topics: tuple[TopicFilter, ...] = ()
    """The configuration's, which say where a device speaks."""

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

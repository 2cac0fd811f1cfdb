"""What the interlock must know of every actuator that rules drive, also of those that are named by a pattern.

`devices/{device}/fan/set` is as many actuators as there are devices. What holds for one is found when it is first asked
for: its limits are the pattern's, and what switches it off is rendered from the levels of its topic.

Invariants:
- Where rules differ about an actuator the stricter limit of each kind holds.
- What a payload decides is never a safe command: it must be known before there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from gateway.model import ActuatorLimits, Command
from gateway.mqtt.topics import TopicFilter, compile_filter
from gateway.rules.plans import CommandPlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.rules.compiled import Rule
    from gateway.rules.plans import RunTimes
    from gateway.rules.thermostat_rule import Thermostat

_MOST_REMEMBERED = 50_000
_NS = 1e9


class _Pattern(NamedTuple):
    topics: TopicFilter
    limits: ActuatorLimits
    release: CommandPlan | None
    """What switches one of them off."""

    def of(self, topic: str) -> ActuatorLimits | None:
        """What holds for an actuator, if it is one of these."""
        captured = self.topics.match(topic)
        if captured is None:
            return None
        off = None if self.release is None else self.release.render({}, {**captured, "topic": ""}, 0)
        return self.limits._replace(safe=off, off=off)


class Actuators(Mapping[str, ActuatorLimits]):
    """Command topic to limits. Iterating gives those with a fixed topic."""

    def __init__(self, fixed: Mapping[str, ActuatorLimits] | None = None, patterns: Iterable[_Pattern] = ()) -> None:
        self._fixed = dict(fixed or {})
        self._patterns = tuple(patterns)
        self._found: dict[str, ActuatorLimits | None] = {}

    def __getitem__(self, topic: str) -> ActuatorLimits:
        found = self._fixed.get(topic)
        if found is None and self._patterns:
            found = self._by_pattern(topic)
        if found is None:
            raise KeyError(topic)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._fixed)

    def __len__(self) -> int:
        return len(self._fixed)

    def _by_pattern(self, topic: str) -> ActuatorLimits | None:
        if topic not in self._found:
            if len(self._found) >= _MOST_REMEMBERED:
                self._found.clear()
            limits: ActuatorLimits | None = None
            for pattern in self._patterns:
                limits = _stricter(limits, pattern.of(topic))
            self._found[topic] = limits
        return self._found[topic]


def actuator_limits(rules: Iterable[Rule], thermostats: Iterable[Thermostat]) -> Actuators:
    """What the interlock must know of every actuator. Rules on trial drive none."""
    fixed: dict[str, ActuatorLimits] = {}
    patterns: list[_Pattern] = []
    for rule in rules:
        if rule.shadow:
            continue
        commands = [plan for plan in rule.plans if isinstance(plan, CommandPlan)]
        releases = {plan.topic.source: plan for plan in (*commands, *rule.releases) if _is_release(plan)}
        for plan in commands:
            topic, limits = plan.topic.source, _limits(plan.limits)
            if not plan.topic.constant:
                patterns.append(_Pattern(compile_filter(topic), limits, releases.get(topic)))
                continue
            off = releases[topic].render({}, {}, 0) if topic in releases else None
            fixed[topic] = _merged(fixed.get(topic), limits._replace(safe=off, off=off))
    for thermostat in thermostats:
        for topic, limits in _of_thermostat(thermostat):
            fixed[topic] = _merged(limits, fixed.get(topic))
    return Actuators(fixed, patterns)


def _is_release(plan: CommandPlan) -> bool:
    """Whether it switches off, and nothing but the topic's levels decides how."""
    inserts = [insert for template in plan.templates() for insert in template.inserts]
    return plan.state == "off" and all(field.captured for insert in inserts for field in insert.expression.fields)


def _limits(times: RunTimes | None) -> ActuatorLimits:
    if times is None:
        return ActuatorLimits()
    max_on_s = None if times.max_on_ns is None else times.max_on_ns / _NS
    return ActuatorLimits(times.min_on_ns / _NS, times.min_off_ns / _NS, max_on_s)


def _of_thermostat(thermostat: Thermostat) -> Iterator[tuple[str, ActuatorLimits]]:
    safe: dict[str, Command] = {command.topic: command for command in thermostat.safe}
    bounds = thermostat.limits
    for command in thermostat.commands["off"]:
        yield (
            command.topic,
            ActuatorLimits(
                min_on_s=bounds.min_on_ns / 1e9,
                min_off_s=bounds.min_off_ns / 1e9,
                max_on_s=None if bounds.max_on_ns is None else bounds.max_on_ns / 1e9,
                safe=safe.get(command.topic),
                off=command,
            ),
        )


def _stricter(one: ActuatorLimits | None, other: ActuatorLimits | None) -> ActuatorLimits | None:
    if one is None or other is None:
        return other if one is None else one
    caps = [limits.max_on_s for limits in (one, other) if limits.max_on_s is not None]
    return ActuatorLimits(
        min_on_s=max(one.min_on_s, other.min_on_s),
        min_off_s=max(one.min_off_s, other.min_off_s),
        max_on_s=min(caps, default=None),
        safe=one.safe if one.safe is not None else other.safe,
        off=one.off if one.off is not None else other.off,
    )


def _merged(one: ActuatorLimits | None, other: ActuatorLimits | None) -> ActuatorLimits:
    merged = _stricter(one, other)
    assert merged is not None, "at least one is given"
    return merged

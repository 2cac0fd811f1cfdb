"""What the interlock must know of every actuator that rules drive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model import ActuatorLimits
from gateway.rules.plans import CommandPlan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.rules.compiled import Rule
    from gateway.rules.thermostat_rule import Thermostat


def actuator_limits(rules: Iterable[Rule], thermostats: Iterable[Thermostat]) -> dict[str, ActuatorLimits]:
    """What the interlock must know of every actuator with a fixed topic."""
    limits: dict[str, ActuatorLimits] = {}
    for rule in rules:
        for plan in rule.plans:
            if isinstance(plan, CommandPlan) and plan.topic.constant:
                limits.setdefault(plan.topic.source, ActuatorLimits())
        for plan in rule.releases:
            if plan.constant and plan.state == "off":
                limits[plan.topic.source] = ActuatorLimits(safe=plan.render({}, {}, 0))
    for thermostat in thermostats:
        safe = {command.topic: command for command in thermostat.safe}
        bounds = thermostat.limits
        for command in thermostat.commands["off"]:
            limits[command.topic] = ActuatorLimits(
                min_on_s=bounds.min_on_ns / 1e9,
                min_off_s=bounds.min_off_ns / 1e9,
                max_on_s=None if bounds.max_on_ns is None else bounds.max_on_ns / 1e9,
                safe=safe.get(command.topic),
                off=command,
            )
    return limits

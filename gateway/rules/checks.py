"""What can only be said about rules together: names used twice, loops, two masters of one actuator.

A loop is a chain of rules in which each sends what the next one listens to, back to the first. It is refused at load;
what slips through (a device that echoes) is cut at run time by counting hops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from gateway.rules.compiled import Rule
from gateway.rules.plans import CommandPlan, EmitPlan, NotifyPlan, Plan, PublishPlan, SetPlan
from gateway.rules.routing import overlap
from gateway.rules.thermostat_rule import Thermostat

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.rules.template import Template

AnyRule: TypeAlias = Rule | Thermostat


def loops(rules: Sequence[Rule]) -> list[tuple[Rule, str]]:
    """Every loop once, as (a rule in it, what is wrong)."""
    found = [(rule, message) for rule in rules if (message := _talks_to_itself(rule))]
    listeners = _Listeners(rules)
    heard_by = {
        rule.id: [other for topic in _emitted(rule) for other in listeners.of(topic) if other.id != rule.id]
        for rule in rules
    }
    done: set[str] = set()
    for rule in rules:
        chain = _cycle_from(rule, heard_by, done)
        if chain:
            names = " → ".join(f"`{link.id}`" for link in (*chain, chain[0]))
            found.append((chain[0], f"these rules trigger each other for ever: {names}"))
    return found


def shared_actuators(rules: Iterable[AnyRule]) -> list[str]:
    """A warning for every pair of rules that command the same actuator."""
    fixed: dict[str, AnyRule] = {}
    patterns: list[tuple[str, AnyRule]] = []
    found: dict[tuple[str, str], str] = {}
    for rule in rules:
        for topic in dict.fromkeys(_commanded(rule)):
            rivals = [other for pattern, other in patterns if overlap(pattern, topic)]
            if "+" in topic:
                rivals += [other for exact, other in fixed.items() if overlap(exact, topic)]
                patterns.append((topic, rule))
            else:
                rivals += [fixed[topic]] if topic in fixed else []
                fixed.setdefault(topic, rule)
            for other in rivals:
                if other.id != rule.id:
                    message = f"{rule.place}: `{rule.id}` and `{other.id}` both command `{topic}`: the later word wins"
                    found.setdefault((rule.id, other.id), message)
    return list(found.values())


def recipients(rules: Iterable[Rule], thermostats: Iterable[Thermostat]) -> dict[str, str]:
    """Everyone who is notified, with the place of a rule that does."""
    found: dict[str, str] = {}
    for rule in rules:
        for plan in rule.plans:
            for inner in (plan, *plan.otherwise) if isinstance(plan, CommandPlan) else (plan,):
                if isinstance(inner, NotifyPlan):
                    found.setdefault(inner.to, rule.place)
    for thermostat in thermostats:
        for commands in thermostat.commands.values():
            for action in (action for command in commands for action in command.otherwise):
                if hasattr(action, "to"):
                    found.setdefault(action.to, thermostat.place)
    return found


class _Listeners:
    """Which rules listen to something that a pattern may name, without asking each rule about each pattern."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._exact: dict[str, list[Rule]] = {}
        self._wild: list[Rule] = []
        for rule in rules:
            if {"+", "#"} & set(rule.on.mqtt.split("/")):
                self._wild.append(rule)
            else:
                self._exact.setdefault(rule.on.mqtt, []).append(rule)

    def of(self, topic: str) -> list[Rule]:
        wild = [rule for rule in self._wild if overlap(rule.on.mqtt, topic)]
        if "+" not in topic:
            return wild + self._exact.get(topic, [])
        return wild + [rule for exact, rules in self._exact.items() if overlap(exact, topic) for rule in rules]


def _talks_to_itself(rule: Rule) -> str:
    for plan in rule.plans:
        if not isinstance(plan, NotifyPlan | SetPlan) and overlap(rule.on.mqtt, _pattern(plan.topic)):
            return f"`{rule.id}` sends to `{plan.topic.source}`, which it listens to itself"
    return ""


def _emitted(rule: Rule) -> list[str]:
    plans: list[Plan] = [*rule.plans]
    plans += [inner for plan in rule.plans if isinstance(plan, CommandPlan) for inner in plan.otherwise]
    return [_pattern(plan.topic) for plan in plans if isinstance(plan, EmitPlan | PublishPlan)]


def _commanded(rule: AnyRule) -> list[str]:
    if isinstance(rule, Thermostat):
        return [command.topic for command in rule.commands["off"]]
    return [_pattern(plan.topic) for plan in rule.plans if isinstance(plan, CommandPlan)]


def _pattern(topic: Template) -> str:
    """The MQTT filter of all topics that a template may give."""
    marked = "".join(part if isinstance(part, str) else "\0" for part in topic.parts)
    return "/".join("+" if "\0" in level else level for level in marked.split("/"))


def _cycle_from(start: Rule, heard_by: dict[str, list[Rule]], done: set[str]) -> list[Rule]:
    """A loop that can be reached from a rule, or nothing. Rules in `done` have been looked at before."""
    path: list[Rule] = []
    on_path: dict[str, int] = {}
    todo: list[Rule | None] = [start]
    while todo:
        rule = todo.pop()
        if rule is None:
            left = path.pop()
            del on_path[left.id]
            done.add(left.id)
        elif rule.id in on_path:
            loop = path[on_path[rule.id] :]
            done.update(link.id for link in path)
            return loop
        elif rule.id not in done:
            on_path[rule.id] = len(path)
            path.append(rule)
            todo.append(None)
            todo.extend(heard_by[rule.id])
    return []

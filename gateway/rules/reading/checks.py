"""What can only be said about rules together: names used twice, loops, two masters of one actuator.

A loop is a chain of rules in which each sends what the next one listens to, back to the first. It is refused at load;
what slips through (a device that echoes) is cut at run time by counting hops.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from gateway.config.section import did_you_mean
from gateway.mqtt.topics import compile_filter
from gateway.rules.compiled import Rule
from gateway.rules.expressions.references import LatestReference
from gateway.rules.plans import CommandPlan, EmitPlan, NotifyPlan, Plan, PublishPlan, SetPlan
from gateway.rules.routing import overlap
from gateway.rules.thermostat_rule import Thermostat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gateway.mqtt.topics import TopicFilter
    from gateway.rules.expressions.template import Template

AnyRule: TypeAlias = Rule | Thermostat
T = TypeVar("T")
_THRESHOLD = re.compile(r"[<>]=?\s*-?[0-9]|[0-9]\s*[<>]")
"""A comparison with a number: something that has an edge."""


def loops(rules: Sequence[Rule]) -> list[tuple[Rule, str]]:
    """Every loop once, as (a rule in it, what is wrong). One that a rule of it allows is none."""
    strict = [rule for rule in rules if not rule.allow_loop]
    found = [(rule, message) for rule in strict if (message := _talks_to_itself(rule))]
    listeners = _Filters((source.mqtt, rule) for rule in strict for source in rule.sources)
    heard_by = {
        rule.id: [
            other
            for topic in _emitted(rule, EmitPlan, PublishPlan)
            for other in listeners.of(topic)
            if other.id != rule.id
        ]
        for rule in strict
    }
    done: set[str] = set()
    for rule in strict:
        chain = _cycle_from(rule, heard_by, done)
        if chain:
            names = " → ".join(f"`{link.id}`" for link in (*chain, chain[0]))
            found.append((chain[0], f"these rules trigger each other for ever: {names}; `allow_loop: true` lets them"))
    return found


def shared_actuators(rules: Iterable[AnyRule]) -> list[str]:
    """A warning for every pair of rules that command the same actuator: opposed, or merely both."""
    fixed: dict[str, list[tuple[str, AnyRule]]] = {}
    patterns: list[tuple[str, str, AnyRule]] = []
    found: dict[tuple[str, str], str] = {}
    for rule in rules:
        for topic, way in dict.fromkeys(_commanded(rule)):
            rivals = [(theirs, other) for pattern, theirs, other in patterns if overlap(pattern, topic)]
            if "+" in topic:
                rivals += [rival for exact, each in fixed.items() if overlap(exact, topic) for rival in each]
                patterns.append((topic, way, rule))
            else:
                rivals += fixed.get(topic, ())
                fixed.setdefault(topic, []).append((way, rule))
            for theirs, other in rivals:
                pair = (rule.id, other.id)
                if other.id != rule.id and (pair not in found or {way, theirs} == {"on", "off"}):
                    found[pair] = _rivalry(rule, way, other, theirs, topic)
    return list(found.values())


def fluttering(rules: Iterable[Rule]) -> list[str]:
    """A warning for every rule that drives an actuator by one threshold alone: a value on its edge makes it flutter."""
    found = []
    for rule in rules:
        if not rule.drives or rule.when is None or rule.until is not None:
            continue
        if not (rule.for_ns or rule.keep_ns or rule.cooldown_ns) and _THRESHOLD.search(rule.when.source):
            found.append(
                f"{rule.place}: `{rule.id}` drives an actuator by `{rule.when.source}` alone: a value on the edge "
                "switches it with every reading; give it an `until` some way off, a `for` or a `keep_for`"
            )
    return found


def unheard(rules: Sequence[AnyRule], stored: Sequence[TopicFilter]) -> list[str]:
    """A warning for every topic that a rule waits for and nobody would ever bring it.

    Args:
        rules: all of them, since one may listen to what another emits.
        stored: the topics of the configuration.
    """
    coming = _Filters([(topic.mqtt, None) for topic in stored] + [(topic, None) for topic in _derived(rules)])
    return [
        f"{rule.place}: `{rule.id}` {why} `{topic}`, which no entry of `ingest.topics` stores and no rule emits: "
        "nothing will ever come"
        for rule in rules
        for topic, why in dict.fromkeys(_awaited(rule))
        if not coming.of(topic)
    ]


def foreign_fields(
    rules: Sequence[AnyRule], stored: Sequence[TopicFilter], fields: Sequence[Sequence[str]]
) -> list[str]:
    """A warning for every field that a rule reads and no payload that reaches it holds.

    Args:
        rules: all of them, since what a rule emits holds whatever it says.
        stored: the topics of the configuration.
        fields: for each of them, what its payloads hold; empty where that is not said.
    """
    if not any(fields):
        return []
    nothing_said: frozenset[str] = frozenset()
    said = _Filters(
        [(topic.mqtt, frozenset(names)) for topic, names in zip(stored, fields, strict=True)]
        + [(topic, nothing_said) for topic in _derived(rules)]
    )
    found = []
    for rule in rules:
        for sources, names in _read_from(rule):
            reaching = [holds for source in sources for holds in said.of(source)]
            if not reaching or not all(reaching):
                continue
            known, where = sorted(frozenset().union(*reaching)), ", ".join(sources)
            found += [
                f"{rule.place}: `{rule.id}` reads `{name}`, and by its `fields` no payload on `{where}` holds that"
                f"{did_you_mean(name, known)}"
                for name in sorted(names.difference(known))
            ]
    return found


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


class _Filters(Generic[T]):
    """What stands behind filters, found by another filter, without asking each about each."""

    def __init__(self, filters: Iterable[tuple[str, T]]) -> None:
        self._exact: dict[str, list[T]] = {}
        self._wild: list[tuple[str, T]] = []
        for pattern, behind in filters:
            if _is_wild(pattern):
                self._wild.append((pattern, behind))
            else:
                self._exact.setdefault(pattern, []).append(behind)

    def of(self, topic: str) -> list[T]:
        """What stands behind each filter that shares a topic with this one."""
        found = [behind for pattern, behind in self._wild if overlap(pattern, topic)]
        if not _is_wild(topic):
            return found + self._exact.get(topic, [])
        return found + [
            behind for exact, all_behind in self._exact.items() if overlap(exact, topic) for behind in all_behind
        ]


def _is_wild(topic: str) -> bool:
    return not {"+", "#"}.isdisjoint(topic.split("/"))


def _talks_to_itself(rule: Rule) -> str:
    for plan in rule.plans:
        if not isinstance(plan, NotifyPlan | SetPlan):
            pattern = _pattern(plan.topic)
            if any(overlap(source.mqtt, pattern) for source in rule.sources):
                return f"`{rule.id}` sends to `{plan.topic.source}`, which it listens to itself"
    return ""


def _emitted(rule: Rule, *kinds: type[EmitPlan | PublishPlan]) -> list[str]:
    """The filters of all topics on which a rule may send something of these kinds, when all goes well and when not."""
    plans: list[Plan] = [*rule.plans]
    plans += [inner for plan in rule.plans if isinstance(plan, CommandPlan) for inner in plan.otherwise]
    return [_pattern(plan.topic) for plan in plans if isinstance(plan, kinds)]


def _derived(rules: Iterable[AnyRule]) -> list[str]:
    """The filters of all events that rules make."""
    return [topic for rule in rules if isinstance(rule, Rule) for topic in _emitted(rule, EmitPlan)]


def _awaited(rule: AnyRule) -> Iterator[tuple[str, str]]:
    """Every filter on which a rule waits for something, and what for."""
    yield from ((source.mqtt, "listens to") for source in rule.sources)
    confirmed = "waits for a confirmation on"
    if isinstance(rule, Thermostat):
        expected = [command.expect for commands in rule.commands.values() for command in commands]
        yield from ((expect.topic, confirmed) for expect in expected if expect is not None)
        return
    for reference in rule.references:
        if isinstance(reference, LatestReference):
            yield compile_filter(reference.topic).mqtt, "looks at the latest of"
    for plan in rule.plans:
        if isinstance(plan, CommandPlan) and plan.expect is not None:
            yield _pattern(plan.expect.topic), confirmed


def _read_from(rule: AnyRule) -> Iterator[tuple[list[str], set[str]]]:
    """The names that a rule reads, with the topics whose events it reads them from."""
    if isinstance(rule, Thermostat):
        yield [rule.on.mqtt], rule.reading.roots
        yield from (([window.on.mqtt], window.is_open.roots) for window in rule.windows)
        return
    yield [topic.mqtt for topic in rule.topics], set(rule.roots)
    if rule.follows is not None and rule.follows.when is not None:
        yield [rule.follows.on.mqtt], rule.follows.when.roots
    for reference in rule.references:
        if isinstance(reference, LatestReference) and isinstance(reference.path[0], str):
            yield [compile_filter(reference.topic).mqtt], {reference.path[0]}


def _commanded(rule: AnyRule) -> list[tuple[str, str]]:
    """Every actuator that a rule drives, and which way when it begins."""
    if isinstance(rule, Thermostat):
        return [(command.topic, "") for command in rule.commands["off"]]
    begins = [(_pattern(plan.topic), plan.state or "") for plan in rule.then if isinstance(plan, CommandPlan)]
    return begins + [(_pattern(plan.topic), "") for plan in rule.releases]


def _rivalry(rule: AnyRule, way: str, other: AnyRule, theirs: str, topic: str) -> str:
    if {way, theirs} != {"on", "off"}:
        return f"{rule.place}: `{rule.id}` and `{other.id}` both command `{topic}`: the later word wins"
    on, off = (rule, other) if way == "on" else (other, rule)
    return (
        f"{rule.place}: `{on.id}` turns `{topic}` on and `{off.id}`, at {off.place if rule is on else on.place}, "
        "turns it off: they drive it in opposite ways, and the later word wins"
    )


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

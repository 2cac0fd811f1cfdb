"""`then`, `finally` and `otherwise`: YAML to plans.

An action is a mapping of one key, which names its kind: `notify: {to: oncall, text: "..."}`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from gateway.config.section import Section
from gateway.rules.expressions.expression import ExpressionError, compile_condition
from gateway.rules.plans import (
    CommandPlan,
    EmitPlan,
    ExpectPlan,
    NotifyPlan,
    Plan,
    PublishPlan,
    RunTimes,
    SetPlan,
    Step,
)
from gateway.rules.reading.phrases import IDENTIFIER, read_ns, read_payload, read_text, read_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

KINDS = ("command", "emit", "notify", "publish", "set", "wait")
_MOST_STEPS = 50


class _Wait(NamedTuple):
    duration_ns: int


def read_actions(section: Section, key: str, captures: Collection[str]) -> tuple[Plan, ...]:
    """The actions under a key, all at once; those that are wrong are noted and left out."""
    plans = []
    for plan in _read_list(section, key, captures):
        if isinstance(plan, _Wait):
            section.problems.add(section.at(key), f"`{key}` may not wait: only `then` may")
        else:
            plans.append(plan)
    return tuple(plans)


def read_sequence(section: Section, key: str, captures: Collection[str]) -> tuple[Step, ...]:
    """The actions under a key, required, with waits between them; those that are wrong are noted and left out."""
    steps: list[Step] = []
    plans: list[Plan] = []
    for plan in _read_list(section, key, captures, required=True):
        if isinstance(plan, _Wait):
            steps.append(Step(tuple(plans), plan.duration_ns))
            plans = []
        else:
            plans.append(plan)
    if plans or not steps:
        steps.append(Step(tuple(plans)))
    if section.has(key) and not any(step.plans for step in steps) and not section.problems:
        section.problems.add(section.at(key), f"`{key}` has no action in it")
    if len(steps) > _MOST_STEPS:
        section.problems.add(section.at(key), f"`{key}` waits more than {_MOST_STEPS - 1} times")
    return tuple(steps)


def read_actuator(section: Section, states: dict[str, str]) -> dict[str, CommandPlan]:
    """A thermostat's `actuator`: one command for each key of `states` (key to the state that it stands for)."""
    topic = read_topic(section, "topic", ())
    expect = _expect(section, ())
    otherwise = _otherwise(section, ())
    payloads = {key: read_payload(section, key, ()) for key in states}
    section.done()
    return {
        key: CommandPlan(topic, payload, states[key], expect, otherwise)
        for key, payload in payloads.items()
        if topic is not None and payload is not None
    }


def _read_list(
    section: Section, key: str, captures: Collection[str], *, required: bool = False
) -> Iterator[Plan | _Wait]:
    for node in section.each(key, required=required):
        entry = Section(node, section.problems, section.at(key))
        kinds = [kind for kind in KINDS if entry.node(kind) is not None]
        if len(kinds) > 1:
            entry.problems.add(entry.mark, f"an action is one of {_words(KINDS)}: write each with a dash of its own")
            continue
        if kinds == ["wait"]:
            wait_ns = read_ns(entry, "wait", least_ns=1)
            entry.done()
            if wait_ns is not None:
                yield _Wait(wait_ns)
            continue
        below = entry.section(kinds[0]) if kinds else None
        before = len(entry.problems.lines())
        entry.done()
        if not kinds and len(entry.problems.lines()) == before:
            entry.problems.add(entry.mark, f"an action names one of {_words(KINDS)}")
        if below is not None and kinds == ["set"]:
            yield from _set(below, captures)
        elif below is not None:
            plan = _READERS[kinds[0]](below, captures)
            below.done()
            if plan is not None:
                yield plan


def _notify(section: Section, captures: Collection[str]) -> Plan | None:
    to = section.text("to", required=True, pattern=IDENTIFIER)
    text = read_text(section, "text", captures)
    return NotifyPlan(to, text) if text is not None else None


def _publish(section: Section, captures: Collection[str]) -> Plan | None:
    topic = read_topic(section, "topic", captures)
    payload = read_payload(section, "payload", captures)
    qos = section.integer("qos", 1, least=0, most=1)
    retain = section.boolean("retain")
    return PublishPlan(topic, payload, qos or 0, retain) if topic is not None and payload is not None else None


def _emit(section: Section, captures: Collection[str]) -> Plan | None:
    topic = read_topic(section, "topic", captures)
    payload = read_payload(section, "payload", captures, json=True)
    return EmitPlan(topic, payload) if topic is not None and payload is not None else None


def _set(section: Section, captures: Collection[str]) -> Iterator[Plan]:
    names = section.names()
    if not names:
        section.problems.add(section.mark, "`set` takes names and values, as in `set: {party: true}`")
    for name in names:
        value = read_payload(section, name, captures)
        if re.fullmatch(IDENTIFIER, name) is None:
            section.problems.add(section.at(name), f"`{name}` must match {IDENTIFIER}")
        elif value is not None:
            yield SetPlan(name, value)


def _command(section: Section, captures: Collection[str]) -> Plan | None:
    topic = read_topic(section, "topic", captures)
    payload = read_payload(section, "payload", captures)
    state = section.choice("state", ("on", "off"))
    expect = _expect(section, captures)
    otherwise = _otherwise(section, captures)
    limits = _run_times(section, state)
    if topic is None or payload is None:
        return None
    return CommandPlan(topic, payload, state, expect, otherwise, limits)


def _run_times(section: Section, state: str | None) -> RunTimes | None:
    keys = ("min_on", "min_off", "max_on")
    min_on_ns, min_off_ns, max_on_ns = (read_ns(section, key) for key in keys)
    given = [key for key in keys if section.has(key)]
    if given and state is None:
        section.problems.add(
            section.at(given[0]), f"`{given[0]}` needs a `state`: on or off, or nobody knows which it is"
        )
    if max_on_ns is not None and max_on_ns <= (min_on_ns or 0):
        section.problems.add(section.at("max_on"), "`max_on` must be longer than zero and than `min_on`")
    return RunTimes(min_on_ns or 0, min_off_ns or 0, max_on_ns) if given else None


def _expect(section: Section, captures: Collection[str]) -> ExpectPlan | None:
    below = section.section("expect")
    if below is None:
        return None
    topic = read_topic(below, "topic", captures)
    where = below.text("where", required=True)
    within_s = below.duration_s("within", 5.0)
    retries = below.integer("retries", 3, least=0, most=20)
    if where:
        try:
            compile_condition(where)
        except ExpressionError as error:
            below.problems.add(below.at("where"), f"character {error.column} of `{where[:60]}`: {error}")
    if within_s is not None and within_s <= 0:
        below.problems.add(below.at("within"), "`within` must be longer than zero")
    below.done()
    return None if topic is None else ExpectPlan(topic, where, within_s or 5.0, retries or 0)


def _otherwise(section: Section, captures: Collection[str]) -> tuple[PublishPlan | NotifyPlan | EmitPlan, ...]:
    plans = []
    for plan in _read_list(section, "otherwise", captures):
        if isinstance(plan, CommandPlan | SetPlan | _Wait):
            section.problems.add(section.at("otherwise"), "`otherwise` may publish, emit or notify, nothing else")
        else:
            plans.append(plan)
    if plans and not section.has("expect"):
        section.problems.add(section.at("otherwise"), "`otherwise` needs an `expect`, or nobody can fail to answer")
    return tuple(plans)


def _words(names: Collection[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


_READERS: dict[str, Callable[[Section, Collection[str]], Plan | None]] = {
    "command": _command,
    "emit": _emit,
    "notify": _notify,
    "publish": _publish,
}

"""`then`, `finally` and `otherwise`: YAML to plans.

An action is a mapping of one key, which names its kind: `notify: {to: oncall, text: "..."}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.section import Section
from gateway.rules.expression import ExpressionError, compile_condition
from gateway.rules.phrases import IDENTIFIER, read_payload, read_text, read_topic
from gateway.rules.plans import CommandPlan, EmitPlan, ExpectPlan, NotifyPlan, Plan, PublishPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

KINDS = ("command", "emit", "notify", "publish")


def read_actions(section: Section, key: str, captures: Collection[str], *, required: bool = False) -> tuple[Plan, ...]:
    """The actions under a key; those that are wrong are noted and left out."""
    plans = tuple(_read_list(section, key, captures, required=required))
    if required and section.has(key) and not plans and not section.problems:
        section.problems.add(section.at(key), f"`{key}` has no action in it")
    return plans


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


def _read_list(section: Section, key: str, captures: Collection[str], *, required: bool = False) -> Iterator[Plan]:
    for node in section.each(key, required=required):
        entry = Section(node, section.problems, section.at(key))
        kinds = [kind for kind in KINDS if entry.node(kind) is not None]
        if len(kinds) > 1:
            entry.problems.add(entry.mark, f"an action is one of {_words(KINDS)}: write each with a dash of its own")
            continue
        below = entry.section(kinds[0]) if kinds else None
        before = len(entry.problems.lines())
        entry.done()
        if not kinds and len(entry.problems.lines()) == before:
            entry.problems.add(entry.mark, f"an action names one of {_words(KINDS)}")
        if below is not None:
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


def _command(section: Section, captures: Collection[str]) -> Plan | None:
    topic = read_topic(section, "topic", captures)
    payload = read_payload(section, "payload", captures)
    state = section.choice("state", ("on", "off"))
    expect = _expect(section, captures)
    otherwise = _otherwise(section, captures)
    if topic is None or payload is None:
        return None
    return CommandPlan(topic, payload, state, expect, otherwise)


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
        if isinstance(plan, CommandPlan):
            section.problems.add(section.at("otherwise"), "`otherwise` may publish, emit or notify, not command")
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

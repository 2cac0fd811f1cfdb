"""What a test expects: YAML to actions, and to phases of rules.

    expect: none
    expect: [{notify: {to: oncall, text: "..."}, rule: freezer-warm, at: 10m}, {command: {state: "on"}, times: 3}]
    expect_state: {freezer-warm: active, sensor-silent: {freezer-1: inactive}}

Invariants:
- What is not written may be anything; a word that no action has is a problem.
- Names of rules are looked up, so that a misspelt one cannot pass for a rule that is silent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.config.document import Mapping, Scalar, cut, plain
from gateway.config.section import Section, did_you_mean
from gateway.rules.reading.phrases import read_ns
from gateway.rules.trying.timeline import Expected

if TYPE_CHECKING:
    from gateway.config.document import Node, Problems
    from gateway.rules.compiled import RuleSet

_TEXTS = {"notify": ("to", "text"), "command": ("topic",), "emit": ("topic",), "publish": ("topic",)}
"""Kind of action to those of its fields that are texts."""
_KINDS = (*_TEXTS, "set")
_PHASES = ("inactive", "pending", "active", "unknown")
"""Of a rule. A thermostat's are `off`, `heat` and so on."""
_MOST_TIMES = 10_000
_NONE = "none"


def read_actions(step: Section, key: str, ruleset: RuleSet | None) -> tuple[Expected, ...] | None:
    """Actions in their order: one, a list of them, or `none`. None if the key is not there."""
    node = step.node(key)
    if node is None:
        return None
    if isinstance(node, Scalar):
        if node.value != _NONE:
            step.problems.add(node.mark, f"`{key}` is none, or a list of actions such as {{notify: {{to: oncall}}}}")
        return ()
    found: list[Expected] = []
    for each in step.each(key):
        entry = Section(each, step.problems, node.mark)
        times = entry.integer("times", 1, least=1, most=_MOST_TIMES) or 1
        found += _read_action(entry, ruleset) * times
        entry.done()
    return tuple(found)


def read_phases(step: Section, key: str, ruleset: RuleSet | None) -> tuple[tuple[str, str | None, str], ...] | None:
    """Rule, key (None: every one) and phase, for each rule that is named. None if the key is not there."""
    section = step.section(key)
    if section is None:
        return None
    found: list[tuple[str, str | None, str]] = []
    for rule in section.names():
        node = section.node(rule)
        if not _is_known(rule, ruleset):
            section.problems.add(section.at(rule), _unknown(rule, ruleset))
        elif isinstance(node, Mapping):
            keys = Section(node, section.problems, node.mark)
            found += [(rule, name, _phase(keys, name, rule, ruleset)) for name in keys.names()]
        else:
            found.append((rule, None, _phase(section, rule, rule, ruleset)))
    if not section.names():
        step.problems.add(step.at(key), f"`{key}` is a mapping from rule to phase, such as {{freezer-warm: active}}")
    return tuple(found)


def read_rule_id(node: Node, problems: Problems, ruleset: RuleSet | None) -> str:
    """The id of a rule that is tested; empty if it is none of them, which is then told."""
    value = node.value if isinstance(node, Scalar) else None
    if not isinstance(value, str) or not value:
        problems.add(node.mark, "the id of a rule is expected here")
        return ""
    if not _is_known(value, ruleset):
        problems.add(node.mark, _unknown(value, ruleset))
        return ""
    return value


def _read_action(entry: Section, ruleset: RuleSet | None) -> list[Expected]:
    """One action; of `set`, one for each variable."""
    kinds = [kind for kind in _KINDS if entry.has(kind)]
    if len(kinds) != 1:
        hint = next(filter(None, (did_you_mean(name, _KINDS) for name in entry.names())), "")
        entry.problems.add(entry.mark, f"an action is one of {', '.join(_KINDS)}{'' if kinds else hint}")
        return []
    kind = kinds[0]
    below = entry.section(kind)
    assert below is not None, "it is there"
    common = Expected(
        place=str(entry.mark),
        kind=kind,
        fields={} if kind == "set" else _fields(below, kind),
        rule=_rule(entry, ruleset),
        key=entry.text("key") if entry.has("key") else None,
        at_ns=read_ns(entry, "at"),
        because=entry.text("because") or None,
        shadow=entry.boolean("shadow"),
    )
    if kind == "set":
        values = {name: below.node(name) for name in below.names()}
        return [common._replace(fields={name: plain(node)}) for name, node in values.items() if node is not None]
    below.done()
    return [common]


def _fields(below: Section, kind: str) -> dict[str, Any]:
    """What is written of an action; every key that it could have is asked for."""
    found: dict[str, Any] = {name: below.text(name) for name in _TEXTS[kind]}
    if kind != "notify":
        node = below.node("payload")
        found["payload"] = None if node is None else plain(node)
    if kind == "command":
        found["state"] = below.choice("state", ("on", "off"))
    if kind == "publish":
        found["qos"] = below.integer("qos", least=0, most=2)
        found["retain"] = below.boolean("retain")
    return {name: value for name, value in found.items() if below.has(name)}


def _rule(entry: Section, ruleset: RuleSet | None) -> str | None:
    node = entry.node("rule")
    return None if node is None else read_rule_id(node, entry.problems, ruleset)


def _phase(section: Section, name: str, rule: str, ruleset: RuleSet | None) -> str:
    """The phase that stands under a name; one of a rule's, if it is known to be of a rule."""
    is_rule = ruleset is not None and any(each.id == rule for each in ruleset.rules)
    if is_rule:
        return section.choice(name, _PHASES, required=True) or ""
    return section.text(name, required=True)


def _is_known(rule: str, ruleset: RuleSet | None) -> bool:
    return ruleset is None or any(each.id == rule for each in ruleset.everyone)


def _unknown(rule: str, ruleset: RuleSet | None) -> str:
    known = [] if ruleset is None else [each.id for each in ruleset.everyone]
    return f"no rule here is named `{cut(rule)}`{did_you_mean(rule, known)}"

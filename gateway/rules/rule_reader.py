"""One entry of `rules`: YAML to a `Rule`, with everything that can be said about it on its own.

What this refuses, though it could be run, is what would leave an actuator on with nobody to turn it off:

- a rule that commands something and does not say after how long a silence it must no longer trust its sensor;
- a rule that turns something on and has no `finally` that turns it off;
- a `finally` that turns something on: it runs when the sensor falls silent, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.rules.action_reader import read_actions
from gateway.rules.compiled import Rule
from gateway.rules.phrases import IDENTIFIER, read_condition, read_filter, read_ns
from gateway.rules.plans import CommandPlan, roots

if TYPE_CHECKING:
    from gateway.config.section import Section
    from gateway.mqtt.topics import TopicFilter


def read_rule(section: Section, fingerprint: str, warnings: list[str]) -> Rule | None:
    """Read one rule.

    Args:
        section: the entry.
        fingerprint: of its text.
        warnings: what nobody has to act on is added here.

    Returns:
        The rule; None if something was wrong. Then `section.problems` has it.
    """
    before = len(section.problems.lines())
    name = section.text("id", required=True, pattern=IDENTIFIER)
    on = read_filter(section, "on")
    names = () if on is None else on.names
    when = read_condition(section, "when", names)
    until = read_condition(section, "until", names)
    for_ns = read_ns(section, "for")
    stale_after_ns = read_ns(section, "stale_after", least_ns=1)
    then = read_actions(section, "then", names, required=True)
    finally_ = read_actions(section, "finally", names)
    section.done()
    if len(section.problems.lines()) > before or on is None:
        return None
    conditions = [condition for condition in (when, until) if condition is not None]
    read = {str(field.path[0]) for condition in conditions for field in condition.fields if not field.captured}
    rule = Rule(
        id=name,
        place=str(section.mark),
        fingerprint=fingerprint,
        on=on,
        when=when,
        until=until,
        for_ns=for_ns or 0,
        stale_after_ns=stale_after_ns,
        then=then,
        finally_=finally_,
        roots=frozenset(read | roots(then) | roots(finally_)),
    )
    _check_condition(section, rule)
    _check_actuators(section, rule)
    _warn_shared_state(rule, on, warnings)
    return rule if len(section.problems.lines()) == before else None


def _check_condition(section: Section, rule: Rule) -> None:
    if rule.when is None:
        for key in ("for", "until", "stale_after", "finally"):
            if section.has(key):
                section.problems.add(section.at(key), f"`{key}` needs a `when`: without one every event fires `then`")
    elif not rule.when.fields:
        section.problems.add(section.at("when"), "this says the same for every event: leave `when` out")


def _check_actuators(section: Section, rule: Rule) -> None:
    commands = [plan for plan in rule.then if isinstance(plan, CommandPlan)]
    if (commands or rule.releases) and rule.when is not None and rule.stale_after_ns is None:
        section.problems.add(
            section.mark,
            f"`{rule.id}` commands an actuator: say with `stale_after` how long a silence its sensor may keep",
        )
    released = {plan.topic.source for plan in rule.releases if plan.state == "off"}
    for plan in commands:
        if plan.state == "on" and plan.topic.source not in released:
            section.problems.add(
                section.at("then"),
                f"`{rule.id}` turns `{plan.topic.source}` on: `finally` needs a command with `state: off` for it",
            )
    for plan in rule.releases:
        if plan.state == "on":
            section.problems.add(
                section.at("finally"),
                f"`finally` turns `{plan.topic.source}` on, and it also runs when the sensor falls silent",
            )


def _warn_shared_state(rule: Rule, on: TopicFilter, warnings: list[str]) -> None:
    if rule.when is not None and {"+", "#"} & _unnamed(on):
        warnings.append(
            f"{rule.place}: `{rule.id}` keeps one state for everything that `{on.text}` matches: "
            "name the level, as in `{device}`, for a state per device"
        )


def _unnamed(on: TopicFilter) -> set[str]:
    return set(on.text.split("/"))

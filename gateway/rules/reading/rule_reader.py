"""One entry of `rules`: YAML to a `Rule`, with everything that can be said about it on its own.

What this refuses, though it could be run, is what would leave an actuator on with nobody to turn it off:

- a rule that commands something while a condition holds, and does not say after how long a silence it must no longer
  trust its sensor, nor what is to become of the actuator then;
- a rule that turns something on and turns it off neither in `finally` nor, after a wait, in `then`;
- a `finally` that turns something on: it runs when the sensor falls silent, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.document import Sequence
from gateway.model import OPERATOR
from gateway.rules.compiled import MODES, Follows, Rule
from gateway.rules.expressions.expression import Expression, ExpressionError, compile_condition
from gateway.rules.expressions.references import WindowReference
from gateway.rules.plans import CommandPlan, PublishPlan, expressions
from gateway.rules.reading.action_reader import read_actions, read_sequence
from gateway.rules.reading.phrases import IDENTIFIER, read_condition, read_filter, read_ns, read_optional_value
from gateway.rules.reading.trigger_reader import Site, Triggers, read_triggers

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.config.section import Section
    from gateway.rules.expressions.references import Reference

LONG_FORMS = {"on": "triggers", "when": "conditions", "then": "actions"}
"""Names that other systems have for the same."""
_MOST_PER_MINUTE = 20
_MAX_AGE_S = 60.0
_LOOK_EVERY_S = 10.0
_NEEDS_PHASES = ("for", "until", "keep_for", "stale_after", "on_stale")
RESERVED = frozenset({"interlock", "make-safe", OPERATOR})
"""Ids under which others than rules decide."""


def read_rule(section: Section, fingerprint: str, warnings: list[str], site: Site) -> Rule | None:
    """Read one rule.

    Args:
        section: the entry.
        fingerprint: of its text.
        warnings: what nobody has to act on is added here.
        site: the gateway it runs on.

    Returns:
        The rule; None if something was wrong. Then `section.problems` has it.
    """
    before = len(section.problems.lines())
    name = section.text("id", required=True, pattern=IDENTIFIER)
    if name in RESERVED:
        section.problems.add(section.at("id"), f"`{name}` is a name of the gateway's own: choose another")
    triggers = read_triggers(section, _key(section, "on"), site)
    names = triggers.topics[0].names if triggers is not None and triggers.topics else ()
    asked = _read_conditions(section, _key(section, "when"), names)
    where = read_condition(section, "where", names)
    until = read_condition(section, "until", names)
    time = read_optional_value(section, "time", names)
    steps = read_sequence(section, _key(section, "then"), names)
    finally_ = read_actions(section, "finally", names)
    follows = _read_follows(section, names)
    times_ns = {key: read_ns(section, key) for key in ("for", "keep_for", "cooldown")}
    stale_after_ns = read_ns(section, "stale_after", least_ns=1)
    on_stale = section.choice("on_stale", ("off", "hold"))
    lateness_ns = read_ns(section, "lateness") or 0
    max_age_s = section.duration_s("max_age", _MAX_AGE_S, least_s=0.001) or _MAX_AGE_S
    look_every_s = section.duration_s("evaluate_every", _LOOK_EVERY_S, least_s=0.1) or _LOOK_EVERY_S
    most_per_minute = section.integer("most_per_minute", None, least=1, most=100_000)
    mode = section.choice("mode", MODES, "single") or "single"
    most_runs = section.integer("max", 10, least=1, most=1_000) or 10
    shadow, allow_loop = section.boolean("shadow"), section.boolean("allow_loop")
    section.done()
    if len(section.problems.lines()) > before or triggers is None:
        return None
    plans = [plan for step in steps for plan in step.plans] + list(finally_)
    moves = any(isinstance(plan, CommandPlan | PublishPlan) for plan in plans)
    when, gate = _split(triggers, asked)
    gate = where if where is not None else gate
    read = [each for each in (when, gate, until, time, *expressions(plans)) if each is not None]
    rule = Rule(
        id=name,
        place=str(section.mark),
        fingerprint=fingerprint,
        topics=triggers.topics,
        schedules=triggers.schedules,
        silence=triggers.silence,
        crossing=triggers.crossing,
        when=when,
        gate=gate,
        until=until,
        for_ns=times_ns["for"] or 0,
        keep_ns=times_ns["keep_for"] or 0,
        cooldown_ns=times_ns["cooldown"] or 0,
        follows=follows,
        mode=mode,
        most_runs=most_runs,
        stale_after_ns=stale_after_ns,
        ends_on_silence=on_stale == "off",
        time=time,
        max_age_ns=round(max_age_s * 1e9),
        look_every_ns=round(look_every_s * 1e9),
        most_per_minute=most_per_minute if most_per_minute or not moves else _MOST_PER_MINUTE,
        shadow=shadow,
        allow_loop=allow_loop,
        steps=steps,
        finally_=finally_,
        roots=frozenset(root for expression in read for root in expression.roots),
        references=_references(read, lateness_ns),
    )
    _check_condition(section, rule)
    _check_actuators(section, rule)
    _warn_shared_state(rule, warnings)
    return rule if len(section.problems.lines()) == before else None


def _references(read: list[Expression], lateness_ns: int) -> tuple[Reference, ...]:
    """What all expressions of a rule name beside the event, each once; tumbling windows close so much later."""
    found = {each.text: each for expression in read for each in expression.references}
    return tuple(
        each._replace(span=each.span._replace(lateness_ns=lateness_ns)) if isinstance(each, WindowReference) else each
        for each in found.values()
    )


def _key(section: Section, name: str) -> str:
    """Under which of its two names something stands."""
    long = LONG_FORMS[name]
    section.node(name)
    if not section.has(long):
        return name
    if section.has(name):
        section.problems.add(section.at(long), f"`{long}` is the long form of `{name}`: write one of them")
    return long


def _read_conditions(section: Section, key: str, captures: Collection[str]) -> Expression | None:
    """One condition, or a list of which all must hold."""
    node = section.node(key)
    if not isinstance(node, Sequence):
        return read_condition(section, key, captures)
    texts = []
    for item in node.items:
        text = getattr(item, "value", None)
        if not isinstance(text, str):
            section.problems.add(item.mark, f"`{key}` lists conditions, each a text")
            return None
        try:
            compile_condition(text, (*captures, "topic"), beyond=True)
        except ExpressionError as error:
            section.problems.add(item.mark, f"character {error.column} of `{text}`: {error}")
            return None
        texts.append(f"({text})" if len(node.items) > 1 else text)
    try:
        return compile_condition(" and ".join(texts), (*captures, "topic"), beyond=True) if texts else None
    except ExpressionError as error:
        section.problems.add(node.mark, f"all of them together: {error}")
        return None


def _read_follows(section: Section, captures: Collection[str]) -> Follows | None:
    below = section.section("after")
    within_ns = read_ns(section, "within", least_ns=1)
    if below is None:
        if section.has("within"):
            section.problems.add(
                section.at("within"), "`within` says how soon it must follow `after`, which is missing"
            )
        return None
    on = read_filter(below, "on")
    when = read_condition(below, "when", () if on is None else on.names)
    below.done()
    if within_ns is None and not section.has("within"):
        section.problems.add(below.mark, "`after` needs a `within`: how soon this rule's event must follow")
    if on is not None and set(on.names) != set(captures):
        section.problems.add(below.at("on"), "what is followed captures the same names as `on`")
    if when is not None and when.references:
        section.problems.add(below.at("when"), "what is followed looks at its own event only")
    return None if on is None or within_ns is None else Follows(on, when, within_ns)


def _split(triggers: Triggers, asked: Expression | None) -> tuple[Expression | None, Expression | None]:
    """(what must hold for as long as the rule is active, what must hold at the moment of the trigger)."""
    if triggers.crossing is not None:
        return triggers.beyond, asked
    if triggers.silence is not None or triggers.schedules:
        return None, asked
    return asked, None


def _check_condition(section: Section, rule: Rule) -> None:
    if not rule.has_phases and rule.finally_:
        why = "`finally` needs a `when`: without one every event fires `then`, and nothing ends"
        section.problems.add(section.at("finally"), why)
    if section.has("where") and (section.has(_key(section, "when")) or rule.has_phases or rule.schedules):
        why = "`where` picks events that fire `then`; beside a `when`, a threshold, a silence or a schedule, use `when`"
        section.problems.add(section.at("where"), why)
    if rule.when is None:
        for key in _NEEDS_PHASES:
            if section.has(key):
                why = f"`{key}` needs a `when`: without one every event fires `then`"
                section.problems.add(section.at(key), why)
    for key, condition in (("when", rule.when), ("where" if section.has("where") else "when", rule.gate)):
        if condition is not None and not condition.fields:
            section.problems.add(section.at(key), "this says the same for every event: leave `when` out")


def _check_actuators(section: Section, rule: Rule) -> None:
    commands = [(index, plan) for index, step in enumerate(rule.steps) for plan in step.plans]
    turned_on = [(index, plan) for index, plan in commands if isinstance(plan, CommandPlan) and plan.state == "on"]
    if (rule.drives or rule.releases) and rule.when is not None:
        _check_silence(section, rule)
    released = {plan.topic.source for plan in rule.releases if plan.state == "off"}
    for index, plan in turned_on:
        later = {
            other.topic.source
            for at, other in commands
            if at > index and isinstance(other, CommandPlan) and other.state == "off"
        }
        if plan.topic.source not in released | later:
            ends = "`finally`" if rule.has_phases else "`then`, after a `wait`,"
            section.problems.add(
                section.at(_key(section, "then")),
                f"`{rule.id}` turns `{plan.topic.source}` on: {ends} needs a command with `state: off` for it",
            )
    for release in rule.releases:
        if release.state == "on":
            section.problems.add(
                section.at("finally"),
                f"`finally` turns `{release.topic.source}` on, and it also runs when the sensor falls silent",
            )


def _check_silence(section: Section, rule: Rule) -> None:
    if rule.stale_after_ns is None:
        section.problems.add(
            section.mark,
            f"`{rule.id}` commands an actuator: say with `stale_after` how long a silence its sensor may keep",
        )
    if not section.has("on_stale"):
        section.problems.add(
            section.mark,
            f"`{rule.id}` commands an actuator: say with `on_stale` what a silent sensor means for it: "
            '"off" (run `finally`) or hold (leave it as it is)',
        )


def _warn_shared_state(rule: Rule, warnings: list[str]) -> None:
    warnings.extend(
        f"{rule.place}: `{rule.id}` keeps one state for everything that `{topic.text}` matches: "
        "name the level, as in `{device}`, for a state per device"
        for topic in rule.topics
        if rule.has_phases and {"+", "#"} & set(topic.text.split("/"))
    )

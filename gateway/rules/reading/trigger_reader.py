"""What a rule listens to: the value of `on`, or of `triggers`, to topics, schedules, silence or a crossing.

    devices/{device}/climate                                               every event
    {topic: devices/{device}/climate, field: temperature, above: 25}       a threshold is passed
    {topic: devices/{device}/climate, silent: 10m}                         nothing comes
    {at: "06:30"}, {every: 5m}, {cron: "..."}, {sun: sunrise}              the time (`schedule_reader`)
    {rule: power-peak}                                                     whatever that rule emits

or a list of them. A crossing and a silence stand alone: what they begin also ends, and that needs one cause.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from gateway.config.document import Scalar
from gateway.config.section import Section, did_you_mean
from gateway.mqtt.topics import compile_filter
from gateway.rules.compiled import Crossing, Silence
from gateway.rules.expressions.expression import Expression, ExpressionError, compile_condition, compile_value
from gateway.rules.reading.phrases import IDENTIFIER, filter_of, read_filter, read_ns
from gateway.rules.reading.schedule_reader import read_schedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.document import Node
    from gateway.mqtt.topics import TopicFilter
    from gateway.rules.schedules.schedule import Every, Schedule

SCHEDULES = ("at", "every", "cron", "sun")


class Site(NamedTuple):
    """What rules have to know of the gateway they run on."""

    zone: ZoneInfo = ZoneInfo("UTC")
    location: tuple[float, float] | None = None
    """Latitude and longitude in degrees, north and east positive."""
    topics: tuple[TopicFilter, ...] = ()
    """What is stored: the topics of the configuration."""
    fields: tuple[tuple[str, ...], ...] = ()
    """For each of `topics`, what its payloads hold; empty where that is not said."""
    emitted: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Rule id to the topics of what it emits, captures included."""


class Triggers(NamedTuple):
    """All of one rule's."""

    topics: tuple[TopicFilter, ...] = ()
    schedules: tuple[Schedule | Every, ...] = ()
    silence: Silence | None = None
    crossing: Crossing | None = None
    beyond: Expression | None = None
    """What a crossing passes into."""


def read_triggers(section: Section, key: str, site: Site) -> Triggers | None:
    """Read what stands under a key; None if something was wrong. Then `section.problems` has it."""
    before = len(section.problems.lines())
    found = [_read_one(section, key, node, site) for node in section.each(key, required=True)]
    each = [triggers for triggers in found if triggers is not None]
    if section.has(key) and not found:
        section.problems.add(section.at(key), f"`{key}` names no trigger")
    if len(each) > 1 and any(triggers.silence or triggers.crossing for triggers in each):
        section.problems.add(
            section.at(key), "a threshold or a silence is the only trigger of its rule: write two rules"
        )
    topics = [topic for triggers in each for topic in triggers.topics]
    captures = {frozenset(topic.names) for topic in topics}
    if len(captures) > 1:
        section.problems.add(section.at(key), "all topics of one rule capture the same names")
    schedules = tuple(schedule for triggers in each for schedule in triggers.schedules)
    if schedules and any(captures):
        section.problems.add(section.at(key), "a schedule belongs to no {capture}: write a rule of its own for it")
    if len(section.problems.lines()) > before:
        return None
    if len(each) == 1:
        return each[0]
    return Triggers(tuple(topics), schedules)


def _read_one(section: Section, key: str, node: Node, site: Site) -> Triggers | None:
    if isinstance(node, Scalar):
        topic = filter_of(node, section.problems)
        return None if topic is None else Triggers((topic,))
    entry = Section(node, section.problems, section.at(key))
    triggers = _read_mapping(entry, site)
    entry.done()
    return triggers


def _read_mapping(entry: Section, site: Site) -> Triggers | None:
    kinds = [name for name in (*SCHEDULES, "rule", "topic") if entry.has(name)]
    if len(kinds) != 1:
        entry.problems.add(entry.mark, "a trigger has one of `topic`, `rule`, `at`, `every`, `cron`, `sun`")
        entry.names()
        return None
    if kinds[0] in SCHEDULES:
        schedule = read_schedule(entry, site.zone, site.location)
        return None if schedule is None else Triggers(schedules=(schedule,))
    if kinds[0] == "rule":
        return _read_heard(entry, site)
    topic = read_filter(entry, "topic")
    silent_ns = read_ns(entry, "silent", least_ns=1)
    field = entry.text("field")
    above, below = entry.number("above"), entry.number("below")
    on_start = entry.boolean("also_on_start")
    is_crossing = field or entry.has("above") or entry.has("below")
    if is_crossing and entry.has("silent"):
        entry.problems.add(entry.at("silent"), "silence, or a threshold: write a rule for each")
    if topic is None:
        return None
    if entry.has("silent"):
        if on_start and topic.names:
            why = "`also_on_start` needs a topic without {captures}: nobody knows who has never spoken"
            entry.problems.add(entry.at("also_on_start"), why)
        return None if silent_ns is None else Triggers((topic,), silence=Silence(silent_ns, on_start))
    if not is_crossing:
        return Triggers((topic,))
    beyond = _beyond(entry, field, above, below, topic)
    return None if beyond is None else Triggers((topic,), crossing=Crossing(on_start), beyond=beyond)


def _read_heard(entry: Section, site: Site) -> Triggers | None:
    name = entry.text("rule", required=True, pattern=IDENTIFIER)
    topics = site.emitted.get(name, ())
    if name and not topics:
        hint = did_you_mean(name, [each for each, emitted in site.emitted.items() if emitted])
        entry.problems.add(entry.at("rule"), f"no rule `{name}` emits anything{hint}")
    try:
        return Triggers(tuple(compile_filter(topic) for topic in topics)) if topics else None
    except ValueError:
        return None  # told where that rule stands


def _beyond(
    entry: Section, field: str, above: float | None, below: float | None, topic: TopicFilter
) -> Expression | None:
    """The condition that holds beyond the threshold."""
    if not field or (above is None and below is None):
        entry.problems.add(entry.mark, "a threshold needs a `field`, and `above` or `below`")
        return None
    if above is not None and below is not None and above >= below:
        entry.problems.add(entry.at("above"), f"nothing is above {above:g} and below {below:g}: are they swapped?")
        return None
    sides = [
        f"({field}) > {above!r}" if above is not None else "",
        f"({field}) < {below!r}" if below is not None else "",
    ]
    source = " and ".join(filter(None, sides))
    names = (*topic.names, "topic")
    try:
        compile_value(field, names, beyond=True)  # by itself, so that it is not half of something else
        return compile_condition(source, names, beyond=True)
    except ExpressionError as error:
        entry.problems.add(entry.at("field"), f"character {error.column} of `{field}`: {error}")
        return None

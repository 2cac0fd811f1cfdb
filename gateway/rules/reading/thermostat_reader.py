"""One entry of `thermostats`: YAML to a `Thermostat`.

`stale_after` and `on_stale` have no default: what a heater does when nobody knows the temperature is for the operator
to say, not for us to guess. Nor have the thermostat's own set-points: they hold while the wall clock is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from gateway.config.section import Section
from gateway.rules.expressions.references import VariableReference
from gateway.rules.reading.action_reader import read_actuator
from gateway.rules.reading.phrases import IDENTIFIER, read_condition, read_filter, read_ns, read_value
from gateway.rules.reading.schedule_reader import read_schedule, read_zone
from gateway.rules.schedules.schedule import At
from gateway.rules.thermostat_rule import (
    AWAY,
    COOL,
    HEAT,
    OFF,
    Away,
    Contact,
    Fall,
    Limits,
    Setpoints,
    Thermostat,
    Timetable,
    WindowSensor,
)

if TYPE_CHECKING:
    from gateway.model import Command
    from gateway.mqtt.topics import TopicFilter
    from gateway.rules.expressions.expression import Expression
    from gateway.rules.plans import CommandPlan

_UTC = ZoneInfo("UTC")
_SECOND_NS = 1_000_000_000
_DEFAULT_REASSERT_NS = 600 * _SECOND_NS
_ACTUATORS = {"heat": {HEAT: "actuator"}, "cool": {COOL: "actuator"}, "heat_cool": {HEAT: "heater", COOL: "cooler"}}
"""Mode to (what runs, the key that holds its actuator)."""


class _Windows(NamedTuple):
    """What stands under `window`."""

    sensors: tuple[WindowSensor, ...]
    contacts: tuple[Contact, ...]
    fall: Fall | None


def read_thermostat(section: Section, fingerprint: str, zone: ZoneInfo = _UTC) -> Thermostat | None:
    """Read one thermostat.

    Args:
        section: the entry.
        fingerprint: of its text.
        zone: the gateway's, for a timetable without a `timezone` of its own.

    Returns:
        None if something was wrong. Then `section.problems` has it.
    """
    before = len(section.problems.lines())
    name = section.text("id", required=True, pattern=IDENTIFIER)
    mode = section.choice("mode", tuple(_ACTUATORS), required=True) or "heat"
    on, reading = _read_sensor(section)
    timetable = _read_timetable(section, mode, zone)
    windows = _read_windows(section, mode)
    away, away_setpoints = _read_away(section, mode)
    limits = _read_limits(section, mode)
    plans = {what: _read_actuator(section, key) for what, key in _ACTUATORS[mode].items()}
    section.done()
    if len(section.problems.lines()) > before or on is None or reading is None:
        return None
    return Thermostat(
        id=name,
        place=str(section.mark),
        fingerprint=fingerprint,
        on=on,
        reading=reading,
        limits=limits._replace(away=away_setpoints, contacts=windows.contacts, fall=windows.fall),
        commands=_commands(plans),
        timetable=timetable,
        windows=windows.sensors,
        away=away,
    )


def _read_sensor(section: Section) -> tuple[TopicFilter | None, Expression | None]:
    below = section.section("sensor", required=True)
    if below is None:
        return None, None
    on = _read_fixed_topic(below)
    reading = read_value(below, "field")
    below.done()
    return on, reading


def _read_fixed_topic(section: Section) -> TopicFilter | None:
    on = read_filter(section, "topic")
    if on is not None and {"+", "#"} & set(on.mqtt.split("/")):
        section.problems.add(
            section.at("topic"),
            "a thermostat has one sensor, and each window has one: no wildcards and no captures here",
        )
    return on


def _read_limits(section: Section, mode: str) -> Limits:
    base = _read_setpoints(section, mode, "")
    min_on_ns = read_ns(section, "min_on") or 0
    min_off_ns = read_ns(section, "min_off", least_ns=_SECOND_NS) or _SECOND_NS
    max_on_ns = read_ns(section, "max_on", least_ns=1)
    if max_on_ns is not None and max_on_ns < min_on_ns:
        section.problems.add(section.at("max_on"), "max_on is shorter than min_on")
    if max_on_ns is not None and not section.has("min_off"):
        section.problems.add(section.at("max_on"), "max_on needs a min_off: how long to rest before it may start again")
    on_stale = section.choice("on_stale", ("off", "on", "hold"), required=True) or "off"
    if mode == "heat_cool" and on_stale == "on":
        section.problems.add(section.at("on_stale"), "on_stale: on does not say whether to heat or to cool")
    return Limits(
        stale_after_ns=read_ns(section, "stale_after", required=True, least_ns=1) or 1,
        on_stale=on_stale,
        base=base,
        min_on_ns=min_on_ns,
        min_off_ns=min_off_ns,
        max_on_ns=max_on_ns,
        reassert_ns=read_ns(section, "reassert", least_ns=_SECOND_NS) or _DEFAULT_REASSERT_NS,
    )


def _read_setpoints(section: Section, mode: str, name: str) -> Setpoints:
    """The thresholds that a mode needs: its own ones, those of an entry of the timetable, those of `away`."""
    heat_on_below, heat_off_above = _thresholds(section, "on_below", "off_above", used=mode != COOL, rising=True)
    cool_on_above, cool_off_below = _thresholds(section, "on_above", "off_below", used=mode != HEAT, rising=False)
    if heat_off_above is not None and cool_off_below is not None and heat_off_above > cool_off_below:
        section.problems.add(
            section.at("off_above"),
            f"heating goes on up to {heat_off_above:g} and cooling down to {cool_off_below:g}: they would fight",
        )
    return Setpoints(heat_on_below, heat_off_above, cool_on_above, cool_off_below, name)


def _thresholds(
    section: Section, start: str, stop: str, *, used: bool, rising: bool
) -> tuple[float | None, float | None]:
    """The two numbers of a hysteresis. They are two, since one called `hysteresis` is read in two ways."""
    if not used:
        return None, None
    first = section.number(start, required=True)
    last = section.number(stop, required=True)
    if first is not None and last is not None and (first >= last if rising else first <= last):
        order = "below" if rising else "above"
        message = f"`{start}` ({first:g}) must lie {order} `{stop}` ({last:g}): are they swapped?"
        section.problems.add(section.at(start), message)
    return first, last


def _read_timetable(section: Section, mode: str, zone: ZoneInfo) -> Timetable | None:
    if section.has("timezone") and not section.has("schedule"):
        section.problems.add(section.at("timezone"), "`timezone` is for the `schedule`, and there is none")
    zone = read_zone(section, zone) or zone
    nodes = list(section.each("schedule"))
    if section.has("schedule") and not nodes:
        section.problems.add(section.at("schedule"), "`schedule` has no entries")
    entries = [_read_entry(Section(node, section.problems, section.at("schedule")), mode, zone) for node in nodes]
    return Timetable(tuple(entry for entry in entries if entry is not None)) if nodes else None


def _read_entry(entry: Section, mode: str, zone: ZoneInfo) -> tuple[At, Setpoints] | None:
    if not entry.has("at"):
        entry.problems.add(entry.mark, '`at` is missing: a time of day, such as "06:30"')
        return None
    schedule = read_schedule(entry, zone, None)
    setpoints = _read_setpoints(entry, mode, "")
    entry.done()
    if not isinstance(schedule, At):
        return None
    name = schedule.describe().removeprefix("at ").removesuffix(f" ({schedule.zone.key})")
    return schedule, setpoints._replace(name=name)


def _read_windows(section: Section, mode: str) -> _Windows:
    sensors: list[WindowSensor] = []
    contacts: list[Contact] = []
    fall = None
    for node in section.each("window"):
        entry = Section(node, section.problems, section.at("window"))
        if entry.has("drop"):
            if fall is not None:
                entry.problems.add(entry.at("drop"), "there is one sensor, so that there is one `drop`")
            fall = _read_fall(entry, mode)
        else:
            on, is_open = _read_fixed_topic(entry), _read_own_condition(entry, "open")
            contact = Contact(
                on.text if on is not None else "",
                read_ns(entry, "for") or 0,
                read_ns(entry, "resume_after") or 0,
                read_ns(entry, "stale_after", least_ns=1),
            )
            if on is not None and is_open is not None:
                sensors.append(WindowSensor(on, is_open))
                contacts.append(contact)
        entry.done()
    return _Windows(tuple(sensors), tuple(contacts), fall)


def _read_fall(entry: Section, mode: str) -> Fall | None:
    if mode != HEAT:
        entry.problems.add(entry.at("drop"), f"`drop` is for mode heat: with mode {mode}, what is cooled falls anyway")
    drop = entry.number("drop", required=True)
    if drop is not None and drop <= 0:
        entry.problems.add(entry.at("drop"), "`drop` is by how much it falls: more than zero")
    within_ns = read_ns(entry, "within", required=True, least_ns=_SECOND_NS)
    pause_ns = read_ns(entry, "pause", required=True, least_ns=_SECOND_NS)
    return None if drop is None or within_ns is None or pause_ns is None else Fall(drop, within_ns, pause_ns)


def _read_away(section: Section, mode: str) -> tuple[Away | None, Setpoints | None]:
    below = section.section("away")
    if below is None:
        return None, None
    on, when = None, None
    if below.has("topic"):
        on, when = _read_fixed_topic(below), _read_own_condition(below, "when")
    else:
        when = _read_condition_on_variables(below)
    setpoints = _read_setpoints(below, mode, AWAY)
    below.done()
    return (None, None) if when is None else (Away(on, when), setpoints)


def _read_own_condition(section: Section, key: str) -> Expression | None:
    """A condition on the event of its own topic, required."""
    condition = _read_required_condition(section, key)
    if condition is not None and condition.references:
        seen = condition.references[0].text
        section.problems.add(section.at(key), f"`{key}` reads the event on its own `topic`, and `{seen}` is not in it")
    return condition


def _read_condition_on_variables(section: Section) -> Expression | None:
    """A condition on variables alone, required."""
    when = _read_required_condition(section, "when")
    if when is None:
        return None
    texts = {reference.text for reference in when.references if isinstance(reference, VariableReference)}
    if not texts or any(field.captured or field.path[0] not in texts for field in when.fields):
        section.problems.add(
            section.at("when"), 'without a `topic`, `when` reads variables and nothing else: var("mode") == "away"'
        )
    return when


def _read_required_condition(section: Section, key: str) -> Expression | None:
    if not section.has(key):
        section.problems.add(section.mark, f"`{key}` is missing")
    return read_condition(section, key, ())


def _read_actuator(section: Section, key: str) -> dict[str, CommandPlan]:
    below = section.section(key, required=True)
    if below is None:
        return {}
    plans = read_actuator(below, {"on": "on", "off": "off"})
    if not all(plan.constant for plan in plans.values()):
        section.problems.add(below.mark, "what a thermostat sends is fixed: no {expressions} here")
    return plans


def _commands(plans: dict[str, dict[str, CommandPlan]]) -> dict[str, tuple[Command, ...]]:
    """For each of off, heat and cool what to send to every actuator, those to be turned off first."""
    rendered = {what: {key: plan.render({}, {}, 0) for key, plan in pair.items()} for what, pair in plans.items()}
    commands = {OFF: tuple(pair["off"] for pair in rendered.values())}
    for what, pair in rendered.items():
        others = tuple(other["off"] for kind, other in rendered.items() if kind != what)
        commands[what] = (*others, pair["on"])
    return commands

"""One entry of `thermostats`: YAML to a `Thermostat`.

`stale_after` and `on_stale` have no default: what a heater does when nobody knows the temperature is for the operator
to say, not for us to guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.rules.action_reader import read_actuator
from gateway.rules.phrases import IDENTIFIER, read_filter, read_ns, read_value
from gateway.rules.thermostat import COOL, HEAT, OFF, Limits
from gateway.rules.thermostat_rule import Thermostat

if TYPE_CHECKING:
    from gateway.config.section import Section
    from gateway.model import Command
    from gateway.mqtt.topics import TopicFilter
    from gateway.rules.expression import Expression
    from gateway.rules.plans import CommandPlan

_SECOND_NS = 1_000_000_000
_DEFAULT_REASSERT_NS = 600 * _SECOND_NS
_ACTUATORS = {"heat": {HEAT: "actuator"}, "cool": {COOL: "actuator"}, "heat_cool": {HEAT: "heater", COOL: "cooler"}}
"""Mode to (what runs, the key that holds its actuator)."""


def read_thermostat(section: Section, fingerprint: str) -> Thermostat | None:
    """Read one thermostat; None if something was wrong. Then `section.problems` has it."""
    before = len(section.problems.lines())
    name = section.text("id", required=True, pattern=IDENTIFIER)
    mode = section.choice("mode", tuple(_ACTUATORS), required=True) or "heat"
    on, reading = _read_sensor(section)
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
        limits=limits,
        commands=_commands(plans),
    )


def _read_sensor(section: Section) -> tuple[TopicFilter | None, Expression | None]:
    below = section.section("sensor", required=True)
    if below is None:
        return None, None
    on = read_filter(below, "topic")
    if on is not None and {"+", "#"} & set(on.mqtt.split("/")):
        below.problems.add(below.at("topic"), "a thermostat has one sensor: no wildcards and no captures here")
    reading = read_value(below, "field")
    below.done()
    return on, reading


def _read_limits(section: Section, mode: str) -> Limits:
    heat_on_below, heat_off_above = _thresholds(section, "on_below", "off_above", used=mode != COOL, rising=True)
    cool_on_above, cool_off_below = _thresholds(section, "on_above", "off_below", used=mode != HEAT, rising=False)
    if heat_off_above is not None and cool_off_below is not None and heat_off_above > cool_off_below:
        section.problems.add(
            section.at("off_above"),
            f"heating goes on up to {heat_off_above:g} and cooling down to {cool_off_below:g}: they would fight",
        )
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
        heat_on_below=heat_on_below,
        heat_off_above=heat_off_above,
        cool_on_above=cool_on_above,
        cool_off_below=cool_off_below,
        min_on_ns=min_on_ns,
        min_off_ns=min_off_ns,
        max_on_ns=max_on_ns,
        reassert_ns=read_ns(section, "reassert", least_ns=_SECOND_NS) or _DEFAULT_REASSERT_NS,
    )


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

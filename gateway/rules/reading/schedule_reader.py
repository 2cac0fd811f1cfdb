"""Triggers by time: YAML to schedules.

    {at: "06:30", days: [mon, tue] | weekdays | weekend}
    {cron: "*/5 6-22 * * *"}
    {sun: sunset, offset: -30m, latitude: 52.5, longitude: 13.4}
    {every: 5m}

each but the last with a `timezone` of its own if it is not the gateway's. What is wrong is told once, where it stands,
and then there is no schedule: nobody gets one that differs from what is written.
"""

from __future__ import annotations

import re
import zoneinfo
from typing import TYPE_CHECKING

from gateway.config import scalars
from gateway.config.document import Scalar, Sequence
from gateway.config.section import did_you_mean
from gateway.rules.reading.phrases import read_ns
from gateway.rules.schedules.cron import read_cron
from gateway.rules.schedules.schedule import DAYS, EVERY_DAY, At, Cron, Every, Schedule, Sun
from gateway.rules.schedules.sun import EVENTS

if TYPE_CHECKING:
    from gateway.config.document import Node
    from gateway.config.section import Section
    from gateway.rules.schedules.cron import CronFields

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")
_OFFSET = re.compile(r"([+-]?)(.+)")
_GROUPS = {"weekdays": frozenset(range(5)), "weekend": frozenset((5, 6)), "daily": EVERY_DAY}
_LEAST_PERIOD_NS = 1_000_000_000
_MOST_PERIOD_NS = 366 * 86_400 * 1_000_000_000
_MOST_OFFSET_S = 43_200.0


def read_schedule(
    section: Section, zone: zoneinfo.ZoneInfo, location: tuple[float, float] | None
) -> Schedule | Every | None:
    """Read one; None if something was wrong. Then `section.problems` has it.

    Args:
        section: the mapping; it has one of `at`, `cron`, `sun`, `every`.
        zone: the gateway's.
        location: the gateway's latitude and longitude in degrees; None: not configured.
    """
    if section.has("every"):
        return _read_every(section)
    own_zone = read_zone(section, zone)
    if section.has("at"):
        time, days = read_time(section, "at"), read_days(section, "days")
        return None if time is None or days is None or own_zone is None else At(*time, days, own_zone)
    if section.has("cron"):
        fields = _read_fields(section)
        return None if fields is None or own_zone is None else Cron(fields, own_zone)
    return _read_sun(section, own_zone, location)


def read_time(section: Section, key: str) -> tuple[int, int, int] | None:
    """A time of day as (hour, minute, second)."""
    node = section.node(key, required=True)
    if node is None:
        return None
    text = node.value if isinstance(node, Scalar) and isinstance(node.value, str) else ""
    match = _TIME.fullmatch(text)
    if match is None:
        shown = f": {section.shown(key)}" if section.shown(key) else ""
        section.problems.add(node.mark, f'`{key}{shown}` is no time of day: write "06:30" or "06:30:15"{_hint(node)}')
        return None
    hour, minute, second = match.groups(default="0")
    return int(hour), int(minute), int(second)


def _hint(node: Node) -> str:
    if isinstance(node, Sequence):
        return "; for more than one, write a trigger each"
    word = node.value.lower() if isinstance(node, Scalar) and isinstance(node.value, str) else ""
    if word in EVENTS:
        return f"; the sun is `sun: {word}`"
    return "; the day ends at 00:00 of the next" if word.startswith("24:") else ""


def read_days(section: Section, key: str) -> frozenset[int] | None:
    """Days of the week, Monday is 0; all of them if nothing is said."""
    if not section.has(key):
        section.node(key)
        return EVERY_DAY
    found: set[int] = set()
    for node in section.each(key):
        word = node.value if isinstance(node, Scalar) else None
        name = word.lower() if isinstance(word, str) else ""
        if name in _GROUPS:
            found |= _GROUPS[name]
        elif name in DAYS:
            found.add(DAYS.index(name))
        else:
            known = (*DAYS, *_GROUPS)
            hint = did_you_mean(name, known) if name.isalpha() else "; more than one is a list: [mon, wed]"
            section.problems.add(node.mark, f"a day is one of {', '.join(known)}{hint}")
            return None
    if not found:
        section.problems.add(section.at(key), f"`{key}` names no day")
        return None
    return frozenset(found)


def _read_every(section: Section) -> Every | None:
    period_ns = read_ns(section, "every", least_ns=_LEAST_PERIOD_NS)
    if period_ns is not None and period_ns > _MOST_PERIOD_NS:
        section.problems.add(section.at("every"), f"`every` is at most 366d, not {section.shown('every')}")
        return None
    return None if period_ns is None else Every(period_ns)


def _read_fields(section: Section) -> CronFields | None:
    text = section.text("cron", required=True)
    try:
        return read_cron(text) if text else None
    except ValueError as error:
        section.problems.add(section.at("cron"), str(error))
        return None


def read_zone(section: Section, default: zoneinfo.ZoneInfo) -> zoneinfo.ZoneInfo | None:
    """`timezone`, or the default where it is not given; None if it names no zone, which has been noted."""
    name = section.text("timezone")
    if not name:
        return None if section.has("timezone") else default
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = did_you_mean(name, sorted(zoneinfo.available_timezones())) or "; write it like Europe/Berlin"
        section.problems.add(section.at("timezone"), f"no time zone is named `{section.shown('timezone')}`{hint}")
        return None


def _read_sun(section: Section, zone: zoneinfo.ZoneInfo | None, location: tuple[float, float] | None) -> Sun | None:
    event = section.choice("sun", EVENTS, required=True)
    offset_s = _read_offset_s(section)
    place = _read_place(section, location)
    if event is None or offset_s is None or place is None or zone is None:
        return None
    return Sun(event, offset_s, *place, zone)


def _read_place(section: Section, location: tuple[float, float] | None) -> tuple[float, float] | None:
    """Latitude and longitude: both of its own, or both of the gateway."""
    latitude = section.number("latitude", least=-90, most=90)
    longitude = section.number("longitude", least=-180, most=180)
    missing = [key for key in ("latitude", "longitude") if not section.has(key)]
    if not missing:
        return None if latitude is None or longitude is None else (latitude, longitude)
    if len(missing) == 1:
        section.problems.add(section.mark, f"`{missing[0]}` is missing: a place of its own has both")
        return None
    if location is None:
        why = "say where: `latitude` and `longitude` here, or `gateway: {location: {latitude, longitude}}`"
        section.problems.add(section.mark, why)
    return location


def _read_offset_s(section: Section) -> float | None:
    """A duration with a sign."""
    node = section.node("offset")
    if node is None:
        return 0.0
    value = node.value if isinstance(node, Scalar) else None
    match = _OFFSET.fullmatch(value) if isinstance(value, str) else None
    seconds = scalars.duration_s(match[2]) if match is not None else scalars.Wrong("")
    if match is None or isinstance(seconds, scalars.Wrong) or seconds > _MOST_OFFSET_S:
        shown = f", not {section.shown('offset')}" if section.shown("offset") else ""
        section.problems.add(node.mark, f"`offset` is a duration of at most 12h, such as -30m or 1h{shown}")
        return None
    return -seconds if match[1] == "-" else seconds

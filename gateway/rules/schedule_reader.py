"""Triggers by time: YAML to schedules.

    {at: "06:30", days: [mon, tue] | weekdays | weekend}
    {cron: "*/5 6-22 * * *"}
    {sun: sunset, offset: -30m, latitude: 52.5, longitude: 13.4}
    {every: 5m}

each but the last with a `timezone` of its own if it is not the gateway's.
"""

from __future__ import annotations

import re
import zoneinfo
from typing import TYPE_CHECKING

from gateway.config import scalars
from gateway.config.document import Scalar
from gateway.config.section import did_you_mean
from gateway.rules.cron import read_cron
from gateway.rules.phrases import read_ns
from gateway.rules.schedule import DAYS, EVERY_DAY, At, Cron, Every, Schedule, Sun
from gateway.rules.sun import EVENTS

if TYPE_CHECKING:
    from gateway.config.section import Section

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")
_GROUPS = {"weekdays": frozenset(range(5)), "weekend": frozenset((5, 6)), "daily": EVERY_DAY}
_LEAST_PERIOD_NS = 1_000_000_000
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
        period_ns = read_ns(section, "every", least_ns=_LEAST_PERIOD_NS)
        return None if period_ns is None else Every(period_ns)
    zone = _read_zone(section, zone)
    if section.has("at"):
        time = read_time(section, "at")
        days = read_days(section, "days")
        return None if time is None or days is None else At(*time, days, zone)
    if section.has("cron"):
        text = section.text("cron", required=True)
        try:
            return Cron(read_cron(text), zone) if text else None
        except ValueError as error:
            section.problems.add(section.at("cron"), str(error))
            return None
    return _read_sun(section, zone, location)


def read_time(section: Section, key: str) -> tuple[int, int, int] | None:
    """A time of day as (hour, minute, second)."""
    text = section.text(key, required=True)
    if not text:
        return None
    match = _TIME.fullmatch(text)
    if match is None:
        section.problems.add(section.at(key), f'`{key}: {text}` is no time of day: write "06:30" or "06:30:15"')
        return None
    hour, minute, second = match.groups(default="0")
    return int(hour), int(minute), int(second)


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
            section.problems.add(node.mark, f"a day is one of {', '.join(known)}{did_you_mean(name, known)}")
            return None
    if not found:
        section.problems.add(section.at(key), f"`{key}` names no day")
        return None
    return frozenset(found)


def _read_zone(section: Section, default: zoneinfo.ZoneInfo) -> zoneinfo.ZoneInfo:
    name = section.text("timezone")
    if not name:
        return default
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = did_you_mean(name, sorted(zoneinfo.available_timezones())) or "; write it like Europe/Berlin"
        section.problems.add(section.at("timezone"), f"no time zone is named `{name}`{hint}")
        return default


def _read_sun(section: Section, zone: zoneinfo.ZoneInfo, location: tuple[float, float] | None) -> Sun | None:
    event = section.choice("sun", EVENTS, required=True)
    offset_s = _read_offset_s(section)
    own = [section.number(key, least=-most, most=most) for key, most in (("latitude", 90.0), ("longitude", 180.0))]
    latitude, longitude = own if None not in own else (location or (None, None))
    if latitude is None or longitude is None:
        why = "say where: `latitude` and `longitude` here, or `gateway: {location: {latitude, longitude}}`"
        section.problems.add(section.mark, why)
        return None
    return None if event is None else Sun(event, offset_s, latitude, longitude, zone)


def _read_offset_s(section: Section) -> float:
    """A duration with a sign."""
    text = section.text("offset")
    if not text:
        return 0.0
    seconds = scalars.duration_s(text.lstrip("+-"))
    if isinstance(seconds, scalars.Wrong) or seconds > _MOST_OFFSET_S:
        section.problems.add(section.at("offset"), "`offset` is a duration of at most 12h, such as -30m or 1h")
        return 0.0
    return -seconds if text.startswith("-") else seconds

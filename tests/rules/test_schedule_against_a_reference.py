"""Schedules against slow references that share nothing with them: a walk through every minute, and an almanac's sun."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from math import asin, atan2, cos, degrees, radians, sin
from zoneinfo import ZoneInfo

import pytest

from gateway.rules.schedules.cron import read_cron
from gateway.rules.schedules.schedule import EVERY_DAY, At, Cron, Sun

NS = 1_000_000_000
MINUTE_S = 60
ZONES = [
    ZoneInfo(name)
    for name in (
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",  # half an hour
        "Asia/Kolkata",  # never
        "America/Santiago",  # forward at midnight: no 00:00
        "America/Havana",  # back at 01:00: two midnights
        "Asia/Beirut",  # back at midnight: the day before grows
        "Antarctica/Troll",  # two hours
        "Pacific/Chatham",  # at a quarter to
        "Africa/Casablanca",  # around Ramadan
    )
]
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def change_in(zone: ZoneInfo, year: int, rng: random.Random) -> int:
    """An instant close to a change of the clock in a year, or anywhere in it if there is none; seconds since 1970."""
    begin_s = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    days = [begin_s + number * 86_400 for number in range(366)]
    offsets = [datetime.fromtimestamp(day_s, zone).utcoffset() for day_s in days]
    changes = [days[number] for number in range(1, 366) if offsets[number] != offsets[number - 1]]
    return rng.choice(changes or days) - rng.randrange(3 * 86_400)


def due_by_the_minute(is_due, zone: ZoneInfo, *, real: bool, begin_s: int, end_s: int) -> list[int]:
    """Every minute at which something is due, in seconds since 1970, by looking at each.

    Args:
        is_due: whether a local time (without a zone) is one of those that are asked for.
        zone: whose local times these are.
        real: minutes count as they pass; otherwise each local time counts once, and one that was skipped when it was.
        begin_s: the first minute.
        end_s: the minute after the last.
    """
    found, done = [], set()
    early_s = begin_s - 2 * 86_400  # what was due there may not be due again
    before = datetime.fromtimestamp(early_s - MINUTE_S, zone).replace(tzinfo=None)
    for at_s in range(early_s, end_s, MINUTE_S):
        now = datetime.fromtimestamp(at_s, zone).replace(tzinfo=None, fold=0)
        if real:
            due = is_due(now)
        else:
            names, name = set(), now
            while name > before or name == now:
                names.add(name)
                name -= timedelta(minutes=1)
            fresh = {name for name in names if is_due(name)} - done
            done |= fresh
            due = bool(fresh)
        if due and at_s >= begin_s:
            found.append(at_s)
        before = now
    return found


def due_by_the_schedule(schedule, begin_s: int, end_s: int) -> list[int]:
    """What the schedule says, one after the other."""
    found, at_ns = [], begin_s * NS - 1
    while (at_ns := schedule.next_after(at_ns)) is not None and at_ns < end_s * NS:
        assert at_ns % NS == 0
        found.append(at_ns // NS)
    return found


def window(rng: random.Random, zone: ZoneInfo, days: int) -> tuple[int, int]:
    """Some days, most of them around a change of the clock, in a year up to 2040."""
    if rng.random() < 0.8:
        begin_s = change_in(zone, rng.randrange(2019, 2040), rng)
    else:
        begin_s = rng.randrange(1_600_000_000, 2_200_000_000)
    begin_s = begin_s // MINUTE_S * MINUTE_S
    return begin_s, begin_s + days * 86_400


def some(rng: random.Random, most: int, least: int = 0) -> list[int]:
    """A few values of a field; close to the hour of the change, where it has hours."""
    values = range(least, most + 1)
    near = range(5) if most == 23 and rng.random() < 0.6 else values
    return sorted(rng.sample(near, rng.randrange(1, 5)))


def test_times_of_day_agree_with_a_walk_through_every_minute(seed):
    """T6: every instant of 60 random schedules over five days each, around the changes of ten zones; 0 differences."""
    rng = random.Random(seed)
    for _ in range(60):
        zone = rng.choice(ZONES)
        hour, minute = rng.choice([rng.randrange(24), rng.randrange(4)]), rng.choice([0, 15, 30, 45, rng.randrange(60)])
        days = EVERY_DAY if rng.random() < 0.6 else frozenset(rng.sample(range(7), rng.randrange(1, 5)))
        begin_s, end_s = window(rng, zone, 5)

        def is_due(local, hour=hour, minute=minute, days=days):
            return local.hour == hour and local.minute == minute and local.weekday() in days

        expected = due_by_the_minute(is_due, zone, real=False, begin_s=begin_s, end_s=end_s)
        found = due_by_the_schedule(At(hour, minute, 0, days, zone), begin_s, end_s)
        assert found == expected, (hour, minute, days, zone, begin_s)


def test_cron_lines_agree_with_a_walk_through_every_minute(seed):
    """T6: every instant of 90 random lines over five days each, around the changes of ten zones; 0 differences."""
    rng = random.Random(seed)
    for _ in range(90):
        zone = rng.choice(ZONES)
        real = rng.random() < 0.4
        minutes, hours = some(rng, 59), list(range(24)) if real else some(rng, 23)
        begin_s, end_s = window(rng, zone, 5)
        day = datetime.fromtimestamp(begin_s, zone).day
        days = [] if rng.random() < 0.5 else sorted({min(day + rng.randrange(4), 31) for _ in range(2)})
        weekdays = [] if rng.random() < 0.5 else sorted(rng.sample(range(7), 2))
        listed = [",".join(map(str, values)) or "*" for values in (minutes, hours, days)]
        line = " ".join([*listed, "*", ",".join(WEEKDAYS[number] for number in weekdays) or "*"])
        line = line.replace(listed[1], "*", 1) if real else line

        def is_due(local, minutes=minutes, hours=hours, days=days, weekdays=weekdays):
            in_month, in_week = local.day in days, local.weekday() in weekdays
            on_day = (in_month or in_week) if days or weekdays else True
            return local.minute in minutes and local.hour in hours and on_day

        expected = due_by_the_minute(is_due, zone, real=real, begin_s=begin_s, end_s=end_s)
        assert due_by_the_schedule(Cron(read_cron(line), zone), begin_s, end_s) == expected, (line, zone, begin_s)


def test_the_seconds_of_an_instant_do_not_matter(seed):
    """Strictly later, to the nanosecond: on the instant it is the next one, a nanosecond before it is this one."""
    rng = random.Random(seed)
    for _ in range(200):
        zone = rng.choice(ZONES)
        at_ns = change_in(zone, rng.randrange(2020, 2040), rng) * NS + rng.randrange(NS)
        line = f"{rng.randrange(60)} {rng.choice(['*', str(rng.randrange(24))])} * * *"
        second = rng.randrange(60)
        for schedule in (At(rng.randrange(24), 30, second, EVERY_DAY, zone), Cron(read_cron(line), zone)):
            due_ns = schedule.next_after(at_ns)
            assert due_ns > at_ns, (schedule, at_ns)
            assert schedule.next_after(due_ns - 1) == due_ns, (schedule, at_ns)
            assert schedule.next_after(rng.randrange(at_ns, due_ns)) == due_ns, (schedule, at_ns)
            assert schedule.next_after(due_ns) > due_ns, (schedule, at_ns)


@pytest.mark.parametrize("weekdays", ["*", "*/2", "*/3", "*/7"])
def test_the_days_of_four_centuries_agree_with_the_calendar(weekdays):
    """29 February, also on given days of the week: no gap is so long that a line is taken to be over."""
    numbers = range(0, 8, int(weekdays.removeprefix("*").lstrip("/") or "1"))
    leaps = [date(year, 2, 29) for year in range(2000, 2401) if year % 4 == 0 and (year % 100 or year % 400 == 0)]
    wanted = [day for day in leaps if day.isoweekday() % 7 in {number % 7 for number in numbers}]
    fields = read_cron(f"0 0 29 2 {weekdays}")
    found = [next(fields.days_from(date(2000, 1, 1)))]
    while len(found) < len(wanted):
        found.append(next(fields.days_from(found[-1] + timedelta(days=1))))
    assert found == wanted


# An almanac's sun -----------------------------------------------------------------------------------------------------

PLACES = [
    ("Berlin", 52.52, 13.405, "Europe/Berlin"),
    ("Reykjavik", 64.15, -21.94, "Atlantic/Reykjavik"),  # the sun sets after midnight
    ("Fairbanks", 64.84, -147.72, "America/Anchorage"),  # by two hours
    ("Tromsø", 69.65, 18.96, "Europe/Oslo"),  # polar day and night
    ("Longyearbyen", 78.22, 15.65, "Arctic/Longyearbyen"),
    ("Kolkata by UTC", 22.57, 88.36, "UTC"),  # the sun rises about midnight
    ("Denver by UTC", 39.74, -104.99, "UTC"),  # and sets about it
    ("Sydney by New York", -33.87, 151.21, "America/New_York"),
    ("Quito", -0.18, -78.47, "America/Guayaquil"),
    ("Taveuni", -16.8, 180.0, "Pacific/Fiji"),
]
HEIGHTS = {"sunrise": (-0.833, 1), "sunset": (-0.833, -1), "dawn": (-6.0, 1), "dusk": (-6.0, -1)}


def height_deg(at_s: float, latitude: float, longitude: float) -> float:
    """The sun's, by the low-precision formulae of the Astronomical Almanac (0.01 degrees until 2050)."""
    day = at_s / 86_400 - 10_957.5
    anomaly = radians((357.528 + 0.9856003 * day) % 360)
    ecliptic = radians((280.460 + 0.9856474 * day) % 360 + 1.915 * sin(anomaly) + 0.020 * sin(2 * anomaly))
    tilt = radians(23.439 - 4e-7 * day)
    ascension, declination = atan2(cos(tilt) * sin(ecliptic), cos(ecliptic)), asin(sin(tilt) * sin(ecliptic))
    sidereal_deg = (18.697374558 + 24.06570982441908 * day) % 24 * 15
    hour = radians(sidereal_deg + longitude) - ascension
    flat = radians(latitude)
    return degrees(asin(sin(flat) * sin(declination) + cos(flat) * cos(declination) * cos(hour)))


def passages(heights: list[float], height: float, side: int, begin_s: int, step_s: int) -> list[float]:
    """When a row of heights goes through one of them, upwards (1) or downwards (-1), in seconds since 1970."""
    found = []
    for number in range(1, len(heights)):
        before, now = side * (heights[number - 1] - height), side * (heights[number] - height)
        if before < 0 <= now:
            found.append(begin_s + (number - now / (now - before)) * step_s)
    return found


@pytest.mark.parametrize(("place", "latitude", "longitude", "zone"), PLACES)
def test_the_sun_agrees_with_an_almanac_wherever_the_clock_stands(place, latitude, longitude, zone):
    """Every passage of a year, none missed, none invented, to 0.035 degrees of the sun's way (9 s in the tropics)."""
    begin_s, step_s = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()), 240
    end_s = begin_s + 366 * 86_400
    heights = [height_deg(at_s, latitude, longitude) for at_s in range(begin_s, end_s, step_s)]
    for event, (height, side) in HEIGHTS.items():
        expected = passages(heights, height, side, begin_s, step_s)
        found = due_by_the_schedule(Sun(event, 0, latitude, longitude, ZoneInfo(zone)), begin_s, end_s)
        assert len(found) == len(expected), (place, event)
        for ours_s, theirs_s in zip(found, expected, strict=True):
            speed = abs(height_deg(theirs_s + 60, latitude, longitude) - height_deg(theirs_s - 60, latitude, longitude))
            most_s = 0.035 / max(speed / 120, 1e-5)  # 0.035 degrees in all: ours, theirs, and the steps of the walk
            assert abs(ours_s - theirs_s) <= max(most_s, 5), (place, event, ours_s)

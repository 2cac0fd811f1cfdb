"""Schedules: the next instant, around the changes of the clock, and against a reference that looks at every minute."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from gateway.rules.cron import read_cron
from gateway.rules.schedule import EVERY_DAY, At, Cron, Every, Sun

NS = 1_000_000_000
BERLIN, NEW_YORK, LORD_HOWE, KOLKATA = map(
    ZoneInfo, ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")
)
ZONES = (BERLIN, NEW_YORK, LORD_HOWE, KOLKATA)


def ns(text: str, zone: ZoneInfo) -> int:
    """A local time as an instant."""
    return round(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * NS


def following(schedule, after: str, zone: ZoneInfo, count: int) -> list[str]:
    """The next instants, as local times with their offset."""
    found, at_ns = [], ns(after, zone)
    for _ in range(count):
        at_ns = schedule.next_after(at_ns)
        found.append(datetime.fromtimestamp(at_ns / NS, zone).strftime("%m-%d %H:%M%z"))
    return found


@pytest.mark.parametrize(
    ("zone", "time", "after", "expected"),
    [
        # a time that does not exist is due when the gap is over; one that exists twice, the first time only
        (BERLIN, (2, 30), "2026-03-28T03:00", ["03-29 03:00+0200", "03-30 02:30+0200"]),
        (BERLIN, (2, 30), "2026-10-24T03:00", ["10-25 02:30+0200", "10-26 02:30+0100"]),
        (NEW_YORK, (2, 30), "2026-03-07T03:00", ["03-08 03:00-0400", "03-09 02:30-0400"]),
        (NEW_YORK, (1, 30), "2026-10-31T03:00", ["11-01 01:30-0400", "11-02 01:30-0500"]),
        (LORD_HOWE, (2, 15), "2026-10-03T03:00", ["10-04 02:30+1100", "10-05 02:15+1100"]),
        (LORD_HOWE, (1, 45), "2026-04-04T03:00", ["04-05 01:45+1100", "04-06 01:45+1030"]),
        (KOLKATA, (6, 30), "2026-03-28T07:00", ["03-29 06:30+0530", "03-30 06:30+0530"]),
        (BERLIN, (4, 14), "2038-01-18T05:00", ["01-19 04:14+0100", "01-20 04:14+0100"]),
        (BERLIN, (23, 59), "2026-12-31T23:58", ["12-31 23:59+0100", "01-01 23:59+0100"]),
    ],
)
def test_a_time_of_day_is_due_once_a_day_whatever_the_clock_does(zone, time, after, expected):
    """T6: stated behaviour at every change of the clock, in four zones."""
    assert following(At(*time, 0, EVERY_DAY, zone), after, zone, 2) == expected


def test_days_of_the_week_are_those_of_the_zone():
    """Monday in Lord Howe begins while it is still Sunday elsewhere."""
    monday = At(0, 30, 0, frozenset({0}), LORD_HOWE)
    assert following(monday, "2026-11-24T12:00", LORD_HOWE, 1) == ["11-30 00:30+1100"]


@pytest.mark.parametrize(
    ("line", "zone", "after", "expected"),
    [
        ("*/30 * * * *", BERLIN, "2026-03-29T01:20", ["03-29 01:30+0100", "03-29 03:00+0200", "03-29 03:30+0200"]),
        ("30 * * * *", BERLIN, "2026-10-25T01:50", ["10-25 02:30+0200", "10-25 02:30+0100", "10-25 03:30+0100"]),
        ("15,45 2 * * *", BERLIN, "2026-03-29T00:20", ["03-29 03:00+0200", "03-30 02:15+0200", "03-30 02:45+0200"]),
        ("0 0 29 2 *", KOLKATA, "2026-01-01T00:00", ["02-29 00:00+0530", "02-29 00:00+0530"]),
        ("0 12 13 * fri", BERLIN, "2026-11-24T00:00", ["11-27 12:00+0100", "12-04 12:00+0100", "12-11 12:00+0100"]),
        (
            "0 8-18/5 * * mon-fri",
            BERLIN,
            "2026-11-27T08:00",
            ["11-27 13:00+0100", "11-27 18:00+0100", "11-30 08:00+0100"],
        ),
        ("@weekly", BERLIN, "2026-11-24T00:00", ["11-29 00:00+0100"]),
        ("0 0 1 jan,jul 7", BERLIN, "2026-11-24T00:00", ["01-01 00:00+0100", "01-03 00:00+0100"]),
    ],
)
def test_a_cron_line_is_due_when_crontab_says(line, zone, after, expected):
    """crontab(5): either day if both are restricted; minutes of a free hour go by real time."""
    assert following(Cron(read_cron(line), zone), after, zone, len(expected)) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("* * * *", "five fields"),
        ("60 * * * *", "`60` is no minute"),
        ("* 24 * * *", "`24` is no hour"),
        ("5-1 * * * *", "ends before it begins"),
        ("*/0 * * * *", "a step is at least 1"),
        ("* * * foo *", "`foo` is no month"),
        ("x * * * *", "`x` is no minute"),
        ("1-2-3 * * * *", "is no minute"),
        ("*-5 * * * *", "a range goes from"),
        ("0 0 31 feb,apr *", "no such month has a day 31"),
        ("@never", "there are @hourly"),
        ("99999999999999999999 * * * *", "is no minute"),
    ],
)
def test_a_line_that_is_none_is_refused_in_one_sentence(line, words):
    """Bad input is told with what to write instead."""
    with pytest.raises(ValueError, match=words):
        read_cron(line)


def test_random_times_and_lines_agree_with_a_look_at_every_minute(seed):
    """T6: 150 random schedules at random instants, half of them near a change of the clock; 0 differences."""
    rng = random.Random(seed)
    changes = ["2026-03-29T01:00", "2026-10-25T00:30", "2026-03-08T05:00", "2026-11-01T04:00", "2026-10-03T14:00"]
    for _ in range(150):
        zone = rng.choice(ZONES)
        start = ns(rng.choice(changes), UTC) if rng.random() < 0.5 else rng.randrange(1_600_000_000, 2_200_000_000) * NS
        start += rng.randrange(-180, 180) * 60 * NS + rng.choice([0, 0, 1, NS // 2])
        minutes = sorted(rng.sample(range(60), rng.randrange(1, 4)))
        hours = "*" if rng.random() < 0.5 else sorted(rng.sample(range(24), rng.randrange(1, 5)))
        text = f"{_listed(minutes)} {_listed(hours)} * * *"
        schedule = Cron(read_cron(text), zone)
        assert schedule.next_after(start) == _slow(minutes, hours, zone, start), (text, zone, start)


def _listed(values) -> str:
    return values if isinstance(values, str) else ",".join(map(str, values))


def _slow(minutes, hours, zone, start_ns: int) -> int:
    """Minute by minute: the first at which something is due that has not been due before on that day."""
    at_s = start_ns // NS // 60 * 60 - 26 * 3_600
    done: set[tuple] = set()
    while True:
        local = datetime.fromtimestamp(at_s, zone)
        if hours == "*":
            is_due = local.minute in minutes
        else:
            now, before = local.replace(tzinfo=None), datetime.fromtimestamp(at_s - 60, zone).replace(tzinfo=None)
            skipped = max(int((now - before).total_seconds()) // 60 - 1, 0)
            passed = [now - timedelta(minutes=number) for number in range(skipped + 1)]
            names = {(time.date(), time.hour, time.minute) for time in passed}
            due = {name for name in names if name[1] in hours and name[2] in minutes} - done
            done |= due
            is_due = bool(due)
        if is_due and at_s * NS > start_ns:
            return at_s * NS
        at_s += 60


def test_the_sun_is_where_almanacs_have_it():
    """Berlin, 21 June 2026: sunrise 04:43, sunset 21:33 (two minutes either way); 30 minutes before is before."""
    for event, expected in (("sunrise", "2026-06-21T04:43"), ("sunset", "2026-06-21T21:33")):
        found = Sun(event, 0, 52.52, 13.405, BERLIN).next_after(ns("2026-06-21T00:00", BERLIN))
        assert abs(found - ns(expected, BERLIN)) < 120 * NS
        early = Sun(event, -1_800, 52.52, 13.405, BERLIN).next_after(ns("2026-06-21T00:00", BERLIN))
        assert found - early == 1_800 * NS


def test_days_without_a_sunrise_are_passed_over():
    """Longyearbyen: from the end of April to the end of August the sun does not set."""
    zone = ZoneInfo("Arctic/Longyearbyen")
    found = Sun("sunset", 0, 78.22, 15.65, zone).next_after(ns("2026-05-01T00:00", zone))
    assert datetime.fromtimestamp(found / NS, zone).month == 8


def test_every_counts_multiples_on_the_clock_it_is_given():
    """Law L11: no wall clock."""
    assert [Every(5).next_after(at) for at in (0, 4, 5, 9)] == [5, 5, 10, 10]


ROWS = [
    ("{at: 25:00}", "is no time of day"),
    ('{at: "06:30", days: [mo]}', "a day is one of"),
    ('{at: "06:30", days: []}', "names no day"),
    ('{at: "06:30", timezone: Europe/Berln}', "did you mean `Europe/Berlin`?"),
    ("{cron: '* * *'}", "five fields"),
    ("{sun: sunset}", "say where"),
    ("{sun: noon, latitude: 1, longitude: 1}", "one of sunrise"),
    ("{sun: sunset, latitude: 91, longitude: 1}", "at most 90"),
    ("{sun: sunset, latitude: 1, longitude: 1, offset: 5}", "quote it"),
    ("{sun: sunset, latitude: 1, longitude: 1, offset: 13h}", "at most 12h"),
    ("{every: 5}", "needs a unit"),
    ("{every: 1ms}", "at least 1s"),
    ('{at: "06:30", evry: 5}', "unknown key `evry`"),
]


@pytest.mark.parametrize(("trigger", "words"), ROWS)
def test_a_schedule_that_is_none_is_told_at_its_place(problems, trigger, words):
    """One sentence each, with what to write instead."""
    found = problems(f"rules: [{{id: a, on: {trigger}, then: [{{notify: {{to: x, text: y}}}}]}}]")
    assert any(words in line for line in found), found


@pytest.mark.parametrize(
    "trigger",
    ["{at: 06:30}", '{at: "6:30", days: weekend}', "{at: 06:30:15, timezone: Asia/Kolkata}", "{cron: '@daily'}"],
)
def test_a_schedule_may_be_written_as_people_do(problems, trigger):
    """YAML 1.2: an unquoted time is a text."""
    assert problems(f"rules: [{{id: a, on: {trigger}, then: [{{notify: {{to: x, text: y}}}}]}}]") == []

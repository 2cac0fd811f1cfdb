"""Schedules: the next instant, around the changes of the clock, and what is said of schedules that are none."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.rules.schedules.cron import read_cron
from gateway.rules.schedules.schedule import EVERY_DAY, At, Cron, Every, Sun

NS = 1_000_000_000
BERLIN, NEW_YORK, LORD_HOWE, KOLKATA = map(
    ZoneInfo, ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")
)


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
        (KOLKATA, (8, 44), "2038-01-18T09:00", ["01-19 08:44+0530", "01-20 08:44+0530"]),
        (BERLIN, (23, 59), "2026-12-31T23:58", ["12-31 23:59+0100", "01-01 23:59+0100"]),
        (NEW_YORK, (0, 0), "2027-12-31T00:00", ["01-01 00:00-0500", "01-02 00:00-0500"]),
        (LORD_HOWE, (12, 0), "2028-02-28T12:00", ["02-29 12:00+1100", "03-01 12:00+1100"]),
    ],
)
def test_a_time_of_day_is_due_once_a_day_whatever_the_clock_does(zone, time, after, expected):
    """T6: stated behaviour at every change of the clock, in four zones."""
    assert following(At(*time, 0, EVERY_DAY, zone), after, zone, 2) == expected


def test_days_of_the_week_are_those_of_the_zone():
    """Monday in Lord Howe begins while it is still Sunday elsewhere; on the instant itself it is the next Monday."""
    monday = At(0, 30, 0, frozenset({0}), LORD_HOWE)
    assert following(monday, "2026-11-24T12:00", LORD_HOWE, 2) == ["11-30 00:30+1100", "12-07 00:30+1100"]


@pytest.mark.parametrize(
    ("line", "zone", "after", "expected"),
    [
        ("*/30 * * * *", BERLIN, "2026-03-29T01:20", ["03-29 01:30+0100", "03-29 03:00+0200", "03-29 03:30+0200"]),
        ("30 * * * *", BERLIN, "2026-10-25T01:50", ["10-25 02:30+0200", "10-25 02:30+0100", "10-25 03:30+0100"]),
        ("*/30 0-23 * * *", BERLIN, "2026-03-29T01:20", ["03-29 01:30+0100", "03-29 03:00+0200", "03-29 03:30+0200"]),
        ("*/30 0-23 * * *", BERLIN, "2026-10-25T01:50", ["10-25 02:00+0200", "10-25 02:30+0200", "10-25 03:00+0100"]),
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
        ("30 3 * * *", LORD_HOWE, "2026-10-04T01:00", ["10-04 03:30+1100"]),
        ("*/20 * * * *", LORD_HOWE, "2026-10-04T01:30", ["10-04 01:40+1030", "10-04 02:40+1100", "10-04 03:00+1100"]),
        ("*/20 * * * *", LORD_HOWE, "2026-04-05T01:30", ["04-05 01:40+1100", "04-05 01:40+1030", "04-05 02:00+1030"]),
        ("*/30 1 * * *", NEW_YORK, "2026-11-01T00:50", ["11-01 01:00-0400", "11-01 01:30-0400", "11-02 01:00-0500"]),
        ("0 0 1 1 *", KOLKATA, "2037-06-01T00:00", ["01-01 00:00+0530", "01-01 00:00+0530"]),
        ("0 0 31 * *", BERLIN, "2026-12-31T00:00", ["01-31 00:00+0100", "03-31 00:00+0200", "05-31 00:00+0200"]),
        ("0 6 * * sat-sun", BERLIN, "2026-11-27T12:00", ["11-28 06:00+0100", "11-29 06:00+0100", "12-05 06:00+0100"]),
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
        ("0 22-6 * * *", "write two: 22-23,0-6"),
        ("0 0 * * fri-mon", "write two: fri-sat,sun-mon"),
        ("*/90 * * * *", "a period is `every: 90m`"),
        ("0 */36 * * *", "a period is `every: 36h`"),
        ("0 0 * * monday", "did you mean `mon`"),
        ("0 0 L * *", "1 to 31"),
        ("@dayly", "did you mean `@daily`"),
        ("0,  0 * * *", "is no minute"),
        (",".join(["0"] * 200), "at most 200 characters"),
        ("*/0 * * * *", "a step is at least 1"),
        ("* * * foo *", "`foo` is no month"),
        ("x * * * *", "`x` is no minute"),
        ("1-2-3 * * * *", "is no minute"),
        ("*-5 * * * *", "a range goes from"),
        ("0 0 31 feb,apr *", "no such month has a day 31"),
        ("@every 5m", "there are @hourly"),
        ("99999999999999999999 * * * *", "is no minute"),
    ],
)
def test_a_line_that_is_none_is_refused_in_one_sentence(line, words):
    """Bad input is told with what to write instead."""
    with pytest.raises(ValueError, match=words):
        read_cron(line)


def test_the_word_for_sunday_may_stand_at_both_ends_of_the_week():
    """0 and 7 are Sunday, so that fri-sun and 7-3 are ranges, and sun-sun is one day."""
    lines = {"fri-sun": {5, 6, 0}, "sat-0": {6, 0}, "7-3": {0, 1, 2, 3}, "sun-sun": {0}, "0-7": set(range(7))}
    for words, days in lines.items():
        assert read_cron(f"0 0 * * {words}").weekdays == days, words


def test_a_line_is_read_into_what_it_says():
    """Lists, ranges, steps, names, capitals and spaces; a number with a step goes on to the end of the field."""
    fields = read_cron("  50/5,3 8-18/5 1-7,*/10 JAN,oct-dec mon ")
    assert fields.minutes == (3, 50, 55)
    assert fields.hours == (8, 13, 18)
    assert fields.days == {1, 2, 3, 4, 5, 6, 7, 11, 21, 31}
    assert (fields.months, fields.weekdays) == ((1, 10, 11, 12), {1})
    assert fields.either_day
    assert not read_cron("0 0 */32,1-7 * mon").either_day, "begins with a star: the first Monday of a month"


def test_the_sun_is_where_almanacs_have_it():
    """Berlin, 21 June 2026: sunrise 04:43, sunset 21:33 (two minutes either way); 30 minutes before is before."""
    for event, expected in (("sunrise", "2026-06-21T04:43"), ("sunset", "2026-06-21T21:33")):
        found = Sun(event, 0, 52.52, 13.405, BERLIN).next_after(ns("2026-06-21T00:00", BERLIN))
        assert abs(found - ns(expected, BERLIN)) < 120 * NS
        early = Sun(event, -1_800, 52.52, 13.405, BERLIN).next_after(ns("2026-06-21T00:00", BERLIN))
        assert found - early == 1_800 * NS


def test_an_offset_moves_an_instant_and_skips_none():
    """Strictly later, to the nanosecond, also on both sides of an offset; and wherever in the day one asks."""
    zone = ZoneInfo("Arctic/Longyearbyen")
    for offset_s in (-43_200, -0.25, 0, 5_400):
        for event in ("sunset", "dawn"):
            sun = Sun(event, offset_s, 78.22, 15.65, zone)
            due_ns = ns("2026-01-01T00:00", zone)
            for _ in range(130):
                before_ns, due_ns = due_ns, sun.next_after(due_ns)
                assert due_ns > before_ns
                assert sun.next_after(due_ns - 1) == due_ns
                assert sun.next_after((before_ns + due_ns) // 2) == due_ns


@pytest.mark.parametrize(
    ("event", "latitude", "expected"),
    [("sunset", 71.1, "2026-08-01T00:00:23"), ("sunrise", 73.8, "2026-02-01T12:02:22")],
)
def test_a_passage_between_the_mean_and_the_true_extreme_is_found(event, latitude, expected):
    """The sun that only just sets is lowest minutes after midnight; asked right before, it is still this night's."""
    utc = ZoneInfo("UTC")
    due_ns = ns(expected, utc)
    assert abs(Sun(event, 0, latitude, 0, utc).next_after(due_ns - 20 * NS) - due_ns) < 20 * NS


def test_a_sun_that_never_does_it_is_never_due():
    """Law L13: the search is bounded. No dusk comes where the sun is held above 6 degrees below for all the year."""
    assert Sun("dusk", 0, 0, 0, BERLIN).next_after(0) is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("astral.sun.elevation", lambda *_, **__: 5.0)
        assert Sun("dusk", 0, 0, 0, BERLIN).next_after(0) is None


def test_days_without_a_sunrise_are_passed_over():
    """Longyearbyen: from the end of April to the end of August the sun does not set."""
    zone = ZoneInfo("Arctic/Longyearbyen")
    found = Sun("sunset", 0, 78.22, 15.65, zone).next_after(ns("2026-05-01T00:00", zone))
    assert datetime.fromtimestamp(found / NS, zone).month == 8


def test_every_counts_multiples_on_the_clock_it_is_given():
    """Law L11: no wall clock."""
    assert [Every(5).next_after(at) for at in (0, 4, 5, 9)] == [5, 5, 10, 10]


def test_a_schedule_tells_a_person_what_it_is():
    """For `gateway rules why` and the API."""
    days = frozenset({0, 4})
    assert At(6, 30, 15, days, BERLIN).describe() == "at 06:30:15 on mon, fri (Europe/Berlin)"
    assert Cron(read_cron("@Daily"), KOLKATA).describe() == "cron @Daily (Asia/Kolkata)"
    assert Sun("sunset", -1_800, 1, 1, BERLIN).describe() == "30m before sunset"
    assert Sun("dawn", 0, 1, 1, BERLIN).describe() == "dawn"
    assert Every(90 * NS).describe() == "every 1m30s"


ROWS = [
    ("{at: 25:00}", "1:26: `at: 25:00` is no time of day"),
    ("{at: 0630}", "`at: 0630` is no time of day"),
    ("{at: 630}", '`at: 630` is no time of day: write "06:30"'),
    ("{at: 24:00}", "the day ends at 00:00 of the next"),
    ("{at: sunset}", "the sun is `sun: sunset`"),
    ("{at: [06:30, 18:00]}", "write a trigger each"),
    ('{at: "06:30", days: mon-fri}', "more than one is a list"),
    ('{at: "06:30", days: [monday]}', "did you mean `mon`?"),
    ('{at: "06:30", days: }', "names no day"),
    ('{at: "06:30", days: [mo]}', "a day is one of"),
    ('{at: "06:30", days: []}', "names no day"),
    ('{at: "06:30", timezone: Europe/Berln}', "did you mean `Europe/Berlin`?"),
    ("{cron: '* * *'}", "five fields"),
    ("{sun: sunset}", "say where"),
    ("{sun: noon, latitude: 1, longitude: 1}", "one of sunrise"),
    ("{sun: sunset, latitude: 91, longitude: 1}", "at most 90"),
    ("{sun: sunset, latitude: 1, longitude: 1, offset: 5}", "such as -30m or 1h, not 5"),
    ("{sun: sunset, latitude: 1, longitude: 1, offset: +-5m}", "not +-5m"),
    ("{sun: sunset, latitude: 1, longitude: 1, days: [mon]}", "unknown key `days`"),
    ("{sun: sunset, longitude: 1}", "`latitude` is missing"),
    ("{sun: sunset, latitude: 1, longitude: 1, offset: 13h}", "at most 12h"),
    ("{every: 5}", "needs a unit"),
    ("{every: 1ms}", "at least 1s"),
    ("{every: 367d}", "at most 366d"),
    ("{every: 5m, timezone: UTC}", "unknown key `timezone`"),
    ('{at: "06:30", evry: 5}', "unknown key `evry`"),
]


@pytest.mark.parametrize(("trigger", "words"), ROWS)
def test_a_schedule_that_is_none_is_told_once_at_its_place(problems, trigger, words):
    """One sentence each, with what to write instead."""
    found = problems(f"rules: [{{id: a, on: {trigger}, then: [{{notify: {{to: x, text: y}}}}]}}]")
    assert len(found) == 1, found
    assert words in found[0]


@pytest.mark.parametrize(
    "trigger",
    [
        "{at: 06:30}",
        '{at: "6:30", days: weekend}',
        "{at: 06:30:15, timezone: Asia/Kolkata}",
        "{cron: '@daily'}",
        '{every: "00:05:00"}',
    ],
)
def test_a_schedule_may_be_written_as_people_do(problems, trigger):
    """YAML 1.2: an unquoted time is a text."""
    assert problems(f"rules: [{{id: a, on: {trigger}, then: [{{notify: {{to: x, text: y}}}}]}}]") == []

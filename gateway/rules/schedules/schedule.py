"""When something is due: times of day, cron lines, the sun, plain periods. Pure: an instant in, the next one out.

Times of day are local, in a named zone, and daylight saving is met like this:

- a time that does not exist that day is due at the first instant after the gap;
- a time that exists twice is due the first time only;
- a cron line with `*` for the hour means real minutes: it goes on through both.

Instants are nanoseconds since 1970 on the wall clock, but for `Every`, which counts on the log's own clock.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from gateway.config.scalars import duration_text
from gateway.rules.schedules.sun import passage_after_s

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zoneinfo import ZoneInfo

    from gateway.rules.schedules.cron import CronFields

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EVERY_DAY = frozenset(range(7))
_NS = 1_000_000_000
_DAY = timedelta(days=1)
_MINUTE_S = 60
_MOST_DAYS_OFF = 9
"""Of a time of day: a week, and a day on either side for what the clock does."""
_BEFORE_ALL = (-1, -1)


class Schedule(Protocol):
    """Instants on the wall clock."""

    def next_after(self, wall_ns: int) -> int | None:
        """The first instant strictly later than that, in nanoseconds since 1970; None: never again."""

    def describe(self) -> str:
        """For a person."""


@dataclass(frozen=True, slots=True)
class Every:
    """Multiples of a period on the log's own clock."""

    period_ns: int

    def next_after(self, elapsed_ns: int) -> int:
        """The first multiple later than that."""
        return (elapsed_ns // self.period_ns + 1) * self.period_ns

    def describe(self) -> str:
        """For a person."""
        return f"every {duration_text(self.period_ns / 1e9)}"


@dataclass(frozen=True, slots=True)
class At:
    """A time of day, on some days of the week (Monday is 0)."""

    hour: int
    minute: int
    second: int
    days: frozenset[int]
    zone: ZoneInfo

    def next_after(self, wall_ns: int) -> int | None:
        """The first instant strictly later than that."""
        today = datetime.fromtimestamp(wall_ns // _NS, self.zone).date()
        for number in range(_MOST_DAYS_OFF):
            day = today + timedelta(days=number)
            if day.weekday() in self.days:
                due_ns = _local_ns(day, self.hour, self.minute, self.second, self.zone)
                if due_ns > wall_ns:
                    return due_ns
        return None

    def describe(self) -> str:
        """For a person."""
        days = "" if self.days == EVERY_DAY else " on " + ", ".join(DAYS[day] for day in sorted(self.days))
        seconds = f":{self.second:02d}" if self.second else ""
        return f"at {self.hour:02d}:{self.minute:02d}{seconds}{days} ({self.zone.key})"


@dataclass(frozen=True, slots=True)
class Cron:
    """A line of five fields: minute, hour, day of the month, month, day of the week."""

    fields: CronFields
    zone: ZoneInfo

    def next_after(self, wall_ns: int) -> int | None:
        """The first instant strictly later than that."""
        now = datetime.fromtimestamp(wall_ns // _NS, self.zone)
        for day in self.fields.days_from(now.date()):
            if self.fields.every_hour:
                due = self._real_minutes(day, wall_ns)
            else:
                due = self._local_times(day, (now.hour, now.minute) if day == now.date() else _BEFORE_ALL)
            following = next((due_ns for due_ns in due if due_ns > wall_ns), None)
            if following is not None:
                return following
        return None

    def describe(self) -> str:
        """For a person."""
        return f"cron {self.fields.text} ({self.zone.key})"

    def _local_times(self, day: date, passed: tuple[int, int]) -> Iterator[int]:
        """Instants of a day in their order, without those up to an hour and a minute that the clock has shown.

        What the clock has shown is past, and what it has leapt over was due when it leapt.
        """
        for hour in self.fields.hours[bisect_left(self.fields.hours, passed[0]) :]:
            for minute in self.fields.minutes:
                if (hour, minute) > passed:
                    yield _local_ns(day, hour, minute, 0, self.zone)

    def _real_minutes(self, day: date, wall_ns: int) -> Iterator[int]:
        """The first minute of a day that is later, going by real time rather than by the clock on the wall."""
        begin_s = _local_ns(day, 0, 0, 0, self.zone) // _NS
        end_s = _local_ns(day + _DAY, 0, 0, 0, self.zone) // _NS
        start_s = max(begin_s, (wall_ns // _NS // _MINUTE_S + 1) * _MINUTE_S)
        for at_s in range(start_s, end_s, _MINUTE_S):
            if datetime.fromtimestamp(at_s, self.zone).minute in self.fields.minutes:
                yield at_s * _NS
                return


@dataclass(frozen=True, slots=True)
class Sun:
    """Sunrise, sunset, dawn or dusk at a place, or so long before or after it."""

    event: str
    offset_s: float
    latitude: float
    longitude: float
    zone: ZoneInfo
    """Of the place, for whoever shows the instant; the sun goes by no clock."""

    def next_after(self, wall_ns: int) -> int | None:
        """The first instant strictly later than that. Days on which the sun does no such thing are passed over."""
        offset_ns = round(self.offset_s * _NS)
        at_s = passage_after_s(self.event, self.latitude, self.longitude, (wall_ns - offset_ns) // _NS)
        return None if at_s is None else at_s * _NS + offset_ns

    def describe(self) -> str:
        """For a person."""
        if not self.offset_s:
            return self.event
        side = "after" if self.offset_s > 0 else "before"
        return f"{duration_text(abs(self.offset_s))} {side} {self.event}"


def _local_ns(day: date, hour: int, minute: int, second: int, zone: ZoneInfo) -> int:
    """A local time as an instant: the first of two, or the end of the gap that it would lie in."""
    local = datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=zone)
    at_s = round(local.timestamp())
    if datetime.fromtimestamp(at_s, zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        at_s = _end_of_gap_s(at_s, zone)
    return at_s * _NS


def _end_of_gap_s(late_s: int, zone: ZoneInfo) -> int:
    """The instant at which the clock was put forward, given one within a day behind it."""
    early_s = late_s - 86_400
    before = _offset(early_s, zone)
    while late_s - early_s > 1:
        middle_s = (early_s + late_s) // 2
        if _offset(middle_s, zone) == before:
            early_s = middle_s
        else:
            late_s = middle_s
    return late_s


def _offset(at_s: int, zone: ZoneInfo) -> timedelta | None:
    return datetime.fromtimestamp(at_s, UTC).astimezone(zone).utcoffset()

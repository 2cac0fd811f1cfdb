"""The five fields of a cron line, as crontab(5) has them.

    field           values      also
    minute          0-59
    hour            0-23
    day of month    1-31
    month           1-12        jan-dec
    day of week     0-7         sun-sat; 0 and 7 are Sunday, also where a range ends: fri-sun

Each is `*`, or a list of numbers and ranges, each with a step if wanted: `*/5`, `1-5`, `8-18/2`, `mon,wed,fri`. If both
days are restricted (neither begins with `*`), either of them is enough; otherwise both must match. `@hourly`, `@daily`
(`@midnight`), `@weekly`, `@monthly` and `@yearly` (`@annually`) stand for the lines they are known for.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from gateway.config.document import cut
from gateway.config.section import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_VALUE = "[0-9]{1,4}|[a-z]+"
_PART = re.compile(rf"(\*|{_VALUE})(?:-({_VALUE}))?(?:/([0-9]{{1,4}}))?")
_LONGEST_LINE = 200
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MOST_YEARS = 40
"""From one 29 February on a given day of the week to the next, around a year like 2100."""


class _Field(NamedTuple):
    name: str
    least: int
    most: int
    words: tuple[str, ...] = ()
    period: tuple[str, str] | None = None
    """What its steps begin anew with, and the unit of a period that they are mistaken for."""


_FIELDS = (
    _Field("minute", 0, 59, period=("hour", "m")),
    _Field("hour", 0, 23, period=("day", "h")),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _WEEKDAYS),
)


class CronFields(NamedTuple):
    """A line that has been read."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: tuple[int, ...]
    weekdays: frozenset[int]
    """Sunday is 0."""
    every_hour: bool
    """The hour is `*`: minutes count by real time."""
    either_day: bool
    """Both days are restricted: one of them is enough."""

    def has_day(self, day: date) -> bool:
        """Whether anything is due on that day."""
        if day.month not in self.months:
            return False
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return in_month or in_week if self.either_day else in_month and in_week

    def days_from(self, first: date) -> Iterator[date]:
        """The days on which anything is due, in order, from one day on (itself included) for forty years."""
        for year in range(first.year, first.year + _MOST_YEARS + 1):
            for month in self.months:
                is_first = (year, month) == (first.year, first.month)
                if is_first or (year, month) > (first.year, first.month):
                    for number in range(first.day if is_first else 1, monthrange(year, month)[1] + 1):
                        day = date(year, month, number)
                        if self.has_day(day):
                            yield day


def read_cron(text: str) -> CronFields:
    """Read a line.

    Raises:
        ValueError: with one sentence that says what is wrong.
    """
    if len(text) > _LONGEST_LINE:
        raise ValueError(f"a cron line has at most {_LONGEST_LINE} characters, this one has {len(text)}")
    word = text.strip().lower()
    if word.startswith("@") and word not in _WORDS:
        hint = did_you_mean(word, tuple(_WORDS)) or f"; there are {', '.join(_WORDS)}"
        raise ValueError(f"`{cut(word)}` stands for no cron line{hint}")
    parts = _WORDS.get(word, word).split()
    if len(parts) != len(_FIELDS):
        raise ValueError(f"a cron line has five fields (minute hour day month weekday), this one has {len(parts)}")
    minutes, hours, days, months, weekdays = (_values(part, field) for part, field in zip(parts, _FIELDS, strict=True))
    either_day = not parts[2].startswith("*") and not parts[4].startswith("*")
    if not either_day and not any(_LONGEST_MONTH[month - 1] >= min(days) for month in months):
        raise ValueError(f"`{text.strip()}`: no such month has a day {min(days)}")
    return CronFields(
        text=text.strip(),
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=days,
        months=tuple(sorted(months)),
        weekdays=frozenset(value % 7 for value in weekdays),
        every_hour=parts[1] == "*",
        either_day=either_day,
    )


def _values(text: str, field: _Field) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"`{cut(part)}` is no {field.name}: write *, 5, 1-5, */10 or a list of these")
        first, last, step = match.groups()
        low, high = _range(part, first, last, field)
        if last is None and step is not None:
            high = field.most
        found.update(range(low, high + 1, _step(part, step, field)))
    return frozenset(found)


def _range(part: str, first: str, last: str | None, field: _Field) -> tuple[int, int]:
    if first == "*":
        if last is not None:
            raise ValueError(f"`{part}`: a range goes from a number to a number")
        return field.least, field.most
    low = _number(first, field)
    high = _number(last, field) if last is not None else low
    if field.words is _WEEKDAYS and low > high:  # Sunday is both: fri-sun, 7-3
        low, high = (low, 7) if high == 0 else (low % 7, high)
    if low > high:
        end, begin = (field.words[-1], field.words[0]) if field.words else (field.most, field.least)
        two = f"{first}-{end},{begin}-{last}"
        raise ValueError(f"`{part}`: the range of the {field.name} ends before it begins; write two: {two}")
    return low, high


def _step(part: str, step: str | None, field: _Field) -> int:
    if step is None:
        return 1
    if int(step) == 0:
        raise ValueError(f"`{part}`: a step is at least 1")
    if field.period is not None and int(step) > field.most + 1:
        whole, unit = field.period
        why = f"the steps of the {field.name} begin anew with every {whole}"
        raise ValueError(f"`{part}`: {why}; a period is `every: {int(step)}{unit}`")
    return int(step)


def _number(text: str, field: _Field) -> int:
    if text in field.words:
        return field.words.index(text) + field.least
    if text.isdecimal() and field.least <= int(text) <= field.most:
        return int(text)
    names = f", or {field.words[0]} to {field.words[-1]}" if field.words else ""
    hint = did_you_mean(text, field.words)
    raise ValueError(f"`{cut(text)}` is no {field.name}: that is {field.least} to {field.most}{names}{hint}")

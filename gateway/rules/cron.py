"""The five fields of a cron line, as crontab(5) has them.

    field           values      also
    minute          0-59
    hour            0-23
    day of month    1-31
    month           1-12        jan-dec
    day of week     0-7         sun-sat; 0 and 7 are Sunday

Each is `*`, or a list of numbers and ranges, each with a step if wanted: `*/5`, `1-5`, `8-18/2`, `mon,wed,fri`. If both
days are restricted (neither begins with `*`), either of them is enough. `@hourly`, `@daily` (`@midnight`), `@weekly`,
`@monthly` and `@yearly` (`@annually`) stand for the lines they are known for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import date

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
_PART = re.compile(r"(\*|[0-9a-z]+)(?:-([0-9a-z]+))?(?:/([0-9]+))?")
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class _Field(NamedTuple):
    name: str
    least: int
    most: int
    words: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
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
    months: frozenset[int]
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


def read_cron(text: str) -> CronFields:
    """Read a line.

    Raises:
        ValueError: with one sentence that says what is wrong.
    """
    line = _WORDS.get(text.strip().lower(), text.strip().lower())
    if line.startswith("@"):
        raise ValueError(f"`{text}`: there are {', '.join(_WORDS)}")
    parts = line.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(f"a cron line has five fields (minute hour day month weekday), this one has {len(parts)}")
    minutes, hours, days, months, weekdays = (_values(part, field) for part, field in zip(parts, _FIELDS, strict=True))
    either_day = not parts[2].startswith("*") and not parts[4].startswith("*")
    if not either_day and not any(_LONGEST_MONTH[month - 1] >= min(days) for month in months):
        raise ValueError(f"`{text}`: no such month has a day {min(days)}")
    return CronFields(
        text=text.strip(),
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=days,
        months=months,
        weekdays=frozenset(value % 7 for value in weekdays),
        every_hour=parts[1] == "*",
        either_day=either_day,
    )


def _values(text: str, field: _Field) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"`{part}` is no {field.name}: write *, 5, 1-5, */10 or a list of these")
        first, last, step = match.groups()
        if first == "*":
            if last is not None:
                raise ValueError(f"`{part}`: a range goes from a number to a number")
            low, high = field.least, field.most
        else:
            low = _number(first, field)
            high = _number(last, field) if last is not None else field.most if step is not None else low
        if low > high:
            raise ValueError(f"`{part}`: the range of the {field.name} ends before it begins")
        if step == "0" or (step is not None and int(step) == 0):
            raise ValueError(f"`{part}`: a step is at least 1")
        found.update(range(low, high + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str, field: _Field) -> int:
    if text[:3] in field.words and len(text) == len(text[:3]):
        return field.words.index(text) + field.least
    if not text.isdecimal() or not field.least <= int(text[:4]) <= field.most:
        raise ValueError(f"`{text}` is no {field.name}: that is {field.least} to {field.most}")
    return int(text)

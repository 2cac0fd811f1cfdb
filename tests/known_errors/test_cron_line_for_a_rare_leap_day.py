"""29 February on a given day of the week was "never", since the search ended after eight years; it comes every 28."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.rules.schedules.cron import read_cron
from gateway.rules.schedules.schedule import Cron

NS = 1_000_000_000


@pytest.mark.parametrize(("asked", "expected"), [(2026, 2032), (2033, 2060), (2089, 2128)])
def test_a_leap_day_on_a_sunday_is_waited_for(asked, expected):
    """None means never again, and nothing less. (`*/7` is Sunday and, beginning with a star, must match as well.)"""
    sundays = Cron(read_cron("0 12 29 2 */7"), ZoneInfo("UTC"))
    due_ns = sundays.next_after(round(datetime(asked, 1, 1, tzinfo=UTC).timestamp()) * NS)
    assert datetime.fromtimestamp(due_ns // NS, UTC) == datetime(expected, 2, 29, 12, tzinfo=UTC)

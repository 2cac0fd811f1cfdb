"""`00099` passed for a minute, since only its first four digits were looked at, and the engine stopped at the start."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from gateway.rules.schedules.cron import read_cron
from gateway.rules.schedules.schedule import Cron


@pytest.mark.parametrize("line", ["00099 3 * * *", "0 00099 * * *", "0 0 00099 * *", "*/00000 * * * *"])
def test_no_number_is_beyond_its_field_for_all_its_zeros(line):
    """What `check` accepts does not stop the engine."""
    with pytest.raises(ValueError, match=r" is no |at least 1"):
        read_cron(line)


def test_leading_zeros_alone_are_no_fault():
    """`05 06` is how people write times."""
    fields = read_cron("05 06 01 01 *")
    assert (fields.minutes, fields.hours, fields.days, fields.months) == ((5,), (6,), {1}, (1,))
    assert Cron(fields, ZoneInfo("UTC")).next_after(0) == (6 * 60 + 5) * 60 * 1_000_000_000

"""A sunset after midnight was lost: the sun was asked day by day, and on some days it sets twice or not at all.

Between two sunsets at 00:02 and at 23:59 lies one midnight, and the library that was asked for "the sunset of that day"
knew one for each. It happened within the polar circles, in Reykjavik, Fairbanks and Trondheim, and wherever the zone is
not that of the place, as with the default, UTC.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from gateway.rules.schedules.schedule import Sun

NS = 1_000_000_000


@pytest.mark.parametrize(
    ("event", "latitude", "longitude", "zone", "around"),
    [
        ("sunset", 64.1, -21.9, "Atlantic/Reykjavik", "2026-06-26T00:01"),
        ("sunset", 64.8, -147.7, "America/Anchorage", "2026-07-14T00:03"),
        ("dusk", 63.4, 10.4, "Europe/Oslo", "2026-07-28T00:03"),
        ("sunset", 39.7, -105.0, "UTC", "2026-10-30T00:01"),
        ("sunrise", 22.57, 88.36, "UTC", "2026-04-01T00:00"),
    ],
)
def test_a_passage_about_midnight_is_due_like_any_other(event, latitude, longitude, zone, around):
    """A rule by the sun fires once for every sunset, not for those alone that suit the clock."""
    expected = datetime.fromisoformat(around).replace(tzinfo=ZoneInfo(zone))
    asked_ns = round((expected - timedelta(minutes=20)).timestamp()) * NS
    due_ns = Sun(event, 0, latitude, longitude, ZoneInfo(zone)).next_after(asked_ns)
    assert abs(due_ns - round(expected.timestamp()) * NS) < 300 * NS

"""When the sun rises and sets: over the positions of `astral`, imported only by those who ask.

Time is cut where the sun stands highest and lowest. Between two such instants it only climbs or only sinks, so that it
passes a height once or not at all. That holds whatever the clocks of the place say: a sunset after midnight is found
like any other, and a polar day or night is a row of halves without a passage.

Positions are those of NOAA's solar equations, heights are those of almanacs: good to about a minute up to the polar
circles. Where the sun only just grazes the height, a minute of arc is many minutes of time.
"""

from __future__ import annotations

from datetime import UTC, datetime

EVENTS = ("sunrise", "sunset", "dawn", "dusk")
_HORIZON_DEG = -0.833
"""Of the sun's centre: its upper edge is seen on the horizon, refraction included."""
_CIVIL_DEG = -6.0
_PASSAGES = {
    "sunrise": (_HORIZON_DEG, True),
    "sunset": (_HORIZON_DEG, False),
    "dawn": (_CIVIL_DEG, True),
    "dusk": (_CIVIL_DEG, False),
}
"""What happens to the height that is passed, and whether the sun climbs then."""
_HALF_DAY_S = 43_200
_S_PER_DEGREE = 240
_MOST_HALF_DAYS = 2 * 400


def passage_after_s(event: str, latitude: float, longitude: float, after_s: int) -> int | None:
    """The first whole second, later than another, at which the sun has passed.

    Args:
        event: one of `EVENTS`; dawn and dusk are civil, the sun 6 degrees below the horizon.
        latitude: degrees, north positive.
        longitude: degrees, east positive.
        after_s: seconds since 1970.

    Returns:
        Seconds since 1970; None if it does not happen within 400 days.
    """
    from astral import Observer  # noqa: PLC0415 - only rules by the sun need it
    from astral.sun import elevation  # noqa: PLC0415 - as above

    observer = Observer(latitude, longitude)
    height_deg, climbs = _PASSAGES[event]

    def is_up(at_s: int) -> bool:
        return elevation(observer, datetime.fromtimestamp(at_s, UTC), with_refraction=False) >= height_deg

    # One half earlier than the mean sun says: the true sun runs up to 17 minutes before or behind it.
    first = int((after_s + longitude * _S_PER_DEGREE) // _HALF_DAY_S) - 1
    early_s = _extreme_s(first, longitude)
    was_up = is_up(early_s)
    for number in range(first + 1, first + 2 + _MOST_HALF_DAYS):
        late_s = _extreme_s(number, longitude)
        now_up = is_up(late_s)
        if now_up != was_up and now_up == climbs:
            low_s, high_s = early_s, late_s
            while high_s - low_s > 1:
                middle_s = (low_s + high_s) // 2
                low_s, high_s = (low_s, middle_s) if is_up(middle_s) == now_up else (middle_s, high_s)
            if high_s > after_s:
                return high_s
        early_s, was_up = late_s, now_up
    return None


def _extreme_s(number: int, longitude: float) -> int:
    """When the sun stands lowest (even numbers) or highest (odd ones), in seconds since 1970."""
    from astral.julian import julianday, julianday_to_juliancentury  # noqa: PLC0415 - only rules by the sun need it
    from astral.sun import eq_of_time  # noqa: PLC0415 - as above

    mean_s = number * _HALF_DAY_S - longitude * _S_PER_DEGREE
    century = julianday_to_juliancentury(julianday(datetime.fromtimestamp(mean_s, UTC)))
    return round(mean_s - eq_of_time(century) * 60)

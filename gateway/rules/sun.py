"""When the sun rises and sets: over `astral`, imported only by those who ask.

Positions are those of NOAA's solar equations, good to about a minute between the polar circles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date, datetime
    from zoneinfo import ZoneInfo

EVENTS = ("sunrise", "sunset", "dawn", "dusk")


def instant_s(event: str, latitude: float, longitude: float, day: date, zone: ZoneInfo) -> float | None:
    """When it happens on a local day, in seconds since 1970; None if it does not (polar day, polar night).

    Args:
        event: one of `EVENTS`; dawn and dusk are civil, the sun 6 degrees below the horizon.
        latitude: degrees, north positive.
        longitude: degrees, east positive.
        day: the local day.
        zone: whose days these are.
    """
    from astral import Observer  # noqa: PLC0415 - only rules by the sun need it
    from astral import sun as astral_sun  # noqa: PLC0415 - as above

    find: dict[str, Callable[..., datetime]] = {
        "sunrise": astral_sun.sunrise,
        "sunset": astral_sun.sunset,
        "dawn": astral_sun.dawn,
        "dusk": astral_sun.dusk,
    }
    try:
        return find[event](Observer(latitude, longitude), date=day, tzinfo=zone).timestamp()
    except ValueError:
        return None

"""Durations as people write them: `250ms`, `30s`, `5m`, `1h30m`, `2d`."""

from __future__ import annotations

import re

from firmware_sim.errors import OptionError

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def parse_duration(text: str) -> float:
    """Seconds in a duration.

    Raises:
        OptionError: if it is none; a bare number lacks its unit.
    """
    if not _WHOLE.fullmatch(text):
        hint = f"; write {text}s for seconds" if re.fullmatch(r"\d+(\.\d+)?", text) else ""
        raise OptionError(f"{text!r} is not a duration such as 250ms, 30s, 5m or 1h30m{hint}")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))

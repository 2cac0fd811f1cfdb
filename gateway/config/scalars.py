"""Words of the configuration that mean a quantity: durations, sizes, and the scalars of YAML 1.2.

Invariants:
- A bare number is never a duration or a size: whoever writes `timeout: 5` is asked which unit they mean.
- Plain scalars follow the core schema of YAML 1.2.2 (10.3.2): `on`, `no`, `12:30`, `1_000` and dates are strings. It is
  narrowed where readers disagree: `010` (eight, or ten?), `0o10` and `0x1F` are strings too.
- Digits are ASCII. Every duration is finite.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(ms|s|m|h|d|w)")
_CLOCK = re.compile(r"([0-9]{1,3}):([0-5][0-9]):([0-5][0-9])")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,12})?) ?([A-Za-z]{1,3})")
_UNIT_BYTES = {
    "B": 1,
    "kB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_MAX_DIGITS = 300  # int() of a text takes time that grows with its square


class Wrong(NamedTuple):
    """Not what was asked for, and what to write instead."""

    message: str


def plain_scalar(text: str) -> str | bool | int | float | None:
    """What an unquoted scalar means. Decimal integers may have leading zeros only as strings: `010` is text."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= _MAX_DIGITS:
        if _INTEGER.fullmatch(text):
            return text if len(text.lstrip("+-")) > 1 and text.lstrip("+-").startswith("0") else int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def duration_s(value: str | bool | float | None) -> float | Wrong:  # noqa: FBT001 - any scalar may stand there
    """`250ms`, `90s`, `5m`, `1h30m`, `7d`, `00:05:00`, in seconds."""
    if isinstance(value, str):
        clock = _CLOCK.fullmatch(value)
        if clock is not None:
            hours, minutes, seconds = map(int, clock.groups())
            return float(hours * 3_600 + minutes * 60 + seconds)
        total_s = _sum_of_parts(value)
        return Wrong("write a duration as 250ms, 90s, 5m, 1h30m, 7d or 00:05:00") if total_s is None else total_s
    if isinstance(value, bool) or value is None:
        return Wrong("a duration is expected, such as 90s or 5m")
    return Wrong(f"a duration needs a unit: {value:g}s or {value:g}m?")


def size_bytes(value: str | bool | float | None) -> int | Wrong:  # noqa: FBT001 - any scalar may stand there
    """`64KiB`, `8MiB`, `1GB`, in bytes."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is not None and match[2] in _UNIT_BYTES:
            return round(float(match[1]) * _UNIT_BYTES[match[2]])
        return Wrong("write a size as 64KiB, 8MiB or 1GiB (or kB, MB, GB)")
    if isinstance(value, bool) or value is None:
        return Wrong("a size is expected, such as 64KiB or 8MiB")
    return Wrong(f"a size needs a unit: {value:g}MiB or {value:g}KiB?")


def duration_text(seconds_s: float) -> str:
    """A duration as one would write it: `250ms`, `90s`, `18h12m15s`, `7d`."""
    rest_ms = round(seconds_s * 1_000)
    parts = []
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, rest_ms = divmod(rest_ms, size_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def size_text(bytes_: int) -> str:
    """A size as one would write it, in the largest binary unit that divides it: `64KiB`, `1000B`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if bytes_ and bytes_ % _UNIT_BYTES[unit] == 0:
            return f"{bytes_ // _UNIT_BYTES[unit]}{unit}"
    return f"{bytes_}B"


def _sum_of_parts(text: str) -> float | None:
    """`1h30m`: largest unit first, each at most once."""
    total_s, end, last_s = 0.0, 0, float("inf")
    for part in _PART.finditer(text):
        unit_s = _UNIT_S[part[2]]
        if part.start() != end or unit_s >= last_s:
            return None
        total_s += float(part[1]) * unit_s
        end, last_s = part.end(), unit_s
    return total_s if end == len(text) and text else None

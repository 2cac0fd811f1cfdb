"""How numbers, sizes, times and durations are put for a person. Pure: a time is an argument, in the machine's zone."""

from __future__ import annotations

from datetime import UTC, datetime

_STEPS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def size(count_bytes: float) -> str:
    """`1.5 MiB`, in the units of the configuration."""
    for step, unit in _STEPS:
        if count_bytes >= step:
            return f"{count_bytes / step:.1f} {unit}"
    return f"{count_bytes:.0f} B"


def count(number: float) -> str:
    """`12,345`; from a million on `1.23 M`."""
    if abs(number) >= 1_000_000_000:
        return f"{number / 1_000_000_000:.2f} G"
    return f"{number:,.0f}" if abs(number) < 1_000_000 else f"{number / 1_000_000:.2f} M"


def duration(seconds: float) -> str:
    """`0.4 ms`, `70 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`: the two units that matter."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = int(seconds)
    for unit_s, unit, rest_s, rest in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            second = whole % unit_s // rest_s
            return f"{whole // unit_s} {unit}" + (f" {second} {rest}" if second else "")
    return f"{whole} s"


def moment(wall_ns: int | None) -> str:
    """A wall time in the machine's own zone, `2026-05-04 13:07:09.250`. `-` for None."""
    if wall_ns is None:
        return "-"
    when = datetime.fromtimestamp(wall_ns // 1_000_000_000, tz=UTC).astimezone()
    return f"{when:%Y-%m-%d %H:%M:%S}.{wall_ns // 1_000_000 % 1000:03d}"


def utc(wall_ns: int) -> str:
    """A wall time for machines: RFC 3339, UTC, microseconds."""
    when = datetime.fromtimestamp(wall_ns // 1_000_000_000, tz=UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{wall_ns // 1_000 % 1_000_000:06d}Z"

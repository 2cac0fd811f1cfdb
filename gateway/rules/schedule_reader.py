"""Triggers by time: YAML to schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.rules.phrases import read_ns
from gateway.rules.schedule import Every, Schedule

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from gateway.config.section import Section


def read_schedule(section: Section, zone: ZoneInfo, location: tuple[float, float] | None) -> Schedule | Every | None:
    """Read one; None if something was wrong. Then `section.problems` has it."""
    del zone, location
    period_ns = read_ns(section, "every", least_ns=1_000_000_000)
    return None if period_ns is None else Every(period_ns)

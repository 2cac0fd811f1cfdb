"""When something is due: times of day, cron lines, the sun, plain periods. Pure: an instant in, the next one out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.config.scalars import duration_text


class Schedule(Protocol):
    """Instants on the wall clock."""

    def next_after(self, wall_ns: int) -> int | None:
        """The first instant strictly later than that, in nanoseconds since 1970; None: never again."""

    def describe(self) -> str:
        """For a person."""


@dataclass(frozen=True, slots=True)
class Every:
    """Multiples of a period on the log's own clock."""

    period_ns: int

    def next_after(self, elapsed_ns: int) -> int:
        """The first multiple later than that."""
        return (elapsed_ns // self.period_ns + 1) * self.period_ns

    def describe(self) -> str:
        """For a person."""
        return f"every {duration_text(self.period_ns / 1e9)}"

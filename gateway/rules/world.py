"""What all machines of an engine share beside their own state: the wall clock, and whom to tell why.

Invariants:
- The wall clock is known only from records: the offset to the log's own clock is that of the latest record that was
  stamped while the clock was synchronised. So a replay knows at every instant what the life knew (L12), and a jump of
  the wall clock moves nothing but schedules (L11).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model import Stamp
    from gateway.rules.trace import Tracer


class World:
    """See the module."""

    def __init__(self, trace: Tracer | None = None) -> None:
        """Args: trace: told every step; None costs nothing."""
        self.trace = trace
        self.wall_offset_ns: int | None = None
        """Wall clock minus the log's own; None: no record with a synchronised clock has been seen."""

    def learn(self, stamp: Stamp) -> None:
        """Take in the clocks of a record."""
        if stamp.synced:
            self.wall_offset_ns = stamp.wall_ns - stamp.elapsed_ns

    def wall_ns(self, elapsed_ns: int) -> int | None:
        """The wall clock at an instant of the log's own, in nanoseconds since 1970; None if it is not known."""
        return None if self.wall_offset_ns is None else elapsed_ns + self.wall_offset_ns

    def elapsed_ns(self, wall_ns: int) -> int | None:
        """The instant of the log's own clock at which the wall clock shows a time; None if that is not known."""
        return None if self.wall_offset_ns is None else wall_ns - self.wall_offset_ns

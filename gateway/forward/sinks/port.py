"""What the runner asks of a target. One class per kind of target implements it, in a module of its own.

Invariants that every sink keeps:
- It never retries, pauses or moves a cursor by itself: it answers with a verdict, and the runner decides.
- One `send` or `announce` at a time; the next begins when the last has answered or was cancelled.
- It keeps nothing between calls but its connection. After a cancelled or failed call the next one starts clean.
- It never blocks the loop: what blocks runs in a thread that belongs to this sink alone, so that a stuck sink slows
  nobody (L8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.forward.parcel import Parcel
    from gateway.forward.verdict import Verdict
    from gateway.model import Gap


class Sink(Protocol):
    """A target of events."""

    async def open(self) -> None:
        """Get ready. Does not need the network: an absent peer is found out by `send`."""

    async def send(self, parcel: Parcel) -> Verdict:
        """Offer the records, in order. `Delivered(n)` only once the target has taken responsibility for the first n."""

    async def announce(self, gap: Gap, wall_ns: int) -> Verdict:
        """Tell of records that will never come. `wall_ns`: when the gap was noticed, the same on every try."""

    async def close(self) -> None:
        """Let go of everything. Called once; nothing is sent afterwards."""

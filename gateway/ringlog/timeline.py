"""When records happened, as far as their clocks can tell. Pure: stamps in, times out.

A machine without a battery clock starts somewhere in the past and is put right when a time source answers. What it
wrote before that carries a wrong wall time, but a right monotonic one: so its true time can still be told.

    boot A   1970 ─── 1970 ─── │ time source answers │ ─── 2026 ─── 2026      told: all 2026
    boot B   1970 ─── 1970 ──────────────────────────────── 1970              told: 1970, there is nothing better

Invariants:
- A record whose wall clock was synchronised keeps that time, for ever.
- Any other record of a boot in which the clock was synchronised at some time is told by its monotonic clock, from the
  newest synchronised record of that boot that is known.
- A boot that never was, and records of a machine that has no boot ids, keep the raw wall time.
- `spans` leaves no record out, whatever the clocks did, but for one that was written while the kernel called a wrong
  clock synchronised, in a segment at whose beginning and end it was right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.model import Stamp

EVER_NS = 1 << 63
"""Beyond every time that a stamp can hold; its negative is before all of them."""
SLACK_NS = 1_000_000_000
"""Within one boot, wall and monotonic clock are taken to run alike if they part by no more than this."""
_NO_BOOT_ID = bytes(16)


class Span(NamedTuple):
    """No record outside `[first_ns, last_ns]`; there need not be one inside."""

    first_ns: int
    last_ns: int

    def touches(self, from_ns: int, to_ns: int) -> bool:
        """Whether a record in `[from_ns, to_ns)` may be in it."""
        return self.first_ns < to_ns and from_ns <= self.last_ns


ANY_TIME = Span(-EVER_NS, EVER_NS)


class Timeline:
    """Corrected wall times of one log."""

    def __init__(self, offsets_ns: Mapping[bytes, int] | None = None) -> None:
        """Args: offsets_ns: by boot id, what to add to a monotonic time to get a wall time."""
        self._offsets_ns = dict(offsets_ns or {})

    def knows(self, boot_id: bytes) -> bool:
        """Whether the clock was right at some time of this boot."""
        return boot_id in self._offsets_ns

    def wall_ns(self, stamp: Stamp) -> int:
        """When it happened: UTC, ns since 1970."""
        if stamp.synced:
            return stamp.wall_ns
        offset_ns = self._offsets_ns.get(stamp.boot_id)
        return stamp.wall_ns if offset_ns is None else stamp.mono_ns + offset_ns


def timeline_of(stamps: Iterable[Stamp]) -> Timeline:
    """What stamps of a log, in its order, tell about its boots. Not every stamp is needed: one of each boot will do."""
    return Timeline(
        {
            stamp.boot_id: stamp.wall_ns - stamp.mono_ns
            for stamp in stamps
            if stamp.synced and stamp.boot_id != _NO_BOOT_ID
        }
    )


def boots_in_doubt(firsts: Sequence[Stamp | None]) -> list[int]:
    """Where else to look for a synchronised stamp, if segments begin with these.

    A boot whose segments all begin unsynchronised may have been synchronised in its last one.

    Returns:
        Indexes of these last ones.
    """
    last: dict[bytes, int] = {}
    known = {_NO_BOOT_ID}
    for index, stamp in enumerate(firsts):
        if stamp is None:
            continue
        last[stamp.boot_id] = index
        if stamp.synced:
            known.add(stamp.boot_id)
    return sorted(index for boot_id, index in last.items() if boot_id not in known)


def spans(timeline: Timeline, firsts: Sequence[Stamp | None]) -> list[Span]:
    """Between which times the records of each segment lie.

    Args:
        timeline: of the log.
        firsts: the stamp of each segment's first record, in order; None if it cannot be told.

    Returns:
        One for each. `ANY_TIME` where a clock was moved, or may have been: in a boot that never was synchronised, and
        in the last segment of any boot.
    """
    found = []
    for index, stamp in enumerate(firsts):
        following = firsts[index + 1] if index + 1 < len(firsts) else None
        found.append(ANY_TIME if stamp is None or following is None else _between(timeline, stamp, following))
    return found


def _between(timeline: Timeline, first: Stamp, following: Stamp) -> Span:
    """Every clock must have gone as far as the others. Stamps are a header's word: this finds damage, too."""
    if first.boot_id != following.boot_id or not timeline.knows(first.boot_id):
        return ANY_TIME
    begin_ns, end_ns = timeline.wall_ns(first), timeline.wall_ns(following)
    mono_ns = following.mono_ns - first.mono_ns
    elapsed_ns = following.elapsed_ns - first.elapsed_ns
    if mono_ns < 0 or abs(elapsed_ns - mono_ns) > SLACK_NS or abs(end_ns - begin_ns - mono_ns) > SLACK_NS:
        return ANY_TIME
    return Span(begin_ns - SLACK_NS, end_ns + SLACK_NS)

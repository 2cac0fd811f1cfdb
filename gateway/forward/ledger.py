"""What became of every event before a cursor: the accounting of L7. Pure.

Invariant, asserted on every step: `ordinal - start_ordinal = delivered + dead_lettered + evicted`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.model import Cursor

if TYPE_CHECKING:
    from gateway.model import Position


def begin(position: Position) -> Cursor:
    """The cursor of a sink that starts at `position` and has seen nothing yet."""
    return Cursor(seq=position.seq, ordinal=position.ordinal, start_ordinal=position.ordinal)


def settled_count(cursor: Cursor) -> int:
    """Events with a known end."""
    return cursor.delivered + cursor.dead_lettered + cursor.evicted


def advance(cursor: Cursor, to: Position, *, delivered: int = 0, dead_lettered: int = 0, evicted: int = 0) -> Cursor:
    """The cursor after the events up to `to` have met these ends."""
    moved = Cursor(
        seq=to.seq,
        ordinal=to.ordinal,
        start_ordinal=cursor.start_ordinal,
        delivered=cursor.delivered + delivered,
        dead_lettered=cursor.dead_lettered + dead_lettered,
        evicted=cursor.evicted + evicted,
    )
    assert moved.ordinal - moved.start_ordinal == settled_count(moved), (cursor, to, delivered, dead_lettered, evicted)
    return moved


def rebase(cursor: Cursor, to: Position) -> Cursor:
    """The same accounts at another place of the log's numbering: `start_ordinal` moves along (it may become negative).

    Used when the log and the cursor disagree, which only happens if storage broke its promise.
    """
    return Cursor(
        seq=to.seq,
        ordinal=to.ordinal,
        start_ordinal=to.ordinal - settled_count(cursor),
        delivered=cursor.delivered,
        dead_lettered=cursor.dead_lettered,
        evicted=cursor.evicted,
    )


class Clamped(NamedTuple):
    """A stored cursor, made to fit the log."""

    cursor: Cursor
    beyond: int
    """Events that the cursor had counted and that the log has lost from its end (a disk that lied about a flush)."""


def clamp(cursor: Cursor, end: Position) -> Clamped:
    """Pull a cursor back that stands beyond the log's end. One that stands before its start is met by a gap later."""
    if cursor.seq <= end.seq and cursor.ordinal <= end.ordinal:
        return Clamped(cursor, 0)
    return Clamped(rebase(cursor, end), max(0, cursor.ordinal - end.ordinal))

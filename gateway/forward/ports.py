"""What a runner needs of the ring log: readers, cursors and dead letters, as `gateway.ringlog` offers them.

Stated here as protocols, so that a test can run a runner against a log in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model import Batch, Cursor, DeadLetter, Gap, Position


class Reader(Protocol):
    """A place in the log, as `gateway.ringlog` gives it."""

    @property
    def position(self) -> Position:
        """The next record to read."""

    async def read(self, max_records: int) -> Batch | Gap:
        """What comes next, waiting for it; cancelling the call loses nothing."""


class Log(Protocol):
    """The marks of the event log."""

    @property
    def floor(self) -> Position:
        """The oldest record."""

    @property
    def durable(self) -> Position:
        """Behind the last record that a power cut cannot take."""

    @property
    def appended(self) -> Position:
        """Behind the last record."""


class Cursors(Protocol):
    """Durable cursors by name."""

    @property
    def unusable(self) -> Sequence[str]:
        """Names whose cursor was there and could not be used."""

    def load(self, name: str) -> Cursor | None:
        """What was stored last; None if there is nothing usable."""

    def note(self, name: str, cursor: Cursor) -> None:
        """The sink stands here; to be durable before the log forgets what is before it."""

    async def store(self, name: str, cursor: Cursor, *, after_events: bool = True) -> None:
        """Durable when it returns, this one or what was noted since.

        With `after_events` it waits while the log has no room for events.
        """


class DeadLetters(Protocol):
    """The dead-letter log."""

    async def store(self, letters: Sequence[DeadLetter]) -> None:
        """Durable when it returns."""


class Store(Protocol):
    """An open data directory."""

    @property
    def events(self) -> Log:
        """The ring log of events and decisions."""

    @property
    def cursors(self) -> Cursors:
        """Where consumers stand."""

    @property
    def dead_letters(self) -> DeadLetters:
        """What could not be processed."""

    def reader(self, start: Position, *, durable_only: bool) -> Reader:
        """A reader of the event log from `start` on."""

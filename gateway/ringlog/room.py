"""What gives way when there is no room: the reserve file, and each log's policy.

A full disk is a normal condition. The events log then gives up its oldest segment, or is held (nothing is acknowledged
and the senders keep what they have), as `log.when_full` says. Dead letters, the audit trail and cursors are small and
must go on: for them space is kept back in a file, which is removed when they need it and made anew before the events
log may grow again.

Everything here runs in the writer thread, but for the opening.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model import Position
    from gateway.ringlog.storage import Storage

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Refusals that end when something is deleted."""
NO_ROOM = FULL | {errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE}
"""Refusals that may end by themselves or by an operator's hand, and that say nothing against what was synced."""


class Reserve:
    """A file that takes up space for a worse day."""

    def __init__(self, storage: Storage, path: Path, size_bytes: int) -> None:
        self._storage = storage
        self._path = path
        self._size_bytes = size_bytes
        self._whole = False

    @property
    def size_bytes(self) -> int:
        """What it keeps back when it is whole."""
        return self._size_bytes

    def fill(self) -> None:
        """Make it whole. Costs nothing if it is.

        Raises:
            OSError: if there is no room for it.
        """
        if self._whole:
            return
        try:
            file = self._storage.open(self._path, writable=True)
        except FileNotFoundError:
            file = self._storage.create(self._path)
        with contextlib.closing(file):
            if file.size_bytes() < self._size_bytes:
                try:
                    file.allocate(self._size_bytes)
                except OSError:
                    # What it got so far would look like all of it to the next opening.
                    with contextlib.suppress(OSError):
                        file.truncate(0)
                    raise
                file.sync()
        self._whole = True

    def spend(self) -> bool:
        """Give the space back to the disk. False if there was none left to give."""
        was_whole, self._whole = self._whole, False
        if was_whole:
            with contextlib.suppress(OSError):
                self._storage.remove(self._path)
                self._storage.sync_dir(self._path.parent)
        return was_whole


class Consumers(Protocol):
    """Who reads a log at a pace of their own."""

    def slowest(self) -> Position | None:
        """Where the last of them stands; None if there is none."""

    def write_noted(self) -> None:
        """Put on disk where they stand."""


class Room(Protocol):
    """What a chain of segments asks before it grows or gives something up."""

    def claim(self) -> None:
        """A segment is about to begin. OSError if it should not."""

    def may_evict(self, end: Position, *, disk_full: bool) -> bool:
        """Whether the oldest segment, whose records end at `end`, may go. Called only if something has to."""

    def relieve(self) -> bool:
        """The disk is full and no segment may go: whether there is room now for another try."""

    def before_unlink(self) -> None:
        """A segment is about to go."""

    def slowest(self) -> Position | None:
        """Where the slowest consumer stands; None if there is none."""


class EventsRoom:
    """For the log that telemetry fills: it leaves the reserve alone, and either forgets or waits."""

    def __init__(self, reserve: Reserve, consumers: Consumers, *, hold: bool) -> None:
        """Args: hold: what a consumer has not seen is not given up, neither for a full ring nor for a full disk."""
        self._reserve = reserve
        self._consumers = consumers
        self._hold = hold

    def claim(self) -> None:
        """Grow only if the reserve is whole: space that came back is not ours before that."""
        self._reserve.fill()

    def may_evict(self, end: Position, *, disk_full: bool) -> bool:  # noqa: ARG002 - one policy for both
        """With `hold`, only what every consumer has seen."""
        slowest = self._consumers.slowest()
        return not self._hold or slowest is None or end.seq <= slowest.seq

    def relieve(self) -> bool:
        """Nothing else to give."""
        return False

    def before_unlink(self) -> None:
        """A cursor must not be found behind the log's beginning only because it was not yet written."""
        # A cursor that the disk refuses is told by its owner, who stores it too; here it would cost accuracy, not data.
        with contextlib.suppress(OSError):
            self._consumers.write_noted()

    def slowest(self) -> Position | None:
        """Where the slowest consumer stands; None if there is none."""
        return self._consumers.slowest()


class ReservedRoom:
    """For the small logs that must stay writable: they give up their oldest for their own size only."""

    def __init__(self, reserve: Reserve) -> None:
        self._reserve = reserve

    def claim(self) -> None:
        """Nothing to ask."""

    def may_evict(self, end: Position, *, disk_full: bool) -> bool:  # noqa: ARG002 - they have no consumers
        """What telemetry does to the disk costs no dead letter."""
        return not disk_full

    def relieve(self) -> bool:
        """Take what was kept back."""
        return self._reserve.spend()

    def before_unlink(self) -> None:
        """Nobody's place depends on it."""

    def slowest(self) -> Position | None:
        """No consumers."""
        return None

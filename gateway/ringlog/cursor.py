"""Where each consumer stands, kept across crashes. One two-slot file per consumer in `data_dir/cursors/`.

Invariants:
- A cursor that cannot be read, or that belongs to another log, is as if there were none: the consumer starts where its
  settings say. Damage costs duplicates, never records and never a start.
- `store` returns once the cursor is on disk, after everything appended before it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from gateway.model import Cursor, Position
from gateway.ringlog.room import FULL
from gateway.ringlog.slots import SlotFile

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.ringlog.committer import Committer
    from gateway.ringlog.ring import RingLog
    from gateway.ringlog.room import Reserve
    from gateway.ringlog.storage import Storage

SUFFIX = ".cursor"


class _Stored(msgspec.Struct, frozen=True):
    log_id: str
    cursor: Cursor


class CursorStore:
    """All cursors into one log.

    A sink's cursor is *noted* as it moves and *stored* now and then. What is noted is written before a segment of the
    log is unlinked, so that a crash never finds a cursor before the log's beginning only because it was not yet due.
    """

    def __init__(self, directory: Path, storage: Storage, committer: Committer) -> None:
        """Args: directory: made if it is not there."""
        self._directory = directory
        self._storage = storage
        self._committer = committer
        self._log_id = ""
        self._builds_on: tuple[RingLog, ...] = ()
        self._slots: dict[str, SlotFile] = {}
        self._noted: dict[str, Cursor] = {}
        self._written: dict[str, Cursor] = {}
        """What the writer thread last put on disk."""
        self.unusable: list[str] = []
        """Consumers whose cursor was there and could not be used."""
        storage.make_dir(directory)

    def belong_to(self, log_id: str, builds_on: RingLog, reserve: Reserve) -> None:
        """Say which log these are cursors into, once it is open.

        Args:
            log_id: of the log.
            builds_on: where a sink puts what it will not see again: on disk before its cursor.
            reserve: what a new cursor may take on a full disk.
        """
        self._log_id = log_id
        self._builds_on = (builds_on,)
        self._reserve = reserve

    def load(self, name: str) -> Cursor | None:
        """The cursor of a consumer; None if it has none that can be used."""
        slot = self._slot(name)
        data = slot.load()
        if data is None:
            if slot.is_there():
                self.unusable.append(name)
            return None
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
        except msgspec.MsgspecError:
            stored = None
        if stored is None or stored.log_id != self._log_id:
            self.unusable.append(name)
            return None
        return stored.cursor

    def note(self, name: str, cursor: Cursor) -> None:
        """A sink stands here now, and everything before is settled. Costs nothing; on disk by the next `store`."""
        self._noted[name] = cursor

    def slowest(self) -> Position | None:
        """Where the last of the sinks stands, as far as noted; None if there is no sink."""
        noted = self._noted.copy().values()
        return min((Position(cursor.seq, cursor.ordinal) for cursor in noted), default=None)

    async def store(self, name: str, cursor: Cursor, *, after_events: bool = True) -> None:
        """Keep the cursor; durable when this returns.

        Args:
            name: the consumer.
            cursor: where it stands.
            after_events: it vouches for records that the consumer itself appended to the events log; it waits while
                that finds no room. A sink's does not.

        Raises:
            StorageError: if the disk refuses. A restart then finds the former cursor or this one.
        """
        if not after_events:
            self.note(name, cursor)
        after = None if after_events else self._builds_on
        await self._committer.run(partial(self._write, name, cursor), after=after)

    def write_noted(self) -> None:
        """In the writer thread: put on disk where the sinks stand.

        Raises:
            OSError: if the disk refuses.
        """
        for name, cursor in self._noted.copy().items():
            self._write(name, cursor)

    def close(self) -> None:
        """Give the descriptors back, after the committer has closed."""
        for slot in self._slots.values():
            slot.close()

    def _write(self, name: str, cursor: Cursor) -> None:
        cursor = self._noted.get(name, cursor)  # it may have moved on since
        if cursor == self._written.get(name):
            return
        data = msgspec.msgpack.encode(_Stored(self._log_id, cursor))
        slot = self._slot(name)
        try:
            slot.store(data)
        except OSError as error:
            if error.errno not in FULL or not self._reserve.spend():
                raise
            slot.store(data)
        self._written[name] = cursor

    def _slot(self, name: str) -> SlotFile:
        slot = self._slots.get(name)
        if slot is None:
            slot = self._slots[name] = SlotFile(self._storage, self._directory / f"{name}{SUFFIX}")
        return slot

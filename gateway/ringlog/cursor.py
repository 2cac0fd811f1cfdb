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

from gateway.model import Cursor  # noqa: TC001 - msgspec reads the annotation at run time
from gateway.ringlog.slots import SlotFile

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.ringlog.committer import Committer
    from gateway.ringlog.storage import Storage

SUFFIX = ".cursor"


class _Stored(msgspec.Struct, frozen=True):
    log_id: str
    cursor: Cursor


class CursorStore:
    """All cursors into one log."""

    def __init__(self, directory: Path, log_id: str, storage: Storage, committer: Committer) -> None:
        self._directory = directory
        self._log_id = log_id
        self._storage = storage
        self._committer = committer
        self._slots: dict[str, SlotFile] = {}
        self.unusable: list[str] = []
        """Consumers whose cursor was there and could not be used."""
        storage.make_dir(directory)

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

    async def store(self, name: str, cursor: Cursor) -> None:
        """Keep the cursor; durable when this returns.

        Raises:
            StorageError: if the disk refuses. A restart then finds the former cursor or this one.
        """
        data = msgspec.msgpack.encode(_Stored(self._log_id, cursor))
        await self._committer.run(partial(self._slot(name).store, data))

    def close(self) -> None:
        """Give the descriptors back, after the committer has closed."""
        for slot in self._slots.values():
            slot.close()

    def _slot(self, name: str) -> SlotFile:
        slot = self._slots.get(name)
        if slot is None:
            slot = self._slots[name] = SlotFile(self._storage, self._directory / f"{name}{SUFFIX}")
        return slot

"""Which filters this installation has asked its broker for, kept across restarts.

A broker remembers subscriptions as long as the session lives. One that a configuration no longer names would go on
delivering for ever, and MQTT has no way to ask what a session is subscribed to. So the client keeps its own list.

    {"broker": "host:port", "client_id": "...", "filters": ["devices/+/+", ...]}

Invariants:
- The file names a filter from before it is subscribed until after the broker has confirmed that it is not any more.
- It is replaced whole or not at all. One that cannot be read counts as empty: a lost list costs a subscription that
  stays too long, never an event.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path


class SavedFilters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds."""

    broker: str
    client_id: str
    filters: list[str]


class FilterMemory:
    """The file. `path` None: nothing outlives the process. Its methods may block; call them in a thread."""

    def __init__(self, path: Path | None, broker: str, client_id: str) -> None:
        self._path = path
        self._broker = broker
        self._client_id = client_id

    def load(self) -> frozenset[str]:
        """The filters of the last run, if it was the same session of the same broker."""
        if self._path is None:
            return frozenset()
        try:
            saved = msgspec.json.decode(self._path.read_bytes(), type=SavedFilters)
        except (OSError, msgspec.DecodeError):
            return frozenset()
        if (saved.broker, saved.client_id) != (self._broker, self._client_id):
            return frozenset()
        return frozenset(saved.filters)

    def save(self, filters: frozenset[str]) -> None:
        """Replace the list, synced.

        Raises:
            OSError: the disk refused.
        """
        if self._path is None:
            return
        saved = SavedFilters(self._broker, self._client_id, sorted(filters))
        fresh = self._path.with_name(self._path.name + ".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(saved))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

"""A data directory: everything that the gateway keeps on disk, opened and closed as one.

data_dir/
  lock                 held while a gateway runs here
  events/              the ring log of events and decisions
  deadletters/         the ring log of what could not be processed
  cursors/             one file per consumer
  rules.snapshot       rule state at a position of the log
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from functools import partial
from typing import TYPE_CHECKING

from gateway.errors import LogInUseError, StorageError
from gateway.ringlog import snapshot
from gateway.ringlog.chain import RingSettings
from gateway.ringlog.committer import Committer
from gateway.ringlog.cursor import CursorStore
from gateway.ringlog.deadletters import DeadLetters
from gateway.ringlog.reader import Reader
from gateway.ringlog.ring import RingLog
from gateway.ringlog.storage import DiskStorage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.clock import Clock
    from gateway.config.settings import LogSettings
    from gateway.model import Position
    from gateway.ringlog.storage import Storage

EVENTS_DIR = "events"
DEAD_LETTERS_DIR = "deadletters"
CURSORS_DIR = "cursors"
RULES_SNAPSHOT = "rules.snapshot"
LOCK = "lock"
_DEAD_LETTER_TIP_BYTES = 256 * 1024
_DEAD_LETTER_SEGMENTS = 16
_SMALLEST_SEGMENT_BYTES = 64 * 1024


class Store:
    """An open data directory. Belongs to the loop that opened it."""

    def __init__(
        self,
        data_dir: Path,
        gateway: str,
        settings: LogSettings,
        clock: Clock,
        on_failure: Callable[[StorageError], None],
        storage: Storage | None = None,
    ) -> None:
        """Take the lock, recover both logs, start the writer thread.

        Args:
            data_dir: created if it is not there.
            gateway: id of this gateway, part of every event id.
            settings: sizes and the sync policy.
            clock: what time it is.
            on_failure: called once, on the loop, when the disk cannot be written any more.
            storage: the disk; tests hand in a worse one.

        Raises:
            LogInUseError: if another gateway runs on this directory.
            LogCorruptError: if a log was written by a newer release.
            StorageError: if the disk refuses.
        """
        self.storage = storage if storage is not None else DiskStorage()
        self._data_dir = data_dir
        with contextlib.ExitStack() as undo:
            try:
                self.storage.make_dir(data_dir)
                self._lock = _take_lock(data_dir / LOCK)
                undo.callback(os.close, self._lock)
                self.committer = Committer(clock, settings.sync_interval_s, on_failure)
                undo.callback(self.committer.abandon)
                dead_ring = RingLog(
                    data_dir / DEAD_LETTERS_DIR,
                    gateway,
                    _dead_letter_sizes(settings),
                    clock,
                    self.storage,
                    self.committer,
                )
                self.events = RingLog(
                    data_dir / EVENTS_DIR, gateway, _event_sizes(settings), clock, self.storage, self.committer
                )
                log_id = self.events.origin.log_id
                self.cursors = CursorStore(data_dir / CURSORS_DIR, log_id, self.storage, self.committer)
            except OSError as error:
                raise StorageError(f"cannot open {data_dir}: {error.strerror or error}") from error
            undo.pop_all()
        self.dead_letters = DeadLetters(dead_ring, self.committer)

    def reader(self, start: Position, *, durable_only: bool) -> Reader:
        """A reader of the event log."""
        return Reader(self.events, self.storage, start, durable_only=durable_only)

    def load_rules(self) -> bytes | None:
        """The last rule snapshot; None if there is none or it is damaged."""
        return snapshot.load(self.storage, self._data_dir / RULES_SNAPSHOT)

    async def store_rules(self, state: bytes) -> None:
        """Replace the rule snapshot; durable when this returns.

        Raises:
            StorageError: if the disk refuses.
        """
        await self.committer.run(partial(snapshot.store, self.storage, self._data_dir / RULES_SNAPSHOT, state))

    async def close(self) -> None:
        """Write and sync what is gathered, seal the logs, release the lock."""
        await self.committer.close()
        try:
            if self.committer.failure is None:
                self.dead_letters.ring.close()
                self.events.close()
        finally:
            self.cursors.close()
            os.close(self._lock)


def _take_lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise LogInUseError(f"{path.parent} is in use by another gateway") from None
    return fd


def _event_sizes(settings: LogSettings) -> RingSettings:
    return RingSettings(settings.max_size_bytes, settings.segment_size_bytes, settings.tip_bytes, settings.compress)


def _dead_letter_sizes(settings: LogSettings) -> RingSettings:
    whole = settings.dead_letters_max_size_bytes
    segment = min(settings.segment_size_bytes, max(_SMALLEST_SEGMENT_BYTES, whole // _DEAD_LETTER_SEGMENTS))
    return RingSettings(whole, segment, _DEAD_LETTER_TIP_BYTES, settings.compress)

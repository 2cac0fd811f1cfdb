"""A data directory: everything that the gateway keeps on disk, opened and closed as one.

data_dir/
  lock                 held while a gateway runs here
  events/              the ring log of events and decisions
  deadletters/         the ring log of what could not be processed
  audit/               the ring log of what was decided and what came of it
  clients/             the ring log of what the listener keeps of its clients
  reserve              space kept back, so that the small logs and the cursors stay writable on a full disk
  cursors/             one file per consumer
  rules.snapshot       rule state at a position of the events log
  clients.snapshot     what was kept of the clients at a position of their log
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from functools import partial
from typing import TYPE_CHECKING

from gateway.errors import LogInUseError, StorageError
from gateway.observe import events
from gateway.ringlog import snapshot, swap
from gateway.ringlog.chain import RingSettings
from gateway.ringlog.committer import Committer
from gateway.ringlog.cursor import CursorStore
from gateway.ringlog.deadletters import DeadLetters
from gateway.ringlog.reader import Reader
from gateway.ringlog.recovery import survey
from gateway.ringlog.ring import RingLog
from gateway.ringlog.room import EventsRoom, Reserve, ReservedRoom
from gateway.ringlog.storage import DiskStorage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.clock import Clock
    from gateway.config.settings import LogSettings
    from gateway.model import Position
    from gateway.ringlog.room import Room
    from gateway.ringlog.storage import Storage

EVENTS_DIR = "events"
DEAD_LETTERS_DIR = "deadletters"
AUDIT_DIR = "audit"
CLIENTS_DIR = "clients"
CURSORS_DIR = "cursors"
RULES_SNAPSHOT = "rules.snapshot"
CLIENTS_SNAPSHOT = "clients.snapshot"
RESERVE = "reserve"
LOCK = "lock"
LOGS = (EVENTS_DIR, DEAD_LETTERS_DIR, AUDIT_DIR, CLIENTS_DIR)
_SMALL_TIP_BYTES = 256 * 1024
_SMALL_SEGMENTS = 16
_SMALLEST_SEGMENT_BYTES = 64 * 1024
_CURSORS_BYTES = 64 * 1024
_CLIENTS_BYTES = 16 * 1024 * 1024
"""Several times what is written between two snapshots of it."""


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
            LogVersionError: if a log was written by a newer release.
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
                self._open(data_dir, gateway, settings, clock)
            except OSError as error:
                raise StorageError(f"cannot open {data_dir}: {error.strerror or error}") from error
            undo.pop_all()

    def _open(self, data_dir: Path, gateway: str, settings: LogSettings, clock: Clock) -> None:
        surveyed = {}
        for log in LOGS:
            if (put_back := swap.settle(self.storage, data_dir, log)) is not None:
                events.log_put_back(log, directory=put_back)
            # A newer release's log is refused before any other is touched.
            self.storage.make_dir(data_dir / log)
            surveyed[log] = survey(self.storage, data_dir / log)
        letters, audit, clients = (
            _small_sizes(settings, whole_bytes)
            for whole_bytes in (settings.dead_letters_max_size_bytes, settings.audit_max_size_bytes, _CLIENTS_BYTES)
        )
        segments = (letters, audit, clients)
        kept_bytes = sum(each.segment_size_bytes for each in segments) + _CURSORS_BYTES
        self.reserve = Reserve(self.storage, data_dir / RESERVE, kept_bytes)
        with contextlib.suppress(OSError):  # a full disk must not stop a start
            self.reserve.fill()
        self.cursors = CursorStore(data_dir / CURSORS_DIR, self.storage, self.committer)

        def open_ring(name: str, sizes: RingSettings, room: Room) -> RingLog:
            return RingLog(data_dir / name, gateway, sizes, clock, self.storage, self.committer, room, surveyed[name])

        # In this order a job writes them: what takes something for granted comes behind it. An event whose packet id is
        # not known yet would be stored twice; one of whose packet id there is no event is found out at the next start.
        self.clients = open_ring(CLIENTS_DIR, clients, ReservedRoom(self.reserve))
        self.dead_letters = DeadLetters(
            open_ring(DEAD_LETTERS_DIR, letters, ReservedRoom(self.reserve)), self.committer
        )
        room = EventsRoom(self.reserve, self.cursors, hold=settings.when_full == "hold")
        self.events = open_ring(EVENTS_DIR, _event_sizes(settings), room)
        self.audit = open_ring(AUDIT_DIR, audit, ReservedRoom(self.reserve))
        self.cursors.belong_to(self.events.origin.log_id, self.dead_letters.ring, self.reserve)

    @property
    def rings(self) -> tuple[RingLog, ...]:
        """All logs."""
        return self.events, self.dead_letters.ring, self.audit, self.clients

    def reader(
        self, start: Position, *, durable_only: bool, patient: bool = False, log: RingLog | None = None
    ) -> Reader:
        """A reader of the event log, or of another one."""
        return Reader(log or self.events, self.storage, start, durable_only=durable_only, patient=patient)

    def load_rules(self) -> bytes | None:
        """The last rule snapshot; None if there is none or it is damaged."""
        return snapshot.load(self.storage, self._data_dir / RULES_SNAPSHOT)

    async def store_rules(self, state: bytes) -> None:
        """Replace the rule snapshot; durable when this returns.

        Raises:
            StorageError: if the disk refuses.
        """
        await self.committer.run(partial(snapshot.store, self.storage, self._data_dir / RULES_SNAPSHOT, state))

    def load_clients(self) -> bytes | None:
        """The last snapshot of what is kept of clients; None if there is none or it is damaged."""
        return snapshot.load(self.storage, self._data_dir / CLIENTS_SNAPSHOT)

    async def store_clients(self, state: bytes) -> None:
        """Replace that snapshot; durable when this returns.

        Raises:
            StorageError: if the disk refuses.
        """
        await self.committer.run(partial(snapshot.store, self.storage, self._data_dir / CLIENTS_SNAPSHOT, state))

    async def close(self) -> None:
        """Write and sync what is gathered, seal the logs, release the lock.

        Raises:
            StorageError: a log could not be sealed. All the rest is closed; what was durable stays so.
        """
        await self.committer.close()
        with contextlib.ExitStack() as closing:
            closing.callback(os.close, self._lock)
            closing.callback(self.cursors.close)
            if self.committer.failure is None:
                for ring in self.rings:
                    closing.callback(ring.close)


def _take_lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise LogInUseError(f"{path.parent} is in use by another gateway") from None
    return fd


def _event_sizes(settings: LogSettings) -> RingSettings:
    return RingSettings(
        settings.max_size_bytes,
        settings.segment_size_bytes,
        settings.tip_bytes,
        settings.compress,
        settings.max_age_s,
    )


def _small_sizes(settings: LogSettings, whole_bytes: int) -> RingSettings:
    segment = min(settings.segment_size_bytes, max(_SMALLEST_SEGMENT_BYTES, whole_bytes // _SMALL_SEGMENTS))
    return RingSettings(whole_bytes, segment, _SMALL_TIP_BYTES, settings.compress)

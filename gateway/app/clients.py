"""What the listener keeps of its clients, on disk: a log of entries, and now and then a snapshot that replaces them.

Invariants:
- What was confirmed to a client is in the snapshot or in the entries behind it, whenever the process ends.
- No more is written between two snapshots than half the log holds: then nobody is read until there is one.
- A start takes a snapshot before the port is opened, so that what it found out about the last life's end is found out
  once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.errors import StorageError
from gateway.model import Batch, Format, Gap, Kind
from gateway.mqtt.keeping import dump
from gateway.mqtt.ledger import Ledger, encode_entries, encode_state
from gateway.observe import events
from gateway.ringlog.snapshot import decode_placed, encode_placed

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Position
    from gateway.mqtt.ledger import Entry, State
    from gateway.mqtt.listener import Listener
    from gateway.ringlog import Store

_RECORDS_PER_READ = 20_000
_SNAPSHOT_AFTER_BYTES = 2 * 1024 * 1024
_MOST_UNSAVED_BYTES = 8 * 1024 * 1024
_RETRY_S = 5.0


class Clients:
    """Writes entries for the listener, and gives it at the start what they add up to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._log = store.clients
        self._unsaved_bytes = 0
        self._much_unsaved = asyncio.Event()
        self._has_paused = False
        self.listener: Listener | None = None
        """Whose state the snapshots are of."""

    # For the listener.

    def append(self, entries: list[Entry]) -> None:
        """Write entries with all else that this turn of the loop appends."""
        payload = encode_entries(entries)
        self._log.append(
            Batch(
                kind=Kind.CLIENTS,
                stamp=self._log.stamp(),
                topics=[""],
                formats=[Format.RAW],
                flags=[0],
                payloads=[payload],
            )
        )
        self._unsaved_bytes += len(payload)
        if self._unsaved_bytes > _SNAPSHOT_AFTER_BYTES:
            self._much_unsaved.set()
        if self._unsaved_bytes > _MOST_UNSAVED_BYTES and self.listener is not None and not self._has_paused:
            self._has_paused = True
            asyncio.get_running_loop().call_soon(self.listener.pause)  # not within the turn that brought this

    def when_durable(self, done: Callable[[], None]) -> None:
        """Call once everything appended so far is on disk."""
        self._store.committer.when_durable(done)

    def place(self) -> tuple[int, int]:
        """Epoch of the event log, and the number after its last record."""
        ring = self._store.events
        return ring.epoch, ring.appended.seq

    # For the gateway.

    async def recover(self, listener: Listener) -> None:
        """Give the listener what was kept, before it opens its port.

        Raises:
            OSError: the log cannot be read.
            StorageError: the disk takes no snapshot.
        """
        state = await self._add_up()
        log_offset_ns = self._log.elapsed_ns() - round(listener.now_s() * 1e9)
        listener.restore(state, log_offset_ns)
        self.listener = listener
        if self._log.appended.seq:
            await self.save()

    async def run(self) -> None:
        """Take a snapshot whenever much has been written, until cancelled. A disk that refuses is tried again."""
        while True:
            await self._much_unsaved.wait()
            try:
                await self.save()
                if self._has_paused and self.listener is not None:
                    self._has_paused = False
                    self.listener.resume()
            except StorageError as error:
                if self._store.committer.failure is not None:
                    raise
                events.task_retried("clients", error=str(error), retry_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)

    async def save(self) -> None:
        """Take a snapshot.

        Raises:
            StorageError: if the disk refuses.
        """
        listener, place = self.listener, self._log.appended
        if listener is None:
            return
        state = encode_state(dump(listener.exchange))
        unsaved_bytes = self._unsaved_bytes
        await self._store.store_clients(encode_placed(self._log.origin.log_id, place, state))
        self._unsaved_bytes -= unsaved_bytes
        if self._unsaved_bytes <= _SNAPSHOT_AFTER_BYTES:
            self._much_unsaved.clear()

    async def _add_up(self) -> State:
        ledger, place = self._from_snapshot()
        reader = self._store.reader(place, durable_only=False, log=self._log)
        while reader.position.seq < self._log.appended.seq:
            item = await reader.read(_RECORDS_PER_READ)
            if isinstance(item, Gap):
                continue
            for payload in item.payloads:
                try:
                    ledger.add(payload, item.stamp.elapsed_ns)
                except ValueError as error:
                    events.task_failed("clients", error)
        return ledger.state

    def _from_snapshot(self) -> tuple[Ledger, Position]:
        found = self._store.events.recovered
        try:
            placed = decode_placed(self._store.load_clients(), self._log.origin.log_id)
            if placed is not None:
                position, state = placed
                return Ledger(state, reached=found.reached), position
        except ValueError as error:
            events.task_failed("clients", error)
        return Ledger(reached=found.reached), self._log.floor

"""The audit trail: what was decided and what came of it, copied out of the telemetry's reach.

Decisions and outcomes live in the events log, in one order with what caused them; there, telemetry evicts them sooner
or later. This consumer copies them into a log of their own, so that "why" has an answer for as long as that one keeps.

Invariants:
- A record is copied once it is durable. Around a crash none is copied twice: what the trail's end holds is not copied
  again.
- Nobody waits for it: it gathers for a second, and then writes. An idle gateway writes nothing.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import TYPE_CHECKING

from gateway.errors import GatewayError
from gateway.model import Batch, Cursor, Gap, Kind, Position
from gateway.observe import events

if TYPE_CHECKING:
    from gateway.ringlog import Store

CURSOR = "audit"
_RECORDS_PER_READ = 20_000
_GATHER_S = 5.0
"""As long as this is a copy behind. It costs two syncs, for which on a card acknowledgements and commands wait."""
_COMMIT_AFTER_RECORDS = 100_000
"""A cursor that nothing but telemetry has passed is stored this seldom: a restart then reads so many records again."""
_RETRY_S = 5.0


class AuditTrail:
    """Copies decisions and outcomes from the events log into the audit log, until cancelled."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._log = store.events
        self._trail = store.audit
        cursor = store.cursors.load(CURSOR)
        start = Position(cursor.seq, cursor.ordinal) if cursor is not None else self._log.floor
        self._reader = store.reader(start, durable_only=True, patient=True)
        self._stored = start
        self._copied = cursor.delivered if cursor is not None else 0
        """How far the trail went when the cursor was stored: behind it lies what may come again."""
        self._known_until_seq = self._log.appended.seq
        """Before this, records may have been copied already by an earlier life."""
        self._known: set[bytes] | None = None
        self._gathered: list[Batch] = []
        """Read and not copied yet."""

    async def run(self) -> None:
        """Copy until cancelled. A disk that refuses is tried again."""
        while True:
            try:
                await self._copy_some()
            except (GatewayError, OSError) as error:
                if self._store.committer.failure is not None:
                    raise
                events.task_retried("audit", error=str(error), retry_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)

    async def _copy_some(self) -> None:
        if self._known is None:
            self._known = await self._tail()
        await self._gather()
        await self._commit()

    async def save(self) -> None:
        """At the end: copy what is there, without waiting for more, and store the cursor."""
        if self._known is None:
            self._known = await self._tail()
        await self._take_what_is_there()
        await self._commit()

    async def _commit(self) -> None:
        gathered, self._gathered = self._gathered, []
        for batch in gathered:
            self._trail.append(batch)
        place = self._reader.position
        if place != self._stored:
            # Stored behind the copies, which the same job writes first.
            cursor = Cursor(place.seq, place.ordinal, delivered=self._trail.appended.seq)
            await self._store.cursors.store(CURSOR, cursor)
            self._stored = place

    async def _gather(self) -> None:
        """Take what comes within `_GATHER_S` of the first decision. Or nothing, when much else has gone by."""
        reader = self._reader
        while not self._gathered:
            self._gathered += self._wanted(await reader.read(_RECORDS_PER_READ))
            if reader.position.seq - self._stored.seq >= _COMMIT_AFTER_RECORDS:
                return
        await asyncio.sleep(_GATHER_S)
        await self._take_what_is_there()

    async def _take_what_is_there(self) -> None:
        while self._reader.position.seq < self._log.durable.seq:
            self._gathered += self._wanted(await self._reader.read(_RECORDS_PER_READ))

    def _wanted(self, item: Batch | Gap) -> list[Batch]:
        if isinstance(item, Gap) or item.kind is not Kind.DECISIONS:
            return []
        known = self._known or set()
        if item.seq >= self._known_until_seq or not known:
            return [item.slice(0, len(item))]
        fresh = [index for index, payload in enumerate(item.payloads) if _digest(payload) not in known]
        return [item.slice(index, index + 1) for index in fresh]

    async def _tail(self) -> set[bytes]:
        """What was copied since the cursor was stored; without a cursor, all there is."""
        known: set[bytes] = set()
        if self._reader.position.seq >= self._known_until_seq:
            return known
        reader = self._store.reader(Position(self._copied, 0), durable_only=True, log=self._trail)
        while reader.position.seq < self._trail.durable.seq:
            item = await reader.read(_RECORDS_PER_READ)
            if isinstance(item, Batch):
                known.update(map(_digest, item.payloads))
        return known


def _digest(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=16).digest()

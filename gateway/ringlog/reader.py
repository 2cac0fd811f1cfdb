"""A consumer's view of a log: its own place, its own pace.

Invariants:
- A reader never sees a record at or past its mark: the durable one for whoever lets something out of the gateway, the
  appended one for rules.
- Records come once each and in order. What cannot come any more (evicted, damaged) comes as a `Gap` in its place.
- At the tip nothing is read from disk, and batches are shared, not copied: they are not to be changed.
- Reading from disk happens in a worker thread, a bounded piece at a time, so that a slow card stalls nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING

import zstandard

from gateway.model import Batch, Gap, Position
from gateway.ringlog.badblocks import PatientFile
from gateway.ringlog.frame import Header, decode
from gateway.ringlog.segment import Damage, Found, is_misplaced, locate, scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.ringlog.recovery import SegmentInfo
    from gateway.ringlog.ring import RingLog
    from gateway.ringlog.storage import Storage

_PIECE_BYTES = 512 * 1024


class Reader:
    """Reads one log from a position on. Belongs to one task."""

    def __init__(
        self, ring: RingLog, storage: Storage, start: Position, *, durable_only: bool, patient: bool = False
    ) -> None:
        """See the module.

        Args:
            ring: the log.
            storage: the disk.
            start: where to begin. Beyond the end (a card that lied about a sync) it is brought back to the end.
            durable_only: which mark to stop at.
            patient: what it is read for are not the events; see `RingLog.waiter`.
        """
        self._ring = ring
        self._storage = storage
        self._durable_only = durable_only
        self._patient = patient
        self.was_clamped = start.seq > ring.appended.seq or start.ordinal > ring.appended.ordinal
        self.position = ring.appended if self.was_clamped else start
        self._ahead: deque[Batch | Gap] = deque()
        self._place: tuple[str, int, int] = ("", 0, 0)
        """Segment, offset and sequence number at which the last piece from disk ended."""

    def pending_events(self) -> int:
        """Events at or after the position that have been appended."""
        return self._ring.appended.ordinal - self.position.ordinal

    def poll(self, max_records: int) -> Batch | Gap | None:
        """What comes next, if that can be told without waiting for the disk or for an append."""
        ring, position = self._ring, self.position
        limit = (ring.durable if self._durable_only else ring.appended).seq
        if position.seq >= limit:
            return None
        if self._ahead:
            item = self._ahead.popleft()
        elif position.seq < (floor := ring.floor).seq:
            item = Gap(position.seq, floor.seq, floor.ordinal - position.ordinal, "evicted")
        elif (batch := ring.tip_batch(position.seq)) is not None:
            item = batch
            if position.seq > batch.seq:
                item = batch.slice(position.seq - batch.seq, len(batch))
        else:
            return None
        if isinstance(item, Gap):
            self.position = Position(item.to_seq, position.ordinal + item.events)
            return item
        if len(item) > max_records or item.end > limit:
            cut = min(max_records, limit - item.seq)
            self._ahead.appendleft(item.slice(cut, len(item)))
            item = item.slice(0, cut)
        self.position = Position(item.end, item.end_ordinal)
        return item

    async def read(self, max_records: int) -> Batch | Gap:
        """The next records, all of one kind, or the next gap. Waits until there is something.

        Raises:
            OSError: if the disk cannot be read.
            StorageError: if a block cannot be read, and the disk does not take a write either.
        """
        while True:
            item = self.poll(max_records)
            if item is not None:
                return item
            limit = (self._ring.durable if self._durable_only else self._ring.appended).seq
            if self.position.seq >= limit:
                await self._ring.waiter(durable_only=self._durable_only, patient=self._patient)
            else:
                await self._load()

    async def _load(self) -> None:
        segments = self._ring.layout.segments
        until = self._ring.tip_start()
        position, place = self.position, self._place
        items, place, unreadable_bytes = await asyncio.to_thread(
            _read_piece, self._storage, self._ring, segments, until, position, place
        )
        if unreadable_bytes:
            # A block that is gone is passed over; a disk that is gone is not, since it may come back.
            await self._ring.probe()
        self._place = place
        self._ahead.extend(items)


def _read_piece(
    storage: Storage,
    ring: RingLog,
    segments: tuple[SegmentInfo, ...],
    until: Position,
    position: Position,
    place: tuple[str, int, int],
) -> tuple[list[Batch | Gap], tuple[str, int, int], int]:
    """In a worker thread: about `_PIECE_BYTES` of batches from `position` on, at most one segment's worth."""
    index = bisect_right([segment.head.seq for segment in segments], position.seq) - 1
    if index < 0:
        return [], place, 0
    segment = segments[index]
    bound = segments[index + 1].start if index + 1 < len(segments) else until
    try:
        file = PatientFile(storage.open(ring.directory / segment.name))
    except FileNotFoundError:  # evicted since; the log's floor says so by now
        return [], place, 0
    with contextlib.closing(file):
        name, offset, seq = place
        if name != segment.name or seq != position.seq:
            offset = locate(file, position.seq, segment.head)
        items: list[Batch | Gap] = []
        decompressor = zstandard.ZstdDecompressor()  # this thread's, for this piece
        taken = 0
        for found in scan(file, segment.name, segment.head, offset):
            if isinstance(found, Damage):
                continue
            offset = found.offset
            is_ahead = position.seq < found.header.seq
            if is_ahead and is_misplaced(file, segment.name, segment.head, found, position.seq, bound.seq):
                continue
            if found.header.seq >= bound.seq:
                break  # what lies from here on is in memory
            if taken >= _PIECE_BYTES:
                return items, (segment.name, offset, position.seq), file.unreadable_bytes
            offset += found.header.frame_bytes
            for item in _fit(found, position, ring.origin.gateway, decompressor):
                items.append(item)
                position = _after(item, position)
            taken += found.header.frame_bytes
    if position.seq < bound.seq:
        items.append(Gap(position.seq, bound.seq, max(0, bound.ordinal - position.ordinal), "damaged"))
    return items, (segment.name, offset, position.seq), file.unreadable_bytes


def _fit(
    found: Found, position: Position, gateway: str, decompressor: zstandard.ZstdDecompressor
) -> Iterator[Batch | Gap]:
    """What a frame means to a reader that stands at `position`."""
    header: Header = found.header
    if header.end <= position.seq:
        return
    batch = decode(found.data, found.at, header, gateway, decompressor)
    if not isinstance(batch, Batch):
        yield Gap(position.seq, header.end, max(0, header.end_ordinal - position.ordinal), "damaged")
        return
    if header.seq > position.seq:
        yield Gap(position.seq, header.seq, max(0, header.ordinal - position.ordinal), "damaged")
    yield batch if header.seq >= position.seq else batch.slice(position.seq - header.seq, len(batch))


def _after(item: Batch | Gap, position: Position) -> Position:
    if isinstance(item, Gap):
        return Position(item.to_seq, position.ordinal + item.events)
    return Position(item.end, item.end_ordinal)

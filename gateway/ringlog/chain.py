"""The segments of one log: written by the writer thread, looked at by anyone.

Invariants:
- What others see is one `Layout`, replaced as a whole: nobody ever sees a segment twice, or between two segments.
- One opening writes one run of segments. A write error gives the present segment up at its last synced byte and writes
  the unsynced batches, which are still in memory, into a new one; a sync is never asked twice about the same bytes.
- Disk use stays within the configured size plus one segment (L6). The oldest goes first, never the one being written.
- A full disk is a normal condition: the oldest segment is given up; with none left the writer waits for space.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

import zstandard

from gateway.errors import StorageError
from gateway.model import Batch, Position
from gateway.ringlog.frame import MAX_RECORDS, encode
from gateway.ringlog.recovery import SegmentInfo
from gateway.ringlog.segment import HEAD_BYTES, SegmentHead, SegmentWriter

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from pathlib import Path

    from gateway.ringlog.storage import Storage

_UNSYNCED_BATCHES = 256
_SPACE_RETRY_S = 0.5
_FULL = (errno.ENOSPC, errno.EDQUOT)


class RingSettings(NamedTuple):
    """Sizes of one ring, in bytes."""

    max_size_bytes: int
    segment_size_bytes: int
    tip_bytes: int
    compress: bool


class Layout(NamedTuple):
    """Which segments there are, at one instant."""

    sealed: tuple[SegmentInfo, ...]
    active: SegmentInfo | None
    """The one being written, with the size that is allocated for it."""
    end: Position
    """Behind the last sealed record: where the log begins if there is no segment at all."""

    @property
    def segments(self) -> tuple[SegmentInfo, ...]:
        """All of them, in order."""
        return self.sealed if self.active is None else (*self.sealed, self.active)

    @property
    def start(self) -> Position:
        """The oldest record."""
        segments = self.segments
        return segments[0].start if segments else self.end

    @property
    def size_bytes(self) -> int:
        """On disk, the allocated rest of the active segment included."""
        return sum(segment.size_bytes for segment in self.segments)


class SegmentChain:
    """Writes. Everything but `layout` and the counters belongs to the writer thread."""

    def __init__(
        self,
        storage: Storage,
        directory: Path,
        settings: RingSettings,
        identity: tuple[int, int],
        recovered: Sequence[SegmentInfo],
        end: Position,
        closing: threading.Event,
    ) -> None:
        """See the module.

        Args:
            storage: the disk.
            directory: where the segments lie.
            settings: sizes.
            identity: log id, and the epoch of this opening.
            recovered: segments of earlier openings, in order.
            end: behind their last record.
            closing: set when waiting for space is no longer an option.
        """
        self._storage = storage
        self._directory = directory
        self._settings = settings
        self._log_id, self._epoch = identity
        self._closing = closing
        self._writer: SegmentWriter | None = None
        self._unsynced: list[Batch] = []
        self._compressor = zstandard.ZstdCompressor(level=1) if settings.compress else None
        self.layout = Layout(tuple(recovered), None, end)
        self.written_bytes = 0
        self.evicted_segments = 0
        self.evicted_events = 0
        """Given up since the start, whether or not every sink had them."""
        self.abandoned_segments = 0
        self.waiting_for_space = False

    def write(self, batches: list[Batch], *, sync: bool) -> None:
        """Put the batches on disk.

        Raises:
            StorageError: if neither the present segment nor a new one takes them.
        """
        self._unsynced += batches
        try:
            self._append(batches, sync=sync)
        except OSError as error:
            self._abandon()
            try:
                # From memory into a new segment: after an error the page cache is no evidence of anything.
                self._append(self._unsynced, sync=True)
            except OSError as again:
                self._abandon()
                raise StorageError(f"cannot write to {self._directory}: {again.strerror or again}") from error
            sync = True
        if sync:
            self._unsynced = []
        elif len(self._unsynced) > _UNSYNCED_BATCHES:
            # A policy that syncs late or never promises nothing about these; what is kept for a rewrite is bounded.
            self._unsynced = self._unsynced[-_UNSYNCED_BATCHES:]

    def seal(self) -> None:
        """Finish the active segment, if there is one.

        Raises:
            OSError: if the disk refuses. What was synced stays so.
        """
        writer = self._writer
        if writer is not None:
            writer.seal()
            self._writer = None
            self.layout = Layout((*self.layout.sealed, _info(writer)), None, writer.end)

    def _append(self, batches: list[Batch], *, sync: bool) -> None:
        pieces: list[bytes] = []
        pieces_bytes = 0
        end = self.layout.end
        for batch in _framed(batches):
            frame = encode(batch, self._log_id, self._compressor)
            if self._writer is None or not self._writer.has_room(pieces_bytes, len(frame)):
                if pieces and self._writer is not None:
                    self._writer.write(b"".join(pieces), end)
                    pieces, pieces_bytes = [], 0
                self._roll(Position(batch.seq, batch.ordinal))
            pieces.append(frame)
            pieces_bytes += len(frame)
            self.written_bytes += len(frame)
            end = Position(batch.end, batch.end_ordinal)
        writer = self._writer
        if writer is None:
            return
        if pieces:
            writer.write(b"".join(pieces), end)
        if sync and writer.synced_bytes < writer.used_bytes:
            writer.sync()

    def _roll(self, start: Position) -> None:
        self.seal()
        self._unsynced = _from(self._unsynced, start.seq)
        head = SegmentHead(self._epoch, self._log_id, start.seq, start.ordinal)
        size_bytes = self._settings.segment_size_bytes
        while self.layout.sealed and self.layout.size_bytes + size_bytes > self._settings.max_size_bytes:
            self._evict_oldest()
        while True:
            try:
                writer = SegmentWriter(self._storage, self._directory, head, size_bytes)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._make_space(error)
            else:
                self.waiting_for_space = False
                self._writer = writer
                self.layout = self.layout._replace(active=SegmentInfo(writer.name, head, writer.allocated_bytes))
                return

    def _make_space(self, error: OSError) -> None:
        """Give up the oldest segment, or wait. While this waits nothing is acknowledged, and receivers stop reading."""
        if self.layout.sealed:
            self._evict_oldest()
            return
        self.waiting_for_space = True
        if self._closing.wait(_SPACE_RETRY_S):
            raise error

    def _evict_oldest(self) -> None:
        oldest, *rest = self.layout.sealed
        self.layout = self.layout._replace(sealed=tuple(rest))
        self._storage.remove(self._directory / oldest.name)
        self.evicted_segments += 1
        self.evicted_events += self.layout.start.ordinal - oldest.head.ordinal

    def _abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        self.abandoned_segments += 1
        writer.abandon()
        if writer.used_bytes > HEAD_BYTES:
            self.layout = self.layout._replace(sealed=(*self.layout.sealed, _info(writer)), active=None)
        else:
            # It holds nothing that was synced, and its name is wanted for its successor.
            self.layout = self.layout._replace(active=None)
            self._storage.remove(self._directory / writer.name)


def _info(writer: SegmentWriter) -> SegmentInfo:
    return SegmentInfo(writer.name, writer.head, writer.used_bytes)


def _framed(batches: list[Batch]) -> list[Batch]:
    """The same records in batches of at most `MAX_RECORDS`."""
    if all(len(batch) <= MAX_RECORDS for batch in batches):
        return batches
    return [batch.slice(start, start + MAX_RECORDS) for batch in batches for start in range(0, len(batch), MAX_RECORDS)]


def _from(batches: list[Batch], seq: int) -> list[Batch]:
    """The records from `seq` on."""
    return [
        batch if batch.seq >= seq else batch.slice(seq - batch.seq, len(batch)) for batch in batches if batch.end > seq
    ]

"""The segments of one log: written by the writer thread, looked at by anyone.

Invariants:
- What others see is one `Layout`, replaced as a whole: nobody ever sees a segment twice, or between two segments.
- One opening writes one run of segments. A write error gives the present segment up at its last synced byte and writes
  the unsynced batches, which are still in memory, into a new one; a sync is never asked twice about the same bytes.
- Disk use stays within the configured size plus one segment (L6). The oldest goes first, never the one being written,
  and never the last: it knows where the numbers and the log's clock have got to.
- A full disk is a normal condition: `gateway.ringlog.room` says what gives way. If nothing does, the log is *held*: the
  batches stay here in memory, unacknowledged, and the next `write` takes them up again.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import zstandard

from gateway.errors import StorageError
from gateway.model import Batch, Position
from gateway.ringlog.frame import MAX_RECORDS, encode
from gateway.ringlog.recovery import SegmentInfo, move_aside
from gateway.ringlog.room import FULL, NO_ROOM
from gateway.ringlog.segment import HEAD_BYTES, SegmentHead, SegmentWriter, name_of

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.ringlog.recovery import Recovered
    from gateway.ringlog.room import Room
    from gateway.ringlog.storage import Storage

_UNSYNCED_BATCHES = 256
_ROLL_AFTER_AGE = 8
"""With a retention by age, a segment is finished after this fraction of it: it can only go as a whole."""


class RingSettings(NamedTuple):
    """Sizes of one ring, in bytes, and how long it keeps what it holds."""

    max_size_bytes: int
    segment_size_bytes: int
    tip_bytes: int
    compress: bool
    max_age_s: float | None = None


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
        first = self.sealed[0] if self.sealed else self.active
        return self.end if first is None else first.start

    @property
    def size_bytes(self) -> int:
        """On disk, the allocated rest of the active segment included."""
        return sum(segment.size_bytes for segment in self.segments)


class Eviction(NamedTuple):
    """A segment that was given up."""

    start: Position
    end: Position
    unsent: int
    """Events in it that the slowest consumer had not seen."""
    reason: str
    """`size`, `disk_full` or `age`."""


class _HeldError(Exception):
    """There is no room, and nothing gives way."""


class SegmentChain:
    """Writes. Everything but `layout`, `evictions` and the counters belongs to the writer thread."""

    def __init__(
        self,
        storage: Storage,
        directory: Path,
        settings: RingSettings,
        identity: tuple[int, int],
        recovered: Recovered,
        room: Room,
    ) -> None:
        """See the module.

        Args:
            storage: the disk.
            directory: where the segments lie.
            settings: sizes.
            identity: log id, and the epoch of this opening.
            recovered: what earlier openings left.
            room: what gives way when there is none.
        """
        self._storage = storage
        self._directory = directory
        self._settings = settings
        self._log_id, self._epoch = identity
        self._room = room
        self._writer: SegmentWriter | None = None
        self._backlog: deque[Batch] = deque()
        """Not written yet, one frame each."""
        self._unsynced: deque[Batch] = deque()
        """Written to the present segment and not yet synced."""
        self._leftover = ""
        """A file without a synced record that could not be removed; its name is wanted again."""
        self._newest_elapsed_ns = recovered.last_stamp.elapsed_ns if recovered.last_stamp is not None else None
        self._compressor = zstandard.ZstdCompressor(level=1) if settings.compress else None
        self.layout = Layout(tuple(recovered.segments), None, recovered.end)
        self.written_bytes = 0
        self.evicted: dict[str, int] = {}
        """Events given up since the start, by reason, whether or not every sink had them."""
        self.evictions: deque[Eviction] = deque(maxlen=1_000)
        """What the loop has not been told yet."""
        self.abandoned_segments = 0

    def write(self, batches: list[Batch], *, sync: bool) -> str | None:
        """Put the batches on disk, after those that are held.

        Returns:
            None if everything is written, and synced if asked; else why the log is held. What is held stays here.

        Raises:
            StorageError: if neither the present segment nor a new one takes them.
        """
        self._backlog += _framed(batches)
        try:
            return self._drain(sync=sync)
        except OSError as error:
            self._abandon()
            try:
                # From memory into a new segment: after an error the page cache is no evidence of anything.
                return self._drain(sync=True)
            except OSError as again:
                self._abandon()
                if again.errno in NO_ROOM:
                    return again.strerror
                raise StorageError(f"cannot write to {self._directory}: {again.strerror or again}") from error

    def seal(self) -> None:
        """Finish the active segment, if there is one.

        Raises:
            OSError: if the disk refuses. What was synced stays so.
        """
        writer, active = self._writer, self.layout.active
        if writer is not None and active is not None:
            writer.seal()
            self._writer = None
            self._unsynced.clear()
            sealed = active._replace(size_bytes=writer.used_bytes, last_elapsed_ns=self._newest_elapsed_ns)
            self.layout = Layout((*self.layout.sealed, sealed), None, writer.end)

    def close(self) -> None:
        """Finish the active segment for good.

        Raises:
            OSError: if the disk refuses. What was synced stays so; nothing stays open.
        """
        try:
            self.seal()
        except OSError:
            self._abandon()
            raise

    def expire(self, now_elapsed_ns: int) -> None:
        """Give up segments whose newest record is older than the configured age, on the log's own clock.

        Raises:
            OSError: if the disk refuses.
        """
        if self._settings.max_age_s is None:
            return
        age_ns = int(self._settings.max_age_s * 1e9)
        active = self.layout.active
        begun_ns = active.first_elapsed_ns if active is not None else None
        if begun_ns is not None and begun_ns < now_elapsed_ns - age_ns // _ROLL_AFTER_AGE:
            try:
                self.seal()
            except OSError:
                self._abandon()  # the next write takes up what it held
                raise
        while len(self.layout.segments) > 1:  # the last one knows where the numbers and the clock have got to
            oldest, *later = self.layout.segments
            latest = [oldest.last_elapsed_ns, *(each.first_elapsed_ns for each in later), self._newest_elapsed_ns]
            newest_ns = next((known_ns for known_ns in latest if known_ns is not None), None)
            if newest_ns is None or newest_ns >= now_elapsed_ns - age_ns:
                return
            self._evict_oldest("age")

    def _drain(self, *, sync: bool) -> str | None:
        try:
            self._append()
        except _HeldError as held:
            return str(held)
        writer = self._writer
        if sync and writer is not None:
            if writer.synced_bytes < writer.used_bytes:
                writer.sync()
            self._unsynced.clear()
        while len(self._unsynced) > _UNSYNCED_BATCHES:
            # A policy that syncs late or never promises nothing about these; what is kept for a rewrite is bounded.
            self._unsynced.popleft()
        return None

    def _append(self) -> None:
        pieces: list[bytes] = []
        pieces_bytes = 0
        for batch in tuple(self._backlog):
            frame = encode(batch, self._log_id, self._compressor)
            if self._writer is None or not self._writer.has_room(pieces_bytes, len(frame)):
                self._put(pieces)
                pieces, pieces_bytes = [], 0
                self._roll(batch)
            pieces.append(frame)
            pieces_bytes += len(frame)
        self._put(pieces)

    def _put(self, frames: list[bytes]) -> None:
        """Write frames: the first of the backlog, one each."""
        writer = self._writer
        if not frames or writer is None:
            return
        data = b"".join(frames)
        last = self._backlog[len(frames) - 1]
        writer.write(data, Position(last.end, last.end_ordinal))
        self.written_bytes += len(data)
        self._newest_elapsed_ns = last.stamp.elapsed_ns
        for _ in frames:
            self._unsynced.append(self._backlog.popleft())

    def _roll(self, first: Batch) -> None:
        """Begin the segment that starts with this batch."""
        self.seal()
        size_bytes = self._settings.segment_size_bytes
        while len(self.layout.segments) > 1 and self.layout.size_bytes + size_bytes > self._settings.max_size_bytes:
            if not self._room.may_evict(self._oldest_end(), disk_full=False):
                raise _HeldError("the ring is full of events that a sink has not seen yet")
            self._evict_oldest("size")
        head = SegmentHead(self._epoch, self._log_id, first.seq, first.ordinal)
        while True:
            try:
                self._room.claim()
                self._begin(head, size_bytes, first.stamp.elapsed_ns)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                if error.errno not in FULL or not self._make_space():
                    raise _HeldError(error.strerror) from error
            else:
                return

    def _begin(self, head: SegmentHead, size_bytes: int, elapsed_ns: int) -> None:
        name = name_of(head.seq)
        if self._leftover == name:
            self._storage.remove(self._directory / name)
            self._leftover = ""
        try:
            self._writer = self._new_writer(head, size_bytes)
        except FileExistsError:
            # Not ours (a segment of another log, put here since): it is neither written to nor deleted.
            move_aside(self._storage, self._directory / name)
            self._writer = self._new_writer(head, size_bytes)
        active = SegmentInfo(name, head, self._writer.allocated_bytes, elapsed_ns)
        self.layout = self.layout._replace(active=active)

    def _new_writer(self, head: SegmentHead, size_bytes: int) -> SegmentWriter:
        try:
            return SegmentWriter(self._storage, self._directory, head, size_bytes)
        except FileExistsError:
            raise
        except OSError:
            self._leftover = name_of(head.seq)
            raise

    def _make_space(self) -> bool:
        if len(self.layout.segments) > 1 and self._room.may_evict(self._oldest_end(), disk_full=True):
            self._evict_oldest("disk_full")
            return True
        return self._room.relieve()

    def _oldest_end(self) -> Position:
        segments = self.layout.segments
        return segments[1].start if len(segments) > 1 else self.layout.end

    def _evict_oldest(self, reason: str) -> None:
        self._room.before_unlink()
        end, slowest = self._oldest_end(), self._room.slowest()
        oldest, *rest = self.layout.sealed
        self._storage.remove(self._directory / oldest.name)
        self.layout = self.layout._replace(sealed=tuple(rest))
        events = end.ordinal - oldest.head.ordinal
        self.evicted[reason] = self.evicted.get(reason, 0) + events
        unsent = 0 if slowest is None else max(0, min(events, end.ordinal - slowest.ordinal))
        self.evictions.append(Eviction(oldest.start, end, unsent, reason))
        # Some file systems (ext4 with data=writeback) use freed blocks before the unlink is on the medium: after a cut
        # the segment would be back, with somebody else's bytes in it. Counted before: it is gone whatever this says.
        self._storage.sync_dir(self._directory)

    def _abandon(self) -> None:
        """Never touch the present segment again; what it did not sync is to be written anew."""
        self._backlog.extendleft(reversed(self._unsynced))
        self._unsynced.clear()
        writer, self._writer = self._writer, None
        active = self.layout.active
        if writer is None or active is None:
            return
        self.abandoned_segments += 1
        writer.abandon()
        if writer.used_bytes > HEAD_BYTES:
            kept = active._replace(size_bytes=writer.used_bytes, last_elapsed_ns=self._newest_elapsed_ns)
            self.layout = Layout((*self.layout.sealed, kept), None, writer.end)
            return
        # It holds nothing that was synced, and its name is wanted for its successor.
        self.layout = self.layout._replace(active=None)
        self._leftover = writer.name
        with contextlib.suppress(OSError):
            self._storage.remove(self._directory / writer.name)
            self._leftover = ""


def _framed(batches: list[Batch]) -> list[Batch]:
    """The same records in batches of at most `MAX_RECORDS`."""
    if all(len(batch) <= MAX_RECORDS for batch in batches):
        return batches
    return [batch.slice(start, start + MAX_RECORDS) for batch in batches for start in range(0, len(batch), MAX_RECORDS)]

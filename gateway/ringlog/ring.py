"""The ring log: an append-only, bounded, ordered store of batches.

    floor ──── segments on disk ──── tip (also in memory) ──── durable ──── appended
      │                                                           │             └ rules read up to here
      └ eviction moves it, whole segments at a time               └ everyone who lets something out reads up to here

Invariants:
- Sequence numbers are dense and grow; so do ordinals, which number events only.
- What lies between durable and appended is in memory, always; readers never look for it on disk.
- Disk use stays within the configured size plus one segment (L6). The oldest goes first, and never the one being
  written.
- One opening writes one run of segments. A write error seals the present segment and writes the unsynced batches, which
  are still in memory, into a new one; `fsync` is never asked twice about the same bytes.
"""

from __future__ import annotations

import asyncio
import errno
import os
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import zstandard

from gateway.errors import StorageError
from gateway.model import Batch, Origin, Position, Stamp
from gateway.ringlog.frame import MAX_RECORDS, encode
from gateway.ringlog.recovery import Recovered, SegmentInfo, recover
from gateway.ringlog.segment import HEAD_BYTES, SegmentHead, SegmentWriter
from gateway.ringlog.slots import SlotFile

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.clock import Clock
    from gateway.ringlog.committer import Committer
    from gateway.ringlog.storage import Storage

_RECORD_OVERHEAD_BYTES = 150
"""What a record costs in memory beside its payload, roughly."""
_META_BYTES = 12
_UNSYNCED_BATCHES = 256
_SPACE_RETRY_S = 0.5
_FULL = (errno.ENOSPC, errno.EDQUOT)


class RingSettings(NamedTuple):
    """Sizes of one ring, in bytes."""

    max_size_bytes: int
    segment_size_bytes: int
    tip_bytes: int
    compress: bool


class RingLog:
    """One log. Called on the loop, but for `write`, which the writer thread calls."""

    def __init__(
        self,
        directory: Path,
        gateway: str,
        settings: RingSettings,
        clock: Clock,
        storage: Storage,
        committer: Committer,
    ) -> None:
        """Open the log, recovering it first. Nothing is written to it before the first append.

        Raises:
            OSError: if the disk refuses.
            LogCorruptError: if the log was written by a newer release.
        """
        self.directory = directory
        self._settings = settings
        self._clock = clock
        self._storage = storage
        self._committer = committer
        storage.make_dir(directory)
        self._meta = SlotFile(storage, directory / "meta")
        self.recovered = self._identify()
        assert self.recovered.log_id is not None, "every log has an id once it is open"
        self.log_id = self.recovered.log_id
        self.epoch = self.recovered.epoch + 1
        self._meta.store(self.log_id.to_bytes(8, "little") + self.epoch.to_bytes(4, "little"))
        self._meta.close()
        self.origin = Origin(gateway, f"{self.log_id:016x}", self.epoch)
        self.evicted_events = 0
        """Given up since the start, whether or not every sink had them."""
        self._elapsed_offset_ns = _elapsed_offset_ns(self.recovered.last_stamp, clock)

        end = self.recovered.end
        self.appended = end
        self.durable = end
        self._unwritten: list[Batch] = []
        self._tip: deque[Batch] = deque()
        self._tip_seqs: deque[int] = deque()
        self._tip_sizes: deque[int] = deque()
        self._tip_bytes = 0
        self._append_waiters: list[asyncio.Future[None]] = []
        self._commit_waiters: list[asyncio.Future[None]] = []

        # The writer thread's own from here on; the loop only looks, so what it looks at is replaced, never changed.
        self.segments: tuple[SegmentInfo, ...] = tuple(self.recovered.segments)
        self._writer: SegmentWriter | None = None
        self._sealed_end = end
        self._unsynced: list[Batch] = []
        self._compressor = zstandard.ZstdCompressor(level=1) if settings.compress else None
        self.written_bytes = 0
        self.evicted_segments = 0
        self.abandoned_segments = 0
        self.waiting_for_space = False
        committer.add(self)

    def _identify(self) -> Recovered:
        meta = self._meta.load()
        log_id = int.from_bytes(meta[:8], "little") if meta is not None and len(meta) == _META_BYTES else None
        found = recover(self._storage, self.directory, log_id)
        if meta is not None and log_id is not None:
            found.epoch = max(found.epoch, int.from_bytes(meta[8:], "little"))
        if found.log_id is None:
            found.log_id = int.from_bytes(os.urandom(8), "little") | 1
        return found

    # On the loop.

    def stamp(self) -> Stamp:
        """A reading of all clocks, with the log's own elapsed time, for a batch that has just arrived."""
        clock = self._clock
        return Stamp(clock.wall_ns(), clock.mono_ns(), self.elapsed_ns(), clock.boot_id(), clock.synced())

    def elapsed_ns(self) -> int:
        """The log's own clock: monotonic, carried across restarts, never back."""
        return self._clock.mono_ns() + self._elapsed_offset_ns

    def append(self, batch: Batch) -> None:
        """Number the batch and let readers at the tip see it. It is on disk when `durable` has passed it."""
        assert len(batch) > 0, "an empty batch has no place in the log"
        batch.origin = self.origin
        batch.seq, batch.ordinal = self.appended
        self.appended = Position(batch.end, batch.end_ordinal)
        self._unwritten.append(batch)
        size = sum(map(len, batch.payloads)) + _RECORD_OVERHEAD_BYTES * len(batch)
        self._tip.append(batch)
        self._tip_seqs.append(batch.seq)
        self._tip_sizes.append(size)
        self._tip_bytes += size
        waiters, self._append_waiters = self._append_waiters, []
        for future in waiters:
            _resolve(future)
        self._committer.request()

    def tip_batch(self, seq: int) -> Batch | None:
        """The batch in memory that holds `seq`, if there is one."""
        if not self._tip or seq < self._tip_seqs[0] or seq >= self.appended.seq:
            return None
        return self._tip[bisect_right(self._tip_seqs, seq) - 1]

    def tip_start(self) -> Position:
        """Where memory begins: the end of the log if nothing is in memory."""
        return Position(self._tip[0].seq, self._tip[0].ordinal) if self._tip else self.appended

    @property
    def floor(self) -> Position:
        """Where the log begins: what was before has been evicted."""
        segments, writer = self.segments, self._writer
        if segments:
            return segments[0].start
        return Position(writer.head.seq, writer.head.ordinal) if writer is not None else self._sealed_end

    def on_disk(self) -> list[SegmentInfo]:
        """Every segment in order, the one being written included (with what has been written so far)."""
        segments, writer = self.segments, self._writer
        last = [SegmentInfo(writer.name, writer.head, writer.used_bytes)] if writer is not None else []
        return [*segments, *last]

    def waiter(self, *, durable_only: bool = False) -> asyncio.Future[None]:
        """Resolves when the mark moves at which the caller reads: at the next append, or at the next commit."""
        future = asyncio.get_running_loop().create_future()
        (self._commit_waiters if durable_only else self._append_waiters).append(future)
        return future

    @property
    def unwritten_bytes(self) -> int:
        """Payload bytes appended and not yet handed to the writer."""
        return sum(sum(map(len, batch.payloads)) for batch in self._unwritten)

    async def wait_until(self, deadline_ns: int | None, *, durable_only: bool = False) -> None:
        """Return when the mark moves, or when `elapsed_ns` has reached `deadline_ns`."""
        waiter = self.waiter(durable_only=durable_only)
        if deadline_ns is None:
            await waiter
            return
        pause_s = max(0.0, (deadline_ns - self.elapsed_ns()) / 1e9)
        timer = asyncio.get_running_loop().call_later(pause_s, _resolve, waiter)
        try:
            await waiter
        finally:
            timer.cancel()

    async def durable_past(self, seq: int, timeout_s: float) -> bool:
        """Wait until everything before `seq` is durable. False if that takes longer than `timeout_s`."""
        deadline_ns = self.elapsed_ns() + int(timeout_s * 1e9)
        while self.durable.seq < seq:
            if self.elapsed_ns() >= deadline_ns:
                return False
            await self.wait_until(deadline_ns, durable_only=True)
        return True

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, the allocated rest of the present segment included."""
        writer = self._writer
        return sum(segment.size_bytes for segment in self.segments) + (writer.allocated_bytes if writer else 0)

    def take(self) -> list[Batch]:
        """For the committer: what was appended since the last call."""
        batches, self._unwritten = self._unwritten, []
        return batches

    def finished(self, batches: list[Batch]) -> None:
        """For the committer: these are durable now."""
        last = batches[-1]
        self.durable = Position(last.end, last.end_ordinal)
        while (
            self._tip_bytes > self._settings.tip_bytes and self._tip[0].end <= self.durable.seq and len(self._tip) > 1
        ):
            self._tip.popleft()
            self._tip_seqs.popleft()
            self._tip_bytes -= self._tip_sizes.popleft()
        waiters, self._commit_waiters = self._commit_waiters, []
        for future in waiters:
            _resolve(future)

    # In the writer thread.

    def write(self, batches: list[Batch], *, sync: bool) -> None:
        """Put the batches on disk.

        Raises:
            StorageError: if neither the present segment nor a new one takes them.
        """
        self._unsynced += batches
        try:
            self._write(batches, sync=sync)
        except OSError as error:
            self._abandon()
            try:
                # From memory into a new segment: after an error the page cache is no evidence of anything.
                self._write(self._unsynced, sync=True)
            except OSError as again:
                self._abandon()
                raise StorageError(f"cannot write to {self.directory}: {again.strerror or again}") from error
            sync = True
        if sync:
            self._unsynced = []
        elif len(self._unsynced) > _UNSYNCED_BATCHES:
            # A policy that syncs late or never promises nothing about these; what is kept for a rewrite is bounded.
            self._unsynced = self._unsynced[-_UNSYNCED_BATCHES:]

    def _write(self, batches: list[Batch], *, sync: bool) -> None:
        pieces: list[bytes] = []
        pieces_bytes = 0
        end = Position(0, 0)
        for batch in _framed(batches):
            frame = encode(batch, self.log_id, self._compressor)
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
        self._seal()
        self._unsynced = _from(self._unsynced, start.seq)
        head = SegmentHead(self.epoch, self.log_id, start.seq, start.ordinal)
        size = self._settings.segment_size_bytes
        while (
            self.segments
            and sum(segment.size_bytes for segment in self.segments) + size > self._settings.max_size_bytes
        ):
            self._evict_oldest()
        while True:
            try:
                self._writer = SegmentWriter(self._storage, self.directory, head, size)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._make_space(error)
            else:
                self.waiting_for_space = False
                return

    def _make_space(self, error: OSError) -> None:
        """A full disk is a normal condition: give up the oldest segment, and with none left wait for space.

        While this waits nothing is acknowledged: devices keep what they have, and the receivers stop reading.
        """
        if self.segments:
            self._evict_oldest()
            return
        self.waiting_for_space = True
        if self._committer.closing.wait(_SPACE_RETRY_S):
            raise error

    def _evict_oldest(self) -> None:
        oldest = self.segments[0]
        self.segments = self.segments[1:]
        self._storage.remove(self.directory / oldest.name)
        self.evicted_segments += 1
        self.evicted_events += self.floor.ordinal - oldest.head.ordinal

    def _seal(self) -> None:
        if self._writer is not None:
            writer = self._writer
            writer.seal()
            self.segments = (*self.segments, SegmentInfo(writer.name, writer.head, writer.used_bytes))
            self._sealed_end = writer.end
            self._writer = None

    def _abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        self.abandoned_segments += 1
        writer.abandon()
        if writer.used_bytes > HEAD_BYTES:
            self.segments = (*self.segments, SegmentInfo(writer.name, writer.head, writer.used_bytes))
        else:
            # It holds nothing that was synced, and its name is wanted for its successor.
            self._storage.remove(self.directory / writer.name)

    def close(self) -> None:
        """After the committer has closed: seal the present segment.

        Raises:
            StorageError: if the disk refuses. What was durable stays so.
        """
        try:
            self._seal()
        except OSError as error:
            raise StorageError(f"cannot seal the log in {self.directory}: {error}") from error


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


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


def _elapsed_offset_ns(last: Stamp | None, clock: Clock) -> int:
    """What to add to the monotonic clock so that elapsed time goes on from the last record.

    Same boot: the monotonic clock has counted the pause itself. Another boot: the pause is counted if the wall clock
    was synchronised on both sides, else it is as if there had been none; it is never guessed from one that may jump.
    """
    mono_ns = clock.mono_ns()
    if last is None:
        return -mono_ns
    if last.boot_id == clock.boot_id() and mono_ns >= last.mono_ns:
        return last.elapsed_ns - last.mono_ns
    pause_ns = max(0, clock.wall_ns() - last.wall_ns) if last.synced and clock.synced() else 0
    return last.elapsed_ns + pause_ns - mono_ns

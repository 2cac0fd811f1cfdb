"""The ring log: an append-only, bounded, ordered store of batches.

    floor ──── segments on disk ──── tip (also in memory) ──── durable ──── appended
      │                                                           │             └ rules read up to here
      └ eviction moves it, whole segments at a time               └ everyone who lets something out reads up to here

Invariants:
- Sequence numbers are dense and grow; so do ordinals, which number events only.
- What lies between durable and appended is in memory, always; readers never look for it on disk.
- All methods are called on the loop, but for `write`, which the committer's thread calls and which only hands on to the
  `SegmentChain`; what the loop sees of the disk is one `Layout`.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from gateway.errors import StorageError
from gateway.model import Batch, Kind, Origin, Position, Stamp
from gateway.observe import events
from gateway.ringlog.chain import RingSettings, SegmentChain
from gateway.ringlog.recovery import Recovered, recover
from gateway.ringlog.slots import SlotFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gateway.clock import Clock
    from gateway.ringlog.chain import Layout
    from gateway.ringlog.committer import Committer
    from gateway.ringlog.recovery import Survey
    from gateway.ringlog.room import Room
    from gateway.ringlog.storage import Storage

PATIENCE_RECORDS = 1_024
"""So many events at most, and half of what is kept in memory, go by those who wait for something else: what they have
still to pass over is neither read from the disk nor evicted."""
_RECORD_OVERHEAD_BYTES = 150
"""What a record costs in memory beside its payload, roughly."""
_META_BYTES = 12


class RingLog:
    """One log. See the module."""

    def __init__(
        self,
        directory: Path,
        gateway: str,
        settings: RingSettings,
        clock: Clock,
        storage: Storage,
        committer: Committer,
        room: Room,
        surveyed: Survey | None = None,
    ) -> None:
        """Open the log, recovering it first. Nothing is written to it before the first append.

        Raises:
            OSError: if the disk refuses.
            LogVersionError: if the log was written by a newer release.
        """
        self.directory = directory
        self.name = directory.name
        self._settings = settings
        self._clock = clock
        self._storage = storage
        self._committer = committer
        storage.make_dir(directory)
        self._meta = SlotFile(storage, directory / "meta")
        self.recovered = self._identify(surveyed)
        assert self.recovered.log_id is not None, "every log has an id once it is open"
        self.log_id = self.recovered.log_id
        self.epoch = self.recovered.epoch + 1
        self._identity = self.log_id.to_bytes(8, "little") + self.epoch.to_bytes(4, "little")
        self._meta.store(self._identity)
        self._meta.close()
        self.origin = Origin(gateway, f"{self.log_id:016x}", self.epoch)
        self._elapsed_offset_ns = _elapsed_offset_ns(self.recovered.last_stamp, clock)

        end = self.recovered.end
        self.appended = end
        self.durable = end
        self._unwritten: list[Batch] = []
        self._tip: deque[Batch] = deque()
        self._tip_seqs: deque[int] = deque()
        self._tip_sizes: deque[int] = deque()
        self._tip_bytes = 0
        patience_bytes = settings.tip_bytes // 2
        self._append_waiters = _Waiters(patience_bytes)
        self._commit_waiters = _Waiters(patience_bytes)

        identity = (self.log_id, self.epoch)
        self._chain = SegmentChain(storage, directory, settings, identity, self.recovered, room)
        committer.add(self)

    def _identify(self, surveyed: Survey | None) -> Recovered:
        meta = self._meta.load()
        log_id = int.from_bytes(meta[:8], "little") if meta is not None and len(meta) == _META_BYTES else None
        found = recover(self._storage, self.directory, log_id, surveyed)
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
        size = _size_bytes(batch)
        self._tip.append(batch)
        self._tip_seqs.append(batch.seq)
        self._tip_sizes.append(size)
        self._tip_bytes += size
        self._append_waiters.wake((batch,), size)
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
        return self._chain.layout.start

    @property
    def layout(self) -> Layout:
        """The segments on disk, at this instant."""
        return self._chain.layout

    @property
    def chain(self) -> SegmentChain:
        """The writer's side, for its counters."""
        return self._chain

    def waiter(self, *, durable_only: bool = False, patient: bool = False) -> asyncio.Future[None]:
        """Resolves when the mark moves at which the caller reads: at the next append, or at the next commit.

        Args:
            durable_only: at the next commit.
            patient: events alone do not end the wait, until many have gathered: see `PATIENCE_RECORDS`.
        """
        return (self._commit_waiters if durable_only else self._append_waiters).add(patient=patient)

    @property
    def unwritten_bytes(self) -> int:
        """Payload bytes appended and not yet handed to the writer."""
        return sum(sum(map(len, batch.payloads)) for batch in self._unwritten)

    async def wait_until(self, deadline_ns: int | None, *, durable_only: bool = False, patient: bool = False) -> None:
        """Return when the mark moves (see `waiter`), or when `elapsed_ns` has reached `deadline_ns`."""
        waiter = self.waiter(durable_only=durable_only, patient=patient)
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

    def take(self) -> list[Batch]:
        """For the committer: what was appended since the last call."""
        batches, self._unwritten = self._unwritten, []
        return batches

    def finished(self, batches: list[Batch]) -> None:
        """For the committer: these are durable now. There may be none of them."""
        while self._chain.evictions:
            gone = self._chain.evictions.popleft()
            events.log_evicted(
                self.name,
                from_seq=gone.start.seq,
                to_seq=gone.end.seq,
                events=gone.end.ordinal - gone.start.ordinal,
                unsent=gone.unsent,
                reason=gone.reason,
            )
        if not batches:
            return
        last = batches[-1]
        self.durable = Position(last.end, last.end_ordinal)
        while (
            self._tip_bytes > self._settings.tip_bytes and self._tip[0].end <= self.durable.seq and len(self._tip) > 1
        ):
            self._tip.popleft()
            self._tip_seqs.popleft()
            self._tip_bytes -= self._tip_sizes.popleft()
        self._commit_waiters.wake(batches, sum(map(_size_bytes, batches)))

    def write(self, batches: list[Batch], *, sync: bool) -> str | None:
        """For the committer, in its thread: put the batches on disk. Why they are held, if they are.

        Raises:
            StorageError: if the disk takes them nowhere.
        """
        return self._chain.write(batches, sync=sync)

    async def probe(self) -> None:
        """Return if the disk takes a write and a sync.

        Raises:
            StorageError: if it does not.
        """
        await self._committer.run(partial(self._meta.store, self._identity), after=())

    async def expire(self) -> None:
        """Give up what is older than the configured age.

        Raises:
            StorageError: if the disk refuses.
        """
        await self._committer.run(partial(self._chain.expire, self.elapsed_ns()), after=())

    def close(self) -> None:
        """After the committer has closed: seal the present segment.

        Raises:
            StorageError: if the disk refuses. What was durable stays so.
        """
        self._meta.close()
        try:
            self._chain.close()
        except OSError as error:
            raise StorageError(f"cannot seal the log in {self.directory}: {error}") from error


class _Waiters:
    """Who waits for one of the marks to move."""

    def __init__(self, patience_bytes: int) -> None:
        self._patience_bytes = patience_bytes
        self._eager: list[asyncio.Future[None]] = []
        self._patient: list[asyncio.Future[None]] = []
        self._gathered = 0
        """Records since the patient were last woken."""
        self._gathered_bytes = 0

    def add(self, *, patient: bool) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        if patient:
            self._patient = [waiting for waiting in self._patient if not waiting.done()]  # some had a deadline
            self._patient.append(future)
        else:
            self._eager.append(future)
        return future

    def wake(self, batches: Sequence[Batch], size_bytes: int) -> None:
        """The mark has passed these, which have so many bytes in memory."""
        eager, self._eager = self._eager, []
        for future in eager:
            _resolve(future)
        self._gathered += sum(map(len, batches))
        self._gathered_bytes += size_bytes
        is_much = self._gathered >= PATIENCE_RECORDS or self._gathered_bytes >= self._patience_bytes
        if is_much or any(batch.kind is not Kind.EVENTS for batch in batches):
            self._gathered = self._gathered_bytes = 0
            patient, self._patient = self._patient, []
            for future in patient:
                _resolve(future)


def _size_bytes(batch: Batch) -> int:
    return sum(map(len, batch.payloads)) + _RECORD_OVERHEAD_BYTES * len(batch)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


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

"""The log-writer thread: the only one that writes and syncs, for every log and every small file of the gateway.

Group commit without a timer: while one job is being written and synced, everything that arrives gathers for the next;
when the thread is idle a job starts at the end of the very turn of the loop that brought something. So a lone event
waits for one sync, and a flood shares each.

The loop and the thread hand whole jobs to each other and share nothing else:

    loop    append … append ──▶ _start ──────────────▶ (next gathers) … _finish: marks move, acknowledgements leave
    thread                        └▶ write, sync, files ──▶ done ─┘

Invariants:
- A job's order is: logs in the order in which they were opened, then the tasks (cursor slots, snapshots). So a dead
  letter is durable before the cursor that passes it.
- `when_durable` callbacks run on the loop, in order, only after a job that succeeded.
- After a failure that the log could not get over by itself nothing more is written, and nobody is told that anything is
  durable; `on_failure` is called once and the process is expected to end.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gateway.errors import StorageError
from gateway.observe.status import LatencyRecorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.clock import Clock
    from gateway.model import Batch


class Writable(Protocol):
    """A log, as the committer sees it."""

    def take(self) -> list[Batch]:
        """On the loop: what was appended since the last call."""

    def write(self, batches: list[Batch], *, sync: bool) -> None:
        """In the thread: put it on disk. StorageError if that cannot be had, whatever was tried."""

    def finished(self, batches: list[Batch]) -> None:
        """On the loop: these are durable now."""


@dataclass(slots=True)
class _Job:
    writes: list[tuple[Writable, list[Batch]]]
    tasks: list[tuple[Callable[[], None], asyncio.Future[None]]]
    done: list[Callable[[], None]]
    sync: bool
    failure: StorageError | None = None
    outcomes: list[OSError | None] = field(default_factory=list)


class Committer:
    """Owns the writer thread. All methods but `_work` are called on the loop."""

    def __init__(self, clock: Clock, sync_interval_s: float | None, on_failure: Callable[[StorageError], None]) -> None:
        """See the module.

        Args:
            clock: measures how long a sync takes.
            sync_interval_s: 0: each job syncs. More: a job syncs if the last sync is that long ago. None: never.
            on_failure: called once, on the loop, when the disk cannot be written any more.
        """
        self._clock = clock
        self._sync_interval_s = sync_interval_s
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._logs: list[Writable] = []
        self._tasks: list[tuple[Callable[[], None], asyncio.Future[None]]] = []
        self._done: list[Callable[[], None]] = []
        self._wanted = False
        self._busy = False
        self._last_sync_ns = 0
        self._late_sync: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.failure: StorageError | None = None
        self.latency = LatencyRecorder()
        """How long jobs took, from their start to the loop's hearing of it."""
        self.syncs = 0
        """Jobs that ended with a sync."""
        self._started_ns: int | None = None
        self.closing = threading.Event()
        """Set when waiting for a disk is no longer an option."""
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="gateway.ringlog.writer", daemon=True)
        self._thread.start()

    def add(self, log: Writable) -> None:
        """Write this log from now on, after those already added."""
        self._logs.append(log)

    def request(self) -> None:
        """Something was appended: start a job at the end of this turn, or when the present one is done."""
        if not self._wanted and self.failure is None:
            self._wanted = True
            self._idle.clear()
            # Twice round the loop: whoever waits for the append runs first, so that an event and the decision that it
            # causes go into one job and share one sync.
            self._loop.call_soon(self._loop.call_soon, self._start)

    def when_durable(self, done: Callable[[], None]) -> None:
        """Call `done` on the loop once everything appended so far, to any log, is on disk. Never, if that fails."""
        self._done.append(done)
        self.request()

    async def run(self, task: Callable[[], None]) -> None:
        """Run a file-system task in the writer thread, after all that was appended so far is on disk.

        Raises:
            StorageError: if the task met an OSError, or the log has failed.
        """
        if self.failure is not None:
            raise self.failure
        future: asyncio.Future[None] = self._loop.create_future()
        self._tasks.append((task, future))
        self.request()
        await future

    async def flush(self) -> None:
        """Return when everything appended so far is durable and the thread is idle, or has failed for good."""
        await self._idle.wait()

    def stalled_s(self) -> float:
        """How long the present job has been on its way; 0 when idle. A slow card shows here while it happens."""
        return 0.0 if self._started_ns is None else (self._clock.mono_ns() - self._started_ns) / 1e9

    async def close(self) -> None:
        """Finish what is gathered, with a sync, and end the thread. A disk that is full now is not waited for."""
        self.closing.set()
        if self._late_sync is not None:
            self._late_sync.cancel()
        if self.failure is None:
            self._sync_interval_s = 0.0 if self._sync_interval_s is not None else None
            self.request()
            await self.flush()
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def abandon(self) -> None:
        """End the thread without waiting for it: opening the store has failed."""
        self._queue.put(None)

    def _start(self) -> None:
        if self._busy or self.failure is not None:
            return
        self._wanted = False
        writes = [(log, batches) for log in self._logs if (batches := log.take())]
        job = _Job(writes, self._tasks, self._done, self._sync_due())
        if job.sync:
            # A log whose batches a former job wrote without a sync is synced by this one.
            written = {id(log) for log, _ in writes}
            job.writes += [(log, []) for log in self._logs if id(log) not in written]
        self._tasks, self._done = [], []
        self._busy = True
        self._started_ns = self._clock.mono_ns()
        self._queue.put(job)

    def _sync_due(self) -> bool:
        interval_s = self._sync_interval_s
        if interval_s is None:
            return False
        if interval_s == 0.0:
            return True
        waited_s = (self._clock.mono_ns() - self._last_sync_ns) / 1e9
        if waited_s >= interval_s:
            return True
        if self._late_sync is None:
            self._late_sync = self._loop.call_later(interval_s - waited_s, self._sync_late)
        return False

    def _sync_late(self) -> None:
        self._late_sync = None
        self.request()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                for log, batches in job.writes:
                    log.write(batches, sync=job.sync)
                for task, _ in job.tasks:
                    try:
                        task()
                        job.outcomes.append(None)
                    except OSError as error:
                        job.outcomes.append(error)
            except StorageError as error:
                job.failure = error
            except Exception as error:  # noqa: BLE001 - a bug in the writer must end the process, not hang it
                job.failure = StorageError(f"the log writer broke: {error!r}")
            self._loop.call_soon_threadsafe(self._finish, job)

    def _finish(self, job: _Job) -> None:
        self._busy = False
        assert self._started_ns is not None, "a job that ends has begun"
        now_ns = self._clock.mono_ns()
        self.latency.observe((now_ns - self._started_ns) / 1e9)
        self._started_ns = None
        if job.failure is not None:
            self._fail(job)
            return
        if job.sync:
            self.syncs += 1
            self._last_sync_ns = now_ns
        for log, batches in job.writes:
            if batches:
                log.finished(batches)
        for (_, future), error in zip(job.tasks, job.outcomes, strict=True):
            if future.cancelled():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(StorageError(str(error)))
        for done in job.done:
            # Each on its own: one that raises is reported by the loop and takes no other with it.
            self._loop.call_soon(done)
        if self._wanted or self._tasks or self._done:
            self._wanted = True
            self._start()
        else:
            self._idle.set()

    def _fail(self, job: _Job) -> None:
        assert job.failure is not None, "called for a job that failed"
        self.failure = job.failure
        for _, future in (*job.tasks, *self._tasks):
            if not future.done():
                future.set_exception(job.failure)
        self._idle.set()
        self._on_failure(job.failure)

"""The log-writer thread: the only one that writes and syncs, for every log and every small file of the gateway.

Group commit without a timer: while one job is being written and synced, everything that arrives gathers for the next;
when the thread is idle a job starts at the end of the very turn of the loop that brought something. So a lone event
waits for one sync, and a flood shares each. On a slow disk a job that others were waiting behind is followed by a short
pause: those who answer its acknowledgements with their next event share the next job, which they would else miss by a
little, and wait for two.

The loop and the thread hand whole jobs to each other and share nothing else:

    loop    append … append ──▶ _start ──────────────▶ (next gathers) … _finish: marks move, acknowledgements leave
    thread                        └▶ write, sync, files ──▶ done ─┘

Invariants:
- A job's order is: logs in the order in which they were opened, then the tasks (cursor slots, snapshots). So a dead
  letter is durable before the cursor that passes it.
- `when_durable` callbacks run on the loop, in order, only after a job that succeeded.
- A log that finds no room is *held*: it is tried again every half second, no acknowledgement leaves meanwhile, and the
  tasks that do not build on it go on. Whoever reads at the appended mark notices nothing.
- After a failure that the log could not get over by itself nothing more is written, and nobody is told that anything is
  durable; `on_failure` is called once and the process is expected to end.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gateway.errors import StorageError
from gateway.observe import events
from gateway.observe.status import LatencyRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from gateway.clock import Clock
    from gateway.model import Batch

_SPACE_RETRY_S = 0.5
_SLOW_S = 0.003
"""From so long a job on the next one waits a tenth of it, within the following."""
_LEAST_PAUSE_S, _MOST_PAUSE_S = 0.001, 0.005


class Writable(Protocol):
    """A log, as the committer sees it."""

    name: str

    def take(self) -> list[Batch]:
        """On the loop: what was appended since the last call."""

    def write(self, batches: list[Batch], *, sync: bool) -> str | None:
        """In the thread: put it on disk, after what is held. Why it is held, if there is no room for it.

        StorageError if it cannot be had, whatever was tried.
        """

    def finished(self, batches: list[Batch]) -> None:
        """On the loop: these are durable now."""


@dataclass(slots=True)
class _Write:
    log: Writable
    batches: list[Batch]
    held: str | None = None


@dataclass(slots=True)
class _Task:
    run: Callable[[], None]
    future: asyncio.Future[None]
    after: tuple[Writable, ...] | None
    """Logs of which nothing may be held when it runs; None: all of them."""
    ran: bool = False
    error: OSError | None = None

    def may_run(self, held: Collection[Writable]) -> bool:
        """Whether all that it builds on is on disk."""
        return not held if self.after is None else not any(log in held for log in self.after)


@dataclass(slots=True)
class _Job:
    writes: list[_Write]
    tasks: list[_Task]
    done: list[Callable[[], None]]
    held: frozenset[Writable]
    """Logs that are held and not tried again by this job."""
    sync: bool
    failure: StorageError | None = None


@dataclass(slots=True)
class _Held:
    """A log that found no room."""

    batches: list[Batch]
    since_ns: int
    why: str


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
        self._tasks: list[_Task] = []
        self._held: dict[Writable, _Held] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._retry_is_due = False
        self._pause: asyncio.TimerHandle | None = None
        """Until it is over nothing is started."""
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
        self._closing = False
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

    async def run(self, task: Callable[[], None], *, after: tuple[Writable, ...] | None = None) -> None:
        """Run a file-system task in the writer thread, after what was appended so far is on disk.

        Args:
            task: what to do.
            after: the logs that it builds on; while one of them is held for want of space, so is the task. None: all.

        Raises:
            StorageError: if the task met an OSError, or the log has failed.
        """
        if self.failure is not None:
            raise self.failure
        future: asyncio.Future[None] = self._loop.create_future()
        self._tasks.append(_Task(task, future, after))
        self.request()
        await future

    @property
    def held(self) -> dict[str, str]:
        """Logs that find no room, with the reason. Nothing in them is acknowledged; they are tried again and again."""
        return {log.name: held.why for log, held in self._held.items()}

    async def flush(self) -> None:
        """Return when everything appended so far is durable and the thread is idle, or has failed for good."""
        await self._idle.wait()

    def stalled_s(self) -> float:
        """How long the present job has been on its way; 0 when idle. A slow card shows here while it happens."""
        return 0.0 if self._started_ns is None else (self._clock.mono_ns() - self._started_ns) / 1e9

    async def close(self) -> None:
        """Finish what is gathered, with a sync, and end the thread. A disk that is full now is not waited for."""
        self._closing = True
        for timer in (self._late_sync, self._retry, self._pause):
            if timer is not None:
                timer.cancel()
        self._pause = None
        if self.failure is None:
            self._sync_interval_s = 0.0 if self._sync_interval_s is not None else None
            self._retry_is_due = True
            self.request()
            await self.flush()
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def abandon(self) -> None:
        """End the thread without waiting for it: opening the store has failed."""
        self._queue.put(None)

    def _start(self) -> None:
        if self._busy or self.failure is not None or self._pause is not None:
            return
        self._wanted = False
        passed_over = frozenset() if self._retry_is_due else frozenset(self._held)
        self._retry_is_due = False
        sync = self._sync_due()
        writes = []
        for log in self._logs:
            if log not in passed_over:
                # A held log gathers on in memory: what it has given up to the thread goes first.
                batches = log.take() if log not in self._held else []
                if batches or sync or log in self._held:
                    writes.append(_Write(log, batches))
        job = _Job(writes, self._tasks, self._done, passed_over, sync)
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
                held = set(job.held)
                for write in job.writes:
                    write.held = write.log.write(write.batches, sync=job.sync)
                    if write.held is not None:
                        held.add(write.log)
                for task in job.tasks:
                    if task.may_run(held):
                        task.ran = True
                        try:
                            task.run()
                        except OSError as error:
                            task.error = error
            except StorageError as error:
                job.failure = error
            except Exception as error:  # noqa: BLE001 - a bug in the writer must end the process, not hang it
                job.failure = StorageError(f"the log writer broke: {error!r}")
            self._loop.call_soon_threadsafe(self._finish, job)

    def _finish(self, job: _Job) -> None:
        self._busy = False
        assert self._started_ns is not None, "a job that ends has begun"
        now_ns = self._clock.mono_ns()
        took_s = (now_ns - self._started_ns) / 1e9
        self.latency.observe(took_s)
        self._started_ns = None
        if took_s >= _SLOW_S and (self._wanted or len(job.done) > 1) and not self._closing:
            pause_s = min(max(took_s / 10, _LEAST_PAUSE_S), _MOST_PAUSE_S)
            self._pause = self._loop.call_later(pause_s, self._end_pause)
        if job.failure is not None:
            self._fail(job)
            return
        if job.sync:
            self.syncs += 1
            self._last_sync_ns = now_ns
        for write in job.writes:
            if write.held is None:
                self._release(write, now_ns)
            else:
                self._hold(write, write.held, now_ns)
        waiting = [task for task in job.tasks if not self._ended(task)]
        self._tasks[:0] = waiting
        done = [] if self._held else job.done
        if self._held:
            self._done[:0] = job.done
        self._go_on()  # the disk first: it is busy with the next job while acknowledgements are made
        self._tell(done)

    def _end_pause(self) -> None:
        self._pause = None
        self._go_on()

    def _tell(self, done: list[Callable[[], None]]) -> None:
        """Each on its own: one that raises takes no other with it."""
        for each in done:
            try:
                each()
            except Exception as error:  # noqa: BLE001 - whatever it is, the others are to hear of their sync
                events.task_failed("ringlog.settle", error)

    def _go_on(self) -> None:
        if self._held and self._closing:
            self._give_up()
        elif self._wanted or (self._done and not self._held) or any(task.may_run(self._held) for task in self._tasks):
            self._wanted = True
            self._start()
        elif not self._held:
            self._idle.set()

    def _ended(self, task: _Task) -> bool:
        if not task.ran:
            return False
        if not task.future.cancelled():
            if task.error is None:
                task.future.set_result(None)
            else:
                task.future.set_exception(StorageError(str(task.error)))
        return True

    def _release(self, write: _Write, now_ns: int) -> None:
        held = self._held.pop(write.log, None)
        if held is None:
            write.log.finished(write.batches)
            return
        events.disk_recovered(write.log.name, after_s=(now_ns - held.since_ns) / 1e9)
        write.log.finished(held.batches + write.batches)
        self.request()  # what gathered meanwhile

    def _hold(self, write: _Write, why: str, now_ns: int) -> None:
        held = self._held.get(write.log)
        if held is None:
            self._held[write.log] = _Held(write.batches, now_ns, why)
            events.disk_full(write.log.name, error=why)
        else:
            held.batches += write.batches
            held.why = why
        write.log.finished([])
        if self._retry is None and not self._closing:
            self._retry = self._loop.call_later(_SPACE_RETRY_S, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._retry_is_due = True
        self.request()

    def _give_up(self) -> None:
        """Closing, and no room: nobody was told that any of it is safe."""
        why = StorageError("no room on the disk: " + ", ".join(f"{name}: {why}" for name, why in self.held.items()))
        for task in self._tasks:
            if not task.future.done():
                task.future.set_exception(why)
        self._tasks, self._done, self._wanted = [], [], False
        self._idle.set()

    def _fail(self, job: _Job) -> None:
        assert job.failure is not None, "called for a job that failed"
        self.failure = job.failure
        for task in (*job.tasks, *self._tasks):
            if not task.future.done():
                task.future.set_exception(job.failure)
        self._idle.set()
        self._on_failure(job.failure)

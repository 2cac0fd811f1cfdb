"""One sink's runner: read the log, send, judge the answer, move the cursor. The async shell around pure decisions.

    log ──read──▶ parcel ──plan──▶ chunk ──send──▶ verdict ──plan──▶ settled ──ledger──▶ cursor ──▶ disk
                                     ▲                │
                                     └── backoff ◀────┘

Decisions are made elsewhere: `plan` (what to send next), `verdict` (what an answer means), `backoff` (how long to
wait), `ledger` (the accounts). Here is only the order of things, which is what the laws hang on.

Invariants:
- A record leaves the runner's care in one of three ways: delivered, dead-lettered (durably, *before* the cursor moves),
  or evicted (announced *before* the durable cursor moves).
- Sent and not yet under a durable cursor: at most `window_records`. That is what a crash can repeat (L3).
- Order is kept: nothing behind a record is sent while the record waits, except within one chunk (L4).
- Nothing that a sink does or raises ends the runner or reaches another one (L8). Cancelling it loses nothing.
- `status().received = delivered + dead-lettered + evicted + pending` whenever it is asked (L7).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.errors import GatewayError
from gateway.forward import ledger
from gateway.forward.backoff import Backoff, asked_pause_s
from gateway.forward.parcel import Parcel
from gateway.forward.plan import Limit, Plan, Settled
from gateway.forward.verdict import Delivered, NeedsOperator, Refusal, Refused, Retry, TooLarge
from gateway.model import Gap, Kind, Position
from gateway.mqtt.backoff import slow_pause_s
from gateway.observe import events
from gateway.observe.status import SinkStatus

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.clock import Clock
    from gateway.config.settings import SinkSettings
    from gateway.forward.ports import Reader, Store
    from gateway.forward.sinks.port import Sink
    from gateway.forward.verdict import Verdict
    from gateway.model import Batch, Cursor

COMMIT_INTERVAL_S = 1.0
"""How long a moved cursor may wait for its sync while the window has room."""
GATHER_S = 0.01
"""How long after a send the next one waits for more events, unless an eighth of a batch is there. A send costs the same
for one event as for many; one that comes alone is not held up."""
EARLIER = "earlier"
"""Stands for the reasons of dead letters from before the start, of which the cursor keeps only the number."""


class _DrainedError(Exception):
    """Leaves the loop at a point where nothing is in flight."""


class Runner:
    """Forwards the log to one sink until it is cancelled or drained."""

    def __init__(
        self,
        settings: SinkSettings,
        sink: Sink,
        store: Store,
        *,
        clock: Clock,
        rng: random.Random,
        kind: str = "",
    ) -> None:
        """Args: rng: for the jitter of pauses. kind: the sink's `type`, shown in the status."""
        self._settings = settings
        self._sink = sink
        self._log = store.events
        self._store = store
        self._clock = clock
        self._rng = rng
        self._kind = kind
        self._batch_records = min(settings.batch_records, settings.window_records)

        self._durable: Cursor | None = store.cursors.load(settings.name)
        self.cursor, self.clamped = ledger.clamp(self._durable or self._beginning(), self._log.appended)
        """What became of everything so far; `clamped`: events that a lying disk took from the log's end."""
        self._settle_here()
        self._reader = self._reader_here()
        self._commit_lock = asyncio.Lock()
        self._dirty = asyncio.Event()

        self._limit = Limit(self._batch_records)
        self._backoff = Backoff(settings.retry)
        self._reasons: dict[str, int] = {EARLIER: self.cursor.dead_lettered} if self.cursor.dead_lettered else {}
        self._work: asyncio.Task[None] | None = None
        self._idle = True  # nothing would be lost or repeated by stopping right now
        self._draining = False
        self._closed = False
        self.up = True
        self.last_error = ""
        self.gaps = 0
        self.retries = 0
        if self.clamped:
            self.last_error = (
                f"the cursor stood {self.clamped} events beyond the log's end: the disk lost what it had synced"
            )
        self._down_since_s: float | None = None
        self._next_try_s: float | None = None
        self._gathers_until_s = 0.0

    def _beginning(self) -> Cursor:
        """The cursor of a sink that has none. One whose cursor was unusable may lack anything: it sees all again."""
        name, log = self._settings.name, self._log
        starts_now = self._settings.start == "now" and name not in self._store.cursors.unusable
        return ledger.begin(log.appended if starts_now else log.floor)

    def _reader_here(self) -> Reader:
        return self._store.reader(Position(self.cursor.seq, self.cursor.ordinal), durable_only=True)

    # What others ask.

    @property
    def pending(self) -> int:
        """Events in the log whose end is open, in memory or on disk."""
        return max(0, self._log.appended.ordinal - self.cursor.ordinal)

    def status(self) -> SinkStatus:
        """The account and the health of this sink, now."""
        cursor = self.cursor
        pending = self.pending
        waiting = self._next_try_s is not None
        return SinkStatus(
            name=self._settings.name,
            type=self._kind,
            up=self.up,
            received=ledger.settled_count(cursor) + pending,
            delivered=cursor.delivered,
            pending=pending,
            dead_lettered=dict(self._reasons),
            evicted=cursor.evicted,
            last_error=self.last_error,
            next_try_s=max(0.0, (self._next_try_s or 0.0) - _now_s()) if waiting else None,
        )

    # The life of a runner.

    async def run(self) -> None:
        """Forward until cancelled or drained. No sink can end it; whatever else escapes is a bug."""
        name = f"gateway.forward.{self._settings.name}"
        async with asyncio.TaskGroup() as tasks:
            self._work = tasks.create_task(self._forward(), name=name)
            lazily = tasks.create_task(self._commit_lazily(), name=f"{name}.commit")
            self._work.add_done_callback(lambda _: lazily.cancel())

    async def drain(self, timeout_s: float) -> None:
        """Let the send in flight end, store the cursor, close the sink. Waits about `timeout_s` for the sink."""
        self._draining = True
        work = self._work
        if work is not None:
            if not self._idle:
                await asyncio.wait([work], timeout=timeout_s)
            work.cancel()
            await asyncio.wait([work])
        await self._commit_or_tell()
        if not self._closed:
            self._closed = True
            await self._guarded(asyncio.wait_for(self._sink.close(), max(1.0, timeout_s)))

    async def _forward(self) -> None:
        await self._guarded(self._sink.open())
        try:
            while True:
                for item in await self._gather():
                    if isinstance(item, Gap):
                        await self._announce(item)
                    else:
                        await self._deliver(item)
        except _DrainedError:
            return

    async def _gather(self) -> list[Parcel | Gap]:
        """Wait for something, and take along what else is there, up to one batch. Decisions are passed over."""
        while True:
            self._leave_if_draining()
            try:
                self._idle = True
                await self._let_gather()
                return await self._read()
            except (GatewayError, OSError) as error:
                await self._pause(Retry(f"cannot read the log: {error}"))
                self._reader = self._reader_here()
            finally:
                self._idle = False

    async def _let_gather(self) -> None:
        wait_s = self._gathers_until_s - _now_s()
        if wait_s > 0 and self.pending < self._batch_records // 8:
            await asyncio.sleep(wait_s)

    async def _read(self) -> list[Parcel | Gap]:
        reader = self._reader
        batches: list[Batch] = []
        room = self._batch_records
        while room > 0 and not (batches and reader.position.seq >= self._log.durable.seq):
            item = await reader.read(room)
            if isinstance(item, Gap):
                before = Position(item.from_seq, reader.position.ordinal - item.events)
                return [Parcel(batches, before), item] if batches else [item]
            if item.kind is Kind.EVENTS:
                batches.append(item)
                room -= len(item)
        return [Parcel(batches, reader.position)]

    async def _deliver(self, parcel: Parcel) -> None:
        """Send until every record of the parcel is settled."""
        first = parcel.position(0)
        if first.ordinal != self.cursor.ordinal:
            # Cursor and log number differently: storage broke its promise. The accounts move; nothing is lost by it.
            self.cursor = ledger.rebase(self.cursor, first)
        self._gathers_until_s = _now_s() + GATHER_S
        plan = Plan(len(parcel), self._limit)
        tried_wall_ns = self._clock.wall_ns()
        tries = 0
        while not plan.is_done:
            self._leave_if_draining()
            start, stop = plan.chunk()
            await self._make_room(stop - start)
            tries += 1
            verdict = await self._ask(self._sink.send(parcel.slice(start, stop)))
            if isinstance(verdict, Delivered) and verdict.count <= 0:
                verdict = Retry("the sink took nothing")
            if isinstance(verdict, Retry | NeedsOperator):
                await self._pause(verdict)
                continue
            settled = plan.judge(verdict)
            if settled is None:
                continue
            if settled.refused:
                await self._bury(parcel, settled.refused, tries, tried_wall_ns)
            self._account(parcel, settled)
            self._went_well()
            tries = 0

    def _account(self, parcel: Parcel, settled: Settled) -> None:
        dead = len(settled.refused)
        delivered = settled.stop - settled.start - dead
        self.cursor = ledger.advance(
            self.cursor, parcel.position(settled.stop), delivered=delivered, dead_lettered=dead
        )
        self._settle_here()
        self._dirty.set()

    async def _bury(self, parcel: Parcel, refused: Sequence[Refusal], tries: int, first_wall_ns: int) -> None:
        """Put refused records into the dead-letter log. Returns only when they are durable there."""
        name, now_ns = self._settings.name, self._clock.wall_ns()
        letters = [parcel.letter(refusal, name, tries, first_wall_ns, now_ns) for refusal in refused]
        await self._insist(lambda: self._store.dead_letters.store(letters), "cannot store dead letters")
        for letter in letters:
            self._reasons[letter.code] = self._reasons.get(letter.code, 0) + 1
        first = refused[0]
        events.sink_dead_lettered(self._settings.name, reason=first.code, events=len(letters), detail=first.detail)

    async def _announce(self, gap: Gap) -> None:
        """Count a gap at once; tell the sink before the durable cursor passes it."""
        after = self._reader.position
        before = Position(gap.from_seq, after.ordinal - gap.events)
        if before.ordinal != self.cursor.ordinal:
            self.cursor = ledger.rebase(self.cursor, before)
        self.cursor = ledger.advance(self.cursor, after, evicted=gap.events)
        if gap.events:
            self.gaps += 1
            events.sink_gap(
                self._settings.name, from_seq=gap.from_seq, to_seq=gap.to_seq, events=gap.events, reason=gap.reason
            )
            noticed_wall_ns = self._clock.wall_ns()
            while isinstance(
                verdict := await self._ask(self._sink.announce(gap, noticed_wall_ns)), Retry | NeedsOperator
            ):
                await self._pause(verdict)
            if isinstance(verdict, Refused | TooLarge):
                # A target that will not hear of gaps still gets its events; the log line and the counts remain.
                self.last_error = verdict.detail
            else:
                self._went_well()
        self._settle_here()
        self._dirty.set()

    # The edge to the sink.

    async def _ask(self, answer: Awaitable[Verdict]) -> Verdict:
        """A sink's verdict; whatever it raises is a reason to try again."""
        try:
            return await answer
        except Exception as error:  # noqa: BLE001 - a bug in a sink must not take its runner down (L8)
            return Retry(f"{type(error).__name__}: {error}")

    async def _guarded(self, call: Awaitable[None]) -> None:
        try:
            await call
        except Exception as error:  # noqa: BLE001 - as above; the next send will tell what is wrong
            self.last_error = f"{type(error).__name__}: {error}"

    def _went_well(self) -> None:
        now_s = _now_s()
        self._backoff.succeeded(now_s)
        if not self.up:
            down_s = None if self._down_since_s is None else now_s - self._down_since_s
            events.sink_up(self._settings.name, pending=self.pending, down_s=down_s)
        self.up = True
        self.last_error = ""
        self._down_since_s = None

    async def _pause(self, verdict: Retry | NeedsOperator) -> None:
        """Wait before the next try, for as long as the ladder, the sink or patience with an operator says."""
        draw = self._rng.random()
        pause_s = self._backoff.failed(draw)
        if isinstance(verdict, NeedsOperator):
            pause_s = slow_pause_s(self._settings.retry.max_s, draw)
        elif verdict.after_s is not None:
            pause_s = max(pause_s, asked_pause_s(verdict.after_s, draw))
        self.retries += 1
        self.last_error = verdict.reason
        now_s = _now_s()
        if self.up:
            self.up = False
            self._down_since_s = now_s
            events.sink_down(self._settings.name, error=verdict.reason, retry_s=pause_s)
        self._next_try_s = now_s + pause_s
        self._leave_if_draining()
        try:
            self._idle = True
            await asyncio.sleep(pause_s)
        finally:
            self._idle = False
            self._next_try_s = None

    def _leave_if_draining(self) -> None:
        if self._draining:
            raise _DrainedError

    # The cursor on disk.

    async def _make_room(self, count: int) -> None:
        """Return when `count` more records in flight leave the window whole."""
        committed = self._durable
        if committed is not None and self.cursor.ordinal + count - committed.ordinal <= self._settings.window_records:
            return
        await self._insist(self._commit, "cannot store the cursor")

    def _settle_here(self) -> None:
        """What is before the cursor may be forgotten. Not so while a gap is being announced."""
        self._committable = self.cursor
        self._store.cursors.note(self._settings.name, self.cursor)

    async def _commit(self) -> None:
        async with self._commit_lock:
            cursor = self._committable
            self._dirty.clear()
            if cursor == self._durable:
                return
            try:
                await self._store.cursors.store(self._settings.name, cursor, after_events=False)
            except BaseException:
                self._dirty.set()
                raise
            self._durable = cursor

    async def _commit_or_tell(self) -> None:
        try:
            await self._commit()
        except (GatewayError, OSError) as error:
            self.last_error = f"cannot store the cursor: {error}"

    async def _commit_lazily(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(COMMIT_INTERVAL_S)
            await self._commit_or_tell()

    async def _insist(self, action: Callable[[], Awaitable[None]], complaint: str) -> None:
        """Do something with the disk until it succeeds: going on without it would break a law."""
        while True:
            try:
                await action()
            except (GatewayError, OSError) as error:
                await self._pause(Retry(f"{complaint}: {error}"))
            else:
                return


def _now_s() -> float:
    return asyncio.get_running_loop().time()

"""From many sockets to one batch, and from one sync back to many sockets.

    connections ── data_received ──▶ turn ── end of the loop's turn ──▶ intake (stores it)
    connections ◀── flush, one write each ── acknowledge, route ◀── settle, once it is on disk

Invariants:
- What is to outlive the gateway is written with the turn that brought it, and what confirms it waits for that.
- L1: nothing that a message causes leaves before `settle` was called for it: no PUBACK, no copy to a subscriber.
- Turns are acknowledged in the order in which they were received, even if they are settled in another
  [MQTT-4.6.0-2].
- At most one socket write per connection and turn of the loop, however many acknowledgements and messages it carries.
- A turn waits for more only where many devices send often (a fleet), and then for a few milliseconds: a lone device
  never waits.
- More than `max_unsettled_bytes` received and not settled: no socket is read until half of that is settled.
- A turn that the intake refused by raising is not acknowledged, and its senders are disconnected, since MQTT offers a
  message again only on a new connection.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

from gateway.model import Arrivals
from gateway.mqtt.ledger import Bound, Taken
from gateway.mqtt.packets import Reason
from gateway.mqtt.turn import Turn
from gateway.observe import events

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.mqtt.exchange import Exchange
    from gateway.mqtt.ledger import Entry
    from gateway.mqtt.turn import Sender


LIGHT_FOR_S = 0.1
SHARE_BYTES_PER_S = 4 * 1024 * 1024
LEAST_SHARE_BYTES, MOST_SHARE_BYTES = 2 * 1024, 32 * 1024
"""What one client may have on its way to the disk beside light senders: so much for each second that a turn takes to
get there, about a tenth of what the interpreter could take in. A quick disk leaves others little time to wait in, a
slow one leaves enough for more."""
PERIOD_S = 0.1
FLEET_SENDERS, FLEET_RATE_PER_S = 16, 4_000
"""So many senders with so many messages are a fleet: its turns are ended every `FLEET_S`, or when `FLEET_MESSAGES`, or
one from every other sender, are there: half of those who wait for their acknowledgements send while the other half is
on its way to the disk. A turn costs a sync and a round through all stages, which then carries many events."""
FLEET_S = 0.006
FLEET_MESSAGES = 64


class Keeper(Protocol):
    """Where what is to outlive the gateway is written."""

    def append(self, entries: list[Entry]) -> None:
        """Write these, with all else that this turn of the loop appends."""

    def when_durable(self, done: Callable[[], None]) -> None:
        """Call once everything appended so far is on disk; never, if that fails."""

    def place(self) -> tuple[int, int]:
        """Epoch of the event log, and the number after its last record."""


class Flushable(Protocol):
    """A connection with bytes to write."""

    def flush(self) -> None:
        """Write them."""


class Gathering:
    """The turn that is being filled, those that wait for the disk, and the connections that wait to be written to."""

    def __init__(
        self,
        exchange: Exchange,
        intake: Callable[[Arrivals], None],
        mono_s: Callable[[], float],
        max_unsettled_bytes: int,
        on_change: Callable[[], None],
        keeper: Keeper | None = None,
    ) -> None:
        """Gather nothing yet.

        Args:
            exchange: who gets what was settled.
            intake: takes a turn's messages and settles them later.
            mono_s: monotonic clock.
            max_unsettled_bytes: see above.
            on_change: called when `is_full` has changed.
            keeper: None: nothing outlives the gateway.
        """
        self._keeper = keeper
        exchange.notes.on_change = self._open_turn
        self._exchange = exchange
        self._intake = intake
        self._mono_s = mono_s
        self._max_unsettled_bytes = max_unsettled_bytes
        self._on_change = on_change
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_turn_open = False
        self._unsettled: deque[Turn] = deque()
        self._dirty: list[Flushable] = []
        self.is_full = False
        """Nothing more should be read."""
        self.turn = Turn()
        """Where connections put what they read."""
        self.unsettled_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        """Ends the turn, where that waits."""
        self._ended_s = float("-inf")
        """When the last turn was ended."""
        self._period, self._period_s = 1, mono_s()
        self._senders = 0
        """Of this period."""
        self._received = 0
        """Before it."""
        self._enough = 0
        """How many messages a turn waits for; 0: for none."""
        self.light_s = float("-inf")
        """When somebody last sent little."""
        self._settle_s = 0.001
        """How long turns take to get to the disk, on a running average."""
        self.share_bytes = LEAST_SHARE_BYTES
        """What may be taken of one client at a time beside light senders, and be under way of it."""
        self.received = 0
        """Messages, all that were ever handed to the intake."""
        self.received_bytes = 0
        """Of the packets that brought them."""

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to this loop."""
        self._loop = loop

    def gathered(self, wire_bytes: int, sender: Sender | None = None) -> None:
        """A connection has put something into the turn: see to it when the loop's turn is over."""
        turn = self.turn
        turn.wire_bytes += wire_bytes
        self.unsettled_bytes += wire_bytes
        if sender is not None:
            turn.sizes[sender] = turn.sizes.get(sender, 0) + wire_bytes
            if sender.period != self._period:
                sender.period = self._period
                self._senders += 1
        if not self._is_turn_open:
            self._open_turn()
        elif self._timer is not None and len(turn.topics) >= self._enough:
            self._end_soon()
        if self.unsettled_bytes > self._max_unsettled_bytes and not self.is_full:
            self.is_full = True
            self._on_change()

    def has_light_senders(self, now_s: float) -> bool:
        """Whether there are clients that wait for those who send much."""
        return now_s - self.light_s < LIGHT_FOR_S

    def _open_turn(self) -> None:
        if self._is_turn_open or self._loop is None:
            return
        self._is_turn_open = True
        if self._enough and (wait_s := self._ended_s + FLEET_S - self._mono_s()) > 0:
            self._timer = self._loop.call_later(wait_s, self.end_turn)
        else:
            self._loop.call_soon(self.end_turn)

    def _end_soon(self) -> None:
        if self._timer is not None and self._loop is not None:
            self._timer.cancel()
            self._timer = None
            self._loop.call_soon(self.end_turn)

    def _look_around(self, now_s: float) -> None:
        """Whether it is a fleet that sends: many devices, little each, so that turns are worth some waiting."""
        self._ended_s = now_s
        if now_s - self._period_s > PERIOD_S:
            messages = self.received - self._received
            is_fleet = self._senders >= FLEET_SENDERS and messages >= FLEET_RATE_PER_S * (now_s - self._period_s)
            self._enough = min(FLEET_MESSAGES, self._senders // 2) if is_fleet else 0
            self._senders, self._received = 0, self.received
            self._period, self._period_s = self._period + 1, now_s

    def end_turn(self) -> None:
        """Hand over what has gathered."""
        self._is_turn_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._look_around(self._mono_s())
        turn = self.turn
        self._add_wills(turn)
        entries, turn.answers = self._exchange.notes.take()
        if not (turn.topics or turn.pubacks or turn.pubrecs or turn.answers or entries):
            return
        self.turn = Turn()
        self._unsettled.append(turn)
        self.received += len(turn.topics)
        self.received_bytes += turn.wire_bytes
        if turn.topics:
            planned = self._exchange.plan(turn, self._mono_s())
            if self._take_in(turn):
                entries = self._bound(entries + planned + _taken(turn))
        if entries and self._keeper is not None:
            self._keeper.append(entries)
        if not turn.topics:
            self._settle_later(turn)

    def _bound(self, entries: list[Entry]) -> list[Entry]:
        """What holds only if the turn's events, which have just been appended, get to the disk as well.

        That is all of the turn: a will that is said to be out, and is not, would never be.
        """
        return entries if self._keeper is None or not entries else [Bound(*self._keeper.place()), *entries]

    def _take_in(self, turn: Turn) -> bool:
        """Give a turn's messages to the intake. Whether it has them."""
        try:
            self._intake(Arrivals(turn.topics, turn.flags, turn.payloads, partial(self._settle, turn)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the senders must learn that nothing was stored
            events.task_failed("mqtt.intake", error)
            self._refuse(turn)
            return False
        return True

    def _settle_later(self, turn: Turn) -> None:
        """Settle a turn without messages: repeated QoS 2 messages, which wait for those before them, and answers."""
        if turn.answers and self._keeper is not None:
            self._keeper.when_durable(partial(self._settle, turn))
        else:
            self._settle(turn)

    def _add_wills(self, turn: Turn) -> None:
        """Wills are events like any other: stored first, then routed."""
        for will in self._exchange.take_wills():
            turn.senders.append((len(turn.topics), None))
            turn.add(will.topic, will.payload, qos=will.qos, retain=will.retain, properties=will.properties)

    def _settle(self, turn: Turn) -> None:
        turn.is_settled = True
        now_s = self._mono_s()
        while self._unsettled and self._unsettled[0].is_settled:
            done = self._unsettled.popleft()
            for sender, mids in done.pubacks.items():
                sender.acknowledge(mids, [])
            for sender, mids in done.pubrecs.items():
                sender.acknowledge([], mids)
            for outlet, data in done.answers:
                outlet.put(data)
            self._exchange.route(done, now_s)
            self._release(done)
            if done.topics:
                self._share_out(now_s - done.at_s)

    def _share_out(self, took_s: float) -> None:
        self._settle_s += (took_s - self._settle_s) / 8
        self.share_bytes = min(max(int(self._settle_s * SHARE_BYTES_PER_S), LEAST_SHARE_BYTES), MOST_SHARE_BYTES)

    def _refuse(self, turn: Turn) -> None:
        if turn.is_settled:
            return  # it was stored before whatever went wrong
        self._unsettled.remove(turn)
        for sender in {sender for _, sender in turn.senders if sender is not None}:
            sender.refuse(turn.pubrecs.get(sender, []), Reason.IMPLEMENTATION)
        for outlet, data in turn.answers:  # they wait for nothing that was in it
            self._exchange.notes.stage(outlet, data)
        self._exchange.unplan(turn)
        self._release(turn)

    def _release(self, turn: Turn) -> None:
        self.unsettled_bytes -= turn.wire_bytes
        for sender, size_bytes in turn.sizes.items():
            sender.settled(size_bytes)
        if self.is_full and self.unsettled_bytes <= self._max_unsettled_bytes // 2:
            self.is_full = False
            self._on_change()

    def wake(self, connection: Flushable) -> None:
        """A connection has something to write: do it when everything that happens now has happened."""
        if not self._dirty and self._loop is not None:
            self._loop.call_soon(self.flush)
        self._dirty.append(connection)

    def flush(self) -> None:
        """Write to every connection that has something."""
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()


def _taken(turn: Turn) -> list[Entry]:
    """By which packet ids the turn's QoS 2 messages will be recognised."""
    by_client: dict[str, list[int]] = {}
    for session, mid in turn.taken:
        by_client.setdefault(session.client_id, []).append(mid)
    return [Taken(client_id, tuple(mids)) for client_id, mids in by_client.items()]

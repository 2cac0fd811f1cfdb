"""One connection to a broker, from TCP connect to its end, and never a second one.

A packet id means something only on the connection that brought it. So every batch holds on to its link, a link that has
ended acknowledges nothing, and a new connection is a new object with a new paho client: there is no state in which an
acknowledgement could find its way to the wrong connection.

Division of labour: messages of QoS 0 and 1 are taken out of the stream in bulk (`client_inflow`), and their PUBACKs are
written in bulk; paho-mqtt has all else (`client_dialogue`); `client_socket` is how the two share one connection, and
`client_reader` says when it is read.

Invariants:
- PUBACKs leave in the order in which messages came [MQTT-4.6.0-2], each only after its batch was settled.
- Keep-alive is the link's, not paho's. A ping goes out after half the interval in which nothing was sent or heard,
  whether or not the socket is read, and silence counts only while it is read. So a disk that stalls for longer than the
  keep-alive costs no connection, and a broker that is gone is noticed within one interval and a quarter.
- Nothing that a broker sends raises out of here: it ends the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from gateway.errors import ProtocolError
from gateway.model import Arrivals
from gateway.mqtt.client_dialogue import CONNECT_TIMEOUT_S, Dialogue
from gateway.mqtt.client_inflow import Inflow
from gateway.mqtt.client_ladder import CAP_S, Cause, End
from gateway.mqtt.client_reader import Reader
from gateway.mqtt.client_refusal import open_end
from gateway.mqtt.client_socket import BrokerContext
from gateway.mqtt.codec import encode_pubacks
from gateway.mqtt.packets import V5

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from paho.mqtt.client import MQTTMessage

    from gateway.config.settings import ConnectSettings
    from gateway.mqtt.client_dialogue import Limits
    from gateway.mqtt.client_gate import Gate
    from gateway.mqtt.client_inflow import Harvest
    from gateway.mqtt.client_outbox import Outbox
    from gateway.mqtt.client_socket import BrokerSocket
    from gateway.mqtt.client_stats import ClientStats
    from gateway.mqtt.will import Will

LEAVE_TIMEOUT_S = 2.0
PINGREQ = b"\xc0\x00"


@dataclass(slots=True)
class Delivery:
    """A batch that was handed on, and what is owed for it."""

    mids: list[bytes]
    qos2_mids: list[int]
    size_bytes: int
    is_settled: bool = False


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """What connections are made from: the same for all of one client's."""

    settings: ConnectSettings
    client_id: str
    will: Will | None
    gate: Gate
    outbox: Outbox
    stats: ClientStats
    rng: random.Random
    mono_s: Callable[[], float]
    known: dict[bytes, str]
    """Topics that have been checked."""
    on_up: Callable[[Link], None]
    on_unsubscribed: Callable[[], None]


class Link:
    """See the module. Lives on the loop; only `_connect` runs in a thread of its own."""

    def __init__(self, plan: LinkPlan, version: int) -> None:
        """Args: plan: what to connect to and whom to serve. version: `V311` or `V5`."""
        self._plan = plan
        self._stats = plan.stats
        self.version = version
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[End] = self._loop.create_future()
        self.up_since_s: float | None = None
        """On the loop's clock; None until the CONNACK."""
        self.session_present = False
        self.dialogue = Dialogue(plan.settings, plan.client_id, plan.will, version, plan.outbox, plan.stats, self)
        self._inflow = Inflow(plan.settings.max_unsettled_bytes, plan.known, self._feed, v5=version == V5)
        self._sock: BrokerSocket | None = None
        self._reader: Reader | None = None
        self._owed: deque[Delivery] = deque()
        self._keepalive_s = float(plan.settings.keepalive_s)
        self._heard_s = self._said_s = 0.0
        self._flush_planned = False
        self._waits_to_write = False
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # Beginning and end.

    async def open(self) -> None:
        """Connect; the CONNACK is still to come. Failure shows as `ended`."""
        try:
            context = BrokerContext(self._plan.settings.tls)
        except OSError as error:
            self.over(End(Cause.REFUSED, f"TLS certificates: {error}"))
            return
        opened: asyncio.Future[Exception | None] = self._loop.create_future()
        # A resolver can hang for longer than we may take to stop: so not the loop's pool, which waits for its threads.
        threading.Thread(target=self._connect, args=(context, opened), name="gateway.mqtt.connect", daemon=True).start()
        failure = await opened  # if this is cancelled, so is `opened`, and `_connect` closes what it got
        if failure is not None:
            self.over(open_end(failure))
        if self.ended.done():
            _release(context.sock)
            return
        assert context.sock is not None, "paho has connected with it"
        self._sock = context.sock
        self._reader = Reader(self._loop, self._sock, self._on_readable, self._plan.mono_s)
        self._sock.on_write = self.may_write
        self._said_s = self._loop.time()
        self._timers["connack"] = self._loop.call_later(
            CONNECT_TIMEOUT_S, self.over, End(Cause.UNREACHABLE, "the broker does not answer our CONNECT")
        )
        self.set_reading(is_wanted=True)
        self._flush()

    def _connect(self, context: BrokerContext, opened: asyncio.Future[Exception | None]) -> None:
        """In a thread: everything that may block."""
        failure: Exception | None = None
        try:
            self.dialogue.connect(context)
        except Exception as error:  # noqa: BLE001 - handed to the loop, which judges it
            failure = error

        def finish() -> None:
            if opened.done():
                _release(context.sock)
            else:
                opened.set_result(failure)

        try:
            self._loop.call_soon_threadsafe(finish)
        except RuntimeError:  # the loop has been closed: nobody waits any more
            _release(context.sock)

    async def leave(self) -> None:
        """Say goodbye, so that the broker keeps the session and sends no will; whatever was settled leaves first."""
        sock = self._sock
        if sock is None or self.up_since_s is None:
            self.over(End(Cause.LEFT, "stopped"))
            return
        if not self._detach(End(Cause.LEFT, "stopped")):
            return
        self.dialogue.goodbye()
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._last_words(sock)
        except TimeoutError:
            pass
        finally:
            self._loop.remove_writer(sock.fileno())
            self._loop.remove_reader(sock.fileno())
            sock.release()

    async def _last_words(self, sock: BrokerSocket) -> None:
        """Send what is buffered, then wait until the broker has closed: closing first could take it back (RST)."""
        writable, closed = asyncio.Event(), asyncio.Event()

        def drain() -> None:
            if not sock.discard():
                closed.set()

        with contextlib.suppress(OSError):
            while not sock.flush():
                writable.clear()
                self._loop.add_writer(sock.fileno(), writable.set)
                await writable.wait()
                self._loop.remove_writer(sock.fileno())
            self._loop.add_reader(sock.fileno(), drain)
            await closed.wait()

    def over(self, end: End) -> None:
        """End the connection, if nothing has ended it before."""
        if self._detach(end):
            _release(self._sock)

    def _detach(self, end: End) -> bool:
        """Let go of everything but the socket. False if that has been done before."""
        if self.ended.done():
            return False
        self.ended.set_result(end)
        for timer in self._timers.values():
            timer.cancel()
        self._owed.clear()
        if self._sock is not None and self._reader is not None:
            self._sock.on_write = _nothing
            self._loop.remove_writer(self._sock.fileno())
            self._reader.stop()
        self._stats.connected = False
        self._plan.outbox.disconnected()
        self._plan.gate.disconnected()
        return True

    # What comes of the dialogue.

    def accepted(self, *, session_present: bool, limits: Limits) -> None:
        """The CONNACK has come."""
        self._timers.pop("connack").cancel()
        self.up_since_s = self._loop.time()
        self.session_present = session_present
        self._inflow.is_up = True
        if limits.keepalive_s is not None:
            self._keepalive_s = float(limits.keepalive_s)
        if self._keepalive_s:
            self._timers["alive"] = self._loop.call_later(self._keepalive_s / 4, self._stay_alive)
        self._plan.on_up(self)
        self.set_reading(is_wanted=self._plan.gate.is_open)
        self.may_write()

    def message(self, message: MQTTMessage) -> None:
        """One of the few messages that paho had to decode, in its place among the others."""
        self._inflow.add(message)

    def refused(self, filters: tuple[str, ...]) -> None:
        """Ask again some day for what the broker will not let us have."""
        self._stats.refused_filters = filters
        if filters and "subscribe" not in self._timers:
            pause_s = CAP_S * (0.5 + self._plan.rng.random() / 2)
            self._timers["subscribe"] = self._loop.call_later(pause_s, self._subscribe_again)

    def _subscribe_again(self) -> None:
        del self._timers["subscribe"]
        self.dialogue.subscribe_refused()

    def unsubscribed(self) -> None:
        """The broker has forgotten filters of an earlier configuration."""
        self._plan.on_unsubscribed()

    # Reading, and acknowledging what was read.

    def set_reading(self, *, is_wanted: bool) -> None:
        """Read the socket, or leave it. Until the CONNACK it is always read."""
        reader = self._reader
        if reader is None or self.ended.done():
            return
        if self.up_since_s is not None and not is_wanted:
            reader.stop()
        elif not reader.is_reading:
            reader.start()
            self._heard_s = self._loop.time()

    def _on_readable(self) -> None:
        """One turn: everything that one large read brought becomes one batch."""
        assert self._reader is not None, "it has called"
        chunk = self._receive()
        if chunk is None:
            self._reader.read(0, 0)
        else:
            self._heard_s = self._loop.time()
            self._reader.read(self._take(chunk), len(chunk))

    def _receive(self) -> bytes | None:
        """What there is; None if there is nothing, or the connection is over."""
        assert self._sock is not None, "it is readable"
        try:
            chunk = self._sock.receive()
        except ConnectionResetError:
            chunk = b""
        except OSError as error:
            self.over(End(Cause.LOST, f"the connection broke: {error}"))
            return None
        if chunk == b"":
            self.over(self._closed_by_peer())
        return chunk or None

    def _take(self, chunk: bytes) -> int:
        """Hand on what came in. Returns how many messages that were."""
        self._flush_planned = True  # at the end of this very call: one turn of the loop is enough
        try:
            self._inflow.receive(chunk)
        except ProtocolError as error:
            self.over(End(Cause.LOST, f"the broker broke the protocol: {error}"))
        except Exception as error:  # noqa: BLE001 - paho's parser, on bytes that nobody has thought of
            self.over(End(Cause.LOST, f"the broker sent what cannot be read: {error!r}"))
        if self.ended.done():
            return 0  # what came last is not handed on, and will come again
        harvest = self._inflow.harvest()
        if harvest is not None:
            self._deliver(harvest)
        self._flush()
        return 0 if harvest is None else len(harvest.topics)

    def _feed(self, packet: bytes) -> None:
        assert self._sock is not None, "packets come over a socket"
        if not self.ended.done():
            self.dialogue.feed(self._sock, packet)

    def _closed_by_peer(self) -> End:
        if self.up_since_s is not None:
            return End(Cause.CLOSED, "the broker closed the connection")
        return End(Cause.HUNG_UP, "the broker closed the connection instead of answering our CONNECT")

    def _deliver(self, harvest: Harvest) -> None:
        stats, inflow = self._stats, self._inflow
        if inflow.invalid_topics or inflow.oversized:
            stats.invalid_topics += inflow.invalid_topics
            stats.oversized += inflow.oversized
            inflow.invalid_topics = inflow.oversized = 0
            stats.last_error = "the broker sent a message with an impossible topic, or one larger than our whole memory"
        delivery = Delivery(harvest.mids, harvest.qos2_mids, harvest.size_bytes)
        self._owed.append(delivery)
        settle = partial(self._settle, delivery)
        if harvest.topics:
            arrivals = Arrivals(harvest.topics, harvest.flags, harvest.payloads, settle)
            self._plan.gate.offer(arrivals, delivery.size_bytes)
        else:
            settle()

    def _settle(self, delivery: Delivery) -> None:
        if delivery.is_settled:
            return
        delivery.is_settled = True
        self._plan.gate.settled(delivery.size_bytes)
        if self.ended.done():
            self._stats.stale_acks_dropped += len(delivery.mids) + len(delivery.qos2_mids)
            return
        owed = self._owed
        assert self._sock is not None, "messages came over a socket"
        while owed and owed[0].is_settled:
            first = owed.popleft()
            if first.mids:
                self._sock.send(encode_pubacks(first.mids))
            for mid in first.qos2_mids:
                self.dialogue.complete(mid)
            self._stats.acked_total += len(first.mids) + len(first.qos2_mids)
        if not owed and self._reader is not None:
            self._reader.settled()

    # Writing.

    def may_write(self) -> None:
        """Write at the end of this turn of the loop."""
        if not self._flush_planned and not self.ended.done():
            self._flush_planned = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Once a turn: everything that was written since the last one leaves together."""
        self._flush_planned = False
        sock = self._sock
        if self.ended.done() or sock is None:
            return
        try:
            if self.up_since_s is not None:
                self.dialogue.publish_waiting(self._loop.time(), sock.unsent_bytes)
            self.dialogue.write()
            had_bytes = sock.unsent_bytes
            if not sock.flush():
                self._loop.add_writer(sock.fileno(), self._flush)
                self._waits_to_write = True
            elif self._waits_to_write:
                self._loop.remove_writer(sock.fileno())
                self._waits_to_write = False
            if had_bytes > sock.unsent_bytes:
                self._said_s = self._loop.time()
        except OSError as error:
            self.over(End(Cause.LOST, f"the connection broke: {error}"))

    def _stay_alive(self) -> None:
        assert self._sock is not None, "the CONNACK came over a socket"
        now_s = self._loop.time()
        silent_s = now_s - self._heard_s if self._reader and self._reader.is_reading else 0.0
        if silent_s >= self._keepalive_s:
            self.over(End(Cause.LOST, f"the broker has been silent for {silent_s:.0f} s"))
            return
        if max(silent_s, now_s - self._said_s) >= self._keepalive_s / 2:
            self._sock.send(PINGREQ)
        self._timers["alive"] = self._loop.call_later(self._keepalive_s / 4, self._stay_alive)


def _nothing() -> None:
    """Nobody is left to write."""


def _release(sock: BrokerSocket | None) -> None:
    if sock is not None:
        sock.release()

"""The gateway's own MQTT server: the port, its connections, and the passing of time.

What a client may say is decided in `conversation`, who gets a message in `exchange`, how messages become batches in
`gathering`. Here are the socket, TLS, the timer and what the rest of the gateway may ask.

Invariants:
- One timer for all connections, not one each: deadlines are looked at once per `TICK_S`, so that they are kept to
  within that.
- Reading stops for one of two reasons, a full disk queue (`gathering`) or `pause`, and goes on when neither holds.
- Stopping tells every client, and sends no last wills: the protocol lets a server that shuts down hold them back, and
  the devices are still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import GatewayError
from gateway.mqtt.access import Access, Refusal
from gateway.mqtt.admission import House, Terms
from gateway.mqtt.connection import Connection
from gateway.mqtt.exchange import Exchange, Limits
from gateway.mqtt.gathering import Gathering
from gateway.mqtt.keeping import restore
from gateway.mqtt.packets import V5, Reason
from gateway.mqtt.session import Message
from gateway.mqtt.throttle import Throttle
from gateway.mqtt.topics import topic_problem
from gateway.mqtt.turn import MIN_LIMIT_BYTES
from gateway.observe import events

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config.settings import ListenSettings, TlsSettings
    from gateway.model import Arrivals
    from gateway.mqtt.gathering import Keeper
    from gateway.mqtt.ledger import State

TICK_S = 1.0
BACKLOG = 1_024
STOP_WITHIN_S = 2.0
"""How long clients have to take their last bytes when the gateway stops."""


class ListenerStats(NamedTuple):
    """Counts since the start, and how things stand."""

    connections: int
    """Open sockets."""
    connections_total: int
    refused_total: dict[str, int]
    """What clients wanted and were not given, by what that was: `connect`, `publish`, `subscribe`."""
    throttled_total: int
    """How often a client sent faster than it may, and was not read for a while."""
    sessions: int
    """With those whose client is away."""
    subscriptions: int
    retained: int
    received_total: int
    """Messages from clients, wills included."""
    received_bytes_total: int
    delivered_total: int
    """Messages sent to subscribers; a second try does not count."""
    dropped_total: dict[str, int]
    """What subscribers did not get, by cause: `queue_full`, `slow`, `too_large`, `expired`, `retained_full`."""
    unsettled_bytes: int
    """Received and not yet on disk."""


class ClientInfo(NamedTuple):
    """One session, for people."""

    client_id: str
    is_connected: bool
    address: str
    """Empty while away."""
    version: str
    """`3.1.1` or `5.0`."""
    connected_s: float
    """How long it has been connected; 0 while away."""
    subscriptions: tuple[str, ...]
    queued: int
    """Messages that wait for it."""
    in_flight: int
    """Messages that it has not acknowledged."""


class Listener:
    """The gateway's own listener."""

    def __init__(
        self,
        settings: ListenSettings,
        intake: Callable[[Arrivals], None],
        mono_s: Callable[[], float],
        keeper: Keeper | None = None,
        on_refusal: Callable[[Refusal], None] = lambda _: None,
    ) -> None:
        """Prepare; nothing is open before `start`.

        Args:
            settings: address, users, limits.
            intake: called on the loop with everything that one turn of it brought; calls `settle` once it is on disk.
            mono_s: monotonic seconds.
            keeper: writes what is to outlive the gateway; None: nothing does.
            on_refusal: told of everything that a client is refused.
        """
        self._settings = settings
        self.now_s = mono_s
        limits = Limits(
            sessions=2 * settings.max_connections,
            subscriptions=settings.max_subscriptions,
            queued=settings.max_queued_messages,
            queued_bytes=settings.max_queued_bytes,
        )
        self.exchange = Exchange(limits, keeps=keeper is not None)
        self._access = Access(settings.users, settings.permissions, self.refused)
        self._on_refusal = on_refusal
        terms = Terms(
            max(settings.max_packet_bytes, MIN_LIMIT_BYTES),
            settings.session_expiry_max_s,
            settings.connect_timeout_s,
            settings.max_in_flight,
        )
        self.house = House(self.exchange, self._access, terms, {}, {}, lambda: f"auto-{secrets.token_hex(8)}")
        self.gathering = Gathering(self.exchange, intake, mono_s, settings.max_unsettled_bytes, self._pace, keeper)
        self.port = settings.port
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ticked_s = 0.0
        self._connections: set[Connection] = set()
        self._all_gone = asyncio.Event()
        self._connections_total = 0
        self._refused_total: dict[str, int] = {}
        self._throttled_total = 0
        self._dropped_told = 0
        self._is_paused = False
        self._is_stopping = False

    def restore(self, state: State, log_offset_ns: int) -> None:
        """Take up what was kept, before `start`.

        Args:
            state: what the ledger has added up.
            log_offset_ns: what to add to monotonic time for the log's own.
        """
        self.exchange.log_offset_ns = log_offset_ns
        restore(self.exchange, state, self.now_s())

    async def start(self) -> None:
        """Open the port.

        Raises:
            GatewayError: the port is taken, the address is not ours, or a certificate cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        self.gathering.bind(self._loop)
        self._access.bind(self._loop)
        settings = self._settings
        where = f"{settings.host}:{settings.port}"
        try:
            context = None if settings.tls is None else server_context(settings.tls)
            self._server = await self._loop.create_server(
                self.connection,
                settings.host,
                settings.port,
                backlog=BACKLOG,
                ssl=context,
                ssl_handshake_timeout=settings.connect_timeout_s if context else None,
            )
        except OSError as error:
            raise GatewayError(f"cannot listen on {where}: {error.strerror or error}") from error
        self.port = self._server.sockets[0].getsockname()[1]
        self._ticked_s = self._loop.time()
        self._timer = self._loop.call_later(TICK_S, self._on_timer)
        events.listening("mqtt", f"{settings.host}:{self.port}")

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> int:
        """Send a message of the gateway's own to whoever subscribes. It does not go through the intake.

        Args:
            topic: a topic name.
            payload: at most what fits a packet.
            qos: 0, 1 or 2.
            retain: also keep it for later subscribers; with an empty payload, forget what is kept.

        Returns:
            How many sessions it was sent to or queued for.

        Raises:
            ValueError: the topic is none.
        """
        problem = topic_problem(topic)
        if problem:
            raise ValueError(problem)
        return self.exchange.publish(Message(topic, payload, qos, retain), self.now_s())

    @property
    def stats(self) -> ListenerStats:
        """How things stand."""
        tally = self.exchange.tally
        return ListenerStats(
            connections=len(self._connections),
            connections_total=self._connections_total,
            refused_total=dict(self._refused_total),
            throttled_total=self._throttled_total,
            sessions=len(self.exchange.sessions),
            subscriptions=self.exchange.subscriptions,
            retained=self.exchange.retained,
            received_total=self.gathering.received,
            received_bytes_total=self.gathering.received_bytes,
            delivered_total=tally.delivered,
            dropped_total=dict(tally.dropped),
            unsettled_bytes=self.gathering.unsettled_bytes,
        )

    def clients(self) -> list[ClientInfo]:
        """Every session, connected or not, in the order in which they began."""
        now_s = self.now_s()
        found: list[ClientInfo] = []
        for session in self.exchange.sessions.values():
            connection = session.outlet if isinstance(session.outlet, Connection) else None
            found.append(
                ClientInfo(
                    session.client_id,
                    connection is not None,
                    "" if connection is None else connection.peer,
                    "5.0" if session.version == V5 else "3.1.1",
                    0.0 if connection is None else now_s - connection.since_s,
                    tuple(session.subscriptions),
                    len(session.queue),
                    len(session.in_flight),
                )
            )
        return found

    def pause(self) -> None:
        """Stop reading, after handing over what has been read. Messages to clients still go out."""
        self._is_paused = True
        self.gathering.end_turn()
        self._pace()

    def resume(self) -> None:
        """Read again."""
        self._is_paused = False
        self._pace()

    def tick(self) -> None:
        """Let time pass: keep-alive, delayed wills, the end of sessions. Called by the timer; tests call it too."""
        now_s = self.now_s()
        for connection in list(self._connections):
            if not self.is_deaf or connection.abort_s is not None:
                connection.check(now_s)
        self.exchange.tick(now_s)
        self.ended()
        if self.exchange.notes.is_waiting:
            self.gathering.gathered(0)
        dropped = sum(self.exchange.tally.dropped.values())
        if dropped > self._dropped_told:
            events.queue_full("mqtt_subscribers", dropped=dropped - self._dropped_told)
            self._dropped_told = dropped

    async def stop(self) -> None:
        """Tell every client, close every connection and the port. Does nothing if it is already stopped."""
        self._is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.conversation.keeps_will = None
            connection.cut(Reason.SHUTTING_DOWN)
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), STOP_WITHIN_S)
        for connection in list(self._connections):
            connection.abort()
        self._access.close()
        self.gathering.end_turn()  # who has left is written, too
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def connection(self) -> Connection:
        """What serves one client, over whichever port it comes in."""
        return Connection(self)

    # Called by connections.

    def join(self, connection: Connection) -> bool:
        """A socket was opened. Returns whether there is room for it."""
        self._connections_total += 1
        if self._is_stopping or len(self._connections) >= self._settings.max_connections:
            why = "too many connections"
            self.refused(Refusal("connect", connection.peer, "", "", "", Reason.QUOTA_EXCEEDED, why))
            return False
        self._connections.add(connection)
        self._all_gone.clear()
        if self.is_deaf and self._loop is not None:
            # Not at once: uvloop begins to read after this call, whatever was asked for during it.
            self._loop.call_soon(self._pace)
        return True

    def leave(self, connection: Connection) -> None:
        """A socket is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._all_gone.set()

    def refused(self, refusal: Refusal) -> None:
        """A client was refused something."""
        self._refused_total[refusal.action] = self._refused_total.get(refusal.action, 0) + 1
        self._on_refusal(refusal)

    def throttle(self) -> Throttle | None:
        """What holds one client to its rate; None: nothing does."""
        messages_per_s, bytes_per_s = self._settings.max_messages_per_s, self._settings.max_bytes_per_s
        return None if messages_per_s is None and bytes_per_s is None else Throttle(messages_per_s, bytes_per_s)

    def throttled(self, wait_s: float, over: Callable[[], None]) -> None:
        """A client sends faster than it may: tell it when that is over."""
        assert self._loop is not None, "it is connected"
        self._throttled_total += 1
        self._loop.call_later(wait_s, over)

    def soon(self, call: Callable[[], None]) -> None:
        """Call in the loop's next turn."""
        assert self._loop is not None, "it is connected"
        self._loop.call_soon(call)

    def ended(self) -> None:
        """A session may have left a will behind: have it stored when the turn is over."""
        if self.exchange.has_wills:
            self.gathering.gathered(0)

    # The rest.

    def _on_timer(self) -> None:
        assert self._loop is not None, "started"
        loop_s = self._loop.time()
        if loop_s - self._ticked_s > 3 * TICK_S:
            # The loop itself was held up. What clients sent meanwhile may not have been read yet.
            for connection in self._connections:
                connection.conversation.grace(self.now_s())
        self._ticked_s = loop_s
        self._timer = self._loop.call_later(TICK_S, self._on_timer)
        self.tick()

    @property
    def is_deaf(self) -> bool:
        """Whether nobody is to be read."""
        return self._is_paused or self.gathering.is_full

    def _pace(self) -> None:
        for connection in self._connections:
            if self.is_deaf:
                connection.pause_reading()
            else:
                connection.resume_reading()


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    """TLS 1.2 or later. With trust anchors, clients must bring a certificate that leads to one."""
    if tls.certificate is None:
        raise GatewayError("mqtts needs a certificate to listen with")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.ca is not None:
        context.load_verify_locations(tls.ca)
        context.verify_mode = ssl.CERT_REQUIRED if tls.are_clients_certified else ssl.CERT_OPTIONAL
    if tls.crl is not None:
        context.load_verify_locations(tls.crl)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    return context

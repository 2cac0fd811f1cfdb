"""From CONNECT to CONNACK: whether a client is let in, as whom, and on what terms.

    CONNECT ── checked ──▶ login (may take a while) ── judged ──▶ session ──▶ CONNACK (a new one is on disk then)
                  └──────────────────────┴── refused ──▶ CONNACK with the reason, RefusedError

Invariants:
- Nobody is told that a session exists, or gets at one, before the login was right.
- A session belongs to the name that began it: another name is refused its client id.
- Who is told that it has a new session finds no older one after a kill: in that, its packet ids would mean something
  else, and messages under them would be taken for repetitions. Who has the old one is told at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import ProtocolError
from gateway.mqtt.access import Refusal
from gateway.mqtt.aliases import MAX_ALIASES
from gateway.mqtt.codec import decode, encode_connack
from gateway.mqtt.packets import V5, V311, Connect, Properties, Reason
from gateway.mqtt.properties import Property
from gateway.mqtt.sentences import fitting
from gateway.mqtt.session import DEFAULT_WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.mqtt.access import Access, Peer, Verdict
    from gateway.mqtt.exchange import Exchange
    from gateway.mqtt.permissions import Grant
    from gateway.mqtt.session import Outlet, Session
    from gateway.mqtt.wire import Body

MAX_CLIENT_ID = 1_024
MAX_KEEPALIVE_S = 3_600
"""A 5.0 client that asks for more, or for none, is told this; a 3.1.1 client cannot be told and gets what it asked."""
RECEIVE_MAXIMUM = 65_535
"""The protocol's own default, so it need not be announced."""
_SPEAKS_V5 = b"\0\4MQTT\5"
"""How the body of a CONNECT begins."""


class Terms(NamedTuple):
    """What one listener grants its clients."""

    max_packet_bytes: int
    session_expiry_max_s: int
    connect_timeout_s: float
    max_in_flight: int = RECEIVE_MAXIMUM
    """QoS 1 and 2 messages from one client that are not answered yet."""


class House(NamedTuple):
    """What all connections of one listener share."""

    exchange: Exchange
    access: Access
    terms: Terms
    known: dict[bytes, str]
    """Topics by their bytes on the wire: see `turn.learn`."""
    spoken: dict[bytes, Properties]
    """Property lists by theirs: see `turn.learn_properties`."""
    spare_client_id: Callable[[], str]
    """A name for a client that brings none."""


class RefusedError(ProtocolError):
    """A CONNECT was answered with a refusal, which is already in the outlet."""


class Admitted(NamedTuple):
    """A client that has been let in."""

    session: Session
    version: int
    keepalive_s: int
    user: str
    grant: Grant | None
    """What it may do; None: everything."""
    wants_sentences: bool
    """Beside the reasons in answers other than CONNACK and DISCONNECT [MQTT-3.1.2-29]."""


class Admission:
    """One CONNECT on its way to CONNACK."""

    def __init__(self, house: House, outlet: Outlet, peer: Peer) -> None:
        """See the module.

        Args:
            house: where it takes place.
            outlet: where answers go.
            peer: who connects.
        """
        self._exchange = house.exchange
        self._access = house.access
        self._terms = house.terms
        self._spare_client_id = house.spare_client_id
        self._outlet = outlet
        self._peer = peer
        self._packet: Connect | None = None
        self._client_id = ""
        self._verdict: Verdict | None = None
        self._guest: Admitted | None = None
        """Who has been let in, and will be told so."""
        self._welcome: Callable[[Admitted], None] = lambda _: None
        self._go_on: Callable[[], None] = lambda: None

    @property
    def is_pending(self) -> bool:
        """Whether a CONNECT waits for its login to be judged, or for its session to be on disk."""
        return self._guest is not None or (self._packet is not None and self._verdict is None)

    def ask(self, first: int, body: Body, now_s: float, judged: Callable[[], None]) -> bool:
        """Take a CONNECT.

        Args:
            first: its first byte.
            body: the rest of it.
            now_s: monotonic.
            judged: called when `proceed` can go on, unless it can at once; and when a client that had to wait for its
                CONNACK has it.

        Returns:
            Whether it can.

        Raises:
            ProtocolError: it is none.
            RefusedError: it cannot be served.
        """
        speaks_v5 = body.starts_with(_SPEAKS_V5)
        try:
            packet = decode(first, body, V5)
        except ProtocolError as error:
            if error.reason_code != Reason.UNSUPPORTED_VERSION and not speaks_v5:
                raise  # without a word [MQTT-3.1.4-1 of 3.1.1]
            # Whoever speaks another version will at best understand the oldest form of an answer.
            self._outlet.put(encode_connack(V5 if speaks_v5 else V311, error.reason_code, properties={}))
            self._report(error.reason_code, str(error))
            raise RefusedError(str(error), error.reason_code) from error
        assert isinstance(packet, Connect), packet
        self._packet = packet
        self._outlet.version = packet.version
        self._check(packet)

        def done(verdict: Verdict) -> None:
            self._verdict = verdict
            judged()

        self._go_on = judged
        self._verdict = self._access.admit(self._peer, packet.username, packet.password, now_s, done)
        return self._verdict is not None

    def _check(self, packet: Connect) -> None:
        if Property.AUTHENTICATION_METHOD in packet.properties:
            self._refuse(packet, Reason.BAD_AUTHENTICATION_METHOD, "enhanced authentication is not offered")
        if Property.AUTHENTICATION_DATA in packet.properties:
            self._refuse(packet, Reason.PROTOCOL_ERROR, "authentication data without a method")
        if packet.version == V311 and not packet.client_id and not packet.clean:
            self._refuse(packet, Reason.BAD_CLIENT_ID, "a session to be kept needs a client id")
        self._client_id = packet.client_id or self._spare_client_id()
        if len(self._client_id) > MAX_CLIENT_ID:
            self._refuse(packet, Reason.BAD_CLIENT_ID, f"the client id is longer than {MAX_CLIENT_ID}")

    def proceed(self, welcome: Callable[[Admitted], None]) -> None:
        """Give the client that has been judged its session, and answer, at once or when it may be told.

        Args:
            welcome: called with the answer, or when it has been given.

        Raises:
            RefusedError: it is not let in.
        """
        packet, verdict = self._packet, self._verdict
        assert packet is not None, "asked"
        assert verdict is not None, "judged"
        grant = self._check_guest(packet, verdict)
        exchange, client_id = self._exchange, self._client_id
        asked_s = self._asked_expiry_s(packet)
        expiry_s = min(asked_s, self._terms.session_expiry_max_s)
        keepalive_s = packet.keepalive_s
        if packet.version == V5 and not 0 < keepalive_s <= MAX_KEEPALIVE_S:
            keepalive_s = MAX_KEEPALIVE_S
        wanted = packet.properties
        granted = self._granted(packet, asked_s, expiry_s, keepalive_s) if packet.version == V5 else {}
        most_bytes = wanted.get(Property.MAXIMUM_PACKET_SIZE)
        connack = partial(encode_connack, packet.version, Reason.SUCCESS, properties=granted)
        if most_bytes is not None and len(connack()) > most_bytes:
            self._refuse(packet, Reason.PACKET_TOO_LARGE, "the answer is larger than the packets it takes")
        former = exchange.sessions.get(client_id)
        is_replaced = former is not None and former.is_kept
        session, is_present = exchange.attach(
            client_id,
            self._outlet,
            # A session from a time without users, or with them, is not what this client left.
            clean=packet.clean or exchange.owner_of(client_id) != verdict.device,
            expiry_s=expiry_s,
            will=packet.will,
            keepalive_s=keepalive_s,
            window=min(wanted.get(Property.RECEIVE_MAXIMUM, RECEIVE_MAXIMUM), DEFAULT_WINDOW),
            max_packet_bytes=most_bytes,
            max_aliases=min(wanted.get(Property.TOPIC_ALIAS_MAXIMUM, 0), MAX_ALIASES),
            owner=verdict.device,
        )
        if grant is not None:
            # Permissions may have changed since it subscribed.
            for mqtt_filter in [each for each in session.subscriptions if not grant.may_subscribe(each)]:
                exchange.unsubscribe(session, mqtt_filter)
        admitted = Admitted(
            session,
            packet.version,
            keepalive_s,
            verdict.device or packet.username or "",
            grant,
            wants_sentences=bool(wanted.get(Property.REQUEST_PROBLEM_INFO, 1)),
        )
        if not is_present and (session.is_kept or is_replaced):
            self._guest, self._welcome = admitted, welcome
            exchange.notes.stage(self, connack(session_present=False))
        else:
            self._outlet.put(connack(session_present=is_present))
            welcome(admitted)

    def _check_guest(self, packet: Connect, verdict: Verdict) -> Grant | None:
        """Refuse who must not come in, as whom it is now known to be. Returns what it may do."""
        if verdict.reason:
            self._refuse(packet, verdict.reason, verdict.why)
        owner = self._exchange.owner_of(self._client_id)
        if owner and verdict.device and owner != verdict.device:
            self._refuse(packet, Reason.BAD_CLIENT_ID, "the client id is another user's")
        grant = self._access.grant(verdict.device, self._client_id)
        if grant is not None and packet.will is not None and not grant.may_publish(packet.will.topic):
            self._refuse(packet, Reason.NOT_AUTHORIZED, "the last will's topic is not permitted")
        if self._exchange.is_full_for(self._client_id):
            self._refuse(packet, Reason.QUOTA_EXCEEDED, "too many sessions")
        return grant

    def put(self, data: bytes) -> None:
        """What was noted of a new session is on disk: say CONNACK, and go on with what has been sent meanwhile."""
        guest, self._guest = self._guest, None
        if guest is not None:
            self._outlet.put(data)
            self._welcome(guest)
            self._go_on()

    def end(self, now_s: float) -> None:
        """The connection is gone. A client that still waits was promised nothing, so that its session ends with it."""
        guest, self._guest = self._guest, None
        if guest is not None:
            guest.session.expiry_s = 0.0
            self._exchange.detach(guest.session, self._outlet, now_s, with_will=False)

    def _asked_expiry_s(self, packet: Connect) -> int:
        if packet.version == V5:
            asked_s: int = packet.properties.get(Property.SESSION_EXPIRY, 0)
            return asked_s
        return 0 if packet.clean else self._terms.session_expiry_max_s

    def _granted(self, packet: Connect, asked_s: int, expiry_s: int, keepalive_s: int) -> Properties:
        """The properties of CONNACK: everything that differs from what the protocol or the client assumes."""
        granted: Properties = {
            Property.MAXIMUM_PACKET_SIZE: self._terms.max_packet_bytes,
            Property.TOPIC_ALIAS_MAXIMUM: MAX_ALIASES,
        }
        if self._terms.max_in_flight != RECEIVE_MAXIMUM:
            granted[Property.RECEIVE_MAXIMUM] = self._terms.max_in_flight
        if expiry_s != asked_s:
            granted[Property.SESSION_EXPIRY] = expiry_s
        if not packet.client_id:
            granted[Property.ASSIGNED_CLIENT_ID] = self._client_id
        if keepalive_s != packet.keepalive_s:
            granted[Property.SERVER_KEEP_ALIVE] = keepalive_s
        return granted

    def _refuse(self, packet: Connect, reason: int, why: str) -> None:
        most_bytes = packet.properties.get(Property.MAXIMUM_PACKET_SIZE)
        connack = fitting(lambda said: encode_connack(packet.version, reason, properties=said), why, most_bytes)
        if connack:
            self._outlet.put(connack)
        self._report(reason, why)
        raise RefusedError(why, reason)

    def _report(self, reason: int, why: str) -> None:
        packet = self._packet
        client_id, user = ("", "") if packet is None else (packet.client_id, packet.username or "")
        self._access.report(
            Refusal("connect", self._peer.address, client_id, self._peer.certified or user, "", reason, why)
        )

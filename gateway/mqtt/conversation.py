"""One client's side of the protocol, from CONNECT to the end of the connection.

Packets come in one by one in the order received (plain PUBLISH packets having been taken by `turn.scan`); answers go
into the outlet; messages go into the turn. How it ends is an exception for the shell: `ProtocolError` (tell the client,
then close), `RefusedError` (it has been told by CONNACK), or `is_over` after a DISCONNECT.

    waiting ──CONNECT──▶ connected ──DISCONNECT──▶ over
       └───anything else───┴── violation ──▶ ProtocolError

Invariants:
- Nothing but CONNECT is looked at before CONNECT, and CONNECT only once [MQTT-3.1.0-1, -2].
- A QoS 2 message is stored once however often it is sent: by its packet id, from PUBREC to PUBREL [MQTT-4.3.3-9, -10].
- A deadline always exists until the client has connected, and after that unless it asked for no keep-alive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import ProtocolError
from gateway.mqtt.codec import (
    PINGRESP,
    decode,
    encode_connack,
    encode_disconnect,
    encode_pubacks,
    encode_pubcomp,
    encode_pubrecs,
    encode_suback,
    encode_unsuback,
)
from gateway.mqtt.ledger import Released
from gateway.mqtt.packets import (
    V5,
    V311,
    Ack,
    Connect,
    Disconnect,
    PacketType,
    Ping,
    Properties,
    Publish,
    Reason,
    Subscribe,
    Unsubscribe,
)
from gateway.mqtt.properties import Property
from gateway.mqtt.session import DEFAULT_WINDOW, Outlet, Session
from gateway.mqtt.topics import SHARED_PREFIX

if TYPE_CHECKING:
    from gateway.mqtt.access import Access
    from gateway.mqtt.exchange import Exchange
    from gateway.mqtt.turn import Turn
    from gateway.mqtt.wire import Body

MAX_ALIASES = 32
"""Topic aliases that a client may define, announced as Topic Alias Maximum; and that it is sent at most."""
MAX_CLIENT_ID = 1_024
MAX_KEEPALIVE_S = 3_600
"""A 5.0 client that asks for more, or for none, is told this; a 3.1.1 client cannot be told and gets what it asked."""
RECEIVE_MAXIMUM = 65_535
"""The protocol's own default, so it need not be announced: what protects memory is `max_unsettled_bytes`."""


class Terms(NamedTuple):
    """What one listener grants its clients."""

    max_packet_bytes: int
    session_expiry_max_s: int
    connect_timeout_s: float


class RefusedError(ProtocolError):
    """A CONNECT was answered with a refusal, which is already in the outlet."""


class Conversation:
    """The protocol state of one connection."""

    __slots__ = (
        "_access",
        "_aliases",
        "_exchange",
        "_keepalive_s",
        "_outlet",
        "_spare_client_id",
        "_terms",
        "deadline_s",
        "is_over",
        "keeps_will",
        "session",
        "unacknowledged",
        "username",
        "version",
    )

    def __init__(
        self, exchange: Exchange, access: Access, terms: Terms, outlet: Outlet, spare_client_id: str, now_s: float
    ) -> None:
        """Wait for CONNECT.

        Args:
            exchange: where its session lives.
            access: who may connect.
            terms: what is granted.
            outlet: where answers go.
            spare_client_id: its name if it brings none.
            now_s: monotonic.
        """
        self._exchange = exchange
        self._access = access
        self._terms = terms
        self._outlet = outlet
        self._spare_client_id = spare_client_id
        self._aliases: dict[int, str] = {}
        self._keepalive_s = 0
        self.version = V311
        self.session: Session | None = None
        self.username: str | None = None
        self.unacknowledged = 0
        """QoS 1 and 2 messages taken in and not answered yet."""
        self.keeps_will = True
        self.is_over = False
        self.deadline_s: float | None = now_s + terms.connect_timeout_s

    def heard(self, now_s: float) -> None:
        """Something came in. Only a whole CONNECT lifts the first deadline."""
        if self.session is not None:
            self.deadline_s = now_s + 1.5 * self._keepalive_s if self._keepalive_s else None

    def handle(self, first: int, body: Body, turn: Turn, now_s: float) -> Publish | None:
        """Take one packet.

        Args:
            first: its first byte.
            body: the rest of it.
            turn: where a message goes.
            now_s: monotonic.

        Returns:
            The packet if it was a PUBLISH, with its alias resolved, for the caller to acknowledge with the turn.

        Raises:
            ProtocolError: the connection must be closed with this reason.
        """
        if self.session is None:
            if first >> 4 != PacketType.CONNECT:
                raise ProtocolError("something before CONNECT", Reason.PROTOCOL_ERROR)
            self._connect(first, body, now_s)
            return None
        packet = decode(first, body, self.version)
        match packet:
            case Publish():
                return self._publish(self.session, packet, turn)
            case Ack():
                self._ack(self.session, first >> 4, packet, now_s)
            case Subscribe():
                self._subscribe(self.session, packet, now_s)
            case Unsubscribe():
                reasons = [self._exchange.unsubscribe(self.session, one) for one in packet.filters]
                self._answer(self.session, encode_unsuback(self.version, packet.mid, reasons))
            case Ping():
                self._outlet.put(PINGRESP)
            case Disconnect():
                self._disconnect(self.session, packet)
            case _:
                raise ProtocolError(f"{type(packet).__name__} has no place here", Reason.PROTOCOL_ERROR)
        return None

    def count(self, messages: int) -> None:
        """So many more messages wait for their acknowledgement.

        Raises:
            ProtocolError: 0x93, if the client sends more than it may [MQTT-3.3.4-9].
        """
        self.unacknowledged += messages
        if self.unacknowledged > RECEIVE_MAXIMUM:
            raise ProtocolError("more unacknowledged messages than packet ids", Reason.RECEIVE_MAXIMUM_EXCEEDED)

    def acknowledge(self, pubacks: list[bytes], pubrecs: list[bytes]) -> None:
        """Answer messages that are on disk now: QoS 1, then QoS 2, each in order of receipt [MQTT-4.6.0-2, -3].

        Nothing is said once the connection is over: on its successor a packet id means something else.
        """
        if self.is_over:
            return
        self.unacknowledged -= len(pubacks) + len(pubrecs)
        if pubacks:
            self._outlet.put(encode_pubacks(pubacks))
        if pubrecs:
            self._outlet.put(encode_pubrecs(pubrecs))

    def refuse(self, pubrecs: list[bytes], reason: int) -> None:
        """Messages could not be stored: close, so that the client offers them again."""
        if self.session is not None:
            self.session.receiving.difference_update(pubrecs)  # next time they are not repetitions
        if not self.is_over:
            self._outlet.cut(reason)

    def grace(self, now_s: float) -> None:
        """The gateway itself did not listen for a while: start its patience anew."""
        if self.session is not None:
            self.heard(now_s)
        elif self.deadline_s is not None:
            self.deadline_s = now_s + self._terms.connect_timeout_s

    def farewell(self, reason: int) -> bytes:
        """What to send before closing: DISCONNECT for a connected 5.0 client, nothing for others."""
        return encode_disconnect(reason) if self.session is not None and self.version == V5 else b""

    def end(self, now_s: float) -> None:
        """The connection is gone, however that came."""
        self.is_over = True
        self.deadline_s = None
        if self.session is not None:
            self._exchange.detach(self.session, self._outlet, now_s, with_will=self.keeps_will)

    # CONNECT.

    def _connect(self, first: int, body: Body, now_s: float) -> None:
        try:
            packet = decode(first, body, V5)
        except ProtocolError as error:
            if error.reason_code == Reason.UNSUPPORTED_VERSION:
                # Whoever speaks another version will at best understand the oldest form of an answer.
                self._refuse(V311, Reason.UNSUPPORTED_VERSION, str(error))
            raise
        assert isinstance(packet, Connect), packet
        self.version = self._outlet.version = packet.version
        client_id = self._check(packet)
        wanted = packet.properties
        is_v5 = packet.version == V5
        if is_v5:
            asked_s = wanted.get(Property.SESSION_EXPIRY, 0)
        else:
            asked_s = 0 if packet.clean else self._terms.session_expiry_max_s
        expiry_s = min(asked_s, self._terms.session_expiry_max_s)
        self._keepalive_s = packet.keepalive_s
        if is_v5 and not 0 < packet.keepalive_s <= MAX_KEEPALIVE_S:
            self._keepalive_s = MAX_KEEPALIVE_S
        self.username = packet.username
        session, is_present = self._exchange.attach(
            client_id,
            self._outlet,
            clean=packet.clean,
            expiry_s=expiry_s,
            will=packet.will,
            keepalive_s=self._keepalive_s,
            window=min(wanted.get(Property.RECEIVE_MAXIMUM, RECEIVE_MAXIMUM), DEFAULT_WINDOW),
            max_packet_bytes=wanted.get(Property.MAXIMUM_PACKET_SIZE),
            max_aliases=min(wanted.get(Property.TOPIC_ALIAS_MAXIMUM, 0), MAX_ALIASES),
        )
        self.session = session
        granted = self._granted(packet, client_id, asked_s, expiry_s) if is_v5 else {}
        self._outlet.put(encode_connack(packet.version, Reason.SUCCESS, session_present=is_present, properties=granted))
        self.heard(now_s)
        session.pump(now_s)

    def _check(self, packet: Connect) -> str:
        """Refuse what cannot be served. Returns the client id, given or assigned."""
        if Property.AUTHENTICATION_METHOD in packet.properties:
            self._refuse(packet.version, Reason.BAD_AUTHENTICATION_METHOD, "enhanced authentication is not offered")
        if Property.AUTHENTICATION_DATA in packet.properties:
            raise ProtocolError("authentication data without a method", Reason.PROTOCOL_ERROR)
        client_id = packet.client_id or self._spare_client_id
        if len(client_id) > MAX_CLIENT_ID or (packet.version == V311 and not packet.client_id and not packet.clean):
            self._refuse(packet.version, Reason.BAD_CLIENT_ID, "client id")
        reason = self._access.admit(packet.username, packet.password)
        if reason:
            self._refuse(packet.version, reason, "user name or password")
        if self._exchange.is_full_for(client_id):
            self._refuse(packet.version, Reason.QUOTA_EXCEEDED, "too many sessions")
        return client_id

    def _refuse(self, version: int, reason: int, why: str) -> None:
        self._outlet.put(encode_connack(version, reason, properties={}))
        raise RefusedError(why, reason)

    def _granted(self, packet: Connect, client_id: str, asked_s: int, expiry_s: int) -> Properties:
        """The properties of CONNACK: everything that differs from what the protocol or the client assumes."""
        granted: Properties = {
            Property.MAXIMUM_PACKET_SIZE: self._terms.max_packet_bytes,
            Property.TOPIC_ALIAS_MAXIMUM: MAX_ALIASES,
        }
        if expiry_s != asked_s:
            granted[Property.SESSION_EXPIRY] = expiry_s
        if not packet.client_id:
            granted[Property.ASSIGNED_CLIENT_ID] = client_id
        if self._keepalive_s != packet.keepalive_s:
            granted[Property.SERVER_KEEP_ALIVE] = self._keepalive_s
        return granted

    # Everything after.

    def _publish(self, session: Session, packet: Publish, turn: Turn) -> Publish | None:
        if packet.qos == 2:
            if packet.mid in session.receiving:
                return packet  # taken in before; only the answer was lost
            session.receiving.add(packet.mid)
            if session.is_kept:
                turn.taken.append((session, int.from_bytes(packet.mid, "big")))
        if packet.properties:
            packet = self._resolve_alias(packet)
        turn.add(
            packet.topic,
            packet.payload,
            qos=packet.qos,
            dup=packet.dup,
            retain=packet.retain,
            properties=packet.properties,
        )
        return packet

    def _resolve_alias(self, packet: Publish) -> Publish:
        alias = packet.properties.get(Property.TOPIC_ALIAS)
        if alias is None:
            return packet
        if not 0 < alias <= MAX_ALIASES:
            raise ProtocolError(f"topic alias {alias}", Reason.BAD_ALIAS)
        if packet.topic:
            self._aliases[alias] = packet.topic
            return packet
        topic = self._aliases.get(alias)
        if topic is None:
            raise ProtocolError(f"topic alias {alias} was never defined", Reason.PROTOCOL_ERROR)
        return packet._replace(topic=topic)

    def _ack(self, session: Session, kind: int, packet: Ack, now_s: float) -> None:
        match kind:
            case PacketType.PUBACK:
                session.acknowledge(packet.mid, now_s)
            case PacketType.PUBREC:
                session.receive(packet.mid, packet.reason, now_s)
            case PacketType.PUBCOMP:
                session.complete(packet.mid, now_s)
            case _:
                mid = packet.mid.to_bytes(2, "big")
                reason = Reason.SUCCESS if mid in session.receiving else Reason.PACKET_ID_NOT_FOUND
                answer = encode_pubcomp(self.version, packet.mid, reason)
                session.receiving.discard(mid)
                if session.is_kept and not reason:
                    # From now on the packet id may mean another message: that this one was released must not be lost.
                    self._exchange.notes.note(Released(session.client_id, packet.mid))
                self._answer(session, answer)

    def _subscribe(self, session: Session, packet: Subscribe, now_s: float) -> None:
        if any(wanted.no_local and name.startswith(SHARED_PREFIX) for name, wanted in packet.filters):
            raise ProtocolError("a shared subscription with no local", Reason.PROTOCOL_ERROR)  # [MQTT-3.8.3-4]
        answers = [self._exchange.subscribe(session, *one) for one in packet.filters]
        self._answer(session, encode_suback(self.version, packet.mid, [reason for reason, _ in answers]))
        for (mqtt_filter, _), (reason, wants_retained) in zip(packet.filters, answers, strict=True):
            if wants_retained and reason < Reason.UNSPECIFIED:
                self._exchange.send_retained(session, mqtt_filter, now_s)

    def _answer(self, session: Session, data: bytes) -> None:
        """Confirm a change: of a session that is to outlive the gateway, once the change is on disk."""
        if session.is_kept:
            self._exchange.notes.stage(self._outlet, data)
        else:
            self._outlet.put(data)

    def _disconnect(self, session: Session, packet: Disconnect) -> None:
        expiry_s = packet.properties.get(Property.SESSION_EXPIRY)
        if expiry_s is not None:
            if expiry_s and not session.expiry_s:
                raise ProtocolError("DISCONNECT lengthens a session that had no expiry", Reason.PROTOCOL_ERROR)
            session.expiry_s = min(expiry_s, self._terms.session_expiry_max_s)
        self.keeps_will = packet.reason != Reason.SUCCESS
        self.is_over = True

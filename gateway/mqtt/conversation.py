"""One client's side of the protocol, from CONNECT to the end of the connection.

Packets come in one by one in the order received (plain PUBLISH packets having been taken by `turn.scan`); answers go
into the outlet; messages go into the turn. How it ends is an exception for the shell: `ProtocolError` (tell the client,
then close), `RefusedError` (it has been told by CONNACK), or `is_over` after a DISCONNECT.

    waiting ──CONNECT──▶ pending ──judged──▶ connected ──DISCONNECT──▶ over
       └───anything else─────┴── violation ──────┴──▶ ProtocolError

How a CONNECT is judged is in `admission`; what may be done then, in `permissions`.

Invariants:
- Nothing but CONNECT is looked at before CONNECT, and CONNECT only once [MQTT-3.1.0-1, -2].
- A QoS 2 message is stored once however often it is sent: by its packet id, from PUBREC to PUBREL [MQTT-4.3.3-10, -12].
- A deadline always exists until the client has connected, and after that unless it asked for no keep-alive.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gateway.errors import ProtocolError
from gateway.mqtt.access import Refusal
from gateway.mqtt.admission import Admission
from gateway.mqtt.aliases import Aliases
from gateway.mqtt.codec import (
    PINGRESP,
    decode,
    encode_disconnect,
    encode_pubacks,
    encode_pubcomp,
    encode_pubrecs,
    encode_refused,
    encode_suback,
    encode_unsuback,
)
from gateway.mqtt.ledger import Released
from gateway.mqtt.packets import (
    V5,
    V311,
    Ack,
    Disconnect,
    PacketType,
    Ping,
    Publish,
    Reason,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from gateway.mqtt.properties import Property
from gateway.mqtt.sentences import fitting
from gateway.mqtt.topics import SHARED_PREFIX
from gateway.mqtt.turn import learn

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.mqtt.access import Peer
    from gateway.mqtt.admission import Admitted, House
    from gateway.mqtt.packets import Properties
    from gateway.mqtt.permissions import Grant
    from gateway.mqtt.session import Outlet, Session
    from gateway.mqtt.turn import Turn
    from gateway.mqtt.wire import Body

_REFUSED: dict[int, str] = {
    Reason.NOT_AUTHORIZED: "the filter is not permitted",
    Reason.QUOTA_EXCEEDED: "too many subscriptions",
}
_WHY = {Reason.BAD_FILTER: "this is no topic filter", **_REFUSED}


class Conversation:
    """The protocol state of one connection."""

    __slots__ = (
        "_access",
        "_admission",
        "_aliases",
        "_enough_bytes",
        "_exchange",
        "_grant",
        "_keepalive_s",
        "_outlet",
        "_peer",
        "_resume",
        "_terms",
        "_wants_sentences",
        "deadline_s",
        "is_crowded",
        "is_over",
        "keeps_will",
        "known",
        "period",
        "session",
        "unacknowledged",
        "unsettled_bytes",
        "user",
        "version",
    )

    def __init__(
        self,
        house: House,
        outlet: Outlet,
        peer: Peer,
        resume: Callable[[], None],
        now_s: float,
    ) -> None:
        """Wait for CONNECT.

        Args:
            house: where it takes place.
            outlet: where answers go.
            peer: who is there.
            resume: called when reading may go on: a login that took time has been judged (call `proceed`), or what was
                too much has been answered.
            now_s: monotonic.
        """
        self._exchange = house.exchange
        self._access = house.access
        self._terms = house.terms
        self._outlet = outlet
        self._peer = peer
        self._resume = resume
        self._admission: Admission | None = Admission(house, outlet, peer)
        self._grant: Grant | None = None
        self._wants_sentences = False
        self._aliases = Aliases()
        self._keepalive_s = 0
        self.known = house.known
        """Topics that `turn.scan` may take from this client: everybody's, or its own where not all is permitted."""
        self.version = V311
        self.session: Session | None = None
        self.user = ""
        """The name under which it has proved itself, or the one that it gave where nobody has to."""
        self._enough_bytes = 0
        self.period = 0
        self.unsettled_bytes = 0
        """Received from it, and not yet on disk."""
        self.unacknowledged = 0
        """QoS 1 and 2 messages taken in and not answered yet."""
        self.is_crowded = False
        """So much of it is under way that nothing more should be read: bytes, for the sake of the others; or messages,
        where the client cannot know how many it may send, since 3.1.1 has no word for it."""
        self.keeps_will: bool | None = True
        """None: it is the gateway that goes, not the client."""
        self.is_over = False
        self.deadline_s: float | None = now_s + self._terms.connect_timeout_s

    @property
    def is_pending(self) -> bool:
        """Whether nothing may be handled before `proceed`."""
        return self._admission is not None and self._admission.is_pending

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
            The packet if it was a PUBLISH, for the caller to acknowledge with the turn. Behind the packet id of one
            that is not permitted stands the reason, for its answer.

        Raises:
            ProtocolError: the connection must be closed with this reason.
        """
        if self.session is None:
            if first >> 4 != PacketType.CONNECT:
                raise ProtocolError("something before CONNECT", Reason.PROTOCOL_ERROR)
            self._connect(first, body, now_s)
            return None
        if first >> 4 == PacketType.CONNECT:
            raise ProtocolError("a second CONNECT", Reason.PROTOCOL_ERROR)
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
                self._answer_whole(self.session, lambda _: encode_unsuback(self.version, packet.mid, reasons))
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
            ProtocolError: 0x93, if the client sends more than it may [MQTT-3.3.4-7].
        """
        self.unacknowledged += messages
        if self.unacknowledged > self._terms.max_in_flight:
            if self.version == V5:
                raise ProtocolError("more unacknowledged messages than were granted", Reason.RECEIVE_MAXIMUM_EXCEEDED)
            self.is_crowded = True

    def gathered(self, size_bytes: int, most_bytes: int) -> None:
        """So many more bytes of it are on their way to the disk; beyond `most_bytes`, no more should be read."""
        self.unsettled_bytes += size_bytes
        if self.unsettled_bytes > most_bytes:
            self.is_crowded = True
            self._enough_bytes = most_bytes // 2

    def settled(self, size_bytes: int) -> None:
        """So many of them have arrived there."""
        self.unsettled_bytes -= size_bytes
        if (
            self.is_crowded
            and self.unsettled_bytes <= self._enough_bytes
            and self.unacknowledged <= self._terms.max_in_flight // 2
        ):
            self.is_crowded = False
            self._resume()

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

    def farewell(self, reason: int, why: str = "") -> bytes:
        """What to send before closing: DISCONNECT for a connected 5.0 client, nothing for others."""
        if self.session is None or self.version != V5:
            return b""
        return fitting(partial(encode_disconnect, reason), why, self.session.max_packet_bytes)

    def end(self, now_s: float) -> None:
        """The connection is gone, however that came."""
        self.is_over = True
        self.deadline_s = None
        if self.session is not None:
            self._exchange.detach(self.session, self._outlet, now_s, with_will=self.keeps_will)
        elif self._admission is not None:
            self._admission.end(now_s)

    # CONNECT.

    def _connect(self, first: int, body: Body, now_s: float) -> None:
        if self._admission is None or self._admission.is_pending:
            raise ProtocolError("a second CONNECT", Reason.PROTOCOL_ERROR)
        self.deadline_s = None  # from here on it is we who take the time
        if self._admission.ask(first, body, now_s, self._resume):
            self.proceed(now_s)

    def proceed(self, now_s: float) -> None:
        """Go on with a CONNECT whose login has been judged.

        Raises:
            RefusedError: it is not let in.
        """
        if self._admission is not None and not self.is_over:
            self._admission.proceed(self._welcome)
        if self.session is not None:
            self.heard(now_s)
            self.session.pump(now_s)

    def _welcome(self, admitted: Admitted) -> None:
        self._admission = None
        self.session, self.version, self._keepalive_s, self.user, self._grant, self._wants_sentences = admitted
        self.known = self.known if self._grant is None else {}

    # Everything after.

    def _publish(self, session: Session, packet: Publish, turn: Turn) -> Publish | None:
        if packet.properties:
            packet = self._aliases.resolve(packet)  # also of a repetition: it may define one
        if packet.qos == 2 and packet.mid in session.receiving:
            return packet  # taken in before; only the answer was lost
        if self._grant is not None and not self._grant.may_publish(packet.topic):
            return self._deny(session, packet)
        if packet.qos == 2:
            session.receiving.add(packet.mid)
            if session.is_kept:
                turn.taken.append((session, int.from_bytes(packet.mid, "big")))
        learn(self.known, packet.topic)  # `scan` left it alone perhaps only because it did not know the topic
        turn.add(
            packet.topic,
            packet.payload,
            qos=packet.qos,
            dup=packet.dup,
            retain=packet.retain,
            properties=packet.properties,
        )
        return packet

    def _deny(self, session: Session, packet: Publish) -> Publish:
        """A message that is not permitted. In 3.1.1 no answer says so, and one that says "stored" would be a lie."""
        why = "the topic is not permitted"
        self._refused("publish", packet.topic, Reason.NOT_AUTHORIZED, why)
        if packet.qos and self.version == V311:
            raise ProtocolError("a message on a topic that is not permitted", Reason.NOT_AUTHORIZED)
        build = partial(encode_refused, packet.mid, Reason.NOT_AUTHORIZED)
        room_bytes = None if session.max_packet_bytes is None else session.max_packet_bytes - 2
        return packet._replace(mid=fitting(build, why if self._wants_sentences else "", room_bytes))

    def _refused(self, action: str, subject: str, reason: int, detail: str) -> None:
        client_id = "" if self.session is None else self.session.client_id
        self._access.report(Refusal(action, self._peer.address, client_id, self.user, subject, reason, detail))

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
        answers = [self._subscribe_one(session, *one) for one in packet.filters]
        reasons = [reason for reason, _ in answers]
        why = next((_WHY[each] for each in reasons if each in _WHY), "")
        self._answer_whole(session, partial(encode_suback, self.version, packet.mid, reasons), why)
        for (mqtt_filter, wanted), (reason, wants_retained) in zip(packet.filters, answers, strict=True):
            if wants_retained and reason < Reason.UNSPECIFIED:
                self._exchange.send_retained(session, mqtt_filter, wanted, now_s)

    def _subscribe_one(self, session: Session, mqtt_filter: str, wanted: Subscription) -> tuple[int, bool]:
        answer: tuple[int, bool] = Reason.NOT_AUTHORIZED, False
        if self._grant is None or self._grant.may_subscribe(mqtt_filter):
            answer = self._exchange.subscribe(session, mqtt_filter, wanted)
        reason, _ = answer
        if reason in _REFUSED:
            self._refused("subscribe", mqtt_filter, reason, _REFUSED[reason])
        return answer

    def _answer_whole(self, session: Session, build: Callable[[Properties], bytes], why: str = "") -> None:
        """Confirm with a packet that grows with what it answers."""
        data = fitting(build, why if self._wants_sentences else "", session.max_packet_bytes)
        if not data:  # a part of it would be a lie, and nothing is not an answer [MQTT-3.1.2-24]
            raise ProtocolError("the answer is larger than the packets it takes", Reason.PACKET_TOO_LARGE)
        self._answer(session, data)

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

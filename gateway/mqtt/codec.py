"""Packets to bytes and bytes to packets, for the server's side of MQTT 3.1.1 and 5.0.

`decode` turns one framed packet into a value; the `encode_*` functions write what a server sends. PUBLISH comes through
here only when it is out of the ordinary (properties, aliases, QoS 2, a topic not seen before, anything suspicious): the
bulk is taken by `gateway.mqtt.turn`, which must accept exactly a subset of what is accepted here.

Invariants:
- Strict: reserved bits, reserved values, lengths that do not add up and bad strings are a `ProtocolError` with the
  reason code that MQTT 5 gives it. Any other exception is a bug.
- Version 3.1.1 and 5 differ in the places where `version` is asked and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import ProtocolError
from gateway.mqtt.packets import (
    NO_PROPERTIES,
    V5,
    V311,
    Ack,
    Authenticate,
    Connect,
    Disconnect,
    Packet,
    PacketType,
    Ping,
    Properties,
    Publish,
    Reason,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from gateway.mqtt.properties import WILL, Property, decode_properties, encode_properties
from gateway.mqtt.topics import topic_problem
from gateway.mqtt.wire import Body, encode_varint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PINGRESP = b"\xd0\x00"
MAX_FILTERS = 1_000
"""In one SUBSCRIBE or UNSUBSCRIBE."""

_CONNACK_311 = {
    Reason.SUCCESS: 0,
    Reason.UNSUPPORTED_VERSION: 1,
    Reason.BAD_CLIENT_ID: 2,
    Reason.BAD_CREDENTIALS: 4,
    Reason.NOT_AUTHORIZED: 5,
}
_UNAVAILABLE_311 = 3


# From the client.


def decode(first: int, body: Body, version: int) -> Packet:
    """Decode one packet that a client may send.

    Args:
        first: the first byte, type and flags.
        body: everything behind the remaining length.
        version: `V311` or `V5`, as agreed by CONNECT; ignored for CONNECT itself.

    Raises:
        ProtocolError: with the reason code to close the connection with.
    """
    kind = first >> 4
    if kind == PacketType.PUBLISH:
        packet: Packet = decode_publish(first, body, version)
    else:
        row = _DECODERS.get(kind)
        if row is None:
            raise ProtocolError(f"a client does not send packets of type {kind}", Reason.PROTOCOL_ERROR)
        flags, decoder = row
        if first & 0x0F != flags:
            raise ProtocolError(f"reserved flags in packet type {kind}", Reason.MALFORMED)
        packet = decoder(kind, body, version)
    if not body.is_done:
        raise ProtocolError(f"packet type {kind} is longer than its content", Reason.MALFORMED)
    return packet


def decode_publish(first: int, body: Body, version: int) -> Publish:
    """Decode a PUBLISH of any kind (3.3). The topic is checked; an alias is not resolved."""
    qos = first >> 1 & 3
    dup = bool(first & 8)
    if qos == 3 or (dup and not qos):
        raise ProtocolError("PUBLISH with impossible flags", Reason.MALFORMED)
    topic = body.text()
    mid = body.take(2) if qos else b""
    if mid == b"\0\0":
        raise ProtocolError("PUBLISH with packet id 0", Reason.PROTOCOL_ERROR)
    properties = decode_properties(body, PacketType.PUBLISH) if version == V5 else NO_PROPERTIES
    if topic or Property.TOPIC_ALIAS not in properties:
        problem = topic_problem(topic)
        if problem:
            raise ProtocolError(problem, Reason.BAD_TOPIC if topic else Reason.PROTOCOL_ERROR)
    _check_message(properties)
    return Publish(topic, body.rest(), qos, bool(first & 1), dup, mid, properties)


def _decode_connect(_kind: int, body: Body, _version: int) -> Connect:
    name = body.binary()
    level = body.u8()
    if name != b"MQTT" or level not in {V311, V5}:
        raise ProtocolError(f"protocol {name[:16]!r}, level {level}", Reason.UNSUPPORTED_VERSION)
    flags = body.u8()
    has_will = bool(flags & 0x04)
    will_qos = flags >> 3 & 3
    has_username, has_password = bool(flags & 0x80), bool(flags & 0x40)
    if flags & 0x01 or will_qos == 3 or (not has_will and flags & 0x38):
        raise ProtocolError("CONNECT with impossible flags", Reason.MALFORMED)
    if level == V311 and has_password and not has_username:
        raise ProtocolError("a password without a user name", Reason.MALFORMED)
    keepalive_s = body.u16()
    properties = decode_properties(body, PacketType.CONNECT) if level == V5 else NO_PROPERTIES
    client_id = body.text()
    will = _decode_will(body, level, will_qos, retain=bool(flags & 0x20)) if has_will else None
    username = body.text() if has_username else None
    password = body.binary() if has_password else None
    return Connect(level, client_id, bool(flags & 0x02), keepalive_s, username, password, will, properties)


def _decode_will(body: Body, version: int, qos: int, *, retain: bool) -> Will:
    properties = dict(decode_properties(body, WILL)) if version == V5 else {}
    topic = body.text()
    problem = topic_problem(topic)
    if problem:
        raise ProtocolError(f"the will's topic: {problem}", Reason.BAD_TOPIC)
    _check_message(properties)
    delay_s = properties.pop(Property.WILL_DELAY, 0)
    return Will(topic, body.binary(), qos, retain, properties, delay_s)


def _check_message(properties: Properties) -> None:
    answer_to = properties.get(Property.RESPONSE_TOPIC)
    if answer_to is not None and topic_problem(answer_to):
        raise ProtocolError("a response topic that is no topic name", Reason.PROTOCOL_ERROR)


def _decode_ack(kind: int, body: Body, version: int) -> Ack:
    mid = _packet_id(body)
    reason = int(Reason.SUCCESS)
    if version == V5 and not body.is_done:
        reason = _reason(body, kind)
        if not body.is_done:
            decode_properties(body, kind)
    return Ack(mid, reason)


def _reason(body: Body, kind: int) -> int:
    reason = body.u8()
    if reason not in _REASONS[kind]:
        raise ProtocolError(f"packet type {kind} with reason 0x{reason:02x}", Reason.PROTOCOL_ERROR)
    return reason


def _decode_subscribe(_kind: int, body: Body, version: int) -> Subscribe:
    mid = _packet_id(body)
    properties = decode_properties(body, PacketType.SUBSCRIBE) if version == V5 else NO_PROPERTIES
    identifier = properties.get(Property.SUBSCRIPTION_ID, 0)
    filters: list[tuple[str, Subscription]] = []
    while not body.is_done:
        name = body.text()
        options = body.u8()
        qos, retain_handling = options & 3, options >> 4 & 3
        if qos == 3 or options & (0xFC if version == V311 else 0xC0):
            raise ProtocolError("SUBSCRIBE with reserved options", Reason.MALFORMED)
        if retain_handling == 3:
            raise ProtocolError("SUBSCRIBE with retain handling 3", Reason.PROTOCOL_ERROR)
        filters.append((name, Subscription(qos, bool(options & 4), bool(options & 8), retain_handling, identifier)))
    _check_count(filters)
    return Subscribe(mid, filters)


def _decode_unsubscribe(_kind: int, body: Body, version: int) -> Unsubscribe:
    mid = _packet_id(body)
    if version == V5:
        decode_properties(body, PacketType.UNSUBSCRIBE)
    filters: list[str] = []
    while not body.is_done:
        filters.append(body.text())
    _check_count(filters)
    return Unsubscribe(mid, filters)


def _decode_ping(_kind: int, _body: Body, _version: int) -> Ping:
    return Ping()


def _decode_disconnect(_kind: int, body: Body, version: int) -> Disconnect:
    if version == V311 or body.is_done:
        return Disconnect(Reason.SUCCESS, NO_PROPERTIES)
    reason = _reason(body, PacketType.DISCONNECT)
    return Disconnect(reason, NO_PROPERTIES if body.is_done else decode_properties(body, PacketType.DISCONNECT))


def _decode_auth(_kind: int, body: Body, version: int) -> Authenticate:
    if version != V5:
        raise ProtocolError("AUTH does not exist in 3.1.1", Reason.PROTOCOL_ERROR)
    reason = int(Reason.SUCCESS) if body.is_done else body.u8()
    if not body.is_done:
        decode_properties(body, PacketType.AUTH)
    return Authenticate(reason)


def _packet_id(body: Body) -> int:
    mid = body.u16()
    if not mid:
        raise ProtocolError("packet id 0", Reason.PROTOCOL_ERROR)
    return mid


def _check_count(filters: Sequence[object]) -> None:
    if not filters:
        raise ProtocolError("a packet without a topic filter", Reason.PROTOCOL_ERROR)
    if len(filters) > MAX_FILTERS:
        raise ProtocolError(f"more than {MAX_FILTERS} topic filters in one packet", Reason.IMPLEMENTATION)


_TAKEN_OR_NOT = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99})
_KNOWN_OR_NOT = frozenset({0x00, 0x92})
_REASONS: dict[int, frozenset[int]] = {
    # Which reasons a client may give [MQTT-3.4.2-1, 3.5.2-1, 3.6.2-1, 3.7.2-1, 3.14.2-1].
    PacketType.PUBACK: _TAKEN_OR_NOT,
    PacketType.PUBREC: _TAKEN_OR_NOT,
    PacketType.PUBREL: _KNOWN_OR_NOT,
    PacketType.PUBCOMP: _KNOWN_OR_NOT,
    PacketType.DISCONNECT: frozenset(
        {0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99}
    ),
}
_DECODERS: dict[int, tuple[int, Callable[[int, Body, int], Packet]]] = {
    # type: (required flags, decoder)
    PacketType.CONNECT: (0, _decode_connect),
    PacketType.PUBACK: (0, _decode_ack),
    PacketType.PUBREC: (0, _decode_ack),
    PacketType.PUBREL: (2, _decode_ack),
    PacketType.PUBCOMP: (0, _decode_ack),
    PacketType.SUBSCRIBE: (2, _decode_subscribe),
    PacketType.UNSUBSCRIBE: (2, _decode_unsubscribe),
    PacketType.PINGREQ: (0, _decode_ping),
    PacketType.DISCONNECT: (0, _decode_disconnect),
    PacketType.AUTH: (0, _decode_auth),
}


# To the client.


def encode_connack(version: int, reason: int, *, session_present: bool = False, properties: Properties) -> bytes:
    """Answer a CONNECT. For 3.1.1 the reason becomes one of its six return codes and properties are left out."""
    present = bytes((session_present,))
    if version == V311:
        return b"\x20\x02" + present + bytes((_CONNACK_311.get(Reason(reason), _UNAVAILABLE_311),))
    return _packet(0x20, present + bytes((reason,)) + encode_properties(properties))


def encode_publish(
    topic: str,
    payload: bytes,
    *,
    version: int,
    qos: int,
    retain: bool,
    mid: int = 0,
    dup: bool = False,
    content: bytes = b"",
) -> bytes:
    """A message on its way to a subscriber.

    Args:
        topic: a valid topic name.
        payload: the message.
        version: the subscriber's.
        qos: 0, 1 or 2.
        retain: as this subscriber shall see it.
        mid: packet id, 1 to 65,535 above QoS 0.
        dup: this was sent before.
        content: encoded properties without their length; for 3.1.1 none.
    """
    name = topic.encode()
    head = len(name).to_bytes(2, "big") + name
    if qos:
        head += mid.to_bytes(2, "big")
    if version == V5:
        head += encode_varint(len(content)) + content
    first = 0x30 | dup << 3 | qos << 1 | retain
    size_bytes = len(head) + len(payload)
    if size_bytes < 0x80:
        return b"%c%c%b%b" % (first, size_bytes, head, payload)
    return b"%c%b%b%b" % (first, encode_varint(size_bytes), head, payload)


def encode_pubacks(mids: Sequence[bytes]) -> bytes:
    """Acknowledge many QoS 1 messages at once, in the order given.

    Args:
        mids: packet ids of two bytes; in 5.0 behind one that was refused stands why, see `encode_refused`.
    """
    return _encode_answers(b"\x40", mids)


def encode_pubrecs(mids: Sequence[bytes]) -> bytes:
    """The first answer to many QoS 2 messages at once, in the order given; see `encode_pubacks`."""
    return _encode_answers(b"\x50", mids)


def _encode_answers(first: bytes, mids: Sequence[bytes]) -> bytes:
    head = first + b"\x02"
    data = head + head.join(mids)
    if len(data) == 4 * len(mids):
        return data  # the short form, which means success
    return b"".join(first + encode_varint(len(mid)) + mid for mid in mids)


def encode_refused(mid: bytes, reason: int, said: Properties) -> bytes:
    """The body of a PUBACK or PUBREC for a message that was refused. 5.0 only."""
    return mid + bytes((reason,)) + (encode_properties(said) if said else b"")


def encode_pubrel(version: int, mid: int, reason: int = Reason.SUCCESS) -> bytes:
    """Release a QoS 2 message that its receiver has. The flags 0010 are part of it [MQTT-3.6.1-1]."""
    if version == V311 or not reason:
        return b"\x62\x02" + mid.to_bytes(2, "big")
    return b"\x62\x03" + mid.to_bytes(2, "big") + bytes((reason,))


def encode_pubcomp(version: int, mid: int, reason: int = Reason.SUCCESS) -> bytes:
    """The last word on a QoS 2 message."""
    if version == V311 or not reason:
        return b"\x70\x02" + mid.to_bytes(2, "big")
    return b"\x70\x03" + mid.to_bytes(2, "big") + bytes((reason,))


def encode_suback(version: int, mid: int, reasons: Sequence[int], said: Properties = NO_PROPERTIES) -> bytes:
    """One code per filter of a SUBSCRIBE; for 3.1.1 every failure is 0x80."""
    if version == V311:
        return _packet(0x90, mid.to_bytes(2, "big") + bytes(min(reason, 0x80) for reason in reasons))
    return _packet(0x90, mid.to_bytes(2, "big") + encode_properties(said) + bytes(reasons))


def encode_unsuback(version: int, mid: int, reasons: Sequence[int]) -> bytes:
    """Answer an UNSUBSCRIBE; 3.1.1 has no codes."""
    if version == V311:
        return b"\xb0\x02" + mid.to_bytes(2, "big")
    return _packet(0xB0, mid.to_bytes(2, "big") + b"\0" + bytes(reasons))


def encode_disconnect(reason: int, said: Properties = NO_PROPERTIES) -> bytes:
    """Why the server closes. 5.0 only."""
    if not said:
        return b"\xe0\x01" + bytes((reason,))
    return _packet(0xE0, bytes((reason,)) + encode_properties(said))


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + encode_varint(len(body)) + body

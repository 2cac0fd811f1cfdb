"""MQTT 5 properties as one table: what each is called, how it is written, and where it may stand (2.2.2.2).

    property list    length of what follows (1-4 bytes), then properties one after the other
    property         identifier (1 byte: none of those defined is above 127), then a value of the identifier's kind

    kind     bytes                              Python
    BYTE     1                                  int, 0 or 1
    U16 U32  2, 4                               int
    VARINT   1-4                                int
    TEXT     2 + n, UTF-8                       str
    BINARY   2 + n                              bytes
    PAIR     TEXT, TEXT                         (str, str)

Invariants:
- What is unknown, out of place, doubled or out of range is a `ProtocolError`; nothing is skipped.
- Encoding keeps the order in which a dict holds its properties; user properties keep theirs, always [MQTT-3.3.2-18].
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.errors import ProtocolError
from gateway.mqtt.packets import NO_PROPERTIES, PacketType, Properties, Reason
from gateway.mqtt.wire import Body, encode_binary, encode_text, encode_varint

if TYPE_CHECKING:
    from collections.abc import Callable

WILL = 0
"""Stands for the will's own properties within CONNECT; packet types begin at 1."""


class Property(IntEnum):
    """Identifiers."""

    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_ID = 0x0B
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFO = 0x17
    WILL_DELAY = 0x18
    REQUEST_RESPONSE_INFO = 0x19
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    USER = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    SHARED_AVAILABLE = 0x2A


class _Kind(Enum):
    BYTE = "byte"
    U16 = "u16"
    U32 = "u32"
    VARINT = "varint"
    TEXT = "text"
    BINARY = "binary"
    PAIR = "pair"


class _Row(NamedTuple):
    kind: _Kind
    places: frozenset[int]
    """Packets in which a client may send it; those that only a server sends have none."""
    is_positive: bool = False
    """0 is a protocol error."""
    repeats: bool = False


_P = PacketType
_MESSAGE = frozenset({_P.PUBLISH, WILL})
_ACKS = frozenset({_P.PUBACK, _P.PUBREC, _P.PUBREL, _P.PUBCOMP})
_NOWHERE: frozenset[int] = frozenset()

_TABLE: dict[int, _Row] = {
    Property.PAYLOAD_FORMAT: _Row(_Kind.BYTE, _MESSAGE),
    Property.MESSAGE_EXPIRY: _Row(_Kind.U32, _MESSAGE),
    Property.CONTENT_TYPE: _Row(_Kind.TEXT, _MESSAGE),
    Property.RESPONSE_TOPIC: _Row(_Kind.TEXT, _MESSAGE),
    Property.CORRELATION_DATA: _Row(_Kind.BINARY, _MESSAGE),
    # In PUBLISH it travels from the server only [MQTT-3.3.4-6].
    Property.SUBSCRIPTION_ID: _Row(_Kind.VARINT, frozenset({_P.SUBSCRIBE}), is_positive=True),
    Property.SESSION_EXPIRY: _Row(_Kind.U32, frozenset({_P.CONNECT, _P.DISCONNECT})),
    Property.ASSIGNED_CLIENT_ID: _Row(_Kind.TEXT, _NOWHERE),
    Property.SERVER_KEEP_ALIVE: _Row(_Kind.U16, _NOWHERE),
    Property.AUTHENTICATION_METHOD: _Row(_Kind.TEXT, frozenset({_P.CONNECT, _P.AUTH})),
    Property.AUTHENTICATION_DATA: _Row(_Kind.BINARY, frozenset({_P.CONNECT, _P.AUTH})),
    Property.REQUEST_PROBLEM_INFO: _Row(_Kind.BYTE, frozenset({_P.CONNECT})),
    Property.WILL_DELAY: _Row(_Kind.U32, frozenset({WILL})),
    Property.REQUEST_RESPONSE_INFO: _Row(_Kind.BYTE, frozenset({_P.CONNECT})),
    Property.REASON_STRING: _Row(_Kind.TEXT, _ACKS | {_P.DISCONNECT, _P.AUTH}),
    Property.RECEIVE_MAXIMUM: _Row(_Kind.U16, frozenset({_P.CONNECT}), is_positive=True),
    Property.TOPIC_ALIAS_MAXIMUM: _Row(_Kind.U16, frozenset({_P.CONNECT})),
    Property.TOPIC_ALIAS: _Row(_Kind.U16, frozenset({_P.PUBLISH})),
    Property.MAXIMUM_QOS: _Row(_Kind.BYTE, _NOWHERE),
    Property.USER: _Row(
        _Kind.PAIR,
        _MESSAGE | _ACKS | {_P.CONNECT, _P.SUBSCRIBE, _P.UNSUBSCRIBE, _P.DISCONNECT, _P.AUTH},
        repeats=True,
    ),
    Property.MAXIMUM_PACKET_SIZE: _Row(_Kind.U32, frozenset({_P.CONNECT}), is_positive=True),
    Property.SHARED_AVAILABLE: _Row(_Kind.BYTE, _NOWHERE),
}


def decode_properties(body: Body, place: int) -> Properties:
    """Read one property list.

    Args:
        body: stands at the list's length; afterwards behind the list.
        place: a `PacketType`, or `WILL`.

    Raises:
        ProtocolError: 0x81 if it cannot be read, 0x82 if it may not stand here like this.
    """
    length = body.varint()
    if not length:
        return NO_PROPERTIES
    inner = body.part(length)
    found: Properties = {}
    while not inner.is_done:
        identifier = inner.varint()
        row = _TABLE.get(identifier)
        if row is None:
            raise ProtocolError(f"unknown property 0x{identifier:02x}", Reason.MALFORMED)
        if place not in row.places:
            raise ProtocolError(f"property 0x{identifier:02x} has no place here", Reason.PROTOCOL_ERROR)
        value = _READ[row.kind](inner)
        if row.repeats:
            found.setdefault(identifier, []).append(value)
            continue
        if identifier in found:
            raise ProtocolError(f"property 0x{identifier:02x} stands twice", Reason.PROTOCOL_ERROR)
        if (row.kind is _Kind.BYTE and value > 1) or (row.is_positive and not value):
            raise ProtocolError(f"property 0x{identifier:02x} cannot be {value}", Reason.PROTOCOL_ERROR)
        found[identifier] = value
    return found


def encode_properties(properties: Properties) -> bytes:
    """The list with its length in front."""
    content = encode_property_content(properties)
    return encode_varint(len(content)) + content


def encode_property_content(properties: Properties) -> bytes:
    """The properties one after the other, without the length in front."""
    parts: list[bytes] = []
    for identifier, value in properties.items():
        row = _TABLE[identifier]
        write = _WRITE[row.kind]
        values = value if isinstance(value, list) else (value,)
        parts.extend(bytes((identifier,)) + write(one) for one in values)
    return b"".join(parts)


_READ: dict[_Kind, Callable[[Body], Any]] = {
    _Kind.BYTE: Body.u8,
    _Kind.U16: Body.u16,
    _Kind.U32: Body.u32,
    _Kind.VARINT: Body.varint,
    _Kind.TEXT: Body.text,
    _Kind.BINARY: Body.binary,
    _Kind.PAIR: lambda body: (body.text(), body.text()),
}
_WRITE: dict[_Kind, Callable[[Any], bytes]] = {
    _Kind.BYTE: lambda value: bytes((value,)),
    _Kind.U16: lambda value: value.to_bytes(2, "big"),
    _Kind.U32: lambda value: value.to_bytes(4, "big"),
    _Kind.VARINT: encode_varint,
    _Kind.TEXT: encode_text,
    _Kind.BINARY: encode_binary,
    _Kind.PAIR: lambda pair: encode_text(pair[0]) + encode_text(pair[1]),
}

"""The vocabulary of the wire: packet types, reason codes, and one value per packet that is not on the hot path.

PUBLISH in bulk never becomes a `Publish`: `gateway.mqtt.turn` takes it straight into columns.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

V311 = 4
V5 = 5

Properties: TypeAlias = dict[int, Any]
"""MQTT 5 properties by `Property`. Those that may repeat hold a list."""
NO_PROPERTIES: Properties = {}


class PacketType(IntEnum):
    """High nibble of the first byte (2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class Reason(IntEnum):
    """The reason codes that the gateway sends or looks at (2.4)."""

    SUCCESS = 0x00
    DISCONNECT_WITH_WILL = 0x04
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED = 0x80
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION = 0x83
    UNSUPPORTED_VERSION = 0x84
    BAD_CLIENT_ID = 0x85
    BAD_CREDENTIALS = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    TAKEN_OVER = 0x8E
    BAD_FILTER = 0x8F
    BAD_TOPIC = 0x90
    PACKET_ID_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    BAD_ALIAS = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    RATE_EXCEEDED = 0x9F


class Will(NamedTuple):
    """What to publish for a client that leaves without saying so."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties
    delay_s: int


class Connect(NamedTuple):
    """A client introduces itself."""

    version: int
    client_id: str
    clean: bool
    keepalive_s: int
    username: str | None
    password: bytes | None
    will: Will | None
    properties: Properties


class Publish(NamedTuple):
    """One application message."""

    topic: str
    """Empty where an alias stands for it."""
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    mid: bytes
    """Packet id as two raw bytes; empty at QoS 0."""
    properties: Properties


class Ack(NamedTuple):
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""

    mid: int
    reason: int


class Subscription(NamedTuple):
    """How a client wants what a filter matches."""

    qos: int = 0
    no_local: bool = False
    as_published: bool = False
    """Keep the RETAIN flag of a live message as its publisher set it."""
    retain_handling: int = 0
    """Retained messages on subscribing: 0 send, 1 send if the subscription is new, 2 do not send."""
    identifier: int = 0
    """0: none was given."""


class Subscribe(NamedTuple):
    """A client wants messages."""

    mid: int
    filters: list[tuple[str, Subscription]]


class Unsubscribe(NamedTuple):
    """A client no longer wants messages."""

    mid: int
    filters: list[str]


class Ping(NamedTuple):
    """A client is still there."""


class Disconnect(NamedTuple):
    """A client says that it leaves."""

    reason: int
    properties: Properties


class Authenticate(NamedTuple):
    """One step of enhanced authentication, which the gateway does not offer."""

    reason: int


Packet: TypeAlias = Connect | Publish | Ack | Subscribe | Unsubscribe | Ping | Disconnect | Authenticate

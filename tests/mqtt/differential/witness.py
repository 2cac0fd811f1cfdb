"""Replies of a broker, taken apart by hand, in a form in which two brokers can be compared.

It shares no code with the codec under test. What a broker is free to choose is left out of the form: the packet ids
that it gives, the limits it announces, reason strings, which name it assigns, and how many seconds of a message's life
are left. A packet id that the client gave must come back; one that the broker gave is replaced by the message that it
stands for.
"""

from __future__ import annotations

import dataclasses

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = (
    2,
    3,
    4,
    5,
    6,
    7,
    9,
    11,
    13,
    14,
)
NAMES = {
    2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP", 9: "SUBACK", 11: "UNSUBACK",
    13: "PINGRESP", 14: "DISCONNECT",
}  # fmt: skip

EXPIRY, ALIAS, ASSIGNED, REASON = 0x02, 0x23, 0x12, 0x1F
_FREE = {0x11, 0x13, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x27, 0x28, 0x29, 0x2A}
"""Session expiry, server keep alive, reason string, receive maximum, alias maximum, maximum QoS, retain available,
packet size, wildcards, identifiers and shared subscriptions available: each broker's own."""
_BYTE = {0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A}
_TWO = {0x13, 0x21, 0x22, 0x23}
_FOUR = {0x02, 0x11, 0x18, 0x27}
_TEXT = {0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F}


@dataclasses.dataclass(frozen=True, order=True)
class Reply:
    """One packet from a broker, or the end of the connection (`kind` "closed")."""

    kind: str
    detail: tuple = ()

    @property
    def is_message(self) -> bool:
        return self.kind == "PUBLISH"


CLOSED = Reply("closed")


Known = dict[int, bytes]
"""By a broker's packet id, what it stands for: the last payload sent with it. Outlives a connection."""


def protocol_level(hello: bytes) -> int:
    """Of a CONNECT, sound or not; 0 if it cannot be told."""
    at = 1
    while at < len(hello) and hello[at] & 0x80:
        at += 1
    return hello[at + 7] if hello[at + 1 : at + 7] == b"\0\4MQTT" and len(hello) > at + 7 else 0


@dataclasses.dataclass
class Stream:
    """What one connection has sent, packet by packet."""

    v5: bool
    known: Known
    data: bytearray = dataclasses.field(default_factory=bytearray)
    aliases: dict[int, bytes] = dataclasses.field(default_factory=dict)
    assigned: object = None
    """The client id that the broker gave."""

    def packets(self) -> list[tuple[int, int, bytes]]:
        """Whole packets: type, flags, body."""
        whole = []
        while True:
            size = shift = 0
            at = 1
            while True:
                if at >= len(self.data):
                    return whole
                byte = self.data[at]
                size |= (byte & 0x7F) << shift
                shift, at = shift + 7, at + 1
                if byte < 0x80:
                    break
            if len(self.data) < at + size:
                return whole
            whole.append((self.data[0] >> 4, self.data[0] & 15, bytes(self.data[at : at + size])))
            del self.data[: at + size]

    def reply(self, kind: int, flags: int, body: bytes) -> tuple[Reply, int]:
        """In the form in which it is compared, and its packet id, or 0."""
        take = Taker(body)
        name = NAMES[kind]
        if kind == CONNACK:
            present, code = take.number(1), take.number(1)
            if self.v5 and take.left:
                listed = dict(property_list(Taker(body[2:])))
                self.assigned = listed.get(ASSIGNED)
            return Reply(name, (present, code, self.properties(take) if take.left else ())), 0
        if kind == PUBLISH:
            return self.message(take, flags)
        if kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
            mid = take.number(2)
            about: object = self.known.get(mid, mid) if kind == PUBREL else mid
            return Reply(
                name, (about, take.number(1) if take.left else 0, self.properties(take) if take.left else ())
            ), mid
        if kind in (SUBACK, UNSUBACK):
            mid = take.number(2)
            listed = self.properties(take)
            return Reply(name, (mid, tuple(take.rest()), listed)), mid
        if kind == DISCONNECT:
            return Reply(name, (take.number(1) if take.left else 0,)), 0
        assert kind == PINGRESP
        assert not body
        return Reply(name), 0

    def message(self, take: Taker, flags: int) -> tuple[Reply, int]:
        topic = take.text()
        qos = flags >> 1 & 3
        mid = take.number(2) if qos else 0
        listed = self.properties(take)
        for alias in [value for number, value in listed if number == ALIAS]:
            if topic:
                self.aliases[alias] = topic
            assert alias in self.aliases, "an alias that was never introduced"
            topic = topic or self.aliases[alias]
        assert topic, "a message without a topic"
        kept = tuple(pair for pair in listed if pair[0] != ALIAS)
        payload = take.rest()
        assert bool(mid) == bool(qos), "a packet id of 0"
        if mid:
            self.known[mid] = payload
        return Reply("PUBLISH", (topic, payload, qos, flags & 1, flags >> 3 & 1, kept)), mid

    def properties(self, take: Taker) -> tuple[tuple[int, object], ...]:
        if not self.v5:
            return ()
        found = [(number, True if number in (EXPIRY, ASSIGNED) else value) for number, value in property_list(take)]
        users = [pair for pair in found if pair[0] == 0x26]  # whose order matters
        return tuple(sorted(pair for pair in found if pair[0] not in _FREE | {0x26})) + tuple(users)


class Taker:
    """Reads fields from the front of bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def bytes(self, size: int) -> bytes:
        assert self.left >= size, "a field reaches beyond its packet"
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.bytes(size), "big")

    def text(self) -> bytes:
        return self.bytes(self.number(2))

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def rest(self) -> bytes:
        return self.bytes(self.left)


def property_list(take: Taker) -> list[tuple[int, object]]:
    """Identifiers and values, as they stand there."""
    inner = Taker(take.bytes(take.varint()))
    found: list[tuple[int, object]] = []
    while inner.left:
        number = inner.number(1)
        value: object
        if number in _BYTE:
            value = inner.number(1)
        elif number in _TWO:
            value = inner.number(2)
        elif number in _FOUR:
            value = inner.number(4)
        elif number in _TEXT:
            value = inner.text()
        elif number == 0x0B:
            value = inner.varint()
        else:
            assert number == 0x26, f"unknown property {number:#x}"
            value = (inner.text(), inner.text())
        found.append((number, value))
    return found

"""The hot path: PUBLISH packets out of what a socket read brought, straight into columns.

One turn of the event loop reads from many sockets. All that they published goes into one `Turn`, whose first
three columns become `gateway.model.Arrivals`. Per message there is one pass through the loop in `scan`: no object, no
call but the appends, no clock, no log.

    first byte   0011 dqqr      d DUP, q QoS, r RETAIN
    length       1 or 2 bytes here (up to 16,383); longer ones go the general way
    topic        2 + n          looked up with its length in front: raw bytes -> checked string
    packet id    2              QoS 1
    properties   1 + n          5.0: none, or those of an earlier message; looked up; new ones go the general way
    payload      the rest

Invariants:
- `scan` takes what is certainly well-formed and stops in front of everything else, which `codec` then judges. So it
  raises nothing, and the two never disagree about what is acceptable.
- A topic is in `known` only after it has been decoded and checked.
- `flags` holds the QoS and `model.DUPLICATE`. It never holds `model.RETAINED`: RETAIN on a message *to* the gateway
  asks for storing a copy; the event itself is fresh.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gateway.model import DUPLICATE
from gateway.mqtt.properties import Property
from gateway.mqtt.wire import encode_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.mqtt.packets import Properties, Publish
    from gateway.mqtt.passing import Route
    from gateway.mqtt.session import Hearer, Session
    from gateway.mqtt.shared import Group

_NOTHING_SPOKEN: Mapping[bytes, Properties] = {}
MAX_SPOKEN, MAX_SPOKEN_BYTES = 1_024, 127
"""Property lists that are remembered, and how long they may be: a device mostly says the same of all its messages."""
MAX_KNOWN_TOPICS = 16_384
MAX_KNOWN_TOPIC_BYTES = 512
"""Longer ones are decoded each time, which bounds the memory that strangers can fill."""
MIN_LIMIT_BYTES = 256
"""`scan` does not ask whether a packet shorter than 130 bytes is too large."""


class Sender(Protocol):
    """Who sent something. Compared by identity: one connection, never its successor."""

    session: Session | None
    period: int
    """In which it last sent something; set by the gathering."""

    def settled(self, size_bytes: int) -> None:
        """So many bytes of what it sent are no longer on their way to the disk."""

    def acknowledge(self, pubacks: list[bytes], pubrecs: list[bytes]) -> None:
        """Answer messages, in the order given, if the connection is still there."""

    def refuse(self, pubrecs: list[bytes], reason: int) -> None:
        """Its messages could not be taken: close the connection, if it is still there, so that it offers them again."""


@dataclass(slots=True, eq=False)
class Turn:
    """What one turn of the loop brought, from all connections, in order of arrival."""

    topics: list[str] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    retained: list[int] = field(default_factory=list)
    """Indexes of messages with RETAIN, ascending."""
    properties: dict[int, Properties] = field(default_factory=dict)
    """By index: the MQTT 5 properties of the few messages that have any."""
    senders: list[tuple[int, Sender | None]] = field(default_factory=list)
    """From this index on, who sent it; None for what the gateway itself published for a client (a will)."""
    pubacks: dict[Sender, list[bytes]] = field(default_factory=dict)
    """By sender: raw packet ids of its QoS 1 messages, in order of arrival."""
    pubrecs: dict[Sender, list[bytes]] = field(default_factory=dict)
    """The same for QoS 2."""
    at_s: float = 0.0
    """When it was ended: from then on the expiry of its messages counts. Monotonic."""
    planned: dict[int, dict[Session | Group, tuple[Route, int]]] = field(default_factory=dict)
    """By index: who of the kept is to get a message, and whose turn it is in each group; and the message's number
    there, 0 if it is not kept for that one."""
    taken: list[tuple[Session, int]] = field(default_factory=list)
    """Packet ids of QoS 2 messages of kept sessions, those that are no repetitions."""
    answers: list[tuple[Hearer, bytes]] = field(default_factory=list)
    """What is said once everything so far is on disk."""
    sizes: dict[Sender, int] = field(default_factory=dict)
    """By sender: bytes of what it sent."""
    wire_bytes: int = 0
    is_settled: bool = False

    def add(
        self, topic: str, payload: bytes, *, qos: int, dup: bool = False, retain: bool = False, properties: Properties
    ) -> None:
        """Append one message that did not come through `scan`."""
        if retain:
            self.retained.append(len(self.topics))
        if properties:
            self.properties[len(self.topics)] = properties
        self.topics.append(topic)
        self.flags.append(qos | DUPLICATE if dup else qos)
        self.payloads.append(payload)


_RETAIN = 0x100
_PLAIN: tuple[int, ...] = tuple(
    {0x30: 0, 0x32: 1, 0x3A: 1 | DUPLICATE, 0x31: _RETAIN, 0x33: 1 | _RETAIN, 0x3B: 1 | DUPLICATE | _RETAIN}.get(
        first, -1
    )
    for first in range(256)
)
"""By first byte: the event's flags, or -1 for what is not a QoS 0 or 1 PUBLISH."""

RUN_BYTES = 1024
"""From so much data on it is worth while to look for a run of packets on one topic."""
_LONGEST_IN_RUN = 1024
_HEADS = {
    first: [
        bytes((first, size) if size < 0x80 else (first, size & 0x7F | 0x80, size >> 7))
        for size in range(_LONGEST_IN_RUN)
    ]
    for first in (0x30, 0x32)
}
"""First byte and remaining length of packets, by first byte and length."""


def scan(
    data: bytes,
    position: int,
    limit_bytes: int,
    known: dict[bytes, str],
    turn: Turn,
    mids: list[bytes],
    *,
    v5: bool,
    spoken: Mapping[bytes, Properties] = _NOTHING_SPOKEN,
) -> int:
    """Take PUBLISH packets for as long as they are whole and plain.

    Args:
        data: what was received; bytes, since its slices become keys and payloads.
        position: where a packet begins.
        limit_bytes: the largest packet accepted, at least `MIN_LIMIT_BYTES`.
        known: checked topics by their bytes on the wire, length included. See `learn`.
        turn: gets the messages.
        mids: gets the raw packet ids of QoS 1 messages.
        v5: whether a property list stands before the payload.
        spoken: checked property lists by their bytes on the wire, without the length. See `learn_properties`.

    Returns:
        Where it stopped: the end, or a packet that is incomplete, of another kind, on a topic or with properties not
        yet known, long, or wrong.
    """
    if len(data) - position >= RUN_BYTES and limit_bytes >= _LONGEST_IN_RUN:
        position = _scan_run(data, position, known, turn, mids, v5=v5)
    plain = _PLAIN
    topics = turn.topics
    add_topic, add_flags, add_payload, add_mid = topics.append, turn.flags.append, turn.payloads.append, mids.append
    # The shortest PUBLISH has five bytes, so that reading up to position + 4 stays within the data.
    last = len(data) - 5
    end = len(data)
    while position <= last:
        flags = plain[data[position]]
        if flags < 0:
            break
        length = data[position + 1]
        start = position + 2
        if length > 0x7F:
            high = data[start]
            start += 1
            if high > 0x7F:
                break
            length += (high << 7) - 0x80
            if length + 3 > limit_bytes:
                break
        stop = start + length
        if stop > end:
            break
        split = start + 2 + (data[start] << 8) + data[start + 1]
        topic = known.get(data[start:split])
        if topic is None:
            break
        if flags & 1:
            mid = data[split : split + 2]
            split += 2
            if mid == b"\0\0":
                break
        properties = None
        if v5:
            if split >= stop:
                break
            size_bytes = data[split]
            split += 1
            if size_bytes:
                # A longer length than one byte has is no known list's either: those are shorter.
                properties = spoken.get(data[split : split + size_bytes])
                if properties is None:
                    break
                split += size_bytes
        if split > stop:
            break
        if flags & 1:
            add_mid(mid)
        if properties is not None:
            turn.properties[len(topics)] = properties
        if flags >= _RETAIN:
            turn.retained.append(len(topics))
            flags -= _RETAIN
        add_topic(topic)
        add_flags(flags)
        add_payload(data[split:stop])
        position = stop
    return position


def _scan_run(data: bytes, position: int, known: dict[bytes, str], turn: Turn, mids: list[bytes], *, v5: bool) -> int:
    """Take packets that follow each other on one topic, all plain: what one device sends.

    Cut wherever the topic stands, the data falls into pieces: what is in a packet behind its topic, and the first byte
    and the length of the next packet. A packet is taken if the length that it gives is that of its piece; then that is
    where it ends, whatever the topic's bytes may do within payloads. So this finds what the loop in `scan` would find.

    Returns:
        Where it stopped: the last packet at the latest, which `scan` looks at.
    """
    first, flags = data[position], _PLAIN[data[position]]
    if flags not in (0, 1):
        return position
    head_bytes = 2 if data[position + 1] < 0x80 else 3
    start = position + head_bytes
    name = data[start : start + 2 + (data[start] << 8) + data[start + 1]]
    topic = known.get(name)
    if topic is None:
        return position
    pieces = data[position:].split(name) if position else data.split(name)
    before = 2 * flags + v5
    heads, outside_bytes = _HEADS[first], len(name) - head_bytes
    del pieces[-1]  # perhaps incomplete
    sizes = list(map(len, pieces))
    if len(pieces) < 2 or sizes[0] != head_bytes:
        return position
    if min(sizes[1:]) < head_bytes + before or max(sizes) + outside_bytes >= _LONGEST_IN_RUN:
        return position
    given = [piece[-head_bytes:] for piece in pieces]
    del pieces[0], sizes[0], given[-1]
    count = _agreeing(given, [heads[size_bytes + outside_bytes] for size_bytes in sizes])
    ids = [piece[:2] for piece in pieces] if flags else []
    if b"\0\0" in ids:
        count = min(count, ids.index(b"\0\0"))
    if v5:
        count = _agreeing([piece[before - 1] for piece in pieces[:count]], [0] * count)
    mids += ids[:count]
    turn.topics += [topic] * count
    turn.flags += [flags] * count
    turn.payloads += [piece[before:-head_bytes] for piece in pieces[:count]]
    return position + count * len(name) + sum(sizes[:count])


def _agreeing(found: list[Any], wanted: list[Any]) -> int:
    """How many of the first elements are the same."""
    if found == wanted:
        return len(wanted)
    return next(index for index, (one, other) in enumerate(zip(found, wanted, strict=True)) if one != other)


def learn(known: dict[bytes, str], topic: str) -> str:
    """Let `scan` recognise a checked topic from now on. Returns the string that all its messages share."""
    if len(topic) > MAX_KNOWN_TOPIC_BYTES:
        return topic
    if len(known) >= MAX_KNOWN_TOPICS:
        known.clear()
    return known.setdefault(encode_text(topic), topic)


def learn_properties(spoken: dict[bytes, Properties], data: bytes, start: int, packet: Publish) -> None:
    """Let `scan` recognise the properties of a checked PUBLISH from now on, unless they say what its topic is.

    Args:
        spoken: what is known.
        data: where it was read from.
        start: where its topic begins.
        packet: what it was decoded to.
    """
    start += 2 + (data[start] << 8) + data[start + 1] + (2 if packet.qos else 0)
    size_bytes = data[start]
    if Property.TOPIC_ALIAS in packet.properties or size_bytes > MAX_SPOKEN_BYTES:
        return
    if len(spoken) >= MAX_SPOKEN:
        spoken.clear()
    spoken[data[start + 1 : start + 1 + size_bytes]] = packet.properties

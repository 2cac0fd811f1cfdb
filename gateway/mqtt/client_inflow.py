"""The byte stream from a broker, sorted: messages of QoS 0 and 1 into columns, everything else to paho, in their order.

Bytes in, columns out. `turn.scan` takes plain PUBLISH packets in bulk, `scan_past_properties` those of MQTT 5 that say
more, `_take` the rest one by one; what goes to paho goes through a callable, and a message of QoS 2 comes back from it
by `add`. No I/O, no clock.

Invariants:
- Messages stand in the columns, and packet ids in `mids`, in the order in which the broker sent them, whichever way
  they went.
- RETAIN on a message from a broker says that it is none of now: it becomes `model.RETAINED` [MQTT-3.3.1-8].
- A PUBLISH is read as far as it is needed: properties are measured and passed over, and a topic that is none is counted
  and acknowledged, since a broker would offer it for ever. A length that does not add up ends the connection.
- At most one packet is gathered at a time, and none larger than the limit: a larger PUBLISH is thrown away as it comes
  in, and acknowledged in its turn, since a broker would offer it for ever.
- A PUBLISH before the CONNACK is paho's to judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import ProtocolError
from gateway.model import DUPLICATE, RETAINED
from gateway.mqtt.packets import PacketType, Reason
from gateway.mqtt.topics import topic_problem
from gateway.mqtt.turn import MIN_LIMIT_BYTES, Turn, learn, scan
from gateway.mqtt.wire import MAX_VARINT, Body, Frame, NeedMore, decode_text, frame_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from paho.mqtt.client import MQTTMessage

_ANY_SIZE_BYTES = MAX_VARINT + 5
_MESSAGE_BYTES = 64
"""What a message costs in memory beside its payload, about."""
_IS_OURS = tuple(first >> 4 == PacketType.PUBLISH and not first & 0x04 for first in range(256))
"""By first byte: a PUBLISH of QoS 0 or 1. The rest is paho's."""


_FLAGS: tuple[int, ...] = tuple(
    (first >> 1 & 1 | (DUPLICATE if first & 0x08 else 0) | (RETAINED if first & 0x01 else 0)) if ours else -1
    for first, ours in enumerate(_IS_OURS)
)
"""By first byte: the event's flags, or -1."""


def scan_past_properties(
    data: bytes, position: int, limit_bytes: int, known: dict[bytes, str], turn: Turn, mids: list[bytes]
) -> int:
    """Like `turn.scan` in MQTT 5, but for messages from a broker: RETAIN is a flag, and properties are passed over.

    Returns:
        Where it stopped: the end, or a packet that is incomplete, of another kind, on a topic not yet known, long, with
        more than 127 bytes of properties, or wrong.
    """
    topics, all_flags, payloads = turn.topics, turn.flags, turn.payloads
    last, end = len(data) - 5, len(data)  # as in `turn.scan`: the shortest PUBLISH
    while position <= last:
        flags = _FLAGS[data[position]]
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
        mid = None
        if flags & 1:
            mid = data[split : split + 2]
            split += 2
        if split >= stop or data[split] > 0x7F or mid == b"\0\0":
            break
        split += 1 + data[split]
        if split > stop:
            break
        if mid is not None:
            mids.append(mid)
        topics.append(topic)
        all_flags.append(flags)
        payloads.append(data[split:stop])
        position = stop
    return position


class Harvest(NamedTuple):
    """What was taken out of the stream since the last time. Columns of equal length."""

    topics: list[str]
    flags: list[int]
    payloads: list[bytes]
    mids: list[bytes]
    """Raw packet ids that want a PUBACK."""
    qos2_mids: list[int]
    """Packet ids that want a PUBCOMP."""

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, about."""
        return sum(map(len, self.payloads)) + _MESSAGE_BYTES * len(self.payloads)


class Inflow:
    """One connection's stream."""

    def __init__(self, limit_bytes: int, known: dict[bytes, str], feed: Callable[[bytes], None], *, v5: bool) -> None:
        """See the module.

        Args:
            limit_bytes: the largest packet that is gathered.
            known: topics that have been checked, see `turn.learn`; may be shared by connections.
            feed: has paho handle one packet.
            v5: the connection speaks MQTT 5.
        """
        self._limit_bytes = max(limit_bytes, MIN_LIMIT_BYTES)
        self._known = known
        self._feed = feed
        self._v5 = v5
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._wanted_bytes = 0
        self._skip_bytes = 0
        self._turn = Turn()
        self._mids: list[bytes] = []
        self._qos2_mids: list[int] = []
        self.is_up = False
        """The CONNACK has come."""
        self.invalid_topics = 0
        self.oversized = 0

    def receive(self, chunk: bytes) -> None:
        """Sort what came in.

        Raises:
            ProtocolError: the stream cannot be read on.
        """
        if self._skip_bytes:
            skipped = min(self._skip_bytes, len(chunk))
            self._skip_bytes -= skipped
            chunk = chunk[skipped:]
        self._parts.append(chunk)
        self._parts_bytes += len(chunk)
        if self._parts_bytes < self._wanted_bytes:
            return
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._parts_bytes, self._wanted_bytes = [], 0, 0
        rest = data[self._sort(data) :]
        if rest:
            self._parts, self._parts_bytes = [rest], len(rest)

    def add(self, message: MQTTMessage) -> None:
        """A message of QoS 2, which paho has decoded and has the dialogue of."""
        self._qos2_mids.append(message.mid)
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        if topic_problem(topic):
            self.invalid_topics += 1
            return
        flags = message.qos | (DUPLICATE if message.dup else 0) | (RETAINED if message.retain else 0)
        self._append(learn(self._known, topic), flags, bytes(message.payload))

    def harvest(self) -> Harvest | None:
        """Take what has gathered; None if nothing has that anybody waits for."""
        turn = self._turn
        if not (turn.topics or self._mids or self._qos2_mids):
            return None
        flags = turn.flags
        if turn.retained:
            for index in turn.retained:
                flags[index] |= RETAINED
            turn.retained = []
        harvest = Harvest(turn.topics, flags, turn.payloads, self._mids, self._qos2_mids)
        turn.topics, turn.flags, turn.payloads = [], [], []  # the turn itself is large, and a read often small
        self._mids, self._qos2_mids = [], []
        return harvest

    def _sort(self, data: bytes) -> int:
        position, end = 0, len(data)
        while position < end:
            if self.is_up:
                position = scan(data, position, self._limit_bytes, self._known, self._turn, self._mids, v5=self._v5)
                if self._v5 and position < end:
                    position = scan_past_properties(
                        data, position, self._limit_bytes, self._known, self._turn, self._mids
                    )
                if position >= end:
                    break
            frame = frame_at(data, position, _ANY_SIZE_BYTES)
            if isinstance(frame, NeedMore):
                self._wanted_bytes = frame.wanted_bytes
                if frame.wanted_bytes > self._limit_bytes:
                    return self._skip(data, position)
                break
            if self.is_up and _IS_OURS[frame.first]:
                self._take(data, frame)
            else:
                self._feed(data[position : frame.stop])
            position = frame.stop
        return position

    def _take(self, data: bytes, frame: Frame) -> None:
        """One PUBLISH of QoS 0 or 1 that the scans have left: on a topic not seen before, long, or wrong (3.3)."""
        first, body = frame.first, Body(data, frame.start, frame.stop)
        name = body.binary()
        if first & 0x02:
            mid = body.take(2)
            if mid == b"\0\0":
                raise ProtocolError("PUBLISH with packet id 0", Reason.PROTOCOL_ERROR)  # [MQTT-2.2.1-3]
            self._mids.append(mid)
        if self._v5:
            body.take(body.varint())
        topic = self._known.get(data[frame.start : frame.start + 2 + len(name)]) or self._check(name)
        if not topic:
            self.invalid_topics += 1
            return
        self._append(topic, _FLAGS[first], body.rest())

    def _check(self, name: bytes) -> str:
        """The topic; empty if it can be none."""
        try:
            topic = decode_text(name)
        except ProtocolError:
            return ""
        return "" if topic_problem(topic) else learn(self._known, topic)

    def _append(self, topic: str, flags: int, payload: bytes) -> None:
        turn = self._turn
        turn.topics.append(topic)
        turn.flags.append(flags)
        turn.payloads.append(payload)

    def _skip(self, data: bytes, position: int) -> int:
        """Throw away what is too large to gather. Returns where reading goes on; `position` to see more of it first."""
        size_bytes = self._wanted_bytes
        first = data[position]
        if first >> 4 != PacketType.PUBLISH or not self.is_up or first & 0x06 == 0x04:
            raise ProtocolError(f"a packet of {size_bytes} bytes", Reason.PACKET_TOO_LARGE)
        body = position + 1
        while data[body] & 0x80:
            body += 1
        body += 1
        topic_bytes = int.from_bytes(data[body : body + 2], "big")
        mid_at = body + 2 + topic_bytes
        if mid_at + 2 > len(data):
            self._wanted_bytes = mid_at + 2 - position
            return position
        if first & 0x02:
            self._mids.append(data[mid_at : mid_at + 2])
        self.oversized += 1
        self._wanted_bytes = 0
        self._skip_bytes = size_bytes - (len(data) - position)
        return len(data)

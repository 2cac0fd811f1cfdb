"""The smallest pieces of the wire: integers, strings, and where one packet ends and the next begins.

    first byte        packet type (high nibble), flags (low nibble)
    1-4 bytes         remaining length: 7 bits each, lowest first; the top bit says that another follows
    remaining length  the packet's body

    integers          big-endian
    strings           length (2), UTF-8 without U+0000 and surrogates [MQTT-1.5.4-1, -2]
    binary            length (2), bytes

Invariants:
- Nothing is read beyond the end of a body: what is too short is malformed (0x81).
- A length is refused before anything of that length is kept (0x95).
- A remaining length with padding (`0x82 0x00`) is accepted: small devices reserve two bytes for it and patch them in.
  Every other variable byte integer must be in its shortest form.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.errors import ProtocolError
from gateway.mqtt.packets import Reason

MAX_VARINT = 268_435_455
MAX_HEADER_BYTES = 5


class Frame(NamedTuple):
    """Where one packet lies within the bytes at hand."""

    first: int
    """Its first byte: type and flags."""
    start: int
    """Where its body begins."""
    stop: int
    """Where the next packet begins."""


class NeedMore(NamedTuple):
    """The bytes at hand end before the packet does."""

    wanted_bytes: int
    """At least so many, counted from the packet's beginning."""


def frame_at(data: bytes, position: int, limit_bytes: int) -> Frame | NeedMore:
    """Find the packet that begins at `position`.

    Args:
        data: whatever was received.
        position: where a packet begins; less than `len(data)`.
        limit_bytes: the largest whole packet that is accepted.

    Raises:
        ProtocolError: 0x81 if the length cannot be read, 0x95 if it is above the limit.
    """
    end = len(data)
    length = 0
    for index in range(1, MAX_HEADER_BYTES):
        at = position + index
        if at >= end:
            return NeedMore(index + 1)
        byte = data[at]
        length |= (byte & 0x7F) << (7 * (index - 1))
        if byte < 0x80:
            if 1 + index + length > limit_bytes:
                raise ProtocolError(f"a packet of {1 + index + length} bytes", Reason.PACKET_TOO_LARGE)
            stop = at + 1 + length
            return Frame(data[position], at + 1, stop) if stop <= end else NeedMore(stop - position)
    raise ProtocolError("the remaining length has more than four bytes", Reason.MALFORMED)


class Body:
    """Reads a packet's body from front to back."""

    __slots__ = ("_at", "_data", "_stop")

    def __init__(self, data: bytes, start: int = 0, stop: int | None = None) -> None:
        self._data = data
        self._at = start
        self._stop = len(data) if stop is None else stop

    @property
    def is_done(self) -> bool:
        """Everything has been read."""
        return self._at == self._stop

    def starts_with(self, prefix: bytes) -> bool:
        """Whether these are the next bytes; they remain to be read."""
        return self._data.startswith(prefix, self._at, self._stop)

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        start = self._at
        self._at = start + count
        if self._at > self._stop:
            raise ProtocolError("the packet ends too early", Reason.MALFORMED)
        return self._data[start : self._at]

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self._stop - self._at)

    def part(self, count: int) -> Body:
        """The next `count` bytes, to be read on their own."""
        start = self._at
        self._at = start + count
        if self._at > self._stop:
            raise ProtocolError("the packet ends too early", Reason.MALFORMED)
        return Body(self._data, start, self._at)

    def u8(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Two bytes."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """Four bytes."""
        return int.from_bytes(self.take(4), "big")

    def varint(self) -> int:
        """A variable byte integer, in its shortest form [MQTT-1.5.5-1]."""
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if shift and not byte:
                    break
                return value
        raise ProtocolError("a variable byte integer that is too long", Reason.MALFORMED)

    def binary(self) -> bytes:
        """Bytes behind their length."""
        return self.take(self.u16())

    def text(self) -> str:
        """A string behind its length."""
        return decode_text(self.binary())


def decode_text(raw: bytes) -> str:
    """A string of the wire.

    Raises:
        ProtocolError: 0x81 if it is not UTF-8 or holds U+0000.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a string that is not UTF-8: {error.reason}", Reason.MALFORMED) from error
    if "\0" in text:
        raise ProtocolError("a string that holds U+0000", Reason.MALFORMED)
    return text


def encode_varint(value: int) -> bytes:
    """A variable byte integer, 0 to `MAX_VARINT`."""
    if value < 0x80:
        return bytes((value,))
    assert value <= MAX_VARINT, value
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_text(text: str) -> bytes:
    """A string behind its length."""
    return encode_binary(text.encode())


def encode_binary(raw: bytes) -> bytes:
    """Bytes behind their length, at most 65,535."""
    return len(raw).to_bytes(2, "big") + raw

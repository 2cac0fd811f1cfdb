"""A client's packet, sound or not, taken apart by hand as far as it can be. No code is shared with the codec."""

from __future__ import annotations

import dataclasses

from tests.mqtt.differential.witness import Taker, property_list

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE = range(1, 9)
SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(9, 16)
FLAGS = {CONNECT: 0, PUBACK: 0, PUBREC: 0, PUBREL: 2, PUBCOMP: 0, SUBSCRIBE: 2, UNSUBSCRIBE: 2, PINGREQ: 0}
FLAGS |= {DISCONNECT: 0, AUTH: 0}
SHARE = b"$share/"
_TEXTS = {0x03, 0x08, 0x15, 0x1F}


@dataclasses.dataclass
class Said:
    """What stands in a packet. `is_cut`: it ends before it should, or cannot be read to its end."""

    kind: int
    flags: int
    v5: bool
    mid: int = 0
    topic: bytes = b""
    payload: bytes = b""
    filters: list[tuple[bytes, int]] = dataclasses.field(default_factory=list)
    properties: list[tuple[int, object]] = dataclasses.field(default_factory=list)
    texts: list[bytes] = dataclasses.field(default_factory=list)
    """Every string in it."""
    reason: int = 0
    client_id: bytes = b""
    clean: bool = False
    will: Said | None = None
    rest: bytes = b""
    """Behind all that belongs there."""
    is_cut: bool = False

    @property
    def qos(self) -> int:
        return self.flags >> 1 & 3

    @property
    def retain(self) -> bool:
        return bool(self.flags & 1)

    def value(self, number: int, default: int = 0) -> int:
        """Of a property that is a number."""
        return next((value for one, value in self.properties if one == number and isinstance(value, int)), default)

    @property
    def shared(self) -> list[tuple[bytes, int]]:
        return [one for one in self.filters if one[0].startswith(SHARE)]


def take_apart(data: bytes, *, v5: bool) -> Said:
    """What the one packet in `data` says."""
    take = Taker(data[1:])
    take.varint()
    said = Said(data[0] >> 4, data[0] & 15, v5)
    try:
        _read(said, take)
    except AssertionError:
        said.is_cut = True
    said.rest = take.rest()
    return said


def _read(said: Said, take: Taker) -> None:
    kind = said.kind
    if kind == CONNECT:
        _connect(said, take)
    elif kind == PUBLISH:
        said.topic = _text(said, take)
        said.mid = take.number(2) if said.qos else 0
        _properties(said, take)
        said.payload = take.rest()
    elif kind in {PUBACK, PUBREC, PUBREL, PUBCOMP}:
        said.mid = take.number(2)
        if said.v5 and take.left:
            said.reason = take.number(1)
            if take.left:
                _properties(said, take)
    elif kind in {SUBSCRIBE, UNSUBSCRIBE}:
        said.mid = take.number(2)
        _properties(said, take)
        while take.left:
            name = _text(said, take)
            said.filters.append((name, take.number(1) if kind == SUBSCRIBE else 0))
    elif kind in {DISCONNECT, AUTH} and said.v5 and take.left:
        said.reason = take.number(1)
        if take.left:
            _properties(said, take)


def _connect(said: Said, take: Taker) -> None:
    take.text()
    said.v5 = take.number(1) == 5
    flags = take.number(1)
    said.clean = bool(flags & 2)
    take.number(2)
    _properties(said, take)
    said.client_id = _text(said, take)
    if flags & 4:
        will = said.will = Said(PUBLISH, flags >> 2 & 6 | flags >> 5 & 1, said.v5)
        _properties(will, take)
        will.topic = _text(said, take)
        will.payload = take.text()
        said.texts += will.texts
    if flags & 0x80:
        _text(said, take)
    if flags & 0x40:
        take.text()


def _text(said: Said, take: Taker) -> bytes:
    said.texts.append(take.text())
    return said.texts[-1]


def _properties(said: Said, take: Taker) -> None:
    if not said.v5:
        return
    said.properties = property_list(take)
    for number, value in said.properties:
        if number in _TEXTS:
            said.texts.append(value)  # type: ignore[arg-type]
        elif number == 0x26:
            said.texts += value  # type: ignore[arg-type]

"""What no server may send, whoever asks: every packet that a test's client reads goes past a referee.

Written from the specification by hand, so that it shares no mistake with the codec under test. Numbers without
brackets are clauses of MQTT 5.0; what they ask of both versions is asked of both.
"""

from __future__ import annotations

CONNACK, PUBLISH, PUBREL, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 2, 3, 6, 9, 11, 13, 14
_FLAGS = {CONNACK: 0, 4: 0, 5: 0, PUBREL: 2, 7: 0, SUBACK: 0, UNSUBACK: 0, PINGRESP: 0, DISCONNECT: 0}  # fmt: skip

_TAKEN_OR_NOT = {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99}
REASONS = {
    CONNACK: {0x00, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F},
    4: _TAKEN_OR_NOT,
    5: _TAKEN_OR_NOT,
    PUBREL: {0x00, 0x92},
    7: {0x00, 0x92},
    SUBACK: {0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2},
    UNSUBACK: {0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91},
    DISCONNECT: {
        *(0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90),
        *(0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2),
    },
}
_SAID = {0x1F: "text", 0x26: "pair"}
PROPERTIES = {
    CONNACK: _SAID | {
        **dict.fromkeys((0x24, 0x25, 0x28, 0x29, 0x2A), 1),
        **dict.fromkeys((0x13, 0x21, 0x22), 2),
        **dict.fromkeys((0x11, 0x27), 4),
        **dict.fromkeys((0x12, 0x15, 0x16, 0x1A, 0x1C), "text"),
    },
    PUBLISH: {0x01: 1, 0x02: 4, 0x23: 2, 0x0B: "varint", 0x26: "pair"} | dict.fromkeys((0x03, 0x08, 0x09), "text"),
    DISCONNECT: _SAID | {0x1C: "text"},
} | dict.fromkeys((4, 5, PUBREL, 7, SUBACK, UNSUBACK), _SAID)  # fmt: skip
_MAY_REPEAT = {0x26, 0x0B}


class Referee:
    """Watches what one client is sent."""

    def __init__(self) -> None:
        self.v5 = False
        self.most_bytes = 1 << 28
        self.most_aliases = 0
        self.asked_for = {0x17: 1, 0x19: 0}
        self.is_greeted = False
        self.is_over = False
        self._aliases: set[int] = set()

    def introduce(self, data: bytes) -> None:
        """The client has sent this. What its CONNECT says holds for the answers."""
        _, at = _varint(data, 1)
        if data[at : at + 6] != b"\0\4MQTT":
            return
        self.v5 = data[at + 6] == 5
        if self.v5:
            length, start = _varint(data, at + 10)
            kinds = {0x11: 4, 0x27: 4, 0x21: 2, 0x22: 2, 0x17: 1, 0x19: 1, 0x15: "text", 0x16: "text", 0x26: "pair"}
            said = _properties(data[start : start + length], kinds)
            self.most_bytes = said.get(0x27) or self.most_bytes
            self.most_aliases = said.get(0x22, 0)
            self.asked_for |= {key: said[key] for key in (0x17, 0x19) if key in said}

    def judge(self, first: int, body: bytes, length_bytes: int) -> None:
        """Fail if this packet should not have been sent."""
        kind = first >> 4
        assert not self.is_over, "4.13.2-1, 3.14.4-1: nothing behind a refusal or a DISCONNECT"
        assert self.is_greeted == (kind != CONNACK), "3.2.0-1, 3.2.0-2, 3.14.0-1: CONNACK first, and once"
        assert kind == PUBLISH or first & 15 == _FLAGS.get(kind), f"2.1.3-1, 3.6.1-1: {first:#x}"
        assert 1 + length_bytes + len(body) <= self.most_bytes, "3.1.2-24: larger than the client takes"
        shortest = 1 + sum(len(body) >= 1 << 7 * more for more in (1, 2, 3))
        assert length_bytes == shortest, "1.5.5-1: the remaining length is in its shortest form"
        if kind == PUBLISH:
            self._message(first, body)
        elif kind == CONNACK:
            self._greeting(body)
        elif kind == PINGRESP:
            assert body == b""
        elif kind == DISCONNECT:
            assert self.v5, "3.1.1 has no DISCONNECT from the server"
            self.is_over = True
            self._answer(kind, body)
        else:
            assert int.from_bytes(body[:2], "big"), "2.2.1-4 to -6: a packet id"
            self._answer(kind, body[2:])

    def _greeting(self, body: bytes) -> None:
        self.is_greeted = True
        assert body[0] in (0, 1), "3.2.2-1: reserved flags"
        assert not (body[0] and body[1]), "3.2.2-6: no session is present where there is none"
        self.is_over = body[1] != 0
        if not self.v5:
            assert (len(body), body[1] <= 5) == (2, True)
            return
        assert body[1] in REASONS[CONNACK], f"3.2.2-8: {body[1]:#x}"
        said = _all_properties(body[2:], CONNACK)
        assert 0x1A not in said or self.asked_for[0x19], "3.1.2-28: Response Information was not asked for"
        assert 0x15 not in said, "4.12.0-6: no Authentication Method was agreed on"

    def _answer(self, kind: int, body: bytes) -> None:
        if not self.v5:
            assert kind == SUBACK or not body, "3.1.1 has no reasons"
            assert kind != SUBACK or set(body) <= {0, 1, 2, 0x80}, "3.9.3-2 of 3.1.1"
            return
        if kind in {SUBACK, UNSUBACK}:
            length, at = _varint(body, 0)
            reasons, properties = body[at + length :], body[: at + length]
            assert reasons, "3.8.4-6: a reason for each filter"
        else:
            reasons, properties = body[:1], body[1:]
        assert set(reasons) <= REASONS[kind], f"{body!r}: no reason for packet type {kind}"
        said = _all_properties(properties, kind) if properties else {}
        is_wanted = self.asked_for[0x17] or kind == DISCONNECT
        assert is_wanted or not said, "3.1.2-29: sentences were not asked for"

    def _message(self, first: int, body: bytes) -> None:
        qos, dup = first >> 1 & 3, first & 8
        assert qos < 3, "3.3.1-4"
        assert qos or not dup, "3.3.1-2"
        size = int.from_bytes(body[:2], "big")
        topic, at = body[2 : 2 + size].decode(), 2 + size
        assert not set("+#\0") & set(topic), "3.3.2-2, 4.7.0-1"
        if qos:
            assert int.from_bytes(body[at : at + 2], "big"), "2.2.1-4"
            at += 2
        if not self.v5:
            assert topic, "4.7.3-1"
            return
        said = _all_properties(body[at:], PUBLISH, is_whole=False)
        alias = said.get(0x23)
        assert alias is None or 0 < alias <= self.most_aliases, "3.1.2-26, 3.1.2-27, 3.3.2-8"
        assert topic or alias in self._aliases, "3.3.2-7: an alias that this connection has not heard of"
        if alias:
            self._aliases.add(alias)


def _all_properties(data: bytes, kind: int, *, is_whole: bool = True) -> dict[int, object]:
    length, at = _varint(data, 0)
    assert not is_whole or at + length == len(data), "2.2.2-1: the length of the properties"
    return _properties(data[at : at + length], PROPERTIES[kind])


def _properties(data: bytes, kinds: dict) -> dict:
    found, at = {}, 0
    while at < len(data):
        key, at = data[at], at + 1
        assert key in kinds, f"property {key:#x} has no place here"
        assert key not in found or key in _MAY_REPEAT, f"property {key:#x} stands twice"
        kind = kinds[key]
        if isinstance(kind, int):
            found[key], at = int.from_bytes(data[at : at + kind], "big"), at + kind
        elif kind == "varint":
            found[key], at = _varint(data, at)
        else:
            for _ in range(2 if kind == "pair" else 1):
                size = int.from_bytes(data[at : at + 2], "big")
                found[key], at = data[at + 2 : at + 2 + size], at + 2 + size
        assert at <= len(data), f"property {key:#x} is longer than the list"
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        assert at < len(data), "an integer that ends too early"
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            assert byte or not shift, "1.5.5-1: not in the shortest form"
            return value, at
        shift += 7
        assert shift < 28, "1.5.5-1"

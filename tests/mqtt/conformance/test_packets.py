"""Chapters 1 and 2, clause by clause: strings, integers, flags, packet ids, property lengths; in both versions."""

import pytest

from gateway.mqtt.wire import encode_varint
from tests.mqtt.conftest import both, connect, packet, publish, text, varint

ILL_FORMED = [b"\xc3\x28", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xff", b"a\xc0\x80", b"\xf4\x90\x80\x80", b"a\0b"]
"""Not UTF-8, surrogates at both ends of their range, an overlong U+0000, beyond Unicode, U+0000."""


def _places(bad: bytes, *, v5: bool) -> dict[str, bytes]:
    """A packet for each place in which a connected client may put a string."""
    none = b"\0" if v5 else b""
    places = {
        "topic": publish(bad, v5=v5),
        "filter": packet(0x82, b"\0\1" + none + text(bad) + b"\0"),
        "filter that is left": packet(0xA2, b"\0\1" + none + text(bad)),
    }
    if v5:
        raw = text(bad)
        for name, said in {
            "content type": b"\x03" + raw,
            "response topic": b"\x08" + raw,
            "user property's name": b"\x26" + raw + text("v"),
            "user property's value": b"\x26" + text("k") + raw,
        }.items():
            places[name] = publish("t", v5=True, properties=said)
        places["reason string"] = packet(0x40, b"\0\1\x80" + varint(1 + len(raw)) + b"\x1f" + raw)
    return places


@pytest.mark.parametrize("bad", ILL_FORMED)
@both
async def test_a_string_that_is_none_ends_the_connection(bench, v5, bad):
    """[MQTT-1.5.4-1, -2, 1.5.7-1, 3.3.2-1, -13, -19, 3.8.3-1, 3.10.3-1, 4.7.3-2]: wherever a string may stand."""
    for place, data in _places(bad, v5=v5).items():
        client = await bench.client("c", v5=v5)
        client.send(data)
        farewell = await client.closed()
        assert farewell[:1] == (b"\xe0" if v5 else b""), place
        assert not v5 or farewell[2] == 0x81, place
    assert bench.desk.messages == []


@pytest.mark.parametrize("bad", ILL_FORMED)
@both
async def test_a_connect_with_a_string_that_is_none_is_refused(bench, v5, bad):
    """[MQTT-1.5.4-1, -2, 3.1.3-4, -11, -12]: client id, will topic, user name; 5.0 is told 0x81."""
    for data in (
        connect(bad, v5=v5),
        connect("c", v5=v5, will=(bad, b"x")),
        connect("c", v5=v5, username=bad, password=b"p"),
    ):
        client = await bench.socket()
        client.send(data)
        assert await client.closed() == (b"\x20\3\0\x81\0" if v5 else b"")
    assert not bench.listener.clients()


@both
async def test_a_byte_order_mark_is_part_of_its_string(bench, v5):
    """[MQTT-1.5.4-3, 4.7.3-4]: nothing is stripped, and nothing is made equal to something else."""
    client = await bench.client("c", v5=v5)
    names = ["\ufeffx", "x\ufeff", "e\u0301", "\ufffd", "\u0001", "A"]
    for name in (*names, "x", "\u00e9", "a"):
        assert await client.subscribe(name) == b"\1"
    client.send(*(publish(name, name.encode(), v5=v5) for name in names))
    for name in names:
        got = await client.message()
        assert (got.topic, got.payload) == (name, name.encode())
    await client.silence()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
    ],
)
def test_an_integer_of_variable_length_is_as_short_as_it_can_be(value, written):
    """[MQTT-1.5.5-1]: the specification's own boundaries. What clients send is held to it in `test_codec.py`."""
    assert encode_varint(value) == bytes.fromhex(written)


FLAGS = {0x40: 0, 0x50: 0, 0x60: 2, 0x70: 0, 0x80: 2, 0xA0: 2, 0xC0: 0, 0xE0: 0}
"""By packet type that a client may send: its only flags."""


def _well_formed(kind: int, *, v5: bool) -> bytes:
    none = b"\0" if v5 else b""
    return {0x80: b"\0\1" + none + text("t") + b"\0", 0xA0: b"\0\1" + none + text("t"), 0xC0: b"", 0xE0: b""}.get(
        kind, b"\0\1"
    )


@pytest.mark.parametrize("kind", FLAGS)
@both
async def test_reserved_flags_end_the_connection(bench, v5, kind):
    """[MQTT-2.1.3-1, 3.6.1-1, 3.8.1-1, 3.10.1-1, 3.14.1-1, 2.2.2-2 of 3.1.1]: all fifteen wrong ones of each type."""
    for flags in set(range(16)) - {FLAGS[kind]}:
        client = await bench.client("c", v5=v5)
        client.send(packet(kind | flags, _well_formed(kind, v5=v5)))
        farewell = await client.closed()
        assert farewell[:1] == (b"\xe0" if v5 else b""), hex(kind | flags)
        assert not v5 or farewell[2] == 0x81
    assert not bench.listener.stats.subscriptions


async def test_auth_has_no_flags_either(bench):
    """[MQTT-3.15.1-1]: and without an Authentication Method in CONNECT an AUTH is one too many [MQTT-4.12.0-7]."""
    for flags in range(16):
        client = await bench.client("c", v5=True)
        client.send(packet(0xF0 | flags, b""))
        farewell = await client.closed()
        assert (farewell[0], farewell[2]) == (0xE0, 0x81 if flags else 0x82)


@both
async def test_a_packet_id_of_0_ends_the_connection(bench, v5):
    """[MQTT-2.2.1-3, 2.3.1-1 of 3.1.1]: in whatever a client sends with one."""
    none = b"\0" if v5 else b""
    for data in (
        publish("t", qos=1, mid=0, v5=v5),
        publish("t", qos=2, mid=0, v5=v5),
        packet(0x82, b"\0\0" + none + text("t") + b"\0"),
        packet(0xA2, b"\0\0" + none + text("t")),
        packet(0x40, b"\0\0"),
        packet(0x62, b"\0\0"),
    ):
        client = await bench.client("c", v5=v5)
        client.send(data)
        farewell = await client.closed()
        assert farewell[:1] == (b"\xe0" if v5 else b""), data
    assert bench.desk.messages == []


@both
async def test_a_message_at_qos_0_has_no_packet_id_and_others_have(bench, v5):
    """[MQTT-2.2.1-2, -4]: seen in the bytes. Without properties their length is 0 [MQTT-2.2.2-1]."""
    client = await bench.client("c", v5=v5)
    await client.subscribe("t", options=2)
    for qos in (0, 1, 2):
        bench.listener.publish("t", b"xy", qos=qos)
        first, body = await client.packet()
        mid = b"" if not qos else b"\0" + bytes([qos])
        assert (first, body) == (0x30 | qos << 1, b"\0\1t" + mid + (b"\0" if v5 else b"") + b"xy")


@both
async def test_every_answer_names_what_it_answers(bench, v5):
    """[MQTT-2.2.1-5, -6, 3.8.4-1, -2, 3.10.4-4, -5, 4.3.2-4, 4.3.3-8, -11]: the packet id of each request."""
    none = b"\0" if v5 else b""
    client = await bench.client("c", v5=v5)
    for data, answer in (
        (publish("t", qos=1, mid=0x0102, v5=v5), (0x40, b"\1\2")),
        (publish("t", qos=2, mid=0xFFFF, v5=v5), (0x50, b"\xff\xff")),
        (packet(0x62, b"\xff\xff"), (0x70, b"\xff\xff")),
        (packet(0x82, b"\x80\1" + none + text("u") + b"\1"), (0x90, b"\x80\1" + none + b"\1")),
        (packet(0xA2, b"\0\x80" + none + text("u")), (0xB0, b"\0\x80" + (b"\0\0" if v5 else b""))),
        (packet(0xA2, b"\7\x80" + none + text("nobody's")), (0xB0, b"\7\x80" + (b"\0\x11" if v5 else b""))),
        (b"\xc0\0", (0xD0, b"")),
    ):
        client.send(data)
        assert await client.packet() == answer

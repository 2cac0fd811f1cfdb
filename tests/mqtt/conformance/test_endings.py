"""How connections end: DISCONNECT, wills, AUTH, errors (3.1.2.5, 3.14, 3.15, 4.12, 4.13), clause by clause."""

import random

import pytest

from gateway.config.settings import User
from tests.mqtt.conftest import both, connect, packet, publish, text, varint
from tests.mqtt.referee import DISCONNECT, REASONS, Referee

HOUR = b"\x11\0\0\x0e\x10"


def lasting(v5):
    return {"v5": v5, "clean": False, "properties": HOUR if v5 else b""}


# Wills.


@both
async def test_a_will_is_published_once_when_its_client_is_gone_without_a_word(bench, v5, eventually):
    """[MQTT-3.1.2-7, -8, -10, 3.1.2-8, -10, -12 of 3.1.1]: and there is none where none was left."""
    for client_id, will in (("with", ("gone", b"with")), ("without", None)):
        client = await bench.client(client_id, will=will, **lasting(v5))
        client.writer.transport.abort()
    await eventually(lambda: all(not info.is_connected for info in bench.listener.clients()))
    await bench.desk.wait_for(1)
    for client_id in ("with", "without"):
        client = await bench.client(client_id, **lasting(v5))
        client.writer.transport.abort()
    await eventually(lambda: all(not info.is_connected for info in bench.listener.clients()))
    bench.clock.advance(8 * 86_400)
    bench.listener.tick()
    await eventually(lambda: not bench.listener.clients())
    assert bench.desk.messages == [("gone", b"with", 0)]


@both
async def test_a_will_is_published_after_a_violation_a_timeout_and_a_take_over(bench, v5):
    """[MQTT-3.1.2-8]: whatever ended the connection, but for a proper DISCONNECT."""
    ends = {
        "violation": lambda client: client.send(packet(0x36, text("t") + b"\0\1")),
        "timeout": lambda _: (bench.clock.advance(90), bench.listener.tick()),
        "take-over": None,
    }
    for count, (name, end) in enumerate(ends.items(), 1):
        client = await bench.client("c", v5=v5, will=(f"gone/{name}", b"x"))
        if end is None:
            await bench.client("c", v5=v5)
        else:
            end(client)
        await client.closed()
        await bench.desk.wait_for(count)
    assert [topic for topic, _, _ in bench.desk.messages] == [f"gone/{name}" for name in ends]


@pytest.mark.parametrize(
    ("flags", "retain", "qos"), [(0x00, False, 0), (0x20, True, 0), (0x28, True, 1), (0x10, False, 2)]
)
@both
async def test_a_will_has_the_qos_and_the_retain_flag_that_it_was_given(bench, v5, flags, retain, qos):
    """[MQTT-3.1.2-12, -14, -15, 3.1.2-14, -16, -17 of 3.1.1]."""
    reader = await bench.client("reader", v5=v5)
    await reader.subscribe("gone", options=2)
    dying = await bench.client("dying", v5=v5, will=("gone", b"x"), will_flags=flags)
    dying.writer.transport.abort()
    got = await reader.message()
    assert (got.qos, got.retain) == (qos, False)
    assert bench.listener.stats.retained == retain


async def test_a_delayed_will_is_withdrawn_by_a_return_and_hastened_by_the_sessions_end(bench, eventually):
    """[MQTT-3.1.2-8, 3.1.3-9]: the delay, the session's expiry, or a clean start: whichever comes first."""

    async def dies(expiry_s, delay_s):
        client = await bench.client(
            "c",
            v5=True,
            clean=False,
            properties=b"\x11" + expiry_s.to_bytes(4, "big"),
            will=("gone", b"x"),
            will_properties=b"\x18" + delay_s.to_bytes(4, "big"),
        )
        client.writer.transport.abort()
        await eventually(
            lambda: not any(info.is_connected for info in bench.listener.clients() if info.client_id == "c")
        )

    def passes(seconds):
        bench.clock.advance(seconds)
        bench.listener.tick()

    await dies(60, 10)
    passes(9)
    client = await bench.client("c", **lasting(True))
    passes(5)
    await client.silence()
    client.writer.transport.abort()  # it came back without a will, and so it goes
    await eventually(lambda: not any(info.is_connected for info in bench.listener.clients()))
    passes(100)
    await (await bench.client("other")).silence()
    assert bench.desk.messages == []
    for count, (expiry_s, delay_s, waits) in enumerate([(60, 10, 10), (5, 10, 5), (0, 10, 0)], 1):
        await dies(expiry_s, delay_s)
        if waits:
            passes(waits - 1)
            assert len(bench.desk.messages) == count - 1
            passes(1)
        await bench.desk.wait_for(count)
    await dies(60, 10)
    await bench.client("c", v5=True, clean=True)
    await bench.desk.wait_for(4)


# DISCONNECT.


@both
async def test_who_says_goodbye_leaves_no_will_and_is_heard_no_more(bench, v5):
    """[MQTT-3.14.4-1, -2, -3, 3.1.2-10]: what comes behind a DISCONNECT is not looked at, and the gateway closes."""
    client = await bench.client("c", v5=v5, will=("gone", b"x"))
    client.send(b"\xe0\0", publish("t", v5=v5), b"\xc0\0")
    assert await client.closed() == b""
    bench.listener.tick()
    other = await bench.client("other", v5=v5)
    await other.silence()
    assert bench.desk.messages == []


async def test_5_0_may_leave_its_will_and_change_its_mind_about_the_session(bench):
    """[MQTT-3.14.4-3]: 0x04; and a shorter Session Expiry Interval, but none where there was none (3.14.2.2.2)."""
    client = await bench.client("c", will=("gone", b"x"), **lasting(True))
    client.send(b"\xe0\7\4\5\x11\0\0\0\0")
    assert await client.closed() == b""
    await bench.desk.wait_for(1)
    assert not bench.listener.clients()
    client = await bench.client("c", v5=True)
    client.send(b"\xe0\7\0\5\x11\0\0\0\1")
    assert (await client.closed())[2] == 0x82


_TAKEN_OR_NOT = {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99}
FROM_CLIENTS = {
    0x40: _TAKEN_OR_NOT,
    0x50: _TAKEN_OR_NOT,
    0x62: {0x00, 0x92},
    0x70: {0x00, 0x92},
    0xE0: {0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99},
}


@pytest.mark.parametrize("first", FROM_CLIENTS)
async def test_only_reasons_that_have_a_meaning_are_taken(bench, first):
    """[MQTT-3.4.2-1, 3.5.2-1, 3.6.2-1, 3.7.2-1, 3.14.2-1]: the duty of both; another reason ends the connection."""
    mid = b"" if first == 0xE0 else b"\0\1"
    for reason in range(256):
        client = await bench.client("c", v5=True)
        client.send(packet(first, mid + bytes([reason])), b"\xc0\0")
        if reason not in FROM_CLIENTS[first]:
            assert (await client.closed())[2] == 0x82, hex(reason)
        elif first == 0xE0:
            assert await client.closed() == b""
        else:
            answers = [
                await client.packet() for _ in range(1 if first in {0x40, 0x70} or reason >= 0x80 > first else 2)
            ]
            assert (0xD0, b"") in answers or (await client.packet()) == (0xD0, b""), hex(reason)


@pytest.mark.parametrize(("most", "has_sentence"), [(b"", True), (b"\x27\0\0\0\x2f", True), (b"\x27\0\0\0\x1e", False)])
async def test_a_disconnect_has_its_sentence_only_where_it_fits(bench, most, has_sentence):
    """[MQTT-3.14.2-2, -3, -4]: no user properties, no Session Expiry Interval, and a Reason String if there is room."""
    client = await bench.client("c", v5=True, properties=most)
    client.send(publish("#", v5=True))
    farewell = await client.closed()
    sentence = b"a topic name holds no `+` and no `#`"
    said = varint(3 + len(sentence)) + b"\x1f" + text(sentence) if has_sentence else b""
    assert farewell == packet(0xE0, b"\x90" + said)


@pytest.mark.parametrize(("room_bytes", "has_sentence"), [(28, False), (29, True), (None, True)])
async def test_a_refusing_connack_has_its_sentence_only_where_it_fits(open_listener, room_bytes, has_sentence):
    """[MQTT-3.2.2-19, -20]: to the byte; user properties are never sent."""
    bench = await open_listener(users=(User(username="u", password="p"),))
    properties = b"" if room_bytes is None else b"\x27" + room_bytes.to_bytes(4, "big")
    client = await bench.client("c", v5=True, username="u", password="x", properties=properties)
    said = b"\x1f" + text("user name or password") if has_sentence else b""
    assert client.connack[1] == b"\0\x86" + bytes([len(said)]) + said
    assert await client.closed() == b""


# AUTH.


async def test_no_enhanced_authentication_is_offered(bench):
    """[MQTT-4.12.0-1 to -6, 3.15.2-1 to -3]: 0x8C at once, so that no AUTH is ever sent, nor its method in CONNACK."""
    for properties in (b"\x15" + text("SCRAM-SHA-1"), b"\x15" + text("") + b"\x16" + text(b"\1")):
        client = await bench.client("c", v5=True, properties=properties)
        assert client.connack[1][:2] == b"\0\x8c"
        assert b"\x15" not in client.connack[1][2:3]
        assert await client.closed() == b""
    assert not bench.listener.clients()


async def test_what_follows_a_connect_with_a_method_is_not_looked_at(bench):
    """[MQTT-3.1.2-30]: the client's duty; it has been refused by then."""
    client = await bench.socket()
    client.send(connect("c", v5=True, properties=b"\x15" + text("X")), publish("t", v5=True))
    answer = await client.closed()
    assert (answer[0], answer[3]) == (0x20, 0x8C)
    assert bench.desk.messages == []


@pytest.mark.parametrize("body", [b"", b"\0", b"\x18", b"\x19", b"\x18\4\x15\0\1X", b"\x19\4\x15\0\1X"])
async def test_an_auth_that_nobody_asked_for_ends_the_connection(bench, body):
    """[MQTT-4.12.0-3, -7, 4.12.1-1, -2]: the client's duty; 0x82, also to what would authenticate anew."""
    client = await bench.client("c", v5=True)
    client.send(packet(0xF0, body))
    assert (await client.closed())[2] == 0x82
    old = await bench.client("old")
    old.send(packet(0xF0, body))
    assert await old.closed() == b""


# Errors.


@both
async def test_a_violation_ends_its_own_connection_with_a_reason_and_no_other(bench, v5):
    """[MQTT-4.13.1-1, 4.13.2-1, 3.14.0-1, 4.8.0-1 of 3.1.1]: 5.0 by DISCONNECT; 3.1.1 has no word for it."""
    bystander = await bench.client("bystander", v5=v5)
    for data, reason in (
        (packet(0x00, b""), 0x82),
        (packet(0x20, b"\0\0"), 0x82),
        (packet(0x90, b"\0\1\0"), 0x82),
        (packet(0xB0, b"\0\1"), 0x82),
        (packet(0xD0, b""), 0x82),
        (packet(0xC0, b"x"), 0x81),
        (packet(0x30, b"\0\5t"), 0x81),
        (b"\x30\xff\xff\xff\x7f", 0x95),
        (b"\x30\xff\xff\xff\xff", 0x81),
    ):
        client = await bench.client("c", v5=v5)
        client.send(data)
        farewell = await client.closed()
        assert (farewell[:1], farewell[2:3]) == ((b"\xe0", bytes([reason])) if v5 else (b"", b"")), data
    await bystander.silence()


@both
async def test_what_cannot_be_stored_ends_the_connection(bench, v5):
    """[MQTT-4.8.0-2 of 3.1.1]: no answer that says otherwise; the client sends it again over its next connection."""

    def full(_):
        raise OSError("no space")

    bench.listener.gathering._intake = full
    client = await bench.client("c", v5=v5)
    client.send(publish("t", qos=1, v5=v5), publish("t", qos=2, mid=2, v5=v5))
    assert await client.closed() == (b"\xe0\1\x83" if v5 else b"")


@both
async def test_a_packet_above_the_announced_size_ends_the_connection(open_listener, v5):
    """[MQTT-3.2.2-15]: the client's duty; 0x95, before the bytes have come. The largest that may come does."""
    bench = await open_listener(max_packet_bytes=2_000)
    client = await bench.client("c", v5=v5)
    assert not v5 or b"\x27\0\0\x07\xd0" in client.connack[1]
    head = len(publish("t", bytes(1_000), qos=1, v5=v5)) - 1_000
    client.send(publish("t", bytes(2_000 - head), qos=1, v5=v5))
    assert (await client.packet())[0] == 0x40
    client.send(publish("t", bytes(2_001 - head), qos=1, v5=v5)[:10])
    farewell = await client.closed()
    assert (farewell[:1], farewell[2:3]) == ((b"\xe0", b"\x95") if v5 else (b"", b""))


# What no server may send.

SENT_BY_NO_SERVER = [
    # clause, version, CONNECT's properties, packets
    ("[MQTT-3.2.0-1]", 5, b"", ["d000"]),
    ("[MQTT-3.14.0-1]", 5, b"", ["e00182"]),
    ("[MQTT-3.2.0-2]", 4, b"", ["20020000", "20020000"]),
    ("[MQTT-3.2.2-1]", 4, b"", ["20020200"]),
    ("[MQTT-3.2.2-6]", 4, b"", ["20020105"]),
    ("[MQTT-3.2.2-8]", 5, b"", ["2003008d00"]),
    ("[MQTT-3.2.2-7]", 5, b"", ["2003008700", "d000"]),
    ("[MQTT-2.2.2-1]", 5, b"", ["20020000"]),
    ("[MQTT-3.1.2-24]", 5, b"\x27\0\0\0\5", ["20060000032200ff"]),
    ("[MQTT-3.1.2-28]", 5, b"", ["2008000005 1a000261 62"]),
    ("[MQTT-4.12.0-6]", 5, b"", ["200700000415000161"]),
    ("[MQTT-2.1.3-1]", 4, b"", ["20020000", "41020001"]),
    ("[MQTT-2.2.1-5]", 4, b"", ["20020000", "40020000"]),
    ("[MQTT-1.5.5-1]", 4, b"", ["20020000", "d08000"]),
    ("[MQTT-3.4.2-1]", 5, b"", ["2003000000", "4003000101"]),
    ("[MQTT-3.5.2-1]", 5, b"", ["2003000000", "5003000192"]),
    ("[MQTT-3.6.1-1]", 5, b"", ["2003000000", "60020001"]),
    ("[MQTT-3.6.2-1]", 5, b"", ["2003000000", "6203000180"]),
    ("[MQTT-3.6.2-2, -3]", 5, b"\x27\0\0\0\x09", ["2003000000", "6208000192041f000161"]),
    ("[MQTT-3.7.2-2, -3]", 5, b"\x27\0\0\0\x09", ["2003000000", "7008000192041f000161"]),
    ("[MQTT-3.7.2-1]", 5, b"", ["2003000000", "7003000180"]),
    ("[MQTT-3.9.3-2]", 5, b"", ["2003000000", "900400010003"]),
    ("[MQTT-3.9.3-2]", 4, b"", ["20020000", "90030001 8f"]),
    ("[MQTT-3.11.3-2]", 5, b"", ["2003000000", "b00400010001"]),
    ("[MQTT-3.14.2-1]", 5, b"", ["2003000000", "e00184"]),
    ("[MQTT-3.14.2-2]", 5, b"", ["2003000000", "e007800511000000ff"]),
    ("[MQTT-3.14.4-1]", 5, b"", ["2003000000", "e00180", "d000"]),
    ("[MQTT-3.1.2-29]", 5, b"\x17\0", ["2003000000", "4009000187051f00026162"]),
    ("[MQTT-3.3.1-2]", 4, b"", ["20020000", "380500016178 79"]),
    ("[MQTT-3.3.1-4]", 4, b"", ["20020000", "36050001610001"]),
    ("[MQTT-3.3.2-2]", 4, b"", ["20020000", "300300012b"]),
    ("[MQTT-2.2.1-4]", 4, b"", ["20020000", "32050001610000"]),
    ("[MQTT-3.1.2-27]", 5, b"", ["2003000000", "30070001610323000178"]),
    ("[MQTT-3.1.2-26]", 5, b"\x22\0\1", ["2003000000", "30070001610323000278"]),
    ("[MQTT-3.3.2-8]", 5, b"\x22\0\1", ["2003000000", "30070001610323000078"]),
    ("[MQTT-3.3.2-7]", 5, b"\x22\0\1", ["2003000000", "300600000323000178"]),
]


@pytest.mark.parametrize(("clause", "version", "properties", "packets"), SENT_BY_NO_SERVER)
def test_the_referee_sees_what_no_server_may_send(clause, version, properties, packets):
    """Law of the tests themselves: what is watched is seen."""
    referee = Referee()
    referee.introduce(connect("c", v5=version == 5, properties=properties))
    *good, bad = [bytes.fromhex(each) for each in packets]

    def show(data):
        length_bytes = 1 if data[1] < 0x80 else 2
        referee.judge(data[0], data[1 + length_bytes :], length_bytes)

    for data in good:
        show(data)
    with pytest.raises(AssertionError):
        show(bad)
    assert clause


def test_the_referee_knows_the_reasons_of_a_disconnect():
    """Law of the test itself: those that only a client, or only CONNACK, may use are not among them."""
    assert not REASONS[DISCONNECT] & {0x04, 0x84, 0x85, 0x86, 0x88, 0x8A, 0x8C, 0x92}


@both
async def test_whatever_a_client_sends_it_is_answered_as_a_server_may(open_listener, v5, seed):
    """[MQTT-3.2.2-8, 3.4.2-1, 3.5.2-1, 3.6.2-1, 3.7.2-1, 3.9.3-2, 3.11.3-2, 3.14.2-1, 3.14.4-1]: at random."""
    rng = random.Random(seed)
    bench = await open_listener(max_subscriptions=3, max_in_flight=20, max_packet_bytes=4_000)
    for _ in range(300):
        client = await bench.client(
            rng.choice(["a", "b", ""]),
            v5=v5,
            clean=rng.random() < 0.5,
            will=rng.choice([None, ("t/w", b"x")]),
            properties=_wishes(rng) if v5 else b"",
        )
        if client.connack[1][1]:
            await client.closed()
            continue
        for _ in range(rng.randrange(12)):
            client.send(_anything(rng, v5))
        bench.listener.publish("t/x", bytes(rng.randrange(60)), qos=rng.randrange(3), retain=rng.random() < 0.3)
        client.send(b"\xe0\0")
        client.writer.write_eof()  # what was damaged may want more than comes
        await client.closed()  # everything on the way goes past the referee


def _wishes(rng):
    found = rng.choice([b"", HOUR]) + rng.choice([b"", b"\x17\0"]) + rng.choice([b"", b"\x21\0\1"])
    return found + rng.choice([b"", b"\x22\0\2"]) + rng.choice([b"", b"\x27\0\0\0" + bytes([rng.randrange(20, 90)])])


def _anything(rng, v5):
    none = b"\0" if v5 else b""
    mid = rng.choice([b"\0\1", b"\0\2", b"\0\3"])
    topic = rng.choice(["t/x", "t/y", "t/long/topic", "t/long/topic", "t/+" if rng.random() < 0.1 else "t"])
    filters = b"".join(
        text(rng.choice(["t/#", "t/+", "$share/g/t/#", "a#", "+/x", "u"])) + bytes([rng.randrange(3)])
        for _ in range(rng.randint(1, 3))
    )
    alias = b"\x23\0" + bytes([rng.randint(1, 3)]) if v5 and rng.random() < 0.2 else b""
    made = rng.choice(
        [
            publish(topic, bytes(rng.randrange(40)), qos=rng.randrange(3), mid=mid[1], v5=v5, properties=alias),
            publish(topic, b"", retain=True, v5=v5),
            packet(0x82, mid + none + filters),
            packet(0xA2, mid + none + text("t/#") + text("nobody's")),
            packet(rng.choice([0x40, 0x50, 0x62, 0x70]), mid),
            packet(rng.choice([0x40, 0x50]), mid + b"\x80") if v5 else b"\xc0\0",
            b"\xc0\0",
        ]
    )
    if rng.random() < 0.05:
        at = rng.randrange(len(made))
        made = made[:at] + bytes([rng.randrange(256)]) + made[at + 1 :]
    return made

"""CONNECT and CONNACK (3.1, 3.2), clause by clause, on the wire and in both versions."""

import re
import string

import pytest

from gateway.config.settings import User
from tests.mqtt.conftest import both, connect, packet, publish, text, varint

HOUR = b"\x11\0\0\x0e\x10"
ALICE = User(username="alice", password="secret")


def lasting(v5):
    """How a client connects whose session is to stay."""
    return {"v5": v5, "clean": False, "properties": HOUR if v5 else b""}


def body_of(v5, flags, payload, *, properties=b"", name="MQTT", level=None):
    level = (5 if v5 else 4) if level is None else level
    said = varint(len(properties)) + properties if level == 5 else b""
    return text(name) + bytes([level, flags]) + b"\0\x3c" + said + payload


# Getting in.


@pytest.mark.parametrize("kind", [kind for kind in range(16) if kind != 1])
async def test_whatever_comes_before_connect_is_not_looked_at(bench, kind):
    """[MQTT-3.1.0-1]: every other type, and nothing is answered."""
    stranger = await bench.socket()
    stranger.send(packet(kind << 4 | 2, b"\0\1\0\0"), connect("c"))
    assert await stranger.closed() == b""
    assert not bench.listener.clients()


@both
async def test_a_second_connect_ends_the_connection(bench, v5):
    """[MQTT-3.1.0-2]: whether it would be a good one or not."""
    for again in (connect("other", v5=v5), connect("c", v5=not v5), packet(0x10, body_of(v5, 2, text("c"), level=9))):
        client = await bench.client("c", v5=v5)
        client.send(again)
        farewell = await client.closed()
        assert farewell[:1] == (b"\xe0" if v5 else b"")
        assert not v5 or farewell[2] == 0x82
    assert [info.client_id for info in bench.listener.clients() if info.is_connected] == []


@pytest.mark.parametrize(
    ("name", "level", "answer"),
    [
        ("MQTT", 3, b"\x20\2\0\1"),
        ("MQTT", 6, b"\x20\2\0\1"),
        ("MQTT", 0x84, b"\x20\2\0\1"),
        ("MQIsdp", 3, b"\x20\2\0\1"),
        ("mqtt", 4, b"\x20\2\0\1"),
        ("", 5, b"\x20\2\0\1"),
    ],
)
async def test_another_protocol_or_version_is_told_so_and_closed(bench, name, level, answer):
    """[MQTT-3.1.2-1, -2]: in the oldest words there are; what follows it is not looked at."""
    stranger = await bench.socket()
    stranger.send(packet(0x10, body_of(False, 2, text("c"), name=name, level=level)), publish("t"))
    assert await stranger.closed() == answer
    assert not bench.listener.clients()
    assert bench.desk.messages == []


WILL, USER, PASSWORD = text("w") + text("gone"), text("u"), text("p")
ILL_FORMED = {
    # connect flags, payload behind the client id's place
    "reserved flag": (0x03, text("c")),
    "will QoS 3": (0x1E, text("c") + WILL),
    "will QoS without a will": (0x0A, text("c")),
    "will retain without a will": (0x22, text("c")),
    "no will where one was promised": (0x06, text("c")),
    "half a will where one was promised": (0x06, text("c") + text("w")),
    "a will that was not promised": (0x02, text("c") + WILL),
    "no user name where one was promised": (0x82, text("c")),
    "a user name that was not promised": (0x02, text("c") + USER),
    "no password where one was promised": (0xC2, text("c") + USER),
    "a password that was not promised": (0x82, text("c") + USER + PASSWORD),
    "no client id": (0x02, b""),
    "a client id that ends too early": (0x02, b"\0\5c"),
}


@pytest.mark.parametrize("fault", ILL_FORMED)
@both
async def test_a_connect_that_is_not_well_formed_is_closed(bench, v5, fault):
    """[MQTT-3.1.2-3, -9, -11 to -13, -16 to -19, 3.1.3-3, 3.1.4-1, 3.2.2-8, 3.1.4-1 of 3.1.1]: 5.0 is told so."""
    flags, payload = ILL_FORMED[fault]
    if v5 and flags & 4:
        payload = payload[:3] + b"\0" + payload[3:]  # the will's properties
    stranger = await bench.socket()
    stranger.send(packet(0x10, body_of(v5, flags, payload)), publish("t", v5=v5))
    assert await stranger.closed() == (b"\x20\3\0\x81\0" if v5 else b"")
    assert not bench.listener.clients()
    assert bench.desk.messages == []


async def test_in_3_1_1_there_is_no_password_without_a_user_name(bench):
    """[MQTT-3.1.2-22 of 3.1.1]; 5.0 has nothing against it."""
    old, new = await bench.socket(), await bench.socket()
    old.send(packet(0x10, body_of(False, 0x42, text("c") + PASSWORD)))
    assert await old.closed() == b""
    new.send(packet(0x10, body_of(True, 0x42, text("c") + PASSWORD)))
    assert (await new.packet())[1][1] == 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\x21\0\0", 0x82),
        (b"\x27\0\0\0\0", 0x82),
        (b"\x11\0\0\0\1\x11\0\0\0\1", 0x82),
        (b"\x17\2", 0x82),
        (b"\x19\2", 0x82),
        (b"\x01\1", 0x82),
        (b"\x7f\1", 0x81),
        (b"\x16\0\1x", 0x82),
        (b"\x15\0\5SCRAM\x16\0\1x", 0x8C),
    ],
)
async def test_properties_of_connect_that_cannot_be_are_told_in_connack(bench, said, reason):
    """[MQTT-3.1.4-1, 3.2.2-6, -7, 4.12.0-1, 4.13.2-1]: Receive Maximum 0, one twice, out of place, unknown, AUTH."""
    stranger = await bench.socket()
    stranger.send(connect("c", v5=True, properties=said))
    answer = await stranger.closed()
    assert (answer[0], answer[2], answer[3]) == (0x20, 0, reason)
    assert not bench.listener.clients()


@both
async def test_the_payload_is_read_in_its_order(slow_bench, v5):
    """[MQTT-3.1.3-1]: client id, will topic, will message, user name, password."""
    client = await slow_bench.client("id", v5=v5, will=("topic", "message"), username="name", password="word")
    assert client.connack[1][1] == 0
    (info,) = slow_bench.listener.clients()
    assert info.client_id == "id"
    client.writer.transport.abort()
    await slow_bench.desk.wait_for(1)
    assert slow_bench.desk.messages == [("topic", b"message", 0)]


@both
async def test_a_client_that_is_refused_has_sent_everything_else_in_vain(open_listener, v5):
    """[MQTT-3.1.4-2, -6, 3.2.2-6, -7, 3.1.4-5 of 3.1.1]: nothing behind a CONNECT that was refused is looked at."""
    bench = await open_listener(users=(ALICE,))
    stranger = await bench.socket()
    none = b"\0" if v5 else b""
    stranger.send(
        connect("c", v5=v5, username="alice", password="wrong"),
        publish("t", qos=1, v5=v5),
        packet(0x82, b"\0\1" + none + text("t") + b"\1"),
    )
    answer = await stranger.closed()
    assert answer[0] == 0x20
    assert len(answer) == 2 + answer[1], "CONNACK, and nothing after it"
    assert answer[2:4] == bytes([0, 0x86 if v5 else 4])
    assert (bench.desk.messages, bench.listener.stats.subscriptions) == ([], 0)


@both
async def test_connack_is_the_first_packet_and_comes_once(bench, v5):
    """[MQTT-3.1.4-5, 3.2.0-1, -2, 3.2.2-1]: also before what was waiting and before what was asked in one breath."""
    client = await bench.client("c", **lasting(v5))
    await client.subscribe("t")
    client.send(b"\xe0\0")
    await client.closed()
    for number in range(3):
        bench.listener.publish("t", b"%d" % number)
    again = await bench.socket()
    again.send(connect("c", **lasting(v5)), b"\xc0\0", publish("t", b"own", v5=v5))
    first, body = await again.packet()
    assert (first, body[:2]) == (0x20, b"\1\0")
    kinds = [(await again.packet())[0] for _ in range(5)]
    assert sorted(kinds) == [0x30, 0x32, 0x32, 0x32, 0xD0]
    await again.silence()


# Sessions.


@both
async def test_a_session_is_resumed_begun_or_begun_anew_as_the_client_asks(bench, v5):
    """[MQTT-3.1.2-4 to -6, 3.1.3-2, 3.1.4-4, 3.2.2-2, -3, 3.1.2-6 of 3.1.1]: and *session present* says which."""
    steps = [(False, 0, True), (False, 1, True), (True, 0, False), (False, 0 if not v5 else 1, False)]
    for step, (clean, present, has_it) in enumerate(steps):
        client = await bench.client("c", **(lasting(v5) | {"clean": clean}))
        assert client.connack[1][:2] == bytes([present, 0]), step
        if step == 0:
            await client.subscribe("t")
        bench.listener.publish("t", b"x")
        if has_it:
            got = await client.message()
            client.send(packet(0x40, got.mid.to_bytes(2, "big")))
        await client.silence()
        client.send(b"\xe0\0")
        await client.closed()
    other = await bench.client("d", **lasting(v5))
    assert other.connack[1][:2] == b"\0\0", "another client id is another session"


@both
async def test_a_session_without_expiry_ends_with_its_connection_and_its_retained_messages_stay(bench, v5, eventually):
    """[MQTT-4.1.0-2, 3.1.2-6, -7 of 3.1.1]: what is retained belongs to its topic."""
    client = await bench.client("c", v5=v5)
    await client.subscribe("t")
    client.send(publish("kept", b"x", retain=True, v5=v5))
    await bench.desk.wait_for(1)
    client.send(b"\xe0\0")
    await client.closed()
    await eventually(lambda: not bench.listener.clients())
    client = await bench.client("c", v5=v5, clean=False)
    assert client.connack[1][:2] == b"\0\0"
    await client.subscribe("kept")
    assert (await client.message()).payload == b"x"


@both
async def test_session_state_is_kept_for_as_long_as_it_was_granted(bench, v5, eventually):
    """[MQTT-3.1.2-23, 4.1.0-1, -2, 3.1.2-4, -5 of 3.1.1]: while connected whatever the time, and its expiry beyond."""
    client = await bench.client("c", keepalive=0, **lasting(v5))
    await client.subscribe("t")
    bench.clock.advance(3_599)
    client.send(b"\xc0\0")
    await client.packet()
    bench.clock.advance(5_000)
    bench.listener.exchange.tick(bench.clock())
    assert bench.listener.stats.sessions == 1, "it is connected"
    client.writer.transport.abort()
    await eventually(lambda: not bench.listener.clients()[0].is_connected)
    for number in range(3):
        assert bench.listener.publish("t", b"%d" % number, qos=1 + number % 2) == 1
    client = await bench.client("c", **lasting(v5))
    assert client.connack[1][:2] == b"\1\0"
    assert [(await client.message()).payload for _ in range(3)] == [b"0", b"1", b"2"]
    client.writer.transport.abort()
    await eventually(lambda: not bench.listener.clients()[0].is_connected)
    bench.clock.advance(3_600 if v5 else 7 * 86_400)
    bench.listener.tick()
    assert not bench.listener.clients()


@both
async def test_a_new_connection_takes_over_the_old_one(bench, v5):
    """[MQTT-3.1.4-3, 3.1.4-2 of 3.1.1]: the old one is told 0x8E where there is a word for it, and closed."""
    old = await bench.client("c", **lasting(v5))
    await old.subscribe("t")
    new = await bench.client("c", **lasting(v5))
    assert await old.closed() == (b"\xe0\1\x8e" if v5 else b"")
    bench.listener.publish("t", b"x")
    assert (await new.message()).payload == b"x"


# Client ids.


@both
async def test_client_ids_of_23_letters_and_digits_are_allowed_and_many_more(bench, v5):
    """[MQTT-3.1.3-2, -5]: each of them is a client of its own, capital letters and all."""
    letters = string.ascii_letters + string.digits
    names = ["a", "A", letters[:23], letters[23:46], letters[-23:], "x" * 1_024, "ä/日本#+$", " "]
    for name in names:
        assert (await bench.client(name, v5=v5)).connack[1][:2] == b"\0\0"
    assert {info.client_id for info in bench.listener.clients()} == set(names)


@both
async def test_a_client_id_that_is_too_long_is_refused(bench, v5):
    """[MQTT-3.1.3-8, 3.1.3-9 of 3.1.1]: told, then closed."""
    client = await bench.client("x" * 1_025, v5=v5)
    assert client.connack[1][1] == (0x85 if v5 else 2)
    assert await client.closed() == b""


async def test_a_client_without_an_id_gets_one_of_its_own(bench):
    """[MQTT-3.1.3-6, -7, 3.2.2-16]: which 5.0 is told; nobody else has it."""
    seen = set()
    for _ in range(20):
        client = await bench.client("", v5=True, clean=False)
        assigned = re.search(rb"\x12\0\x15(auto-[0-9a-f]{16})", client.connack[1])
        seen.add(assigned[1].decode())
    assert len(seen) == 20
    assert seen == {info.client_id for info in bench.listener.clients()}
    again = await bench.client(seen.pop(), v5=True, clean=False)
    assert b"\x12" not in again.connack[1][3:4], "who brings a name is not given one"


async def test_3_1_1_without_an_id_must_ask_for_a_clean_session(bench):
    """[MQTT-3.1.3-7, -8 of 3.1.1]: 0x02, then closed."""
    client = await bench.client("", clean=False)
    assert client.connack[1] == b"\0\2"
    assert await client.closed() == b""
    assert (await bench.client("", clean=True)).connack[1] == b"\0\0"


# Keep-alive.


@both
async def test_the_keep_alive_that_the_client_asks_for_is_the_one_that_holds(bench, v5):
    """[MQTT-3.1.2-20, -22, 3.2.2-22]: unless CONNACK says another, one and a half times what was asked for."""
    client = await bench.client("c", v5=v5, keepalive=10)
    assert b"\x13" not in client.connack[1][3:]
    for _ in range(5):  # anything counts
        bench.clock.advance(14.9)
        bench.listener.tick()
        client.send(publish("t", v5=v5))
        await client.silence()
    bench.clock.advance(15)
    bench.listener.tick()
    assert await client.closed() == (b"\xe0\1\x8d" if v5 else b"")


# What the client takes.


async def test_no_packet_is_larger_than_the_client_takes(bench):
    """[MQTT-3.1.2-24]: not only messages. What cannot be answered in whole is not answered at all, but 0x95."""
    small = await bench.client("c", v5=True, properties=b"\x27\0\0\0\x0a")
    assert small.connack[1] == b"\0\x95\0"
    assert await small.closed() == b""
    assert not bench.listener.clients()
    tiny = await bench.socket()
    tiny.send(connect("c", v5=True, properties=b"\x27\0\0\0\4"))
    assert await tiny.closed() == b""
    for kind, options, silent in ((0x82, b"\0", 0x90), (0xA2, b"", 0xB0)):
        client = await bench.client("c", v5=True, properties=b"\x27\0\0\0\x20")
        for count, fits in ((27, True), (28, False)):
            client.send(packet(kind, b"\0\1\0" + (text("t") + options) * count))
            if fits:
                assert (await client.packet())[0] == silent
        assert (await client.closed())[:3] == b"\xe0\1\x95"


@pytest.mark.parametrize("asks", [b"", b"\x19\0", b"\x19\1"])
async def test_response_information_is_sent_to_nobody(bench, asks):
    """[MQTT-3.1.2-28]: not to who does not ask, and who asks may be left without."""
    client = await bench.client("c", v5=True, properties=asks)
    assert client.connack[1][1] == 0
    assert b"\x1a" not in client.connack[1]


@pytest.mark.parametrize(("asks", "is_told"), [(b"", True), (b"\x17\1", True), (b"\x17\0", False)])
async def test_sentences_are_for_those_who_want_them(open_listener, asks, is_told):
    """[MQTT-3.1.2-29]: without Request Problem Information only CONNACK and DISCONNECT have them."""
    bench = await open_listener(max_subscriptions=1)
    client = await bench.client("c", v5=True, properties=asks)
    client.send(packet(0x82, b"\0\1\0" + text("a") + b"\0" + text("b") + b"\0" + text("a/#/b") + b"\0"))
    _, body = await client.packet()
    assert body.endswith(b"\x00\x97\x8f")
    assert (b"too many subscriptions" in body) is is_told
    client.send(publish("t", v5=True, properties=b"\x26" + text("k") + text("v")))
    await client.silence()
    client.send(publish("#", v5=True))
    assert b"topic name" in await client.closed(), "DISCONNECT says it in any case"


async def test_what_is_announced_is_what_holds(open_listener):
    """[MQTT-3.2.2-9, -10, -12, -13]: QoS 2, retained messages and all subscriptions, so that nothing is ruled out."""
    bench = await open_listener(max_in_flight=50)
    client = await bench.client("c", v5=True, will=("w", b"x"), will_flags=0x30)
    assert client.connack[1] == b"\0\0\x0b" + b"\x27\0\x10\0\0" + b"\x22\0\x20" + b"\x21\0\x32"
    assert await client.subscribe("a", options=2) == b"\2"
    assert await client.subscribe("$share/g/+/#", options=2, properties=b"\x0b\7") == b"\2"

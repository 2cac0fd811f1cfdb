"""The listener on the wire: who gets in, and what ends a connection."""

import re

import pytest

from gateway.config.settings import User

ALICE = User(username="alice", password="secret")


@pytest.mark.parametrize(
    ("how", "code_311", "code_5"),
    [
        ({"username": "alice", "password": "wrong"}, 4, 0x86),
        ({"username": "bob", "password": "secret"}, 4, 0x86),
        ({"username": "bob", "password": ""}, 4, 0x86),
        ({"username": "alice"}, 5, 0x87),
        ({}, 5, 0x87),
    ],
)
async def test_wrong_credentials_are_refused_with_the_right_code(open_listener, how, code_311, code_5):
    """[MQTT-3.1.4-2]: told, then closed; counted."""
    bench = await open_listener(users=(ALICE,))
    for v5, code in ((False, code_311), (True, code_5)):
        client = await bench.client("dev", v5=v5, **how)
        assert client.connack[1][:2] == bytes([0, code])
        assert await client.closed() == b""
    assert bench.listener.stats.refused_total.get("connect", 0) == 2
    assert not bench.listener.clients()


async def test_right_credentials_are_admitted(open_listener):
    """And the connection is good for something."""
    bench = await open_listener(users=(ALICE,))
    client = await bench.client("dev", username="alice", password="secret")
    assert client.connack == (0x20, b"\0\0")
    await client.silence()


async def test_an_empty_client_id_is_given_one_or_refused(bench):
    """[MQTT-3.1.3-7, -8 of 3.1.1]; [MQTT-3.2.2-16] of 5.0."""
    assert (await bench.client("", clean=False)).connack[1] == b"\0\2"
    assert (await bench.client("", clean=True)).connack[1] == b"\0\0"
    new = await bench.client("", v5=True, clean=False)
    assigned = re.search(rb"\x12\x00\x15(auto-[0-9a-f]{16})", new.connack[1])
    assert assigned
    assert assigned[1].decode() in {info.client_id for info in bench.listener.clients()}


async def test_what_the_server_does_not_offer_is_announced(bench):
    """The packet limit. No Maximum QoS, which means 2 [MQTT-3.2.2-9]; shared subscriptions are there."""
    client = await bench.client("dev", v5=True)
    properties = client.connack[1][3:]
    assert b"\x24\x01" not in properties
    assert b"\x27\x00\x10\x00\x00" in properties
    assert b"\x2a\x00" not in properties
    assert await client.subscribe("$share/+/a", "a/#/b", "ok") == b"\x8f\x8f\x01"
    old = await bench.client("old")
    assert await old.subscribe("$share//a", "a/#/b", "ok") == b"\x80\x80\x01"


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\xc0\x00", b""),  # not CONNECT
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""),  # TLS on a plain port
        (b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x3c\x00\x00", b"\x20\x02\x00\x01"),  # MQTT 6
        (b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00", b"\x20\x02\x00\x01"),  # MQTT 3.1
        (b"\x10\xff\xff\xff\x7f", b""),  # 256 MiB of CONNECT
    ],
)
async def test_strangers_are_closed(bench, data, answer):
    """Whatever it is, it is not MQTT as we speak it, or not CONNECT [MQTT-3.1.0-1, 3.1.2-2]."""
    stranger = await bench.socket()
    stranger.send(data)
    assert await stranger.closed() == answer


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x30\x03\x00\x01#", 0x81),
        (b"\x82\x02\x00\x01", 0x81),
        (b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00", 0x82),  # CONNECT again [MQTT-3.1.0-2]
        (b"\x30\x80\x80\x80\x01", 0x95),  # above Maximum Packet Size
        (b"\xf0\x00", 0x82),  # AUTH
        (b"\xe0\x07\x00\x05\x11\x00\x00\x00\x05", 0x82),  # DISCONNECT that lengthens (3.14.2.2.2)
    ],
)
async def test_violations_end_the_connection_with_their_reason(bench, data, reason):
    """5.0 is told in DISCONNECT, 3.1.1 just closed; nobody else notices. A second CONNECT is one [MQTT-3.1.0-2]."""
    bystander = await bench.client("bystander")
    culprit = await bench.client("culprit", v5=True)
    culprit.send(data)
    answer = await culprit.closed()
    assert answer[0] == 0xE0
    if reason != 0x81:
        assert answer[2] == reason
    await bystander.silence()
    if data[0] != 0xE0:
        old = await bench.client("old")
        old.send(data)
        assert await old.closed() == b""


async def test_slow_loris_is_shown_out(open_listener, eventually):
    """From accept to a whole CONNECT there is a deadline, however the bytes trickle."""
    bench = await open_listener(connect_timeout_s=5.0)
    loris = await bench.socket()
    loris.send(b"\x10\x20\x00")
    await eventually(lambda: bench.listener.stats.connections == 1)
    bench.clock.advance(4)
    loris.send(b"\x04")
    bench.listener.tick()
    assert bench.listener.stats.connections == 1
    bench.clock.advance(1)
    bench.listener.tick()
    assert await loris.closed() == b""


async def test_one_too_many_is_turned_away(open_listener, eventually):
    """`max_connections` protects those who are there."""
    bench = await open_listener(max_connections=2)
    first = await bench.client("one")
    await bench.client("two")
    third = await bench.socket()
    assert await third.closed() == b""
    assert bench.listener.stats.refused_total.get("connect", 0) == 1
    await first.close()
    await eventually(lambda: bench.listener.stats.connections == 1)
    assert (await bench.client("three")).connack[1] == b"\0\0"


async def test_a_bug_in_one_conversation_closes_only_that_one(bench, monkeypatch, wire):
    """No callback raises; the loop and the others go on."""
    bystander, victim = await bench.client("bystander"), await bench.client("victim")

    def broken(*_):
        raise KeyError("bug")

    monkeypatch.setattr(bench.listener.exchange, "subscribe", broken)
    victim.send(wire.packet(0x82, b"\0\1" + wire.text("a") + b"\0"))
    assert await victim.closed() == b""
    await bystander.silence()


async def test_a_sentence_is_said_only_to_who_takes_it(open_listener, wire):
    """[MQTT-3.2.2-19, 3.14.2-3]: a reason string that would make the packet too large for the client is left out."""
    bench = await open_listener(users=(ALICE,))
    for limit_bytes, has_sentence in ((b"", True), (b"\x27\0\0\0\x20", False)):
        stranger = await bench.client("c", v5=True, properties=limit_bytes)
        assert stranger.connack[1][1] == 0x87
        assert (b"\x1f" in stranger.connack[1][2:]) is has_sentence
        guest = await bench.client("c", v5=True, username="alice", password="secret", properties=limit_bytes)
        guest.send(wire.publish("a/+", v5=True))
        farewell = await guest.closed()
        assert farewell[0] == 0xE0
        assert (len(farewell) > 3) is has_sentence

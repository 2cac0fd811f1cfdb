"""SUBSCRIBE and UNSUBSCRIBE with their answers (3.8 to 3.11), clause by clause."""

import pytest

from gateway.config.settings import Permission, User
from tests.mqtt.conftest import both, packet, publish, text


async def ask(client, kind, *filters, options=(), properties=b""):
    """Send (UN)SUBSCRIBE; the whole answer's body."""
    none = bytes([len(properties)]) + properties if client.v5 else b""
    body = b"".join(text(name) + bytes(options[at : at + 1]) for at, name in enumerate(filters))
    client.send(packet(kind, b"\x12\x34" + none + body))
    first, answer = await client.packet()
    assert (first, answer[:2]) == ({0x82: 0x90, 0xA2: 0xB0}[kind], b"\x12\x34")
    return answer


@pytest.mark.parametrize("kind", [0x82, 0xA2])
@both
async def test_a_request_without_a_filter_ends_the_connection(bench, v5, kind):
    """[MQTT-3.8.3-2, 3.10.3-2, 3.8.3-3 of 3.1.1]."""
    client = await bench.client("c", v5=v5)
    client.send(packet(kind, b"\0\1" + (b"\0" if v5 else b"")))
    farewell = await client.closed()
    assert (farewell[:1], farewell[2:3]) == ((b"\xe0", b"\x82") if v5 else (b"", b""))


@both
async def test_reserved_options_end_the_connection(bench, v5):
    """[MQTT-3.8.3-5, 3.8.3-4 of 3.1.1]: every other bit, QoS 3, and in 5.0 retain handling 3."""
    bad = [
        option for option in range(256) if option & (0xC0 if v5 else 0xFC) or option & 3 == 3 or option & 0x30 == 0x30
    ]
    for option in bad:
        client = await bench.client("c", v5=v5)
        client.send(packet(0x82, b"\0\1" + (b"\0" if v5 else b"") + text("t") + bytes([option])))
        farewell = await client.closed()
        is_retain_handling = option & 0xC3 < 3 and option & 0x30 == 0x30
        assert (farewell[:1], farewell[2:3]) == (
            (b"\xe0", b"\x82" if is_retain_handling else b"\x81") if v5 else (b"", b"")
        )
    assert not bench.listener.stats.subscriptions


async def test_no_local_keeps_a_clients_own_messages_away(bench):
    """[MQTT-3.8.3-3]: by client id, whichever connection; not with a shared subscription [MQTT-3.8.3-4]."""
    client = await bench.client("c", v5=True, clean=False, properties=b"\x11\0\0\x0e\x10")
    other = await bench.client("other", v5=True)
    await client.subscribe("t", options=0x05)
    client.send(publish("t", b"own", qos=1, v5=True))
    assert await client.packet() == (0x40, b"\0\1")
    other.send(publish("t", b"other's", qos=1, v5=True))
    assert (await client.message()).payload == b"other's"
    await client.silence()
    client.send(packet(0x82, b"\0\1\0" + text("u") + b"\0" + text("$share/g/t") + b"\4"))
    assert (await client.closed())[2] == 0x82
    assert bench.listener.stats.subscriptions == 1, "nothing of it is subscribed to"


async def test_no_local_takes_only_its_own_subscription_away(bench):
    """[MQTT-3.8.3-3]: of two that match, the other one still brings the message, with its own QoS and identifier."""
    client = await bench.client("c", v5=True)
    await client.subscribe("t/#", options=0x06, properties=b"\x0b\5")
    await client.subscribe("t/x", options=0x01, properties=b"\x0b\6")
    client.send(publish("t/x", b"own", qos=2, v5=True), publish("t/y", b"own", v5=True))
    assert await client.packet() == (0x50, b"\0\1")
    got = await client.message()
    assert (got.topic, got.qos, got.properties) == ("t/x", 1, b"\x0b\6")
    await client.silence()


@both
async def test_every_request_is_answered_filter_by_filter_in_order(bench, v5):
    """[MQTT-3.8.4-1, -2, -5, -6, -7, 3.9.3-1, -2, 3.8.3-2 of 3.1.1]: granted as asked for, or refused."""
    client = await bench.client("c", v5=v5)
    filters = ["a", "a/#/b", "+/#", "c+", "$share/g/d", "a"]
    answer = await ask(client, 0x82, *filters, options=[0, 1, 2, 0, 1, 2])
    refused = 0x8F if v5 else 0x80
    assert answer[-6:] == bytes([0, refused, 2, refused, 1, 2])
    assert bench.listener.stats.subscriptions == 3


@both
async def test_a_subscription_to_the_same_filter_takes_its_place(bench, v5):
    """[MQTT-3.8.4-3, -4]: another QoS, no second copy, retained messages again, and nothing lost in between."""
    bench.listener.publish("t", b"kept", retain=True)
    client, writer = await bench.client("c", v5=v5), await bench.client("writer", v5=v5)
    await client.subscribe("t", options=0)
    assert (await client.message()).payload == b"kept"
    none = b"\0" if v5 else b""
    for number in range(20):
        writer.send(publish("t", b"%d" % number, qos=1, mid=number + 1, v5=v5))
        client.send(packet(0x82, b"\0\1" + none + text("t") + bytes([number % 2 + 1])))
    live, kept, answers = [], 0, 0
    while len(live) < 20 or kept < 20 or answers < 20:
        first, body = await client.packet()
        if first == 0x90:
            answers += 1
            continue
        payload = body[5 + len(none) * 1 :] if first & 6 else body[3 + len(none) :]
        if first & 1:
            kept += 1
        else:
            live.append(payload)
        if first & 6 == 2:
            client.send(packet(0x40, body[3:5]))
    assert live == [b"%d" % number for number in range(20)]
    assert bench.listener.stats.subscriptions == 1
    await client.silence()


@both
async def test_many_filters_in_one_request_are_as_many_requests(bench, v5):
    """[MQTT-3.8.4-5, 3.10.4-6]: with one answer; a filter that stands twice holds as it stands last."""
    client = await bench.client("c", v5=v5)
    answer = await ask(client, 0x82, *(f"t/{n}" for n in range(200)), "t/0", options=[0] * 200 + [2])
    assert answer[-201:] == bytes(200) + b"\2"
    bench.listener.publish("t/0", b"x", qos=2)
    assert (await client.message()).qos == 2
    answer = await ask(client, 0xA2, *(f"t/{n}" for n in range(200)), "t/0")
    assert answer[2:] == (b"\0" + bytes(200) + b"\x11" if v5 else b"")
    assert not bench.listener.stats.subscriptions


@pytest.mark.parametrize("granted", [0, 1, 2])
@both
async def test_a_copy_has_the_lower_of_both_qos(bench, v5, granted):
    """[MQTT-3.8.4-8, 3.8.4-6 of 3.1.1]: of what it was published at and what was granted; retained ones too."""
    writer = await bench.client("writer", v5=v5)
    for qos in (0, 1, 2):
        writer.send(publish(f"kept/{qos}", qos=qos, mid=qos + 1, retain=True, v5=v5))
    await bench.desk.wait_for(3)
    client = await bench.client("c", v5=v5)
    assert await client.subscribe("#", options=granted) == bytes([granted])
    kept = [await client.message() for _ in range(3)]
    for qos in (0, 1, 2):
        writer.send(publish(f"live/{qos}", qos=qos, mid=qos + 4, v5=v5))
    live = [await client.message() for _ in range(3)]
    for each in (*kept, *live):
        assert each.qos == min(granted, int(each.topic[-1])), each.topic


@both
async def test_a_filter_is_left_if_it_is_the_same_to_the_letter(bench, v5):
    """[MQTT-3.10.4-1, -2, -4, -5, 3.11.3-1, -2]: what matches the same topics stays; an answer comes always."""
    client = await bench.client("c", v5=v5)
    await client.subscribe("a/+", "a/#", "A/b")
    answer = await ask(client, 0xA2, "a/b", "a/+", "+/#", "a/b/#/", "a/+")
    assert answer[2:] == (b"\0" + b"\x11\0\x11\x11\x11" if v5 else b"")
    bench.listener.publish("a/b", b"one")
    assert (await client.message()).payload == b"one"
    await ask(client, 0xA2, "a/#")
    bench.listener.publish("a/b", b"none")
    bench.listener.publish("A/b", b"another")
    assert (await client.message()).payload == b"another"
    await client.silence()


@both
async def test_what_is_under_way_is_finished_after_unsubscribing(bench, v5, eventually):
    """[MQTT-3.10.4-3]: its handshake goes on, over a new connection too."""
    how = {"v5": v5, "clean": False, "properties": b"\x11\0\0\x0e\x10" if v5 else b""}
    client = await bench.client("c", **how)
    await client.subscribe("t", options=2)
    for qos in (1, 2, 2):
        bench.listener.publish("t", b"x", qos=qos)
    mids = [(await client.message()).mid for _ in range(3)]
    client.send(packet(0x50, mids[1].to_bytes(2, "big")))
    assert (await client.packet())[0] == 0x62
    await ask(client, 0xA2, "t")
    client.writer.transport.abort()
    await eventually(lambda: not bench.listener.clients()[0].is_connected)
    client = await bench.client("c", **how)
    again = [await client.packet() for _ in range(3)]
    assert [first for first, _ in again] == [0x3A, 0x3C, 0x62]
    assert [body[3:5] for _, body in again[:2]] == [mids[0].to_bytes(2, "big"), mids[2].to_bytes(2, "big")]
    client.send(packet(0x40, again[0][1][3:5]), packet(0x50, again[1][1][3:5]))
    assert (await client.packet())[0] == 0x62


async def test_a_sentence_stands_in_a_suback_only_where_it_fits(open_listener):
    """[MQTT-3.9.2-1, -2, 3.11.2-1, -2]: the reasons alone otherwise; UNSUBACK and user properties are never needed."""
    mine = Permission(subscribe=("mine/#",))
    bench = await open_listener(users=(User(username="u", password="p"),), permissions=(mine,))
    sentence = b"\x1f\0\x1bthe filter is not permitted"
    size_bytes = 2 + 2 + 1 + len(sentence) + 1
    for most, said in ((size_bytes - 1, b""), (size_bytes, sentence), (None, sentence)):
        properties = b"" if most is None else b"\x27" + most.to_bytes(4, "big")
        client = await bench.client("c", v5=True, username="u", password="p", properties=properties)
        assert await ask(client, 0x82, "theirs", options=[1]) == b"\x12\x34" + bytes([len(said)]) + said + b"\x87"
        assert await ask(client, 0xA2, "theirs") == b"\x12\x34\0\x11"


@both
async def test_a_ping_is_answered(bench, v5):
    """[MQTT-3.12.4-1]: each of them, and while messages wait for the disk."""
    client = await bench.client("c", v5=v5)
    client.send(b"\xc0\0" * 5)
    assert [await client.packet() for _ in range(5)] == [(0xD0, b"")] * 5

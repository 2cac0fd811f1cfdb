"""PUBLISH (3.3), clause by clause: DUP, RETAIN, topics, properties, identifiers, receive maximum."""

import pytest

from gateway.config.settings import Permission, User
from tests.mqtt.conftest import both, packet, publish, text, varint

HOUR = b"\x11\0\0\x0e\x10"
EXPIRES_IN_60 = b"\x02\0\0\0\x3c"


def lasting(v5):
    return {"v5": v5, "clean": False, "properties": HOUR if v5 else b""}


async def two(bench, v5, *filters, options=2, **how):
    """Who publishes, and who subscribes."""
    reader = await bench.client("reader", v5=v5, **how)
    await reader.subscribe(*filters, options=options)
    return await bench.client("writer", v5=v5), reader


# DUP, QoS.


@both
async def test_dup_tells_of_a_second_try_and_of_nothing_else(bench, v5, eventually):
    """[MQTT-3.3.1-1, -2, -3, 4.3.1-1, 4.3.2-2, 4.3.3-2]: what the publisher said of its own tries is not passed on."""
    writer = await bench.client("writer", v5=v5)
    reader = await bench.client("reader", **lasting(v5))
    await reader.subscribe("t", options=2)
    writer.send(*(publish("t", b"%d" % qos, qos=qos, mid=qos, dup=bool(qos), v5=v5) for qos in (0, 1, 2)))
    got = [await reader.message() for _ in range(3)]
    assert [(each.payload, each.qos, each.dup) for each in got] == [(b"%d" % qos, qos, False) for qos in (0, 1, 2)]
    reader.writer.transport.abort()
    await eventually(lambda: any(not info.is_connected for info in bench.listener.clients()))
    reader = await bench.client("reader", **lasting(v5))
    again = [await reader.message() for _ in range(2)]
    assert [(each.payload, each.dup, each.mid) for each in again] == [
        (b"1", True, got[1].mid),
        (b"2", True, got[2].mid),
    ]


@pytest.mark.parametrize("first", [0x36, 0x37, 0x3E, 0x3F, 0x38, 0x39])
@both
async def test_qos_3_and_a_second_try_at_qos_0_end_the_connection(bench, v5, first):
    """[MQTT-3.3.1-2, -4]: and nothing of it is stored."""
    client = await bench.client("c", v5=v5)
    client.send(packet(first, text("t") + b"\0\1\0x"))
    farewell = await client.closed()
    assert (farewell[:1], farewell[2:3]) == ((b"\xe0", b"\x81") if v5 else (b"", b""))
    assert bench.desk.messages == []


@both
async def test_each_qos_is_answered_as_it_should_be(bench, v5):
    """[MQTT-3.3.4-1]: not at all, by PUBACK, by PUBREC."""
    client = await bench.client("c", v5=v5)
    client.send(publish("t", v5=v5))
    await client.silence()
    client.send(publish("t", qos=1, mid=3, v5=v5))
    assert await client.packet() == (0x40, b"\0\3")
    client.send(publish("t", qos=2, mid=4, v5=v5))
    assert await client.packet() == (0x50, b"\0\4")


# RETAIN.


@both
async def test_the_last_retained_message_of_a_topic_is_kept_with_its_qos(bench, v5):
    """[MQTT-3.3.1-5, -8, -9, -12, 3.3.1-6 to -9 of 3.1.1, 3.3.1-12 of 3.1.1]: without RETAIN nothing changes there."""
    writer = await bench.client("writer", v5=v5)
    for number, (qos, retain) in enumerate([(1, True), (2, True), (0, False), (1, False)]):
        writer.send(publish("t", b"%d" % number, qos=qos, mid=number + 1, retain=retain, v5=v5))
    await bench.desk.wait_for(4)
    reader = await bench.client("reader", v5=v5)
    await reader.subscribe("t", options=2)
    got = await reader.message()
    assert (got.payload, got.qos, got.retain) == (b"1", 2, True)
    writer.send(publish("t", b"", qos=1, mid=7, v5=v5))
    assert (await reader.message()).payload == b""
    assert bench.listener.stats.retained == 1, "empty, but without RETAIN"
    writer.send(publish("t", b"at 0", retain=True, v5=v5))
    live = await reader.message()
    assert (live.payload, live.retain) == (b"at 0", False)
    late = await bench.client("late", v5=v5)
    await late.subscribe("t", options=2)
    kept = await late.message()
    assert (kept.payload, kept.qos, kept.retain) == (b"at 0", 0, True)


@both
async def test_an_empty_retained_message_is_delivered_and_clears_its_topic(bench, v5):
    """[MQTT-3.3.1-6, -7, 3.3.1-10, -11 of 3.1.1]: it is not kept itself."""
    writer, reader = await two(bench, v5, "t")
    writer.send(publish("t", b"x", retain=True, v5=v5), publish("t", b"", qos=1, retain=True, v5=v5))
    assert [(await reader.message()).payload for _ in range(2)] == [b"x", b""]
    late = await bench.client("late", v5=v5)
    await late.subscribe("t")
    await late.silence()
    assert bench.listener.stats.retained == 0


@pytest.mark.parametrize(("handling", "first", "second"), [(0, True, True), (1, True, False), (2, False, False)])
async def test_retain_handling_says_when_retained_messages_come(bench, handling, first, second):
    """[MQTT-3.3.1-9, -10, -11, 3.8.4-4]: on subscribing, on subscribing for the first time, never."""
    bench.listener.publish("t", b"x", retain=True)
    reader = await bench.client("reader", v5=True)
    for comes in (first, second):
        await reader.subscribe("t", options=handling << 4)
        if comes:
            assert (await reader.message()).retain
        await reader.silence()


@pytest.mark.parametrize(("options", "expected"), [(0x00, [True, False, False]), (0x08, [True, True, False])])
async def test_retain_as_published(bench, options, expected):
    """[MQTT-3.3.1-12, -13]: on subscribing the flag is set in any case."""
    bench.listener.publish("t", b"kept", retain=True)
    writer, reader = await two(bench, True, "t", options=options)
    writer.send(publish("t", retain=True, v5=True), publish("t", v5=True))
    assert [(await reader.message()).retain for _ in range(3)] == expected


# Topics.


@both
async def test_what_is_sent_has_the_topic_it_was_published_on(bench, v5):
    """[MQTT-3.3.2-3]: and comes to those alone whose filters match it."""
    writer, reader = await two(bench, v5, "a/+", "b/#")
    topics = ["a/x", "a/x/y", "b", "b/x/y", "a/", "c", "A/x"]
    writer.send(*(publish(topic, v5=v5) for topic in topics))
    assert [(await reader.message()).topic for _ in range(4)] == ["a/x", "b", "b/x/y", "a/"]
    await reader.silence()


@pytest.mark.parametrize("topic", ["a/+", "#", "a#", "+"])
@both
async def test_nobody_publishes_to_a_wildcard(bench, v5, topic):
    """[MQTT-3.3.2-2, 4.7.0-1, 4.7.1-1 of 3.1.1]: 5.0 is told 0x90."""
    client = await bench.client("c", v5=v5)
    client.send(publish(topic, qos=1, v5=v5))
    farewell = await client.closed()
    assert (farewell[:1], farewell[2:3]) == ((b"\xe0", b"\x90") if v5 else (b"", b""))
    assert bench.desk.messages == []


# Properties.

PASSED_ON = {
    "payload format": b"\x01\x01",
    "payload format of bytes": b"\x01\x00",
    "content type": b"\x03" + text("text/plain; charset=ä"),
    "response topic": b"\x08" + text("answers/$here//x"),
    "correlation data": b"\x09" + text(b"\0\xff\xfe"),
    "empty correlation data": b"\x09" + text(b""),
    "user properties": b"".join(
        b"\x26" + text(key) + text(value) for key, value in [("b", "1"), ("a", "2"), ("b", "3"), ("b", "1"), ("", "")]
    ),
}


@pytest.mark.parametrize("name", PASSED_ON)
async def test_a_property_reaches_every_subscriber_as_it_was_sent(bench, name):
    """[MQTT-3.3.2-4, -15, -16, -17, -18, -20]: live, waiting and retained; user properties in their order."""
    said = PASSED_ON[name]
    writer, reader = await two(bench, True, "t", options=1)
    away = await bench.client("away", **lasting(True))
    await away.subscribe("t")
    away.send(b"\xe0\0")
    await away.closed()
    writer.send(publish("t", "ä".encode(), qos=1, retain=True, v5=True, properties=said))
    assert (await reader.message()).properties == said
    away = await bench.client("away", **lasting(True))
    assert (await away.message()).properties == said
    late = await bench.client("late", v5=True)
    await late.subscribe("t")
    assert (await late.message()).properties == said


async def test_a_wills_properties_are_passed_on_in_their_order(bench):
    """[MQTT-3.1.3-10]: user properties of a will, and the rest that belongs to the message."""
    reader = await bench.client("reader", v5=True)
    await reader.subscribe("gone")
    said = b"".join(
        PASSED_ON[name] for name in ("payload format", "content type", "correlation data", "user properties")
    )
    dying = await bench.client("dying", v5=True, will=("gone", b"x"), will_properties=b"\x18\0\0\0\0" + said)
    dying.writer.transport.abort()
    assert (await reader.message()).properties == said


async def test_a_response_topic_names_one_topic(bench):
    """[MQTT-3.3.2-14]: no wildcard, and not nothing."""
    for bad in ("a/+", "#", ""):
        client = await bench.client("c", v5=True)
        client.send(publish("t", v5=True, properties=b"\x08" + text(bad)))
        assert (await client.closed())[2] == 0x82
    assert bench.desk.messages == []


async def test_an_answer_finds_its_way_by_response_topic_and_correlation_data(bench):
    """[MQTT-3.3.2-15, -16]: request and response between two clients that know nothing else of each other (4.10)."""
    asker, device = await bench.client("asker", v5=True), await bench.client("device", v5=True)
    await asker.subscribe("answers/asker")
    await device.subscribe("requests")
    asker.send(publish("requests", b"?", v5=True, properties=b"\x08" + text("answers/asker") + b"\x09" + text(b"\0\7")))
    asked = await device.message()
    size = int.from_bytes(asked.properties[1:3], "big")
    where, told = asked.properties[3 : 3 + size].decode(), asked.properties[3 + size :]
    device.send(publish(where, b"!", v5=True, properties=told))
    answer = await asker.message()
    assert (answer.topic, answer.payload, answer.properties) == ("answers/asker", b"!", b"\x09\0\2\0\7")


async def test_a_message_expires_while_it_waits_and_says_what_is_left_of_it(bench):
    """[MQTT-3.3.2-5, -6]: less the whole seconds that it has waited, for who was away and for who comes later."""
    away = await bench.client("away", **lasting(True))
    await away.subscribe("t/#")
    away.send(b"\xe0\0")
    await away.closed()
    writer = await bench.client("writer", v5=True)
    for topic, expiry in (("t/short", 5), ("t/long", 60), ("t/never", None)):
        said = b"" if expiry is None else b"\x02" + expiry.to_bytes(4, "big")
        writer.send(publish(topic, qos=1, retain=True, v5=True, properties=said))
    await bench.desk.wait_for(3)
    bench.clock.advance(10.4)
    left = {"t/long": b"\x02" + (50).to_bytes(4, "big"), "t/never": b""}
    away = await bench.client("away", **lasting(True))
    late = await bench.client("late", v5=True)
    await late.subscribe("t/#")
    for client in (away, late):
        got = [await client.message() for _ in range(2)]
        assert {each.topic: each.properties for each in got} == left
        await client.silence()
    assert bench.listener.stats.dropped_total["expired"] == 1


async def test_a_message_that_is_passed_on_at_once_keeps_its_whole_expiry(slow_bench):
    """[MQTT-3.3.2-6]: the moments until it was on disk are no second."""
    writer, reader = await two(slow_bench, True, "t")
    writer.send(publish("t", v5=True, properties=EXPIRES_IN_60))
    await slow_bench.desk.wait_for(1)
    slow_bench.clock.advance(0.02)
    slow_bench.desk.arrivals[0].settle()
    assert (await reader.message()).properties == EXPIRES_IN_60


async def test_what_has_been_sent_does_not_expire_any_more(bench, eventually):
    """[MQTT-4.3.3-7, -13]: it is sent again after its time, and its handshake goes to its end."""
    writer = await bench.client("writer", v5=True)
    reader = await bench.client("reader", **lasting(True))
    await reader.subscribe("t", options=2)
    writer.send(publish("t", b"x", qos=2, v5=True, properties=b"\x02\0\0\0\5"))
    assert (await reader.message()).mid == 1
    reader.writer.transport.abort()
    await eventually(lambda: any(not info.is_connected for info in bench.listener.clients()))
    bench.clock.advance(100)
    reader = await bench.client("reader", **lasting(True))
    again = await reader.message()
    assert (again.payload, again.dup, again.mid, again.properties) == (b"x", True, 1, b"\x02\0\0\0\1")
    reader.send(b"\x50\2\0\1")
    assert await reader.packet() == (0x62, b"\0\1")


async def test_aliases_end_with_their_connection(bench):
    """[MQTT-3.3.2-7]: in both directions."""
    first = await bench.client("c", **lasting(True))
    first.send(publish("a/b", v5=True, properties=b"\x23\0\1"))
    await bench.desk.wait_for(1)
    second = await bench.client("c", **lasting(True))
    second.send(publish("", v5=True, properties=b"\x23\0\1"))
    assert (await second.closed())[2] == 0x82
    assert len(bench.desk.messages) == 1
    takes = {"v5": True, "clean": False, "properties": HOUR + b"\x22\0\2"}
    for _ in range(2):
        reader = await bench.client("reader", **takes)
        await reader.subscribe("long/topic", options=0)
        bench.listener.publish("long/topic", b"x", qos=0)
        assert (await reader.message()).topic == "long/topic"
        bench.listener.publish("long/topic", b"x", qos=0)
        assert (await reader.message()).topic == ""


async def test_every_alias_that_was_granted_is_understood_and_no_other(bench):
    """[MQTT-3.2.2-17, -18, 3.3.2-8, -9, -12]: 1 to 32; 0, 33 and 65,535 are answered with 0x94."""
    client = await bench.client("c", v5=True)
    for alias in range(1, 33):
        said = b"\x23" + alias.to_bytes(2, "big")
        client.send(publish(f"t/{alias}", v5=True, properties=said), publish("", b"again", v5=True, properties=said))
    await bench.desk.wait_for(64)
    assert [topic for topic, _, _ in bench.desk.messages] == [f"t/{n}" for n in range(1, 33) for _ in range(2)]
    for alias in (0, 33, 65_535):
        client = await bench.client("c", v5=True)
        client.send(publish("t", v5=True, properties=b"\x23" + alias.to_bytes(2, "big")))
        assert (await client.closed())[2] == 0x94


@pytest.mark.parametrize("granted", [0, 1, 3, 65_535])
async def test_no_alias_is_sent_beyond_what_the_client_takes(bench, granted):
    """[MQTT-3.1.2-26, -27, 3.3.2-8, -10, -11]: none at all without Topic Alias Maximum."""
    how = b"\x22" + granted.to_bytes(2, "big") if granted else b""
    reader = await bench.client("reader", v5=True, properties=how)
    await reader.subscribe("topics/#", options=0)
    for _ in range(2):
        for number in range(40):
            bench.listener.publish(f"topics/{number}", b"x", qos=0)
    got = [await reader.message() for _ in range(80)]
    aliases = {int.from_bytes(each.properties[1:], "big") for each in got if each.properties}
    assert aliases == set(range(1, min(granted, 32) + 1))
    assert sum(not each.topic for each in got) == len(aliases)


# Who gets a copy, and how.


@both
async def test_overlapping_subscriptions_bring_one_copy_at_the_highest_qos(bench, v5):
    """[MQTT-3.3.4-2, 3.3.5-1 of 3.1.1]."""
    writer, reader = await two(bench, v5, "a/#", options=0)
    await reader.subscribe("a/+", options=2)
    await reader.subscribe("a/b", options=1)
    writer.send(publish("a/b", b"x", qos=2, v5=v5))
    assert (await reader.message()).qos == 2
    await reader.silence()


async def test_a_copy_says_by_which_subscriptions_it_comes(bench):
    """[MQTT-3.3.4-3, -4, -5]: all identifiers on one copy; on a shared subscription's own copy, its own."""
    reader = await bench.client("reader", v5=True)
    for name, identifier in (("a/#", b"\x01"), ("a/+", b""), ("+/b", b"\xff\xff\xff\x7f"), ("$share/g/a/b", b"\x03")):
        await reader.subscribe(name, properties=b"\x0b" + identifier if identifier else b"")
    bench.listener.publish("a/b", b"x")
    one, other = sorted([await reader.message(), await reader.message()], key=lambda each: -len(each.properties))
    assert one.properties in {b"\x0b\1\x0b\xff\xff\xff\x7f", b"\x0b\xff\xff\xff\x7f\x0b\1"}
    assert other.properties == b"\x0b\3"
    await reader.silence()


async def test_retained_and_waiting_copies_say_it_too(bench):
    """[MQTT-3.3.4-3]: on subscribing the subscription that asked, and after a return all that matched."""
    bench.listener.publish("a/b", b"kept", retain=True)
    reader = await bench.client("reader", **lasting(True))
    for name, identifier in (("a/#", 1), ("a/+", 300)):
        said = b"\x0b" + varint(identifier)
        await reader.subscribe(name, properties=said)
        got = await reader.message()
        assert (got.retain, got.properties) == (True, said)
        reader.send(packet(0x40, got.mid.to_bytes(2, "big")))
    reader.send(b"\xe0\0")
    await reader.closed()
    writer = await bench.client("writer", v5=True)
    writer.send(publish("a/b", b"x", qos=1, v5=True))
    assert (await writer.packet())[0] == 0x40
    reader = await bench.client("reader", **lasting(True))
    assert (await reader.message()).properties in {b"\x0b\1\x0b\xac\2", b"\x0b\xac\2\x0b\1"}


async def test_a_publisher_names_no_subscription(bench):
    """[MQTT-3.3.4-6]: 0x82."""
    client = await bench.client("c", v5=True)
    client.send(publish("t", v5=True, properties=b"\x0b\1"))
    assert (await client.closed())[2] == 0x82
    assert bench.desk.messages == []


async def test_no_more_is_under_way_than_the_client_takes(bench):
    """[MQTT-3.3.4-9, -10, 4.5.0-2, 4.9.0-1, -2, -3]: QoS 1 and 2 together, to PUBACK and PUBCOMP; all else goes on."""
    reader = await bench.client("reader", v5=True, properties=b"\x21\0\2")
    await reader.subscribe("t", options=2)
    for number, qos in enumerate((1, 2, 1, 2, 0)):
        bench.listener.publish("t", b"%d" % number, qos=qos)
    got = [await reader.message() for _ in range(3)]
    assert [(each.payload, each.qos) for each in got] == [(b"0", 1), (b"1", 2), (b"4", 0)]
    await reader.silence()
    reader.send(publish("own", qos=1, mid=9, v5=True))
    assert await reader.packet() == (0x40, b"\0\x09")
    assert await reader.subscribe("u") == b"\1"
    reader.send(b"\x50\2\0\2")
    assert await reader.packet() == (0x62, b"\0\2"), "a PUBREL takes no room"
    await reader.silence()
    reader.send(b"\x70\2\0\2")
    assert (await reader.message()).payload == b"2"
    await reader.silence()
    reader.send(b"\x40\2\0\1")
    assert (await reader.message()).payload == b"3"


async def test_a_client_that_sends_more_than_it_may_is_told(open_listener):
    """[MQTT-3.3.4-7]: 0x93; what needs no packet id does not count."""
    bench = await open_listener(at_once=False, max_in_flight=3)
    client = await bench.client("c", v5=True)
    assert b"\x21\0\3" in client.connack[1]
    client.send(*(publish("t", qos=1 + mid % 2, mid=mid, v5=True) for mid in (1, 2, 3)), publish("t", v5=True))
    await client.silence()
    client.send(publish("t", qos=1, mid=4, v5=True))
    assert (await client.closed())[2] == 0x93


# Refusals.


async def test_a_refused_message_is_answered_with_a_reason_and_a_sentence_where_it_fits(open_listener):
    """[MQTT-3.4.2-1, -2, -3, 3.5.2-1, -2, -3, 4.3.3-9]: and its packet id may mean another message at once."""
    mine = Permission(publish=("mine/#",))
    bench = await open_listener(users=(User(username="u", password="p"),), permissions=(mine,))
    for most, has_sentence in ((b"", True), (b"\x27\0\0\0\x22", False), (b"\x27\0\0\0\x23", True)):
        client = await bench.client("c", v5=True, username="u", password="p", properties=most)
        for qos, first in ((1, 0x40), (2, 0x50)):
            for _ in range(2):
                client.send(publish("theirs", qos=qos, mid=5, v5=True))
                sentence = b"\x1d\x1f\0\x1athe topic is not permitted" if has_sentence else b""
                assert await client.packet() == (first, b"\0\5\x87" + sentence)
        client.send(publish("mine/x", qos=2, mid=5, v5=True))
        assert await client.packet() == (0x50, b"\0\5")
    assert [topic for topic, _, _ in bench.desk.messages] == ["mine/x"] * 3

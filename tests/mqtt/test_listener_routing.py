"""The listener on the wire: who gets a message, when, and in which shape."""

import pytest


async def test_subscribers_get_messages_only_after_they_are_settled(slow_bench, wire):
    """L1 again: nothing that a message causes leaves before it is on disk."""
    watcher = await slow_bench.client("watcher")
    assert await watcher.subscribe("a/+") == b"\1"
    device = await slow_bench.client("dev")
    device.send(wire.publish("a/b", b"x", qos=1))
    await slow_bench.desk.wait_for(1)
    await watcher.silence()
    slow_bench.desk.arrivals[0].settle()
    message = await watcher.message()
    assert (message.topic, message.payload, message.qos, message.retain) == ("a/b", b"x", 1, False)


async def test_wildcards_do_not_see_dollar_topics(bench, wire):
    """[MQTT-4.7.2-1]."""
    watcher = await bench.client("watcher")
    await watcher.subscribe("#", "+/x")
    device = await bench.client("dev")
    device.send(wire.publish("$SYS/x", b"hidden"), wire.publish("a/x", b"seen"))
    assert (await watcher.message()).payload == b"seen"


async def test_delivery_is_at_the_lower_of_both_qos(bench, wire):
    """What was published at 0 arrives at 0, what was subscribed at 0 as well."""
    watcher = await bench.client("watcher")
    assert await watcher.subscribe("low", options=0) == b"\0"
    assert await watcher.subscribe("high", options=2) == b"\2"
    device = await bench.client("dev")
    device.send(wire.publish("low", qos=1, mid=1), wire.publish("high", qos=0), wire.publish("high", qos=1, mid=2))
    device.send(wire.publish("high", qos=2, mid=3))
    assert [(await watcher.message()).qos for _ in range(4)] == [0, 0, 1, 2]


async def test_a_message_comes_back_to_its_sender_unless_no_local(bench, wire):
    """[MQTT-3.8.3-3]."""
    device = await bench.client("dev", v5=True)
    await device.subscribe("a", options=0x00)
    await device.subscribe("b", options=0x04)
    device.send(wire.publish("b", v5=True), wire.publish("a", v5=True))
    assert (await device.message()).topic == "a"
    other = await bench.client("other", v5=True)
    other.send(wire.publish("b", v5=True))
    assert (await device.message()).topic == "b"


async def test_a_client_that_takes_aliases_is_sent_them(bench, wire):
    """Topic Alias Maximum in CONNECT is the client's word [MQTT-3.1.2-26]; without it none is used [MQTT-3.1.2-27]."""
    takes = await bench.client("takes", v5=True, properties=b"\x22\x00\x01")
    takes_none = await bench.client("takes-none", v5=True)
    for reader in (takes, takes_none):
        await reader.subscribe("devices/#", options=0)
    device = await bench.client("dev")
    device.send(*(wire.publish(topic) for topic in ("devices/a/climate", "devices/b/climate", "devices/a/climate")))
    got = [await takes.message() for _ in range(3)]
    assert [(each.topic, each.properties) for each in got] == [
        ("devices/a/climate", b"\x23\x00\x01"),
        ("devices/b/climate", b""),
        ("", b"\x23\x00\x01"),
    ]
    assert [(await takes_none.message()).topic for _ in range(3)].count("") == 0


async def test_unsubscribing_ends_it(bench, wire):
    """[MQTT-3.10.4-1], and the answer has a code per filter in 5.0."""
    device = await bench.client("dev", v5=True)
    await device.subscribe("a", "b")
    device.send(wire.packet(0xA2, b"\0\1\0" + wire.text("a") + wire.text("c")))
    assert await device.packet() == (0xB0, b"\0\1\0\x00\x11")
    device.send(wire.publish("a", v5=True), wire.publish("b", v5=True))
    assert (await device.message()).topic == "b"


async def test_the_gateways_own_messages_do_not_pass_the_intake(bench):
    """Commands were stored as decisions; they are not events from a device."""
    device = await bench.client("dev")
    await device.subscribe("cmd")
    assert bench.listener.publish("cmd", b"on", qos=1) == 1
    assert bench.listener.publish("nobody", b"on") == 0
    assert (await device.message()).payload == b"on"
    assert not bench.desk.arrivals
    with pytest.raises(ValueError, match="topic name"):
        bench.listener.publish("a/#", b"")


async def test_retained_messages_come_with_the_flag_on_subscribing_and_without_it_live(bench, wire):
    """[MQTT-3.3.1-9, -12]; an empty payload clears [MQTT-3.3.1-6, -7]."""
    device = await bench.client("dev")
    device.send(wire.publish("a/1", b"one", retain=True), wire.publish("a/2", b"two", qos=1, retain=True))
    assert (await device.packet())[0] == 0x40
    watcher = await bench.client("watcher")
    await watcher.subscribe("a/+")
    found = sorted([await watcher.message(), await watcher.message()], key=lambda message: message.topic)
    assert [(one.payload, one.retain, one.qos) for one in found] == [(b"one", True, 0), (b"two", True, 1)]
    device.send(wire.publish("a/1", b"three", retain=True))
    assert not (await watcher.message()).retain
    device.send(wire.publish("a/1", b"", retain=True), wire.publish("a/2", b"", retain=True))
    assert [(await watcher.message()).payload for _ in range(2)] == [b"", b""]
    assert bench.listener.stats.retained == 0
    late = await bench.client("late")
    await late.subscribe("a/+")
    await late.silence()


async def test_retain_as_published_keeps_the_flag(bench, wire):
    """[MQTT-3.3.1-13]: for bridges."""
    watcher = await bench.client("watcher", v5=True)
    await watcher.subscribe("a", options=0x09)
    device = await bench.client("dev")
    device.send(wire.publish("a", retain=True), wire.publish("a"))
    assert [(await watcher.message()).retain for _ in range(2)] == [True, False]


async def test_properties_are_passed_on_to_5_0_and_left_out_for_3_1_1(bench, wire):
    """Content type, response topic, user properties and the like belong to the message [MQTT-3.3.2-17, -18]."""
    new, old = await bench.client("new", v5=True), await bench.client("old")
    await new.subscribe("a")
    await old.subscribe("a")
    sent = b"\x01\x01" + b"\x03" + wire.text("text/plain") + b"\x26" + wire.text("k") + wire.text("v")
    device = await bench.client("dev", v5=True)
    device.send(wire.publish("a", b"x", v5=True, properties=sent))
    assert (await new.message()).properties == sent
    assert (await old.message()).payload == b"x"


async def test_topic_aliases_stand_for_their_topics(bench, wire):
    """[MQTT-3.3.2-12]: per connection; the first use names the topic."""
    device = await bench.client("dev", v5=True)
    assert b"\x22\x00\x20" in device.connack[1], "Topic Alias Maximum is announced"
    alias = b"\x23\x00\x05"
    device.send(
        wire.publish("a/b", b"1", v5=True, properties=alias),
        wire.publish("", b"2", v5=True, properties=alias, qos=1),
        wire.publish("a/c", b"3", v5=True, properties=alias),
        wire.publish("", b"4", v5=True, properties=alias),
    )
    await bench.desk.wait_for(4)
    assert [row[:2] for row in bench.desk.messages] == [("a/b", b"1"), ("a/b", b"2"), ("a/c", b"3"), ("a/c", b"4")]


@pytest.mark.parametrize(
    ("properties", "topic", "reason"),
    [(b"\x23\x00\x00", "a", 0x94), (b"\x23\x00\x21", "a", 0x94), (b"\x23\x00\x05", "", 0x82)],
)
async def test_aliases_that_stand_for_nothing_end_the_connection(bench, wire, properties, topic, reason):
    """[MQTT-3.3.2-8, -9]."""
    device = await bench.client("dev", v5=True)
    device.send(wire.publish(topic, v5=True, properties=properties))
    farewell = await device.closed()
    assert (farewell[0], farewell[2]) == (0xE0, reason)

"""Chapter 4, clause by clause: sessions, handshakes, sending again, order, matching, sharing."""

import pytest

from tests.mqtt.conftest import both, packet, publish, text
from tests.mqtt.test_topics import MATCHES

HOUR = b"\x11\0\0\x0e\x10"


def lasting(v5):
    return {"v5": v5, "clean": False, "properties": HOUR if v5 else b""}


async def gone(client, bench, eventually):
    """The connection is cut; the session stays."""
    client.writer.transport.abort()
    await eventually(lambda: any(not info.is_connected for info in bench.listener.clients()))


# From a client to the gateway.


@both
async def test_after_its_puback_a_packet_id_means_another_message(bench, v5):
    """[MQTT-4.3.2-4, -5, 4.3.2-2 of 3.1.1]: whatever its DUP says."""
    client = await bench.client("c", v5=v5)
    for payload, dup in ((b"1", False), (b"2", False), (b"3", True)):
        client.send(publish("t", payload, qos=1, mid=5, dup=dup, v5=v5))
        assert await client.packet() == (0x40, b"\0\5")
    client.send(publish("t", b"4", qos=2, mid=5, v5=v5))
    assert await client.packet() == (0x50, b"\0\5")
    assert [payload for _, payload, _ in bench.desk.messages] == [b"1", b"2", b"3", b"4"]


@both
async def test_until_its_pubrel_a_packet_id_means_the_same_message(bench, v5, eventually):
    """[MQTT-2.2.1-3, 4.3.3-8, -10, -11, -12, 4.3.3-2 of 3.1.1]: stored once, delivered once, answered each time."""
    reader = await bench.client("reader", v5=v5)
    await reader.subscribe("t", options=0)
    client = await bench.client("c", **lasting(v5))
    for dup in (False, True, False):
        client.send(publish("t", b"first", qos=2, mid=5, dup=dup, v5=v5))
        assert await client.packet() == (0x50, b"\0\5")
    await gone(client, bench, eventually)
    client = await bench.client("c", **lasting(v5))
    client.send(publish("t", b"first", qos=2, mid=5, dup=True, v5=v5))
    assert await client.packet() == (0x50, b"\0\5")
    for _ in range(2):
        client.send(b"\x62\2\0\5")
        assert (await client.packet())[1][:2] == b"\0\5"
    client.send(publish("t", b"second", qos=2, mid=5, dup=True, v5=v5))
    assert await client.packet() == (0x50, b"\0\5")
    assert [(await reader.message()).payload for _ in range(2)] == [b"first", b"second"]
    await reader.silence()


@pytest.mark.parametrize("kind", [0x62, 0x50])
@both
async def test_what_answers_to_nothing_is_answered_so_that_it_ends(bench, v5, kind):
    """[MQTT-3.2.2-5, 3.6.2-1, 3.7.2-1, 4.3.3-11]: a PUBREL, a PUBREC for an unknown packet id: 0x92 in 5.0."""
    client = await bench.client("c", v5=v5)
    client.send(packet(kind, b"\0\5"))
    assert await client.packet() == ({0x62: 0x70, 0x50: 0x62}[kind], b"\0\5" + (b"\x92" if v5 else b""))
    client.send(b"\x40\2\0\5", b"\x70\2\0\5")
    await client.silence()


@both
async def test_a_client_is_answered_in_the_order_in_which_it_sent(slow_bench, v5):
    """[MQTT-4.6.0-2, -3]: PUBACKs and PUBRECs each in their order, whatever the disk does first."""
    client = await slow_bench.client("c", v5=v5)
    for start in (1, 101, 201):
        client.send(*(publish("t", qos=1 + mid % 2, mid=mid, v5=v5) for mid in range(start, start + 100)))
        await slow_bench.desk.wait_for(start + 99)
        await client.silence()
    for arrivals in reversed(slow_bench.desk.arrivals):
        arrivals.settle()
    answers = [await client.packet() for _ in range(300)]
    for first, remainder in ((0x40, 0), (0x50, 1)):
        mids = [int.from_bytes(body, "big") for kind, body in answers if kind == first]
        assert mids == [mid for mid in range(1, 301) if mid % 2 == remainder]


@both
async def test_a_message_belongs_to_every_session_that_matches_when_it_is_taken(bench, v5):
    """[MQTT-4.5.0-1]: connected or away, and to none that came later."""
    readers = [await bench.client(f"reader-{n}", **lasting(v5)) for n in range(4)]
    for reader, name in zip(readers, ("t/#", "+/x", "t/x", "u"), strict=True):
        await reader.subscribe(name)
    for reader in readers[1:]:
        reader.send(b"\xe0\0")
        await reader.closed()
    writer = await bench.client("writer", v5=v5)
    writer.send(publish("t/x", b"x", qos=1, v5=v5))
    assert await writer.packet() == (0x40, b"\0\1")
    assert (await readers[0].message()).payload == b"x"
    for number in (1, 2, 3):
        again = await bench.client(f"reader-{number}", **lasting(v5))
        if number < 3:
            assert (await again.message()).payload == b"x"
        else:
            await again.subscribe("t/#")
        await again.silence()


# From the gateway to a client.


@both
async def test_a_handshake_goes_step_by_step(bench, v5):
    """[MQTT-4.3.2-1 to -3, 4.3.3-1 to -6, 4.3.2-1, 4.3.3-1 of 3.1.1]: and its packet id is taken until the last."""
    client = await bench.client("c", v5=v5)
    await client.subscribe("t", options=2)
    for qos in (1, 2):
        bench.listener.publish("t", b"x", qos=qos)
    one, two = await client.message(), await client.message()
    assert (one.qos, two.qos, one.dup, two.dup, len({one.mid, two.mid})) == (1, 2, False, False, 2)
    in_flight = [2]

    def left():
        return bench.listener.clients()[0].in_flight

    for data, answers, expected in (
        (packet(0x40, one.mid.to_bytes(2, "big")), [], 1),
        (packet(0x50, two.mid.to_bytes(2, "big")), [(0x62, two.mid.to_bytes(2, "big"))], 1),
        (packet(0x70, two.mid.to_bytes(2, "big")), [], 0),
    ):
        client.send(data)
        for answer in answers:
            assert await client.packet() == answer
        await client.silence()
        in_flight.append(left())
        assert in_flight[-1] == expected


@both
async def test_after_a_reconnect_what_is_open_is_sent_again_in_its_order_and_at_no_other_time(bench, v5, eventually):
    """[MQTT-4.4.0-1, 4.6.0-1, -4, 4.3.3-5, -6, 2.3.1-3, -4 of 3.1.1]: same packet ids; PUBRELs as the PUBRECs came."""
    client = await bench.client("c", **lasting(v5))
    await client.subscribe("t", options=2)
    for number, qos in enumerate((1, 2, 1, 2, 2)):
        bench.listener.publish("t", b"%d" % number, qos=qos)
    mids = [(await client.message()).mid for _ in range(5)]
    client.send(packet(0x40, mids[0].to_bytes(2, "big")))
    for number in (4, 1):
        client.send(packet(0x50, mids[number].to_bytes(2, "big")))
        assert await client.packet() == (0x62, mids[number].to_bytes(2, "big"))
    bench.clock.advance(50)
    bench.listener.tick()
    await client.silence()  # and not because time passes
    for _ in range(2):
        await gone(client, bench, eventually)
        client = await bench.client("c", **lasting(v5))
        again = [await client.packet() for _ in range(4)]
        assert [first for first, _ in again] == [0x3A, 0x3C, 0x62, 0x62]
        assert [body[3:5] for _, body in again[:2]] == [mids[number].to_bytes(2, "big") for number in (2, 3)]
        assert [body for _, body in again[2:]] == [mids[number].to_bytes(2, "big") for number in (4, 1)]
        await client.silence()


async def test_what_a_client_refuses_is_not_sent_again(bench, eventually):
    """[MQTT-4.4.0-2, 4.3.3-4]: a PUBACK or PUBREC of 0x80 and above ends it, and no PUBREL follows."""
    client = await bench.client("c", **lasting(True))
    await client.subscribe("t", options=2)
    for qos in (1, 2):
        bench.listener.publish("t", b"x", qos=qos)
    one, two = await client.message(), await client.message()
    client.send(
        packet(0x40, one.mid.to_bytes(2, "big") + b"\x83"), packet(0x50, two.mid.to_bytes(2, "big") + b"\x97\0")
    )
    await client.silence()
    await gone(client, bench, eventually)
    client = await bench.client("c", **lasting(True))
    await client.silence()


@both
async def test_a_client_that_breaks_the_order_of_its_answers_loses_nothing(bench, v5):
    """[MQTT-4.5.0-2, 4.6.0-2]: the client's duty; whose PUBACKs come in any order, or late, is served all the same."""
    client = await bench.client("c", v5=v5)
    await client.subscribe("t")
    for number in range(10):
        bench.listener.publish("t", b"%d" % number)
    mids = [(await client.message()).mid for _ in range(10)]
    client.send(*(packet(0x40, mid.to_bytes(2, "big")) for mid in reversed(mids)))
    await client.silence()
    assert bench.listener.clients()[0].in_flight == 0


@both
async def test_messages_of_one_topic_and_qos_keep_their_order(bench, v5):
    """[MQTT-4.6.0-5, -6]: from one publisher to every subscriber, there or away, through a window of a few."""
    small = {"properties": HOUR + b"\x21\0\3"} if v5 else {}
    reader = await bench.client("reader", **(lasting(v5) | small))
    await reader.subscribe("t", options=2)
    writer = await bench.client("writer", v5=v5)
    numbers = {1: [], 2: []}
    for number in range(1, 101):
        writer.send(publish("t", b"%d" % number, qos=1 + number % 2, mid=number, v5=v5))
    await bench.desk.wait_for(100)
    while len(numbers[1]) + len(numbers[2]) < 100:
        first, body = await reader.packet()
        if first == 0x62:
            reader.send(packet(0x70, body))
            continue
        qos = first >> 1 & 3
        numbers[qos].append(int(body[6 if v5 else 5 :]))
        reader.send(packet(0x40 if qos == 1 else 0x50, body[3:5]))
    assert numbers == {1: list(range(2, 101, 2)), 2: list(range(1, 101, 2))}


# Topics.


@pytest.mark.parametrize(("mqtt_filter", "topic", "expected"), [case for case in MATCHES if "{" not in case[0]])
@both
async def test_a_subscription_matches_as_the_specification_says(bench, v5, mqtt_filter, topic, expected):
    """[MQTT-4.7.1-1, -2, 4.7.2-1, 4.7.3-4, 4.7.1-2, -3 of 3.1.1]: live and retained."""
    client = await bench.client("c", v5=v5)
    bench.listener.publish(topic, b"kept", retain=True)
    await client.subscribe(mqtt_filter)
    if expected:
        assert (await client.message()).topic == topic
    bench.listener.publish(topic, b"live")
    if expected:
        assert (await client.message()).payload == b"live"
    await client.silence()


@pytest.mark.parametrize("bad", ["a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+/c", "##", "a/++", ""])
@both
async def test_a_filter_that_is_none_is_refused(bench, v5, bad):
    """[MQTT-4.7.1-1, -2, 4.7.3-1, 4.7.1-2, -3 of 3.1.1]: with 0x8F, in 3.1.1 0x80."""
    client = await bench.client("c", v5=v5)
    assert await client.subscribe(bad) == (b"\x8f" if v5 else b"\x80")
    assert not bench.listener.stats.subscriptions


@both
async def test_topics_have_one_character_at_least_and_65535_bytes_at_most(bench, v5):
    """[MQTT-4.7.3-1, -3]: both ends of it, as topic and as filter."""
    client = await bench.client("c", v5=v5)
    longest = "ä" * 32_767 + "x"
    for name in ("/", longest):
        assert await client.subscribe(name) == b"\1"
        client.send(publish(name, b"x", v5=v5))
        assert (await client.message()).topic == name
    client.send(publish("", v5=v5))
    farewell = await client.closed()
    assert farewell[:1] == (b"\xe0" if v5 else b"")


# Sharing.


@both
async def test_a_shared_subscription_that_is_none_is_refused(bench, v5):
    """[MQTT-4.8.2-1, -2]: a name without wildcards, then a filter; 3.1.1 may share as well [MQTT-7.0.0-2 of 3.1.1]."""
    client = await bench.client("c", v5=v5)
    bad = ["$share//t", "$share/g", "$share/g/", "$share/+/t", "$share/#/t", "$share/g+/t", "$share/g/t#", "$share/"]
    assert await client.subscribe(*bad) == bytes([0x8F if v5 else 0x80]) * len(bad)
    assert await client.subscribe("$share/g/t", "$SHARE/g/t", "$shared/g/t") == b"\1\1\1"
    bench.listener.publish("t", b"x")
    assert (await client.message()).topic == "t"
    await client.silence()


async def test_each_member_gets_its_messages_at_its_own_qos(bench):
    """[MQTT-4.8.2-3]: what was granted to it, not to the others."""
    members = {}
    for qos in (0, 1, 2):
        members[qos] = await bench.client(f"m{qos}", v5=True)
        assert await members[qos].subscribe("$share/g/t", options=qos) == bytes([qos])
    for number in range(6):
        bench.listener.publish("t", b"%d" % number, qos=2)
    for qos, member in members.items():
        assert [(await member.message()).qos for _ in range(2)] == [qos, qos]
        await member.silence()


async def test_what_was_given_to_one_member_is_given_to_no_other(bench, eventually):
    """[MQTT-4.8.2-4, -5, -6]: it waits for its member, ends with its session, and is gone if its member refuses it."""
    how = {"v5": True, "clean": False, "properties": HOUR}
    one, two = await bench.client("one", **how), await bench.client("two", **how)
    for member in (one, two):
        await member.subscribe("$share/g/t", options=2)
    for number in range(4):
        bench.listener.publish("t", b"%d" % number, qos=2 if number < 2 else 1)
    kept = [(await one.message()).payload for _ in range(2)]
    others = [await two.message() for _ in range(2)]
    for message, kind in zip(others, (0x50, 0x40), strict=True):
        two.send(packet(kind, message.mid.to_bytes(2, "big") + b"\x80"))
    await two.silence()
    await gone(one, bench, eventually)
    await two.silence()
    one = await bench.client("one", **how)
    again = [await one.message() for _ in range(2)]
    assert ([each.payload for each in again], [each.dup for each in again]) == (kept, [True, True])
    one.send(b"\xe0\7\0\5\x11\0\0\0\0")
    await one.closed()
    assert [info.client_id for info in bench.listener.clients()] == ["two"]
    await two.silence()
    bench.listener.publish("t", b"next")
    assert (await two.message()).payload == b"next"


async def test_an_unsubscribed_member_gets_nothing_more(bench):
    """[MQTT-3.10.4-1, -2]: `$share/g/t` is left by its whole text, and the others go on."""
    one, two = await bench.client("one", v5=True), await bench.client("two", v5=True)
    for member in (one, two):
        await member.subscribe("$share/g/t", options=0)
    one.send(packet(0xA2, b"\0\1\0" + text("t") + text("$share/g/t")))
    assert await one.packet() == (0xB0, b"\0\1\0\x11\0")
    for _ in range(4):
        bench.listener.publish("t", b"x", qos=0)
    for _ in range(4):
        await two.message()
    await one.silence()

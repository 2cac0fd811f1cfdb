"""2026-11-28: what the first reading of every clause of MQTT 5.0 against the listener brought to light."""

import pytest

from gateway.mqtt.packets import V5, Subscription
from gateway.mqtt.passing import routes_among
from gateway.mqtt.session import Message, Session, Tally
from tests.mqtt.conftest import bench, open_listener, packet, publish, text
from tests.mqtt.test_session import Outlet

__all__ = ["bench", "open_listener"]


async def test_a_second_connect_of_another_version_was_answered_with_a_reason_for_connack_alone(bench):
    """[MQTT-3.14.2-1, 3.1.0-2]: DISCONNECT has no 0x84."""
    client = await bench.client("c", v5=True)
    client.send(packet(0x10, text("MQTT") + b"\x09\2\0\x3c\0" + text("c")))
    assert (await client.closed())[2] == 0x82


async def test_an_alias_that_came_with_a_repeated_message_was_forgotten(bench):
    """[MQTT-3.3.2-12]: a QoS 2 message that is sent again over a new connection may define its alias there."""
    how = {"v5": True, "clean": False, "properties": b"\x11\0\0\x0e\x10"}
    first = await bench.client("c", **how)
    first.send(publish("a/b", qos=2, mid=7, v5=True))
    assert await first.packet() == (0x50, b"\0\7")
    second = await bench.client("c", **how)
    second.send(publish("a/b", qos=2, mid=7, dup=True, v5=True, properties=b"\x23\0\1"))
    assert await second.packet() == (0x50, b"\0\7")
    second.send(publish("", b"next", v5=True, properties=b"\x23\0\1"))
    await second.silence()
    assert [(topic, payload) for topic, payload, _ in bench.desk.messages] == [("a/b", b"x"), ("a/b", b"next")]


async def test_answers_were_larger_than_the_client_takes(bench):
    """[MQTT-3.1.2-24]: Maximum Packet Size was held to in messages alone, not in CONNACK, SUBACK and UNSUBACK."""
    small = await bench.client("c", v5=True, properties=b"\x27\0\0\0\6")
    assert small.connack[1] == b"\0\x95\0"
    client = await bench.client("c", v5=True, properties=b"\x27\0\0\0\x20")
    client.send(packet(0x82, b"\0\1\0" + (text("t") + b"\0") * 40))
    assert await client.closed() == b"\xe0\1\x95"


async def test_no_local_on_one_filter_had_a_say_in_another(bench):
    """[MQTT-3.8.3-3]: its QoS and identifier showed on the copy that a second filter brought its own client."""
    client = await bench.client("c", v5=True)
    await client.subscribe("t/#", options=0x06, properties=b"\x0b\5")
    await client.subscribe("t/x", options=0x00, properties=b"\x0b\6")
    client.send(publish("t/x", v5=True, qos=1))
    assert await client.packet() == (0x40, b"\0\1")
    got = await client.message()
    assert (got.qos, got.properties) == (0, b"\x0b\6")


def test_a_way_for_a_sender_is_what_its_other_subscriptions_bring():
    """The same, where it is decided; of one that has no other there is none."""
    session, other = Session("c", 5, Tally()), Session("d", 5, Tally())
    refuses, takes = Subscription(2, no_local=True, identifier=5), Subscription(1, identifier=6)
    (both,) = routes_among([(session, refuses), (session, takes)])
    assert both.for_sender(other) is both
    assert both.for_sender(session)[1:5] == (1, False, False, (6,))
    (alone,) = routes_among([(session, refuses)])
    assert alone.for_sender(session) is None


def test_a_second_of_its_expiry_was_lost_at_once():
    """[MQTT-3.3.2-6]: 60 s became 59 s on the way to the disk; whole seconds of waiting are what is taken off."""
    session, outlet = Session("c", 5, Tally()), Outlet(V5)
    session.attach(outlet, window=5, max_packet_bytes=None)
    for waited_s, left_s in ((0.003, 60), (0.999, 60), (1.0, 59), (59.5, 1)):
        session.deliver(Message("t", b"", 0, retain=False, expires_s=60.0), 0, (), waited_s, retain=False)
        assert outlet.sent[-1].endswith(b"\x02" + left_s.to_bytes(4, "big"))


@pytest.mark.parametrize("first", [0x40, 0x50, 0x62, 0x70])
async def test_reasons_without_a_meaning_were_taken_for_good_ones(bench, first):
    """[MQTT-3.4.2-1, 3.5.2-1, 3.6.2-1, 3.7.2-1]: 0x05 is no reason of an acknowledgement."""
    client = await bench.client("c", v5=True)
    client.send(packet(first, b"\0\1\5"))
    assert (await client.closed())[2] == 0x82


async def test_a_connect_of_5_0_that_cannot_be_read_was_closed_without_a_word(bench):
    """[MQTT-3.1.4-1]: CONNACK has reasons for it (0x81, 0x82), and whoever writes a client is glad to be told."""
    stranger = await bench.socket()
    stranger.send(packet(0x10, text("MQTT") + b"\5\3\0\x3c\0" + text("c")))
    assert await stranger.closed() == b"\x20\3\0\x81\0"

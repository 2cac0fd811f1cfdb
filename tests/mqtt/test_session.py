"""Delivery to one client: window, queue, packet ids, resending. No socket, no clock."""

import pytest

from gateway.mqtt.exchange import Exchange, Limits
from gateway.mqtt.packets import V5, V311, Subscription, Will
from gateway.mqtt.passing import message_of
from gateway.mqtt.properties import Property
from gateway.mqtt.session import Message, Session, Tally


class Outlet:
    """Keeps what is put into it."""

    def __init__(self, version=V311):
        self.version = version
        self.is_writable = True
        self.sent = []
        self.cut_for = None

    def put(self, data):
        self.sent.append(data)

    def cut(self, reason):
        self.cut_for = reason
        self.on_cut()

    def on_cut(self):
        pass

    @property
    def mids(self):
        """Packet ids of what was sent at QoS 1 on the topic `t`."""
        return [int.from_bytes(one[5:7], "big") for one in self.sent]


def a_session(*, window=3, max_queued=5, version=V311, max_packet_bytes=None):
    session, outlet = Session("dev", max_queued, Tally()), Outlet(version)
    session.attach(outlet, window=window, max_packet_bytes=max_packet_bytes)
    return session, outlet


def send(session, *payloads, qos=1, now_s=0.0, **fields):
    return [
        session.deliver(Message("t", payload, qos, retain=False, **fields), qos, (), now_s, retain=False)
        for payload in payloads
    ]


def test_only_a_window_is_in_flight_and_each_puback_lets_one_more_out():
    """Receive Maximum is the client's word [MQTT-3.3.4-9]."""
    session, outlet = a_session(window=3)
    send(session, *(b"%d" % number for number in range(6)))
    assert outlet.mids == [1, 2, 3]
    session.acknowledge(2, 0.0)
    assert outlet.mids == [1, 2, 3, 4]
    session.acknowledge(1, 0.0)
    session.acknowledge(3, 0.0)
    assert [one[-1:] for one in outlet.sent] == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_a_full_queue_keeps_the_oldest_and_counts_the_rest():
    """What is lost is known."""
    session, outlet = a_session(window=1, max_queued=2)
    assert send(session, b"a", b"b", b"c", b"d", b"e") == [True, True, True, False, False]
    assert session.tally.dropped == {"queue_full": 2}
    for mid in (1, 2, 3):
        session.acknowledge(mid, 0.0)
    assert [one[-1:] for one in outlet.sent] == [b"a", b"b", b"c"]


def test_a_reconnect_sends_what_was_in_flight_first_with_dup_and_its_old_ids():
    """[MQTT-4.4.0-1, 4.6.0-1]: same packet ids, same order, then the queue."""
    session, first = a_session(window=3)
    send(session, b"a", b"b", b"c", b"d")
    session.acknowledge(2, 0.0)  # d goes out with packet id 4
    session.outlet = None
    send(session, b"e")
    second = Outlet()
    session.attach(second, window=2, max_packet_bytes=None)
    session.pump(0.0)
    assert second.mids == [1, 3], "the new connection's window holds for what is sent again, too"
    assert all(one[0] == 0x3A for one in second.sent)
    session.acknowledge(3, 0.0)
    session.acknowledge(1, 0.0)
    assert second.mids == [1, 3, 4, 5]
    assert [one[0] for one in second.sent[2:]] == [0x3A, 0x32]
    assert first.mids == [1, 2, 3, 4]


def test_an_unknown_puback_changes_nothing():
    """Late, double or invented: it names nothing that is in flight."""
    session, outlet = a_session(window=1)
    send(session, b"a", b"b")
    session.acknowledge(9, 0.0)
    session.acknowledge(1, 0.0)
    session.acknowledge(1, 0.0)
    assert outlet.mids == [1, 2]
    assert list(session.in_flight) == [2]


def test_packet_ids_wrap_around_and_never_name_two_messages():
    """[MQTT-2.2.1-4]: 65,535 is followed by 1, and one that is in flight is passed over."""
    session, outlet = a_session(window=3)
    send(session, b"held")  # packet id 1 stays in flight
    for expected in (*range(2, 65_536), 2, 3):
        send(session, b"x")
        assert outlet.mids[-1] == expected
        session.acknowledge(expected, 0.0)
        outlet.sent.clear()


def test_a_slow_client_loses_qos_0_and_keeps_qos_1():
    """Beyond the high-water mark, what may be lost is dropped and counted; the rest waits."""
    session, outlet = a_session()
    outlet.is_writable = False
    assert send(session, b"a", qos=0) == [False]
    assert send(session, b"b", qos=1) == [True]
    assert session.tally.dropped == {"slow": 1}
    assert not outlet.sent
    outlet.is_writable = True
    session.pump(0.0)
    assert outlet.mids == [1]


def test_order_is_kept_while_the_queue_is_not_empty():
    """A message must not overtake those that wait."""
    session, outlet = a_session(window=2)
    outlet.is_writable = False
    send(session, b"a", b"b")
    outlet.is_writable = True
    send(session, b"c")
    session.pump(0.0)
    session.acknowledge(1, 0.0)
    assert [one[-1:] for one in outlet.sent] == [b"a", b"b", b"c"]


def test_nothing_larger_than_the_client_takes_is_sent():
    """[MQTT-3.1.2-24, -25]: it is dropped as if it had been delivered, and counted."""
    session, outlet = a_session(version=V5, max_packet_bytes=20)
    assert send(session, bytes(30)) == [False]
    assert send(session, b"ok") == [True]
    assert session.tally.dropped == {"too_large": 1}
    assert len(session.in_flight) == 1
    assert len(outlet.sent) == 1


def test_what_was_under_way_and_is_too_large_now_makes_room_for_the_next():
    """[MQTT-3.1.2-24, -25]: a client may come back with a smaller Maximum Packet Size."""
    session, _ = a_session(window=1, version=V5)
    send(session, bytes(100), b"ok")
    session.outlet = None
    outlet = Outlet(V5)
    session.attach(outlet, window=1, max_packet_bytes=50)
    session.pump(0.0)
    assert [packet[-2:] for packet in outlet.sent] == [b"ok"]
    assert (list(session.in_flight), session.tally.dropped) == ([2], {"too_large": 1})


def test_a_message_that_expires_in_the_queue_is_not_sent():
    """[MQTT-3.3.2-5], and what is sent says how much is left [MQTT-3.3.2-6]."""
    session, outlet = a_session(window=1, version=V5)
    send(session, b"a", now_s=100.0)
    send(session, b"b", now_s=100.0, expires_s=105.0)
    send(session, b"c", now_s=100.0, expires_s=160.0)
    session.acknowledge(1, 110.0)
    assert session.tally.dropped == {"expired": 1}
    assert outlet.sent[-1].endswith(b"\x05\x02" + (50).to_bytes(4, "big") + b"c")


def test_a_topic_is_said_once_and_then_by_its_number():
    """[MQTT-3.3.2-7 to -12]: as many as the client takes, on this connection alone, and none for short topics."""
    session, outlet = Session("dev", 5, Tally()), Outlet(V5)
    session.attach(outlet, window=9, max_packet_bytes=30, max_aliases=2)

    def say(topic, payload=b"x"):
        session.deliver(Message(topic, payload, 0, retain=False), 0, (), 0.0, retain=False)
        return outlet.sent[-1] if outlet.sent else b""

    say("first/topic", bytes(30))
    assert outlet.sent == [], "what was never sent has taught nothing"
    assert say("first/topic") == b"\x30\x12\x00\x0bfirst/topic\x03\x23\x00\x01x"
    assert say("first/topic") == b"\x30\x07\x00\x00\x03\x23\x00\x01x"
    assert say("a/b") == b"\x30\x07\x00\x03a/b\x00x"
    assert say("second/one") == b"\x30\x11\x00\x0asecond/one\x03\x23\x00\x02x"
    assert say("third/one") == b"\x30\x0d\x00\x09third/one\x00x"
    assert say("second/one") == b"\x30\x07\x00\x00\x03\x23\x00\x02x"
    again = Outlet(V5)
    session.attach(again, window=9, max_packet_bytes=None, max_aliases=1)
    session.deliver(Message("second/one", b"x", 0, retain=False), 0, (), 0.0, retain=False)
    assert again.sent == [b"\x30\x11\x00\x0asecond/one\x03\x23\x00\x01x"]


# Sessions among each other.


def an_exchange(**limits):
    return Exchange(Limits(**limits))


def join(exchange, client_id, *, clean=True, expiry_s=0.0, will=None, version=V311, now_s=0.0):
    outlet = Outlet(version)
    session, present = exchange.attach(client_id, outlet, clean=clean, expiry_s=expiry_s, will=will)
    outlet.on_cut = lambda: exchange.detach(session, outlet, now_s, with_will=True)
    return session, outlet, present


def test_a_second_connection_cuts_the_first_and_takes_its_session():
    """[MQTT-3.1.4-3]: one connection per client id."""
    exchange = an_exchange()
    one, first, _ = join(exchange, "dev", expiry_s=60)
    exchange.subscribe(one, "t", Subscription(1))
    two, second, present = join(exchange, "dev", clean=False, expiry_s=60)
    assert (first.cut_for, present, two) == (0x8E, True, one)
    exchange.publish(Message("t", b"x", 1, retain=False), 0.0)
    assert second.mids == [1]
    assert not first.sent
    exchange.detach(one, first, 0.0, with_will=True)  # what the first does late means nothing
    assert one.outlet is second


def test_a_clean_start_forgets_and_an_expired_session_is_gone():
    """Memory of closed clients is freed: sessions, subscriptions, routes."""
    exchange = an_exchange()
    session, outlet, _ = join(exchange, "dev", clean=False, expiry_s=60)
    exchange.subscribe(session, "t/#", Subscription(1))
    exchange.detach(session, outlet, 100.0, with_will=False)
    exchange.tick(159.0)
    assert exchange.sessions
    exchange.tick(160.0)
    assert not exchange.sessions
    assert not exchange.subscriptions
    assert exchange.publish(Message("t/x", b"", 1, retain=False), 0.0) == 0
    session, outlet, _ = join(exchange, "dev", clean=False, expiry_s=60)
    exchange.subscribe(session, "t/#", Subscription(1))
    _, _, present = join(exchange, "dev", clean=True)
    assert not present
    assert not exchange.subscriptions


def test_overlapping_subscriptions_deliver_once_with_the_best_qos_and_all_identifiers():
    """[MQTT-3.3.4-2, -3]."""
    exchange = an_exchange()
    session, outlet, _ = join(exchange, "dev", version=V5)
    exchange.subscribe(session, "a/+", Subscription(0, identifier=3))
    exchange.subscribe(session, "a/#", Subscription(1, identifier=4))
    exchange.publish(Message("a/b", b"x", 1, retain=False), 0.0)
    (sent,) = outlet.sent
    assert sent[:10] == b"\x32\x0d\x00\x03a/b\x00\x01\x04"
    assert {sent[10:12], sent[12:14]} == {b"\x0b\x03", b"\x0b\x04"}, "in any order"


def test_subscribing_is_answered_with_reasons():
    """Each filter gets what it asks for; what is impossible is refused filter by filter."""
    exchange = an_exchange(subscriptions=2)
    session, _, _ = join(exchange, "dev")
    answers = [
        exchange.subscribe(session, one, Subscription(2))[0] for one in ("a", "a/#/b", "$share/+/a", "b", "c", "a")
    ]
    assert answers == [2, 0x8F, 0x8F, 2, 0x97, 2]
    assert exchange.unsubscribe(session, "a") == 0
    assert exchange.unsubscribe(session, "a") == 0x11


def test_retained_messages_are_replaced_cleared_bounded_and_expire():
    """One per topic; an empty payload removes it; what finds no room is counted."""
    exchange = an_exchange(retained=2)
    for topic, payload in (("a", b"1"), ("a", b"2"), ("b", b"3"), ("c", b"4"), ("b", b"")):
        exchange.retain(Message(topic, payload, 1, retain=True))
    assert exchange.retained == 1
    assert exchange.tally.dropped == {"retained_full": 1}
    exchange.retain(Message("b", b"5", 1, retain=True, expires_s=50.0))
    session, outlet, _ = join(exchange, "dev")
    exchange.subscribe(session, "#", Subscription(0))
    exchange.send_retained(session, "#", session.subscriptions["#"], 60.0)
    assert outlet.sent == [b"\x31\x04\x00\x01a2"]
    assert exchange.retained == 1


@pytest.mark.parametrize(
    ("retain_handling", "times", "expected"),
    [(0, 1, True), (0, 2, True), (1, 1, True), (1, 2, False), (2, 1, False)],
)
def test_retain_handling_decides_who_gets_retained_messages(retain_handling, times, expected):
    """[MQTT-3.3.1-9, -10, -11]."""
    exchange = an_exchange()
    session, _, _ = join(exchange, "dev")
    for _ in range(times):
        _, wants = exchange.subscribe(session, "a", Subscription(1, retain_handling=retain_handling))
    assert wants is expected


WILL = Will("gone", b"dev", 1, retain=False, properties={}, delay_s=10)


def test_a_will_waits_for_its_delay_and_is_withdrawn_by_a_return():
    """[MQTT-3.1.3-9]: a short absence is nobody's business."""
    exchange = an_exchange()
    session, outlet, _ = join(exchange, "dev", clean=False, expiry_s=60, will=WILL)
    exchange.detach(session, outlet, 100.0, with_will=True)
    exchange.tick(109.0)
    assert not exchange.take_wills()
    join(exchange, "dev", clean=False, expiry_s=60, will=None)
    exchange.tick(200.0)
    assert not exchange.take_wills()


def test_a_will_is_published_after_its_delay_or_when_the_session_ends():
    """[MQTT-3.1.2-8]: whichever comes first, and once."""
    for expiry_s, clean_return, now_s in ((60, False, 110.0), (5, False, 105.0), (0, False, 100.0), (60, True, 101.0)):
        exchange = an_exchange()
        session, outlet, _ = join(exchange, "dev", clean=False, expiry_s=expiry_s, will=WILL)
        exchange.detach(session, outlet, 100.0, with_will=True)
        if clean_return:
            join(exchange, "dev", clean=True)
        exchange.tick(now_s)
        exchange.tick(now_s + 1)
        assert exchange.take_wills() == [WILL]
        assert not exchange.take_wills()


def test_only_what_concerns_subscribers_is_passed_on():
    """An alias belongs to the sender's connection; expiry is kept as a moment."""
    properties = {Property.TOPIC_ALIAS: 3, Property.MESSAGE_EXPIRY: 7, Property.USER: [("a", "b")]}
    message = message_of("t", b"", 1, properties, 100.0, retain=False)
    assert message.properties == {Property.USER: [("a", "b")]}
    assert message.expires_s == 107.0

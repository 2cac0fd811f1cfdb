"""QoS 2, both ways: exactly once between a client and the gateway, as long as its session lives."""

from __future__ import annotations

import asyncio
import random

import paho.mqtt.client as paho
import pytest

from gateway.mqtt.packets import V5, V311
from gateway.mqtt.session import Message, Session, Tally
from tests.mqtt.test_session import Outlet

HOUR = b"\x11\x00\x00\x0e\x10"
"""Session Expiry Interval."""


def _session(*, window=10, version=V311):
    session, outlet = Session("dev", 100, Tally()), Outlet(version)
    session.attach(outlet, window=window, max_packet_bytes=None)
    return session, outlet


def _again(session, version=V311):
    session.outlet = None
    outlet = Outlet(version)
    session.attach(outlet, window=10, max_packet_bytes=None)
    session.pump(0.0)
    return outlet


def _send(session, *payloads, qos=2):
    for payload in payloads:
        session.deliver(Message("t", payload, qos, retain=False), qos, (), 0.0, retain=False)


def _pubrel(mid):
    return b"\x62\x02" + mid.to_bytes(2, "big")


def test_a_message_goes_through_its_four_steps():
    """[MQTT-4.3.3-1 to -6]: PUBLISH, PUBREC, PUBREL, PUBCOMP; the packet id is in use until the last."""
    session, outlet = _session(window=1)
    _send(session, b"a", b"b")
    assert outlet.sent == [b"\x34\x06\x00\x01t\x00\x01a"]
    session.receive(1, 0, 0.0)
    assert outlet.sent[1:] == [_pubrel(1)]
    session.complete(1, 0.0)
    assert outlet.sent[2:] == [b"\x34\x06\x00\x01t\x00\x02b"]


def test_a_message_that_the_client_has_is_never_sent_again():
    """[MQTT-4.3.3-6, 4.4.0-1, 4.6.0-4]: after a reconnect its PUBREL is; what it has not confirmed has DUP."""
    session, _ = _session()
    _send(session, b"a", b"b", b"c")
    session.receive(3, 0, 0.0)
    session.receive(1, 0, 0.0)
    outlet = _again(session)
    assert outlet.sent == [b"\x3c\x06\x00\x01t\x00\x02b", _pubrel(3), _pubrel(1)], "PUBRELs as the PUBRECs came"


@pytest.mark.parametrize(("version", "answer"), [(V311, b"\x62\x02\x00\x07"), (V5, b"\x62\x03\x00\x07\x92")])
def test_a_pubrec_for_nothing_is_released_all_the_same(version, answer):
    """A client that we have forgotten must be able to forget, too."""
    session, outlet = _session(version=version)
    session.receive(7, 0, 0.0)
    assert outlet.sent == [answer]
    assert not session.in_flight


def test_a_message_that_the_client_refuses_is_done():
    """A PUBREC of 0x80 and above ends it; no PUBREL follows [MQTT-4.3.3-4]."""
    session, outlet = _session(window=1, version=V5)
    _send(session, b"a", b"b")
    session.receive(1, 0x97, 0.0)
    assert [packet[0] for packet in outlet.sent] == [0x34, 0x34]
    assert list(session.in_flight) == [2]


def test_an_answer_that_does_not_fit_changes_nothing():
    """A PUBACK for QoS 2, a PUBREC for QoS 1, a PUBCOMP before its PUBREC."""
    session, outlet = _session()
    _send(session, b"a")
    _send(session, b"b", qos=1)
    session.acknowledge(1, 0.0)
    session.receive(2, 0, 0.0)
    session.complete(1, 0.0)
    session.complete(9, 0.0)
    assert list(session.in_flight) == [1, 2]
    assert len(outlet.sent) == 2


def test_a_pubrec_that_comes_twice_is_answered_twice():
    """The PUBREL may have been lost with a connection."""
    session, outlet = _session()
    _send(session, b"a")
    session.receive(1, 0, 0.0)
    session.receive(1, 0, 0.0)
    assert outlet.sent[1:] == [_pubrel(1)] * 2
    session.complete(1, 0.0)
    assert not session.in_flight


def test_a_client_that_follows_the_rules_gets_each_message_once(seed):
    """Random losses of connections at any step, in both directions of the handshake: once, and in order."""
    rng = random.Random(seed)
    for _ in range(300):
        session, outlet = _session(window=4)
        have: list[bytes] = []
        held: set[int] = set()
        number = 0
        todo: list[bytes] = []
        for _ in range(120):
            if rng.random() < 0.3 and number < 30:
                _send(session, b"%d" % number)
                number += 1
            if rng.random() < 0.05:
                outlet = _again(session)
                todo = []
            todo += outlet.sent
            outlet.sent.clear()
            if todo and rng.random() < 0.7:
                _as_a_client_answers(todo.pop(0), session, have, held, is_lost=rng.random() < 0.1)
        for _ in range(200):
            outlet = _again(session)
            for packet in outlet.sent:
                _as_a_client_answers(packet, session, have, held, is_lost=False)
        assert not session.in_flight, seed
        assert have == [b"%d" % each for each in range(number)], seed


def _as_a_client_answers(packet, session, have, held, *, is_lost):
    """Method A of 4.3.3: the message counts when its PUBLISH comes, unless its packet id is held."""
    if packet[0] & 0xF0 == 0x30:
        mid = int.from_bytes(packet[5:7], "big")
        if mid not in held:
            held.add(mid)
            have.append(packet[7:])
        if not is_lost:
            session.receive(mid, 0, 0.0)
        return
    mid = int.from_bytes(packet[2:4], "big")
    held.discard(mid)
    if not is_lost:
        session.complete(mid, 0.0)


@pytest.mark.parametrize("v5", [False, True])
async def test_a_message_is_stored_once_and_answered_once_it_is_on_disk(slow_bench, wire, v5):
    """[MQTT-4.3.3-8, -10]: PUBREC after the sync (L1); a repetition is recognised until PUBREL."""
    device = await slow_bench.client("dev", clean=False, v5=v5, properties=HOUR if v5 else b"")
    device.send(wire.publish("a", b"x", qos=2, mid=9, v5=v5))
    await slow_bench.desk.wait_for(1)
    await device.silence()
    slow_bench.desk.arrivals[0].settle()
    assert await device.packet() == (0x50, b"\0\t")
    device = await slow_bench.client("dev", clean=False, v5=v5, properties=HOUR if v5 else b"")
    device.send(wire.publish("a", b"x", qos=2, mid=9, v5=v5, dup=True))
    assert await device.packet() == (0x50, b"\0\t"), "recognised: answered, not stored again"
    device.send(b"\x62\x02\0\t")
    assert await device.packet() == (0x70, b"\0\t")
    assert len(slow_bench.desk.messages) == 1
    device.send(wire.publish("a", b"y", qos=2, mid=9, v5=v5))
    await slow_bench.desk.wait_for(2)


@pytest.mark.parametrize("v5", [False, True])
async def test_a_subscriber_at_qos_2_gets_it_by_the_whole_handshake(bench, wire, v5):
    """Granted 2, delivered at 2, the packet id free after PUBCOMP."""
    reader = await bench.client("reader", v5=v5)
    assert await reader.subscribe("t", options=2) == b"\x02"
    writer = await bench.client("writer", v5=v5)
    writer.send(wire.publish("t", b"x", qos=2, mid=5, v5=v5))
    got = await reader.message()
    assert (got.payload, got.qos, got.dup, got.mid) == (b"x", 2, False, 1)
    reader.send(b"\x50\x02\x00\x01")
    assert await reader.packet() == (0x62, b"\x00\x01")
    reader.send(b"\x70\x02\x00\x01")
    await reader.silence()
    (info,) = [each for each in bench.listener.clients() if each.client_id == "reader"]
    assert info.in_flight == 0


async def test_a_will_at_qos_2_is_published_at_2(bench, wire, eventually):
    """[MQTT-3.1.2-12]: its QoS is the client's to choose."""
    reader = await bench.client("reader")
    await reader.subscribe("gone", options=2)
    dying = await bench.client("dying", will=("gone", b"dev"), will_flags=0x10)
    dying.writer.transport.abort()
    got = await reader.message()
    assert (got.topic, got.qos) == ("gone", 2)


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
async def test_paho_sends_and_receives_at_qos_2(bench, version):
    """A client that was written by others, both ways, in order."""
    loop = asyncio.get_running_loop()
    got: list[bytes] = []
    done, ready = asyncio.Event(), asyncio.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "p", protocol=version)

    def on_message(_client, _data, message):
        got.append((message.payload, message.qos))
        if len(got) == 200:
            loop.call_soon_threadsafe(done.set)

    client.on_connect = lambda client, *_: client.subscribe("t/#", 2)
    client.on_subscribe = lambda *_: loop.call_soon_threadsafe(ready.set)
    client.on_message = on_message
    client.connect_async("127.0.0.1", bench.listener.port)
    client.loop_start()
    try:
        await asyncio.wait_for(ready.wait(), 10)
        for number in range(200):
            client.publish("t/x", b"%d" % number, qos=2)
        await asyncio.wait_for(done.wait(), 20)
    finally:
        client.disconnect()
        client.loop_stop()
    assert got == [(b"%d" % number, 2) for number in range(200)]
    assert [flags for _, _, flags in bench.desk.messages] == [2] * 200

"""Sessions, subscriptions, retained messages and messages under way outlive a gateway that is killed."""

from __future__ import annotations

import asyncio

import pytest

from tests.app.lives import Lives
from tests.mqtt.conftest import RawClient, connect, publish
from tests.scenarios.site import until

PUBREC, PUBREL, PUBCOMP = 0x50, 0x62, 0x70


@pytest.fixture
async def life(tmp_path, clock):
    """One data directory; its gateways die without farewell."""
    lives = Lives(tmp_path, clock)
    lives.sockets = []
    yield lives
    for client in lives.sockets:
        await client.close()
    await lives.close()


async def _client(life, client_id="reader", *, clean=False, will=None):
    """A client that speaks plain bytes; whether its session was there before is in `is_present`."""
    client = RawClient(*await asyncio.open_connection("127.0.0.1", life.gateway.listener.port))
    life.sockets.append(client)
    client.send(connect(client_id, clean=clean, keepalive=0, will=will))
    first, body = await client.packet()
    assert (first, body[1]) == (0x20, 0)
    client.is_present = bool(body[0])
    return client


async def _killed(life):
    """A kill, and a new life on what is on disk."""
    await life.drop()
    await life.begin()


async def _say(life, client, topic, payload, *, qos=1, mid=1, retain=False):
    """Publish, and wait for the answer."""
    client.send(publish(topic, payload, qos=qos, mid=mid, retain=retain))
    assert await client.packet() == ({1: 0x40, 2: PUBREC}[qos], mid.to_bytes(2, "big"))


async def test_a_confirmed_subscription_outlives_a_kill(life):
    """SUBACK says that it is on disk. *Session present* says the truth afterwards."""
    await life.begin()
    reader = await _client(life)
    assert not reader.is_present
    assert await reader.subscribe("devices/+/door", "news", options=1) == b"\1\1"
    await _killed(life)
    reader = await _client(life)
    assert reader.is_present
    writer = await _client(life, "writer", clean=True)
    await _say(life, writer, "devices/a/door", b"{}")
    await _say(life, writer, "news", b"only routed", mid=2)
    got = [await reader.message(), await reader.message()]
    assert [(each.topic, each.qos) for each in got] == [("devices/a/door", 1), ("news", 1)]


@pytest.mark.parametrize("topic", ["devices/a/door", "news"])
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_was_acknowledged_reaches_a_subscriber_that_was_away(life, topic, qos):
    """Whether the event is stored or only routed: its PUBACK means that no kill keeps it from its subscribers."""
    await life.begin()
    reader = await _client(life)
    await reader.subscribe(topic, options=qos)
    await reader.close()
    writer = await _client(life, "writer", clean=True)
    await until(lambda: life.gateway.listener.stats.connections == 1, "the reader has gone")
    for mid in (1, 2, 3):
        await _say(life, writer, topic, b"%d" % mid, qos=qos, mid=mid)
    await _killed(life)
    await _killed(life)
    reader = await _client(life)
    got = [await reader.message() for _ in range(3)]
    assert [(each.payload, each.qos, each.dup) for each in got] == [
        (b"1", qos, False),
        (b"2", qos, False),
        (b"3", qos, False),
    ]


async def test_a_message_under_way_comes_again_with_its_packet_id(life):
    """[MQTT-4.4.0-1] across a kill: what was not confirmed is sent again, with DUP; what was confirmed is not."""
    await life.begin()
    reader = await _client(life)
    await reader.subscribe("t", options=2)
    writer = await _client(life, "writer", clean=True)
    for mid in (1, 2):
        await _say(life, writer, "t", b"%d" % mid, qos=2, mid=mid)
    one, two = await reader.message(), await reader.message()
    reader.send(b"\x50\x02" + one.mid.to_bytes(2, "big"))
    assert await reader.packet() == (PUBREL, one.mid.to_bytes(2, "big"))
    await _killed(life)
    reader = await _client(life)
    again = await reader.message()
    assert (again.payload, again.mid, again.dup) == (b"2", two.mid, True)
    assert await reader.packet() == (PUBREL, one.mid.to_bytes(2, "big")), "it has this one: only the id is open"
    reader.send(b"\x70\x02" + one.mid.to_bytes(2, "big"), b"\x50\x02" + two.mid.to_bytes(2, "big"))
    assert await reader.packet() == (PUBREL, two.mid.to_bytes(2, "big"))
    reader.send(b"\x70\x02" + two.mid.to_bytes(2, "big"))
    await reader.silence()
    await life.gateway.clients.save()
    await _killed(life)
    reader = await _client(life)
    await reader.silence()


async def test_a_qos_2_message_is_stored_once_across_a_kill(life):
    """The packet id is recognised by the next life until its PUBREL, and means another message after its PUBCOMP."""
    await life.begin()
    device = await _client(life, "device")
    await _say(life, device, "devices/a/meter", b"1", qos=2, mid=7)
    await _killed(life)
    device = await _client(life, "device")
    device.send(publish("devices/a/meter", b"1", qos=2, mid=7, dup=True))
    assert await device.packet() == (PUBREC, b"\0\7")
    device.send(b"\x62\x02\0\7")
    assert await device.packet() == (PUBCOMP, b"\0\7")
    await _killed(life)
    device = await _client(life, "device")
    await _say(life, device, "devices/a/meter", b"2", qos=2, mid=7)
    assert life.gateway.store.events.appended.ordinal == 2


async def test_retained_messages_outlive_a_kill_and_the_gateways_own_do_not(life):
    """A device's last word stays; what the gateway wants of an actuator it says anew when it starts."""
    await life.begin()
    writer = await _client(life, "writer", clean=True)
    await _say(life, writer, "devices/a/state", b"kept", retain=True)
    await _say(life, writer, "devices/b/state", b"gone", mid=2, retain=True)
    await _say(life, writer, "devices/b/state", b"", mid=3, retain=True)
    life.gateway.listener.publish("devices/a/heater/set", b"ON", retain=True)
    await _killed(life)
    reader = await _client(life, "reader", clean=True)
    await reader.subscribe("devices/#", options=0)
    got = await reader.message()
    assert (got.topic, got.payload, got.retain) == ("devices/a/state", b"kept", True)
    await reader.silence()


async def test_a_session_that_was_ended_does_not_come_back(life):
    """A clean start forgets for good."""
    await life.begin()
    reader = await _client(life)
    await reader.subscribe("t")
    await reader.close()
    await until(lambda: not life.gateway.listener.stats.connections, "it has gone")
    reader = await _client(life, clean=True)
    await reader.close()
    await until(lambda: not life.gateway.listener.stats.sessions, "it has ended")
    await life.gateway.clients.save()
    await _killed(life)
    reader = await _client(life)
    assert not reader.is_present


async def test_a_start_after_an_orderly_stop_finds_the_same(life):
    """`drain` leaves what a kill leaves; nobody's last will is published for it, and none is forgotten."""
    await life.begin()
    reader = await _client(life, will=("gone", b"reader"))
    await reader.subscribe("t")
    assert await life.gateway.drain()
    life.gateway = None
    await life.begin()
    assert [each.client_id for each in life.gateway.listener.clients()] == ["reader"]
    assert not life.gateway.listener.exchange.take_wills()
    assert life.gateway.listener.exchange.sessions["reader"].will.topic == "gone"
    reader = await _client(life)
    assert reader.is_present


async def test_much_that_is_kept_makes_a_snapshot_and_goes_on(life, monkeypatch):
    """The log of entries never holds the only copy of what it may evict."""
    monkeypatch.setattr("gateway.app.clients._SNAPSHOT_AFTER_BYTES", 20_000)
    monkeypatch.setattr("gateway.app.clients._MOST_UNSAVED_BYTES", 60_000)
    await life.begin()
    reader = await _client(life)
    await reader.subscribe("t")
    await reader.close()
    writer = await _client(life, "writer", clean=True)
    await until(lambda: life.gateway.listener.stats.connections == 1, "the reader has gone")
    writer.send(*(publish("t", bytes(1_000), qos=1, mid=mid) for mid in range(1, 301)))
    for mid in range(1, 301):
        assert await writer.packet() == (0x40, mid.to_bytes(2, "big"))
    assert life.gateway.store.load_clients() is not None
    await _killed(life)
    reader = await _client(life)
    assert [(await reader.message()).mid for _ in range(300)] == list(range(1, 301))

"""The MQTT sink against mosquitto, and against brokers that are not what they seem."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import struct

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from gateway.config.settings import Credentials, MqttSinkSettings, RetrySettings, TopicSettings
from gateway.forward.parcel import Parcel
from gateway.forward.runner import Runner
from gateway.forward.sinks import build
from gateway.forward.verdict import Delivered, NeedsOperator, Refused, Retry
from gateway.model import Gap, Position
from tests.forward.conftest import ORIGIN, balance, batch_of, free_port, until

TOPICS = (TopicSettings(topic="devices/{device}/{type}"),)


def parcel_of(count, topic="devices/7/climate", first=0, size=0) -> Parcel:
    batch = batch_of([b'{"n":%d}' % n + b" " * size for n in range(first, first + count)], topic=topic)
    batch.origin, batch.seq, batch.ordinal = ORIGIN, first, first
    return Parcel([batch], Position(batch.end, batch.end_ordinal))


def settings_for(port, **settings) -> MqttSinkSettings:
    settings.setdefault("timeout_s", 10.0)
    return MqttSinkSettings(name="cloud", host="127.0.0.1", port=port, **settings)


@pytest.fixture
async def sink_to():
    sinks = []

    async def make(port, **settings):
        sink = build(settings_for(port, **settings), "gw", TOPICS)
        await sink.open()
        sinks.append(sink)
        return sink

    yield make
    for sink in sinks:
        await sink.close()


class Listener:
    """Subscribes to everything and keeps what comes, in order."""

    def __init__(self, port: int) -> None:
        self.messages = []
        self._subscribed = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="listener", protocol=MQTTProtocolVersion.MQTTv5)
        self.client.reconnect_delay_set(0.05, 0.1)
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: loop.call_soon_threadsafe(self._subscribed.set)
        self.client.on_message = lambda _client, _data, message: self.messages.append(message)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    async def ready(self) -> None:
        """Wait for the subscription; the next call waits for the next one."""
        await asyncio.wait_for(self._subscribed.wait(), 20)
        self._subscribed.clear()


@pytest.fixture
async def listener(mosquitto):
    made = Listener(mosquitto.port)
    await made.ready()
    yield made
    made.client.disconnect()
    made.client.loop_stop()


async def test_a_parcel_arrives_in_order_with_ids(mosquitto, listener, sink_to):
    """Topic template, original payload, id and time as user properties."""
    sink = await sink_to(mosquitto.port, topic="sites/{gateway}/{device}/{topic}")
    assert await sink.send(parcel_of(500)) == Delivered(500)
    await until(lambda: len(listener.messages) == 500)
    assert [message.payload for message in listener.messages] == [b'{"n":%d}' % n for n in range(500)]
    first = listener.messages[0]
    assert (first.topic, first.qos, first.retain) == ("sites/gw/7/devices/7/climate", 1, False)
    assert dict(first.properties.UserProperty) == {
        "id": "gw/0123456789abcdef/1/0",
        "time": "2023-11-14T22:13:20.123456789Z",
    }
    assert await sink.announce(Gap(1, 4, 3, "evicted"), 5) == Delivered(1)
    await until(lambda: len(listener.messages) == 501)
    gap = listener.messages[-1]
    assert gap.topic == "sites/gw/_/_gateway/gap"
    assert json.loads(gap.payload) == {"from": 1, "to": 4, "count": 3, "reason": "evicted"}


async def test_topics_that_mqtt_cannot_carry_are_refused_one_by_one(mosquitto, listener, sink_to):
    """A wildcard in a topic would make the broker close the connection, for ever."""
    sink = await sink_to(mosquitto.port, topic="{topic}")
    topics = ["a", "b/#", "c+", "$SYS/x", "d\0", "x" * 70_000, "e"]
    verdict = await sink.send(parcel_of(7, topics))
    assert verdict.count == 7
    assert [(refusal.index, refusal.code) for refusal in verdict.refused] == [(n, "topic") for n in range(1, 6)]
    await until(lambda: len(listener.messages) == 2)
    assert [message.topic for message in listener.messages] == ["a", "e"]


class Relay:
    """Passes bytes between the sink and the broker; can be cut and opened again."""

    def __init__(self, port: int) -> None:
        self._target, self.port = port, free_port()
        self._server = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def cut(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        try:
            upstream, sender = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, sender}
        await asyncio.gather(self._pass(reader, sender), self._pass(upstream, writer))
        self._writers -= {writer, sender}

    async def _pass(self, reader, writer):
        try:
            while data := await reader.read(4_096):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def relay(mosquitto):
    made = Relay(mosquitto.port)
    await made.open()
    yield made
    await made.cut()


def runner_over(store, clock, relay, total) -> Runner:
    for start in range(0, total, 100):
        store.events.append(batch_of([b'{"n":%d}' % n for n in range(start, start + 100)]))
    settings = settings_for(relay.port, retry=RetrySettings(base_s=0.02, max_s=0.2))
    return Runner(settings, build(settings, "gw", TOPICS), store, clock=clock, rng=random.Random(1))


def arrived(listener) -> tuple[list[int], int]:
    """First arrivals in their order, and how many came again."""
    numbers = [json.loads(message.payload)["n"] for message in listener.messages]
    firsts = list(dict.fromkeys(numbers))
    return firsts, len(numbers) - len(firsts)


async def test_disconnects_in_mid_stream_lose_nothing_and_keep_the_order(listener, relay, store, clock):
    """L3 and L4: five cuts, 0 lost, 0 out of order, at most one send in flight repeated per cut."""
    total = 9_000
    runner = runner_over(store, clock, relay, total)
    task = asyncio.create_task(runner.run())
    for cut in range(1, 6):
        await until(lambda cut=cut: runner.status().delivered > cut * 1_400)
        await relay.cut()
        await until(lambda: not runner.up)
        balance(runner)
        await relay.open()
    await until(lambda: runner.pending == 0)
    balance(runner)
    await runner.drain(5)
    await task
    await until(lambda: listener.messages[-1].payload == b'{"n":%d}' % (total - 1))
    firsts, repeated = arrived(listener)
    print(f"{repeated} repeated in 5 cuts")
    assert firsts == list(range(total))
    assert repeated <= 5 * 500


async def test_a_broker_killed_in_mid_stream_costs_nothing_that_it_had_not_acknowledged(
    mosquitto, listener, relay, store, clock
):
    """L3 and L4: kill -9 of the broker. What it had acknowledged it may forget; everything else arrives, in order."""
    total = 6_000
    runner = runner_over(store, clock, relay, total)
    task = asyncio.create_task(runner.run())
    await until(lambda: runner.status().delivered > 2_000)
    mosquitto.kill()
    await until(lambda: not runner.up)
    await relay.cut()  # so that the witness is back before the sink: a broker acknowledges without subscribers, too
    acknowledged = runner.status().delivered + 500  # one send may be half acknowledged and not yet accounted for
    mosquitto.start()
    await listener.ready()
    await relay.open()
    await until(lambda: runner.pending == 0)
    balance(runner)
    await runner.drain(5)
    await task
    await until(lambda: listener.messages[-1].payload == b'{"n":%d}' % (total - 1))
    firsts, repeated = arrived(listener)
    assert firsts == sorted(firsts)
    assert set(range(acknowledged, total)) <= set(firsts)
    assert repeated <= 500


async def test_a_silent_broker_is_noticed_and_the_next_connection_starts_clean(mosquitto, listener, sink_to):
    """M8: a broker that takes bytes and answers nothing costs one timeout; nothing counts that was not acknowledged."""
    sink = await sink_to(mosquitto.port, timeout_s=0.5)
    assert await sink.send(parcel_of(10)) == Delivered(10)
    os.kill(mosquitto.pid, signal.SIGSTOP)
    try:
        assert isinstance(await sink.send(parcel_of(10, first=10)), Retry)
        assert isinstance(await sink.send(parcel_of(10, first=10)), Retry)
    finally:
        os.kill(mosquitto.pid, signal.SIGCONT)
    assert await sink.send(parcel_of(10, first=10)) == Delivered(10)
    await until(lambda: len({message.payload for message in listener.messages}) == 20)


async def test_a_broker_that_is_away_is_retried(sink_to):
    """Refused connections pass."""
    assert isinstance(await (await sink_to(free_port())).send(parcel_of(1)), Retry)


async def test_a_cancelled_send_leaves_nothing_behind_that_could_count(mosquitto, listener, sink_to):
    """§0.3: late acknowledgements belong to the connection that was given up."""
    sink = await sink_to(mosquitto.port)
    assert await sink.send(parcel_of(1)) == Delivered(1)
    os.kill(mosquitto.pid, signal.SIGSTOP)
    sending = asyncio.create_task(sink.send(parcel_of(100, first=1)))
    await until(lambda: len(sink._connection._client._out_messages) > 1)
    sending.cancel()
    await asyncio.wait([sending])
    os.kill(mosquitto.pid, signal.SIGCONT)
    old = sink._connection
    assert await sink.send(parcel_of(100, first=1)) == Delivered(100)
    assert sink._connection is not old


# Brokers made by hand, packet by packet.


def varint(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


class HandBroker:
    """Answers CONNECT and PUBLISH as a test says. Shares no code with the sink."""

    def __init__(self, connack, puback=lambda mid, topic: b"\x40\x02" + struct.pack(">H", mid)) -> None:
        self.connack, self.puback = connack, puback
        self.connects: list[int] = []
        self.connect_packets: list[bytes] = []
        self.published: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self._server = None

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        held: list[tuple[int, str]] = []
        try:
            while True:
                try:
                    head = await asyncio.wait_for(reader.readexactly(1), 0.05 if held else None)
                except TimeoutError:
                    for mid, topic in held:
                        self.in_flight -= 1
                        writer.write(self.puback(mid, topic))
                    held.clear()
                    continue
                length = shift = 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                body = await reader.readexactly(length)
                if head[0] >> 4 == 1:
                    self.connects.append(body[6])
                    self.connect_packets.append(body)
                    answer = self.connack(body[6])
                    if answer is None:
                        return
                    writer.write(answer)
                elif head[0] >> 4 == 3:
                    size = struct.unpack(">H", body[:2])[0]
                    topic = body[2 : 2 + size].decode()
                    self.published.append(topic)
                    held.append((struct.unpack(">H", body[2 + size : 4 + size])[0], topic))
                    self.in_flight += 1
                    self.most_in_flight = max(self.most_in_flight, self.in_flight)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.in_flight -= len(held)
        finally:
            writer.close()


def connack_5(reason=0, properties=b"") -> bytes:
    body = bytes([0, reason]) + varint(len(properties)) + properties
    return b"\x20" + varint(len(body)) + body


@pytest.mark.parametrize("refusal", [b"\x20\x02\x00\x01", connack_5(0x84), None], ids=["code 1", "0x84", "closed"])
async def test_a_broker_that_knows_only_3_1_1_is_spoken_to_in_3_1_1(sink_to, refusal):
    """Three ways in which old brokers refuse MQTT 5; the payload is the same, the id has no place to travel."""
    async with HandBroker(lambda level: refusal if level == 5 else b"\x20\x02\x00\x00") as broker:
        sink = await sink_to(broker.port)
        assert await sink.send(parcel_of(5)) == Delivered(5)
        assert broker.connects == [5, 4]
        await sink.close()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (connack_5(0x86), NeedsOperator),
        (connack_5(0x87), NeedsOperator),
        (connack_5(0x89), Retry),
        (connack_5(0, b"\x24\x00"), NeedsOperator),
    ],
    ids=["bad password", "not authorised", "busy", "QoS 0 only"],
)
async def test_refused_connections_have_their_class(sink_to, answer, kind):
    """M15: credentials, rights and abilities are the operator's; business is not."""
    async with HandBroker(lambda level: answer) as broker:
        sink = await sink_to(broker.port, credentials=Credentials(username="u", password="p"))
        assert type(await sink.send(parcel_of(5))) is kind
        assert b"\x00\x01u\x00\x01p" in broker.connect_packets[0]
        await sink.close()


@pytest.mark.parametrize("maximum", [1, 5, 20])
async def test_the_brokers_receive_maximum_is_kept(sink_to, maximum):
    """M10: never more unacknowledged than it said."""
    async with HandBroker(lambda level: connack_5(0, b"\x21" + struct.pack(">H", maximum))) as broker:
        sink = await sink_to(broker.port)
        count = maximum * 4 + 1
        assert await sink.send(parcel_of(count)) == Delivered(count)
        assert broker.most_in_flight == maximum
        await sink.close()


async def test_what_the_broker_will_not_take_is_refused_without_sending_it(sink_to):
    """A packet beyond Maximum Packet Size would end the connection, and the next one, and the next."""
    async with HandBroker(lambda level: connack_5(0, b"\x27" + struct.pack(">I", 500))) as broker:
        sink = await sink_to(broker.port)
        verdict = await sink.send(parcel_of(3, size=600))
        assert [refusal.code for refusal in verdict.refused] == ["too_large"] * 3
        assert await sink.send(parcel_of(3)) == Delivered(3)
        assert len(broker.published) == 3
        await sink.close()


async def test_puback_reasons_refuse_pause_or_deliver_message_by_message(sink_to):
    """Refused ones are told apart from the others; a quota ends the parcel where it struck."""

    def puback(mid, topic):
        reason = {"a": 0x00, "b": 0x10, "bad": 0x99, "quota": 0x97, "forbidden": 0x87}[topic]
        return b"\x40\x03" + struct.pack(">HB", mid, reason)

    async with HandBroker(lambda level: connack_5(), puback) as broker:
        sink = await sink_to(broker.port, topic="{topic}")
        verdict = await sink.send(parcel_of(4, ["a", "bad", "b", "a"]))
        assert (verdict.count, [(r.index, r.code) for r in verdict.refused]) == (4, [(1, "mqtt_0x99")])
        assert await sink.send(parcel_of(4, ["a", "b", "quota", "a"])) == Delivered(2)
        assert isinstance(await sink.send(parcel_of(2, ["quota", "a"])), Retry)
        assert isinstance(await sink.send(parcel_of(2, ["forbidden", "a"])), NeedsOperator)
        await sink.close()


async def test_a_gap_record_without_a_possible_topic_is_refused_not_fatal(mosquitto, sink_to):
    """A template that makes no topic for it: the runner logs and goes on."""
    sink = await sink_to(mosquitto.port, topic="$x/{topic}")
    assert isinstance(await sink.announce(Gap(1, 2, 1, "evicted"), 5), Refused)

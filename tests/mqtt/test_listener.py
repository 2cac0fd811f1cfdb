"""The listener on the wire: batches, acknowledgements, back-pressure, and its life as a whole."""

import asyncio

import pytest

from gateway.errors import GatewayError
from gateway.model import DUPLICATE

# Acknowledgements.


async def test_no_puback_leaves_before_settle(slow_bench, wire):
    """L1: the acknowledgement means: on disk [MQTT-4.3.2-4]."""
    device = await slow_bench.client("dev")
    device.send(wire.publish("a", qos=1, mid=7))
    await slow_bench.desk.wait_for(1)
    await device.silence()
    slow_bench.desk.arrivals[0].settle()
    assert await device.packet() == (0x40, b"\0\7")


async def test_pubacks_keep_the_order_of_receipt_even_if_turns_settle_in_another(slow_bench, wire):
    """[MQTT-4.6.0-2]: within a turn, and from turn to turn."""
    device = await slow_bench.client("dev")
    for first in (1, 101, 201):
        device.send(*(wire.publish("a", qos=1, mid=mid) for mid in range(first, first + 100)))
        await slow_bench.desk.wait_for(first + 99)
        await device.silence()
    for arrivals in reversed(slow_bench.desk.arrivals):
        arrivals.settle()
    mids = [int.from_bytes((await device.packet())[1], "big") for _ in range(300)]
    assert mids == list(range(1, 301))


async def test_settling_twice_acknowledges_once(slow_bench, wire):
    """Whoever settles carelessly does no harm."""
    device = await slow_bench.client("dev")
    device.send(wire.publish("a", qos=1))
    await slow_bench.desk.wait_for(1)
    slow_bench.desk.arrivals[0].settle()
    slow_bench.desk.arrivals[0].settle()
    assert (await device.packet())[0] == 0x40
    await device.silence()
    assert slow_bench.listener.stats.unsettled_bytes == 0


async def test_what_one_turn_brought_from_all_connections_is_one_batch(slow_bench, wire):
    """One Arrivals per turn of the loop, one write of acknowledgements per connection."""
    devices = [await slow_bench.client(f"dev{number}") for number in range(5)]
    for number, device in enumerate(devices):
        device.send(*(wire.publish(f"t/{number}", b"%d" % mid, qos=1, mid=mid) for mid in (1, 2, 3)))
    await slow_bench.desk.wait_for(15)
    assert len(slow_bench.desk.arrivals) < 15
    by_topic = {}
    for topic, payload, flags in slow_bench.desk.messages:
        assert flags == 1
        by_topic.setdefault(topic, []).append(payload)
    assert by_topic == {f"t/{number}": [b"1", b"2", b"3"] for number in range(5)}
    for arrivals in slow_bench.desk.arrivals:
        arrivals.settle()
    for device in devices:
        assert [await device.packet() for _ in range(3)] == [(0x40, bytes([0, mid])) for mid in (1, 2, 3)]


async def test_a_stale_puback_never_reaches_the_successor_of_a_connection(slow_bench, wire):
    """M4: the same client, the same packet id, another message: only the second settle answers it."""
    first = await slow_bench.client("dev", clean=False)
    first.send(wire.publish("a", b"old", qos=1, mid=5))
    await slow_bench.desk.wait_for(1)
    second = await slow_bench.client("dev", clean=False)
    second.send(wire.publish("a", b"new", qos=1, mid=5))
    await slow_bench.desk.wait_for(2)
    slow_bench.desk.arrivals[0].settle()
    await second.silence()
    slow_bench.desk.arrivals[1].settle()
    assert await second.packet() == (0x40, b"\0\5")
    assert await first.closed() == b""


async def test_messages_of_a_closed_connection_are_stored_and_routed(slow_bench, wire):
    """They were received; only their acknowledgements are dropped."""
    watcher = await slow_bench.client("watcher")
    await watcher.subscribe("a")
    device = await slow_bench.client("dev")
    device.send(wire.publish("a", b"last words", qos=1), b"\xe0\x00")
    assert await device.closed() == b""
    await slow_bench.desk.wait_for(1)
    slow_bench.desk.arrivals[0].settle()
    assert (await watcher.message()).payload == b"last words"
    assert slow_bench.listener.stats.unsettled_bytes == 0


async def test_an_intake_that_fails_means_no_puback_and_a_closed_connection(slow_bench, wire):
    """MQTT offers a message again only on a new connection, so the sender is sent away to make one."""
    device = await slow_bench.client("dev")

    def broken(arrivals):
        raise RuntimeError("the disk is gone")

    slow_bench.listener.gathering._intake = broken
    device.send(wire.publish("a", qos=1))
    assert await device.closed() == b""
    assert slow_bench.listener.stats.unsettled_bytes == 0


async def test_flags_tell_qos_and_dup_and_never_retained(bench, wire):
    """RETAIN to the gateway asks for a copy; the event is fresh."""
    device = await bench.client("dev")
    device.send(
        wire.publish("a", qos=0), wire.publish("a", qos=1, dup=True), wire.publish("a", qos=1, mid=2, retain=True)
    )
    await bench.desk.wait_for(3)
    assert [flags for _, _, flags in bench.desk.messages] == [0, 1 | DUPLICATE, 1]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_packets_in_pieces_are_put_together(bench, wire, size):
    """Where reads begin and end means nothing: a stream of bytes is a stream of bytes [MQTT-4.2.0-1]."""
    device = await bench.client("dev")
    stream = b"".join(wire.publish("a/b", bytes([n]) * 200 * n, qos=1, mid=n + 1) for n in range(5)) + b"\xc0\x00"
    for start in range(0, len(stream), size):
        device.send(stream[start : start + size])
        await asyncio.sleep(0)
    answers = [await device.packet() for _ in range(6)]
    answers.remove((0xD0, b""))  # which need not wait for the disk
    assert answers == [(0x40, bytes([0, n + 1])) for n in range(5)]
    assert [payload for _, payload, _ in bench.desk.messages] == [bytes([n]) * 200 * n for n in range(5)]


# Back-pressure.


async def test_reading_stops_while_too_much_is_unsettled(open_listener, wire):
    """The disk's pace is everybody's pace: TCP holds back what we do not read."""
    bench = await open_listener(at_once=False, max_unsettled_bytes=10_000)
    one, two = await bench.client("one"), await bench.client("two")
    bench.clock.advance(1)  # nobody has sent little lately, so that one client may have all the room
    one.send(*(wire.publish("a", bytes(1_000), qos=1, mid=mid) for mid in range(1, 13)))
    await bench.desk.wait_for(12)
    two.send(wire.publish("b", qos=1))
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(bench.desk.messages) == 12, "nobody is read"
    for arrivals in list(bench.desk.arrivals):
        arrivals.settle()
    await bench.desk.wait_for(13)
    assert bench.desk.messages[-1][0] == "b"


async def test_keep_alive_does_not_run_while_nobody_is_read(open_listener, wire):
    """A full disk must not look like silent devices."""
    bench = await open_listener(at_once=False)
    device = await bench.client("dev", keepalive=10)
    bench.listener.pause()
    bench.clock.advance(100)
    bench.listener.tick()
    bench.listener.resume()
    bench.listener.tick()
    await device.silence()
    bench.clock.advance(16)
    bench.listener.tick()
    assert await device.closed() == b""


async def test_pause_hands_over_what_has_been_read_and_reads_no_more(slow_bench, wire):
    """Draining: after `pause` nothing new comes in, and nothing that came is forgotten."""
    device = await slow_bench.client("dev")
    slow_bench.listener.pause()
    late = await slow_bench.socket()
    late.send(wire.connect("late"))
    device.send(wire.publish("a", qos=1))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not slow_bench.desk.arrivals
    slow_bench.listener.resume()
    await slow_bench.desk.wait_for(1)
    assert (await late.packet())[0] == 0x20


async def test_a_subscriber_that_does_not_read_gets_what_fits_and_the_rest_is_counted(open_listener, wire):
    """Its queue is bounded, and nobody else waits for it."""
    bench = await open_listener(max_queued_messages=10)
    lazy = await bench.client("lazy")
    await lazy.subscribe("a", options=1)
    lazy.reader._transport.pause_reading()
    reader = await bench.client("reader")
    await reader.subscribe("a", options=0)
    reached = 0
    for _ in range(400):
        reached += bench.listener.publish("a", bytes(60_000))
        assert (await reader.message()).payload
    stats = bench.listener.stats
    assert stats.dropped_total["queue_full"] > 100
    assert reached == 800 - stats.dropped_total["queue_full"]


# The house.


async def test_a_taken_port_is_told_in_one_sentence(bench, open_listener):
    """The operator reads which."""
    with pytest.raises(GatewayError, match=f"cannot listen on 127.0.0.1:{bench.listener.port}"):
        await open_listener(port=bench.listener.port)


async def test_stopping_tells_everyone_and_publishes_no_wills(bench):
    """0x8B to 5.0; the devices are still there, so nobody announces their death."""
    old, new = await bench.client("old", will=("w", "x")), await bench.client("new", v5=True, will=("w", "x"))
    await bench.listener.stop()
    assert await new.closed() == b"\xe0\x01\x8b"
    assert await old.closed() == b""
    assert not bench.desk.arrivals
    assert bench.listener.stats.connections == 0
    await bench.listener.stop()


async def test_settling_after_stop_does_no_harm(slow_bench, wire):
    """The disk may finish last."""
    device = await slow_bench.client("dev")
    device.send(wire.publish("a", qos=1))
    await slow_bench.desk.wait_for(1)
    await slow_bench.listener.stop()
    slow_bench.desk.arrivals[0].settle()


async def test_status_knows_every_client(bench):
    """Who is here, since when, on which version, subscribed to what."""
    await bench.client("old")
    new = await bench.client("new", v5=True)
    await new.subscribe("a/#")
    bench.clock.advance(5)
    old, new = bench.listener.clients()
    assert (old.client_id, old.version, old.connected_s) == ("old", "3.1.1", 5.0)
    assert (new.client_id, new.version, new.subscriptions) == ("new", "5.0", ("a/#",))
    assert new.address.startswith("127.0.0.1:")

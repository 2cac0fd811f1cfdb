"""The listener on the wire: what outlives a connection, and what it leaves behind."""

import pytest

# Sessions.


async def test_a_persistent_session_gets_what_was_queued_while_it_was_away(bench, wire, eventually):
    """Subscriptions and QoS 1 messages outlive the connection; QoS 0 does not."""
    device = await bench.client("dev", clean=False)
    assert device.connack[1] == b"\0\0"
    await device.subscribe("cmd/#")
    device.send(b"\xe0\x00")
    await device.closed()
    assert bench.listener.publish("cmd/a", b"1") == 1
    assert bench.listener.publish("cmd/a", b"lost", qos=0) == 0
    assert bench.listener.publish("cmd/b", b"2") == 1
    (info,) = bench.listener.clients()
    assert (info.client_id, info.is_connected, info.queued) == ("dev", False, 2)
    device = await bench.client("dev", clean=False)
    assert device.connack[1] == b"\1\0", "session present"
    assert [(await device.message()).payload for _ in range(2)] == [b"1", b"2"]
    device.send(b"\x40\x02\0\1")
    await device.close()
    await eventually(lambda: not bench.listener.clients()[0].is_connected)
    device = await bench.client("dev", clean=False)
    again = await device.message()
    assert (again.payload, again.dup, again.mid) == (b"2", True, 2)


async def test_a_clean_session_leaves_nothing_behind(bench, eventually):
    """Memory of closed clients is freed."""
    for number in range(20):
        device = await bench.client(f"dev{number}")
        await device.subscribe("a")
        await device.close()
    await eventually(lambda: not bench.listener.clients())
    assert bench.listener.stats[:5] == (0, 20, {}, 0, 0)
    assert bench.listener.stats.subscriptions == 0


async def test_session_expiry_of_5_0_is_the_clients_word_within_ours(open_listener, wire, eventually):
    """[MQTT-3.1.2-23]; what we shorten, CONNACK says (3.2.2.3.2)."""
    bench = await open_listener(session_expiry_max_s=100)
    device = await bench.client("dev", v5=True, clean=False, properties=b"\x11\xff\xff\xff\xff")
    assert b"\x11\x00\x00\x00\x64" in device.connack[1]
    await device.close()
    await eventually(lambda: not bench.listener.clients()[0].is_connected)
    bench.clock.advance(99)
    bench.listener.tick()
    assert bench.listener.clients()
    bench.clock.advance(1)
    bench.listener.tick()
    assert not bench.listener.clients()


@pytest.mark.parametrize("v5", [False, True])
async def test_a_second_connection_takes_over(bench, v5):
    """The first is told why where its version has a word for it (0x8E)."""
    first = await bench.client("dev", v5=v5, clean=False)
    second = await bench.client("dev", v5=v5, clean=False)
    assert await first.closed() == (b"\xe0\x01\x8e" if v5 else b"")
    await second.silence()
    assert [info.is_connected for info in bench.listener.clients()] == [True]


# Wills.


@pytest.mark.parametrize("v5", [False, True])
async def test_a_will_is_stored_and_routed_when_a_client_is_cut_off(slow_bench, v5):
    """[MQTT-3.1.2-8]: it is an event like any other, so it goes to disk first."""
    watcher = await slow_bench.client("watcher")
    await watcher.subscribe("state/#")
    device = await slow_bench.client("dev", v5=v5, will=("state/dev", "offline"), will_flags=0x28)
    device.writer.transport.abort()
    await slow_bench.desk.wait_for(1)
    assert slow_bench.desk.messages == [("state/dev", b"offline", 1)]
    await watcher.silence()
    assert slow_bench.listener.stats.retained == 0
    slow_bench.desk.arrivals[0].settle()
    assert (await watcher.message()).payload == b"offline"
    assert slow_bench.listener.stats.retained == 1


async def test_no_will_after_a_clean_disconnect_unless_it_says_so(bench):
    """[MQTT-3.14.4-3]; 5.0 may ask for it with 0x04."""
    quiet = await bench.client("quiet", will=("w", "quiet"))
    quiet.send(b"\xe0\x00")
    await quiet.closed()
    loud = await bench.client("loud", v5=True, will=("w", "loud"))
    loud.send(b"\xe0\x01\x04")
    await loud.closed()
    await bench.desk.wait_for(1)
    assert [payload for _, payload, _ in bench.desk.messages] == [b"loud"]


async def test_a_delayed_will_waits_and_is_withdrawn_by_a_return(bench, eventually):
    """Will Delay Interval, with the clock in hand."""
    how = {
        "v5": True,
        "clean": False,
        "properties": b"\x11\x00\x00\x01\x00",
        "will_properties": b"\x18\x00\x00\x00\x0a",
    }
    for returns in (True, False):
        device = await bench.client("dev", will=("w", "gone"), **how)
        await device.close()
        await eventually(lambda: not bench.listener.clients()[0].is_connected)
        bench.clock.advance(9)
        bench.listener.tick()
        if returns:
            continue
        assert not bench.desk.arrivals
        bench.clock.advance(1)
        bench.listener.tick()
        await bench.desk.wait_for(1)


async def test_keep_alive_ends_a_silent_connection_after_one_and_a_half_intervals(bench):
    """[MQTT-3.1.2-22], with the clock in hand; the will is published, a 5.0 client is told."""
    device = await bench.client("dev", v5=True, keepalive=10, will=("w", "silent"))
    bench.clock.advance(14.9)
    bench.listener.tick()
    await device.silence()
    bench.clock.advance(14.9)
    bench.listener.tick()
    await device.silence()
    bench.clock.advance(15)
    bench.listener.tick()
    assert await device.closed() == b"\xe0\x01\x8d"
    await bench.desk.wait_for(1)


async def test_no_keep_alive_means_none_in_3_1_1_and_ours_in_5_0(bench):
    """[MQTT-3.1.2-21, 3.2.2-21]: CONNACK says what holds."""
    old = await bench.client("old", keepalive=0)
    new = await bench.client("new", v5=True, keepalive=0)
    assert b"\x13\x0e\x10" in new.connack[1]
    bench.clock.advance(3_600 * 1.5)
    bench.listener.tick()
    assert await new.closed() == b"\xe0\x01\x8d"
    await old.silence()

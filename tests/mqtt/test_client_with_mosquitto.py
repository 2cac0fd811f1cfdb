"""The client beside a real mosquitto."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from gateway.config.settings import Credentials
from gateway.model import DUPLICATE, QOS_MASK, RETAINED
from tests.mqtt.broker_process import Ingest, Mosquitto, Naps, connected_client, until


@pytest.fixture
async def broker(tmp_path):
    """A mosquitto that keeps sessions on disk and everything that it queues."""
    mosquitto = Mosquitto(tmp_path)
    await mosquitto.start()
    yield mosquitto
    mosquitto.stop()


def numbers(start: int, stop: int) -> list[str]:
    return [str(number) for number in range(start, stop)]


async def test_messages_arrive_in_order_and_are_acknowledged_after_their_batch_is_settled(broker):
    """L4, and L1 towards a broker: nothing is acknowledged by itself, everything once settled
    [MQTT-7.0.0-1 of 3.1.1]."""
    ingest = Ingest(settles=False)
    async with connected_client(broker.port, ingest) as client:
        await broker.publish("t/a", numbers(0, 300))
        await until(lambda: len(ingest.payloads) == 300, "300 messages arrive")
        assert client.stats.acked_total == 0
        assert client.stats.unsettled_bytes > 0
        ingest.settle()
        assert client.stats.acked_total == 300
        assert client.stats.unsettled_bytes == 0
    assert ingest.payloads == numbers(0, 300)
    assert set(ingest.flags) == {1}
    assert set(ingest.topics) == {"t/a"}


async def test_what_one_read_brings_is_one_batch(broker):
    """Batches flow, not single events: a backlog comes in few hands-over."""
    async with connected_client(broker.port, Ingest()):
        pass
    await broker.publish("t/a", numbers(0, 2_000))
    ingest = Ingest()
    async with connected_client(broker.port, ingest):
        await until(lambda: len(ingest.payloads) == 2_000, "the backlog arrives")
    assert len(ingest.batches) < 500


async def test_what_was_not_settled_before_a_stop_comes_again_marked_as_duplicate(broker):
    """L2 and L3: an unsettled message is redelivered once, and only an unsettled one."""
    before = Ingest(settles=False)
    async with connected_client(broker.port, before) as client:
        await broker.publish("t/a", numbers(0, 10))
        await until(lambda: len(before.payloads) == 10, "the first ten arrive")
        before.settle()
        await broker.publish("t/a", numbers(10, 20))
        await until(lambda: len(before.payloads) == 20, "the next ten arrive")
        assert client.stats.acked_total == 10
    after = Ingest()
    async with connected_client(broker.port, after) as client:
        await until(lambda: len(after.payloads) == 10, "the unsettled ten come again")
        assert client.stats.session_present
        assert all(flags & DUPLICATE for flags in after.flags)
    assert after.payloads == numbers(10, 20)
    last = Ingest()
    async with connected_client(broker.port, last):
        await broker.publish("t/a", ["end"])
        await until(lambda: "end" in last.payloads, "a message behind everything arrives")
    assert last.payloads == ["end"]


async def test_messages_for_a_gateway_that_is_away_wait_for_it(broker):
    """Clean start off, fixed client id, session expiry: the broker queues while the gateway is down (M19)."""
    async with connected_client(broker.port, Ingest()):
        pass
    await broker.publish("t/a", numbers(0, 3_000))
    ingest = Ingest()
    async with connected_client(broker.port, ingest):
        await until(lambda: len(ingest.payloads) == 3_000, "everything that was queued arrives")
    assert ingest.payloads == numbers(0, 3_000)


async def test_a_settlement_after_the_connection_is_gone_acknowledges_nothing(broker):
    """A stale acknowledgement is dropped and counted, and the message comes again."""
    ingest = Ingest(settles=False)
    async with connected_client(broker.port, ingest) as client:
        await broker.publish("t/a", numbers(0, 5))
        await until(lambda: len(ingest.payloads) == 5, "five messages arrive")
        stale = list(ingest.batches)
        broker.stop()
        await until(lambda: not client.stats.connected, "the client notices")
        await broker.start()
        await until(lambda: len(ingest.payloads) == 10, "the five come again")
        for batch in stale:
            batch.settle()
        assert client.stats.stale_acks_dropped == 5
        assert client.stats.acked_total == 0
        ingest.settle()
        assert client.stats.acked_total == 5
        assert client.stats.unsettled_bytes == 0


async def test_a_broker_that_lost_its_sessions_is_subscribed_to_again(tmp_path):
    """M9: session gone, so subscribe again and say so."""
    broker = Mosquitto(tmp_path, keeps=False)
    await broker.start()
    ingest = Ingest()
    try:
        async with connected_client(broker.port, ingest) as client:
            broker.stop()
            await until(lambda: not client.stats.connected, "the client notices")
            await broker.start()
            await until(lambda: client.stats.connected, "the client comes back")
            assert client.stats.sessions_lost == 1
            assert "forgotten" in client.stats.last_error
            assert (client.stats.generation, client.stats.reconnects) == (2, 1)
            await until(lambda: broker_sees(client), "the subscription is confirmed")
            await broker.publish("t/a", ["again"])
            await until(lambda: ingest.payloads == ["again"], "messages arrive again")
    finally:
        broker.stop()


def broker_sees(client) -> bool:
    """The SUBACK has come."""
    link = client._link
    return link is not None and not link.dialogue._subscribing


async def test_a_broker_that_hangs_is_left_and_found_again(broker):
    """M8: SIGSTOP looks like silence; nothing is lost and nothing piles up."""
    ingest = Ingest()
    async with connected_client(broker.port, ingest, keepalive_s=1) as client:
        await broker.publish("t/a", numbers(0, 100))
        broker.send_signal(signal.SIGSTOP)
        await until(lambda: not client.stats.connected, "the silence is noticed")
        await until(lambda: "silent" in client.stats.last_error, "it says why")
        broker.send_signal(signal.SIGCONT)
        await until(lambda: client.stats.connected, "the client comes back", 25.0)
        await broker.publish("t/a", numbers(100, 200))
        await until(lambda: set(ingest.payloads) >= set(numbers(0, 200)), "everything has arrived")
        assert client.stats.unsettled_bytes == 0


async def test_memory_is_bounded_by_not_reading_the_socket(broker):
    """M11: whatever window the broker takes, what is unsettled stays within the budget and one read."""
    async with connected_client(broker.port, Ingest()):
        pass
    payload = "x" * 1_000
    await broker.publish("t/a", [f"{number:06d}{payload}" for number in range(2_000)])
    ingest = Ingest(settles=False)
    budget_bytes = 100_000
    async with connected_client(broker.port, ingest, max_unsettled_bytes=budget_bytes) as client:
        settled = 0
        while len(ingest.payloads) < 2_000:
            await until(lambda: client.stats.paused or len(ingest.payloads) == 2_000, "the gate shuts")
            assert client.stats.unsettled_bytes <= budget_bytes + 2 * 65_536
            for batch in ingest.batches[settled:]:
                batch.settle()
                settled += 1
        assert client.stats.generation == 1
        assert client.stats.last_error == ""
    assert [payload[:6] for payload in ingest.payloads] == [f"{number:06d}" for number in range(2_000)]


async def test_retained_messages_are_flagged_and_live_ones_are_not(broker):
    """M13: what the broker delivers as retained is not fresh."""
    await broker.publish("t/kept", ["old"], retain=True)
    ingest = Ingest()
    async with connected_client(broker.port, ingest):
        await until(lambda: ingest.payloads == ["old"], "the retained message arrives")
        await broker.publish("t/kept", ["new"], retain=True)
        await broker.publish("t/live", ["at once"], qos=0)
        await until(lambda: len(ingest.payloads) == 3, "the live ones arrive")
    by_payload = dict(zip(ingest.payloads, ingest.flags, strict=True))
    assert by_payload["old"] & RETAINED
    assert by_payload["new"] == 1
    assert by_payload["at once"] & QOS_MASK == 0


async def test_filters_of_an_earlier_configuration_are_unsubscribed(broker, tmp_path):
    """M14: a persistent session does not go on delivering what no configuration names any more."""
    remember = tmp_path / "filters.json"
    async with connected_client(broker.port, Ingest(), filters=("t/old/#", "t/both"), remember=remember):
        pass
    ingest = Ingest()
    async with connected_client(broker.port, ingest, filters=("t/both", "t/new"), remember=remember):
        await until(
            lambda: json.loads(remember.read_text())["filters"] == ["t/both", "t/new"], "the old filter is taken back"
        )
        await broker.publish("t/old/a", ["unwanted"])
        await broker.publish("t/new", ["new"])
        await broker.publish("t/both", ["both"])
        await until(lambda: len(ingest.payloads) == 2, "what is wanted arrives")
    assert ingest.payloads == ["new", "both"]


async def test_properties_of_mqtt_5_and_large_payloads_pass_beside_plain_messages_in_order(broker):
    """What paho decodes and what is taken in bulk keep one order."""
    ingest = Ingest()
    async with connected_client(broker.port, ingest) as client:
        assert client.stats.protocol_version == 5
        big = "y" * 200_000
        await broker.publish("t/a", ["1", "2"])
        await broker.publish("t/a", ["3"], extra=("-V", "5", "-D", "publish", "user-property", "k", "v"))
        await broker.publish("t/a", [big, "5"])
        await until(lambda: len(ingest.payloads) == 5, "all arrive")
        assert client.stats.acked_total == 5
    assert ingest.payloads == ["1", "2", "3", big, "5"]


async def test_order_holds_per_topic_with_many_publishers(broker):
    """L4 with eight topics at once."""
    ingest = Ingest()
    async with connected_client(broker.port, ingest):
        await asyncio.gather(*(broker.publish(f"t/{name}", numbers(0, 200)) for name in range(8)))
        await until(lambda: len(ingest.payloads) == 1_600, "all arrive")
    for name in range(8):
        mine = [p for t, p in zip(ingest.topics, ingest.payloads, strict=True) if t == f"t/{name}"]
        assert mine == numbers(0, 200)


async def test_a_batch_that_intake_refuses_is_kept_unacknowledged_and_offered_again(broker):
    """M16: an exception in the storage path kills no connection, acknowledges nothing and reorders nothing."""
    ingest = Ingest()
    async with connected_client(broker.port, ingest) as client:
        ingest.failing = [RuntimeError("disk"), RuntimeError("disk")]
        await broker.publish("t/a", numbers(0, 50))
        await until(lambda: len(ingest.payloads) == 50, "the batch is taken over in the end")
        assert client.stats.intake_errors == 2
        assert client.stats.generation == 1
        assert client.stats.acked_total == 50
    assert ingest.payloads == numbers(0, 50)


async def test_pause_stops_reading_and_resume_goes_on(broker):
    """The gateway's own back-pressure."""
    ingest = Ingest()
    async with connected_client(broker.port, ingest) as client:
        await until(lambda: broker_sees(client), "the subscription is confirmed")
        client.pause()
        assert client.stats.paused
        await broker.publish("t/a", numbers(0, 20))
        assert ingest.payloads == []
        client.resume()
        await until(lambda: len(ingest.payloads) == 20, "everything arrives")
        assert not client.stats.paused


async def test_commands_reach_devices_also_those_given_while_the_broker_was_away(broker):
    """The way out: queued while disconnected, sent in order, acknowledged."""
    ingest = Ingest()
    async with (
        connected_client(broker.port, ingest, filters=("cmd/#",), client_id="device"),
        connected_client(broker.port, Ingest()) as client,
    ):
        assert client.publish("cmd/a", b"1") == 1
        await until(lambda: client.stats.published_total == 1, "the first is acknowledged")
        broker.stop()
        await until(lambda: not client.stats.connected, "the client notices")
        assert client.publish("cmd/a", b"2") == 1
        assert client.publish("cmd/a", b"3") == 1
        assert client.stats.publish_queued == 2
        await broker.start()
        # The device may see the first twice: its own acknowledgement went down with the broker (L3).
        await until(lambda: list(dict.fromkeys(ingest.payloads)) == ["1", "2", "3"], "the others arrive")
        await until(lambda: client.stats.published_total == 3, "all are acknowledged")
        assert client.stats.publish_queued == 0


async def test_commands_that_waited_too_long_are_not_sent(broker):
    """L9: a command of an hour ago moves nothing."""
    broker.stop()
    async with connected_client(broker.port, Ingest(), waits=False, max_age_s=-1.0) as client:
        client.publish("cmd/a", b"late")
        await broker.start()
        await until(lambda: client.stats.publish_expired == 1, "the command expires")
        assert client.stats.published_total == 0
        assert client.stats.publish_queued == 0


async def test_a_full_queue_refuses_the_newest_and_counts_it(tmp_path):
    """Every queue is bounded and says what happens when it is full."""
    async with connected_client(1, Ingest(), waits=False) as client:
        taken = [client.publish("cmd/a", b"x") for _ in range(1_005)]
        assert taken == [1] * 1_000 + [0] * 5
        assert client.stats.publish_dropped == 5
        assert client.stats.publish_queued == 1_000


async def test_credentials_are_sent_and_wrong_ones_are_tried_slowly(tmp_path):
    """M15: what only an operator can put right is not hammered, and has a clear name."""
    passwords = tmp_path / "passwords"
    passwords.write_text("gateway:secret\n")
    process = await asyncio.create_subprocess_exec("mosquitto_passwd", "-U", str(passwords))
    assert await process.wait() == 0
    passwords.chmod(0o644)
    broker = Mosquitto(tmp_path, f"password_file {passwords}")
    broker.config.write_text(broker.config.read_text().replace("allow_anonymous true", "allow_anonymous false"))
    await broker.start()
    try:
        async with connected_client(
            broker.port, Ingest(), credentials=Credentials(username="gateway", password="secret")
        ):
            pass
        naps = Naps(held=True)
        wrong = Credentials(username="gateway", password="wrong")
        async with connected_client(broker.port, Ingest(), credentials=wrong, sleep=naps, waits=False) as client:
            await until(lambda: naps.asked, "the refusal")
            assert naps.asked[0] >= 60.0
            assert "refused" in client.stats.last_error
            assert not client.stats.connected
    finally:
        broker.stop()

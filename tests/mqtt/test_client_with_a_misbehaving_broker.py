"""The client against a broker that does what real ones do on bad days. Packets are literal bytes."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.model import DUPLICATE
from tests.mqtt.broker_process import (
    Ingest,
    Naps,
    ScriptedBroker,
    connected_client,
    publish_packet,
    string,
    until,
)


def mids_acknowledged(peer) -> list[int]:
    return [int.from_bytes(body[:2], "big") for body in peer.of_kind(4)]


async def test_a_packet_id_of_an_older_connection_is_never_acknowledged_on_a_newer_one():
    """M4: the session is lost, the broker reuses the id for another message, and the late settlement comes then."""
    redelivered = asyncio.Event()

    async def script(peer):
        await peer.accept()
        await peer.grant()
        if peer.number == 1:
            await peer.send(publish_packet("t/a", b"A", 1))
            await until(lambda: len(ingest.payloads) == 1, "A arrives")
            return
        await peer.send(publish_packet("t/a", b"B", 1))
        redelivered.set()
        await peer.serve()

    ingest = Ingest(settles=False)
    async with ScriptedBroker(script) as broker, connected_client(broker.port, ingest) as client:
        await redelivered.wait()
        await until(lambda: ingest.payloads == ["A", "B"], "B arrives under A's packet id")
        first, second = ingest.batches
        first.settle()
        client.publish("cmd", b"a packet behind everything that was owed")
        await until(lambda: broker.peers[1].of_kind(3), "the message behind it comes")
        assert mids_acknowledged(broker.peers[1]) == []
        assert client.stats.stale_acks_dropped == 1
        second.settle()
        await until(lambda: mids_acknowledged(broker.peers[1]) == [1], "B is acknowledged")


async def test_no_interleaving_of_loss_and_late_settlement_acknowledges_the_wrong_message(seed):
    """M4 at random: across 40 connections, what is acknowledged was settled on the connection that brought it."""
    rng = random.Random(seed)
    connections, window = 40, 5
    sent: dict[str, tuple[int, int]] = {}
    finished = asyncio.Event()

    async def script(peer):
        await peer.accept(session=rng.random() < 0.5)
        serving = asyncio.create_task(peer.serve())
        for mid in range(1, window + 1):
            name = f"{peer.number}-{mid}"
            sent[name] = (peer.number, mid)
            await peer.send(publish_packet("t/a", name.encode(), mid))
        await until(lambda: f"{peer.number}-{window}" in ingest.payloads, "the window arrives")
        for batch in rng.sample(ingest.batches, min(len(ingest.batches), 4)):
            settled.update(payload.decode() for payload in batch.payloads)
            batch.settle()
        if peer.number == connections:
            await until(lambda: len(mids_acknowledged(peer)) >= acked_by_peer(peer.number), "what is owed comes")
            finished.set()
        else:
            serving.cancel()

    def acked_by_peer(number: int) -> int:
        """How many of its messages, from the first on without a gap, were settled."""
        count = 0
        while f"{number}-{count + 1}" in settled:
            count += 1
        return count

    ingest, settled = Ingest(settles=False), set()
    async with ScriptedBroker(script) as broker, connected_client(broker.port, ingest, sleep=Naps()):
        await asyncio.wait_for(finished.wait(), 30)
        for peer in broker.peers:
            acknowledged = mids_acknowledged(peer)
            assert acknowledged == list(range(1, len(acknowledged) + 1)), "in the order in which they came"
            assert all(f"{peer.number}-{mid}" in settled for mid in acknowledged)


async def test_acknowledgements_keep_the_order_of_arrival_even_if_settlements_do_not():
    """M2: a later batch that is settled first waits for the earlier one [MQTT-4.6.0-2]."""

    async def script(peer):
        await peer.accept()
        await peer.grant()
        for count, mid in enumerate((7, 3, 9), 1):
            await peer.send(publish_packet("t/a", b"x", mid))
            await until(lambda count=count: len(ingest.batches) == count, "one batch each")
        await peer.serve()

    ingest = Ingest(settles=False)
    async with ScriptedBroker(script) as broker, connected_client(broker.port, ingest) as client:
        await until(lambda: len(ingest.batches) == 3, "three batches")
        for index in (2, 1):
            ingest.batches[index].settle()
        assert client.stats.acked_total == 0
        ingest.batches[0].settle()
        ingest.batches[0].settle()
        await until(lambda: mids_acknowledged(broker.peers[0]) == [7, 3, 9], "all, in order, once")
        assert client.stats.acked_total == 3


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(bytes.fromhex("20020001"), id="CONNACK with code 1 of 3.1.1"),
        pytest.param(bytes.fromhex("2003008400"), id="CONNACK with reason 0x84"),
        pytest.param(b"", id="closes without a word"),
    ],
)
async def test_a_broker_that_knows_only_3_1_1_is_spoken_to_in_3_1_1(answer):
    """Fallback: version 5 first, then 3.1.1 with the session kept, and it stays with what was accepted."""

    async def script(peer):
        if peer.number == 1:
            await peer.expect(1)
            await peer.send(answer)
            return
        await peer.accept(v5=False)
        await peer.grant(v5=False)
        await peer.send(publish_packet("t/a", b"hello", 1, v5=False))
        if peer.number == 2:
            await peer.expect(4)
            return
        await peer.serve()

    ingest = Ingest()
    async with ScriptedBroker(script) as broker, connected_client(broker.port, ingest) as client:
        await until(lambda: len(ingest.payloads) == 2, "messages arrive on two connections")
        assert client.stats.protocol_version == 4
        assert [peer.version for peer in broker.peers] == [5, 4, 4]
        connect = broker.peers[1].of_kind(1)[0]
        assert connect[7] & 0x02 == 0, "clean session off"
        assert b"gateway-test" in connect


async def test_a_broker_that_refuses_both_versions_is_not_hammered():
    """M15: the other version is tried at once, the same again only on the ladder."""

    async def script(peer):
        await peer.expect(1)
        await peer.send(bytes.fromhex("20020001") if peer.version == 4 else bytes.fromhex("2003008400"))

    naps = Naps()
    async with (
        ScriptedBroker(script) as broker,
        connected_client(broker.port, Ingest(), sleep=naps, waits=False) as client,
    ):
        await until(lambda: len(naps.asked) >= 6, "six refusals")
        assert naps.asked[:6:2] == [0.0, 0.0, 0.0], "from version 5 to 3.1.1"
        assert all(pause_s > 0.0 for pause_s in naps.asked[1:6:2]), "and back only after a pause"
        assert {peer.version for peer in broker.peers} == {4, 5}
        assert client.stats.generation == 0


async def test_the_connect_of_version_5_asks_for_a_session_that_lasts():
    """Clean start off, session expiry and packet size limit set, client id fixed."""

    async def script(peer):
        await peer.accept()
        await peer.serve()

    async with ScriptedBroker(script) as broker, connected_client(broker.port, Ingest()):
        connect = broker.peers[0].of_kind(1)[0]
        assert connect[:7] == b"\0\4MQTT\5"
        assert connect[7] == 0x00, "no clean start, no will, no credentials"
        assert b"\x11" + (7 * 86_400).to_bytes(4, "big") in connect
        assert b"\x27" + (16 * 1024 * 1024).to_bytes(4, "big") in connect
        assert connect.endswith(string("gateway-test"))


async def test_stop_says_goodbye_after_everything_that_was_settled():
    """The last acknowledgements leave before the DISCONNECT, and the session expiry is not touched."""

    async def script(peer):
        await peer.accept()
        await peer.grant()
        await peer.send(*(publish_packet("t/a", b"x", mid) for mid in range(1, 101)))
        await peer.serve()

    ingest = Ingest(settles=False)
    async with ScriptedBroker(script) as broker:
        async with connected_client(broker.port, ingest):
            await until(lambda: len(ingest.payloads) == 100, "all arrive")
            ingest.settle()
        await until(lambda: broker.peers[0].of_kind(14), "the DISCONNECT arrives")
        assert broker.peers[0].packets[-1] == (0xE0, b"")
        assert mids_acknowledged(broker.peers[0]) == list(range(1, 101))


async def test_a_connection_that_is_not_read_for_longer_than_the_keep_alive_is_kept():
    """A disk that stalls costs no connection: pings go out, and silence counts only while we listen."""
    pinged = asyncio.Event()

    async def script(peer):
        await peer.accept()
        await peer.grant()
        pings = 0
        while True:
            first, _ = await peer.packet()
            if first == 0xC0:
                pings += 1
                await peer.send(b"\xd0\0")
                if pings == 3:  # at least half a second apart: longer than the keep-alive
                    pinged.set()

    ingest = Ingest()
    async with ScriptedBroker(script) as broker, connected_client(broker.port, ingest, keepalive_s=1) as client:
        await until(lambda: broker.peers[0].of_kind(8), "the subscription is asked for")
        client.pause()
        await asyncio.wait_for(pinged.wait(), 10)
        client.resume()
        await broker.peers[0].send(publish_packet("t/a", b"after", 1))
        await until(lambda: ingest.payloads == ["after"], "the connection is alive")
        assert client.stats.generation == 1
        assert client.stats.connected


async def test_a_broker_that_falls_silent_is_noticed():
    """M7: half-open connections end within one keep-alive and a quarter."""

    async def script(peer):
        await peer.accept()
        while True:
            await peer.packet()

    naps = Naps(held=True)
    async with (
        ScriptedBroker(script) as broker,
        connected_client(broker.port, Ingest(), keepalive_s=1, sleep=naps) as client,
    ):
        await until(lambda: naps.asked, "the silence is noticed", 5.0)
        assert "silent" in client.stats.last_error
        assert broker.peers[0].of_kind(12), "it was asked whether it is still there"


async def test_the_keep_alive_of_a_version_5_broker_is_kept():
    """Server Keep Alive overrides ours (3.2.2.3.14): silence is measured by it."""

    async def script(peer):
        await peer.accept(properties=b"\x13\x00\x01")
        while True:
            await peer.packet()

    naps = Naps(held=True)
    async with ScriptedBroker(script) as broker, connected_client(broker.port, Ingest(), keepalive_s=600, sleep=naps):
        await until(lambda: naps.asked, "the silence is noticed after one second, not ten minutes", 5.0)


async def test_being_taken_over_is_named_and_answered_with_patience():
    """M5 in version 5: 0x8E means another client with our id; at most two connections a minute."""

    async def script(peer):
        await peer.accept()
        await peer.grant()
        await peer.send(bytes.fromhex("e0028e00"))

    naps = Naps(held=True)
    async with (
        ScriptedBroker(script) as broker,
        connected_client(broker.port, Ingest(), sleep=naps, waits=False) as client,
    ):
        await until(lambda: naps.asked, "the take-over")
        assert "client id" in client.stats.last_error
        assert naps.asked[0] >= 30.0


async def test_being_dropped_soon_after_each_success_slows_the_client_down():
    """M5 in 3.1.1, where a take-over is a silent close: a CONNACK alone does not reset the back-off."""

    async def script(peer):
        await peer.accept()
        await peer.grant()

    naps = Naps()
    async with (
        ScriptedBroker(script) as broker,
        connected_client(broker.port, Ingest(), sleep=naps, waits=False) as client,
    ):
        await until(lambda: len(naps.asked) >= 6, "six connections")
        assert naps.asked[0] <= 1.0
        assert all(pause_s >= 30.0 for pause_s in naps.asked[1:])
        assert "client id" in client.stats.last_error


@pytest.mark.parametrize(
    ("reason", "is_slow"),
    [(0x86, True), (0x87, True), (0x8A, True), (0x85, True), (0x88, False), (0x89, False), (0x80, False)],
)
async def test_a_refused_connection_is_named_and_retried_by_its_kind(reason, is_slow):
    """M15: an operator's business is retried slowly, a broker's own trouble on the ladder; never in a busy loop."""

    async def script(peer):
        await peer.expect(1)
        await peer.send(bytes([0x20, 3, 0, reason, 0]))

    naps = Naps(held=True)
    async with (
        ScriptedBroker(script) as broker,
        connected_client(broker.port, Ingest(), sleep=naps, waits=False) as client,
    ):
        await until(lambda: naps.asked, "the refusal")
        assert f"0x{reason:02x}" in client.stats.last_error
        assert (naps.asked[0] >= 60.0) is is_slow
        assert client.stats.generation == 0


async def test_a_refused_subscription_is_shown_and_does_not_end_the_connection():
    """M15: SUBACK 0x87 turns the filter red; the others go on."""

    async def script(peer):
        await peer.accept()
        await peer.expect(8)
        body = peer.packets[-1][1]
        await peer.send(b"\x90\x05" + body[:2] + b"\0\x01\x87")
        await peer.send(publish_packet("t/a", b"x", 1))
        await peer.serve()

    ingest = Ingest()
    async with (
        ScriptedBroker(script) as broker,
        connected_client(broker.port, ingest, filters=("t/#", "secret/#")) as client,
    ):
        await until(lambda: ingest.payloads == ["x"], "the granted one delivers")
        assert client.stats.refused_filters == ("secret/#",)
        assert "secret/#" in client.stats.last_error
        assert client.stats.connected


@pytest.mark.parametrize("window", [1, 5, 20])
async def test_the_window_of_the_broker_is_never_exceeded(window):
    """M10: as many messages without PUBACK as Receive Maximum says, and all get through."""
    most = 0

    async def script(peer):
        nonlocal most
        await peer.accept(properties=b"\x21" + window.to_bytes(2, "big"))
        await peer.grant()
        open_mids: list[bytes] = []
        while True:
            try:
                async with asyncio.timeout(0.01):
                    first, body = await peer.packet()
            except TimeoutError:
                await peer.send(*(b"\x40\x02" + mid for mid in open_mids))
                open_mids.clear()
                continue
            if first >> 4 == 3:
                topic_bytes = int.from_bytes(body[:2], "big")
                open_mids.append(body[2 + topic_bytes : 4 + topic_bytes])
                most = max(most, len(open_mids))

    async with ScriptedBroker(script) as broker, connected_client(broker.port, Ingest()) as client:
        for number in range(40):
            client.publish("cmd/a", str(number).encode())
        await until(lambda: client.stats.published_total == 40, "all are acknowledged")
        assert most == window


async def test_a_receive_maximum_of_zero_is_a_protocol_error():
    """M10: what makes no sense ends the connection with a name, without a busy loop."""

    async def script(peer):
        await peer.accept(properties=b"\x21\0\0")
        await peer.serve()

    naps = Naps(held=True)
    async with (
        ScriptedBroker(script) as broker,
        connected_client(broker.port, Ingest(), sleep=naps, waits=False) as client,
    ):
        await until(lambda: naps.asked, "the end")
        assert "protocol" in client.stats.last_error


async def test_commands_that_were_not_acknowledged_go_out_again_in_order():
    """QoS 1 on the way out: an outage between PUBLISH and PUBACK loses no command."""

    async def script(peer):
        await peer.accept()
        await peer.grant()
        if peer.number == 1:
            for _ in range(3):
                await peer.expect(3)
            return
        while True:
            first, body = await peer.packet()
            if first >> 4 == 3:
                await peer.send(b"\x40\x02" + body[7:9])

    async with ScriptedBroker(script) as broker, connected_client(broker.port, Ingest()) as client:
        for number in range(3):
            client.publish("cmd/a", str(number).encode())
        await until(lambda: client.stats.published_total == 3, "all are acknowledged")
        assert [body[-1:] for body in broker.peers[1].of_kind(3)] == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("topic", "count"), [(b"t/\xff", 0), (b"t/a\0b", 0), (b"t/+", 0), (b"", 0), ("t/ä€🙂".encode(), 1)]
)
async def test_a_topic_that_is_none_is_counted_and_does_not_block_the_stream(topic, count):
    """A broker's bad topic can neither poison the session nor reach the log."""

    async def script(peer):
        await peer.accept()
        await peer.grant()
        await peer.send(publish_packet(topic, b"?", 1), publish_packet("t/good", b"good", 2))
        await peer.serve()

    ingest = Ingest()
    async with ScriptedBroker(script) as broker, connected_client(broker.port, ingest) as client:
        await until(lambda: mids_acknowledged(broker.peers[0]) == [1, 2], "both are acknowledged, in order")
        assert ingest.payloads == ["?", "good"][1 - count :]
        assert client.stats.invalid_topics == 1 - count
        assert client.stats.generation == 1


@pytest.mark.parametrize("size_bytes", [300_000, 70_000])
async def test_a_message_larger_than_the_whole_budget_is_thrown_away_as_it_comes(size_bytes):
    """One message can neither fill the memory nor be offered for ever (3.1.1 has no way to refuse it)."""

    async def script(peer):
        if peer.number == 1:
            await peer.expect(1)
            await peer.send(bytes.fromhex("20020001"))
            return
        await peer.accept(v5=False)
        await peer.grant(v5=False)
        packets = [
            publish_packet("t/a", b"before", 1, v5=False),
            publish_packet("t/a", b"z" * size_bytes, 2, v5=False),
            publish_packet("t/a", b"after", 3, v5=False),
        ]
        await peer.send(*packets)
        await peer.serve()

    ingest = Ingest()
    async with (
        ScriptedBroker(script) as broker,
        connected_client(broker.port, ingest, max_unsettled_bytes=50_000) as client,
    ):
        await until(lambda: len(broker.peers) == 2, "3.1.1")
        await until(lambda: mids_acknowledged(broker.peers[1]) == [1, 2, 3], "all are acknowledged, in order")
        assert [payload for payload in ingest.payloads if len(payload) < 100] == ["before", "after"]
        assert client.stats.oversized + len(ingest.payloads) == 3
        assert client.stats.unsettled_bytes == 0


async def test_a_stream_in_single_bytes_means_the_same_as_in_one_piece():
    """Packets are found wherever the network cuts them."""

    async def script(peer):
        await peer.accept()
        await peer.grant()
        stream = b"".join(
            [
                publish_packet("t/a", b"plain", 1),
                publish_packet("t/a", b"with a property", 2, properties=b"\x26" + string("k") + string("v")),
                publish_packet("t/a", b"known topic", 3, dup=True),
                publish_packet("t/a", b"q0", qos=0),
            ]
        )
        for byte in stream:
            await peer.send(bytes([byte]))
            await asyncio.sleep(0)
        await peer.serve()

    ingest = Ingest()
    async with ScriptedBroker(script) as broker, connected_client(broker.port, ingest):
        await until(lambda: mids_acknowledged(broker.peers[0]) == [1, 2, 3], "three are acknowledged")
        await until(lambda: len(ingest.payloads) == 4, "four arrive")
    assert ingest.payloads == ["plain", "with a property", "known topic", "q0"]
    assert ingest.flags == [1, 1, 1 | DUPLICATE, 0]


async def test_qos_2_is_completed_after_settlement():
    """A broker that insists on QoS 2 gets PUBREC from paho and its PUBCOMP after the batch is settled."""

    async def script(peer):
        await peer.accept()
        await peer.grant()
        await peer.send(publish_packet("t/a", b"two", 5, qos=2))
        await peer.expect(5)
        await peer.send(b"\x62\x02\x00\x05")
        await peer.serve()

    ingest = Ingest(settles=False)
    async with ScriptedBroker(script) as broker, connected_client(broker.port, ingest):
        await until(lambda: ingest.payloads == ["two"], "the message arrives")
        assert broker.peers[0].of_kind(7) == []
        ingest.settle()
        await until(lambda: broker.peers[0].of_kind(7) == [b"\0\5"], "the PUBCOMP")


async def test_garbage_from_a_broker_ends_the_connection_and_nothing_else(seed):
    """M18: mutated streams crash nothing, hang nothing, and the client comes back after each."""
    rng = random.Random(seed)
    rounds = 60
    honest = b"".join(
        [
            publish_packet("t/a", b"x" * 20, 1),
            publish_packet("t/a", b"y" * 200, 2, properties=b"\x26" + string("k") + string("v")),
            b"\x90\x04\x00\x01\x00\x01",
            b"\xd0\x00",
            b"\x40\x02\x00\x01",
            b"\xe0\x00",
        ]
    )
    done = asyncio.Event()

    async def script(peer):
        await peer.accept()
        if peer.number > rounds:
            await peer.grant()
            await peer.send(publish_packet("t/end", b"end", 9))
            await until(lambda: b"end" in ingest.batches[-1].payloads, "an honest message arrives")
            done.set()
            await peer.serve()
        stream = bytearray(honest)
        for _ in range(rng.randint(1, 6)):
            stream[rng.randrange(len(stream))] = rng.randrange(256)
        await peer.send(bytes(stream[: rng.randint(1, len(stream))]))

    ingest = Ingest()
    async with ScriptedBroker(script) as broker, connected_client(broker.port, ingest) as client:
        await asyncio.wait_for(done.wait(), 40)
        assert client.stats.unsettled_bytes == 0


async def test_a_broker_that_accepts_and_says_nothing_is_given_up(monkeypatch):
    """A CONNECT without a CONNACK does not last for ever."""
    monkeypatch.setattr("gateway.mqtt.client_link.CONNECT_TIMEOUT_S", 0.05)

    async def script(peer):
        await peer.serve()

    naps = Naps(held=True)
    async with (
        ScriptedBroker(script) as broker,
        connected_client(broker.port, Ingest(), sleep=naps, waits=False) as client,
    ):
        await until(lambda: naps.asked, "the time is over")
        assert "does not answer" in client.stats.last_error


async def test_retries_go_on_for_ever_and_stop_at_once_when_told():
    """No broker at all: full jitter up to the cap, and `stop` does not wait for a pause to end."""
    naps = Naps()
    async with connected_client(1, Ingest(), sleep=naps, waits=False) as client:
        await until(lambda: len(naps.asked) >= 15, "fifteen tries")
        assert "no connection" in client.stats.last_error
        naps.go.clear()
    assert max(naps.asked) <= 120.0
    assert all(pause_s <= min(120.0, 2.0**index) for index, pause_s in enumerate(naps.asked))

"""The client reads after rests on a real socket: whatever the pace says, nothing else changes."""

from __future__ import annotations

import asyncio

import pytest

from gateway.mqtt import client_pace
from tests.mqtt.broker_process import Ingest, ScriptedBroker, connected_client, publish_packet, until


@pytest.fixture
def always_resting(monkeypatch):
    """Every read but the first is a rest away."""
    monkeypatch.setattr(client_pace, "FAST_PER_S", -1.0)
    monkeypatch.setattr(client_pace, "FREE_S", -1.0)
    monkeypatch.setattr(client_pace, "EMPTY_IN_A_ROW", -1)
    monkeypatch.setattr(client_pace, "SHARE", 0.0)
    monkeypatch.setattr(client_pace, "HOLD_S", 1_000.0)


async def test_a_resting_client_hands_on_and_acknowledges_the_same(always_resting):
    """Order, contents and acknowledgements do not depend on when the socket is read."""

    async def script(peer):
        await peer.accept()
        await peer.grant()
        for mid in range(1, 301):
            await peer.send(publish_packet("t/a", str(mid).encode(), mid))
        await peer.serve()

    ingest = Ingest()
    async with ScriptedBroker(script) as broker, connected_client(broker.port, ingest) as client:
        await until(lambda: len(broker.peers[0].of_kind(4)) == 300, "all are acknowledged")
        assert client._link._reader.is_resting
    assert ingest.payloads == [str(mid) for mid in range(1, 301)]
    assert [int.from_bytes(body[:2], "big") for body in broker.peers[0].of_kind(4)] == list(range(1, 301))


async def test_a_resting_client_that_is_told_to_pause_reads_nothing_until_it_may(always_resting):
    """M11: the gate is above the pace, whichever of the two shut the socket first."""
    go = asyncio.Event()

    async def script(peer):
        await peer.accept()
        await peer.grant()
        await peer.send(publish_packet("t/a", b"1", 1))
        await go.wait()
        await peer.send(publish_packet("t/a", b"2", 2))
        client.publish("cmd", b"behind it")
        await peer.serve()

    ingest = Ingest()
    async with ScriptedBroker(script) as broker, connected_client(broker.port, ingest) as client:
        await until(lambda: ingest.payloads == ["1"] and client._link._reader.is_resting, "the first arrives")
        client.pause()
        go.set()
        await until(lambda: broker.peers[0].of_kind(3), "the broker is behind its second message")
        assert ingest.payloads == ["1"]
        assert not client._link._reader.is_resting, "and nobody will look"
        client.resume()
        await until(lambda: ingest.payloads == ["1", "2"], "it is read now")


async def test_a_resting_client_notices_that_the_broker_has_closed(always_resting):
    """The end of a connection shows at the next read."""

    async def script(peer):
        await peer.accept()
        if peer.number == 1:
            await peer.grant()
            await peer.send(publish_packet("t/a", b"1", 1))
            await peer.expect(4)
            return
        await peer.serve()

    ingest = Ingest()
    async with ScriptedBroker(script) as broker, connected_client(broker.port, ingest) as client:
        await until(lambda: client.stats.generation == 2, "it comes back")
        assert ingest.payloads == ["1"]
    assert len(broker.peers) == 2

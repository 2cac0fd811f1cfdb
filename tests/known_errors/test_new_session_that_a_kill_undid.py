"""2026-11-28: CONNACK left before the new session was on disk, and a kill brought back the one that it had replaced.

Its packet ids with it: a device that then published at QoS 2 had its message taken for a repetition. PUBREC came, and
the message was nowhere.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.app.lives import Lives
from tests.faults import StallingStorage
from tests.mqtt.conftest import RawClient, connect, publish
from tests.scenarios.site import until

CONNACK = 0x20


@pytest.fixture
def slow():
    """A disk that stalls while `go` is clear."""
    return StallingStorage()


@pytest.fixture
async def lives(tmp_path, clock, slow):
    made = Lives(tmp_path, clock)
    yield made
    slow.go.set()
    await made.close()


async def _socket(lives) -> RawClient:
    return RawClient(*await asyncio.open_connection("127.0.0.1", lives.gateway.listener.port))


@pytest.mark.parametrize("clean", [False, True])
async def test_a_client_is_not_told_of_a_session_that_is_not_on_disk(lives, slow, clean):
    """L1 for sessions: what CONNACK says of a new one stands, also after a kill. Nor is anything else said before."""
    await lives.begin(slow)
    device = await _socket(lives)
    device.send(connect("device", clean=False, keepalive=0))
    assert await device.packet() == (CONNACK, b"\0\0")
    await device.close()
    await until(lambda: not lives.gateway.listener.stats.connections, "the device has gone")
    await lives.gateway.store.committer.flush()
    slow.go.clear()
    other = await _socket(lives)
    other.send(connect("device" if clean else "other", clean=clean, keepalive=0) + b"\xc0\0")
    said = asyncio.create_task(other.packet())
    passer_by = await _socket(lives)
    passer_by.send(connect("passer-by", clean=True, keepalive=0))
    assert await passer_by.packet() == (CONNACK, b"\0\0")
    await passer_by.silence()
    assert not said.done()
    slow.go.set()
    assert await said == (CONNACK, b"\0\0")
    assert await other.packet() == (0xD0, b"")
    for client in (other, passer_by):
        await client.close()


async def test_a_client_that_has_its_old_session_need_not_wait_for_the_disk(lives, slow):
    """It was told nothing new; and a device that comes back hears its commands although the disk stalls (L10)."""
    await lives.begin(slow)
    for present in (0, 1):
        device = await _socket(lives)
        device.send(connect("device", clean=False, keepalive=0))
        assert await device.packet() == (CONNACK, bytes((present, 0)))
        await device.close()
        await until(lambda: not lives.gateway.listener.stats.connections, "the device has gone")
        if not present:
            await lives.gateway.store.committer.flush()
            slow.go.clear()


async def test_who_goes_before_the_connack_leaves_no_session(lives, slow):
    """Whoever comes then under its name is not told that there is one which is not on disk."""
    await lives.begin(slow)
    slow.go.clear()
    first, second = await _socket(lives), await _socket(lives)
    first.send(connect("device", clean=False, keepalive=0))
    await until(lambda: lives.gateway.listener.stats.sessions == 1, "the first is let in")
    second.send(connect("device", clean=False, keepalive=0))
    assert await first.closed() == b""
    slow.go.set()
    assert await second.packet() == (CONNACK, b"\0\0")
    for client in (first, second):
        await client.close()


async def test_a_packet_id_of_a_session_that_was_replaced_is_free(lives):
    """L2: what is published under it in the new session is stored."""
    await lives.begin()
    device = await _socket(lives)
    device.send(connect("device", clean=False, keepalive=0))
    await device.packet()
    device.send(publish("devices/a/meter", b"1", qos=2, mid=7))
    assert await device.packet() == (0x50, b"\0\7")
    await device.close()
    device = await _socket(lives)
    device.send(connect("device", clean=True, keepalive=0))
    assert await device.packet() == (CONNACK, b"\0\0")
    await lives.drop()
    await device.close()
    await lives.begin()
    device = await _socket(lives)
    device.send(connect("device", clean=False, keepalive=0))
    assert await device.packet() == (CONNACK, b"\0\0")
    device.send(publish("devices/a/meter", b"2", qos=2, mid=7))
    assert await device.packet() == (0x50, b"\0\7")
    assert lives.gateway.store.events.appended.ordinal == 2
    await device.close()

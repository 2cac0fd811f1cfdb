"""Devices are told how their gateway is: that it drives them, that it has made them safe, that it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

from tests.app.peer import Peer
from tests.faults import FaultyStorage
from tests.scenarios.site import GatewayProcess, Upstream, free_port, start_mosquitto, until

STATUS = "gateway/gw/status"
FOR_GOOD = 10**6
DRIVEN = {"online": True, "actuators": "driven"}


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


async def test_a_device_of_the_listener_hears_how_the_gateway_is(lives):
    """R7: retained, so that it is heard whenever the device comes; the last word says that actuators are safe."""
    life = lives()
    gateway = await life.begin()
    peer = await life.peer(STATUS)
    await until(lambda: peer.heard(STATUS) == [DRIVEN], "it is told", 10)
    assert await gateway.drain()
    life.gateway = None
    stops = {"actuators": "safe", "why": "the gateway stops"}
    assert peer.heard(STATUS)[1:] == [{"online": True, **stops}, {"online": False, **stops}]


async def test_a_lost_disk_is_told_to_devices(lives):
    """Law L10: whoever is still connected knows that nobody drives it."""
    faulty = FaultyStorage()
    life = lives()
    gateway = await life.begin(faulty)
    peer = await life.peer(STATUS)
    for call in ("sync", "create"):
        faulty.fail(call, 1, errno.EIO, times=FOR_GOOD)
    peer.publish("devices/a/climate", {"temperature": 20})
    await until(gateway.failed.is_set, "the disk is lost", 10)
    lost = {"online": True, "actuators": "safe", "why": "the disk is lost"}
    await until(lambda: peer.heard(STATUS)[-1:] == [lost], "it is told", 10)


async def test_a_broker_tells_of_a_gateway_that_was_killed(tmp_path):
    """R7: our will, since nobody else is left to say it; and after a clean stop our own last word stands."""
    port = free_port()
    broker = start_mosquitto(tmp_path, port)
    upstream = Upstream()
    topic = "gateway/scenario/status"
    gateway = GatewayProcess(tmp_path, upstream, port)
    await until(lambda: answers(port), "the broker listens", 10)
    peer = await asyncio.to_thread(Peer, port, topic)
    try:
        await gateway.start()
        await until(lambda: peer.heard(topic)[-1:] == [DRIVEN], "it is told", 20)
        gateway.kill()
        broken = {"online": False, "actuators": "unknown", "why": "the connection broke off"}
        await until(lambda: peer.heard(topic)[-1:] == [broken], "the broker says our will", 20)
        await gateway.start()
        await until(lambda: peer.heard(topic)[-1:] == [DRIVEN], "it is told again", 20)
        assert gateway.stop() == 0
        stops = {"online": False, "actuators": "safe", "why": "the gateway stops"}
        await until(lambda: peer.heard(topic)[-1:] == [stops], "the last word", 20)
    finally:
        if gateway.process is not None and gateway.process.poll() is None:
            gateway.kill()
        await asyncio.to_thread(peer.close)
        broker.terminate()
        broker.wait(10)
        await upstream.down()

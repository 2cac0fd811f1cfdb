"""A publisher and a subscriber with persistent sessions, and a gateway between them that is killed again and again."""

from __future__ import annotations

import asyncio
import json
import os
import random

import paho.mqtt.client as paho
import pytest

from tests.scenarios.site import GatewayProcess, Upstream, until

MESSAGES = 600
KILLS = int(os.environ.get("SESSION_KILLS", "4"))


class Ends:
    """The two clients, over paho, which keeps what is under way for as long as the object lives."""

    def __init__(self, port: int, qos: int) -> None:
        self.qos = qos
        self.got: list[int] = []
        self.acknowledged = 0
        self.subscribed = 0
        self.reader = self._client("reader", port)
        self.reader.on_connect = lambda client, *_: client.subscribe("devices/+/meter", qos)
        self.reader.on_subscribe = self._on_subscribe
        self.reader.on_message = lambda _c, _u, message: self.got.append(json.loads(message.payload)["n"])
        self.writer = self._client("writer", port)
        self.writer.on_publish = self._on_publish
        for client in (self.reader, self.writer):
            client.connect("127.0.0.1", port)
            client.loop_start()

    @staticmethod
    def _client(name: str, port: int) -> paho.Client:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, name, clean_session=False)
        client.reconnect_delay_set(1, 1)
        return client

    def _on_subscribe(self, *_args) -> None:
        self.subscribed += 1

    def _on_publish(self, *_args) -> None:
        self.acknowledged += 1

    def publish(self, number: int) -> None:
        """Say the next number."""
        self.writer.publish("devices/p/meter", json.dumps({"n": number}), qos=self.qos)

    def close(self) -> None:
        """End both."""
        for client in (self.reader, self.writer):
            client.disconnect()
            client.loop_stop()


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_subscriber_gets_all_that_was_published_whatever_dies(tmp_path, seed, qos):
    """L2 for sessions: at QoS 1 nothing is missing; at QoS 2 each comes once, in order, and is stored once (L3)."""
    rng = random.Random(seed)
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: []\n")
    upstream = Upstream()
    gateway = GatewayProcess(tmp_path, upstream, None, rules=str(rules))
    await gateway.start()
    ends = await asyncio.to_thread(Ends, gateway.port, qos)
    try:
        await until(lambda: ends.subscribed, "the reader has subscribed")
        for number in range(MESSAGES):
            ends.publish(number)
            if number % (MESSAGES // KILLS) == MESSAGES // KILLS // 2:
                await asyncio.sleep(rng.uniform(0, 0.05))  # the kill falls anywhere
                gateway.kill()
                await gateway.start()
        await until(lambda: ends.acknowledged >= MESSAGES, "all is acknowledged")
        await until(lambda: len(set(ends.got)) >= MESSAGES, "all has come")
        stored = (await gateway.status())["log"]["events"]
    finally:
        await asyncio.to_thread(ends.close)
        if gateway.process is not None:
            gateway.kill()
    firsts = list(dict.fromkeys(ends.got))
    assert sorted(firsts) == list(range(MESSAGES)), seed
    print(f"QoS {qos}, {KILLS} kills: {len(ends.got) - MESSAGES} came twice, {stored - MESSAGES} were stored twice")
    if qos == 2:
        assert ends.got == list(range(MESSAGES)), seed
        assert stored == MESSAGES, seed

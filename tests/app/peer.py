"""A client of the gateway under test, over paho: it shares no code with the gateway's own protocol."""

from __future__ import annotations

import json
import threading

import paho.mqtt.client as paho

from tests.scenarios.site import free_port


class Peer:
    """Publishes at QoS 1, and keeps what it gets. Its constructor blocks: beside an in-process gateway, in a thread."""

    def __init__(self, port: int, *topics: str) -> None:
        self.acknowledged: set[int] = set()
        self.messages: list[tuple[str, bytes]] = []
        self._subscribed = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"peer-{free_port()}")
        self.client.on_publish = lambda _c, _u, mid, _r, _p: self.acknowledged.add(mid)
        self.client.on_message = lambda _c, _u, message: self.messages.append((message.topic, message.payload))
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        for topic in topics:
            self.client.subscribe(topic, 1)
        if topics:
            assert self._subscribed.wait(10)

    def publish(self, topic: str, fields: dict) -> int:
        """Publish; the packet id."""
        return self.client.publish(topic, json.dumps(fields), qos=1).mid

    def heard(self, topic: str) -> list[dict]:
        """Every payload that came on a topic, in order."""
        return [json.loads(payload) for where, payload in self.messages if where == topic]

    def close(self) -> None:
        """Disconnect and end the thread."""
        self.client.disconnect()
        self.client.loop_stop()

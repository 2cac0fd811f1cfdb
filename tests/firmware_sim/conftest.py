"""A real mosquitto on a free port, and a recorder that keeps everything it is told, in order."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

TIMEOUT_S = 20.0


class Mosquitto:
    """A broker that keeps sessions and what is queued for them over a restart."""

    def __init__(self, home: Path) -> None:
        found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        assert found, "mosquitto is not installed"
        self._program = found
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._config = home / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
            f"persistence true\npersistence_location {home}/\n"
        )
        # Started as root it would become another user, who may not write here.
        if home.owner() == "root":
            self._config.write_text(self._config.read_text() + "user root\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        pause = threading.Event()
        for _ in range(int(TIMEOUT_S / 0.02)):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert self._process.poll() is None, "mosquitto did not start"
                pause.wait(0.02)
            else:
                return
        raise TimeoutError("mosquitto does not answer")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(TIMEOUT_S)
            self._process = None


@dataclass
class Heard:
    """One message as it arrived."""

    topic: str
    fields: dict[str, Any]


class Recorder:
    """Subscribes to everything with a persistent session."""

    def __init__(self, port: int) -> None:
        self._changed = threading.Condition()
        self._heard: list[Heard] = []
        self._subscribed = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="recorder", clean_session=False)
        client.reconnect_delay_set(1, 1)
        client.on_connect = lambda *_: client.subscribe("devices/#", qos=1)
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.on_message = self._on_message
        client.connect("127.0.0.1", port)
        client.loop_start()
        self._client = client
        assert self._subscribed.wait(TIMEOUT_S)

    def heard(self) -> list[Heard]:
        with self._changed:
            return list(self._heard)

    def wait_for(self, is_meant: Callable[[Heard], bool]) -> Heard:
        """The first message that is meant; waits for it."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(map(is_meant, self._heard)), TIMEOUT_S), "never heard"
            return next(filter(is_meant, self._heard))

    def seqs(self) -> dict[str, list[int]]:
        """Per device, in order of first arrival. Last wills carry no seq."""
        found: dict[str, dict[int, None]] = defaultdict(dict)
        for one in self.heard():
            if "seq" in one.fields:
                found[one.topic.split("/")[1]][one.fields["seq"]] = None
        return {device: list(seqs) for device, seqs in found.items()}

    def publish(self, topic: str, fields: object) -> None:
        self._client.publish(topic, json.dumps(fields), qos=1).wait_for_publish(TIMEOUT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        with self._changed:
            self._heard.append(Heard(message.topic, json.loads(message.payload)))
            self._changed.notify_all()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running mosquitto."""
    home = tmp_path / "mosquitto"
    home.mkdir()
    broker = Mosquitto(home)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def recorder(broker: Mosquitto) -> Iterator[Recorder]:
    """Hears everything that devices say."""
    recorder = Recorder(broker.port)
    yield recorder
    recorder.close()

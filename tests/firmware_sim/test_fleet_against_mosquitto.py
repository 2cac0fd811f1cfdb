"""The shell against a real mosquitto: nothing is lost, nothing is out of order, and commands are confirmed."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from firmware_sim import Faults, Fleet, LinkSettings, Span

TIMEOUT_S = 20.0
_LINK = LinkSettings(backoff_base_s=0.02, backoff_max_s=0.2)


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
        self._changed = threading.Condition(threading.RLock())
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

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is true of what was heard."""
        with self._changed:
            assert self._changed.wait_for(is_so, TIMEOUT_S), "never became true"

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


@pytest.fixture
async def fleet(broker: Mosquitto) -> AsyncIterator[Fleet]:
    """Seven devices, a minute a second."""
    async with Fleet(broker.url, 7, 7, 60.0, link=_LINK) as fleet:
        yield fleet


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not is_so():
            await asyncio.sleep(0.005)


def _lines(journal: Path, event: str) -> set[tuple[str, int]]:
    lines = map(json.loads, journal.read_text().splitlines())
    return {(line["topic"], line["seq"]) for line in lines if line["event"] == event}


@pytest.mark.parametrize("connections", [None, 2])
@pytest.mark.parametrize("protocol", [4, 5])
async def test_nothing_is_lost_or_disordered_over_a_restart_of_the_broker(
    broker: Mosquitto, recorder: Recorder, tmp_path: Path, protocol: int, connections: int | None
) -> None:
    """Every message is acknowledged and arrives, each device's in order; what was acknowledged is in the journal."""
    link = LinkSettings(protocol=protocol, backoff_base_s=0.02, backoff_max_s=0.2)
    journal = tmp_path / "journal.jsonl"
    fleet = Fleet(
        broker.url, 6, 7, rate_per_s=40, connections=connections, link=link, journal=journal, drain_s=TIMEOUT_S
    )

    def acked() -> int:
        return sum(device.acked for device in fleet.devices)

    async with asyncio.timeout(3 * TIMEOUT_S), fleet:
        await fleet.connected()
        await _until(lambda: acked() > 100)
        await asyncio.to_thread(broker.stop)
        await _until(lambda: sum(device.queued for device in fleet.devices) > 100)
        assert not any(device.connected for device in fleet.devices)
        before = acked()
        await asyncio.to_thread(broker.start)
        await _until(lambda: acked() > before + 200 and all(device.connected for device in fleet.devices))
    summary = fleet.summary()
    assert (summary.acked, summary.dropped, summary.queued) == (summary.offered, 0, 0)
    assert summary.connects >= 2 * (connections or 6)
    last_seq = summary.last_seq
    await asyncio.to_thread(
        recorder.until, lambda: all(len(recorder.seqs()[device]) >= seq for device, seq in last_seq.items())
    )
    for device, seq in last_seq.items():
        assert recorder.seqs()[device] == list(range(1, seq + 1))
    assert len(_lines(journal, "acked")) == summary.acked
    assert _lines(journal, "acked") == _lines(journal, "sent")


async def test_a_command_over_mqtt_is_confirmed_and_warms_the_room(broker: Mosquitto, recorder: Recorder) -> None:
    """From the command's topic through the relay into the true temperature."""
    async with asyncio.timeout(TIMEOUT_S), Fleet(broker.url, 2, 7, 60.0, link=_LINK) as fleet:
        await fleet.connected()
        cold_c = fleet.devices[0].true_temperature_c
        await asyncio.to_thread(recorder.publish, "devices/greenhouse/heater/set", {"state": "ON"})
        confirmed = await asyncio.to_thread(
            recorder.wait_for, lambda heard: heard.topic == "devices/greenhouse/heater/state" and _is_command(heard)
        )
        assert confirmed.fields["state"] == "ON"
        await _until(lambda: (fleet.devices[0].true_temperature_c or 0.0) > (cold_c or 0.0) + 0.1)
        greenhouse, living = fleet.devices
        assert (greenhouse.heater, greenhouse.commands, living.heater, living.commands) == (True, 1, False, 0)
    assert fleet.summary().commands == 1


async def test_a_view_of_the_fleet_shows_what_it_last_said(fleet: Fleet) -> None:
    """The live view needs a name, a kind, values, the truth and the accounts."""
    await _until(lambda: all(device.last and device.acked for device in fleet.devices))
    by_name = {device.name: device for device in fleet.devices}
    assert [device.kind for device in fleet.devices] == ["thermostat", "thermostat", *["climate"] * 3, "power", "door"]
    assert by_name["power-06"].last.keys() == {"power_w", "energy_wh"}
    assert by_name["door-07"].last.keys() == {"open"}
    assert abs(by_name["freezer"].last["temperature"] - (by_name["freezer"].true_temperature_c or 0.0)) < 3
    assert by_name["power-06"].true_temperature_c is None
    assert all(device.connected and device.sent >= device.acked for device in fleet.devices)


async def test_an_offline_fleet_keeps_its_newest_messages_and_counts_the_rest(broker: Mosquitto) -> None:
    """The queue is bounded; every message is sent, queued or counted as dropped."""
    broker.stop()
    link = LinkSettings(queue_size=10, backoff_base_s=0.02, backoff_max_s=0.05)
    fleet = Fleet(broker.url, 2, 7, rate_per_s=100, link=link, drain_s=TIMEOUT_S)
    async with asyncio.timeout(2 * TIMEOUT_S), fleet:
        await _until(lambda: all(device.dropped > 20 for device in fleet.devices))
        assert all(device.queued == 10 for device in fleet.devices)
        await asyncio.to_thread(broker.start)
        await fleet.connected()
    summary = fleet.summary()
    assert summary.dropped > 40
    assert summary.offered == summary.acked + summary.dropped


async def test_faults_reach_the_wire(broker: Mosquitto, recorder: Recorder) -> None:
    """Silence of one device leaves the other talking."""
    faults = Faults(silence=(Span("living"),))
    link = LinkSettings(status=False)
    async with asyncio.timeout(TIMEOUT_S), Fleet(broker.url, 2, 7, faults=faults, rate_per_s=50, link=link):
        await asyncio.to_thread(recorder.wait_for, lambda heard: heard.fields["seq"] > 20)
    assert set(recorder.seqs()) == {"greenhouse"}


def test_a_killed_fleet_leaves_its_last_wills_and_a_journal_that_did_not_lie(
    broker: Mosquitto, recorder: Recorder, tmp_path: Path
) -> None:
    """What is journalled as acknowledged did arrive, whatever happened then."""
    journal = tmp_path / "journal.jsonl"
    process = _start(broker, "--devices", "2", "--rate", "50", "--journal", str(journal), "--quiet")
    recorder.wait_for(lambda heard: heard.fields.get("seq", 0) > 30)
    process.kill()
    process.communicate()
    for device in ("greenhouse", "living"):
        recorder.wait_for(
            lambda heard, topic=f"devices/{device}/status": (
                heard.topic == topic and heard.fields == {"online": False, "cause": "connection lost"}
            )
        )
    acked = _lines(journal, "acked")
    assert acked
    recorder.until(lambda: acked <= {(heard.topic, heard.fields.get("seq")) for heard in recorder.heard()})


def test_the_command_ends_on_sigterm_with_a_summary_that_adds_up(broker: Mosquitto, recorder: Recorder) -> None:
    """SIGTERM drains, says goodbye, and exits 0."""
    process = _start(broker, "--devices", "3", "--rate", "50", "--protocol", "5", "--connections", "1", "--json")
    recorder.wait_for(lambda heard: heard.fields.get("seq", 0) > 10)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (0, b"")
    summary = json.loads(out)
    assert summary["acked"] == summary["sent"] == summary["offered"] > 30
    goodbye = recorder.wait_for(lambda heard: heard.topic == "devices/hub-01/status" and not heard.fields["online"])
    assert goodbye.fields["cause"] == "stopped"


def test_a_broker_that_is_not_there_is_told_in_one_line_with_exit_1(broker: Mosquitto) -> None:
    """Nothing ever connected: that is no success."""
    broker.stop()
    process = _start(broker, "--devices", "1", "--for", "200ms", "--drain", "200ms")
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert out.count(b"\n") == err.count(b"\n") == 1
    assert b"nothing ever connected" in err


def _start(broker: Mosquitto, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "firmware_sim", "--broker", broker.url, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _is_command(heard: Heard) -> bool:
    return heard.fields.get("cause") == "command"

"""From a temperature to a confirmed heater, and where every event went: direct and behind a broker."""

from __future__ import annotations

import asyncio
import json
import re

import aiohttp
import pytest
from aiohttp import web

from tests.app.peer import Peer
from tests.app.test_process_ends_and_refusals import run_cli
from tests.scenarios.site import GatewayProcess, Upstream, free_port, start_mosquitto, until

CLIMATE, HEATER, STATE = "devices/living/climate", "devices/living/heater/set", "devices/living/heater/state"
ON, OFF = {"state": "ON"}, {"state": "OFF"}
RULES = """
thermostats:
  - id: room
    mode: heat
    sensor: {topic: devices/living/climate, field: temperature}
    on_below: 20.5
    off_above: 21.5
    min_off: 1s
    stale_after: 10m
    on_stale: "off"
    actuator:
      topic: devices/living/heater/set
      "on": {state: "ON"}
      "off": {state: "OFF"}
      expect: {topic: devices/living/heater/state, where: state == wanted.state, within: 1s, retries: 2}
      otherwise: [{notify: {to: oncall, text: "the heater does not answer"}}]
"""


class PickyUpstream(Upstream):
    """Refuses whatever holds an event that it was told to refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[int] = set()

    async def _take(self, request: web.Request) -> web.Response:
        seqs = {event["data"]["seq"] for event in json.loads(await request.read()) if "seq" in event["data"]}
        if seqs & self.refused:
            return web.Response(status=400, text="not these")
        return await super()._take(request)


class House:
    """A gateway with a thermostat, perhaps behind a broker, and an upstream."""

    def __init__(self, home, broker_port: int | None) -> None:
        self.upstream = PickyUpstream()
        (home / "rules.yaml").write_text(RULES)
        self.gateway = GatewayProcess(home, self.upstream, broker_port, rules="rules.yaml")
        config = self.gateway.config
        config.write_text(config.read_text() + "notify: [{name: oncall}]\n")
        self.port = broker_port or self.gateway.port
        self.peers: list[Peer] = []

    async def peer(self, *topics: str) -> Peer:
        self.peers.append(await asyncio.to_thread(Peer, self.port, *topics))
        return self.peers[-1]

    async def close(self) -> None:
        for peer in self.peers:
            await asyncio.to_thread(peer.close)
        process = self.gateway.process
        if process is not None and process.poll() is None:
            self.gateway.kill()
        await self.upstream.down()


@pytest.fixture(params=["direct", "behind mosquitto"])
async def house(request, tmp_path):
    """Both ways in which a gateway meets its devices."""
    broker_port = free_port() if request.param != "direct" else None
    broker = start_mosquitto(tmp_path, broker_port) if broker_port else None
    found = House(tmp_path, broker_port)
    yield found
    await found.close()
    if broker is not None:
        broker.kill()
        broker.wait(10)


@pytest.fixture
async def direct(tmp_path):
    """Devices on the gateway's own listener."""
    found = House(tmp_path, None)
    yield found
    await found.close()


async def begin(house: House, *topics: str) -> Peer:
    """Gateway and upstream up, and a device connected once the gateway hears what it says."""
    await house.upstream.up()
    await house.gateway.start()
    if house.port != house.gateway.port:

        async def is_connected() -> bool:
            return (await house.gateway.status())["broker"]["connected"]

        await until(is_connected, "the gateway is connected to the broker", 20)
    return await house.peer(*topics)


async def commands(house: House) -> dict[str, int]:
    """Outcomes, as the status tells them."""
    return (await house.gateway.status())["commands"]


async def metrics(house: House) -> dict[str, float]:
    """/metrics by series."""
    url = f"http://127.0.0.1:{house.gateway.http_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        text = await answer.text()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in lines}


async def test_a_cold_room_turns_the_heater_on_and_its_answer_confirms_it(house):
    """Law: a command is done when the device says so; the status counts it."""
    peer = await begin(house, HEATER)
    answered = 0
    seq = 0

    async def answer() -> bool:
        nonlocal answered, seq
        said = peer.heard(HEATER)
        for state in said[answered:]:
            peer.publish(STATE, state | {"seq": seq})
        answered = len(said)
        if not said or said[-1] != ON:
            seq += 1
            peer.publish(CLIMATE, {"temperature": 19.0, "seq": seq})
            return False
        return (await commands(house)).get("confirmed", 0) >= 2

    await until(answer, "off at first, then on, both confirmed", 30)
    found = await commands(house)
    assert found.get("unconfirmed", 0) == 0
    assert (await metrics(house))["gateway_event_to_command_seconds_count"] >= 2
    assert not house.gateway.log_entries("command_unconfirmed")
    assert house.gateway.stop() == 0


async def test_a_heater_that_does_not_answer_is_asked_again_then_told_about(house):
    """Law: two more tries a second apart, then `unconfirmed`, and what `otherwise` says, once."""
    peer = await begin(house, HEATER)
    peer.publish(CLIMATE, {"temperature": 25.0, "seq": 1})

    async def is_given_up() -> bool:
        return (await commands(house)).get("unconfirmed", 0) >= 1

    await until(is_given_up, "it is given up", 20)
    await until(lambda: house.gateway.log_entries("notification"), "a person is told", 10)
    assert peer.heard(HEATER)[-3:] == [OFF, OFF, OFF]
    for entry in house.gateway.log_entries("command_unconfirmed"):
        assert (entry["topic"], entry["tries"]) == (HEATER, 3)
    assert house.gateway.stop() == 0
    told = house.gateway.log_entries("notification")
    assert len(told) == len(house.gateway.log_entries("command_unconfirmed"))
    assert {(each["to"], each["text"], each["rule"]) for each in told} == {
        ("oncall", "the heater does not answer", "room")
    }


async def test_metrics_status_and_oracle_agree_to_the_unit(direct):
    """Law L7: three independent ways of counting, one answer; before and after a refused event is put back."""
    direct.upstream.refused = {7}
    peer = await begin(direct)
    mids = {peer.publish("devices/a/meter", {"seq": seq}) for seq in range(500)}
    mids |= {
        peer.client.publish("devices/a/meter", payload, qos=1).mid for payload in (b"{", b"\xff", b'{"a":1,"a":2}')
    }
    mids.add(peer.publish("elsewhere/a", {"seq": 1}))
    await until(lambda: mids <= peer.acknowledged, "everything is acknowledged, good or bad", 30)
    await until(direct.gateway.is_drained, "everything has come to an end", 30)
    status, series = await direct.gateway.status(), await metrics(direct)
    (sink,) = status["sinks"]
    seen = [seq for topic, seq in direct.upstream.arrivals if topic == "devices/a/meter"]
    assert seen == [seq for seq in range(500) if seq != 7]
    rejected = status["ingest"]["rejected"]
    assert (status["ingest"]["received"], status["ingest"]["stored"], sum(rejected.values())) == (504, 500, 3)
    assert status["ingest"]["not_stored"] == 1
    assert (sink["received"], sink["delivered"], sum(sink["dead_lettered"].values())) == (500, 499, 1)
    assert series["gateway_events_received_total"] == 504
    assert series['gateway_sink_delivered_total{sink="cloud"}'] == len(seen)
    assert series['gateway_sink_pending{sink="cloud"}'] == 0
    refused = {re.search(r'reason="(\w+)"', name)[1]: value for name, value in series.items() if "_rejected_" in name}
    assert refused == rejected
    (buried,) = [value for name, value in series.items() if name.startswith("gateway_sink_dead_lettered_total")]
    assert buried == 1

    data_dir = str(direct.gateway.home / "data")
    found = await asyncio.to_thread(run_cli, "dlq", "list", data_dir, "--json")
    letters = [json.loads(line) for line in found.stdout.splitlines()]
    assert sorted(letter["stage"] for letter in letters) == ["cloud", "ingest", "ingest", "ingest"]
    (letter,) = [letter for letter in letters if letter["stage"] == "cloud"]
    direct.upstream.refused = set()
    found = await asyncio.to_thread(run_cli, "dlq", "replay", letter["id"], "-c", str(direct.gateway.config))
    assert (found.returncode, found.stdout) == (0, "1 put back\n"), found.stderr
    await until(lambda: ("devices/a/meter", 7) in direct.upstream.arrivals, "it arrives", 20)
    (sink,) = (await direct.gateway.status())["sinks"]
    assert (sink["received"], sink["delivered"], sum(sink["dead_lettered"].values())) == (501, 500, 1)
    found = await asyncio.to_thread(run_cli, "dlq", "list", data_dir, "--json")
    assert len(found.stdout.splitlines()) == 3
    assert direct.gateway.stop() == 0

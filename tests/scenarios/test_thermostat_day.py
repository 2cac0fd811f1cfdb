"""A thermostat and a simulated room, a whole day in virtual time: engine, interlock, outbox, and inertia."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from firmware_sim import Faults, Span, World
from gateway.act.dispatch import Dispatcher
from gateway.act.interlock import Interlock
from gateway.act.outbox import Outbox
from gateway.act.records import encode_records
from gateway.model import Batch, Decision, Format, Kind, Stamp
from gateway.rules.engine import Engine
from gateway.rules.reading.language import load_rules

DAY_S = 86_400
INTERVAL_S = 30.0
ON_BELOW_C, OFF_ABOVE_C = 20.5, 21.5
MIN_ON_S = MIN_OFF_S = 180
STALE_AFTER_S = 600
RULES = f"""
thermostats:
  - id: room
    mode: heat
    sensor: {{topic: devices/living/climate, field: temperature}}
    on_below: {ON_BELOW_C}
    off_above: {OFF_ABOVE_C}
    min_on: {MIN_ON_S}s
    min_off: {MIN_OFF_S}s
    max_on: 4h
    stale_after: {STALE_AFTER_S}s
    on_stale: "off"
    actuator:
      topic: devices/living/heater/set
      "on": {{state: "ON"}}
      "off": {{state: "OFF"}}
      expect: {{topic: devices/living/heater/state, where: state == wanted.state, within: 5s, retries: 3}}
"""


class VirtualHouse:
    """A world, and the pure half of a gateway beside it, on one clock that is moved by hand."""

    def __init__(self, home: Path, faults: Faults | None = None) -> None:
        (home / "rules.yaml").write_text(RULES)
        rules = load_rules([home / "rules.yaml"])
        self.world = World(seed=11, devices=2, sensor_interval_s=INTERVAL_S, faults=faults)
        self.engine = Engine(rules)
        self.switched: list[tuple[float, str]] = []
        self._pending: list[Decision] = []
        self._inbox: list = []
        self.dispatcher = Dispatcher(
            Interlock(rules.actuators, max_age_s=60),
            Outbox(lambda where, value, wanted: isinstance(value, dict) and value.get("state") == wanted["state"]),
            self._publish,
            lambda decision, message: None,
            lambda records: None,
            lambda seconds: None,
        )
        self._act(self.engine.start(0))

    @property
    def now_ns(self) -> int:
        return round(self.world.now_s * 1e9)

    def _publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
        state = json.loads(payload)["state"]
        if not self.switched or self.switched[-1][1] != state:
            self.switched.append((self.world.now_s, state))
        self._inbox += self.world.command(topic, payload)
        return 1

    def _act(self, decisions: list[Decision]) -> None:
        if decisions:
            self.dispatcher.handle(encode_records(decisions, self._stamp()), self.now_ns)

    def _stamp(self) -> Stamp:
        return Stamp(self.now_ns, self.now_ns, self.now_ns, bytes(16), True)

    def advance(self, seconds: float) -> None:
        """A second at a time, so that commands and confirmations have their order."""
        for _ in range(int(seconds)):
            messages = self._inbox + self.world.advance(1.0)
            self._inbox = []
            if messages:
                self._take(messages)
            self._act(self.engine.tick(self.now_ns))
            self.dispatcher.tick(self.now_ns)

    def _take(self, messages: list) -> None:
        count = len(messages)
        batch = Batch(
            kind=Kind.EVENTS,
            stamp=self._stamp(),
            topics=[message.topic for message in messages],
            formats=[Format.JSON] * count,
            flags=[1] * count,
            payloads=[message.payload for message in messages],
            values=[json.loads(message.payload) for message in messages],
        )
        self.dispatcher.observe(batch, self.now_ns)
        self._act(self.engine.run(batch))


def test_the_room_stays_within_its_band_plus_one_sensor_interval_for_a_day(tmp_path):
    """Law L9: the thermostat needs no uplink; what it may overshoot is what the room does in one interval."""
    house = VirtualHouse(tmp_path)
    room = house.world.room("living")
    for _ in range(6 * 60):  # until the band has been reached once
        house.advance(60)
        if ON_BELOW_C < room.balance.temperature_c < OFF_ABOVE_C:
            break
    temperatures, steps = [], []
    for _ in range(int(DAY_S / INTERVAL_S)):
        before = room.balance.temperature_c
        house.advance(INTERVAL_S)
        temperatures.append(room.balance.temperature_c)
        steps.append(abs(room.balance.temperature_c - before))
    slack_c = max(steps) + 0.1  # and what the sensor is wrong by
    print(f"{min(temperatures):.2f} to {max(temperatures):.2f} °C, at most {max(steps):.3f} °C an interval")
    assert min(temperatures) >= ON_BELOW_C - slack_c
    assert max(temperatures) <= OFF_ABOVE_C + slack_c


def test_the_heater_never_switches_faster_than_its_minimum_times(tmp_path):
    """Law: min_on and min_off hold for a day, whatever the sensor says."""
    house = VirtualHouse(tmp_path)
    house.advance(DAY_S)
    changes = house.switched
    assert len(changes) > 10
    for (at_s, state), (next_s, _) in pairwise(changes[1:]):
        assert next_s - at_s >= (MIN_ON_S if state == "ON" else MIN_OFF_S)


@pytest.mark.parametrize("silent_from_s", [7_200, 9_000, 12_345, 20_000])
def test_the_heater_goes_off_when_its_sensor_falls_silent(tmp_path, silent_from_s):
    """Law L10: within `stale_after` of the last reading, and it stays off."""
    house = VirtualHouse(tmp_path, Faults(silence=(Span("living", silent_from_s, channel="climate"),)))
    house.advance(silent_from_s + STALE_AFTER_S + 2)
    assert house.switched[-1][1] == "OFF"
    house.advance(4 * 3_600)
    assert house.switched[-1][1] == "OFF"
    assert house.switched[-1][0] <= silent_from_s + STALE_AFTER_S + 1

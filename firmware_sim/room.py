"""A room with a thermometer, a heater on a relay, and a door that people leave open for a minute.

    devices/<name>/climate       {"temperature": 20.53, "humidity": 48.1, "seq": ..., "ts": ...}  every sensor interval
    devices/<name>/heater/set    {"state": "ON" | "OFF"}                                          taken
    devices/<name>/heater/state  {"state": "ON", "cause": "command", ...}                         after each command
                                 cause: command | timeout | report (every minute) | connected
    devices/<name>/door          {"open": true, ...}                                              on each change

Invariants:
- The true temperature is a heat balance (`heat`); what is published differs from it by sensor noise only, at most
  `3 * SENSOR_SIGMA_C`, and by rounding to 0.01 °C.
- The relay moves `SWITCH_DELAY_S` after a command, and is confirmed when it has moved; a repeated one likewise.
- With a pulse timeout, the relay drops by itself when ON has not been repeated for so long: the last line of defence.
- A heater can always hold its room: more power than the worst loss with the door open.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from firmware_sim.device import Device
from firmware_sim.heat import HeatBalance
from firmware_sim.message import PREFIX
from firmware_sim.seeding import noise
from firmware_sim.weather import SmoothNoise, Weather, relative_humidity_pct

if TYPE_CHECKING:
    from random import Random

    from firmware_sim.message import Message

SENSOR_SIGMA_C = 0.01
SWITCH_DELAY_S = (0.2, 0.6)
STATE_INTERVAL_S = 60.0
_MAX_STEP_S = 60.0  # how coarsely the weather is followed
_DOOR_CLOSED_MEAN_S = 1_800.0
_DOOR_OPEN_S = (20.0, 90.0)
_SENSOR, _SWITCH, _STATE, _PULSE, _DOOR = "sensor", "switch", "state", "pulse", "door"


@dataclass(frozen=True, kw_only=True, slots=True)
class Building:
    """What a room is made of. The figures that follow from it are in README.md."""

    capacity_j_per_k: float
    loss_w_per_k: float
    open_door_w_per_k: float
    """Added to the loss while the door is open."""
    heater_w: float
    sun_w: float
    """At the strongest sunshine. Must not carry the room into its band by itself."""
    vapour_hpa: float
    start_c: float


GREENHOUSE = Building(
    capacity_j_per_k=1.0e6,
    loss_w_per_k=60.0,
    open_door_w_per_k=60.0,
    heater_w=3_000.0,
    sun_w=250.0,
    vapour_hpa=14.0,
    start_c=20.3,
)
LIVING_ROOM = Building(
    capacity_j_per_k=1.5e6,
    loss_w_per_k=60.0,
    open_door_w_per_k=60.0,
    heater_w=3_600.0,
    sun_w=200.0,
    vapour_hpa=11.0,
    start_c=20.8,
)


class ThermostatRoom(Device):
    """A room that something else keeps warm over MQTT."""

    kind = "thermostat"

    def __init__(
        self,
        name: str,
        rng: Random,
        start_ts_s: float,
        *,
        building: Building,
        weather: Weather,
        sensor_interval_s: float,
        pulse_timeout_s: float | None = None,
    ) -> None:
        super().__init__(name, rng, start_ts_s)
        self.building = building
        self.balance = HeatBalance(building.capacity_j_per_k, building.start_c)
        self.heater_on = False
        self.door_open = False
        self.switches = 0
        """How often the relay has changed."""
        self._wanted_on = False
        self._at_s = 0.0
        self._weather = weather
        self._vapour = SmoothNoise(rng, 1.3 * 3_600, 4.1 * 3_600)
        self._sensor_interval_s = sensor_interval_s
        self._pulse_timeout_s = pulse_timeout_s
        self._timers[_SENSOR] = rng.uniform(0.0, sensor_interval_s)
        self._timers[_STATE] = rng.uniform(0.0, STATE_INTERVAL_S)
        self._timers[_DOOR] = rng.expovariate(1 / _DOOR_CLOSED_MEAN_S)

    @property
    def set_topic(self) -> str:
        """Where commands to the heater arrive."""
        return f"{PREFIX}{self.name}/heater/set"

    def temperature_at(self, now_s: float) -> float:
        """The true temperature in °C, at or after the last step."""
        ahead = HeatBalance(self.balance.capacity_j_per_k, self.balance.temperature_c)
        self._live(ahead, self._at_s, now_s)
        return ahead.temperature_c

    def receive(self, topic: str, payload: bytes, now_s: float) -> list[Message]:
        """Take a command to the heater; the relay moves, and is confirmed, a little later."""
        wanted_on = _wanted_state(payload) if topic == self.set_topic else None
        if wanted_on is None:
            self.commands_rejected += 1
            return []
        self.commands += 1
        self._wanted_on = wanted_on
        self._timers[_SWITCH] = now_s + self.rng.uniform(*SWITCH_DELAY_S)
        if wanted_on and self._pulse_timeout_s is not None:
            self._timers[_PULSE] = now_s + self._pulse_timeout_s
        else:
            self._timers.pop(_PULSE, None)
        return []

    def hello(self, now_s: float) -> list[Message]:
        """The heater's state, for whoever missed a change."""
        return [self._say_state("connected", now_s)]

    def _fire(self, timer: str, due_s: float) -> list[Message]:
        self._live(self.balance, self._at_s, due_s)
        self._at_s = due_s
        match timer:
            case "sensor":
                self._timers[_SENSOR] = due_s + self._sensor_interval_s
                return [self._measure(due_s)]
            case "switch":
                del self._timers[_SWITCH]
                self._move(on=self._wanted_on)
                return [self._say_state("command", due_s)]
            case "pulse":
                del self._timers[_PULSE]
                # An ON that the relay has not yet followed came before the timeout and must not undo it.
                self._timers.pop(_SWITCH, None)
                self._move(on=False)
                return [self._say_state("timeout", due_s)]
            case "state":
                self._timers[_STATE] = due_s + STATE_INTERVAL_S
                return [self._say_state("report", due_s)]
            case _:
                return [self._swing_door(due_s)]

    def _measure(self, now_s: float) -> Message:
        true_c = self.balance.temperature_c
        vapour_hpa = self.building.vapour_hpa * (1 + 0.1 * self._vapour(now_s))
        humidity_pct = relative_humidity_pct(vapour_hpa, true_c) + noise(self.rng, 0.3)
        self.values = {
            "temperature": round(true_c + noise(self.rng, SENSOR_SIGMA_C), 2),
            "humidity": round(max(0.0, min(100.0, humidity_pct)), 1),
        }
        return self.say("climate", self.values, now_s)

    def _say_state(self, cause: str, now_s: float) -> Message:
        return self.say("heater/state", {"state": "ON" if self.heater_on else "OFF", "cause": cause}, now_s)

    def _move(self, *, on: bool) -> None:
        self.switches += on != self.heater_on
        self.heater_on = on

    def _swing_door(self, now_s: float) -> Message:
        self.door_open = not self.door_open
        self._timers[_DOOR] = now_s + (
            self.rng.uniform(*_DOOR_OPEN_S) if self.door_open else self.rng.expovariate(1 / _DOOR_CLOSED_MEAN_S)
        )
        return self.say("door", {"open": self.door_open}, now_s)

    def _live(self, balance: HeatBalance, from_s: float, to_s: float) -> None:
        """Advance a balance under the present states of heater and door."""
        building = self.building
        loss_w_per_k = building.loss_w_per_k + self.door_open * building.open_door_w_per_k
        while from_s < to_s:
            end_s = min(to_s, from_s + _MAX_STEP_S)
            middle_s = (from_s + end_s) / 2
            balance.advance(
                end_s - from_s,
                power_w=self.heater_on * building.heater_w + building.sun_w * self._weather.sunshine(middle_s),
                loss_w_per_k=loss_w_per_k,
                ambient_c=self._weather.outdoor_c(middle_s),
            )
            from_s = end_s


def _wanted_state(payload: bytes) -> bool | None:
    """What a command asks for; None if it is not understood."""
    try:
        command = json.loads(payload)
    except ValueError:
        return None
    state = command.get("state") if isinstance(command, dict) else None
    return {"ON": True, "OFF": False}.get(state) if isinstance(state, str) else None

"""Climate sensors: outdoors, indoors, and one in a freezer.

    devices/<name>/climate   {"temperature": 11.42, "humidity": 71.3, "pressure": 1009.8, "seq": ..., "ts": ...}

A freezer says no pressure. It keeps itself between `FREEZER_COLD_C` and `FREEZER_WARM_C` with its own compressor; once
in half a day somebody leaves its door open for twenty minutes or so, which carries it above -15 °C for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmware_sim.device import Device
from firmware_sim.heat import HeatBalance
from firmware_sim.seeding import noise
from firmware_sim.weather import SmoothNoise, Weather, daily, relative_humidity_pct

if TYPE_CHECKING:
    from random import Random

    from firmware_sim.message import Message

FREEZER_COLD_C, FREEZER_WARM_C = -20.0, -17.0
_FREEZER_J_PER_K = 60e3
_FREEZER_LOSS_W_PER_K, _FREEZER_DOOR_W_PER_K = 1.5, 12.0
_COMPRESSOR_W = 180.0
_KITCHEN_C = 20.0
_FORGOTTEN_MEAN_S = 12 * 3_600.0
_FORGOTTEN_S = (15 * 60.0, 25 * 60.0)
_SENSOR, _DOOR = "sensor", "door"


class ClimateSensor(Device):
    """Measures air outdoors, or in a room that somebody else keeps warm."""

    kind = "climate"

    def __init__(
        self, name: str, rng: Random, start_ts_s: float, *, weather: Weather, sensor_interval_s: float, outdoors: bool
    ) -> None:
        super().__init__(name, rng, start_ts_s)
        self._weather = weather
        self._outdoors = outdoors
        self._sensor_interval_s = sensor_interval_s
        self._mean_c = rng.uniform(19.0, 23.0)
        self._mean_hpa = rng.uniform(9.0, 13.0)
        self._wander = SmoothNoise(rng, 0.7 * 3_600, 2.9 * 3_600)
        self._timers[_SENSOR] = rng.uniform(0.0, sensor_interval_s)

    def temperature_at(self, now_s: float) -> float:
        """The true temperature in °C."""
        if self._outdoors:
            return self._weather.outdoor_c(now_s)
        return self._mean_c + 0.8 * daily(now_s, 17 * 3_600.0) + 0.4 * self._wander(now_s)

    def _fire(self, timer: str, due_s: float) -> list[Message]:
        self._timers[timer] = due_s + self._sensor_interval_s
        true_c = self.temperature_at(due_s)
        vapour_hpa = self._weather.vapour_hpa(due_s) if self._outdoors else self._mean_hpa
        humidity_pct = relative_humidity_pct(vapour_hpa, true_c) + noise(self.rng, 0.3)
        self.values = {
            "temperature": round(true_c + noise(self.rng, 0.02), 2),
            "humidity": round(max(0.0, min(100.0, humidity_pct)), 1),
            "pressure": round(self._weather.pressure_hpa(due_s) + noise(self.rng, 0.05), 1),
        }
        return [self.say("climate", self.values, due_s)]


class Freezer(Device):
    """A freezer that keeps itself cold, and a door that is sometimes forgotten."""

    kind = "climate"

    def __init__(self, name: str, rng: Random, start_ts_s: float, *, sensor_interval_s: float) -> None:
        super().__init__(name, rng, start_ts_s)
        self.balance = HeatBalance(_FREEZER_J_PER_K, rng.uniform(FREEZER_COLD_C, FREEZER_WARM_C))
        self.compressor_on = False
        self.door_open = False
        self._at_s = 0.0
        self._sensor_interval_s = sensor_interval_s
        self._timers[_SENSOR] = rng.uniform(0.0, sensor_interval_s)
        self._timers[_DOOR] = rng.expovariate(1 / _FORGOTTEN_MEAN_S)

    def temperature_at(self, now_s: float) -> float:
        """The true temperature in °C, at or after the last step."""
        return self.balance.after(
            now_s - self._at_s, power_w=self._power_w, loss_w_per_k=self._loss_w_per_k, ambient_c=_KITCHEN_C
        )

    @property
    def _power_w(self) -> float:
        return -_COMPRESSOR_W if self.compressor_on else 0.0

    @property
    def _loss_w_per_k(self) -> float:
        return _FREEZER_LOSS_W_PER_K + self.door_open * _FREEZER_DOOR_W_PER_K

    def _fire(self, timer: str, due_s: float) -> list[Message]:
        self.balance.advance(
            due_s - self._at_s, power_w=self._power_w, loss_w_per_k=self._loss_w_per_k, ambient_c=_KITCHEN_C
        )
        self._at_s = due_s
        if timer == _DOOR:
            self.door_open = not self.door_open
            pause_s = self.rng.uniform(*_FORGOTTEN_S) if self.door_open else self.rng.expovariate(1 / _FORGOTTEN_MEAN_S)
            self._timers[_DOOR] = due_s + pause_s
            return []
        self._timers[_SENSOR] = due_s + self._sensor_interval_s
        return [self._measure(due_s)]

    def _measure(self, now_s: float) -> Message:
        true_c = self.balance.temperature_c
        if true_c > FREEZER_WARM_C:
            self.compressor_on = True
        elif true_c < FREEZER_COLD_C:
            self.compressor_on = False
        self.values = {
            "temperature": round(true_c + noise(self.rng, 0.02), 2),
            "humidity": round(max(0.0, min(100.0, 60.0 + 15.0 * self.door_open + noise(self.rng, 1.0))), 1),
        }
        return self.say("climate", self.values, now_s)

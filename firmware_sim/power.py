"""An electricity meter: a base load with a daily curve, and appliances that come and go.

    devices/<name>/power   {"power_w": 312.4, "energy_wh": 18231.07, "seq": ..., "ts": ...}

Invariants:
- `power_w` is the mean since the last reading, so that energy_wh grows by exactly power_w x interval (to rounding).
- `energy_wh` never falls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmware_sim.device import Device
from firmware_sim.weather import SmoothNoise, daily

if TYPE_CHECKING:
    from random import Random

    from firmware_sim.message import Message

_APPLIANCE_PAUSE_MEAN_S = 1_200.0
_APPLIANCE_RUN_S = (120.0, 480.0)
_APPLIANCE_W = (800.0, 2_200.0)
_EVENING_S = 19 * 3_600.0
_SENSOR, _APPLIANCE = "sensor", "appliance"


class PowerMeter(Device):
    """Meters one household."""

    kind = "power"

    def __init__(self, name: str, rng: Random, start_ts_s: float, *, sensor_interval_s: float) -> None:
        super().__init__(name, rng, start_ts_s)
        self.energy_wh = rng.uniform(0.0, 20_000.0)
        self._base_w = rng.uniform(60.0, 180.0)
        self._wander = SmoothNoise(rng, 900.0, 2_700.0)
        self._appliance_w = 0.0
        self._at_s = self._read_at_s = 0.0
        self._read_wh = self.energy_wh
        self._sensor_interval_s = sensor_interval_s
        self._timers[_SENSOR] = rng.uniform(0.0, sensor_interval_s)
        self._timers[_APPLIANCE] = rng.expovariate(1 / _APPLIANCE_PAUSE_MEAN_S)

    def _fire(self, timer: str, due_s: float) -> list[Message]:
        middle_s = (self._at_s + due_s) / 2
        load_w = self._base_w * (1.5 + 0.5 * daily(middle_s, _EVENING_S) + 0.4 * self._wander(middle_s))
        self.energy_wh += (load_w + self._appliance_w) * (due_s - self._at_s) / 3_600
        self._at_s = due_s
        if timer == _APPLIANCE:
            self._switch_appliance(due_s)
            return []
        self._timers[_SENSOR] = due_s + self._sensor_interval_s
        return [self._read(due_s)]

    def _switch_appliance(self, now_s: float) -> None:
        if self._appliance_w:
            self._appliance_w = 0.0
            pause_s = self.rng.expovariate(1 / _APPLIANCE_PAUSE_MEAN_S)
        else:
            self._appliance_w = self.rng.uniform(*_APPLIANCE_W)
            pause_s = self.rng.uniform(*_APPLIANCE_RUN_S)
        self._timers[_APPLIANCE] = now_s + pause_s

    def _read(self, now_s: float) -> Message:
        interval_s = now_s - self._read_at_s
        power_w = (self.energy_wh - self._read_wh) * 3_600 / interval_s if interval_s else 0.0
        self._read_at_s, self._read_wh = now_s, self.energy_wh
        self.values = {"power_w": round(power_w, 1), "energy_wh": round(self.energy_wh, 3)}
        return self.say("power", self.values, now_s)

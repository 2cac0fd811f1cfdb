"""The weather that all rooms share: pure functions of simulated time.

Invariants:
- No state: asking twice, or in another order, gives the same answer, so the stream of messages does not depend on how
  often the world is asked to advance.
- Outdoors stays within `OUTDOOR_MEAN_C` ± (`DAILY_SWING_C` + `DRIFT_C`): rooms stay controllable by their heaters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from firmware_sim.seeding import stream

if TYPE_CHECKING:
    from random import Random

DAY_S = 86_400.0
START_OF_DAY_S = 6 * 3_600.0
"""Simulated time 0 is six in the morning."""

OUTDOOR_MEAN_C = 8.0
DAILY_SWING_C = 5.0
DRIFT_C = 1.5
_WARMEST_S = 15 * 3_600.0
_SUNRISE_S = 6 * 3_600.0
_VAPOUR_HPA, _VAPOUR_DRIFT_HPA = 7.5, 1.0
_PRESSURE_HPA, _PRESSURE_DRIFT_HPA = 1_013.0, 9.0


class SmoothNoise:
    """A random curve within [-1, 1] that wanders on several time scales at once."""

    def __init__(self, rng: Random, *periods_s: float) -> None:
        self._waves = [(math.tau / period_s, rng.uniform(0.0, math.tau)) for period_s in periods_s]

    def __call__(self, now_s: float) -> float:
        """The curve at a simulated time."""
        return sum(math.sin(rate * now_s + phase) for rate, phase in self._waves) / len(self._waves)


class Weather:
    """Temperature, sunshine, air pressure and humidity outdoors."""

    def __init__(self, seed: int) -> None:
        rng = stream(seed, "weather")
        self._drift = SmoothNoise(rng, 3.1 * 3_600, 7.7 * 3_600, 31 * 3_600)
        self._clouds = SmoothNoise(rng, 0.6 * 3_600, 2.3 * 3_600)
        self._vapour = SmoothNoise(rng, 5.3 * 3_600, 17 * 3_600)
        self._pressure = SmoothNoise(rng, 29 * 3_600, 67 * 3_600)

    def outdoor_c(self, now_s: float) -> float:
        """Air temperature: a daily curve, warmest in the afternoon, and slow drift."""
        return OUTDOOR_MEAN_C + DAILY_SWING_C * daily(now_s, _WARMEST_S) + DRIFT_C * self._drift(now_s)

    def sunshine(self, now_s: float) -> float:
        """Share of the strongest possible sunshine, 0 at night, at most 1."""
        height = math.sin(math.pi * (time_of_day_s(now_s) - _SUNRISE_S) / (DAY_S / 2))
        return max(0.0, height) * (0.7 + 0.3 * self._clouds(now_s))

    def vapour_hpa(self, now_s: float) -> float:
        """Partial pressure of water vapour outdoors."""
        return _VAPOUR_HPA + _VAPOUR_DRIFT_HPA * self._vapour(now_s)

    def pressure_hpa(self, now_s: float) -> float:
        """Air pressure."""
        return _PRESSURE_HPA + _PRESSURE_DRIFT_HPA * self._pressure(now_s)


def time_of_day_s(now_s: float) -> float:
    """Seconds since the last midnight of the simulated day."""
    return (now_s + START_OF_DAY_S) % DAY_S


def daily(now_s: float, peak_s: float) -> float:
    """A daily cosine within [-1, 1] that peaks at `peak_s` after midnight."""
    return math.cos(math.tau * (time_of_day_s(now_s) - peak_s) / DAY_S)


def relative_humidity_pct(vapour_hpa: float, temperature_c: float) -> float:
    """Relative humidity of air that holds so much vapour (Magnus formula over water), at most 100."""
    saturation_hpa = 6.112 * math.exp(17.62 * temperature_c / (243.12 + temperature_c))
    return min(100.0, 100.0 * vapour_hpa / saturation_hpa)

"""Which devices a fleet of a given size has. The first four have names that shipped rules use.

    1  greenhouse   thermostat room, light building     3  freezer   climate
    2  living       thermostat room, heavy building     4  outdoor   climate
    5, 6, 7, 8 ...  climate-05, power-06, door-07, climate-08 ...

Invariant: device number n is the same device, message for message, in every fleet of at least n devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from firmware_sim.climate import ClimateSensor, Freezer
from firmware_sim.door import DoorSensor
from firmware_sim.power import PowerMeter
from firmware_sim.room import GREENHOUSE, LIVING_ROOM, ThermostatRoom
from firmware_sim.seeding import stream

if TYPE_CHECKING:
    from firmware_sim.device import Device
    from firmware_sim.weather import Weather

NAMED = ("greenhouse", "living", "freezer", "outdoor")
_KINDS = ("climate", "power", "door")

SENSOR_INTERVAL_S = 30.0
"""Simulated seconds between readings, unless said otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Habits:
    """What all devices of a fleet have in common. Simulated seconds."""

    sensor_interval_s: float = SENSOR_INTERVAL_S
    door_closed_mean_s: float = 300.0
    door_open_mean_s: float = 40.0
    pulse_timeout_s: float | None = None
    """After how long a heater's relay drops by itself; None: never."""
    start_ts_s: float = 1_767_247_200.0
    """Unix time at simulated time 0: the first of January 2026, 06:00 UTC."""


def device_names(count: int) -> list[str]:
    """The names of the first `count` devices."""
    return [
        NAMED[number - 1] if number <= len(NAMED) else f"{_KINDS[(number - 5) % len(_KINDS)]}-{number:02d}"
        for number in range(1, count + 1)
    ]


def build(seed: int, count: int, habits: Habits, weather: Weather) -> list[Device]:
    """The first `count` devices, each with a stream of random numbers of its own."""
    return [_build(name, seed, habits, weather) for name in device_names(count)]


def _build(name: str, seed: int, habits: Habits, weather: Weather) -> Device:
    rng = stream(seed, "device", name)
    start_ts_s, interval_s = habits.start_ts_s, habits.sensor_interval_s
    if name in ("greenhouse", "living"):
        return ThermostatRoom(
            name,
            rng,
            start_ts_s,
            building=GREENHOUSE if name == "greenhouse" else LIVING_ROOM,
            weather=weather,
            sensor_interval_s=interval_s,
            pulse_timeout_s=habits.pulse_timeout_s,
        )
    if name == "freezer":
        return Freezer(name, rng, start_ts_s, sensor_interval_s=interval_s)
    if name.startswith("power"):
        return PowerMeter(name, rng, start_ts_s, sensor_interval_s=interval_s)
    if name.startswith("door"):
        return DoorSensor(
            name, rng, start_ts_s, closed_mean_s=habits.door_closed_mean_s, open_mean_s=habits.door_open_mean_s
        )
    return ClimateSensor(
        name, rng, start_ts_s, weather=weather, sensor_interval_s=interval_s, outdoors=name == "outdoor"
    )

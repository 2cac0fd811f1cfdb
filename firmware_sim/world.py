"""All devices of a fleet in simulated time, without a network: a simulated day takes a fraction of a second.

    world = World(seed=7, devices=1, sensor_interval_s=10)
    for message in world.advance(10):        # what was said in these ten seconds
        ...
    world.command("devices/greenhouse/heater/set", b'{"state": "ON"}')

Invariants:
- The stream is a function of the seed, the habits, the faults, and the commands with their times. How finely time is
  advanced changes nothing.
- Messages come in the order of simulated time; at the same instant, in the order of the devices.
- Time never goes back.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from firmware_sim.catalogue import SENSOR_INTERVAL_S, Habits, build
from firmware_sim.errors import OptionError
from firmware_sim.faults import FaultChain, Faults
from firmware_sim.message import PREFIX
from firmware_sim.room import ThermostatRoom
from firmware_sim.weather import Weather

if TYPE_CHECKING:
    from collections.abc import Mapping

    from firmware_sim.device import Device
    from firmware_sim.message import Message


class World:
    """Devices, weather and faults.

    Args:
        seed: everything random follows from it.
        devices: how many, from 1; see `firmware_sim.catalogue` for which.
        sensor_interval_s: simulated seconds between readings of a sensor, greater than 0.
        habits: all other habits; its own sensor interval is not looked at.
        faults: what goes wrong.

    Raises:
        OptionError: if a number is out of range, or a fault names a device that is not there.
    """

    def __init__(
        self,
        seed: int,
        devices: int,
        sensor_interval_s: float = SENSOR_INTERVAL_S,
        *,
        habits: Habits | None = None,
        faults: Faults | None = None,
    ) -> None:
        if devices < 1:
            raise OptionError(f"{devices} devices are too few: at least 1 is needed")
        if not 0 < sensor_interval_s < math.inf:
            raise OptionError(f"a sensor interval of {sensor_interval_s} s is not a positive duration")
        self.now_s = 0.0
        self.weather = Weather(seed)
        habits = replace(habits or Habits(), sensor_interval_s=sensor_interval_s)
        self._built = build(seed, devices, habits, self.weather)
        self._index = {device.name: index for index, device in enumerate(self._built)}
        self.devices: Mapping[str, Device] = {device.name: device for device in self._built}
        self._faults = FaultChain(_checked(faults or Faults(), self.devices), seed)
        # (when, whose), each pair once. Every device has a current entry; an outdated one goes when its time comes.
        self._agenda: list[tuple[float, int]] = []
        self._listed: set[tuple[float, int]] = set()
        for index in range(devices):
            self._schedule(index)

    @property
    def next_due_s(self) -> float:
        """When, in simulated time, something happens next. May be early, never late."""
        return self._agenda[0][0]

    @property
    def fault_counts(self) -> Mapping[str, int]:
        """How often each fault struck, by its name."""
        return self._faults.counts

    def room(self, name: str = "greenhouse") -> ThermostatRoom:
        """A thermostat room, to look at its true state.

        Raises:
            KeyError: if there is no such room.
        """
        device = self.devices[name]
        if not isinstance(device, ThermostatRoom):
            raise KeyError(name)
        return device

    def advance(self, dt_s: float) -> list[Message]:
        """Let time pass and return what the devices sent meanwhile."""
        return self.advance_to(self.now_s + dt_s)

    def advance_to(self, now_s: float) -> list[Message]:
        """Let time pass up to and including `now_s`; a time that has passed already changes nothing."""
        said: list[Message] = []
        agenda = self._agenda
        while agenda[0][0] <= now_s:
            entry = heapq.heappop(agenda)
            self._listed.discard(entry)
            due_s, index = entry
            if due_s == self._built[index].next_due_s:
                said += self._built[index].step(due_s)
                self._schedule(index)
        self.now_s = max(self.now_s, now_s)
        return self._faults.feed(said)

    def command(self, topic: str, payload: bytes) -> list[Message]:
        """Hand a command to the device that its topic names, now. Unknown devices and deaf ones ignore it.

        Returns:
            What is sent at once; confirmations come later, out of `advance`.
        """
        name = topic.removeprefix(PREFIX).partition("/")[0]
        device = self.devices.get(name)
        if device is None or not topic.startswith(PREFIX) or not self._faults.hears(name, self.now_s):
            return []
        said = device.receive(topic, payload, self.now_s)
        self._schedule(self._index[name])
        return self._faults.feed(said)

    def hello(self, name: str) -> list[Message]:
        """What a device says now that it has connected."""
        return self._faults.feed(self.devices[name].hello(self.now_s))

    def flush(self) -> list[Message]:
        """What reordering still holds back, at the end."""
        return self._faults.flush()

    def _schedule(self, index: int) -> None:
        entry = (self._built[index].next_due_s, index)
        if entry not in self._listed:
            self._listed.add(entry)
            heapq.heappush(self._agenda, entry)


def _checked(faults: Faults, devices: Mapping[str, Device]) -> Faults:
    unknown = sorted(faults.devices() - devices.keys())
    if unknown:
        raise OptionError(f"there is no device {unknown[0]!r}; there are {', '.join(devices)}")
    return faults

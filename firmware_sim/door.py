"""A door contact: openings arrive as a Poisson process, and it speaks only when something changes.

    devices/<name>/door   {"open": true, "seq": ..., "ts": ...}

Invariant: `open` alternates, beginning with true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmware_sim.device import Device

if TYPE_CHECKING:
    from random import Random

    from firmware_sim.message import Message

_DOOR = "door"


class DoorSensor(Device):
    """One door that people use."""

    kind = "door"

    def __init__(self, name: str, rng: Random, start_ts_s: float, *, closed_mean_s: float, open_mean_s: float) -> None:
        super().__init__(name, rng, start_ts_s)
        self.values = {"open": False}
        self._closed_mean_s = closed_mean_s
        self._open_mean_s = open_mean_s
        self._timers[_DOOR] = rng.expovariate(1 / closed_mean_s)

    def _fire(self, timer: str, due_s: float) -> list[Message]:
        is_open = not self.values["open"]
        self.values = {"open": is_open}
        self._timers[timer] = due_s + self.rng.expovariate(1 / (self._open_mean_s if is_open else self._closed_mean_s))
        return [self.say("door", self.values, due_s)]

"""What all simulated devices have in common: a name, a count, and timers in simulated time.

`step(now_s)` fires every timer that is due and returns what the device says; `next_due_s` says when to call again.

Invariants:
- A timer fires at its own time, never at the time of the call: stepping once over an hour, or every second, gives the
  same messages.
- All randomness comes from the stream given at construction.
- Timers due at the same instant fire in the order in which they were first set.
"""

from __future__ import annotations

import math
from abc import ABC
from typing import TYPE_CHECKING, ClassVar

from firmware_sim.message import Fields, Message

if TYPE_CHECKING:
    from random import Random


class Device(ABC):
    """One device: a state machine over simulated time."""

    kind: ClassVar[str]
    """For people: `thermostat`, `climate`, `power`, `door`."""

    def __init__(self, name: str, rng: Random, start_ts_s: float) -> None:
        self.name = name
        self.rng = rng
        self.seq = 0
        """Number of the latest message."""
        self.values: Fields = {}
        """What it last said on its main channel, without `seq` and `ts`."""
        self.commands = 0
        """Understood and carried out."""
        self.commands_rejected = 0
        """Not understood, and ignored."""
        self._start_ts_s = start_ts_s
        self._timers: dict[str, float] = {}

    @property
    def next_due_s(self) -> float:
        """When the device has something to do next; infinity if never."""
        return min(self._timers.values(), default=math.inf)

    def step(self, now_s: float) -> list[Message]:
        """Do everything that is due up to and including `now_s`, in order."""
        messages: list[Message] = []
        timers = self._timers
        while self.next_due_s <= now_s:
            timer = min(timers, key=timers.__getitem__)
            messages += self._fire(timer, timers[timer])
        return messages

    def receive(self, topic: str, payload: bytes, now_s: float) -> list[Message]:
        """Take a command; what it leads to comes from a later `step`. What is not understood is counted and ignored.

        Call `step(now_s)` first, so that the device has lived up to this instant.
        """
        del topic, payload, now_s
        self.commands_rejected += 1
        return []

    def hello(self, now_s: float) -> list[Message]:
        """What the device says after it has connected."""
        del now_s
        return []

    def say(self, channel: str, values: Fields, now_s: float, *, retain: bool = False) -> Message:
        """The next message of this device, numbered and stamped."""
        self.seq += 1
        fields = {**values, "seq": self.seq, "ts": round(self._start_ts_s + now_s, 3)}
        return Message(self.name, channel, fields, now_s, retain)

    def _fire(self, timer: str, due_s: float) -> list[Message]:
        """Act on a timer, and set or delete it: one that stays due would fire for ever."""
        raise NotImplementedError(timer, due_s)


class Hub(Device):
    """Stands for a connection that several devices share: it only says whether it is there."""

    kind = "hub"

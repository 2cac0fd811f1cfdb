"""The last gate before any actuator. Rules propose; what stands here holds whatever they propose.

Invariants:
- `off` is the safe direction: always allowed, however often and however soon.
- An actuator whose state is not known counts as on: it may be switched off, and its `max_on` runs.
- A command older than `max_age_s` moves nothing: what was decided on yesterday's readings is history.
- Durations are the log's elapsed time; no wall clock comes near an actuator (L11).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from gateway.model import ActuatorLimits, Command

if TYPE_CHECKING:
    from collections.abc import Mapping

RATE_PER_MINUTE = 20
"""Switchings of one actuator that are let through in a minute. More is a loop, not a need."""
_MINUTE_NS = 60_000_000_000
_NO_LIMITS = ActuatorLimits()


class Allow(NamedTuple):
    """Let it through."""


class Deny(NamedTuple):
    """Not now, and why."""

    reason: str


class Expired(NamedTuple):
    """Too old to act on."""

    age_s: float


class _Actuator:
    __slots__ = ("sent_ns", "since_ns", "state")

    def __init__(self, now_ns: int) -> None:
        self.state: str | None = None
        self.since_ns = now_ns
        self.sent_ns: deque[int] = deque(maxlen=RATE_PER_MINUTE)


class Interlock:
    """Knows the last commanded state of each actuator. Pure: time comes as an argument."""

    def __init__(self, limits: Mapping[str, ActuatorLimits], max_age_s: float) -> None:
        """See the module.

        Args:
            limits: by command topic; an actuator that is not listed is held to age and rate alone.
            max_age_s: how old a decision may be.
        """
        self._limits = limits
        self.max_age_ns = int(max_age_s * 1e9)
        self._actuators: dict[str, _Actuator] = {}

    def judge(self, command: Command, decided_ns: int, now_ns: int) -> Allow | Deny | Expired:
        """Whether a command may go out now. Does not count it as sent: `note` does."""
        age_ns = now_ns - decided_ns
        if age_ns > self.max_age_ns:
            return Expired(age_ns / 1e9)
        if command.state == "off":
            return Allow()
        actuator = self._actuators.get(command.topic)
        if actuator is None:
            return Allow()
        limits = self._limits.get(command.topic, _NO_LIMITS)
        held_s = (now_ns - actuator.since_ns) / 1e9
        if command.state == "on":
            if actuator.state == "off" and held_s < limits.min_off_s:
                return Deny(f"off for {held_s:.0f} s, min_off is {limits.min_off_s:.0f} s")
            if actuator.state == "on" and limits.max_on_s is not None and held_s >= limits.max_on_s:
                return Deny(f"on for {held_s:.0f} s, max_on is {limits.max_on_s:.0f} s")
        sent_ns = actuator.sent_ns
        if len(sent_ns) == RATE_PER_MINUTE and now_ns - sent_ns[0] < _MINUTE_NS:
            return Deny(f"{RATE_PER_MINUTE} commands within a minute")
        return Allow()

    def note(self, command: Command, now_ns: int) -> None:
        """A command has gone out."""
        actuator = self._actuators.get(command.topic)
        if actuator is None:
            actuator = self._actuators[command.topic] = _Actuator(now_ns)
        if command.state is not None and command.state != actuator.state:
            actuator.state = command.state
            actuator.since_ns = now_ns
        actuator.sent_ns.append(now_ns)

    def tick(self, now_ns: int) -> list[Command]:
        """The safe commands of actuators that have been on for longer than their `max_on`."""
        return [
            limits.safe
            for topic, limits in self._limits.items()
            if limits.safe is not None and (due_ns := self._due_ns(topic, limits)) is not None and due_ns <= now_ns
        ]

    @property
    def deadline_ns(self) -> int | None:
        """When `tick` has something to do next."""
        due = (self._due_ns(topic, limits) for topic, limits in self._limits.items())
        return min((each for each in due if each is not None), default=None)

    def safe_commands(self) -> list[Command]:
        """What puts every actuator into its stated safe state."""
        return [limits.safe for limits in self._limits.values() if limits.safe is not None]

    def states(self) -> dict[str, str | None]:
        """Last commanded state by topic."""
        return {topic: actuator.state for topic, actuator in self._actuators.items()}

    def _due_ns(self, topic: str, limits: ActuatorLimits) -> int | None:
        actuator = self._actuators.get(topic)
        if actuator is None or actuator.state == "off" or limits.max_on_s is None:
            return None
        return actuator.since_ns + int(limits.max_on_s * 1e9)

"""The last gate before any actuator. Rules propose; what stands here holds whatever they propose.

Invariants:
- `off` is the safe direction: neither a rest nor the rate holds it back.
- An actuator whose state is not known counts as on: it may be switched off, and its `max_on` runs. Not known is what
  nobody has commanded since the start, and what was told to go off and did not confirm it.
- An actuator that is on past its `max_on` is told to go off again and again until it is off.
- A command older than `max_age_s` moves nothing: what was decided on yesterday's readings is history.
- Durations are the log's elapsed time; no wall clock comes near an actuator (L11).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.model import ActuatorLimits, Command

if TYPE_CHECKING:
    from collections.abc import Mapping

RATE_PER_MINUTE = 20
"""Switchings of one actuator that are let through in a minute. More is a loop, not a need."""
REPEAT_S = 60.0
"""How often an actuator past its `max_on` is told to go off."""
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
    __slots__ = ("off_since_ns", "on_since_ns", "sent_ns", "state", "told_off_ns", "was_on_since_ns")

    def __init__(self, now_ns: int) -> None:
        self.state: str | None = None
        """As last commanded; None: nobody has since the start."""
        self.on_since_ns: int | None = now_ns
        """Since when it may be on; None: it is off."""
        self.was_on_since_ns: int | None = None
        """`on_since_ns` before it was commanded off: if that turns out to have failed, it has been on since then."""
        self.off_since_ns: int | None = None
        """Since when it is commanded off."""
        self.told_off_ns: int | None = None
        """When `tick` last asked for it to be switched off."""
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
        self._capped = {
            topic: (each.max_on_s, off)
            for topic, each in limits.items()
            if each.max_on_s is not None and (off := _off_command(each)) is not None
        }
        self._has_begun = False
        self._deadline_ns: int | None = None

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
        if command.state == "on":
            why_not = _why_not_on(actuator, self._limits.get(command.topic, _NO_LIMITS), now_ns)
            if why_not:
                return Deny(why_not)
        sent_ns = actuator.sent_ns
        if len(sent_ns) == RATE_PER_MINUTE and now_ns - sent_ns[0] < _MINUTE_NS:
            return Deny(f"{RATE_PER_MINUTE} commands within a minute")
        return Allow()

    def note(self, command: Command, now_ns: int) -> None:
        """A command has gone out."""
        actuator = self._actuators.get(command.topic)
        if actuator is None:
            actuator = self._actuators[command.topic] = _Actuator(now_ns)
        actuator.sent_ns.append(now_ns)
        if command.state == "on":
            if actuator.on_since_ns is None:
                actuator.on_since_ns, actuator.told_off_ns = now_ns, None
            actuator.off_since_ns = None
        elif command.state == "off":
            if actuator.on_since_ns is not None:
                actuator.was_on_since_ns, actuator.on_since_ns = actuator.on_since_ns, None
            if actuator.off_since_ns is None:
                actuator.off_since_ns = now_ns
        else:
            return
        actuator.state = command.state
        self._plan()

    def doubt(self, command: Command) -> None:
        """A command was never confirmed: what was told to go off may still be on."""
        actuator = self._actuators.get(command.topic)
        if actuator is not None and command.state == "off" == actuator.state and actuator.on_since_ns is None:
            actuator.on_since_ns = actuator.was_on_since_ns
            self._plan()

    def tick(self, now_ns: int) -> list[Command]:
        """What switches off the actuators that have been on for longer than their `max_on`.

        The first call begins the time of those that nobody has commanded yet.
        """
        if not self._has_begun:
            self._has_begun = True
            for topic in self._capped:
                self._actuators.setdefault(topic, _Actuator(now_ns))
            self._plan()
        if self._deadline_ns is None or now_ns < self._deadline_ns:
            return []
        commands = []
        for topic, (_, off) in self._capped.items():
            due_ns = self._due_ns(topic)
            if due_ns is not None and due_ns <= now_ns:
                actuator = self._actuators[topic]
                # Who is to be told that it does not answer has been told the first time.
                commands.append(off if actuator.told_off_ns is None else msgspec.structs.replace(off, otherwise=()))
                actuator.told_off_ns = now_ns
        self._plan()
        return commands

    @property
    def deadline_ns(self) -> int | None:
        """When `tick` has something to do next."""
        return self._deadline_ns

    def safe_commands(self) -> list[Command]:
        """What puts every actuator into its stated safe state."""
        return [limits.safe for limits in self._limits.values() if limits.safe is not None]

    def states(self) -> dict[str, str | None]:
        """Last commanded state by topic."""
        return {topic: actuator.state for topic, actuator in self._actuators.items()}

    def _plan(self) -> None:
        due = (self._due_ns(topic) for topic in self._capped)
        self._deadline_ns = min((each for each in due if each is not None), default=None)

    def _due_ns(self, topic: str) -> int | None:
        actuator = self._actuators.get(topic)
        if actuator is None or actuator.on_since_ns is None:
            return None
        due_ns = actuator.on_since_ns + int(self._capped[topic][0] * 1e9)
        if actuator.told_off_ns is None:
            return due_ns
        return max(due_ns, actuator.told_off_ns + int(REPEAT_S * 1e9))


def _off_command(limits: ActuatorLimits) -> Command | None:
    if limits.off is not None:
        return limits.off
    return limits.safe if limits.safe is not None and limits.safe.state == "off" else None


def _why_not_on(actuator: _Actuator, limits: ActuatorLimits, now_ns: int) -> str:
    if actuator.off_since_ns is not None:
        off_s = (now_ns - actuator.off_since_ns) / 1e9
        if off_s < limits.min_off_s:
            return f"off for {off_s:.0f} s, min_off is {limits.min_off_s:.0f} s"
    if actuator.on_since_ns is not None and limits.max_on_s is not None:
        on_s = (now_ns - actuator.on_since_ns) / 1e9
        if on_s >= limits.max_on_s:
            return f"on for {on_s:.0f} s, max_on is {limits.max_on_s:.0f} s"
    return ""

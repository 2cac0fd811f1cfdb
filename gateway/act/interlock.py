"""The last gate before any actuator. Rules propose; what stands here holds whatever they propose.

Invariants:
- `off` is the safe direction: neither a rest nor the rate holds it back.
- An actuator whose state is not known counts as on: it may be switched off, and its `max_on` runs. Not known is what
  nobody has commanded as far back as is remembered, and what was told to go off and did not confirm it.
- An actuator that is on past its `max_on` is told to go off again and again until it is off.
- A command older than `max_age_s` moves nothing: what was decided on yesterday's readings is history.
- Once actuators have been made safe, nothing but `off` passes any more.
- What it knows is a function of the log (L12): `gateway.act.recall` gives a new interlock what the old one knew, from
  `oldest_seq` on. `standings` says all of it anew, so that no restart has to read far, and no eviction takes it away.
- What a command costs does not grow with the number of actuators (L13). When there are too many, those at rest that
  only a pattern names are forgotten.
- Durations are the log's elapsed time; no wall clock comes near an actuator (L11).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.act.actuator import NO_LIMITS, RATE_PER_MINUTE, REPEAT_S, Actuator, Moment, off_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.act.actuator import Standing
    from gateway.model import ActuatorLimits, Command

INTERLOCK = "interlock"
"""Stands in the place of a rule's id where the cap has switched something off."""
_MOST_KNOWN = 50_000
"""Beyond so many actuators, those at rest are forgotten."""


class Allow(NamedTuple):
    """Let it through."""


class Deny(NamedTuple):
    """Not now, and why."""

    reason: str


class Expired(NamedTuple):
    """Too old to act on."""

    age_s: float


class Interlock:
    """Knows the last commanded state of each actuator. Pure: time comes as an argument."""

    def __init__(
        self, limits: Mapping[str, ActuatorLimits], max_age_s: float, *, most_known: int = _MOST_KNOWN
    ) -> None:
        """See the module.

        Args:
            limits: by command topic; an actuator that is not there is held to age and rate alone. May know more topics
                than it names by iterating: what holds for those is asked for when they are first commanded.
            max_age_s: how old a decision may be.
            most_known: beyond so many actuators, those at rest that are not named are forgotten.
        """
        self._limits = limits
        self._named = dict(limits)
        self.max_age_ns = int(max_age_s * 1e9)
        self._actuators: dict[str, Actuator] = {}
        self._most_known = self._room = most_known
        self._due: list[tuple[int, str]] = []
        """A heap of (due_ns, topic): when caps are over. What is due at another time by now is passed over."""
        self._held: list[tuple[int, str]] = []
        """A heap of (seq, topic): no actuator needs an older record than it has here."""
        self._has_begun = False
        self._closed_because = ""

    def judge(self, command: Command, decided_ns: int, now_ns: int) -> Allow | Deny | Expired:
        """Whether a command may go out now. Does not count it as sent: `note` does."""
        age_ns = now_ns - decided_ns
        if age_ns > self.max_age_ns:
            return Expired(age_ns / 1e9)
        if command.state == "off":
            return Allow()
        if self._closed_because:
            return Deny(f"actuators have been made safe: {self._closed_because}")
        actuator = self._actuators.get(command.topic)
        if actuator is None:
            return Allow()
        why_not = actuator.why_not_on(now_ns) if command.state == "on" else ""
        if why_not:
            return Deny(why_not)
        if actuator.is_flooded(now_ns):
            return Deny(f"{RATE_PER_MINUTE} commands within a minute")
        return Allow()

    def learn(self, limits: Mapping[str, ActuatorLimits]) -> None:
        """Hold actuators to other limits from now on. What is known of them stays."""
        self._limits, self._named = limits, dict(limits)
        for topic, actuator in self._actuators.items():
            actuator.hold_to(limits.get(topic, NO_LIMITS), is_named=topic in self._named)
        self._has_begun = False
        self._plan_all()

    def close(self, because: str) -> None:
        """Let nothing pass from now on but `off`. `because`: for whoever is denied."""
        self._closed_because = because

    def is_closed_to(self, command: Command) -> bool:
        """Whether a command that once passed may not even be said again."""
        return bool(self._closed_because) and command.state != "off"

    def note(self, command: Command, now_ns: int, seq: int | None = None, *, for_cap: bool = False) -> None:
        """A command has gone out.

        Args:
            command: which.
            now_ns: when.
            seq: the record of its decision, if it has one.
            for_cap: it is what `tick` asked for.
        """
        actuator = self._actuators.get(command.topic)
        if actuator is None:
            actuator = self._new(command.topic, Moment(now_ns, None), now_ns)
            if for_cap:
                # What the cap switches off had been on for all of it, also where the log no longer tells since when.
                actuator.on_since = Moment(now_ns - actuator.max_on_ns, None)
        actuator.sent_ns.append(now_ns)
        actuator.forget_until_rested(now_ns)
        moment = Moment(now_ns, seq)
        if command.state == "on":
            actuator.turn_on(moment)
        elif command.state == "off":
            was_on_since = actuator.maybe_on_since
            actuator.turn_off(moment, will_answer=command.expect is not None)
            if for_cap and was_on_since is not None and was_on_since.seq != seq:
                actuator.told_off_ns = now_ns
                if actuator.was_on_since is not None:
                    # That it is past its cap is all that has to be known of it from now on, and this record tells.
                    actuator.was_on_since = actuator.was_on_since._replace(seq=seq)
        self._plan(command.topic, actuator)

    def suspect(self, command: Command, from_ns: int, to_ns: int, seq: int, *, for_cap: bool = False) -> None:
        """Former lives may have sent this, at any time in between, or held it back.

        As to the cap the actuator is on from the beginning, as to the rest it is off from the end.
        """
        actuator = self._actuators.get(command.topic)
        was_on = actuator is not None and actuator.state == "on"
        if command.state == "off":
            self.note(command, from_ns, seq, for_cap=for_cap)
            self.doubt(command)
            actuator = self._actuators[command.topic]
            if actuator.off_since == Moment(from_ns, seq):
                actuator.off_since = Moment(to_ns, seq)
            if was_on:
                actuator.state = "on"  # the next `off` may be the first that it hears: its rest begins there
        elif command.state == "on":
            if actuator is None:
                actuator = self._new(command.topic, Moment(from_ns, seq), to_ns)
            actuator.on_since = actuator.maybe_on_since or Moment(from_ns, seq)
            actuator.state = "on"
            self._plan(command.topic, actuator)

    def settle(self, command: Command) -> None:
        """The device says that it has done what it was told to."""
        actuator = self._actuators.get(command.topic)
        if actuator is not None and command.state == "off" == actuator.state:
            actuator.was_on_since = None

    def doubt(self, command: Command) -> None:
        """A command was never confirmed: what was told to go off may still be on."""
        actuator = self._actuators.get(command.topic)
        if actuator is not None and command.state == "off" == actuator.state and actuator.on_since is None:
            actuator.on_since = actuator.was_on_since
            self._plan(command.topic, actuator)

    def tick(self, now_ns: int) -> list[Command]:
        """What switches off the actuators that have been on for longer than their `max_on`.

        The first call begins the time of those that nobody has commanded yet.
        """
        if not self._has_begun:
            self._has_begun = True
            for topic, limits in self._named.items():
                if topic not in self._actuators and off_command(limits) is not None:
                    self._plan(topic, self._new(topic, Moment(now_ns, None), now_ns))
        commands = []
        while (due_ns := self.deadline_ns) is not None and due_ns <= now_ns:
            topic = heappop(self._due)[1]
            actuator = self._actuators[topic]
            assert actuator.off is not None, "nothing else is due"
            # Who is to be told that it does not answer has been told the first time.
            is_first = actuator.told_off_ns is None
            commands.append(actuator.off if is_first else msgspec.structs.replace(actuator.off, otherwise=()))
            actuator.told_off_ns = now_ns
            self._plan(topic, actuator)
        return commands

    @property
    def deadline_ns(self) -> int | None:
        """When `tick` has something to do next."""
        due = self._due
        while due:
            due_ns, topic = due[0]
            actuator = self._actuators.get(topic)
            if actuator is not None and actuator.due_ns == due_ns:
                return due_ns
            heappop(due)
        return None

    def oldest_seq(self, now_ns: int) -> int | None:
        """The oldest record on which what it knows rests: a restart must read from there. None: there is none."""
        held = self._held
        while held:
            seq, topic = held[0]
            actuator = self._actuators.get(topic)
            oldest_seq = None if actuator is None else actuator.oldest_seq(now_ns)
            if oldest_seq == seq:
                return seq
            heappop(held)
            if oldest_seq is not None:
                heappush(held, (oldest_seq, topic))
        return None

    def standings(self) -> list[Standing]:
        """All that a restart has to know, of each actuator of which it has to know something."""
        known = self._actuators.items()
        return [actuator.standing(topic) for topic, actuator in known if next(actuator.needed(), None) is not None]

    def rest_upon(self, standings: Sequence[Standing], first_seq: int) -> None:
        """They are in the log, from `first_seq` on: what they tell needs no older record any more."""
        for seq, standing in enumerate(standings, first_seq):
            actuator = self._actuators.get(standing.topic)
            if actuator is not None:
                actuator.rest_upon(standing, seq)
                self._plan(standing.topic, actuator)

    def adopt(self, standing: Standing, seq: int) -> None:
        """Know of an actuator what a record of the log tells, whatever older ones have told."""
        actuator = self._actuators.get(standing.topic)
        if actuator is None:
            actuator = self._new(standing.topic, Moment(0, seq), standing.told_off_ns or 0)
        actuator.adopt(standing, seq)
        self._plan(standing.topic, actuator)

    def safe_commands(self) -> list[Command]:
        """What puts every actuator that is known by name into its stated safe state."""
        limits = {topic: actuator.limits for topic, actuator in self._actuators.items()}
        return [each.safe for each in (self._named | limits).values() if each.safe is not None]

    def states(self) -> dict[str, str | None]:
        """Last commanded state by topic."""
        return {topic: actuator.state for topic, actuator in self._actuators.items()}

    def _new(self, topic: str, on_since: Moment, now_ns: int) -> Actuator:
        if len(self._actuators) >= self._room:
            self._actuators = {name: each for name, each in self._actuators.items() if not each.is_at_rest(now_ns)}
            # Where all of them count there is nothing to forget, and asking each time would cost too much.
            self._room = max(self._most_known, len(self._actuators) * 5 // 4)
        limits = self._limits.get(topic, NO_LIMITS)
        actuator = self._actuators[topic] = Actuator(limits, on_since, is_named=topic in self._named)
        return actuator

    def _plan(self, topic: str, actuator: Actuator) -> None:
        """After a change: when it is due now, and which records it needs now."""
        if (due_ns := actuator.due_ns) is not None:
            heappush(self._due, (due_ns, topic))
        if (seq := actuator.oldest_seq()) is not None:
            heappush(self._held, (seq, topic))
        if len(self._due) + len(self._held) > 4 * len(self._actuators) + 64:
            self._plan_all()

    def _plan_all(self) -> None:
        dues = ((actuator.due_ns, topic) for topic, actuator in self._actuators.items())
        self._due = [(due_ns, topic) for due_ns, topic in dues if due_ns is not None]
        seqs = ((actuator.oldest_seq(), topic) for topic, actuator in self._actuators.items())
        self._held = [(seq, topic) for seq, topic in seqs if seq is not None]
        heapify(self._due)
        heapify(self._held)


__all__ = ["INTERLOCK", "RATE_PER_MINUTE", "REPEAT_S", "Allow", "Deny", "Expired", "Interlock"]

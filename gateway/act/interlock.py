"""The last gate before any actuator. Rules propose; what stands here holds whatever they propose.

Invariants:
- `off` is the safe direction: neither a rest nor the rate holds it back.
- An actuator whose state is not known counts as on: it may be switched off, and its `max_on` runs. Not known is what
  nobody has commanded as far back as is remembered, and what was told to go off and did not confirm it.
- An actuator that is on past its `max_on` is told to go off again and again until it is off.
- A command older than `max_age_s` moves nothing: what was decided on yesterday's readings is history.
- Once actuators have been made safe, nothing but `off` passes any more.
- What it knows is a function of the log (L12): `gateway.act.recall` gives a new interlock what the old one knew, from
  `oldest_seq` on.
- Durations are the log's elapsed time; no wall clock comes near an actuator (L11).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.model import ActuatorLimits, Command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

INTERLOCK = "interlock"
"""Stands in the place of a rule's id where the cap has switched something off."""
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


class _Moment(NamedTuple):
    """When something happened, on the log's clock."""

    at_ns: int
    seq: int | None
    """The record that tells of it; None if none does."""


class _Actuator:
    __slots__ = ("off_again", "off_since", "on_since", "sent_ns", "state", "told_off_ns", "was_on_since")

    def __init__(self, on_since: _Moment) -> None:
        self.state: str | None = None
        """As last commanded; None: nobody has, as far as is known."""
        self.on_since: _Moment | None = on_since
        """Since when it may be on; None: it is off, or has been told to."""
        self.was_on_since: _Moment | None = None
        """While it has not confirmed its `off`: since when it has been on, should that turn out to have failed."""
        self.off_since: _Moment | None = None
        """Since when it is commanded off, or a later time at which it was, if it has rested since."""
        self.off_again: _Moment | None = None
        """When it was commanded off once more: takes the place of `off_since` once that is a rest ago as well."""
        self.told_off_ns: int | None = None
        """When the cap last asked for it to be switched off."""
        self.sent_ns: deque[int] = deque(maxlen=RATE_PER_MINUTE)

    @property
    def maybe_on_since(self) -> _Moment | None:
        """Since when it may be on, if it did not obey."""
        return self.on_since if self.on_since is not None else self.was_on_since

    def turn_on(self, moment: _Moment) -> None:
        if self.on_since is None:
            # An `off` that was never confirmed may never have been heard.
            self.on_since, self.told_off_ns = self.was_on_since or moment, None
        elif self.on_since.seq is None:
            self.on_since = self.on_since._replace(seq=moment.seq)
        self.off_since = self.off_again = self.was_on_since = None

    def turn_off(self, moment: _Moment, *, will_answer: bool) -> None:
        was_on_since = self.maybe_on_since or moment
        if was_on_since.seq is None:
            was_on_since = was_on_since._replace(seq=moment.seq)
        # Of what never answers, nobody will ever say more than that it was told.
        self.on_since, self.was_on_since = None, was_on_since if will_answer else None
        if self.off_since is None or self.state == "on":
            self.off_since, self.off_again = moment, None
        elif self.off_again is None and moment.seq is not None:
            self.off_again = moment

    def forget_until(self, rested_ns: int) -> None:
        """What was off a whole rest ago may count from the latest telling before then: no older record is needed."""
        if self.off_again is not None and self.off_again.at_ns <= rested_ns:
            self.off_since, self.off_again = self.off_again, None


class Interlock:
    """Knows the last commanded state of each actuator. Pure: time comes as an argument."""

    def __init__(self, limits: Mapping[str, ActuatorLimits], max_age_s: float) -> None:
        """See the module.

        Args:
            limits: by command topic; an actuator that is not there is held to age and rate alone.
            max_age_s: how old a decision may be.
        """
        self._limits = limits
        self.max_age_ns = int(max_age_s * 1e9)
        self._actuators: dict[str, _Actuator] = {}
        self._capped: dict[str, Command] = {}
        """What switches it off, by topic, of every actuator with a `max_on` that is known by name."""
        self._know(limits)
        self._has_begun = False
        self._closed_because = ""
        self._deadline_ns: int | None = None

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
        if command.state == "on":
            why_not = _why_not_on(actuator, self._limits.get(command.topic, _NO_LIMITS), now_ns)
            if why_not:
                return Deny(why_not)
        sent_ns = actuator.sent_ns
        if len(sent_ns) == RATE_PER_MINUTE and now_ns - sent_ns[0] < _MINUTE_NS:
            return Deny(f"{RATE_PER_MINUTE} commands within a minute")
        return Allow()

    def learn(self, limits: Mapping[str, ActuatorLimits]) -> None:
        """Hold actuators to other limits from now on. What is known of them stays."""
        self._limits = limits
        self._capped.clear()
        self._know([*limits, *self._actuators])
        self._has_begun = False
        self._plan()

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
            # What the cap switches off had been on for all of it, also where the log no longer tells since when.
            age_ns = self._max_on_ns(command.topic) if for_cap else 0
            actuator = self._actuators[command.topic] = _Actuator(_Moment(now_ns - age_ns, None))
            self._know([command.topic])
        actuator.sent_ns.append(now_ns)
        actuator.forget_until(now_ns - self._min_off_ns(command.topic))
        moment = _Moment(now_ns, seq)
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
        else:
            return
        actuator.state = command.state
        self._plan()

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
            if actuator.off_since == _Moment(from_ns, seq):
                actuator.off_since = _Moment(to_ns, seq)
            if was_on:
                actuator.state = "on"  # the next `off` may be the first that it hears: its rest begins there
        elif command.state == "on":
            if actuator is None:
                actuator = self._actuators[command.topic] = _Actuator(_Moment(from_ns, seq))
                self._know([command.topic])
            actuator.on_since = actuator.maybe_on_since or _Moment(from_ns, seq)
            actuator.state = "on"
            self._plan()

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
            self._plan()

    def tick(self, now_ns: int) -> list[Command]:
        """What switches off the actuators that have been on for longer than their `max_on`.

        The first call begins the time of those that nobody has commanded yet.
        """
        if not self._has_begun:
            self._has_begun = True
            for topic in self._capped:
                self._actuators.setdefault(topic, _Actuator(_Moment(now_ns, None)))
            self._plan()
        if self._deadline_ns is None or now_ns < self._deadline_ns:
            return []
        commands = []
        for topic, off in self._capped.items():
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

    def oldest_seq(self, now_ns: int) -> int | None:
        """The oldest record on which what it knows rests: a restart must read from there. None: there is none."""
        moments = (moment for topic in self._actuators for moment in self._needed(topic, now_ns))
        return min((moment.seq for moment in moments if moment.seq is not None), default=None)

    def safe_commands(self) -> list[Command]:
        """What puts every actuator that is known by name into its stated safe state."""
        topics = dict.fromkeys([*self._limits, *self._actuators])
        limits = (self._limits.get(topic, _NO_LIMITS) for topic in topics)
        return [each.safe for each in limits if each.safe is not None]

    def states(self) -> dict[str, str | None]:
        """Last commanded state by topic."""
        return {topic: actuator.state for topic, actuator in self._actuators.items()}

    def _needed(self, topic: str, now_ns: int) -> Iterator[_Moment]:
        """What limits still count from."""
        actuator, limits = self._actuators[topic], self._limits.get(topic, _NO_LIMITS)
        if limits.max_on_s is None and not limits.min_off_s:
            return
        actuator.forget_until(now_ns - self._min_off_ns(topic))
        for moment in (actuator.maybe_on_since, actuator.off_since):
            if moment is not None:
                yield moment

    def _know(self, topics: Iterable[str]) -> None:
        """Take up the caps of actuators that are named for the first time."""
        for topic in topics:
            limits = self._limits.get(topic, _NO_LIMITS)
            if limits.max_on_s is not None and (off := _off_command(limits)) is not None:
                self._capped[topic] = off

    def _plan(self) -> None:
        due = (self._due_ns(topic) for topic in self._capped)
        self._deadline_ns = min((each for each in due if each is not None), default=None)

    def _due_ns(self, topic: str) -> int | None:
        actuator = self._actuators.get(topic)
        if actuator is None or actuator.on_since is None:
            return None
        due_ns = actuator.on_since.at_ns + self._max_on_ns(topic)
        if actuator.told_off_ns is None:
            return due_ns
        return max(due_ns, actuator.told_off_ns + int(REPEAT_S * 1e9))

    def _min_off_ns(self, topic: str) -> int:
        return int(self._limits.get(topic, _NO_LIMITS).min_off_s * 1e9)

    def _max_on_ns(self, topic: str) -> int:
        """The cap; 0 for an actuator that has none."""
        return int((self._limits.get(topic, _NO_LIMITS).max_on_s or 0.0) * 1e9)


def _off_command(limits: ActuatorLimits) -> Command | None:
    if limits.off is not None:
        return limits.off
    return limits.safe if limits.safe is not None and limits.safe.state == "off" else None


def _why_not_on(actuator: _Actuator, limits: ActuatorLimits, now_ns: int) -> str:
    if actuator.off_since is not None:
        off_s = (now_ns - actuator.off_since.at_ns) / 1e9
        if off_s < limits.min_off_s:
            return f"off for {off_s:.0f} s, min_off is {limits.min_off_s:.0f} s"
    if actuator.maybe_on_since is not None and limits.max_on_s is not None:
        on_s = (now_ns - actuator.maybe_on_since.at_ns) / 1e9
        if on_s >= limits.max_on_s:
            return f"on for {on_s:.0f} s, max_on is {limits.max_on_s:.0f} s"
    return ""

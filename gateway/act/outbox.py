"""A command's life: sent, confirmed by the device, sent again, given up.

Invariants:
- A command with `expect` is done when the device says so, never because it was sent.
- A newer command to the same actuator ends the wait for the older one: nobody retries what is no longer wanted.
- Every command that was started comes to exactly one end: confirmed, unconfirmed or superseded (or, without `expect`,
  sent). A restart takes up again what had no end yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from gateway.model import Command, Decision, Outcome, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Emit, Notify, Publish

Matches: TypeAlias = "Callable[[str, Value, Value], bool | None]"
"""`(where, reported, wanted)` → whether the report confirms the command; None if that cannot be told."""


class Send(NamedTuple):
    """Put this on the wire."""

    command: Command
    attempt: int


class Ended(NamedTuple):
    """The command has come to an end; `otherwise` is what compensates it."""

    outcome: Outcome
    decision: Decision
    otherwise: tuple[Publish | Notify | Emit, ...] = ()


class _Waiting:
    __slots__ = ("attempt", "command", "decision", "due_ns", "seq", "wanted")

    def __init__(self, decision: Decision, command: Command, seq: int) -> None:
        self.decision = decision
        self.command = command
        self.seq = seq
        self.attempt = 1
        self.due_ns = 0
        self.wanted = _value(command.payload)


class Outbox:
    """Commands whose confirmation is awaited, one per actuator. Pure: time comes as an argument."""

    def __init__(self, matches: Matches) -> None:
        self._matches = matches
        self._waiting: dict[str, _Waiting] = {}
        self.expected: dict[str, list[str]] = {}
        """Report topic → the actuators whose confirmation may come on it."""

    def start(self, decision: Decision, seq: int, now_ns: int) -> list[Send | Ended]:
        """Begin a command that the interlock has let through."""
        command = decision.action
        assert isinstance(command, Command), "only commands have a life here"
        ends: list[Send | Ended] = []
        former = self._waiting.get(command.topic)
        if former is not None:
            ends.append(self._end(former, "superseded", f"by {decision.id}", now_ns))
        if command.expect is None:
            return [*ends, Send(command, 1), Ended(Outcome(decision.id, "sent", "", now_ns), decision)]
        waiting = _Waiting(decision, command, seq)
        waiting.due_ns = now_ns + int(command.expect.within_s * 1e9)
        self._waiting[command.topic] = waiting
        self._index()
        return [*ends, Send(command, 1)]

    def observe(self, topic: str, value: Value, now_ns: int) -> list[Send | Ended]:
        """A device reports. Cheap to ask beforehand whether `topic` is in `expected`."""
        ended: list[Send | Ended] = []
        for actuator in list(self.expected.get(topic, ())):
            waiting = self._waiting[actuator]
            expect = waiting.command.expect
            assert expect is not None, "only commands with `expect` wait"
            if self._matches(expect.where, value, waiting.wanted):
                ended.append(self._end(waiting, "confirmed", f"at try {waiting.attempt}", now_ns))
        return ended

    def tick(self, now_ns: int) -> list[Send | Ended]:
        """Try again what is overdue, or give it up."""
        effects: list[Send | Ended] = []
        for waiting in [each for each in self._waiting.values() if each.due_ns <= now_ns]:
            expect = waiting.command.expect
            assert expect is not None, "only commands with `expect` wait"
            if waiting.attempt <= expect.retries:
                waiting.attempt += 1
                waiting.due_ns = now_ns + int(expect.within_s * 1e9)
                effects.append(Send(waiting.command, waiting.attempt))
            else:
                tries = f"no confirmation on {expect.topic} after {waiting.attempt} tries"
                effects.append(self._end(waiting, "unconfirmed", tries, now_ns, waiting.command.otherwise))
        return effects

    @property
    def deadline_ns(self) -> int | None:
        """When `tick` has something to do next."""
        return min((waiting.due_ns for waiting in self._waiting.values()), default=None)

    @property
    def oldest_seq(self) -> int | None:
        """The oldest record whose command has no end yet."""
        return min((waiting.seq for waiting in self._waiting.values()), default=None)

    def _end(
        self,
        waiting: _Waiting,
        state: str,
        detail: str,
        now_ns: int,
        otherwise: tuple[Publish | Notify | Emit, ...] = (),
    ) -> Ended:
        del self._waiting[waiting.command.topic]
        self._index()
        return Ended(Outcome(waiting.decision.id, state, detail, now_ns), waiting.decision, otherwise)

    def _index(self) -> None:
        self.expected = {}
        for actuator, waiting in self._waiting.items():
            assert waiting.command.expect is not None, "only commands with `expect` wait"
            self.expected.setdefault(waiting.command.expect.topic, []).append(actuator)


def _value(payload: bytes) -> Value:
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return payload.decode(errors="replace")

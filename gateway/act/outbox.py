"""A command's life: sent, confirmed by the device, sent again, given up.

Invariants:
- A command with `expect` is done when the device says so, never because it was sent.
- A newer command to the same actuator ends the wait for the older one: nobody retries what is no longer wanted. If it
  is the same command said again, it is sent at once and takes the wait over: saying it often hides no silence.
- Every command that was started comes to exactly one end: confirmed, unconfirmed or superseded (or, without `expect`,
  sent). A restart takes up again what had no end yet.
- There is one wait per actuator, and what a call costs does not grow with the number of waits (L13).
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from gateway.model import Command, Decision, Outcome, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Emit, Expect, Notify, Publish

Matches: TypeAlias = "Callable[[str, Value, Value], bool | None]"
"""`(where, reported, wanted)` → whether the report confirms the command; None if that cannot be told."""


class Send(NamedTuple):
    """Put this on the wire."""

    command: Command
    attempt: int
    decision: Decision
    seq: int
    """The record of the decision."""


class Ended(NamedTuple):
    """The command has come to an end; `otherwise` is what compensates it."""

    outcome: Outcome
    decision: Decision
    otherwise: tuple[Publish | Notify | Emit, ...] = ()


class _Waiting:
    __slots__ = ("attempt", "command", "decision", "due_ns", "expect", "sent_ns", "seq", "wanted")

    def __init__(self, decision: Decision, command: Command, expect: Expect, seq: int, now_ns: int) -> None:
        self.decision = decision
        self.command = command
        self.expect = expect
        self.seq = seq
        self.attempt = 1
        self.sent_ns = now_ns
        self.due_ns = now_ns + int(expect.within_s * 1e9)
        self.wanted = _value(command.payload)


class Outbox:
    """Commands whose confirmation is awaited, one per actuator. Pure: time comes as an argument."""

    def __init__(self, matches: Matches) -> None:
        self._matches = matches
        self._waiting: dict[str, _Waiting] = {}
        """By command topic."""
        self._due: list[tuple[int, str]] = []
        """A heap of (due_ns, command topic). What no longer waits, or waits until another time, is passed over."""
        self.expected: dict[str, set[str]] = {}
        """Report topic → the actuators whose confirmation may come on it."""

    def start(self, decision: Decision, seq: int, now_ns: int) -> list[Send | Ended]:
        """Begin a command that the interlock has let through.

        Args:
            decision: whose action it is.
            seq: the record of the decision.
            now_ns: the log's elapsed time.
        """
        command = decision.action
        assert isinstance(command, Command), "only commands have a life here"
        effects: list[Send | Ended] = []
        former = self._waiting.get(command.topic)
        if former is not None:
            effects.append(self._end(former, "superseded", f"by {decision.id}", now_ns))
        if command.expect is None:
            return [
                *effects,
                Send(command, 1, decision, seq),
                Ended(Outcome(decision.id, "sent", "", now_ns), decision),
            ]
        waiting = _Waiting(decision, command, command.expect, seq, now_ns)
        if former is not None and former.command == command:
            waiting.attempt, waiting.due_ns = former.attempt, former.due_ns
        self._waiting[command.topic] = waiting
        self.expected.setdefault(waiting.expect.topic, set()).add(command.topic)
        self._plan(waiting)
        return [*effects, Send(command, waiting.attempt, decision, seq)]

    def observe(self, topic: str, value: Value, came_ns: int) -> list[Send | Ended]:
        """A device reports. Cheap to ask beforehand whether `topic` is in `expected`.

        Args:
            topic: where.
            value: what.
            came_ns: when the report came. What came before the command was sent says nothing about it.
        """
        found = [self._waiting[actuator] for actuator in sorted(self.expected.get(topic, ()))]
        return [
            self._end(waiting, "confirmed", f"at try {waiting.attempt}", came_ns)
            for waiting in found
            if waiting.sent_ns <= came_ns and self._matches(waiting.expect.where, value, waiting.wanted)
        ]

    def tick(self, now_ns: int) -> list[Send | Ended]:
        """Try again what is overdue, or give it up."""
        effects: list[Send | Ended] = []
        while (due_ns := self.deadline_ns) is not None and due_ns <= now_ns:
            waiting = self._waiting[heappop(self._due)[1]]
            expect = waiting.expect
            if waiting.attempt <= expect.retries:
                waiting.attempt += 1
                waiting.due_ns = now_ns + max(1, int(expect.within_s * 1e9))
                self._plan(waiting)
                effects.append(Send(waiting.command, waiting.attempt, waiting.decision, waiting.seq))
            else:
                tries = f"no confirmation on {expect.topic} after {waiting.attempt} tries"
                effects.append(self._end(waiting, "unconfirmed", tries, now_ns, waiting.command.otherwise))
        return effects

    def withdraw(self, topic: str, why: str, now_ns: int) -> list[Send | Ended]:
        """Wait no longer for an actuator that has been sent something else past the outbox."""
        waiting = self._waiting.get(topic)
        return [self._end(waiting, "superseded", why, now_ns)] if waiting is not None else []

    @property
    def deadline_ns(self) -> int | None:
        """When `tick` has something to do next."""
        due = self._due
        while due:
            due_ns, topic = due[0]
            waiting = self._waiting.get(topic)
            if waiting is not None and waiting.due_ns == due_ns:
                return due_ns
            heappop(due)
        return None

    @property
    def oldest_seq(self) -> int | None:
        """The oldest record whose command has no end yet."""
        return min((waiting.seq for waiting in self._waiting.values()), default=None)

    def _plan(self, waiting: _Waiting) -> None:
        heappush(self._due, (waiting.due_ns, waiting.command.topic))

    def _end(
        self,
        waiting: _Waiting,
        state: str,
        detail: str,
        now_ns: int,
        otherwise: tuple[Publish | Notify | Emit, ...] = (),
    ) -> Ended:
        topic, report_topic = waiting.command.topic, waiting.expect.topic
        del self._waiting[topic]
        actuators = self.expected[report_topic]
        actuators.discard(topic)
        if not actuators:
            del self.expected[report_topic]
        return Ended(Outcome(waiting.decision.id, state, detail, now_ns), waiting.decision, otherwise)


def _value(payload: bytes) -> Value:
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return payload.decode(errors="replace")

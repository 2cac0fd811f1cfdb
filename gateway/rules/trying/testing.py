"""Plays a timeline against an engine, on virtual time, and says whether it came out as expected. Reads no clock.

Invariants:
- The same timeline and rules give the same verdict.
- Each decision is looked at once: by the first `expect` after it. If there is an `expect` at all, none is left over.
- The first look that does not see what is expected ends the timeline: what follows would only follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.rules.trying.difference import Row, compare
from gateway.rules.trying.life import Life
from gateway.rules.trying.timeline import ClockJump, Expect, ExpectStart, ExpectState, Refuse, Restart, Send

if TYPE_CHECKING:
    from gateway.model import Decision
    from gateway.rules.compiled import RuleSet
    from gateway.rules.machines.machine import Status
    from gateway.rules.trace import Trace
    from gateway.rules.trying.life import Reading
    from gateway.rules.trying.timeline import Moment, Timeline

_EVERYBODY = 1 << 30
"""More machines than there can be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Where a timeline did not come out as expected."""

    place: str
    """`path:line:column`."""
    at_ns: int
    """On the log's clock."""
    wall_ns: int
    """The wall clock at that time, in nanoseconds since 1970."""
    message: str
    """One sentence."""
    rows: tuple[Row, ...]
    """Expected beside got, where actions were compared."""
    readings: tuple[Reading, ...]
    """The latest of each topic, the newest first."""
    statuses: tuple[Status, ...]
    """Where the rules stood."""
    traced: tuple[Trace, ...]
    """Changes of state and near misses since the look before, oldest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What came of one timeline."""

    timeline: Timeline
    failure: Failure | None
    """The first; None: all was as expected."""
    decisions: tuple[Decision, ...]
    """All that rules decided; what was said again at a start is left out."""
    events: int
    """Records that the engine saw, derived ones included."""
    lasted_ns: int
    """How much virtual time has passed."""


class _FailedError(Exception):
    def __init__(self, message: str, rows: tuple[Row, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.rows = rows


def play(timeline: Timeline, ruleset: RuleSet) -> Verdict:
    """Live through a timeline.

    Args:
        timeline: the test.
        ruleset: all of it runs, whatever `timeline.only` says.

    Returns:
        What came of it. Anything that is raised is a bug in the engine.
    """
    life = Life(ruleset, timeline.start_ns)
    player = _Player(timeline, life)
    failure = None
    place = timeline.place
    try:
        for moment in timeline.moments:
            place = moment.place
            life.advance(max(moment.at_ns, life.now_ns))
            player.play(moment)
        player.end()
    except _FailedError as failed:
        failure = player.failure(failed, place)
    return Verdict(
        timeline=timeline,
        failure=failure,
        decisions=tuple(life.decisions),
        events=life.events,
        lasted_ns=life.now_ns,
    )


class _Player:
    """Does what moments say, and remembers what has been looked at."""

    def __init__(self, timeline: Timeline, life: Life) -> None:
        self._only = timeline.only
        self._expects = any(isinstance(moment.what, Expect) for moment in timeline.moments)
        self._life = life
        self._looked_at = 0
        """How many of the decisions an `expect` has seen."""

    def play(self, moment: Moment) -> None:
        life = self._life
        match moment.what:
            case Send(records, flags):
                life.send(records, flags)
            case ClockJump(by_ns):
                life.jump(by_ns)
            case Restart(pause_ns, crash):
                wrong = life.restart(pause_ns, crash=crash)
                if wrong:
                    raise _FailedError("the restart lost its way, which is a bug: " + "; ".join(wrong))
            case Refuse() as refuse:
                self._refuse(refuse)
            case Expect(actions):
                self._compare(compare(actions, self._unseen()))
                life.traced.clear()
            case ExpectStart(actions):
                self._compare(compare(actions, self._of_interest(life.said)))
            case ExpectState(phases):
                for rule, key, phase in phases:
                    self._look_at(rule, key, phase)

    def end(self) -> None:
        """Nothing that was decided may go unseen, if anything is looked at."""
        rest = self._unseen() if self._expects else []
        if rest:
            raise _FailedError(
                f"{_actions(len(rest))} decided after the last `expect`", tuple(Row(None, each) for each in rest)
            )

    def failure(self, failed: _FailedError, place: str) -> Failure:
        life = self._life
        return Failure(
            place=place,
            at_ns=life.now_ns,
            wall_ns=life.wall_ns,
            message=failed.message,
            rows=failed.rows,
            readings=tuple(reversed(life.latest.values())),
            statuses=tuple(life.engine.status(life.now_ns, limit=_EVERYBODY)),
            traced=tuple(life.traced),
        )

    def _refuse(self, refuse: Refuse) -> None:
        decision = self._life.latest_command(refuse.rule, refuse.key, refuse.topic)
        if decision is None:
            raise _FailedError(f"nobody can refuse it: `{refuse.rule}` has commanded nothing of the kind so far")
        self._life.refuse(decision, refuse.state)

    def _unseen(self) -> list[Decision]:
        found = self._life.decisions[self._looked_at :]
        self._looked_at += len(found)
        return self._of_interest(found)

    def _of_interest(self, decisions: list[Decision]) -> list[Decision]:
        return [decision for decision in decisions if not self._only or decision.rule in self._only]

    def _compare(self, rows: tuple[Row, ...]) -> None:
        if all(row.is_as_expected for row in rows):
            return
        expected = sum(row.expected is not None for row in rows)
        got = sum(row.got is not None for row in rows)
        if expected != got:
            raise _FailedError(f"{_actions(expected)} expected, {got or 'none'} decided", rows)
        raise _FailedError(f"{_actions(got)} decided, as many as expected, but not the same", rows)

    def _look_at(self, rule: str, key: str | None, phase: str) -> None:
        life = self._life
        found = [each for each in life.engine.status(life.now_ns, limit=_EVERYBODY) if each.rule == rule]
        meant = [each for each in found if key in {None, each.key}]
        wrong = next((each for each in meant if each.phase != phase), None)
        name = rule if key is None else f"{rule}[{key}]"
        if wrong is not None:
            name = f"{rule}[{wrong.key}]" if wrong.key else rule
            raise _FailedError(f"{name} is {wrong.phase}, not {phase}")
        if not meant and phase != "inactive":
            raise _FailedError(f"{name} is not {phase}: nothing has come for it")


def _actions(count: int) -> str:
    return f"{count or 'no'} action{'' if count == 1 else 's'}"

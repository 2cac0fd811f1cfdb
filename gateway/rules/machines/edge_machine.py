"""Rules that are triggered rather than active: by every event, by a schedule, by silence.

Invariants:
- A schedule that names a time of day knows the wall clock from records alone. It fires once for each time that the
  clock passes while it runs evenly; a jump, of any size, fires nothing and is followed at once (L11).
- `every` counts on the log's own clock, at multiples of the period.
- A trigger whose `when` is not known to hold fires nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.rules.machines.machine import FAR, Status, duration
from gateway.rules.machines.rule_machine import RuleMachine
from gateway.rules.schedules.schedule import Every

if TYPE_CHECKING:
    from gateway.model import Command, Decision
    from gateway.rules.compiled import Rule
    from gateway.rules.expressions.codegen import Evaluate
    from gateway.rules.machines.world import World


class EdgeMachine(RuleMachine):
    """Fires on events and on schedules."""

    __slots__ = ("next_ns",)

    def __init__(self, rule: Rule, rank: int, key: str, world: World) -> None:
        super().__init__(rule, rank, key, world)
        self.next_ns = [-1] * len(rule.schedules)
        """When each schedule fires next: on the wall clock, of an `every` on the log's. Negative: not known yet."""

    def event(
        self,
        source: int,
        fields: dict[str, Any],
        captured: dict[str, str],
        hops: int,
        seq: int,
        now_ns: int,
        out: list[Decision],
    ) -> None:
        """A fresh event has come."""
        view = fields
        if self._careful:
            prepared = self.prepare(source, fields, captured, seq, now_ns)
            if prepared is None:
                return
            view = prepared
        self.fields, self.captured, self.hops, self.seen_ns = fields, captured, hops, now_ns
        if not self.may_begin(view, captured, seq, now_ns):
            readings = self.readings(view, captured)
            self.begin(view, captured, f"an event came: {readings}" if readings else "an event came", seq, now_ns, out)
        if self.runs:
            self._set_due(now_ns)

    @property
    def filter(self) -> Evaluate | None:
        """What an event must fulfil to be one for this rule at all, if nothing else comes of it and nobody asks why."""
        rule = self.rule
        return None if self._careful or rule.gate is None or self.world.trace is not None else rule.gate.evaluate

    def plan(self, now_ns: int, *, moved: bool) -> None:
        """The engine has just begun; or (`moved`) the wall clock has become known or has jumped."""
        planned = False
        for number, schedule in enumerate(self.rule.schedules):
            is_wall = not isinstance(schedule, Every)
            clock_ns = self.world.wall_ns(now_ns) if is_wall else now_ns
            if clock_ns is not None and (self.next_ns[number] < 0 or (moved and is_wall)):
                self.next_ns[number] = _or_never(schedule.next_after(clock_ns))
                planned = True
        if planned:  # what a restart brought back stays due when it was, were that behind
            self.due_ns = self._next_due_ns()

    def wake(self, now_ns: int, out: list[Decision]) -> None:
        """The deadline has come."""
        self.go_on(now_ns, out)
        for number, schedule in enumerate(self.rule.schedules):
            clock_ns = now_ns if isinstance(schedule, Every) else self.world.wall_ns(now_ns)
            planned_ns = self.next_ns[number]
            if clock_ns is not None and 0 <= planned_ns <= clock_ns:
                self.next_ns[number] = _or_never(schedule.next_after(clock_ns))
                self.fields, self.captured, self.hops = {}, {}, 0
                view = self.view({}, {}, now_ns)
                if not self.may_begin(view, {}, None, now_ns):
                    self.begin(view, {}, schedule.describe(), None, now_ns, out)
        self._set_due(now_ns)

    def forget(self, now_ns: int, out: list[Decision]) -> None:
        """Room is needed for other keys: what it switched on is switched off first."""
        self.decide(list(self.unfinished()), "forgotten to make room for other keys", None, now_ns, out)
        self.cancel()

    def assertion(self) -> tuple[list[Command], str]:
        """What its sequences have last commanded, and why."""
        return list(self.under_way()), "its sequence was under way before"

    def safe(self) -> list[Command]:
        """What its sequences would still switch off."""
        return list(self.unfinished())

    def status(self, now_ns: int) -> Status:
        """Where it stands."""
        return Status(
            rule=self.owner,
            key=self.key,
            phase="active" if self.runs else "inactive",
            since_ns=max(self.began_ns, 0),
            seen_ns=None if self.seen_ns < 0 else self.seen_ns,
            fired_ns=self.fired_ns,
            firings=self.firings,
            readings=self.readings(self.view(self.fields, self.captured, now_ns), self.captured),
        )

    def dump(self) -> list[Any]:
        """The state, for a snapshot."""
        return [self.next_ns, self.due_ns, self.dump_shared()]

    def load(self, state: list[Any]) -> None:
        """Take up the state that `dump` gave."""
        self.next_ns, self.due_ns, shared = state
        self.load_shared(shared)

    def _set_due(self, now_ns: int) -> None:
        self.due_ns = max(self._next_due_ns(), now_ns + 1)

    def _next_due_ns(self) -> int:
        due_ns = self.step_ns
        for schedule, planned_ns in zip(self.rule.schedules, self.next_ns, strict=True):
            at_ns = planned_ns if isinstance(schedule, Every) else self.world.elapsed_ns(planned_ns)
            if planned_ns >= 0 and at_ns is not None:
                due_ns = min(due_ns, at_ns)
        return due_ns


def _or_never(planned_ns: int | None) -> int:
    return -1 if planned_ns is None else planned_ns


class SilenceMachine(RuleMachine):
    """Active for as long as nothing comes."""

    __slots__ = ("active", "is_passed", "since_ns")

    def __init__(self, rule: Rule, rank: int, key: str, world: World) -> None:
        super().__init__(rule, rank, key, world)
        self.active = False
        self.is_passed = False
        """This silence was judged, and is not to begin: the next one is another."""
        self.since_ns = 0

    @property
    def is_quiet(self) -> bool:
        """Whether nothing would be lost with it but memory."""
        return not self.active and not self.runs

    def event(
        self,
        source: int,
        fields: dict[str, Any],
        captured: dict[str, str],
        hops: int,
        seq: int,
        now_ns: int,
        out: list[Decision],
    ) -> None:
        """A fresh event has come."""
        if self._careful and self.prepare(source, fields, captured, seq, now_ns) is None:
            return
        self.fields, self.captured, self.hops, self.seen_ns = fields, captured, hops, now_ns
        self.is_passed = False
        if self.active:
            self._end("an event came", seq, now_ns, out)
        self._set_due(now_ns)

    def plan(self, now_ns: int, *, moved: bool) -> None:
        """The engine has just begun, or the wall clock has moved."""
        del moved
        silence = self.rule.silence
        assert silence is not None, "it waits for one"
        if self.seen_ns < 0 and silence.on_start:
            self.seen_ns = now_ns
            self._set_due(now_ns)

    def wake(self, now_ns: int, out: list[Decision]) -> None:
        """The deadline has come."""
        self.go_on(now_ns, out)
        if not self.active and not self.is_passed and now_ns >= self._silent_ns:
            view = self.view(self.fields, self.captured, now_ns)
            why_not = self.may_begin(view, self.captured, None, now_ns)
            if not why_not:
                self.active, self.since_ns = True, now_ns
                because = f"nothing came for {duration(now_ns - self.seen_ns)}"
                self.begin(view, self.captured, because, None, now_ns, out)
            self.is_passed = why_not in {"gated", "unarmed"}
        self._set_due(now_ns)

    def forget(self, now_ns: int, out: list[Decision]) -> None:
        """Room is needed for other keys: what it began is ended first."""
        self.decide(list(self.unfinished()), "forgotten to make room for other keys", None, now_ns, out)
        if self.active:
            self._end("forgotten to make room for other keys", None, now_ns, out)

    def assertion(self) -> tuple[list[Command], str]:
        """What it has last commanded, and why."""
        return list(self.under_way()), "its sequence was under way before"

    def safe(self) -> list[Command]:
        """The commands that would end what it has begun."""
        releases = self.rule.releases if self.active else ()
        view = self.view(self.fields, self.captured, self.world.now_ns)
        return [*self.unfinished(), *(plan.render(view, self.captured, self.hops) for plan in releases)]

    def status(self, now_ns: int) -> Status:
        """Where it stands."""
        return Status(
            rule=self.owner,
            key=self.key,
            phase="active" if self.active else "inactive",
            since_ns=self.since_ns,
            seen_ns=None if self.seen_ns < 0 else self.seen_ns,
            fired_ns=self.fired_ns,
            firings=self.firings,
            readings=self.readings(self.view(self.fields, self.captured, now_ns), self.captured),
        )

    def dump(self) -> list[Any]:
        """The state, for a snapshot."""
        return [self.active, self.is_passed, self.since_ns, self.due_ns, self.dump_shared()]

    def load(self, state: list[Any]) -> None:
        """Take up the state that `dump` gave."""
        self.active, self.is_passed, self.since_ns, self.due_ns, shared = state
        self.load_shared(shared)

    @property
    def _silent_ns(self) -> int:
        assert self.rule.silence is not None, "it waits for one"
        return self.seen_ns + self.rule.silence.after_ns if self.seen_ns >= 0 else FAR

    def _end(self, because: str, seq: int | None, now_ns: int, out: list[Decision]) -> None:
        self.active, self.since_ns = False, now_ns
        self.cancel()
        view = self.view(self.fields, self.captured, now_ns)
        self.tell_of("ended", because, view, self.captured, seq, now_ns)
        self.decide(self._render(self.rule.finally_, view, self.captured), because, seq, now_ns, out)

    def _set_due(self, now_ns: int) -> None:
        silent_ns = FAR if self.active or self.is_passed else self._silent_ns
        if silent_ns != FAR:
            silent_ns = max(silent_ns, self.free_ns)
        self.due_ns = max(now_ns + 1, min(self.step_ns, silent_ns))

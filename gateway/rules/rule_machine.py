"""One rule for one key.

                  when is true                    held for `for`
      INACTIVE ─────────────────▶ PENDING ─────────────────────────▶ ACTIVE      (then)
         ▲   ◀─── when is false ─────┘                                  │
         │   ◀─── silent ────────────┘                                  │
         └───────── until is true, or when is false, or silent ─────────┘        (finally)

Invariants:
- An event whose condition is unknown is as no event: it moves nothing and does not break the silence. While the latest
  one was unknown, `for` goes on counting, but only a known one completes it.
- Silence of `stale_after` ends PENDING, and ends ACTIVE if the rule drives an actuator. At the same instant silence
  comes before completion, and both come before an event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.rules import logic
from gateway.rules.expression import show
from gateway.rules.machine import FAR, Machine, Status, duration
from gateway.rules.plans import CommandPlan, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model import Action, Command, Decision
    from gateway.rules.compiled import Rule
    from gateway.rules.world import World

INACTIVE, PENDING, ACTIVE = 0, 1, 2
_PHASES = ("inactive", "pending", "active")


class RuleMachine(Machine):
    """A rule for one key."""

    __slots__ = ("_over", "_when", "fields", "hops", "known", "phase", "rule", "seen_ns", "since_ns")

    def __init__(self, rule: Rule, rank: int, key: str, world: World) -> None:
        super().__init__(rule.id, rank, key, world)
        self.rule = rule
        self._when = None if rule.when is None else rule.when.evaluate
        self._over = None if rule.until is None else rule.until.evaluate
        self.phase = INACTIVE
        self.since_ns = 0
        self.seen_ns = -1
        """When the latest known reading came; negative: there was none."""
        self.known = False
        """Whether the latest reading was one."""
        self.hops = 0
        self.fields: dict[str, Any] = {}

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
        del source
        phase = self.phase
        when = self._when
        if phase == ACTIVE and self._over is not None:
            holds = logic.negation(self._over(fields, captured))
        else:
            holds = True if when is None else when(fields, captured)
        if holds is None:
            self.known = False
            self._set_due()
            return
        self.fields = fields
        self.captured = captured
        self.hops = hops
        self.seen_ns = now_ns
        self.known = True
        if holds:
            self._hold(seq, now_ns, out)
        elif phase != INACTIVE:
            self._end("" if phase == PENDING else self._reason_over(), seq, now_ns, out)

    def wake(self, now_ns: int, out: list[Decision]) -> None:
        """The deadline has come."""
        stale_after_ns = self.rule.stale_after_ns
        if stale_after_ns is not None and now_ns >= self.seen_ns + stale_after_ns:
            self.known = False
            self._end(f"no known reading for {duration(stale_after_ns)}", None, now_ns, out)
            return
        self._begin(None, now_ns, out)
        self._set_due()

    def forget(self, now_ns: int, out: list[Decision]) -> None:
        """Room is needed for other keys: what it began is ended first."""
        self._end("forgotten to make room for other keys", None, now_ns, out)

    def assertion(self) -> tuple[list[Command], str]:
        """The commands that its present phase calls for, and why."""
        if self.phase != ACTIVE:
            return [], ""
        plans = (plan for plan in self.rule.then if isinstance(plan, CommandPlan))
        return [plan.render(self.fields, self.captured, self.hops) for plan in plans], "the rule was active before"

    def safe(self) -> list[Command]:
        """The commands that would end what it has begun."""
        if self.phase != ACTIVE:
            return []
        return [plan.render(self.fields, self.captured, self.hops) for plan in self.rule.releases]

    def status(self, now_ns: int) -> Status:
        """Where it stands."""
        stale_after_ns = self.rule.stale_after_ns
        is_stale = stale_after_ns is not None and now_ns >= self.seen_ns + stale_after_ns
        is_unknown = self._when is not None and (not self.known or is_stale)
        return Status(
            rule=self.owner,
            key=self.key,
            phase="unknown" if is_unknown and self.phase != ACTIVE else _PHASES[self.phase],
            since_ns=self.since_ns,
            seen_ns=None if self.seen_ns < 0 else self.seen_ns,
            fired_ns=self.fired_ns,
            firings=self.firings,
            readings=self._readings(),
        )

    def dump(self) -> list[Any]:
        """The state, for a snapshot."""
        kept = {name: value for name, value in self.fields.items() if name in self.rule.roots}
        mine = [self.phase, self.since_ns, self.seen_ns, self.known, self.hops, kept]
        return [self.captured, self.firings, self.fired_ns, self.n_ns, self.n, *mine]

    def load(self, state: list[Any]) -> None:
        """Take up the state that `dump` gave."""
        self.captured, self.firings, self.fired_ns, self.n_ns, self.n, *mine = state
        self.phase, self.since_ns, self.seen_ns, self.known, self.hops, self.fields = mine
        self._set_due()

    def _hold(self, seq: int, now_ns: int, out: list[Decision]) -> None:
        if self._when is None:
            self._begin(seq, now_ns, out)
            return
        if self.phase == INACTIVE:
            self.phase, self.since_ns = PENDING, now_ns
        if self.phase == PENDING and now_ns - self.since_ns >= self.rule.for_ns:
            self._begin(seq, now_ns, out)
        self._set_due()

    def _set_due(self) -> None:
        phase, due = self.phase, FAR
        if phase == INACTIVE:
            self.due_ns = FAR
            return
        rule = self.rule
        if phase == PENDING and self.known:
            due = self.since_ns + rule.for_ns
        if rule.stale_after_ns is not None and (phase == PENDING or rule.drives):
            due = min(due, self.seen_ns + rule.stale_after_ns)
        self.due_ns = due

    def _begin(self, seq: int | None, now_ns: int, out: list[Decision]) -> None:
        rule = self.rule
        if rule.when is None:
            because = f"an event came: {self._readings()}" if rule.roots else "an event came"
        else:
            self.phase, self.since_ns = ACTIVE, now_ns
            held = f" for {duration(rule.for_ns)}" if rule.for_ns else ""
            because = f"{rule.when.source}{held}: {self._readings()}"
        self.firings += 1
        self.fired_ns = now_ns
        self.decide(self._render(rule.then), because, seq, now_ns, out)

    def _end(self, because: str, seq: int | None, now_ns: int, out: list[Decision]) -> None:
        was = self.phase
        self.phase, self.since_ns, self.due_ns = INACTIVE, now_ns, FAR
        if was == ACTIVE:
            self.decide(self._render(self.rule.finally_), because, seq, now_ns, out)

    def _render(self, plans: Iterable[Plan]) -> list[Action]:
        return [plan.render(self.fields, self.captured, self.hops) for plan in plans]

    def _reason_over(self) -> str:
        rule = self.rule
        assert rule.when is not None
        over = f"not ({rule.when.source})" if rule.until is None else rule.until.source
        return f"{over}: {self._readings()}"

    def _readings(self) -> str:
        rule = self.rule
        if rule.when is None:
            return ", ".join(f"{name} = {show(self.fields.get(name))}" for name in sorted(rule.roots))
        return rule.when.readings(self.fields, self.captured)

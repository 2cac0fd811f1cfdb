"""A rule with phases, for one key: it is active for as long as something holds.

                  when is true                    held for `for`
      INACTIVE ─────────────────▶ PENDING ─────────────────────────▶ ACTIVE      (then)
         ▲   ◀─── when is false ─────┘                                  │
         │   ◀─── silent ────────────┘                                  │
         └── until is true, or when is false, for `keep_for`; or silent ┘        (finally)

Invariants:
- An event whose condition is unknown is as no event: it moves nothing and does not break the silence. While the latest
  one was unknown, `for` goes on counting, but only a known one completes it.
- Silence of `stale_after` ends PENDING, and ends ACTIVE if the rule is to end on it, whatever `keep_for` says. At the
  same instant silence comes before completion, and both come before an event.
- A crossing begins only where the condition has been known false before; a rule without one begins where it holds.
- What cooldown, breaker or a wait for something else holds back stays PENDING, and begins as soon as it may if it still
  holds then. What a gate held back is over until the condition comes anew.
- What may change without an event (windows, other devices, variables) is looked at anew at multiples of
  `evaluate_every` on the log's clock, for as long as the last event is worth anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.rules.expressions import logic
from gateway.rules.expressions.references import VariableReference, WindowReference
from gateway.rules.machines.machine import FAR, Status, duration
from gateway.rules.machines.rule_machine import RETRY_NS, RuleMachine
from gateway.rules.plans import CommandPlan

if TYPE_CHECKING:
    from gateway.model import Command, Decision
    from gateway.rules.compiled import Rule
    from gateway.rules.machines.world import World

INACTIVE, PENDING, ACTIVE = 0, 1, 2
_PHASES = ("inactive", "pending", "active")
_LOOK_AT_LEAST_NS = 3_600_000_000_000
_MOST_PAUSE_NS = 3_600_000_000_000


class LevelMachine(RuleMachine):
    """See the module."""

    __slots__ = (
        "_look_for_ns",
        "_over",
        "_when",
        "armed",
        "failing_ns",
        "known",
        "latest",
        "latest_ns",
        "pause_ns",
        "phase",
        "retry_ns",
        "since_ns",
    )

    def __init__(self, rule: Rule, rank: int, key: str, world: World) -> None:
        super().__init__(rule, rank, key, world)
        assert rule.when is not None, "without a condition there are no phases"
        self._when = rule.when.evaluate
        self._over = None if rule.until is None else rule.until.evaluate
        self._look_for_ns = _look_for_ns(rule)
        self.phase = INACTIVE
        self.since_ns = 0
        self.known = False
        """Whether the latest reading was one."""
        self.latest: dict[str, Any] = {}
        """Fields of the latest event, if the rule looks beyond events: what is unknown today may be known tomorrow."""
        self.latest_ns = -1
        """When it came; negative: there was none."""
        self.armed = rule.crossing is None or rule.crossing.on_start
        self.failing_ns = -1
        """Since when it no longer holds, while it is active and kept so; negative: it holds."""
        self.retry_ns = FAR
        """When to command again what an actuator was denied, or did not confirm."""
        self.pause_ns = RETRY_NS
        """How long to wait before it is told again to go off."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing would be lost with it but memory."""
        return self.phase == INACTIVE and not self.runs

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
            view = self.latest = prepared
            self.captured, self.hops, self.latest_ns = captured, hops, now_ns
        is_idle = self.phase == INACTIVE
        holds = self._when(view, captured) if is_idle else self._holds(view, captured)
        if holds is None:
            self._is_unknown(view, captured, seq, now_ns)
            self._set_due(now_ns)
            return
        self.fields = fields
        self.captured = captured
        self.hops = hops
        self.seen_ns = now_ns
        self.known = True
        if is_idle and not holds and not self._careful:  # by far the most common, and it asks for nothing
            self.armed = True
            return
        self._move(holds, view, seq, now_ns, out)
        self._set_due(now_ns)

    def wake(self, now_ns: int, out: list[Decision]) -> None:
        """The deadline has come."""
        rule = self.rule
        if self._listens and self._is_silent(now_ns):
            self.known = False
            silent = f"no known reading for {duration(rule.stale_after_ns or 0)}"
            self._end("stale", silent, None, now_ns, out)
        self.go_on(now_ns, out)
        if self._looks_again(now_ns):
            view = self.view(self.latest, self.captured, now_ns)
            holds = self._holds(view, self.captured)
            if holds is None:
                self._is_unknown(view, self.captured, None, now_ns)
            else:
                self.fields, self.seen_ns, self.known = self.latest, self.latest_ns, True
                self._move(holds, view, None, now_ns, out)
        if self.phase == PENDING and self.known:
            self._complete(self.view(self.fields, self.captured, now_ns), None, now_ns, out)
        if self.phase == ACTIVE and 0 <= self.failing_ns <= now_ns - rule.keep_ns:
            self._end("ended", f"not for {duration(rule.keep_ns)}", None, now_ns, out)
        if self.retry_ns <= now_ns:
            self.retry_ns = FAR
            self._say_again(now_ns, out)
        self._set_due(now_ns)

    def refused(self, decision_id: str, state: str, now_ns: int, out: list[Decision]) -> None:
        """An actuator has not been reached.

        What was denied is asked for again while the rule is active. What was to be switched off at its end and did not
        say that it is, is told again and again, ever more seldom, until it does.
        """
        super().refused(decision_id, state, now_ns, out)
        if self.phase == ACTIVE and state == "denied":
            self.retry_ns = now_ns + RETRY_NS
        elif self.phase == INACTIVE and state != "denied" and self.rule.releases:
            self.retry_ns = now_ns + self.pause_ns
            self.pause_ns = min(2 * self.pause_ns, _MOST_PAUSE_NS)
        self._set_due(now_ns)

    def _say_again(self, now_ns: int, out: list[Decision]) -> None:
        if self.phase == ACTIVE:
            commands, _ = self.assertion()
            self.decide(commands, "said again: it was denied before", None, now_ns, out)
        elif self.phase == INACTIVE:
            view = self.view(self.fields, self.captured, now_ns)
            releases = self._render(self.rule.releases, view, self.captured)
            self.decide(releases, "said again: nobody knows whether it was heard", None, now_ns, out)

    def forget(self, now_ns: int, out: list[Decision]) -> None:
        """Room is needed for other keys: what it began is ended first."""
        self.decide(list(self.unfinished()), "forgotten to make room for other keys", None, now_ns, out)
        self._end("ended", "forgotten to make room for other keys", None, now_ns, out)

    def assertion(self) -> tuple[list[Command], str]:
        """The commands that its present phase calls for, and why."""
        why = "the rule was active before"
        if self.runs:
            return list(self.under_way()), why
        if self.phase != ACTIVE:
            return [], ""
        plans = (plan for plan in self.rule.then if isinstance(plan, CommandPlan))
        last = {plan.topic.source: plan for plan in plans}
        view = self.view(self.fields, self.captured, self.world.now_ns)
        return [plan.render(view, self.captured, self.hops) for plan in last.values()], why

    def safe(self) -> list[Command]:
        """The commands that would end what it has begun."""
        unfinished = list(self.unfinished())
        if self.phase != ACTIVE:
            return unfinished
        view = self.view(self.fields, self.captured, self.world.now_ns)
        return unfinished + [plan.render(view, self.captured, self.hops) for plan in self.rule.releases]

    def status(self, now_ns: int) -> Status:
        """Where it stands."""
        is_unknown = not self.known or self._is_silent(now_ns)
        return Status(
            rule=self.owner,
            key=self.key,
            phase="unknown" if is_unknown and self.phase != ACTIVE else _PHASES[self.phase],
            since_ns=self.since_ns,
            seen_ns=None if self.seen_ns < 0 else self.seen_ns,
            fired_ns=self.fired_ns,
            firings=self.firings,
            readings=self.readings(self.view(self.fields, self.captured, now_ns), self.captured),
        )

    def dump(self) -> list[Any]:
        """The state, for a snapshot."""
        mine = [self.phase, self.since_ns, self.known, self.armed, self.failing_ns]
        mine += [self.retry_ns, self.pause_ns, self.due_ns]
        return [mine, self._kept(self.latest), self.latest_ns, self.dump_shared()]

    def load(self, state: list[Any]) -> None:
        """Take up the state that `dump` gave."""
        mine, self.latest, self.latest_ns, shared = state
        self.load_shared(shared)
        self.phase, self.since_ns, self.known, self.armed, self.failing_ns, *times = mine
        self.retry_ns, self.pause_ns, self.due_ns = times

    def _holds(self, view: dict[str, Any], captured: dict[str, str]) -> bool | None:
        if self.phase == ACTIVE and self._over is not None:
            return logic.negation(self._over(view, captured))
        return self._when(view, captured)  # type: ignore[no-any-return]  # a condition gives a truth

    def _is_unknown(self, view: dict[str, Any], captured: dict[str, str], seq: int | None, now_ns: int) -> None:
        if self.known or self.seen_ns < 0:
            self.tell_of("unknown", "the condition is neither true nor false", view, captured, seq, now_ns)
        self.known = False

    def _move(self, holds: bool, view: dict[str, Any], seq: int | None, now_ns: int, out: list[Decision]) -> None:  # noqa: FBT001 - it is the news
        if not holds:
            # What `until` ended may still lie beyond the threshold: it has not come back, and cannot cross it.
            was_over = self.phase == ACTIVE and self._over is not None
            self.armed = self.armed or not was_over or self._when(view, self.captured) is False
            self._fail(view, seq, now_ns, out)
            return
        self.failing_ns = -1
        if self.phase == INACTIVE:
            if not self.armed:
                self.tell_of("unarmed", "beyond the threshold already", view, self.captured, seq, now_ns)
                return
            self.phase, self.since_ns = PENDING, now_ns
            if self.rule.for_ns:
                waits = f"for {duration(self.rule.for_ns)}"
                self.tell_of("pending", waits, view, self.captured, seq, now_ns)
        if self.phase == PENDING:
            self._complete(view, seq, now_ns, out)

    def _fail(self, view: dict[str, Any], seq: int | None, now_ns: int, out: list[Decision]) -> None:
        if self.phase == PENDING:
            held = f"true for {duration(now_ns - self.since_ns)} of {duration(self.rule.for_ns)}"
            self.tell_of("reset", held, view, self.captured, seq, now_ns)
            self.phase, self.since_ns = INACTIVE, now_ns
        elif self.phase == ACTIVE:
            if self.failing_ns < 0:
                self.failing_ns = now_ns
            if now_ns - self.failing_ns >= self.rule.keep_ns:
                self._end("ended", self._reason_over(view), seq, now_ns, out)

    def _complete(self, view: dict[str, Any], seq: int | None, now_ns: int, out: list[Decision]) -> None:
        """Begin, if it has held for long enough and nothing holds it back."""
        rule = self.rule
        if now_ns - self.since_ns < rule.for_ns:
            return
        why_not = self.may_begin(view, self.captured, seq, now_ns)
        if why_not:
            if why_not in {"gated", "unarmed"}:
                self.phase, self.since_ns, self.armed = INACTIVE, now_ns, rule.crossing is None
            return
        assert rule.when is not None
        self.phase, self.since_ns, self.failing_ns = ACTIVE, now_ns, -1
        self.retry_ns, self.pause_ns = FAR, RETRY_NS
        self.armed = rule.crossing is None
        held = f" for {duration(rule.for_ns)}" if rule.for_ns else ""
        because = f"{rule.when.source}{held}: {rule.when.readings(view, self.captured)}"
        self.begin(view, self.captured, because, seq, now_ns, out)

    def _end(self, what: str, because: str, seq: int | None, now_ns: int, out: list[Decision]) -> None:
        was = self.phase
        self.phase, self.since_ns, self.failing_ns = INACTIVE, now_ns, -1
        self.retry_ns, self.pause_ns = FAR, RETRY_NS
        view = self.view(self.fields, self.captured, now_ns)
        if was != INACTIVE:
            self.tell_of(what, because, view, self.captured, seq, now_ns)
        if was == ACTIVE:
            self.cancel()
            self.decide(self._render(self.rule.finally_, view, self.captured), because, seq, now_ns, out)

    def _reason_over(self, view: dict[str, Any]) -> str:
        rule = self.rule
        assert rule.when is not None
        over = f"not ({rule.when.source})" if rule.until is None else rule.until.source
        return f"{over}: {rule.when.readings(view, self.captured)}"

    def _is_silent(self, now_ns: int) -> bool:
        """Whether the last reading is too old to be one."""
        stale_after_ns = self.rule.stale_after_ns
        return stale_after_ns is not None and now_ns >= self.seen_ns + stale_after_ns

    @property
    def _listens(self) -> bool:
        """Whether silence would change its phase."""
        if self.rule.stale_after_ns is None:
            return False
        return self.phase == PENDING or (self.phase == ACTIVE and self.rule.ends_on_silence)

    def _looks_again(self, now_ns: int) -> bool:
        """Whether it is to be evaluated without an event, at multiples of `evaluate_every`."""
        stale_after_ns = self.rule.stale_after_ns
        if not self.rule.references or self.latest_ns < 0:
            return False
        if stale_after_ns is not None and now_ns >= self.latest_ns + stale_after_ns:
            return False
        return self.phase == ACTIVE or now_ns - self.latest_ns <= self._look_for_ns

    def _set_due(self, now_ns: int) -> None:
        rule, phase = self.rule, self.phase
        moments = [self.retry_ns]
        if phase == PENDING and self.known:
            moments.append(max(self.since_ns + rule.for_ns, self.free_ns))
        elif phase == ACTIVE and self.failing_ns >= 0:
            moments.append(self.failing_ns + rule.keep_ns)
        if self._listens:
            moments.append(self.seen_ns + (rule.stale_after_ns or 0))
        if self.runs:
            moments.append(self.step_ns)
        if rule.references and self._looks_again(now_ns):
            moments.append((now_ns // rule.look_every_ns + 1) * rule.look_every_ns)
        # What lay before has been looked at: asking for it again would stop time.
        self.due_ns = min([moment for moment in moments if moment > now_ns], default=FAR)


def _look_for_ns(rule: Rule) -> int:
    """How long after an event what it was about is looked at again."""
    spans = [each.span.span_ns for each in rule.references if isinstance(each, WindowReference)]
    spans += [each.age_ns or 0 for each in rule.references if not isinstance(each, WindowReference | VariableReference)]
    return max([*spans, rule.stale_after_ns or 0, _LOOK_AT_LEAST_NS])

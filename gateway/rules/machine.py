"""One rule for one key: where it stands, and what an event or a deadline makes of that.

A key is the levels that a rule's `on` captured: `freezer-warm` on `devices/{device}/climate` has a machine for every
device. Both kinds of machine, of a rule and of a thermostat, have the same five entrances; the engine knows no other.

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
- `due_ns` is exact whenever no entrance is running; `FAR` means never.
- Everything that `dump` gives, and nothing else, decides what comes next (L12).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.model import MAX_HOPS, Action, Command, Decision, Emit
from gateway.rules import logic, thermostat
from gateway.rules.expression import show
from gateway.rules.plans import CommandPlan, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.rules.compiled import Rule, Thermostat

FAR = 2**63 - 1
"""A deadline that never comes."""

INACTIVE, PENDING, ACTIVE = 0, 1, 2
_PHASES = ("inactive", "pending", "active")


class Status(msgspec.Struct, frozen=True):
    """Where one machine stands, for the status page and the demo's view."""

    rule: str
    key: str
    phase: str
    """`inactive`, `pending`, `active` or `unknown`; of a thermostat `off`, `heat`, `cool` or `unknown`."""
    since_ns: int
    """When the phase began, on the log's clock."""
    seen_ns: int | None
    """When the latest reading that counted came; None: there was none."""
    fired_ns: int | None
    """When it last did something; None: never."""
    firings: int
    """How often `then` was run; of a thermostat, how often it switched on."""
    readings: str
    """The latest values, for a person."""


class Machine:
    """What machines of both kinds share: numbering of decisions and the record of having fired."""

    __slots__ = (
        "captured",
        "due_ns",
        "fired_ns",
        "firings",
        "key",
        "loops_cut",
        "n",
        "n_ns",
        "owner",
        "queued_ns",
        "rank",
    )

    def __init__(self, owner: str, rank: int, key: str) -> None:
        self.owner = owner
        self.rank = rank
        self.key = key
        self.captured: dict[str, str] = {}
        self.due_ns = FAR
        self.queued_ns = FAR
        """The deadline under which the engine's queue knows this machine."""
        self.firings = 0
        self.fired_ns: int | None = None
        self.n_ns = -1
        """The instant that `n` numbers."""
        self.n = 0
        self.loops_cut = 0

    def decide(
        self, actions: Iterable[Action], because: str, seq: int | None, now_ns: int, out: list[Decision]
    ) -> None:
        """Give each action its id. A derived event too many rules away from a device is cut."""
        if self.n_ns != now_ns:
            self.n_ns, self.n = now_ns, 0
        for action in actions:
            if isinstance(action, Emit) and action.hops > MAX_HOPS:
                self.loops_cut += 1
                continue
            name = f"{self.owner}/{self.key}/{now_ns}/{self.n}"
            self.n += 1
            out.append(Decision(name, self.owner, self.key, action, now_ns, seq, because))


class RuleMachine(Machine):
    """A rule for one key."""

    __slots__ = ("_over", "_when", "fields", "hops", "known", "phase", "rule", "seen_ns", "since_ns")

    def __init__(self, rule: Rule, rank: int, key: str) -> None:
        super().__init__(rule.id, rank, key)
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
        self, fields: dict[str, Any], captured: dict[str, str], hops: int, seq: int, now_ns: int, out: list[Decision]
    ) -> None:
        """A fresh event has come."""
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
            self._end(f"no known reading for {_duration(stale_after_ns)}", None, now_ns, out)
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
            held = f" for {_duration(rule.for_ns)}" if rule.for_ns else ""
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


class ThermostatMachine(Machine):
    """A thermostat. It has one key, the empty one."""

    __slots__ = ("rule", "state")

    def __init__(self, rule: Thermostat, rank: int, key: str) -> None:
        super().__init__(rule.id, rank, key)
        self.rule = rule
        self.state = thermostat.State()

    def event(
        self, fields: dict[str, Any], captured: dict[str, str], hops: int, seq: int, now_ns: int, out: list[Decision]
    ) -> None:
        """A fresh event of its sensor has come."""
        del hops
        self._look(logic.number(self.rule.reading.evaluate(fields, captured)), seq, now_ns, out)

    def wake(self, now_ns: int, out: list[Decision]) -> None:
        """The deadline has come."""
        self._look(None, None, now_ns, out)

    def assertion(self) -> tuple[list[Command], str]:
        """The commands that its present phase calls for, and why."""
        return list(self.rule.commands[self.state.running or thermostat.OFF]), "what it wants, said again at the start"

    def safe(self) -> list[Command]:
        """What `on_stale` says."""
        return list(self.rule.safe)

    def status(self, now_ns: int) -> Status:
        """Where it stands."""
        state = self.state
        name = self.rule.reading.source
        stale = "" if state.reading is None or not thermostat.is_stale(self.rule.limits, state, now_ns) else " (stale)"
        return Status(
            rule=self.owner,
            key=self.key,
            phase=state.running or "unknown",
            since_ns=state.since_ns,
            seen_ns=None if state.reading is None else state.read_ns,
            fired_ns=self.fired_ns,
            firings=self.firings,
            readings=f"{name} = {show(state.reading)}{stale}",
        )

    def dump(self) -> list[Any]:
        """The state, for a snapshot."""
        return [self.firings, self.fired_ns, self.n_ns, self.n, self.due_ns, *self.state]

    def load(self, state: list[Any]) -> None:
        """Take up the state that `dump` gave."""
        self.firings, self.fired_ns, self.n_ns, self.n, self.due_ns, *mine = state
        self.state = thermostat.State(*mine)

    def _look(self, reading: float | None, seq: int | None, now_ns: int, out: list[Decision]) -> None:
        before = self.state.running
        verdict = thermostat.decide(self.rule.limits, self.state, reading, now_ns)
        self.state, self.due_ns = verdict.state, verdict.deadline_ns
        if verdict.command is None:
            return
        if verdict.command not in {before, thermostat.OFF}:
            self.firings += 1
        self.fired_ns = now_ns
        self.decide(self.rule.commands[verdict.command], verdict.because, seq, now_ns, out)


def _duration(duration_ns: int) -> str:
    seconds = duration_ns / 1e9
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:g} min"

"""What machines of rules share, whether a rule has phases (`level_machine`) or only fires (`edge_machine`).

- what the rule looks at beyond the event: windows, other devices, variables;
- when an event happened, if it says so itself, and whether that is too long ago to act upon;
- the event that must have come before (`after`, `within`);
- sequences with waits in them, and what a trigger does while one is under way (`mode`);
- the breaker: a rule that fires too often is held back.

Invariants:
- A rule that uses none of this pays one comparison per event for it.
- What is looked at is computed anew whenever it is asked for, at the time of asking: nothing of it is state, but for
  the samples of windows and the values of watches.
- An event that is too old triggers nothing; nor does it count as heard.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from gateway.rules.expressions import logic
from gateway.rules.expressions.codegen import compile_tree
from gateway.rules.expressions.expression import show
from gateway.rules.expressions.references import VariableReference, WindowReference
from gateway.rules.expressions.windows import AGGREGATES, Window
from gateway.rules.machines.machine import FAR, Machine, duration
from gateway.rules.plans import CommandPlan, Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gateway.model import Action, Command, Decision
    from gateway.rules.compiled import Rule
    from gateway.rules.expressions.codegen import Evaluate
    from gateway.rules.expressions.references import Reference
    from gateway.rules.expressions.windows import Aggregate
    from gateway.rules.machines.world import Looked, World

Look: TypeAlias = "Callable[[dict[str, str], int], Any]"
"""`(captured levels, time) -> value`; None is unknown."""
MINUTE_NS = 60_000_000_000
RETRY_NS = 30_000_000_000
"""After so long what an actuator was denied is asked for again."""
_AHEAD_NS = 300_000_000_000
_MILLISECONDS = 1e11
"""A time since 1970 beyond this is in milliseconds: as seconds it would lie in the year 5138."""


class Run(msgspec.Struct, array_like=True):
    """A sequence under way: what triggered it, and what comes next."""

    step: int
    due_ns: int
    fields: dict[str, Any]
    captured: dict[str, str]
    hops: int
    seq: int | None
    because: str


class RuleMachine(Machine):
    """See the module."""

    __slots__ = (
        "_aggregates",
        "_began_seq",
        "_careful",
        "_looks",
        "began_ns",
        "fields",
        "followed_ns",
        "hops",
        "queue",
        "recent_ns",
        "rule",
        "runs",
        "seen_ns",
        "windows",
    )

    def __init__(self, rule: Rule, rank: int, key: str, world: World) -> None:
        super().__init__(rule.id, rank, key, world)
        self.rule = rule
        self.shadow = rule.shadow
        self.fields: dict[str, Any] = {}
        """Of the latest event that counted."""
        self.hops = 0
        self.seen_ns = -1
        """When it came; negative: there was none."""
        self.began_ns = -1
        """When `then` was last begun; negative: never."""
        self._began_seq: int | None = None
        """The event with which `then` was last begun. Asked while that event is being handled, so it is no state."""
        self.followed_ns: int | None = None
        """When what this rule follows last came; None: not since it last began."""
        self.recent_ns: list[int] = []
        """When it fired within the last minute, if that is limited."""
        self.runs: list[Run] = []
        self.queue: list[Run] = []
        spans = [reference for reference in rule.references if isinstance(reference, WindowReference)]
        self.windows = [Window(reference.span) for reference in spans]
        self._aggregates = [_aggregate(reference) for reference in spans]
        self._looks = [_look(reference, rule, world) for reference in rule.references]
        self._careful = bool(rule.references) or rule.time is not None or rule.follows is not None

    @property
    def is_quiet(self) -> bool:  # noqa: D102 - as in Machine
        return not self.runs

    # What an event brings.

    def prepare(
        self, source: int, fields: dict[str, Any], captured: dict[str, str], seq: int, now_ns: int
    ) -> dict[str, Any] | None:
        """For rules that look beyond the event: all that its expressions may read.

        Returns:
            None if the event is none of its triggers: it is too old, or what the rule follows.
        """
        rule = self.rule
        at_ns = now_ns if rule.time is None else self._happened_ns(fields, captured, seq, now_ns)
        if at_ns is None:
            return None
        if source >= len(rule.topics):
            follows = rule.follows
            assert follows is not None, "the only source behind the triggers"
            if seq == self._began_seq:
                return None  # used up as the trigger: it is not also what the next one follows
            if follows.when is None or follows.when.evaluate(fields, captured) is True:
                self.followed_ns = at_ns if self.followed_ns is None else max(self.followed_ns, at_ns)
            return None
        for (_, sample, _), window in zip(self._aggregates, self.windows, strict=True):
            value = sample(fields, captured)
            if value is not None:
                window.add(at_ns, value)
        return self.view(fields, captured, now_ns)

    def view(self, fields: dict[str, Any], captured: dict[str, str], now_ns: int) -> dict[str, Any]:
        """An event's fields, and beside them what the rule looks at beyond the event, as it is now."""
        references = self.rule.references
        if not references:
            return fields
        seen: dict[str, Any] = {**fields}
        for (name, _, aggregate), window in zip(self._aggregates, self.windows, strict=True):
            seen[name] = aggregate(window.values(now_ns))
        for name, look in self._looks:
            if look is not None:
                seen[name] = look(captured, now_ns)
        return seen

    def _happened_ns(self, fields: dict[str, Any], captured: dict[str, str], seq: int, now_ns: int) -> int | None:
        """When the event happened, on the log's clock; None if that is longer ago than `max_age`."""
        rule = self.rule
        assert rule.time is not None, "asked by whoever calls"
        at_ns, wall_ns = _since_1970_ns(rule.time.evaluate(fields, captured)), self.world.wall_ns(now_ns)
        if at_ns is None or wall_ns is None:
            return now_ns
        age_ns = wall_ns - at_ns
        if age_ns > rule.max_age_ns:
            detail = f"the event is {duration(age_ns)} old, max_age is {duration(rule.max_age_ns)}"
            self.tell("late", detail, rule.time.readings(fields, captured), seq, now_ns)
            return None
        if age_ns < -_AHEAD_NS:
            detail = f"the event says that it lies {duration(-age_ns)} ahead: it counts from its arrival"
            self.tell("late", detail, rule.time.readings(fields, captured), seq, now_ns)
        return now_ns - max(age_ns, 0)

    # Beginning.

    def may_begin(self, view: dict[str, Any], captured: dict[str, str], seq: int | None, now_ns: int) -> str:
        """Why `then` may not begin now: `unarmed`, `gated`, `cooling` or `storm`. Empty if it may."""
        rule = self.rule
        what = detail = ""
        if rule.follows is not None and not self._has_followed(now_ns):
            what = "unarmed"
            detail = f"nothing came on {rule.follows.on.text} within {duration(rule.follows.within_ns)} before"
        elif rule.gate is not None and rule.gate.evaluate(view, captured) is not True:
            what, detail = "gated", f"`{rule.gate.source}` does not hold"
        elif self.free_ns > now_ns:
            cools = self.began_ns >= 0 and now_ns < self.began_ns + rule.cooldown_ns
            what = "cooling" if cools else "storm"
            limit = f"{rule.most_per_minute} firings within a minute"
            detail = f"cooldown of {duration(rule.cooldown_ns)}" if cools else limit
            self.world.storms += not cools
        if what:
            self.tell_of(what, detail, view, captured, seq, now_ns)
        return what

    def tell_of(
        self, what: str, detail: str, view: dict[str, Any], captured: dict[str, str], seq: int | None, now_ns: int
    ) -> None:
        """Tell the trace, if there is one, with what the rule reads."""
        if self.world.trace is not None:
            self.tell(what, detail, self.readings(view, captured), seq, now_ns)

    @property
    def free_ns(self) -> int:
        """Until when cooldown and breaker hold it back."""
        rule = self.rule
        free_ns = self.began_ns + rule.cooldown_ns if self.began_ns >= 0 else 0
        if rule.most_per_minute is not None and len(self.recent_ns) >= rule.most_per_minute:
            free_ns = max(free_ns, self.recent_ns[-rule.most_per_minute] + MINUTE_NS)
        return free_ns

    def _has_followed(self, now_ns: int) -> bool:
        follows = self.rule.follows
        assert follows is not None, "asked by whoever calls"
        return self.followed_ns is not None and now_ns - self.followed_ns <= follows.within_ns

    def begin(
        self, view: dict[str, Any], captured: dict[str, str], because: str, seq: int | None, now_ns: int, out: list[Any]
    ) -> None:
        """Do what `then` says, or begin with it."""
        rule = self.rule
        run = None
        if len(rule.steps) > 1:
            run = Run(0, now_ns, self._kept(self.fields), captured, self.hops, seq, because)
            if not self._has_room(run, now_ns):
                return
        self.firings += 1
        self._began_seq = seq
        self.fired_ns = self.began_ns = now_ns
        self.followed_ns = None
        if rule.most_per_minute is not None:
            self.recent_ns = [at_ns for at_ns in self.recent_ns if at_ns > now_ns - MINUTE_NS]
            self.recent_ns.append(now_ns)
        self.tell_of("fired", because, view, captured, seq, now_ns)
        if run is None:
            self.decide(self._render(rule.steps[0].plans, view, captured), because, seq, now_ns, out)
        elif self.runs and rule.mode == "queued":
            self.queue.append(run)
        else:
            self.runs.append(run)
            self._step(run, now_ns, out)

    # Sequences.

    @property
    def step_ns(self) -> int:
        """When the next stretch of a sequence begins."""
        return min((run.due_ns for run in self.runs), default=FAR)

    def go_on(self, now_ns: int, out: list[Decision]) -> None:
        """Take the steps of sequences that are due."""
        while self.step_ns <= now_ns:
            run = min(self.runs, key=lambda each: each.due_ns)
            self._step(run, now_ns, out)

    def cancel(self) -> None:
        """Nothing of what is under way goes on."""
        self.runs.clear()
        self.queue.clear()

    def _has_room(self, run: Run, now_ns: int) -> bool:
        """Whether a sequence may begin, or wait for its turn, beside those under way."""
        rule, count = self.rule, len(self.runs) + len(self.queue)
        if rule.mode == "restart":
            self.cancel()
        elif count >= (1 if rule.mode == "single" else rule.most_runs):
            self.tell("dropped", f"mode {rule.mode}: {count} under way", "", run.seq, now_ns)
            return False
        elif count and rule.mode == "queued":
            self.tell("queued", f"{count} before it", "", run.seq, now_ns)
        return True

    def _step(self, run: Run, now_ns: int, out: list[Decision]) -> None:
        step = self.rule.steps[run.step]
        view = self.view(run.fields, run.captured, now_ns)
        actions = [plan.render(view, run.captured, run.hops) for plan in step.plans]
        self.decide(actions, run.because, run.seq, now_ns, out)
        run.step += 1
        run.due_ns = now_ns + step.wait_ns
        if run.step == len(self.rule.steps):
            self.runs.remove(run)
            if self.queue and not self.runs:
                following = self.queue.pop(0)
                following.due_ns = now_ns
                self.runs.append(following)

    # What others ask.

    def unfinished(self) -> Iterator[Command]:
        """What sequences under way would still switch off."""
        for run in self.runs:
            view = self.view(run.fields, run.captured, self.world.now_ns)
            for step in self.rule.steps[run.step :]:
                for plan in step.plans:
                    if isinstance(plan, CommandPlan) and plan.state == "off":
                        yield plan.render(view, run.captured, run.hops)

    def under_way(self) -> Iterator[Command]:
        """What sequences under way last commanded, one for each actuator."""
        for run in self.runs:
            view = self.view(run.fields, run.captured, self.world.now_ns)
            done = [plan for step in self.rule.steps[: run.step] for plan in step.plans]
            last = {
                command.topic: command
                for plan in done
                if isinstance(plan, CommandPlan) and (command := plan.render(view, run.captured, run.hops))
            }
            yield from last.values()

    def readings(self, view: dict[str, Any], captured: dict[str, str]) -> str:
        """What it reads and what stood there, for a person."""
        rule = self.rule
        conditions = [each for each in (rule.when, rule.gate) if each is not None]
        if conditions:
            return ", ".join(filter(None, (each.readings(view, captured) for each in conditions)))
        return ", ".join(f"{name} = {show(view.get(name))}" for name in sorted(rule.roots))

    def dump_shared(self) -> list[Any]:
        """The state that all machines of rules have, for a snapshot."""
        kept = self._kept(self.fields)
        runs, queue = ([msgspec.to_builtins(run) for run in runs] for runs in (self.runs, self.queue))
        windows = [window.dump() for window in self.windows]
        return [
            *(self.captured, self.firings, self.fired_ns, self.n_ns, self.n),
            *(kept, self.hops, self.seen_ns, self.began_ns, self.followed_ns),
            *(self.recent_ns, runs, queue, windows),
        ]

    def load_shared(self, state: list[Any]) -> None:
        """Take up the state that `dump_shared` gave."""
        self.captured, self.firings, self.fired_ns, self.n_ns, self.n, *mine = state
        self.fields, self.hops, self.seen_ns, self.began_ns, self.followed_ns, *mine = mine
        self.recent_ns, runs, queue, windows = mine
        self.runs, self.queue = ([msgspec.convert(run, Run) for run in each] for each in (runs, queue))
        for window, kept in zip(self.windows, windows, strict=True):
            window.load(kept)

    def _kept(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Of an event's fields, those that the rule reads."""
        return {name: value for name, value in fields.items() if name in self.rule.roots}

    def _render(self, plans: Iterable[Plan], view: dict[str, Any], captured: dict[str, str]) -> list[Action]:
        return [plan.render(view, captured, self.hops) for plan in plans]


def watched(rule: Rule) -> list[Looked]:
    """What a rule looks at that is not of its own making: other topics, other devices."""
    return [each for each in rule.references if not isinstance(each, WindowReference | VariableReference)]


def _look(reference: Reference, rule: Rule, world: World) -> tuple[str, Look | None]:
    """How to look at something that other machines or other devices have said; None: a window, this machine's own."""
    if isinstance(reference, WindowReference):
        return reference.text, None
    if isinstance(reference, VariableReference):
        name = reference.name
        return reference.text, lambda _captured, _now_ns: world.variables.get(name)
    watch = world.watch(reference)
    age_ns = rule.stale_after_ns if reference.age_ns is None else reference.age_ns
    return reference.text, lambda captured, now_ns: watch.value(captured, now_ns, age_ns)


@lru_cache(maxsize=4_096)
def _aggregate(reference: WindowReference) -> tuple[str, Evaluate, Aggregate]:
    return reference.text, _sample(reference), AGGREGATES[reference.function]


def _sample(reference: WindowReference) -> Evaluate:
    """What an event adds to a window; None: nothing."""
    if reference.argument is None:
        return lambda _fields, _captured: 1
    evaluate = compile_tree(reference.argument)
    if reference.function == "count":
        return lambda fields, captured: 1 if _counts(evaluate(fields, captured)) else None
    return lambda fields, captured: logic.number(evaluate(fields, captured))


def _counts(value: Any) -> bool:
    return value is not False and logic.known(value)


def _since_1970_ns(value: Any) -> int | None:
    """What an event says of its time: seconds or milliseconds since 1970, or ISO 8601; None if it is neither."""
    if isinstance(value, str):
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            return None
        when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
        return int(when.timestamp() * 1e6) * 1_000
    number = logic.number(value)
    if number is None or not 0 < number < _MILLISECONDS * 1e3:
        return None
    return int(number * 1e6) if number > _MILLISECONDS else int(number * 1e9)

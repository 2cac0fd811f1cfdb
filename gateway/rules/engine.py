"""The engine: records and the passing of time in, decisions and the next deadline out. It reads no clock.

Time is the log's own (`Stamp.elapsed_ns`). A deadline that lies at or before a record's time fires before the record,
and is decided at *its own* time; when a tick happens to come does therefore not show in any decision, and replaying
the log gives the same decisions, with the same ids, as living through it did (L12).

Invariants:
- `tick(t)` is a promise that no record stamped before t will follow. The caller that stamps arrivals can give it.
- A record that is not fresh (retained, marked as a duplicate, replayed) triggers nothing and breaks no silence (L9).
- The engine's state is its machines. `snapshot` holds all of it, and nothing that a tick left behind.
- Per rule at most `max_keys` machines; idle ones go first, an active one runs its `finally`. Counted.
- A record whose topic concerns no rule costs one look into a dict, bounded at `max_topics` (L13).

What it must never do: act. Decisions are values; they are logged before anybody carries them out (L1).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from gateway.model import DERIVED, HOPS_SHIFT, NOT_FRESH, Batch, Command, Decision, Event, Kind
from gateway.rules.compiled import Rule
from gateway.rules.machines.edge_machine import EdgeMachine, SilenceMachine
from gateway.rules.machines.latest import Watch
from gateway.rules.machines.level_machine import LevelMachine
from gateway.rules.machines.machine import FAR, Status
from gateway.rules.machines.rule_machine import watched
from gateway.rules.machines.thermostat_machine import ThermostatMachine
from gateway.rules.machines.world import World
from gateway.rules.routing import Routes, key_of
from gateway.rules.snapshot import Snapshot, decode, encode
from gateway.rules.thermostat_rule import Thermostat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.model import Stamp
    from gateway.mqtt.topics import TopicFilter
    from gateway.rules.compiled import RuleSet
    from gateway.rules.expressions.codegen import Evaluate
    from gateway.rules.trace import Tracer

_RuleMachine: TypeAlias = LevelMachine | EdgeMachine | SilenceMachine
_AnyMachine: TypeAlias = _RuleMachine | ThermostatMachine
_Handlers: TypeAlias = "tuple[tuple[_AnyMachine | Watch, int, dict[str, str], Evaluate | None], ...]"
"""Machine, which of its sources, the levels captured, and what an event must fulfil to concern it, if that is all."""


class Engine:
    """Runs one rule set.

    Attributes:
        evicted_keys: machines given up to make room, since this engine was made.
    """

    def __init__(
        self, ruleset: RuleSet, *, max_keys: int = 10_000, max_topics: int = 50_000, trace: Tracer | None = None
    ) -> None:
        """See the module.

        Args:
            ruleset: what to run.
            max_keys: machines per rule.
            max_topics: how many topics' routes are remembered.
            trace: told every change of state and every near miss.
        """
        self.ruleset = ruleset
        self.evicted_keys = 0
        self._trace = trace
        self._max_keys = max(max_keys, 1)
        self._max_topics = max_topics
        self._owners: tuple[Rule | Thermostat, ...] = ruleset.everyone
        self._ranks = {owner.id: rank for rank, owner in enumerate(self._owners)}
        self._reads_wall = any(owner.reads_wall for owner in self._owners)
        self._begin_afresh()

    def _begin_afresh(self) -> None:
        """Know nothing of any event."""
        self.world = World(self._trace, self.ruleset.topics, self._max_keys)
        self._watches: list[Watch] = []
        self._routes = Routes(self._sources())
        self._machines: list[dict[str, _AnyMachine]] = [{} for _ in self._owners]
        self._handlers: dict[str, _Handlers] = {}
        self._queue: list[tuple[int, int, str]] = []
        """Heap of (deadline, rank of the rule, key). Only an entry that its machine's `queued_ns` names is alive."""
        self._clocked: list[EdgeMachine | SilenceMachine | ThermostatMachine] = []
        """Machines that need no event to begin: they are told when there is a time, and when the wall clock moves."""
        self._has_begun = False
        for rank, owner in enumerate(self._owners):
            if isinstance(owner, Thermostat) or owner.schedules or (owner.silence and owner.silence.on_start):
                machine = self._machine(rank, "")
                assert not isinstance(machine, LevelMachine), "one with phases begins with an event"
                self._clocked.append(machine)

    def run(self, batch: Batch) -> list[Decision]:
        """What a batch of records leads to, with the deadlines that lie before it.

        Args:
            batch: in the log's order, `values` filled in. Kinds other than EVENTS are passed over.

        Returns:
            Decisions in the order in which they were taken.
        """
        out: list[Decision] = []
        now_ns = batch.stamp.elapsed_ns
        self._advance(now_ns, out)
        if self.world.learn(batch.stamp):
            self._plan(now_ns, moved=True)
        if batch.kind is not Kind.EVENTS:
            return out
        assert batch.values is not None, "rules see decoded records"
        known = self._handlers
        seq = batch.seq - 1
        for topic, flags, value in zip(batch.topics, batch.flags, batch.values, strict=True):
            seq += 1
            handlers = known.get(topic)
            if handlers == ():
                continue
            if flags & NOT_FRESH:
                continue
            if handlers is None:
                handlers = self._route(topic, now_ns, out)
            fields = value if value.__class__ is dict else {"value": value}
            hops = flags >> HOPS_SHIFT if flags & DERIVED else 0
            for machine, source, captured, concerns in handlers:
                if concerns is not None and concerns(fields, captured) is not True:
                    continue
                machine.event(source, fields, captured, hops, seq, now_ns, out)
                if machine.due_ns < machine.queued_ns and machine.__class__ is not Watch:
                    self._queue_up(machine)  # type: ignore[arg-type]  # all others are machines
        return out

    def step(self, event: Event) -> list[Decision]:
        """The same for one event."""
        return self.run(
            Batch(
                kind=Kind.EVENTS,
                stamp=event.stamp,
                topics=[event.topic],
                formats=[0],
                flags=[event.flags],
                payloads=[event.payload],
                values=[event.value],
                seq=event.seq,
            )
        )

    def tick(self, elapsed_ns: int) -> list[Decision]:
        """Fire every deadline up to a time, each at its own. See the promise that this is."""
        out: list[Decision] = []
        self._advance(elapsed_ns, out)
        return out

    @property
    def deadline_ns(self) -> int | None:
        """When `tick` has something to do, on the log's clock; None: never, as things stand."""
        queue = self._queue
        while queue:
            due_ns, rank, key = queue[0]
            machine = self._machines[rank].get(key)
            if machine is not None and machine.queued_ns == due_ns == machine.due_ns:
                return due_ns
            heapq.heappop(queue)
            if machine is not None and machine.queued_ns == due_ns:
                machine.queued_ns = FAR
                self._queue_up(machine)
        return None

    def start(self, elapsed_ns: int) -> list[Decision]:
        """What to say once when a process has caught up with its log: deadlines first, then every actuator's wish.

        A device may have missed a command, or been switched by hand, while nobody was there. Nothing of this changes
        the engine's state, so that a log lived through in one piece or in many gives the same one.
        """
        out = self.tick(elapsed_ns)
        said: set[str] = set()
        everyone = [machine for machines in self._machines for machine in machines.values() if not machine.shadow]
        wishes = [(machine, *machine.assertion()) for machine in everyone]
        idle = [(rule.id, rule.constant_offs()) for rule in self.ruleset.rules if not rule.shadow]
        named = [(machine.owner, machine.key, commands, why) for machine, commands, why in wishes]
        named += [(owner, "", commands, "at the start nobody knows what the actuator does") for owner, commands in idle]
        for owner, key, commands, why in named:
            for command in commands:
                if command.topic not in said:
                    said.add(command.topic)
                    name = f"{owner}/{key}/{elapsed_ns}/start-{len(said)}"
                    out.append(Decision(name, owner, key, command, elapsed_ns, None, why))
        return out

    def safe_commands(self) -> dict[str, Command]:
        """Topic to the command that puts the actuator there into its safe state, for all that may be on now."""
        everyone = (machine for machines in self._machines for machine in machines.values() if not machine.shadow)
        return {command.topic: command for machine in everyone for command in machine.safe()}

    def status(self, elapsed_ns: int, *, limit: int = 1_000) -> list[Status]:
        """Where the rules stand at a time, active and pending ones first; at most `limit` machines."""
        everyone = [machine.status(elapsed_ns) for machines in self._machines for machine in machines.values()]
        quiet = {"inactive", "unknown"}
        return sorted(everyone, key=lambda status: status.phase in quiet)[:limit]

    def firings(self) -> dict[str, int]:
        """Rule id to how often it has fired, over all keys that are still known."""
        pairs = zip(self._owners, self._machines, strict=True)
        return {owner.id: sum(machine.firings for machine in machines.values()) for owner, machines in pairs}

    @property
    def loops_cut(self) -> int:
        """Derived events not emitted because too many rules already stood behind them, since this engine was made."""
        return sum(machine.loops_cut for machines in self._machines for machine in machines.values())

    def snapshot(self) -> bytes:
        """The whole state, by rule id and fingerprint."""
        rules = {
            owner.id: (owner.fingerprint, {key: machine.dump() for key, machine in machines.items()})
            for owner, machines in zip(self._owners, self._machines, strict=True)
        }
        return encode(Snapshot(rules, self.world.dump()))

    def restore(self, data: bytes) -> list[str]:
        """Take up the state of an earlier engine, for rules that are still the same.

        Args:
            data: what `snapshot` gave, of this or another rule set.

        Returns:
            One sentence for each rule whose state was dropped. A snapshot that cannot be read is one such sentence.
        """
        try:
            return self._take_up(decode(data))
        except ValueError as error:
            self._begin_afresh()
            return [f"all state is dropped: {error}"]
        except (TypeError, LookupError, AttributeError, msgspec.MsgspecError) as error:
            self._begin_afresh()  # not with half of it
            return [f"all state is dropped: the snapshot does not fit ({error})"]

    def _take_up(self, state: Snapshot) -> list[str]:
        dropped = []
        self.world.load(state.world)
        for name, (fingerprint, states) in state.rules.items():
            rank = self._ranks.get(name)
            if rank is None:
                dropped.append(f"{name}: its state is dropped, there is no such rule any more")
            elif self._owners[rank].fingerprint != fingerprint:
                dropped.append(f"{name}: its state is dropped, the rule has changed")
            else:
                self._load(rank, states)
        return dropped

    def _load(self, rank: int, states: dict[str, Any]) -> None:
        for key, state in states.items():
            machine = self._machine(rank, key)
            machine.load(state)
            self._queue_up(machine)

    def refused(self, decision_id: str, state: str, elapsed_ns: int) -> list[Decision]:
        """Tell the rule that decided so what became of a command that has not done what it was to do.

        Args:
            decision_id: of the decision.
            state: the outcome's: `denied`, `expired`, `unconfirmed`.
            elapsed_ns: when, on the log's clock.

        Returns:
            What the rule decides upon that, with the deadlines that lay before it.
        """
        out: list[Decision] = []
        self._advance(elapsed_ns, out)
        owner, _, rest = decision_id.partition("/")
        key, *numbers = rest.rsplit("/", 2)
        rank = self._ranks.get(owner)
        machine = None if rank is None or len(numbers) < 2 else self._machines[rank].get(key)
        if machine is not None:
            machine.refused(decision_id, state, elapsed_ns, out)
            self._queue_up(machine)
        return out

    def leave(self, staying: dict[str, str], elapsed_ns: int) -> list[Decision]:
        """What to say before another engine takes over: switch off what rules that do not go on have switched on.

        Args:
            staying: rule id to fingerprint of those that go on.
            elapsed_ns: when, on the log's clock.
        """
        out: list[Decision] = []
        for owner, machines in zip(self._owners, self._machines, strict=True):
            if staying.get(owner.id) != owner.fingerprint:
                for machine in machines.values():
                    machine.decide(machine.safe(), "the rule has changed or is gone", None, elapsed_ns, out)
        return out

    def waits_for(self, stamp: Stamp) -> bool:
        """Whether some schedule would move if it knew of these clocks."""
        return self._reads_wall and self.world.is_news(stamp)

    def listens(self, topic: str) -> bool:
        """Whether any rule is concerned by a topic."""
        return bool(self._handlers[topic] if topic in self._handlers else self._routes.match(topic))

    def _sources(self) -> Iterator[tuple[TopicFilter, tuple[int, int] | Watch]]:
        """What is listened to, and by whom: watches first, so that rules see what came with the very event."""
        for rule in self.ruleset.rules:
            for reference in watched(rule):
                watch = self.world.watch(reference)
                if watch not in self._watches:
                    self._watches.append(watch)
                    for topic in self.world.topics_of(reference):
                        yield topic, watch
        for rank, owner in enumerate(self._owners):
            for number, source in enumerate(owner.sources):
                yield source, (rank, number)

    def _plan(self, now_ns: int, *, moved: bool) -> None:
        for machine in self._clocked:
            machine.plan(now_ns, moved=moved)
            self._queue_up(machine)

    def _advance(self, until_ns: int, out: list[Decision]) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._plan(until_ns, moved=False)
        queue, world = self._queue, self.world
        while queue and queue[0][0] <= until_ns:
            due_ns, rank, key = heapq.heappop(queue)
            world.now_ns = due_ns
            machine = self._machines[rank].get(key)
            if machine is None or machine.queued_ns != due_ns:
                continue
            machine.queued_ns = FAR
            if machine.due_ns <= due_ns:
                machine.wake(due_ns, out)
                assert machine.due_ns > due_ns, "a machine that asks for the same instant again stops time"
            self._queue_up(machine)
        world.now_ns = max(world.now_ns, until_ns)

    def _queue_up(self, machine: _AnyMachine) -> None:
        if machine.due_ns < machine.queued_ns:
            machine.queued_ns = machine.due_ns
            heapq.heappush(self._queue, (machine.due_ns, machine.rank, machine.key))

    def _route(self, topic: str, now_ns: int, out: list[Decision]) -> _Handlers:
        """Find, remember and return who is concerned by a topic."""
        found: list[tuple[_AnyMachine | Watch, int, dict[str, str], Evaluate | None]] = []
        triggered: set[int] = set()
        for target, captured in self._routes.match(topic):
            if isinstance(target, Watch):
                found.append((target, 0, captured, None))
                continue
            rank, source = target
            owner = self._owners[rank]
            if isinstance(owner, Rule) and source < len(owner.topics):
                if rank in triggered:
                    continue  # another of the rule's topics has it: one event is one trigger
                triggered.add(rank)
            key = key_of([captured[name] for name in self._owners[rank].names])
            if key not in self._machines[rank] and len(self._machines[rank]) >= self._max_keys:
                self._make_room(rank, now_ns, out)
            machine = self._machine(rank, key)
            concerns = machine.filter if isinstance(machine, EdgeMachine) else None
            found.append((machine, source, {"topic": topic, **captured}, concerns))
        if len(self._handlers) >= self._max_topics:
            self._handlers.clear()
        handlers = self._handlers[topic] = tuple(found)
        return handlers

    def _machine(self, rank: int, key: str) -> _AnyMachine:
        machines = self._machines[rank]
        if key not in machines:
            machine = machines[key] = _new_machine(self._owners[rank], rank, key, self.world)
            # One that comes again at the instant at which it was forgotten goes on numbering: no id means two things.
            machine.n_ns, machine.n = self.world.spent.pop(f"{machine.owner}/{key}", (machine.n_ns, machine.n))
        return machines[key]

    def _make_room(self, rank: int, now_ns: int, out: list[Decision]) -> None:
        """Give up the sixteenth of a rule's machines that has been quiet for longest."""
        machines = self._machines[rank]
        self.world.forget_spent(now_ns)
        oldest = sorted(
            (not machine.is_quiet, machine.seen_ns, key, machine)
            for key, machine in machines.items()
            if not isinstance(machine, ThermostatMachine)
        )
        for _, _, key, machine in oldest[: max(len(machines) // 16, 1)]:
            machine.forget(now_ns, out)
            del machines[key]
            if machine.n_ns == now_ns:
                self.world.spent[f"{machine.owner}/{key}"] = (now_ns, machine.n)
            self.evicted_keys += 1
        self._handlers.clear()  # it refers to the machines that have gone


def _new_machine(owner: Rule | Thermostat, rank: int, key: str, world: World) -> _AnyMachine:
    if isinstance(owner, Thermostat):
        return ThermostatMachine(owner, rank, key, world)
    if owner.silence is not None:
        return SilenceMachine(owner, rank, key, world)
    return (EdgeMachine if owner.when is None else LevelMachine)(owner, rank, key, world)

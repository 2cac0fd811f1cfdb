"""An engine on virtual time, with the log around it that it would have in the gateway. Reads no clock.

It is asked for its next deadline and ticked at each one, never in small steps. What it emits comes back to it as a
derived event, stamped and numbered as the log would, so that rules can set each other off.

Invariants:
- The same calls give the same decisions, down to their ids.
- A decision is taken at its own time, whenever the engine came to take it.
- What is said again at a start is kept apart: no rule has decided it.
- After a crash the new engine replays the log since the state was last saved. It has to decide what the log holds
  already, with the same ids (L12); where it does not, `restart` says so.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from gateway.model import DERIVED, HOPS_SHIFT, MAX_HOPS, Batch, Command, Decision, Emit, Format, Kind, Stamp
from gateway.rules.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model import Value
    from gateway.rules.compiled import RuleSet
    from gateway.rules.trace import Trace

_BOOT = bytes(range(16))
_STARTED_MONO_NS = 1_000_000_000
_MARKER_TOPIC = "$gateway/markers"
_MOST_TRACED = 1_000
"""Steps of machines that are remembered."""


class Reading(NamedTuple):
    """The latest that came on one topic."""

    at_ns: int
    topic: str
    value: Value
    flags: int


class _Refused(NamedTuple):
    """A record of the log: what became of a command that has not done what it was to do."""

    decision_id: str
    state: str
    at_ns: int


_Record: TypeAlias = Batch | _Refused


class Life:
    """One gateway's rules, from a start at zero on.

    Attributes:
        engine: the one that runs now.
        now_ns: how far time has come, on the log's clock.
        decisions: all so far, in the order in which they were taken.
        said: what actuators were told at the latest start, since nobody knew what they had heard.
        latest: the latest reading of each topic, the newest last.
        traced: what the engine told of itself.
        events: how many the engine has seen, derived ones included; a replay does not count.
    """

    def __init__(self, ruleset: RuleSet, start_ns: int) -> None:
        """See the module.

        Args:
            ruleset: what runs.
            start_ns: the wall clock at zero, in nanoseconds since 1970.
        """
        self.now_ns = 0
        self.decisions: list[Decision] = []
        self.said: list[Decision] = []
        self.latest: dict[str, Reading] = {}
        self.traced: deque[Trace] = deque(maxlen=_MOST_TRACED)
        self.events = 0
        self._wall_offset_ns = start_ns
        self._seq = 0
        self._commanded: list[Decision] = []
        self._saved: bytes | None = None
        self._since_saved: list[_Record] = []
        self._decided_since_saved: dict[str, Decision] = {}
        self._is_replaying = False
        self.engine = self._new_engine(ruleset)
        upon = self._append(self._marker())
        self.said = self._start()
        self._take(upon)

    @property
    def wall_ns(self) -> int:
        """The wall clock, in nanoseconds since 1970."""
        return self.now_ns + self._wall_offset_ns

    def advance(self, until_ns: int) -> None:
        """Let time pass: every deadline up to and with this one fires, each at its own time."""
        while (due_ns := self.engine.deadline_ns) is not None and due_ns <= until_ns:
            self.now_ns = due_ns
            self._take(self.engine.tick(due_ns))
        self.now_ns = until_ns

    def send(self, records: Sequence[tuple[str, Value]], flags: int) -> None:
        """Events come now, all of them in one batch.

        Args:
            records: topic and decoded payload of each.
            flags: of each, as in `gateway.model`.
        """
        self._take(self._feed(records, [flags] * len(records)))

    def jump(self, by_ns: int) -> None:
        """Put the wall clock forward or back. The log is told of it if a schedule has to know, as in the gateway."""
        self._wall_offset_ns += by_ns
        if self.engine.waits_for(self._stamp()):
            self._take(self._append(self._marker()))

    def latest_command(self, rule: str, key: str | None, topic: str | None) -> Decision | None:
        """The last time that a rule commanded something; of one key, or one actuator, where they are given."""
        for decision in reversed(self._commanded):
            is_meant = decision.rule == rule and key in {None, decision.key}
            if is_meant and isinstance(decision.action, Command) and topic in {None, decision.action.topic}:
                return decision
        return None

    def refuse(self, decision: Decision, state: str) -> None:
        """A command has not done what it was to do.

        Args:
            decision: that of the command.
            state: `denied`, `expired`, or `unconfirmed`, upon which its `otherwise` follows.
        """
        self._seq += 1
        upon = self._append(_Refused(decision.id, state, self.now_ns))
        if state == "unconfirmed":
            self._record(_otherwise(decision, self.now_ns))
        self._take(upon)

    def restart(self, pause_ns: int, *, crash: bool) -> list[str]:
        """Stop now, and start again after a while.

        Args:
            pause_ns: how long nobody is there.
            crash: the state was not saved: what has happened since it last was is replayed from the log.

        Returns:
            One sentence for each way in which the new engine is not where the old one was. One is a bug.
        """
        before_ns = self.now_ns
        if not crash:
            self._saved = self.engine.snapshot()
            self._since_saved.clear()
            self._decided_since_saved.clear()
        self.engine = self._new_engine(self.engine.ruleset)
        wrong = [] if self._saved is None else self.engine.restore(self._saved)
        self._is_replaying = True
        decided = [decision for record in self._since_saved for decision in self._run(record)]
        self._is_replaying = False
        self.now_ns += pause_ns
        decided += self._append(self._marker())
        known = dict(self._decided_since_saved)
        self.said = self._start()
        self._take([decision for decision in decided if decision.id not in known])
        again = {decision.id: decision for decision in decided if decision.elapsed_ns <= before_ns}
        return wrong + _deviations(known, again)

    def _new_engine(self, ruleset: RuleSet) -> Engine:
        return Engine(ruleset, trace=self._trace)

    def _trace(self, step: Trace) -> None:
        if not self._is_replaying:
            self.traced.append(step)

    def _start(self) -> list[Decision]:
        """What actuators are told; no rule has decided it, so that no replay will."""
        said = self.engine.start(self.now_ns)
        self._commanded += said
        self._seq += len(said)
        return said

    def _take(self, decisions: list[Decision]) -> None:
        """Record what the engine has decided."""
        self._decided_since_saved.update((decision.id, decision) for decision in decisions)
        self._record(decisions)

    def _record(self, decisions: list[Decision]) -> None:
        """Into the log, and what is emitted comes back as events."""
        if not decisions:
            return
        self.decisions += decisions
        self._seq += len(decisions)
        alive = [decision for decision in decisions if not decision.shadow]
        self._commanded += [decision for decision in alive if isinstance(decision.action, Command)]
        emits = [decision.action for decision in alive if isinstance(decision.action, Emit)]
        if emits:
            flags = [DERIVED | min(emit.hops, MAX_HOPS) << HOPS_SHIFT for emit in emits]
            self._take(self._feed([(emit.topic, msgspec.json.decode(emit.payload)) for emit in emits], flags))

    def _feed(self, records: Sequence[tuple[str, Value]], flags: list[int]) -> list[Decision]:
        """Events into the log, and what the engine decides upon them."""
        for (topic, value), flag in zip(records, flags, strict=True):
            self.latest.pop(topic, None)
            self.latest[topic] = Reading(self.now_ns, topic, value, flag)
        self.events += len(records)
        return self._append(
            Batch(
                kind=Kind.EVENTS,
                stamp=self._stamp(),
                topics=[topic for topic, _ in records],
                formats=[Format.JSON] * len(records),
                flags=flags,
                payloads=[msgspec.json.encode(value) for _, value in records],
                values=[value for _, value in records],
                seq=self._seq,
            )
        )

    def _append(self, record: _Record) -> list[Decision]:
        self._seq += len(record) if isinstance(record, Batch) else 1
        self._since_saved.append(record)
        return self._run(record)

    def _run(self, record: _Record) -> list[Decision]:
        if isinstance(record, Batch):
            return self.engine.run(record)
        return self.engine.refused(record.decision_id, record.state, record.at_ns)

    def _marker(self) -> Batch:
        """By which the log knows of a start, and of the clocks at that time."""
        return Batch(
            kind=Kind.DECISIONS,
            stamp=self._stamp(),
            topics=[_MARKER_TOPIC],
            formats=[Format.JSON],
            flags=[0],
            payloads=[b"{}"],
            seq=self._seq,
        )

    def _stamp(self) -> Stamp:
        now_ns = self.now_ns
        return Stamp(self.wall_ns, now_ns + _STARTED_MONO_NS, now_ns, _BOOT, synced=True)


def _otherwise(decision: Decision, now_ns: int) -> list[Decision]:
    """What compensates a command that nobody confirmed, as decisions of their own."""
    assert isinstance(decision.action, Command), "nothing else is confirmed"
    return [
        msgspec.structs.replace(
            decision,
            id=f"{decision.id}/otherwise/{number}",
            action=action,
            elapsed_ns=now_ns,
            cause_seq=None,
            because="nobody has confirmed the command",
        )
        for number, action in enumerate(decision.action.otherwise)
    ]


def _deviations(known: dict[str, Decision], again: dict[str, Decision]) -> list[str]:
    """Where a replay is not what the log says."""
    return [
        *(f"{name} was decided, and a replay of the log does not decide it" for name in known if name not in again),
        *(f"{name} was not decided, and a replay of the log decides it" for name in again if name not in known),
        *(f"{name} is decided otherwise by a replay" for name in known if again.get(name, known[name]) != known[name]),
    ]

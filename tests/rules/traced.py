"""A timeline with a wall clock beside it and a trace of all that happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.model import Batch, Decision, Kind, Notify, Stamp
from gateway.rules.engine import Engine

if TYPE_CHECKING:
    from gateway.rules.compiled import RuleSet
    from gateway.rules.trace import Trace

S = 1_000_000_000
WALL_S = 1_700_000_000
"""The wall clock at second 0 of the log: Tuesday, 14 November 2023, 22:13:20 UTC."""


class Traced:
    """An engine, the seconds that pass for it, and what it decided and told."""

    def __init__(self, ruleset: RuleSet, **limits: Any) -> None:
        self.ruleset = ruleset
        self.limits = limits
        self.trace: list[Trace] = []
        self.decisions: list[Decision] = []
        self.seq = 0
        self.wall_s = float(WALL_S)
        """The wall clock at second 0 of the log, as stamps tell it."""
        self.synced = True
        self.engine = Engine(ruleset, trace=self.trace.append, **limits)

    def event(self, at_s: float, topic: str, value: Any = None, flags: int = 1) -> list[Decision]:
        """One record."""
        return self.batch(at_s, [(topic, value, flags)])

    def batch(self, at_s: float, records: list[tuple[str, Any, int]], kind: Kind = Kind.EVENTS) -> list[Decision]:
        """Several records that came at once; of another kind than EVENTS, or none, it only tells the time."""
        batch = Batch(
            kind=kind,
            stamp=Stamp(round((self.wall_s + at_s) * S), 0, round(at_s * S), bytes(16), self.synced),
            topics=[topic for topic, _, _ in records],
            formats=[1] * len(records),
            flags=[flags for _, _, flags in records],
            payloads=[b""] * len(records),
            values=[value for _, value, _ in records],
            seq=self.seq,
        )
        self.seq += len(records)
        return self._keep(self.engine.run(batch))

    def clock(self, at_s: float, *, wall_s: float | None = None, synced: bool = True) -> list[Decision]:
        """A record that says nothing but what the clocks are, from now on."""
        self.synced = synced
        if wall_s is not None:
            self.wall_s = wall_s - at_s
        return self.batch(at_s, [("nobody/listens", None, 1)])

    def tick(self, at_s: float) -> list[Decision]:
        """Time passes."""
        return self._keep(self.engine.tick(round(at_s * S)))

    def restart(self) -> None:
        """The process ends and another one takes up its snapshot."""
        snapshot = self.engine.snapshot()
        self.engine = Engine(self.ruleset, trace=self.trace.append, **self.limits)
        assert self.engine.restore(snapshot) == []
        assert self.engine.snapshot() == snapshot

    def said(self) -> list[tuple[float, Any]]:
        """(second, what a person would be told or the action as it is) of all decisions so far."""
        return told(self.decisions)

    def whats(self) -> list[str]:
        """What the trace was told, in order."""
        return [trace.what for trace in self.trace]

    def _keep(self, decisions: list[Decision]) -> list[Decision]:
        self.decisions += decisions
        return decisions


def told(decisions: list[Decision]) -> list[tuple[float, Any]]:
    """(second, text or action)."""
    return [(d.elapsed_ns / S, d.action.text if isinstance(d.action, Notify) else d.action) for d in decisions]

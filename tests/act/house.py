"""Rules, act and relays together, without disk and loop: a log that is a list, and time that moves when told to.

Every deadline is met at its own time. What a relay hears and says may be lost on the way.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from gateway.act.dispatch import Dispatcher
from gateway.act.interlock import Interlock
from gateway.act.outbox import Outbox
from gateway.act.records import encode_records
from gateway.model import Batch, Decision, Format, Kind, Outcome, Stamp
from gateway.rules.compiled import RuleSet
from gateway.rules.engine import Engine
from gateway.rules.reading.language import load_rules

S = 1_000_000_000
ANSWERS_AFTER_NS = S // 10
NOT_DONE = {"denied", "expired", "unconfirmed"}


def stamp_at(now_ns: int) -> Stamp:
    """All clocks at a time of the log."""
    return Stamp(now_ns, now_ns, now_ns, bytes(16), True)


def rules_from(directory: Path, source: str) -> RuleSet:
    """A rule set from a text."""
    path = directory / "rules.yaml"
    path.write_text(source, encoding="utf-8")
    return load_rules([path])


class House:
    """A gateway's rules and its act stage, and relays that do what they hear and report on `.../state`."""

    def __init__(self, rules: RuleSet, rng: random.Random, *, loss: float = 0.0) -> None:
        self.engine = Engine(rules)
        self.now_ns = 0
        self.relays: dict[str, str] = {}
        """Command topic to `ON` or `OFF`, as the relay really stands."""
        self.turned_ns: dict[str, int] = {}
        """When it last changed."""
        self.log: list[Decision | Outcome] = []
        self._rng, self._loss = rng, loss
        self._read = 0
        self._seq = 0
        self._reports: list[tuple[int, int, str, str]] = []
        self.dispatcher = Dispatcher(
            Interlock(rules.actuators, max_age_s=60),
            Outbox(lambda where, value, wanted: value == wanted),
            self._publish,
            lambda decision, message: None,
            self.log.extend,
            lambda seconds: None,
        )
        self._take(self.engine.start(0))

    def event(self, topic: str, value: Any, flags: int = 1) -> None:
        """Something comes from a device."""
        batch = Batch(
            Kind.EVENTS, stamp_at(self.now_ns), [topic], [Format.JSON], [flags], [b"?"], [value], seq=self._seq
        )
        self._seq += 1
        self._take(self.engine.run(batch))
        self.dispatcher.observe(batch, self.now_ns)
        self._carry_out()

    def until(self, end_ns: int, *, stop: Callable[[], bool] | None = None) -> None:
        """Let time pass, from one deadline or report to the next. `stop`: asked at each."""
        while stop is None or not stop():
            reports_ns = self._reports[0][0] if self._reports else None
            dues = (self.engine.deadline_ns, self.dispatcher.deadline_ns, reports_ns)
            due_ns = min((due for due in dues if due is not None), default=end_ns + 1)
            if due_ns > end_ns:
                self.now_ns = end_ns
                return
            due_ns = self.now_ns = max(due_ns, self.now_ns)
            while self._reports and self._reports[0][0] <= due_ns:
                _, _, topic, state = heappop(self._reports)
                self.event(topic, state)
            self._take(self.engine.tick(due_ns))
            self.dispatcher.tick(due_ns)
            self._carry_out()

    def ends(self) -> Counter[str]:
        """Decision id to how many ends it has."""
        return Counter(record.decision_id for record in self.log if isinstance(record, Outcome))

    def states_of(self, topic: str) -> dict[str, str]:
        """What became of each command to an actuator; empty: nothing yet."""
        states = {record.id: "" for record in self.log if isinstance(record, Decision) and _topic(record) == topic}
        for record in self.log:
            if isinstance(record, Outcome) and record.decision_id in states:
                states[record.decision_id] = record.state
        return states

    def end_of_latest(self, topic: str) -> str:
        """What became of the latest command to an actuator; empty: it still waits for an answer."""
        return list(self.states_of(topic).values() or [""])[-1]

    def _take(self, decisions: list[Decision]) -> None:
        self.log += decisions
        self._carry_out()

    def _carry_out(self) -> None:
        while self._read < len(self.log):
            record = self.log[self._read]
            batch = encode_records([record], stamp_at(self.now_ns))
            batch.seq = self._seq
            self._seq += 1
            self._read += 1
            if isinstance(record, Outcome) and record.state in NOT_DONE:
                self.log += self.engine.refused(record.decision_id, record.state, self.now_ns)
            self.dispatcher.handle(batch, self.now_ns)

    def _publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
        if self._rng.random() < self._loss:
            return 0
        state = payload.decode().strip('"')
        if self.relays.get(topic) != state:
            self.relays[topic], self.turned_ns[topic] = state, self.now_ns
        if self._rng.random() >= self._loss:
            report = topic.removesuffix("/set") + "/state"
            heappush(self._reports, (self.now_ns + ANSWERS_AFTER_NS, len(self._reports), report, state))
        return 1


def _topic(decision: Decision) -> str:
    return getattr(decision.action, "topic", "")

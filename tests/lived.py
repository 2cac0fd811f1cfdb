"""A data directory as a gateway leaves it behind: events, what rules decided of them, what became of it.

The stages themselves do it, without their loops, on a clock moved by hand: every deadline is met at its time.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.act.dispatch import Dispatcher
from gateway.act.interlock import Interlock
from gateway.act.outbox import Outbox
from gateway.act.records import decode_records
from gateway.app.journal import Journal
from gateway.config.settings import LogSettings
from gateway.model import Batch, Decision, Format, Kind, Outcome
from gateway.ringlog import Store
from gateway.rules.compiled import RuleSet
from gateway.rules.engine import Engine
from tests.conftest import HandClock

NOT_DONE = {"denied", "expired", "unconfirmed"}


@dataclass
class Life:
    """One life of a gateway with some rules."""

    data_dir: Path
    rules: RuleSet
    clock: HandClock = field(default_factory=HandClock)
    max_size_bytes: int = 32 << 20
    segment_size_bytes: int = 1 << 20

    def live(self, *steps: tuple[float, str, Any]) -> None:
        """Receive `(seconds after the last step, topic, value)`; an event without a topic only lets time pass."""
        asyncio.run(self._live(steps))

    async def _live(self, steps) -> None:
        settings = LogSettings(
            max_size_bytes=self.max_size_bytes, segment_size_bytes=self.segment_size_bytes, compress=False
        )
        self.store = Store(self.data_dir, "g", settings, self.clock, _fail)
        self.log = self.store.events
        self.journal = Journal(self.log)
        self.sent: list[tuple[str, bytes]] = []
        self.engine = Engine(self.rules)
        self.dispatcher = Dispatcher(
            Interlock(self.rules.actuators, 60.0),
            Outbox(lambda _, reported, wanted: reported == wanted),
            lambda topic, payload, **_: self.sent.append((topic, payload)) or 1,
            lambda *_: None,
            self.journal.record,
            lambda _: None,
        )
        self.readers = [self.store.reader(self.log.floor, durable_only=False) for _ in range(3)]
        try:
            self.journal.mark("started", self.rules.fingerprints)
            self._settle()
            for after_s, topic, value in steps:
                await self._pass(after_s)
                if topic:
                    self._receive(topic, value)
                    await self.store.committer.flush()
        finally:
            await self.store.close()

    def _receive(self, topic: str, value: Any, flags: int = 1) -> None:
        if isinstance(topic, tuple):
            topic, flags = topic
        batch = Batch(
            kind=Kind.EVENTS,
            stamp=self.log.stamp(),
            topics=[topic],
            formats=[Format.JSON],
            flags=[flags],
            payloads=[json.dumps(value).encode()],
            values=[value],
        )
        self.log.append(batch)
        self._settle()

    async def _pass(self, seconds: float) -> None:
        end_ns = self.log.elapsed_ns() + round(seconds * 1e9)
        while True:
            dues = (self.engine.deadline_ns, self.dispatcher.deadline_ns)
            due_ns = min((due for due in dues if due is not None), default=end_ns)
            step_ns = min(due_ns, end_ns) - self.log.elapsed_ns()
            self.clock.wall += max(step_ns, 0)
            self.clock.mono += max(step_ns, 0)
            self._settle()
            await self.store.committer.flush()
            if due_ns > end_ns or self.log.elapsed_ns() >= end_ns:
                return

    def _settle(self) -> None:
        """Until nobody has anything more to say at this instant."""
        while True:
            seq = self.log.appended.seq
            while (batch := self.readers[0].poll(1000)) is not None:
                self._decide(batch)
            self._say(self.engine.tick(self.log.elapsed_ns()))
            while (batch := self.readers[1].poll(1000)) is not None:
                if batch.kind is Kind.EVENTS:
                    self.dispatcher.observe(batch, self.log.elapsed_ns())
                else:
                    self.dispatcher.handle(batch, self.log.elapsed_ns())
            self.dispatcher.tick(self.log.elapsed_ns())
            while (batch := self.readers[2].poll(1000)) is not None:
                if batch.kind is Kind.DECISIONS:  # the audit trail
                    self.store.audit.append(batch.slice(0, len(batch)))
            if self.log.appended.seq == seq:
                return

    def _decide(self, batch: Batch) -> None:
        self._say(self.engine.run(batch))
        if batch.kind is Kind.DECISIONS:
            for _, record in decode_records(batch):
                if isinstance(record, Outcome) and record.state in NOT_DONE:
                    self._say(self.engine.refused(record.decision_id, record.state, batch.stamp.elapsed_ns))

    def _say(self, decisions: list[Decision]) -> None:
        if decisions:
            self.journal.record(decisions)


def _fail(error):
    raise error

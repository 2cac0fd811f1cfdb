"""The act stage without disk and loop: a log that is a list, a relay, and lives that end without farewell."""

from __future__ import annotations

import random
from collections.abc import Mapping

from gateway.act.actuator import Standing
from gateway.act.dispatch import Dispatcher
from gateway.act.interlock import Interlock
from gateway.act.outbox import Outbox
from gateway.act.recall import Recall
from gateway.act.records import encode_records, encode_standings
from gateway.model import ActuatorLimits, Batch, Command, Decision, Expect, Format, Kind, Notify, Origin, Outcome, Stamp

S = 1_000_000_000
HEATER = "devices/a/heater/set"
REPORT = "devices/a/heater/state"
TELL = Notify("oncall", "it does not answer")


def command(state: str, *, answers: bool = True) -> Command:
    """`ON` or `OFF`; five seconds and three more tries for the answer, if there is to be one."""
    expect = Expect(REPORT, "value == wanted", 5.0, 3) if answers else None
    return Command(HEATER, f'"{state}"'.encode(), state.lower(), expect, (TELL,) if answers else ())


class Lives:
    """One log, and the dispatchers that live on it one after the other. Time moves when told to."""

    def __init__(self, limits: ActuatorLimits | Mapping[str, ActuatorLimits]) -> None:
        self.limits = {HEATER: limits} if isinstance(limits, ActuatorLimits) else limits
        self.now_s = 0.0
        self.epoch = 0
        self.log: list[tuple[Decision | Outcome | Standing, int, int]] = []
        """Record, when it was appended, and by which life."""
        self.cursor = 0
        self.synced = 0
        """What a crash leaves at least."""
        self.floor = 0
        """What was before has been evicted."""
        self.sent: list[tuple[float, str]] = []
        """When, and `on` or `off`."""
        self.topics: list[str] = []
        """Where to, for each that was sent."""
        self.told: list[str] = []
        self.begin()

    @property
    def now_ns(self) -> int:
        """The log's own clock."""
        return round(self.now_s * S)

    def begin(self) -> None:
        """A new life: what the log tells is recalled from the cursor on."""
        self.epoch += 1
        self.interlock = Interlock(self.limits, max_age_s=60)
        self.dispatcher = Dispatcher(
            self.interlock,
            Outbox(lambda where, value, wanted: value == wanted),
            self._publish,
            lambda decision, message: self.told.append(message.text),
            self._record,
            lambda seconds: None,
        )
        recall = Recall(self.interlock)
        self._standings: tuple[list[Standing], int] = ([], 0)
        for seq in range(max(self.cursor, self.floor), len(self.log)):
            recall.take(self._batch(seq))
        self._read = len(self.log)
        self.dispatcher.recover(recall.finish(self.now_ns, self.epoch), self.now_ns)
        self.read()

    def crash(self, rng: random.Random | None = None) -> None:
        """The end of a life. With `rng`, what was appended after the last sync may be gone."""
        if rng is not None:
            del self.log[rng.randint(self.synced, len(self.log)) :]

    def commit(self) -> None:
        """Store the cursor, as the stage does."""
        self.synced = len(self.log)
        self.interlock.rest_upon(*self._standings)
        self._standings = ([], 0)
        needed = self.dispatcher.oldest_needed_seq(self.now_ns)
        self.cursor = self._read if needed is None else min(self._read, needed)

    def say_anew(self) -> None:
        """Log what the interlock knows, as the stage does when that lies far behind. It counts once it is synced."""
        self._standings = (self.interlock.standings(), len(self.log))
        self._record(self._standings[0])
        self.read()

    def decide(self, action: Command) -> Decision:
        """Log a decision, sync it, and carry it out."""
        decision = Decision(f"r//{self.now_ns}/{len(self.log)}", "r", "", action, self.now_ns, None, "")
        self._record([decision])
        self.read()
        return decision

    def advance(self, seconds: float, *, step_s: float = 1.0) -> None:
        """Let time pass while the gateway runs."""
        for _ in range(round(seconds / step_s)):
            self.now_s += step_s
            self.dispatcher.tick(self.now_ns)
            self.read()

    def report(self, state: str, topic: str = REPORT) -> None:
        """The device says how it stands."""
        stamp = Stamp(self.now_ns, self.now_ns, self.now_ns, bytes(16), True)
        self.dispatcher.observe(Batch(Kind.EVENTS, stamp, [topic], [Format.JSON], [1], [b"?"], [state]), self.now_ns)
        self.read()

    def end_of(self, decision: Decision) -> list[str]:
        """What became of it."""
        return [
            record.state
            for record, _, _ in self.log
            if isinstance(record, Outcome) and record.decision_id == decision.id
        ]

    def read(self) -> None:
        """Carry out what the log holds beyond what was read."""
        while self._read < len(self.log):
            batch = self._batch(self._read)
            if isinstance(self.log[self._read][0], Decision):
                self.synced = self._read + 1  # on disk before it is carried out
            self._read += 1
            self.dispatcher.handle(batch, self.now_ns)

    def _record(self, records) -> None:
        self.log += [(record, self.now_ns, self.epoch) for record in records]

    def _publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
        self.sent.append((self.now_s, payload.decode().strip('"').lower()))
        self.topics.append(topic)
        return 1

    def _batch(self, seq: int) -> Batch:
        record, at_ns, epoch = self.log[seq]
        stamp = Stamp(at_ns, at_ns, at_ns, bytes(16), True)
        if isinstance(record, Standing):
            (batch,) = encode_standings([record], stamp)
        else:
            batch = encode_records([record], stamp)
        batch.seq, batch.origin = seq, Origin("gw", "0" * 16, epoch)
        return batch

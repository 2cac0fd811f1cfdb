"""Carries out what rules have decided, and records what became of it.

Decisions arrive from the log, in its order. A command passes the interlock and lives in the outbox; what its
`otherwise` asks for goes back into the log as decisions of its own, so that it too is on disk before it happens.

Invariants:
- What is recorded as having an end is never carried out again, whatever is read twice.
- Nothing here waits: messages are handed to `publish`, notifications to `notify`, records to `record`.
- A decision that cannot be carried out (a topic that is none) comes to an end as well: it never stops the stage, nor
  the next start.
- Only a fresh report that came after the command confirms it.
- What the interlock wants switched off is a decision like any other: logged, confirmed, tried again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.act.interlock import Deny, Expired, Interlock
from gateway.act.outbox import Ended, Outbox, Send
from gateway.act.records import decode_records
from gateway.model import NOT_FRESH, Batch, Command, Decision, Notify, Outcome, Publish
from gateway.mqtt.topics import topic_problem
from gateway.observe import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol

    class PublishCall(Protocol):
        """Send a message to whoever subscribes; returns how many were reached."""

        def __call__(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
            """Args as in MQTT; `payload` in bytes."""


INTERLOCK = "interlock"
"""Stands in the place of a rule's id where the interlock itself decided."""


class Dispatcher:
    """The act stage without its loop: called with batches of the log and with the passing of time."""

    def __init__(
        self,
        interlock: Interlock,
        outbox: Outbox,
        publish: PublishCall,
        notify: Callable[[Decision, Notify], None],
        record: Callable[[Sequence[Decision | Outcome]], None],
        latency: Callable[[float], None],
    ) -> None:
        """See the module.

        Args:
            interlock: the gate.
            outbox: where commands wait for their confirmation.
            publish: puts a message on the wire.
            notify: tells a person.
            record: appends to the event log.
            latency: is told, for each command sent at first try, the seconds since its decision's cause; not for what
                a restart takes up.
        """
        self._interlock = interlock
        self._outbox = outbox
        self._publish = publish
        self._notify = notify
        self._record = record
        self._latency = latency
        self.commands: dict[str, int] = {}
        """Outcomes since start, by state."""

    def handle(self, batch: Batch, now_ns: int) -> None:
        """Carry out the decisions of a batch of kind DECISIONS."""
        for seq, record in decode_records(batch):
            if isinstance(record, Decision) and self._carry_out(record, seq, now_ns):
                self._latency((now_ns - record.elapsed_ns) / 1e9)

    def recover(self, open_decisions: Sequence[tuple[int, Decision]], now_ns: int) -> None:
        """After a restart: take up the decisions that the log shows no end for, in the order of the log."""
        for seq, decision in open_decisions:
            self._carry_out(decision, seq, now_ns)

    def observe(self, batch: Batch, now_ns: int) -> None:
        """See whether devices confirm a command. Costs nothing while no confirmation is awaited."""
        expected = self._outbox.expected
        if not expected:
            return
        for index, topic in enumerate(batch.topics):
            if topic in expected and not batch.flags[index] & NOT_FRESH:
                value = batch.values[index] if batch.values is not None else _decode(batch.payloads[index])
                self._apply(self._outbox.observe(topic, value, batch.stamp.elapsed_ns), now_ns)

    def tick(self, now_ns: int) -> None:
        """Retry, give up, and switch off what has been on for too long."""
        self._apply(self._outbox.tick(now_ns), now_ns)
        because = "it has been on for max_on, or nobody knows whether it is off"
        for command in self._interlock.tick(now_ns):
            events.made_safe(command.topic, cause=because)
            name = f"{INTERLOCK}/{command.topic}/{now_ns}/0"
            self._record([Decision(name, INTERLOCK, command.topic, command, now_ns, None, because)])

    @property
    def deadline_ns(self) -> int | None:
        """When `tick` has something to do next."""
        times = (self._outbox.deadline_ns, self._interlock.deadline_ns)
        return min((each for each in times if each is not None), default=None)

    @property
    def oldest_open_seq(self) -> int | None:
        """The oldest record whose command has no end yet: a restart must read from here."""
        return self._outbox.oldest_seq

    def make_safe(self, commands: Iterable[Command], now_ns: int, cause: str) -> None:
        """Send what puts actuators into their stated safe state, at once and past every queue."""
        wanted = {command.topic: command for command in (*self._interlock.safe_commands(), *commands)}
        for command in wanted.values():
            events.made_safe(command.topic, cause=cause)
            self._apply(self._outbox.withdraw(command.topic, cause, now_ns), now_ns)
            self._send(command, now_ns)

    def _carry_out(self, decision: Decision, seq: int, now_ns: int) -> bool:
        """Do it, and record its end if it has one by then. Returns whether a command went out."""
        action = decision.action
        if isinstance(action, Command):
            return self._command(decision, action, seq, now_ns)
        if isinstance(action, Publish):
            self._record([self._publish_message(decision, action, now_ns)])
        elif isinstance(action, Notify):
            self._notify(decision, action)
            self._record([Outcome(decision.id, "sent", "", now_ns)])
        return False

    def _publish_message(self, decision: Decision, message: Publish, now_ns: int) -> Outcome:
        age_ns = now_ns - decision.elapsed_ns
        if age_ns > self._interlock.max_age_ns:
            return Outcome(decision.id, "expired", f"{age_ns / 1e9:.0f} s old", now_ns)
        problem = topic_problem(message.topic)
        if problem:
            events.command_denied(message.topic, rule=decision.rule, why=problem)
            return Outcome(decision.id, "denied", problem, now_ns)
        self._publish(message.topic, message.payload, qos=message.qos, retain=message.retain)
        return Outcome(decision.id, "sent", "", now_ns)

    def _command(self, decision: Decision, command: Command, seq: int, now_ns: int) -> bool:
        problem = topic_problem(command.topic)
        verdict = Deny(problem) if problem else self._interlock.judge(command, decision.elapsed_ns, now_ns)
        if isinstance(verdict, Expired):
            self._conclude(Outcome(decision.id, "expired", f"{verdict.age_s:.0f} s old", now_ns))
            return False
        if isinstance(verdict, Deny):
            events.command_denied(command.topic, rule=decision.rule, why=verdict.reason)
            self._conclude(Outcome(decision.id, "denied", verdict.reason, now_ns))
            return False
        self._apply(self._outbox.start(decision, seq, now_ns), now_ns)
        return True

    def _apply(self, effects: Sequence[Send | Ended], now_ns: int) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect.command, now_ns)
                continue
            if effect.outcome.state == "unconfirmed":
                command = effect.decision.action
                assert isinstance(command, Command), "only commands are confirmed"
                tries = 1 + (command.expect.retries if command.expect is not None else 0)
                self._interlock.doubt(command)
                events.command_unconfirmed(command.topic, rule=effect.decision.rule, tries=tries)
            self._conclude(effect.outcome)
            self._record_otherwise(effect, now_ns)

    def _record_otherwise(self, ended: Ended, now_ns: int) -> None:
        if ended.otherwise:
            self._record(
                [
                    msgspec.structs.replace(
                        ended.decision,
                        id=f"{ended.decision.id}/otherwise/{number}",
                        action=action,
                        elapsed_ns=now_ns,
                        cause_seq=None,
                        because=ended.outcome.detail,
                    )
                    for number, action in enumerate(ended.otherwise)
                ]
            )

    def _send(self, command: Command, now_ns: int) -> None:
        self._interlock.note(command, now_ns)
        self._publish(command.topic, command.payload, qos=1, retain=False)

    def _conclude(self, outcome: Outcome) -> None:
        self.commands[outcome.state] = self.commands.get(outcome.state, 0) + 1
        self._record([outcome])


def _decode(payload: bytes) -> object:
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return payload.decode(errors="replace")

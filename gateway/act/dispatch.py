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
- What makes actuators safe goes out at once, past every queue, and is recorded beside it: the next start must know that
  they were switched off, and when. After it nothing switches anything on, nor says again what once did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.act.interlock import INTERLOCK, Allow, Deny, Expired, Interlock
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


SAFE = "make-safe"
"""Stands in the place of a rule's id where everything is put into its safe state."""


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
        self.interlock = interlock
        """The last gate; `gateway.act.recall` tells it of former lives."""
        self._outbox = outbox
        self._publish = publish
        self._notify = notify
        self._record = record
        self._latency = latency
        self._done: set[str] = set()
        """Ids of decisions that were carried out before they were recorded, until the log brings them."""
        self.commands: dict[str, int] = {}
        """Outcomes since start, by state."""

    def to_do(self, batch: Batch) -> list[tuple[int, Decision]]:
        """The decisions in a batch of kind DECISIONS that are to be carried out, each with its sequence number."""
        found = []
        for seq, record in decode_records(batch):
            if isinstance(record, Decision) and record.leaves:
                if record.id in self._done:
                    self._done.discard(record.id)
                else:
                    found.append((seq, record))
        return found

    def carry_out(self, decisions: Sequence[tuple[int, Decision]], now_ns: int) -> None:
        """Carry out what has just been decided."""
        for seq, decision in decisions:
            if self._carry_out(decision, seq, now_ns):
                self._latency((now_ns - decision.elapsed_ns) / 1e9)

    def handle(self, batch: Batch, now_ns: int) -> None:
        """Carry out the decisions of a batch of kind DECISIONS."""
        self.carry_out(self.to_do(batch), now_ns)

    def recover(self, open_decisions: Sequence[tuple[int, Decision]], now_ns: int) -> None:
        """After a restart: take up the decisions that the log shows no end for, in the order of the log.

        If the last word to an actuator still passes, it is the only one: no relay clicks for the whole conversation.
        """
        last = {each.action.topic: each for _, each in open_decisions if isinstance(each.action, Command)}
        passing = {topic: each for topic, each in last.items() if self._passes(each, now_ns)}
        for seq, decision in open_decisions:
            newer = passing.get(decision.action.topic) if isinstance(decision.action, Command) else None
            if newer is None or newer is decision:
                self._carry_out(decision, seq, now_ns)
            else:
                self._conclude(Outcome(decision.id, "superseded", f"by {newer.id}", now_ns))

    def _passes(self, decision: Decision, now_ns: int) -> bool:
        command = decision.action
        assert isinstance(command, Command), "only commands pass a gate"
        return isinstance(self.interlock.judge(command, decision.elapsed_ns, now_ns), Allow)

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
        for command in self.interlock.tick(now_ns):
            events.made_safe(command.topic, cause=because)
            name = f"{INTERLOCK}/{command.topic}/{now_ns}/0"
            self._record([Decision(name, INTERLOCK, command.topic, command, now_ns, None, because)])

    @property
    def awaits_reports(self) -> bool:
        """Whether `observe` has anything to look for."""
        return bool(self._outbox.expected)

    @property
    def deadline_ns(self) -> int | None:
        """When `tick` has something to do next."""
        times = (self._outbox.deadline_ns, self.interlock.deadline_ns)
        return min((each for each in times if each is not None), default=None)

    @property
    def oldest_open_seq(self) -> int | None:
        """The oldest record whose command has no end yet."""
        return self._outbox.oldest_seq

    def oldest_needed_seq(self, now_ns: int) -> int | None:
        """The oldest record from which a restart must read: for what has no end yet, and for what the interlock knows.

        None: it needs nothing of what has been handled.
        """
        seqs = (self.oldest_open_seq, self.interlock.oldest_seq(now_ns))
        return min((seq for seq in seqs if seq is not None), default=None)

    def make_safe(self, commands: Iterable[Command], now_ns: int, cause: str) -> None:
        """Send what puts actuators into their stated safe state, at once and past every queue.

        From then on nothing passes but `off`.
        """
        self.interlock.close(cause)
        wanted = {command.topic: command for command in (*self.interlock.safe_commands(), *commands)}
        for command in wanted.values():
            events.made_safe(command.topic, cause=cause)
            self._apply(self._outbox.withdraw(command.topic, cause, now_ns), now_ns)
            self.interlock.note(command, now_ns)
            self._send(command)
            decision = Decision(f"{SAFE}/{command.topic}/{now_ns}/0", SAFE, command.topic, command, now_ns, None, cause)
            self._done.add(decision.id)
            self._record([decision, Outcome(decision.id, "sent", cause, now_ns)])

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
        if age_ns > self.interlock.max_age_ns:
            return Outcome(decision.id, "expired", f"{age_ns / 1e9:.0f} s old", now_ns)
        problem = topic_problem(message.topic)
        if problem:
            events.command_denied(message.topic, rule=decision.rule, why=problem)
            return Outcome(decision.id, "denied", problem, now_ns)
        self._publish(message.topic, message.payload, qos=message.qos, retain=message.retain)
        return Outcome(decision.id, "sent", "", now_ns)

    def _command(self, decision: Decision, command: Command, seq: int, now_ns: int) -> bool:
        problem = topic_problem(command.topic)
        verdict = Deny(problem) if problem else self.interlock.judge(command, decision.elapsed_ns, now_ns)
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
                if not self.interlock.is_closed_to(effect.command):
                    for_cap = effect.decision.rule == INTERLOCK
                    self.interlock.note(effect.command, now_ns, effect.seq, for_cap=for_cap)
                    self._send(effect.command)
                continue
            command = effect.decision.action
            assert isinstance(command, Command), "nothing else waits for its end"
            if effect.outcome.state == "confirmed":
                self.interlock.settle(command)
            elif effect.outcome.state == "unconfirmed":
                tries = 1 + (command.expect.retries if command.expect is not None else 0)
                self.interlock.doubt(command)
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

    def _send(self, command: Command) -> None:
        self._publish(command.topic, command.payload, qos=1, retain=False)

    def _conclude(self, outcome: Outcome) -> None:
        self.commands[outcome.state] = self.commands.get(outcome.state, 0) + 1
        self._record([outcome])


def _decode(payload: bytes) -> object:
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return payload.decode(errors="replace")

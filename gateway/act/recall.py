"""What the log tells of former lives: what the interlock knew, and what was decided and has no end yet.

A command's decision says when it was to go out, its outcome whether it did. Told in the order of the log, they give a
new interlock what the old one knew, so that `max_on` and `min_off` count through a restart (L12). A standing says all
that is known of one actuator, in place of whatever came before.

Invariants:
- What may have been sent counts as sent where that is the safe side: an `on` for the cap and not for the rest, an `off`
  as never confirmed. That concerns what a crash kept from being recorded as ended, and what only a later life gave up.
- An `on` counts from its decision, an `off` that was sent again by a later life from its end there. Lives that left no
  word may have sent again what had no end, as long as it was young: neither the cap nor the rest is counted too short.
- Pure: records in, nothing sent, nothing recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.act.actuator import Standing
from gateway.act.interlock import INTERLOCK
from gateway.act.records import decode_all
from gateway.model import Command, Decision, Outcome

if TYPE_CHECKING:
    from gateway.act.interlock import Interlock
    from gateway.model import Batch

_SENT = frozenset({"sent", "confirmed", "unconfirmed", "superseded"})
"""Ends of what went out; the others (`denied`, `expired`) are those of what did not."""


class _Told(NamedTuple):
    decision: Decision
    seq: int
    at_ns: int
    """When it was recorded."""
    epoch: int
    """The life that recorded it."""

    @property
    def is_for_cap(self) -> bool:
        return self.decision.rule == INTERLOCK


class Recall:
    """Takes the decisions and outcomes of the log in, and tells an interlock."""

    def __init__(self, interlock: Interlock) -> None:
        """Args: interlock: one that has seen nothing yet."""
        self._interlock = interlock
        self._open: dict[str, _Told] = {}
        """By id, in the order of the log."""

    def take(self, batch: Batch) -> None:
        """The next records. `batch`: of kind DECISIONS."""
        at_ns, epoch = batch.stamp.elapsed_ns, batch.origin.epoch
        for seq, record in decode_all(batch):
            if isinstance(record, Outcome):
                told = self._open.pop(record.decision_id, None)
                if told is not None:
                    self._ended(told, record, epoch)
            elif isinstance(record, Standing):
                self._interlock.adopt(record, seq)
            elif record.leaves:  # all else comes to no end
                self._open[record.id] = _Told(record, seq, at_ns, epoch)

    def finish(self, now_ns: int, epoch: int) -> list[tuple[int, Decision]]:
        """What has no end, in the order of the log, each with its sequence number.

        Args:
            now_ns: the log's elapsed time.
            epoch: the life that asks.
        """
        for told in self._open.values():
            self._perhaps_sent(told, now_ns, epoch)
        return [(told.seq, told.decision) for told in self._open.values()]

    def _ended(self, told: _Told, outcome: Outcome, epoch: int) -> None:
        command = told.decision.action
        if not isinstance(command, Command):
            return
        is_of_later_life = epoch != told.epoch
        if outcome.state not in _SENT:
            if is_of_later_life:
                self._perhaps_sent(told, outcome.elapsed_ns, epoch)
            return
        at_ns = outcome.elapsed_ns if is_of_later_life and command.state == "off" else told.at_ns
        self._interlock.note(command, at_ns, told.seq, for_cap=told.is_for_cap)
        if outcome.state == "confirmed":
            self._interlock.settle(command)
        elif outcome.state == "unconfirmed":
            self._interlock.doubt(command)

    def _perhaps_sent(self, told: _Told, end_ns: int, epoch: int) -> None:
        """The life that recorded it ended before it could say more; the one of `epoch` has not sent it by `end_ns`."""
        command = told.decision.action
        if not isinstance(command, Command):
            return
        until_ns = told.at_ns
        if epoch - told.epoch > 1:
            until_ns = min(end_ns, told.at_ns + self._interlock.max_age_ns)
        self._interlock.suspect(command, told.at_ns, until_ns, told.seq, for_cap=told.is_for_cap)

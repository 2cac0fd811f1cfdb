"""A thermostat as a machine: `gateway.rules.thermostat` decides, this keeps what it knows and gives decisions ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.rules import logic, thermostat
from gateway.rules.expression import show
from gateway.rules.machine import Machine, Status

if TYPE_CHECKING:
    from gateway.model import Command, Decision
    from gateway.rules.thermostat_rule import Thermostat
    from gateway.rules.world import World


class ThermostatMachine(Machine):
    """A thermostat. It has one key, the empty one."""

    __slots__ = ("rule", "state")

    def __init__(self, rule: Thermostat, rank: int, key: str, world: World) -> None:
        super().__init__(rule.id, rank, key, world)
        self.rule = rule
        self.state = thermostat.State()

    def event(
        self,
        source: int,
        fields: dict[str, Any],
        captured: dict[str, str],
        hops: int,
        seq: int,
        now_ns: int,
        out: list[Decision],
    ) -> None:
        """A fresh event of its sensor has come."""
        del source, hops
        self._look(logic.number(self.rule.reading.evaluate(fields, captured)), seq, now_ns, out)

    def wake(self, now_ns: int, out: list[Decision]) -> None:
        """The deadline has come."""
        self._look(None, None, now_ns, out)

    def assertion(self) -> tuple[list[Command], str]:
        """The commands that its present phase calls for, and why."""
        return list(self.rule.commands[self.state.running or thermostat.OFF]), "what it wants, said again at the start"

    def safe(self) -> list[Command]:
        """What `on_stale` says."""
        return list(self.rule.safe)

    def status(self, now_ns: int) -> Status:
        """Where it stands."""
        state = self.state
        name = self.rule.reading.source
        stale = "" if state.reading is None or not thermostat.is_stale(self.rule.limits, state, now_ns) else " (stale)"
        return Status(
            rule=self.owner,
            key=self.key,
            phase=state.running or "unknown",
            since_ns=state.since_ns,
            seen_ns=None if state.reading is None else state.read_ns,
            fired_ns=self.fired_ns,
            firings=self.firings,
            readings=f"{name} = {show(state.reading)}{stale}",
        )

    def dump(self) -> list[Any]:
        """The state, for a snapshot."""
        return [self.firings, self.fired_ns, self.n_ns, self.n, self.due_ns, *self.state]

    def load(self, state: list[Any]) -> None:
        """Take up the state that `dump` gave."""
        self.firings, self.fired_ns, self.n_ns, self.n, self.due_ns, *mine = state
        self.state = thermostat.State(*mine)

    def _look(self, reading: float | None, seq: int | None, now_ns: int, out: list[Decision]) -> None:
        before = self.state.running
        verdict = thermostat.decide(self.rule.limits, self.state, reading, now_ns)
        self.state, self.due_ns = verdict.state, verdict.deadline_ns
        if verdict.command is None:
            return
        if verdict.command not in {before, thermostat.OFF}:
            self.firings += 1
        self.fired_ns = now_ns
        self.decide(self.rule.commands[verdict.command], verdict.because, seq, now_ns, out)

"""A thermostat as a machine: `thermostat` decides, this brings it the news and gives decisions ids.

Invariants:
- Its state is `thermostat.State` and the record of having fired. Which set-points the timetable has in force is no
  state: it follows from the wall clock, and is only remembered here for as long as it holds.
- While the wall clock is not known the timetable is silent, and the thermostat's own set-points hold.
- An outcome concerns it only if it is that of the latest command: whatever it has commanded since has overtaken it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.rules.expressions import logic
from gateway.rules.expressions.expression import show
from gateway.rules.expressions.references import VariableReference
from gateway.rules.machines import thermostat
from gateway.rules.machines.machine import FAR, Machine, Status
from gateway.rules.machines.thermostat import News, State, Window
from gateway.rules.thermostat_rule import OFF, Stretch

if TYPE_CHECKING:
    from gateway.model import Command, Decision
    from gateway.rules.machines.world import World
    from gateway.rules.thermostat_rule import Setpoints, Thermostat

_AT_THE_START = "start-"
"""What the engine numbers those decisions with that say again, at the start, what a thermostat wants."""


class ThermostatMachine(Machine):
    """A thermostat. It has one key, the empty one."""

    __slots__ = ("_stretch", "rule", "state", "told_n")

    def __init__(self, rule: Thermostat, rank: int, key: str, world: World) -> None:
        super().__init__(rule.id, rank, key, world)
        self.rule = rule
        self.state = thermostat.begin(rule.limits)
        self.told_n = 0
        """The number of the first decision of the latest set of commands; their instant is `State.asserted_ns`."""
        self._stretch = Stretch(None, 0, 0)

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
        """A fresh event has come: of the sensor (source 0), of a window, or of what says that nobody is there."""
        del hops
        rule = self.rule
        if source == 0:
            reading = logic.number(rule.reading.evaluate(fields, captured))
            if reading is None and self.world.trace is not None:
                readings = rule.reading.readings(fields, captured)
                self.tell("unknown", "the reading is no finite number: it counts as silence", readings, seq, now_ns)
            self._look(News(reading), seq, now_ns, out)
        elif source <= len(rule.windows):
            is_open = rule.windows[source - 1].is_open.evaluate(fields, captured)
            self._look(News(window=None if is_open is None else (source - 1, is_open)), seq, now_ns, out)
        else:
            assert rule.away is not None, "the only source behind the windows"
            self._look(News(is_away=rule.away.when.evaluate(fields, captured)), seq, now_ns, out)

    def plan(self, now_ns: int, *, moved: bool) -> None:
        """The engine has just begun; or (`moved`) the wall clock has become known or has jumped: look at it anew."""
        if moved and self.rule.timetable is not None and self.state.running is not None:
            self.due_ns = min(self.due_ns, now_ns + 1)

    def wake(self, now_ns: int, out: list[Decision]) -> None:
        """The deadline has come."""
        self._look(News(), None, now_ns, out)

    def refused(self, decision_id: str, state: str, now_ns: int, out: list[Decision]) -> None:
        """A command has not done what it was to do. See `thermostat.refuse` for what that means."""
        *_, told_ns, number = decision_id.rsplit("/", 2)
        mine = self.state
        if mine.running is None:
            self._look(News(), None, now_ns, out)  # nothing but the assertion at the start, which was to switch off
            return
        if number.startswith(_AT_THE_START):
            is_latest = int(told_ns) >= mine.asserted_ns
            was_on = state == "denied" or mine.running != OFF  # `off` is never denied
        else:
            commands = self.rule.commands[mine.running]
            nth = int(number) - self.told_n
            is_latest = int(told_ns) == mine.asserted_ns and 0 <= nth < len(commands)
            was_on = is_latest and commands[nth].state == "on"
        if not is_latest:
            return
        is_first = mine.asserted_ns == mine.since_ns and not number.startswith(_AT_THE_START)
        verdict = thermostat.refuse(self.rule.limits, mine, state, was_on=was_on, is_first=is_first, now_ns=now_ns)
        self._settle(verdict, None, now_ns, out)

    def assertion(self) -> tuple[list[Command], str]:
        """The commands that its present phase calls for, and why."""
        return list(self.rule.commands[self.state.running or OFF]), "what it wants, said again at the start"

    def safe(self) -> list[Command]:
        """What `on_stale` says."""
        return list(self.rule.safe)

    def status(self, now_ns: int) -> Status:
        """Where it stands."""
        state = self.state
        return Status(
            rule=self.owner,
            key=self.key,
            phase=state.running or "unknown",
            since_ns=state.since_ns,
            seen_ns=None if state.reading is None else state.read_ns,
            fired_ns=self.fired_ns,
            firings=self.firings,
            readings=self._readings(now_ns),
        )

    def dump(self) -> list[Any]:
        """The state, for a snapshot."""
        return [self.firings, self.fired_ns, self.n_ns, self.n, self.told_n, self.due_ns, list(self.state)]

    def load(self, state: list[Any]) -> None:
        """Take up the state that `dump` gave."""
        self.firings, self.fired_ns, self.n_ns, self.n, self.told_n, self.due_ns, mine = state
        read = State(*mine)
        windows = tuple(Window(*window) for window in read.windows)
        highs = tuple((at_ns, reading) for at_ns, reading in read.highs)
        self.state = read._replace(windows=windows, highs=highs)

    def _look(self, news: News, seq: int | None, now_ns: int, out: list[Decision]) -> None:
        rule = self.rule
        if rule.timetable is not None:
            news = news._replace(setpoints=self._setpoints(now_ns))
        if rule.away is not None and rule.away.on is None:
            news = news._replace(is_away=self._is_away())
        self._settle(thermostat.decide(rule.limits, self.state, news, now_ns), seq, now_ns, out)

    def _settle(self, verdict: thermostat.Verdict, seq: int | None, now_ns: int, out: list[Decision]) -> None:
        """Take up the new state, tell what is to be told, and decide what is to be sent."""
        before, self.state = self.state.running, verdict.state
        self.due_ns = min(verdict.deadline_ns, self._turns_ns(now_ns))
        if verdict.notes and self.world.trace is not None:
            for what, detail in verdict.notes:
                self.tell(what, detail, self._readings(now_ns), seq, now_ns)
        if verdict.command is None:
            return
        if verdict.command not in {before, OFF}:
            self.firings += 1
        self.fired_ns = now_ns
        self.told_n = self.n if self.n_ns == now_ns else 0
        self.decide(self.rule.commands[verdict.command], verdict.because, seq, now_ns, out)

    def _setpoints(self, now_ns: int) -> Setpoints | None:
        """What the timetable has in force; None: nothing, or nobody knows the time."""
        assert self.rule.timetable is not None, "asked by whoever calls"
        wall_ns = self.world.wall_ns(now_ns)
        if wall_ns is None:
            return None
        if not self._stretch.holds(wall_ns):
            self._stretch = self.rule.timetable.at(wall_ns)
        return self._stretch.setpoints

    def _turns_ns(self, now_ns: int) -> int:
        """When the timetable may have other set-points in force, on the log's clock."""
        if self.rule.timetable is None or self.world.wall_offset_ns is None:
            return FAR
        self._setpoints(now_ns)
        turns_ns = self.world.elapsed_ns(self._stretch.until_ns)
        return FAR if turns_ns is None else turns_ns

    def _is_away(self) -> bool | None:
        """What variables say; None: they do not."""
        assert self.rule.away is not None, "asked by whoever calls"
        when = self.rule.away.when
        variables = (reference for reference in when.references if isinstance(reference, VariableReference))
        values = {variable.text: self.world.variables.get(variable.name) for variable in variables}
        is_away: bool | None = when.evaluate(values, {})
        return is_away

    def _readings(self, now_ns: int) -> str:
        """The latest values, for a person: `temperature = 19.5 (stale), window open, away`."""
        state, limits = self.state, self.rule.limits
        is_stale = state.reading is not None and thermostat.is_stale(limits, state, now_ns)
        parts = [f"{self.rule.reading.source} = {show(state.reading)}{' (stale)' if is_stale else ''}"]
        for contact, window in zip(limits.contacts, state.windows, strict=True):
            if window.is_open:
                parts.append(f"{contact.name} open")
        return ", ".join([*parts, state.in_force] if state.in_force else parts)

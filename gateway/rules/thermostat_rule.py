"""A thermostat as it was written down: `thermostat_reader` builds it, `thermostat_machine` runs it.

`Limits` is what `thermostat.decide` needs; the rest of a `Thermostat` is how news reaches it: which topics to listen
to, what to read there, and which set-points a timetable has in force.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from gateway.model import Command
    from gateway.mqtt.topics import TopicFilter
    from gateway.rules.expressions.expression import Expression
    from gateway.rules.schedules.schedule import Schedule

OFF = "off"
HEAT = "heat"
COOL = "cool"
AWAY = "away"
"""The name of the set-points that hold while nobody is there."""

_DAY_NS = 86_400_000_000_000
_LOOK_BACK_NS = (_DAY_NS, 8 * _DAY_NS, 15 * _DAY_NS)
"""How far to look for the latest time that has passed: most entries are daily, all but skipped ones weekly."""
_NEVER_NS = 2**63 - 1


class Setpoints(NamedTuple):
    """The two thresholds of heating, of cooling, or of both; in the sensor's own unit."""

    heat_on_below: float | None = None
    heat_off_above: float | None = None
    cool_on_above: float | None = None
    cool_off_below: float | None = None
    name: str = ""
    """When they hold, for a person: `away`, `06:30`. Empty: the thermostat's own."""

    def describe(self) -> str:
        """For a person: `away: heat below 16, up to 17`."""
        parts = []
        if self.heat_on_below is not None:
            parts.append(f"heat below {self.heat_on_below:g}, up to {self.heat_off_above:g}")
        if self.cool_on_above is not None:
            parts.append(f"cool above {self.cool_on_above:g}, down to {self.cool_off_below:g}")
        return f"{self.name or 'its own set-points'}: {'; '.join(parts)}"

    def thresholds(self) -> dict[str, float]:
        """Those that it has, by name."""
        return {name: value for name, value in self._asdict().items() if name != "name" and value is not None}


class Contact(NamedTuple):
    """A window that says whether it is open. Durations in nanoseconds."""

    name: str
    for_ns: int = 0
    """Open for less counts as nothing."""
    resume_after_ns: int = 0
    """Closed for less counts as nothing, once it has been open for `for_ns`."""
    stale_after_ns: int | None = None
    """After so long a silence it counts as closed; None: what it said last holds for ever."""


class Fall(NamedTuple):
    """A fast fall of the reading, which means an open window. Durations in nanoseconds."""

    drop: float
    """By how much, in the sensor's own unit."""
    within_ns: int
    pause_ns: int


class Limits(NamedTuple):
    """What a thermostat is set to. Durations in nanoseconds."""

    stale_after_ns: int
    on_stale: str
    """`off`, `hold`, or `on` (`heat` or `cool`, whichever this thermostat has)."""
    base: Setpoints
    """What holds when nothing else does."""
    min_on_ns: int = 0
    min_off_ns: int = 1_000_000_000
    """More than zero: what has been stopped is looked at again after it, not at once."""
    max_on_ns: int | None = None
    reassert_ns: int = 600_000_000_000
    away: Setpoints | None = None
    contacts: tuple[Contact, ...] = ()
    fall: Fall | None = None


class Stretch(NamedTuple):
    """A stretch of the wall clock within which the same set-points are in force."""

    setpoints: Setpoints | None
    """None: no entry of the timetable has ever passed."""
    from_ns: int
    until_ns: int
    """The first instant at which it may be over, in nanoseconds since 1970."""

    def holds(self, wall_ns: int) -> bool:
        """Whether an instant lies in it."""
        return self.from_ns <= wall_ns < self.until_ns


@dataclass(frozen=True, slots=True)
class Timetable:
    """Set-points by time: the entry in force is the latest one that has passed. Of two at one time, the lower one."""

    entries: tuple[tuple[Schedule, Setpoints], ...]

    def at(self, wall_ns: int) -> Stretch:
        """What is in force at an instant. It depends on nothing else, so that it is no state."""
        until_ns = min((self._next_ns(schedule, wall_ns) for schedule, _ in self.entries), default=_NEVER_NS)
        for back_ns in _LOOK_BACK_NS:
            found: Setpoints | None = None
            from_ns = wall_ns - back_ns
            for schedule, setpoints in self.entries:
                passed_ns = _latest_ns(schedule, wall_ns - back_ns, wall_ns)
                if passed_ns is not None and passed_ns >= from_ns:
                    found, from_ns = setpoints, passed_ns
            if found is not None:
                return Stretch(found, from_ns, until_ns)
        return Stretch(None, wall_ns, until_ns)

    @staticmethod
    def _next_ns(schedule: Schedule, wall_ns: int) -> int:
        next_ns = schedule.next_after(wall_ns)
        return _NEVER_NS if next_ns is None else next_ns


def _latest_ns(schedule: Schedule, after_ns: int, until_ns: int) -> int | None:
    """The latest instant of a schedule in (after, until]."""
    latest_ns = None
    next_ns = schedule.next_after(after_ns)
    while next_ns is not None and next_ns <= until_ns:
        latest_ns = next_ns
        next_ns = schedule.next_after(next_ns)
    return latest_ns


class WindowSensor(NamedTuple):
    """Where a contact speaks, and what it has to say if it is open. Its times are in `Limits.contacts`."""

    on: TopicFilter
    is_open: Expression


class Away(NamedTuple):
    """How it is known that nobody is there. The set-points for that are in `Limits.away`."""

    on: TopicFilter | None
    """None: `when` looks at variables, whenever the thermostat looks at anything."""
    when: Expression


@dataclass(frozen=True, kw_only=True, slots=True)
class Thermostat:
    """One entry of `thermostats`."""

    id: str
    place: str
    fingerprint: str
    on: TopicFilter
    """The sensor's topic; it has no wildcards."""
    reading: Expression
    limits: Limits
    commands: dict[str, tuple[Command, ...]]
    """What to send for `off`, `heat` and `cool`: the whole set of actuators each time."""
    timetable: Timetable | None = None
    windows: tuple[WindowSensor, ...] = ()
    """One for each of `limits.contacts`."""
    away: Away | None = None

    @property
    def sources(self) -> tuple[TopicFilter, ...]:
        """What it listens to: first its sensor, then the windows in their order, then what says that it is away."""
        away = () if self.away is None or self.away.on is None else (self.away.on,)
        return (self.on, *(window.on for window in self.windows), *away)

    @property
    def names(self) -> tuple[str, ...]:
        """No captured levels: there is one machine."""
        return ()

    @property
    def reads_wall(self) -> bool:
        """Whether the wall clock bears on it."""
        return self.timetable is not None

    @property
    def safe(self) -> tuple[Command, ...]:
        """What to send when nobody will be there to think: what `on_stale` says."""
        match self.limits.on_stale:
            case "off":
                return self.commands[OFF]
            case "on":
                return self.commands[HEAT if HEAT in self.commands else COOL]
            case _:
                return ()

    def describe(self) -> dict[str, Any]:
        """For the status page, as JSON."""
        limits = self.limits
        seconds = {
            name[:-3] + "_s": value / 1e9 for name, value in limits._asdict().items() if name.endswith("_ns") and value
        }
        entries = () if self.timetable is None else self.timetable.entries
        return {
            "id": self.id,
            "kind": "thermostat",
            "place": self.place,
            "on": ", ".join(source.text for source in self.sources),
            "reading": self.reading.source,
            "actuators": [command.topic for command in self.commands[OFF]],
            "on_stale": limits.on_stale,
            **limits.base.thresholds(),
            **seconds,
            "schedule": [{"at": setpoints.name, **setpoints.thresholds()} for _, setpoints in entries],
            "windows": [contact.name for contact in limits.contacts],
            "away": None if limits.away is None else limits.away.thresholds(),
        }

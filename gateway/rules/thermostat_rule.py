"""A thermostat as the engine runs it. `thermostat_reader` builds it, `thermostat_machine` runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.model import Command
    from gateway.mqtt.topics import TopicFilter
    from gateway.rules.expression import Expression
    from gateway.rules.thermostat import Limits


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

    @property
    def sources(self) -> tuple[TopicFilter, ...]:
        """What it listens to: first its sensor."""
        return (self.on,)

    @property
    def names(self) -> tuple[str, ...]:
        """No captured levels: there is one machine."""
        return ()

    @property
    def reads_wall(self) -> bool:
        """Whether the wall clock bears on it."""
        return True

    @property
    def safe(self) -> tuple[Command, ...]:
        """What to send when nobody will be there to think: what `on_stale` says."""
        match self.limits.on_stale:
            case "off":
                return self.commands["off"]
            case "on":
                return self.commands["heat" if "heat" in self.commands else "cool"]
            case _:
                return ()

    def describe(self) -> dict[str, Any]:
        """For the status page, as JSON."""
        limits = self.limits._asdict()
        seconds = {name[:-3] + "_s": value / 1e9 for name, value in limits.items() if name.endswith("_ns") and value}
        thresholds = {name: value for name, value in limits.items() if not name.endswith("_ns") and value is not None}
        return {
            "id": self.id,
            "kind": "thermostat",
            "place": self.place,
            "on": self.on.text,
            "reading": self.reading.source,
            "actuators": [command.topic for command in self.commands["off"]],
            **thresholds,
            **seconds,
        }

"""What the demo's view shows, as values: the gateway's own status beside what only the demo knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from gateway.cli.words import count
from gateway.observe.status import imbalances

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.observe.status import GatewayStatus


class Device(NamedTuple):
    """One simulated device, as it sees itself."""

    name: str
    kind: str
    value: str
    """With its unit, `21.3 °C`."""
    heater: bool | None = None
    """Whether its heater is on; None if it has none."""
    alive: bool = True
    """Whether it has sent lately."""


class GivenCommand(NamedTuple):
    """A command that a rule gave."""

    at_s: float
    """Since the demo's start."""
    rule: str
    text: str
    """`heater on`."""


class Witness(NamedTuple):
    """What the upstream itself saw of one sink's events: it shares no count with the gateway."""

    distinct: int
    duplicates: int = 0
    disordered: int = 0
    """Events that came before an older one of the same device and topic."""


class Phase(Enum):
    """Where the uplink's cut is."""

    BEFORE = "before"
    CUT = "cut"
    CATCHING_UP = "catching up"
    LEVEL = "level"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoState:
    """The demo at one instant."""

    status: GatewayStatus
    devices: tuple[Device, ...]
    """In the order in which they are shown; those that do not fit are counted."""
    elapsed_s: float
    total_s: float
    cut_from_s: float
    cut_to_s: float
    events_per_s: float = 0.0
    history_per_s: tuple[float, ...] = ()
    """Events per second of the last seconds, oldest first."""
    delivered_per_s: Mapping[str, float] = field(default_factory=dict)
    """By sink."""
    peak_pending: int = 0
    """The most that any sink has had pending so far: the scale of the bars, so that catching up shows as shrinking."""
    commands: tuple[GivenCommand, ...] = ()
    """Oldest first."""

    @property
    def phase(self) -> Phase:
        """Where the cut is now; after it, whether the sinks have caught up to within two seconds' events."""
        if self.elapsed_s < self.cut_from_s:
            return Phase.BEFORE
        if self.elapsed_s < self.cut_to_s:
            return Phase.CUT
        behind = max((sink.pending for sink in self.status.sinks), default=0)
        return Phase.CATCHING_UP if behind > 2 * self.events_per_s else Phase.LEVEL

    @property
    def phase_sentence(self) -> str:
        """The phase for a person."""
        match self.phase:
            case Phase.BEFORE:
                return f"up, to be cut in {self.cut_from_s - self.elapsed_s:.0f} s"
            case Phase.CUT:
                return f"CUT, back in {self.cut_to_s - self.elapsed_s:.0f} s"
            case Phase.CATCHING_UP:
                behind = max(sink.pending for sink in self.status.sinks)
                return f"back, {count(behind)} to catch up on"
            case Phase.LEVEL:
                return "back, and level"


def rates_per_s(before: GatewayStatus, after: GatewayStatus) -> tuple[float, dict[str, float]]:
    """Events stored, and delivered by sink, per second between two statuses. Zeros if no time lies between them."""
    elapsed_s = after.uptime_s - before.uptime_s
    delivered = {sink.name: sink.delivered for sink in before.sinks}
    if elapsed_s <= 0:
        return 0.0, dict.fromkeys(delivered, 0.0)
    return (
        (after.ingest.stored - before.ingest.stored) / elapsed_s,
        {sink.name: (sink.delivered - delivered.get(sink.name, 0)) / elapsed_s for sink in after.sinks},
    )


def verdict(status: GatewayStatus, witnesses: Mapping[str, Witness]) -> list[str]:
    """Everything that does not add up, in sentences. Empty: the demo may exit 0.

    Args:
        status: at the end, after the sinks have had time to drain.
        witnesses: by sink; one for each sink that has one.
    """
    wrong = imbalances(status)
    for sink in status.sinks:
        witness = witnesses.get(sink.name)
        if witness is None:
            continue
        if witness.distinct != sink.delivered:
            wrong.append(f"{sink.name}: {count(sink.delivered)} delivered, but upstream saw {count(witness.distinct)}")
        if witness.disordered:
            wrong.append(f"{sink.name}: upstream saw {count(witness.disordered)} out of order")
    return wrong

"""What a test of rules says, as values: moments, and what happens or is looked at in each.

    timeline_reader  YAML  ──▶  Timeline  ──▶  testing.play(timeline, ruleset)  ──▶  Verdict

Invariants:
- Moments stand in order of time; those of one instant in the order in which the file has them.
- Times are nanoseconds of the log's own clock, which shows zero where the timeline begins.
- Nothing of YAML is left but where each moment stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from gateway.model import Value


class Send(NamedTuple):
    """Events come, all of them in one batch."""

    records: tuple[tuple[str, Value], ...]
    """Topic and decoded payload."""
    flags: int
    """As in `gateway.model`: QoS, and what marks a record as not fresh."""


class Silence(NamedTuple):
    """Nothing comes, and time passes."""

    lasting_ns: int
    """Zero where a silence is over."""


class Restart(NamedTuple):
    """The gateway stops, is away for a while, and starts again."""

    pause_ns: int
    crash: bool
    """It did not save its state: all since the last restart, or since the beginning, is replayed from the log."""


class ClockJump(NamedTuple):
    """The wall clock is put forward, or back. No other clock is."""

    by_ns: int


class Refuse(NamedTuple):
    """What became of the latest command of a rule, where it is not what the rule wanted."""

    rule: str
    key: str | None
    """None: of whichever key commanded last."""
    topic: str | None
    """None: whichever actuator was commanded last."""
    state: str
    """`denied`, `expired` or `unconfirmed`."""


class Expected(NamedTuple):
    """One action that is to be decided. What is None, or not among the fields, may be anything."""

    place: str
    """`path:line:column`."""
    kind: str
    """`notify`, `command`, `emit`, `publish` or `set`."""
    fields: dict[str, Any]
    rule: str | None = None
    key: str | None = None
    at_ns: int | None = None
    """When it is to be decided, to the nanosecond."""
    because: str | None = None
    """Stands somewhere in the decision's reason."""
    shadow: bool = False


class Expect(NamedTuple):
    """Exactly these have been decided since the last such look."""

    actions: tuple[Expected, ...]


class ExpectStart(NamedTuple):
    """Exactly these were said again at the latest start: actuators may have missed a command meanwhile."""

    actions: tuple[Expected, ...]


class ExpectState(NamedTuple):
    """Where rules stand."""

    phases: tuple[tuple[str, str | None, str], ...]
    """Rule, key (None: every key that it has) and phase."""


Happening: TypeAlias = Send | Silence | Restart | ClockJump | Refuse
Look: TypeAlias = Expect | ExpectStart | ExpectState


class Moment(NamedTuple):
    """One thing that happens, or is looked at."""

    at_ns: int
    place: str
    """`path:line:column`."""
    what: Happening | Look


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """One test."""

    name: str
    place: str
    """`path:line:column`."""
    start_ns: int
    """The wall clock at zero, in nanoseconds since 1970."""
    only: frozenset[str] = frozenset()
    """Ids of the rules whose decisions are looked at. Empty: all."""
    moments: tuple[Moment, ...]

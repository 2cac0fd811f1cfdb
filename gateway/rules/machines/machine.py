"""What machines of both kinds share. A machine is one rule for one key: where it stands, and what comes of that.

A key is the levels that a rule's `on` captured: `freezer-warm` on `devices/{device}/climate` has a machine for every
device. `rule_machine` and `thermostat_machine` have the same five entrances (`event`, `wake`, `assertion`, `safe`,
`status`); the engine knows no other.

Invariants:
- `due_ns` is exact whenever no entrance is running; `FAR` means never.
- Everything that `dump` gives, and nothing else, decides what comes next (L12).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.model import MAX_HOPS, Action, Decision, Emit, Set
from gateway.rules.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.rules.machines.world import World

FAR = 2**63 - 1
"""A deadline that never comes."""


class Status(msgspec.Struct, frozen=True):
    """Where one machine stands, for the status page and the demo's view."""

    rule: str
    key: str
    phase: str
    """`inactive`, `pending`, `active` or `unknown`; of a thermostat `off`, `heat`, `cool` or `unknown`."""
    since_ns: int
    """When the phase began, on the log's clock."""
    seen_ns: int | None
    """When the latest reading that counted came; None: there was none."""
    fired_ns: int | None
    """When it last did something; None: never."""
    firings: int
    """How often `then` was run; of a thermostat, how often it switched on."""
    readings: str
    """The latest values, for a person."""


class Machine:
    """Numbers decisions, keeps the record of having fired, and tells why."""

    __slots__ = (
        "captured",
        "due_ns",
        "fired_ns",
        "firings",
        "key",
        "loops_cut",
        "n",
        "n_ns",
        "owner",
        "queued_ns",
        "rank",
        "shadow",
        "world",
    )

    def __init__(self, owner: str, rank: int, key: str, world: World) -> None:
        self.owner = owner
        self.world = world
        self.rank = rank
        self.key = key
        self.captured: dict[str, str] = {}
        self.due_ns = FAR
        self.queued_ns = FAR
        """The deadline under which the engine's queue knows this machine."""
        self.firings = 0
        self.fired_ns: int | None = None
        self.n_ns = -1
        """The instant that `n` numbers."""
        self.n = 0
        self.loops_cut = 0
        self.shadow = False
        """On trial: what it decides is recorded, and nobody acts on it."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing would be lost with it but memory."""
        return False

    def plan(self, now_ns: int, *, moved: bool) -> None:
        """The engine has just begun; or (`moved`) the wall clock has become known or has jumped."""

    def refused(self, decision_id: str, state: str, now_ns: int, out: list[Decision]) -> None:
        """A command has not done what it was to do: it was denied, came too late, or nobody confirmed it."""
        del out
        self.tell("refused", f"{decision_id} was {state}", "", None, now_ns)

    def tell(self, what: str, detail: str, readings: str, seq: int | None, now_ns: int) -> None:
        """Tell the trace, if there is one, of a change or a near miss. See `gateway.rules.trace`."""
        if self.world.trace is not None:
            self.world.trace(Trace(now_ns, self.owner, self.key, what, detail, readings, seq))

    def decide(
        self, actions: Iterable[Action], because: str, seq: int | None, now_ns: int, out: list[Decision]
    ) -> None:
        """Give each action its id. A derived event too many rules away from a device is cut."""
        if self.n_ns != now_ns:
            self.n_ns, self.n = now_ns, 0
        for action in actions:
            if isinstance(action, Emit) and action.hops > MAX_HOPS:
                self.loops_cut += 1
                self.tell("looped", f"`{action.topic}` not emitted: {MAX_HOPS} rules stand behind it", "", seq, now_ns)
                continue
            if isinstance(action, Set) and not self.shadow:
                self.world.variables[action.name] = action.value
            name = f"{self.owner}/{self.key}/{now_ns}/{self.n}"
            self.n += 1
            out.append(Decision(name, self.owner, self.key, action, now_ns, seq, because, self.shadow))


def duration(duration_ns: int) -> str:
    """A duration for a person."""
    seconds = duration_ns / 1e9
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:g} min"

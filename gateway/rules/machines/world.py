"""What all machines of an engine share beside their own state: the wall clock, other devices' values, variables.

Invariants:
- The wall clock is known only from records: the offset to the log's own clock is that of the latest record that was
  stamped while the clock was synchronised. So a replay knows at every instant what the life knew (L12), and a jump of
  the wall clock moves nothing but schedules (L11).
- One watch serves all rules that look at the same thing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.mqtt.topics import TopicFilter, compile_filter
from gateway.rules.expressions.references import DeviceReference, LatestReference
from gateway.rules.machines.latest import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.model import Stamp
    from gateway.rules.trace import Tracer

_MOVED_NS = 1_000_000_000
"""A clock that is put right by less has only been running a little fast or slow."""
DEVICE = "device"
"""The capture that names a device, in the topics of the configuration."""
_EVERYTHING_OF_A_DEVICE = compile_filter("devices/{device}/#")
Looked: TypeAlias = LatestReference | DeviceReference


class World:
    """See the module."""

    def __init__(self, trace: Tracer | None = None, topics: Sequence[TopicFilter] = (), most: int = 10_000) -> None:
        """See the module.

        Args:
            trace: told every step; None costs nothing.
            topics: the configuration's: those with a `{device}` say where a device speaks.
            most: how many values a watch keeps.
        """
        self.trace = trace
        self.wall_offset_ns: int | None = None
        """Wall clock minus the log's own; None: no record with a synchronised clock has been seen."""
        self.now_ns = 0
        """How far the engine has come, on the log's own clock."""
        self.variables: dict[str, Any] = {}
        self.spent: dict[str, tuple[int, int]] = {}
        """How far keys that were forgotten at this instant had numbered their decisions, by rule and key."""
        self.storms = 0
        """Firings that were held back because a rule fired too often, since this engine was made."""
        self._devices = [topic for topic in topics if DEVICE in topic.names] or [_EVERYTHING_OF_A_DEVICE]
        self._most = most
        self._watches: dict[str, Watch] = {}

    def learn(self, stamp: Stamp) -> bool:
        """Take in the clocks of a record. Whether the wall clock has become known, or has jumped."""
        if not stamp.synced:
            return False
        moved = self.is_news(stamp)
        self.wall_offset_ns = stamp.wall_ns - stamp.elapsed_ns
        return moved

    def is_news(self, stamp: Stamp) -> bool:
        """Whether these clocks say that the wall clock has become known, or has jumped."""
        before_ns = self.wall_offset_ns
        return stamp.synced and (before_ns is None or abs(stamp.wall_ns - stamp.elapsed_ns - before_ns) > _MOVED_NS)

    def wall_ns(self, elapsed_ns: int) -> int | None:
        """The wall clock at an instant of the log's own, in nanoseconds since 1970; None if it is not known."""
        return None if self.wall_offset_ns is None else elapsed_ns + self.wall_offset_ns

    def elapsed_ns(self, wall_ns: int) -> int | None:
        """The instant of the log's own clock at which the wall clock shows a time; None if that is not known."""
        return None if self.wall_offset_ns is None else wall_ns - self.wall_offset_ns

    def watch(self, reference: Looked) -> Watch:
        """The watch for what a rule looks at, the same for all that look at it."""
        name = _name_of(reference)
        if name not in self._watches:
            names = compile_filter(reference.topic).names if isinstance(reference, LatestReference) else ()
            self._watches[name] = Watch(reference.path, names, self._most)
        return self._watches[name]

    def topics_of(self, reference: Looked) -> Iterator[TopicFilter]:
        """Where what a rule looks at is spoken of."""
        if isinstance(reference, LatestReference):
            yield compile_filter(reference.topic)
            return
        for topic in self._devices:
            levels = list(topic.levels)
            levels[topic.places[topic.names.index(DEVICE)]] = reference.device
            yield compile_filter("/".join(levels))

    def forget_spent(self, now_ns: int) -> None:
        """Another instant numbers anew."""
        self.spent = {name: (n_ns, n) for name, (n_ns, n) in self.spent.items() if n_ns == now_ns}

    def dump(self) -> list[Any]:
        """The state, for a snapshot."""
        watches = {name: watch.dump() for name, watch in self._watches.items()}
        return [self.wall_offset_ns, self.variables, watches, self.spent]

    def load(self, state: list[Any]) -> None:
        """Take up the state that `dump` gave, as far as anybody still looks at it."""
        self.wall_offset_ns, self.variables, watches, spent = state
        self.spent = {name: (n_ns, n) for name, (n_ns, n) in spent.items()}
        for name, values in watches.items():
            if name in self._watches:
                self._watches[name].load(values)


def _name_of(reference: Looked) -> str:
    if isinstance(reference, DeviceReference):
        return f"device {reference.device} {reference.path}"
    return f"topic {reference.topic} {reference.path}"

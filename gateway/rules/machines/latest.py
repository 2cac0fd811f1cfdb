"""The latest value of something: what `device("outdoor").temperature` and `latest("...").open` look at.

A watch stands among the machines that a topic concerns, before all rules, so that a rule that is triggered by the very
event sees the value that came with it.

Invariants:
- Only fresh events count; what is unknown leaves the last known value standing until it is too old.
- A watch on a topic with captures keeps a value for each combination of them, bounded; the one that was quiet for
  longest goes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.rules.expressions import logic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model import Decision


class Watch:
    """One path on one topic, or on the topics of one device."""

    __slots__ = ("_most", "_names", "_path", "_values")

    due_ns = queued_ns = 2**63 - 1
    """It never asks for time."""

    def __init__(self, path: tuple[str | int, ...], names: Sequence[str], most: int) -> None:
        """See the module.

        Args:
            path: of the value below the event's payload.
            names: the captures that tell one value from another.
            most: how many values to keep.
        """
        self._path = path
        self._names = tuple(names)
        self._most = most
        self._values: dict[str, tuple[Any, int]] = {}

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
        """A fresh event has come."""
        del source, hops, seq, out
        value = logic.field(fields, *self._path)
        if not logic.known(value):
            return
        values, key = self._values, self._key(captured)
        values.pop(key, None)
        if len(values) >= self._most:
            del values[next(iter(values))]
        values[key] = (value, now_ns)

    def value(self, captured: dict[str, str], now_ns: int, age_ns: int | None) -> Any:
        """The value for these captures; None if there is none, or if it is older than that."""
        value, at_ns = self._values.get(self._key(captured), (None, 0))
        return value if age_ns is None or now_ns < at_ns + age_ns else None

    def dump(self) -> dict[str, tuple[Any, int]]:
        """The state, for a snapshot."""
        return self._values

    def load(self, values: dict[str, list[Any]]) -> None:
        """Take up the state that `dump` gave."""
        self._values = {key: (value, at_ns) for key, (value, at_ns) in values.items()}

    def _key(self, captured: dict[str, str]) -> str:
        return "/".join([captured[name] for name in self._names])

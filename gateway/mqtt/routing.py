"""Who gets a message: the tree of subscriptions, and the tree of retained messages.

Both are trees of topic levels. A topic asks the first (which filters match me?), a new subscription asks the second
(which topics match me?).

Invariants:
- The cost of a question grows with the levels asked and the branches that fit, not with how many are stored.
- Nothing recurses: a topic of thousands of levels is only slow, never an exception.
- An empty branch is removed, so that memory follows what is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from gateway.mqtt.packets import Subscription

H = TypeVar("H", bound="Hashable")
M = TypeVar("M")


class SubscriptionTree(Generic[H]):
    """Filters with their holders."""

    def __init__(self) -> None:
        self._root: _Branch[dict[H, Subscription]] = _Branch()
        self.count = 0
        """Pairs of a filter and a holder."""

    def add(self, mqtt_filter: str, holder: H, subscription: Subscription) -> bool:
        """Put a valid filter in, or replace how its holder wants it. Returns whether it is new."""
        branch = self._root.grow(mqtt_filter)
        if branch.value is None:
            branch.value = {}
        is_new = holder not in branch.value
        branch.value[holder] = subscription
        self.count += is_new
        return is_new

    def remove(self, mqtt_filter: str, holder: H) -> bool:
        """Take a filter out. Returns whether it was there."""
        branch = self._root.find(mqtt_filter)
        if branch is None or branch.value is None or branch.value.pop(holder, None) is None:
            return False
        self.count -= 1
        if not branch.value:
            self._root.prune(mqtt_filter)
        return True

    def match(self, topic: str) -> list[tuple[H, Subscription]]:
        """Every holder of a filter that matches, once per filter."""
        found: list[tuple[H, Subscription]] = []
        frontier = [self._root]
        is_hidden = topic.startswith("$")
        for level in topic.split("/"):
            below: list[_Branch[dict[H, Subscription]]] = []
            for branch in frontier:
                if not is_hidden:
                    _collect(branch.below.get("#"), found)
                    if (one := branch.below.get("+")) is not None:
                        below.append(one)
                if (exact := branch.below.get(level)) is not None:
                    below.append(exact)
            is_hidden = False
            frontier = below
            if not frontier:
                break
        for branch in frontier:
            _collect(branch, found)
            _collect(branch.below.get("#"), found)
        return found


class RetainedTree(Generic[M]):
    """The last retained message of each topic."""

    def __init__(self) -> None:
        self._root: _Branch[M] = _Branch()
        self.count = 0

    def get(self, topic: str) -> M | None:
        """What is retained on exactly this topic."""
        branch = self._root.find(topic)
        return None if branch is None else branch.value

    def put(self, topic: str, message: M) -> None:
        """Retain, in place of what was there."""
        branch = self._root.grow(topic)
        self.count += branch.value is None
        branch.value = message

    def remove(self, topic: str) -> None:
        """Forget what a topic has, if it has anything."""
        branch = self._root.find(topic)
        if branch is not None and branch.value is not None:
            branch.value = None
            self.count -= 1
            self._root.prune(topic)

    def match(self, mqtt_filter: str) -> list[M]:
        """What is retained on every topic that a valid filter matches."""
        frontier = [self._root]
        for depth, level in enumerate(mqtt_filter.split("/")):
            if level == "#":
                frontier = [found for branch in frontier for found in branch.walk(is_root=depth == 0)]
                break
            if level == "+":
                frontier = [found for branch in frontier for found in branch.children(is_root=depth == 0)]
            else:
                frontier = [found for branch in frontier if (found := branch.below.get(level)) is not None]
        return [branch.value for branch in frontier if branch.value is not None]

    def __iter__(self) -> Iterator[M]:
        return (branch.value for branch in self._root.walk() if branch.value is not None)


class _Branch(Generic[M]):
    __slots__ = ("below", "value")

    def __init__(self) -> None:
        self.below: dict[str, _Branch[M]] = {}
        self.value: M | None = None

    def find(self, path: str) -> _Branch[M] | None:
        branch: _Branch[M] | None = self
        for level in path.split("/"):
            branch = branch.below.get(level) if branch is not None else None
        return branch

    def grow(self, path: str) -> _Branch[M]:
        branch = self
        for level in path.split("/"):
            below = branch.below.get(level)
            if below is None:
                below = branch.below[level] = _Branch()
            branch = below
        return branch

    def prune(self, path: str) -> None:
        """Remove the branch at `path` and those above it that have become empty."""
        trail = [self]
        levels = path.split("/")
        for level in levels:
            trail.append(trail[-1].below[level])
        trail[-1].value = None
        while levels and not trail[-1].below and trail[-1].value is None:
            trail.pop()
            del trail[-1].below[levels.pop()]

    def children(self, *, is_root: bool = False) -> list[_Branch[M]]:
        """One level down; a wildcard at the root does not see `$` topics."""
        return [branch for level, branch in self.below.items() if not (is_root and level.startswith("$"))]

    def walk(self, *, is_root: bool = False) -> list[_Branch[M]]:
        """This branch and all below it."""
        found = [self]
        for branch in found:  # grows while it is walked
            found.extend(branch.children(is_root=is_root and branch is self))
        return found


def _collect(branch: _Branch[dict[H, Subscription]] | None, found: list[tuple[H, Subscription]]) -> None:
    if branch is not None and branch.value:
        found.extend(branch.value.items())

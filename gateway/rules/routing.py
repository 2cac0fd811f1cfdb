"""Which rules a topic concerns, at a cost that does not grow with the rules it does not (L13).

Filters lie in a tree by level, `+` and `#` as branches of their own, so that a topic of n levels visits at most 2^n
nodes whatever the number of rules; each filter found then says what it captures. The engine remembers the answer per
topic, so that all this happens once for a topic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.mqtt.topics import TopicFilter

T = TypeVar("T")


class Routes(Generic[T]):
    """Filters with what stands behind each. Built once, then only asked."""

    def __init__(self, routes: Iterable[tuple[TopicFilter, T]]) -> None:
        self._root: _Node[T] = _Node()
        for rank, (topic_filter, target) in enumerate(routes):
            node = self._root
            for level in topic_filter.mqtt.split("/"):
                node = node.below.setdefault(level, _Node())
            node.ends.append((rank, topic_filter, target))

    def match(self, topic: str) -> list[tuple[T, dict[str, str]]]:
        """What stands behind each filter that matches, with its captures, in the order of building."""
        found = []
        for rank, topic_filter, target in self._candidates(self._root, topic.split("/"), 0):
            captured = topic_filter.match(topic)
            if captured is not None:
                found.append((rank, target, captured))
        found.sort(key=lambda entry: entry[0])
        return [(target, captured) for _, target, captured in found]

    def _candidates(self, node: _Node[T], levels: list[str], depth: int) -> Iterator[tuple[int, TopicFilter, T]]:
        if tail := node.below.get("#"):
            yield from tail.ends
        if depth == len(levels):
            yield from node.ends
            return
        for branch in {levels[depth], "+"}:
            if branch != "#" and (below := node.below.get(branch)):
                yield from self._candidates(below, levels, depth + 1)


class _Node(Generic[T]):
    __slots__ = ("below", "ends")

    def __init__(self) -> None:
        self.below: dict[str, _Node[T]] = {}
        self.ends: list[tuple[int, TopicFilter, T]] = []


def overlap(one: str, other: str) -> bool:
    """Whether some topic matches both MQTT filters."""
    a, b = one.split("/"), other.split("/")
    for left, right in zip(a, b, strict=False):
        if "#" in {left, right}:
            return True
        if left != right and "+" not in {left, right}:
            return False
    if len(a) == len(b):
        return True
    longer = a if len(a) > len(b) else b
    return longer[min(len(a), len(b)) :] == ["#"]


def key_of(parts: list[str]) -> str:
    """Captured levels joined by commas; a comma or percent sign within one is written as in a URL."""
    if len(parts) == 1:
        return parts[0]
    return ",".join(part.replace("%", "%25").replace(",", "%2C") for part in parts)

"""Which ways lead from a topic to sessions: subscriptions, shared or not, and the answers remembered per topic.

Invariants:
- A message takes one way to a session, however many of its filters match, with the highest QoS among them and the
  identifiers of them all [MQTT-3.3.4-2, -3]; and one way to each group that shares a filter that matches.
- A topic that nobody subscribes to costs one dictionary look-up (L13). Answers are remembered, as many as are bounded,
  until any subscription changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from gateway.mqtt.passing import Route, routes_among
from gateway.mqtt.routing import SubscriptionTree
from gateway.mqtt.shared import Group, split_shared

if TYPE_CHECKING:
    from gateway.mqtt.packets import Subscription
    from gateway.mqtt.session import Session

MAX_REMEMBERED = 16_384
Way: TypeAlias = Route | Group


class Subscriptions:
    """Of all sessions."""

    def __init__(self) -> None:
        self._tree: SubscriptionTree[Session | Group] = SubscriptionTree()
        self._groups: dict[str, Group] = {}
        """Shared subscriptions, by their whole text."""
        self._ways: dict[str, tuple[Way, ...]] = {}

    @property
    def count(self) -> int:
        """How many there are."""
        return self._tree.count + sum(len(group.members) - 1 for group in self._groups.values())

    def __bool__(self) -> bool:
        return self._tree.count > 0

    def add(self, session: Session, text: str, wanted: Subscription) -> None:
        """Put in what a session subscribes to, which is valid, or replace how it wants it."""
        self._ways.clear()
        shared = split_shared(text)
        if shared is None:
            self._tree.add(text, session, wanted)
            return
        group = self._groups.get(text)
        if group is None:
            group = self._groups[text] = Group(shared.filter)
            self._tree.add(shared.filter, group, wanted)
        group.members[session] = wanted

    def remove(self, session: Session, text: str) -> None:
        """Take out what a session has subscribed to."""
        self._ways.clear()
        group = self._groups.get(text)
        if group is None:
            self._tree.remove(text, session)
            return
        group.members.pop(session, None)
        if not group.members:
            self._tree.remove(group.filter, group)
            del self._groups[text]

    def ways(self, topic: str) -> tuple[Way, ...]:
        """Where a message on this topic goes."""
        ways = self._ways.get(topic)
        return self._find(topic) if ways is None else ways

    def _find(self, topic: str) -> tuple[Way, ...]:
        direct: list[tuple[Session, Subscription]] = []
        groups: list[Group] = []
        for holder, wanted in self._tree.match(topic):
            if isinstance(holder, Group):
                groups.append(holder)
            else:
                direct.append((holder, wanted))
        if len(self._ways) >= MAX_REMEMBERED:
            self._ways.clear()
        ways = self._ways[topic] = (*routes_among(direct), *groups)
        return ways

"""Shared subscriptions: sessions that divide the messages of a filter among themselves (MQTT 5.0, 4.8.2).

`$share/{name}/{filter}` is one group per name and filter. Each message goes to one member, by turns: to one that is
connected and reads fast enough; failing that to one that is connected; failing that to one whose session waits.

A message that was given to a member stays its own. If it is under way when the member goes, it waits for the member to
come back [MQTT-4.8.2-4]; if the session ends first, it ends with it [MQTT-4.8.2-5].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.mqtt.passing import routes_among
from gateway.mqtt.topics import SHARED_PREFIX, filter_problem

if TYPE_CHECKING:
    from gateway.mqtt.packets import Subscription
    from gateway.mqtt.passing import Route
    from gateway.mqtt.session import Session


class Shared(NamedTuple):
    """The parts of a shared subscription."""

    name: str
    filter: str


def split_shared(text: str) -> Shared | None:
    """The parts of a shared subscription; None if it is none, or not as it should be [MQTT-4.8.2-1, -2]."""
    if not text.startswith(SHARED_PREFIX):
        return None
    name, _, mqtt_filter = text.removeprefix(SHARED_PREFIX).partition("/")
    if not name or not {"+", "#"}.isdisjoint(name) or filter_problem(mqtt_filter):
        return None
    return Shared(name, mqtt_filter)


class Group:
    """Those who share one filter under one name."""

    __slots__ = ("_next", "filter", "members")

    def __init__(self, mqtt_filter: str) -> None:
        self.filter = mqtt_filter
        self.members: dict[Session, Subscription] = {}
        self._next = 0

    @property
    def holder(self) -> Group:
        """By what a message that takes this way is known."""
        return self

    def choose(self) -> Route | None:
        """Who is to get the next message; None if there is nobody."""
        members = list(self.members)
        if not members:
            return None
        self._next %= len(members)
        by_turns = members[self._next :] + members[: self._next]
        chosen = min(by_turns, key=_reluctance)  # the first of the least reluctant
        self._next = members.index(chosen) + 1
        (route,) = routes_among([(chosen, self.members[chosen])])
        return route


def _reluctance(session: Session) -> int:
    outlet = session.outlet
    if outlet is None:
        return 2
    return 0 if outlet.is_writable and len(session.in_flight) < session.window else 1

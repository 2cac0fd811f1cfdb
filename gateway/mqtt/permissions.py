"""Who may publish where, and subscribe to what.

A list of permissions only ever allows: what none of them allows is refused. `{device}` in a pattern stands for the name
under which a client has proved itself (its user, or the name in its certificate), `{client_id}` for the id it gave.

Invariants:
- A name that is not one plain topic level (empty, or with `/`, `+` or `#` in it) fits no pattern that asks for it: no
  device gets more by being called `+`.
- A subscription is allowed if one pattern covers every topic that it can match, so that nothing has to be asked again
  for each message.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from gateway.mqtt.shared import split_shared
from gateway.mqtt.topics import SHARED_PREFIX, TopicFilter, compile_filter, levels_match

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.config.settings import Permission


class Grant:
    """What one client may do."""

    __slots__ = ("_publish", "_subscribe")

    def __init__(self, publish: Iterable[tuple[str, ...]], subscribe: Iterable[tuple[str, ...]]) -> None:
        """See the module.

        Args:
            publish: levels of the filters whose topics it may publish to.
            subscribe: levels of the filters which cover those that it may subscribe to.
        """
        self._publish = tuple(publish)
        self._subscribe = tuple(subscribe)

    def may_publish(self, topic: str) -> bool:
        """Whether a message on this topic is allowed."""
        levels = topic.split("/")
        return any(levels_match(pattern, levels) for pattern in self._publish)

    def may_subscribe(self, mqtt_filter: str) -> bool:
        """Whether this filter, shared or not, is allowed."""
        if mqtt_filter.startswith(SHARED_PREFIX):
            parts = split_shared(mqtt_filter)
            if parts is None:
                return False
            mqtt_filter = parts[1]
        levels = mqtt_filter.split("/")
        return any(_covers(pattern, levels) for pattern in self._subscribe)


class Permissions:
    """All of one listener's."""

    def __init__(self, settings: Iterable[Permission]) -> None:
        """See the module. What does not compile has been refused with the configuration."""
        self._entries = [
            _Entry(each.users, tuple(map(compile_filter, each.publish)), tuple(map(compile_filter, each.subscribe)))
            for each in settings
        ]

    def grant(self, device: str, client_id: str) -> Grant:
        """What a client may do.

        Args:
            device: the name under which it has proved itself; empty if it has not.
            client_id: the one it gave.
        """
        names = {"device": device, "client_id": client_id}
        mine = [entry for entry in self._entries if entry.is_for(device)]
        return Grant(
            (levels for entry in mine for levels in _filled(entry.publish, names)),
            (levels for entry in mine for levels in _filled(entry.subscribe, names)),
        )


class _Entry(NamedTuple):
    users: tuple[str, ...]
    publish: tuple[TopicFilter, ...]
    subscribe: tuple[TopicFilter, ...]

    def is_for(self, device: str) -> bool:
        return not self.users or (bool(device) and any(fnmatchcase(device, user) for user in self.users))


def _filled(patterns: Iterable[TopicFilter], names: dict[str, str]) -> Iterator[tuple[str, ...]]:
    for pattern in patterns:
        if all(_is_plain_level(names.get(name, "")) for name in pattern.names):
            levels = list(pattern.levels)
            for name, place in zip(pattern.names, pattern.places, strict=True):
                levels[place] = names[name]
            yield tuple(levels)


def _is_plain_level(name: str) -> bool:
    return bool(name) and not any(mark in name for mark in "/+#")


def _covers(pattern: tuple[str, ...], levels: list[str]) -> bool:
    """Whether every topic that a filter matches is matched by the pattern, too."""
    if levels[0][:1] == "$" and pattern[0] in {"+", "#"}:
        return False
    for index, level in enumerate(pattern):
        if level == "#":
            return True
        if index >= len(levels) or levels[index] == "#" or level not in {"+", levels[index]}:
            return False
    return len(levels) == len(pattern)

"""What the levels of a topic are called: with `devices/{device}/{type}`, `devices/7/climate` is device=7, type=climate.

The first entry of `ingest.topics` that matches a topic names its levels, as it does when the event comes in. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.mqtt.topics import compile_filter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config.settings import TopicSettings

_MOST_TOPICS = 10_000
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Captures:
    """Looks up topics; remembers the answer for each."""

    def __init__(self, topics: Sequence[TopicSettings]) -> None:
        self._filters = [compile_filter(entry.topic) for entry in topics]
        self._known: dict[str, Mapping[str, str]] = {}

    def of(self, topic: str) -> Mapping[str, str]:
        """The named levels of a topic, in the order of the filter; empty if no entry matches. Not to be changed."""
        found = self._known.get(topic)
        if found is None:
            if len(self._known) >= _MOST_TOPICS:
                self._known.clear()
            found = self._known[topic] = self._look_up(topic)
        return found

    def _look_up(self, topic: str) -> dict[str, str]:
        for filter_ in self._filters:
            names = filter_.match(topic)
            if names is not None:
                return names
        return {}


def fill(template: str, values: Mapping[str, str], missing: str) -> str:
    """The template with every `{name}` replaced by its value, or by `missing` if it has none (or an empty one)."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1]) or missing, template)

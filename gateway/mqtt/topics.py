"""Topic names and topic filters: what is valid, and what matches what.

A filter is MQTT's own (`+` one level, `#` the rest), with one addition: `{name}` matches one level like `+` and gives
it a name. Clause numbers are those of MQTT 5.0, chapter 4.7; 3.1.1 says the same.

Invariants:
- A name is at most 65,535 bytes of UTF-8, not empty, without U+0000 [MQTT-4.7.3-1, -2, -3], and holds no wildcard
  [MQTT-3.3.2-2].
- `#` stands alone in the last level [MQTT-4.7.1-1]; `+` stands alone in its level [MQTT-4.7.1-2]; so does `{name}`.
- A filter that begins with a wildcard matches no topic that begins with `$` [MQTT-4.7.2-1].
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_TOPIC_BYTES = 65_535
MAX_FILTER_LEVELS = 128
"""Each level of a filter costs a node in the tree of subscriptions."""
SHARED_PREFIX = "$share/"
_CAPTURE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class TopicFilter(NamedTuple):
    """A filter that has been checked, ready to match."""

    text: str
    """As it was written."""
    mqtt: str
    """As it is subscribed to: captures are `+`."""
    names: tuple[str, ...]
    """Captures, in the order of their levels."""
    levels: tuple[str, ...]
    """Of `mqtt`."""
    places: tuple[int, ...]
    """Level of each capture."""

    def matches(self, topic: str) -> bool:
        """Whether the topic is one of those meant."""
        return levels_match(self.levels, topic.split("/"))

    def match(self, topic: str) -> dict[str, str] | None:
        """The captured levels by name, or None if the topic is not one of those meant."""
        levels = topic.split("/")
        if not levels_match(self.levels, levels):
            return None
        return {name: levels[place] for name, place in zip(self.names, self.places, strict=True)}


def levels_match(wanted: tuple[str, ...] | list[str], levels: list[str]) -> bool:
    """Whether a topic's levels are covered by a filter's."""
    if levels[0][:1] == "$" and wanted[0] in {"+", "#"}:
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or (level not in {"+", levels[index]}):
            return False
    return len(levels) == len(wanted)


def compile_filter(text: str) -> TopicFilter:
    """Check a filter and make it ready to match.

    Raises:
        ValueError: with one sentence that says what is wrong.
    """
    names: list[str] = []
    places: list[int] = []
    levels: list[str] = []
    for place, level in enumerate(text.split("/")):
        capture = _CAPTURE.fullmatch(level)
        if capture is None and ("{" in level or "}" in level):
            raise ValueError(f"`{level}`: a capture is written {{name}} and fills its whole level")
        if capture is not None:
            if capture[1] in names:
                raise ValueError(f"{{{capture[1]}}} stands twice")
            names.append(capture[1])
            places.append(place)
        levels.append("+" if capture is not None else level)
    mqtt = "/".join(levels)
    problem = filter_problem(mqtt)
    if problem:
        raise ValueError(problem)
    return TopicFilter(text, mqtt, tuple(names), tuple(levels), tuple(places))


def filter_problem(text: str) -> str:
    """What is wrong with a plain MQTT filter; empty if nothing is."""
    problem = _text_problem(text, "topic filter")
    if problem:
        return problem
    levels = text.split("/")
    if len(levels) > MAX_FILTER_LEVELS:
        return f"a topic filter has at most {MAX_FILTER_LEVELS} levels"
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != len(levels) - 1):
            return "`#` must stand alone in the last level"
        if "+" in level and level != "+":
            return "`+` must stand alone in its level"
    return ""


def topic_problem(text: str) -> str:
    """What is wrong with a topic name; empty if nothing is."""
    if "+" in text or "#" in text:
        return "a topic name holds no `+` and no `#`"
    return _text_problem(text, "topic name")


def _text_problem(text: str, what: str) -> str:
    if not text:
        return f"a {what} is not empty"
    if "\0" in text:
        return f"a {what} holds no U+0000"
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        return f"a {what} is valid UTF-8"
    if size_bytes > MAX_TOPIC_BYTES:
        return f"a {what} has at most {MAX_TOPIC_BYTES} bytes"
    return ""

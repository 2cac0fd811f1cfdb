"""`ingest.topics`: what is stored, and how its payloads are read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.config.document import Scalar
from gateway.config.scalars import size_text
from gateway.config.section import Section, did_you_mean
from gateway.config.settings import TopicSettings
from gateway.model import Format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.settings import ListenSettings
    from gateway.config.values import Context

_FORMATS = {each.name.lower(): each for each in Format}
_NOT_YET = ("msgpack", "cbor")
_CAPTURE = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")
_MAX_TOPIC_BYTES = 65_535
_MAX_LEVELS = 128
_LARGEST_PAYLOAD_BYTES = 268_435_455  # what the four length bytes of MQTT can say


def read_topics(context: Context, root: Section, listen: ListenSettings | None) -> tuple[TopicSettings, ...]:
    """Every entry of `ingest.topics`, in file order: the first that matches a topic counts."""
    ingest = root.section("ingest", required=True)
    if ingest is None:
        return ()
    topics: dict[str, TopicSettings] = {}
    nodes = list(ingest.each("topics", required=True))
    if not nodes and ingest.has("topics"):
        root.problems.add(ingest.at("topics"), "`topics` is empty: no event would ever be stored")
    default = TopicSettings(topic="")
    for node in nodes:
        section = Section(node, root.problems, node.mark)
        topic = section.text("topic", required=True)
        problem = filter_problem(topic) if topic else ""
        if problem:
            root.problems.add(section.at("topic"), f"`{section.shown('topic')}`: {problem}")
        if topic and topic in topics:
            root.problems.add(section.at("topic"), f"`{section.shown('topic')}` stands twice")
        topics[topic] = TopicSettings(
            topic=topic,
            format=_read_format(section),
            max_payload_bytes=section.size_bytes(
                "max_payload", default.max_payload_bytes, least_bytes=1, most_bytes=_LARGEST_PAYLOAD_BYTES
            )
            or 0,
            fields=tuple(_read_fields(section)),
        )
        if listen is not None and section.has("max_payload"):
            _warn_of_limit(context, section, topics[topic], listen)
        section.done()
    ingest.done()
    return tuple(topics.values())


def _read_fields(section: Section) -> Iterator[str]:
    """The names under `fields`."""
    for node in section.each("fields"):
        name = node.value if isinstance(node, Scalar) else None
        if isinstance(name, str) and name:
            yield name
        else:
            section.problems.add(node.mark, "`fields` lists names of fields, such as [temperature, humidity]")
    if section.has("fields") and section.text("format", "json") != "json":
        section.problems.add(section.at("fields"), "only payloads in JSON have fields")


def _warn_of_limit(context: Context, section: Section, topic: TopicSettings, listen: ListenSettings) -> None:
    if topic.max_payload_bytes >= listen.max_packet_bytes:
        limit = size_text(listen.max_packet_bytes)
        context.warnings.add(
            section.at("max_payload"),
            f"never reached: the listener closes the connection first (`mqtt.listen.max_packet` is {limit})",
        )


def filter_problem(topic: str) -> str:
    """What is wrong with a filter for events; empty if nothing is.

    The grammar belongs to `gateway.mqtt.topics`, which lies above this package and must not be imported here; a test
    holds the two together.
    """
    levels = topic.split("/")
    seen: set[str] = set()
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != len(levels) - 1):
            return "`#` must stand alone in the last level"
        if "+" in level and level != "+":
            return "`+` must stand alone in its level"
        if "{" in level or "}" in level:
            if _CAPTURE.fullmatch(level) is None:
                return "a capture is written {name} and fills its whole level"
            if level in seen:
                return "two captures have one name"
            seen.add(level)
    if "\0" in topic:
        return "a topic holds no U+0000"
    if len(topic.encode()) > _MAX_TOPIC_BYTES:
        return f"a topic has at most {_MAX_TOPIC_BYTES} bytes"
    if len(levels) > _MAX_LEVELS:
        return f"a topic filter has at most {_MAX_LEVELS} levels"
    return "topics that begin with `$` belong to the broker, not to devices" if topic.startswith("$") else ""


def _read_format(section: Section) -> Format:
    name = section.text("format", TopicSettings(topic="").format.name.lower())
    if name in _FORMATS:
        return _FORMATS[name]
    listed = ", ".join(sorted(_FORMATS))
    if name in _NOT_YET:
        problem = f"format `{name}` is planned and not built yet; this release reads {listed}"
    else:
        problem = (
            f"`format` is one of {listed}, not `{section.shown('format')}`{did_you_mean(name, (*_FORMATS, *_NOT_YET))}"
        )
    section.problems.add(section.at("format"), problem)
    return Format.RAW

"""Single values of a rule file that are more than scalars: conditions, texts, topics, payloads, filters.

Each takes a `Section` and a key, notes what is wrong at the value's place, and then returns None, so that reading goes
on and the operator sees every problem at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from gateway.config.document import plain
from gateway.mqtt.topics import TopicFilter, compile_filter
from gateway.rules.expressions.expression import Expression, ExpressionError, compile_condition, compile_value
from gateway.rules.expressions.template import Template, compile_template, compile_topic
from gateway.rules.plans import Payload, compile_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from gateway.config.document import Problems, Scalar
    from gateway.config.section import Section

T = TypeVar("T")

_MOST_SHOWN = 60

IDENTIFIER = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
"""Of rules and recipients: fit for a path, a metric label and a decision's id."""

_IMPLICIT = "topic"
"""What every condition, text and payload may name beside fields and captures: the whole topic of the event."""


def read_filter(section: Section, key: str) -> TopicFilter | None:
    """A topic filter with `{captures}`, required."""
    source = section.text(key, required=True)
    if not source:
        return None
    try:
        return compile_filter(source)
    except ValueError as error:
        section.problems.add(section.at(key), str(error))
        return None


def filter_of(node: Scalar, problems: Problems) -> TopicFilter | None:
    """A topic filter that is an item of a list, or a value of more than one shape."""
    if not isinstance(node.value, str) or not node.value:
        problems.add(node.mark, "a topic filter is a text, such as devices/{device}/climate")
        return None
    try:
        return compile_filter(node.value)
    except ValueError as error:
        problems.add(node.mark, str(error))
        return None


def read_condition(section: Section, key: str, captures: Collection[str]) -> Expression | None:
    """An expression that is true or false. It may look beyond the event."""
    names = (*captures, _IMPLICIT)
    return _compiled(section, key, section.text(key), lambda source: compile_condition(source, names, beyond=True))


def read_value(section: Section, key: str) -> Expression | None:
    """An expression of any kind over an event's fields, required."""
    return _compiled(section, key, section.text(key, required=True), compile_value)


def read_optional_value(section: Section, key: str, captures: Collection[str]) -> Expression | None:
    """An expression of any kind over an event's fields and captures, if there is one."""
    names = (*captures, _IMPLICIT)
    return _compiled(section, key, section.text(key), lambda source: compile_value(source, names))


def read_text(section: Section, key: str, captures: Collection[str]) -> Template | None:
    """A text with `{expressions}`, required."""
    names = (*captures, _IMPLICIT)
    return _compiled(
        section, key, section.text(key, required=True), lambda source: compile_template(source, names, beyond=True)
    )


def read_topic(section: Section, key: str, captures: Collection[str]) -> Template | None:
    """A topic to send to, with captured levels only, required."""
    return _compiled(section, key, section.text(key, required=True), lambda source: compile_topic(source, captures))


def read_payload(section: Section, key: str, captures: Collection[str], *, json: bool = False) -> Payload | None:
    """A payload of any shape, its texts with `{expressions}`, required."""
    node = section.node(key, required=True)
    if node is None:
        return None
    names = (*captures, _IMPLICIT)
    try:
        return Payload.of(compile_shape(plain(node), names), json=json)
    except ExpressionError as error:
        section.problems.add(section.at(key), f"character {error.column} of a text in here: {error}")
        return None


def read_ns(section: Section, key: str, *, required: bool = False, least_ns: int = 0) -> int | None:
    """A duration, in nanoseconds."""
    seconds = section.duration_s(key, required=required)
    if seconds is None:
        return None
    duration_ns = round(seconds * 1e9)
    if duration_ns < least_ns:
        why = "must be longer than zero" if duration_ns == 0 else f"is at least {least_ns / 1e9:g}s"
        section.problems.add(section.at(key), f"`{key}` {why}")
        return None
    return duration_ns


def _compiled(section: Section, key: str, source: str, compile_it: Callable[[str], T]) -> T | None:
    if not source:
        return None
    try:
        return compile_it(source)
    except ExpressionError as error:
        shown = source if len(source) <= _MOST_SHOWN else source[: _MOST_SHOWN - 1] + "…"
        section.problems.add(section.at(key), f"character {error.column} of `{shown}`: {error}")
        return None

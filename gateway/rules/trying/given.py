"""Constants of a test put in their places: `{device}` in a topic, a text or a payload.

Invariants:
- Only names that are given are replaced. Texts of rules have braces of their own, and keep them.
- A text that is one `{name}` and nothing else becomes the constant with its kind: a number stays a number.
- What has been put in is not looked at again.
- Every value still knows where it stands.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from gateway.config.document import Mapping, Scalar, Sequence

if TYPE_CHECKING:
    from gateway.config.document import Node, Problems

Given: TypeAlias = "dict[str, str | bool | int | float | None]"
NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_INSERT = re.compile(r"\{(" + NAME + r")\}")


def words(given: Given) -> str:
    """The constants for a person: `device=freezer-1, crash=true`."""
    return ", ".join(f"{name}={_shown(value)}" for name, value in given.items())


def fill(node: Node, given: Given, problems: Problems) -> Node:
    """The same tree with every constant in its place, keys included."""
    if isinstance(node, Scalar):
        if not isinstance(node.value, str) or "{" not in node.value:
            return node
        whole = _INSERT.fullmatch(node.value)
        if whole is not None and whole[1] in given:
            return Scalar(given[whole[1]], node.mark, node.raw)
        return Scalar(_fill_text(node.value, given), node.mark, node.raw)
    if isinstance(node, Sequence):
        return Sequence(tuple(fill(item, given, problems) for item in node.items), node.mark)
    items: dict[str, Node] = {}
    for key, value in node.items.items():
        name = _fill_text(key, given)
        if name in items:
            problems.add(node.key_marks[key], f"`{name}` stands twice, once its constants are in their places")
        items[name] = fill(value, given, problems)
    marks = {_fill_text(key, given): mark for key, mark in node.key_marks.items()}
    return Mapping(items, marks, node.mark)


def _fill_text(text: str, given: Given) -> str:
    def put(match: re.Match[str]) -> str:
        return _shown(given[match[1]]) if match[1] in given else match[0]

    return _INSERT.sub(put, text)


def _shown(value: str | bool | float | None) -> str:  # noqa: FBT001 - any scalar may be a constant
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return value if isinstance(value, str) else f"{value:.10g}"

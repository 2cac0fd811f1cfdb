"""What an expression is made of: ten kinds of node, the function table, and what kind of value each gives.

All of the language is here. `grammar` builds these nodes from text, `codegen` writes programs from them.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Literal(NamedTuple):
    """A constant: bool, int, float, str, or None for `null`."""

    value: bool | float | str | None


class Field(NamedTuple):
    """A field of the event by its path, or (`captured`) a level of its topic by its name."""

    path: tuple[str | int, ...]
    captured: bool


class Negative(NamedTuple):
    """Unary minus."""

    operand: Node


class Arithmetic(NamedTuple):
    """Two operands and one of `+ - * / %`."""

    op: str
    left: Node
    right: Node


class Compare(NamedTuple):
    """A chain of comparisons: `len(ops) + 1` operands."""

    ops: tuple[str, ...]
    operands: tuple[Node, ...]


class Among(NamedTuple):
    """`item in [literals]`."""

    item: Node
    options: tuple[Literal, ...]
    negated: bool


class Logic(NamedTuple):
    """`and` or `or` over two or more operands."""

    op: str
    operands: tuple[Node, ...]


class Not(NamedTuple):
    """`not operand`."""

    operand: Node


class Call(NamedTuple):
    """A function of the table."""

    name: str
    arguments: tuple[Node, ...]


class Choice(NamedTuple):
    """`then if condition else otherwise`."""

    condition: Node
    then: Node
    otherwise: Node


Node: TypeAlias = Literal | Field | Negative | Arithmetic | Compare | Among | Logic | Not | Call | Choice

FUNCTIONS: dict[str, tuple[int, int, str | None]] = {
    "abs": (1, 1, "number"),
    "min": (2, 20, "number"),
    "max": (2, 20, "number"),
    "round": (1, 2, "number"),
    "floor": (1, 1, "number"),
    "ceil": (1, 1, "number"),
    "clamp": (3, 3, "number"),
    "len": (1, 1, "number"),
    "lower": (1, 1, "text"),
    "upper": (1, 1, "text"),
    "contains": (2, 2, "truth"),
    "starts_with": (2, 2, "truth"),
    "ends_with": (2, 2, "truth"),
    "known": (1, 1, "truth"),
    "default": (2, 2, None),
}
"""Name to (fewest arguments, most arguments, kind of the result). `field` is a way to write a path, not a function."""


def kind_of(node: Node) -> str | None:
    """`number`, `text`, `truth`, `null`, or None where only the event can tell."""
    match node:
        case Literal(bool()) | Compare() | Among() | Logic() | Not():
            return "truth"
        case Literal(None):
            return "null"
        case Literal(value):
            return "text" if isinstance(value, str) else "number"
        case Negative() | Arithmetic():
            return "number"
        case Field(captured=True):
            return "text"
        case Call(name):
            return FUNCTIONS[name][2]
        case Choice(_, then, otherwise):
            return kind_of(then) if kind_of(then) == kind_of(otherwise) else None
        case _:
            return None

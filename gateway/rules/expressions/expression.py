"""Conditions and values over an event, written by an operator, compiled once, and unable to raise.

    temperature > 25 and humidity < 60
    abs(supply - exhaust) > 3 if fan == "on" else false

Names are fields of the event's payload (`power.phases[0].watts` reaches below), or levels captured from its topic.
Where the payload is no mapping, `value` is the whole of it. `grammar` says what may stand there, `logic` what it means,
and `codegen` makes it fast. The operator's view of all this is `docs/rules.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.rules.expressions import logic
from gateway.rules.expressions.codegen import Evaluate, compile_tree, fields_of
from gateway.rules.expressions.grammar import ExpressionError, parse
from gateway.rules.expressions.nodes import Field, Node, kind_of
from gateway.rules.expressions.references import WindowReference

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.rules.expressions.references import Reference

__all__ = ["Expression", "ExpressionError", "compile_condition", "compile_value", "show"]

_MOST_SHOWN = 500


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression."""

    source: str
    tree: Node
    evaluate: Evaluate
    """`(fields, captured) -> value`, None if unknown. A condition gives True, False or None."""
    fields: tuple[Field, ...]
    """What it reads, in the order of reading."""
    references: tuple[Reference, ...] = ()
    """What it names beside the event; each is among the fields, under its text."""

    @property
    def roots(self) -> set[str]:
        """Names of the payload fields that it reads itself or adds to a window."""
        beyond = {reference.text for reference in self.references}
        read = [field for field in self.fields if not field.captured and field.path[0] not in beyond]
        for reference in self.references:
            if isinstance(reference, WindowReference) and reference.argument is not None:
                read += [field for field in fields_of(reference.argument) if not field.captured]
        return {str(field.path[0]) for field in read}

    def readings(self, fields: dict[str, Any], captured: dict[str, str]) -> str:
        """What it reads and what stood there, for a person: `temperature = -12.3, humidity = unknown`."""
        parts = []
        for name, path, is_captured in ((show_path(f), f.path, f.captured) for f in self.fields):
            parts.append(f"{name} = {show(logic.field(captured if is_captured else fields, *path))}")
        return ", ".join(parts)


def compile_condition(source: str, captures: Collection[str] = (), *, beyond: bool = False) -> Expression:
    """Compile an expression whose value is a truth.

    Args:
        source: the text, at most `grammar.MAX_SOURCE` characters.
        captures: names that mean captured levels of the topic; they hide fields of the same name.
        beyond: it may name windows, other devices and variables (`gateway.rules.expressions.references`).

    Raises:
        ExpressionError: with the column. Nothing else.
    """
    return _compile(source, captures, truth=True, beyond=beyond)


def compile_value(source: str, captures: Collection[str] = (), *, beyond: bool = False) -> Expression:
    """Compile an expression whose value may be of any kind. Arguments and errors as for `compile_condition`."""
    return _compile(source, captures, truth=False, beyond=beyond)


def _compile(source: str, captures: Collection[str], *, truth: bool, beyond: bool) -> Expression:
    references: dict[str, Reference] | None = {} if beyond else None
    tree = parse(source, captures, references)
    kind = kind_of(tree)
    if truth and kind not in {"truth", None}:
        raise ExpressionError(f"a condition is true or false, and this is a {kind}", 1)
    evaluate = compile_tree(tree)
    if truth and kind is None:  # a bare field: only the event can tell whether it is a truth
        evaluate = _truth_of(evaluate)
    return Expression(source, tree, evaluate, tuple(fields_of(tree)), tuple((references or {}).values()))


def _truth_of(evaluate: Evaluate) -> Evaluate:
    def condition(fields: dict[str, Any], captured: dict[str, str]) -> bool | None:
        return logic.truth(evaluate(fields, captured))

    return condition


def show_path(field: Field) -> str:
    """A field as an operator writes it."""
    first, *rest = field.path
    return str(first) + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in rest)


def show(value: Any, decimals: int | None = None) -> str:
    """A value as a person reads it: `21.5`, `true`, `unknown`; at most 500 characters.

    Args:
        value: anything that an expression can give.
        decimals: how many to write of a number; None: as many as it has, up to ten digits.
    """
    if value is None or not logic.known(value):
        return "unknown"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int | float) and decimals is not None:
        shown = f"{value:.{decimals}f}"
    elif isinstance(value, float):
        shown = f"{value:.10g}"
    elif isinstance(value, str):
        shown = value
    else:
        shown = msgspec.json.encode(value).decode()
    return shown if len(shown) <= _MOST_SHOWN else shown[: _MOST_SHOWN - 1] + "…"

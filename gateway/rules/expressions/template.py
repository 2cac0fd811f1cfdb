"""Texts and payloads with expressions inside braces: `{device} is at {temperature:.1f} °C`.

    {expression}        its value as a person reads it (`expression.show`)
    {expression:.2f}    a number with that many decimals, 0 to 9
    {{ and }}           braces

Invariants:
- Rendering never raises; what is unknown reads `unknown` in a text and is `null` in a payload.
- A payload value that is one expression and nothing else keeps its kind: `"{temperature}"` gives a number.
- What a device sends is only ever *inserted*: it is not read as a template again, and it cannot reach a topic, since
  templates of topics know captured levels only (`compile_topic`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.rules.expressions.expression import Expression, compile_value, show
from gateway.rules.expressions.grammar import ExpressionError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MAX_TEMPLATE = 4_000
_MOST_BITS = 63
_DECIMALS = re.compile(r"\.([0-9])f\s*$")


@dataclass(frozen=True, slots=True)
class Insert:
    """One `{...}` of a template."""

    expression: Expression
    decimals: int | None

    def value(self, fields: dict[str, Any], captured: dict[str, str]) -> Any:
        """The value with its kind kept."""
        value = self.expression.evaluate(fields, captured)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if isinstance(value, int) and value.bit_length() > _MOST_BITS:
                value = float(value)  # the receiver reads 64 bits
            return value if self.decimals is None else round(value, self.decimals)
        return value

    def text(self, fields: dict[str, Any], captured: dict[str, str]) -> str:
        """The value as a person reads it."""
        return show(self.expression.evaluate(fields, captured), self.decimals)


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled text."""

    source: str
    parts: tuple[str | Insert, ...]

    @property
    def constant(self) -> bool:
        """Whether it says the same for every event."""
        return not self.inserts

    @property
    def inserts(self) -> tuple[Insert, ...]:
        """Its `{...}` in order."""
        return tuple(part for part in self.parts if isinstance(part, Insert))

    def text(self, fields: dict[str, Any], captured: dict[str, str]) -> str:
        """The text for one event."""
        return "".join(part if isinstance(part, str) else part.text(fields, captured) for part in self.parts)

    def value(self, fields: dict[str, Any], captured: dict[str, str]) -> Any:
        """The same, but a template that is one `{...}` and nothing else gives that value with its kind."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Insert):
            return self.parts[0].value(fields, captured)
        return self.text(fields, captured)


def compile_template(source: str, captures: Collection[str] = (), *, beyond: bool = False) -> Template:
    """Compile a text.

    Args:
        source: the text.
        captures: names of captured levels.
        beyond: its expressions may look beyond the event (`gateway.rules.expressions.references`).

    Raises:
        ExpressionError: with the column within the whole text. Nothing else.
    """
    if len(source) > MAX_TEMPLATE:
        raise ExpressionError(f"a template has at most {MAX_TEMPLATE} characters, this one has {len(source)}", 1)
    parts: list[str | Insert] = []
    for start, piece, is_insert in _pieces(source):
        if not is_insert:
            if parts and isinstance(parts[-1], str):
                parts[-1] += piece
            else:
                parts.append(piece)
            continue
        try:
            parts.append(_insert(piece, captures, beyond=beyond))
        except ExpressionError as error:
            raise ExpressionError(str(error), start + error.column) from None
    return Template(source, tuple(parts))


def compile_topic(source: str, captures: Collection[str]) -> Template:
    """Compile the topic of an outgoing message: plain levels and `{captures}` only, so that no payload picks it.

    Raises:
        ExpressionError: it is no topic to publish to, or names something else than a captured level.
    """
    template = compile_template(source, captures)
    for insert in template.inserts:
        name = insert.expression.source.strip()
        if name not in captures:
            known = ", ".join(f"{{{capture}}}" for capture in captures) or "none here"
            raise ExpressionError(f"a topic may insert captured levels only ({known}), not `{name}`", 1)
    fixed = "".join(part for part in template.parts if isinstance(part, str))
    if not source or any(character in fixed for character in "+#\x00"):
        raise ExpressionError("a topic to send to is not empty and has no wildcards", 1)
    return template


def _insert(piece: str, captures: Collection[str], *, beyond: bool) -> Insert:
    before, colon, form = piece.rpartition(":")
    if not colon or "'" in form or '"' in form:
        return Insert(compile_value(piece, captures, beyond=beyond), None)
    found = _DECIMALS.fullmatch(form)
    if not found:
        raise ExpressionError("after `:` stands a number format such as `.1f`", len(before) + 2)
    return Insert(compile_value(before, captures, beyond=beyond), int(found[1]))


def _pieces(source: str) -> Iterator[tuple[int, str, bool]]:
    """Every stretch as (index of its first character, text, whether it stood in braces)."""
    at = 0
    while at < len(source):
        character = source[at]
        if source.startswith(("{{", "}}"), at):
            yield at, character, False
            at += 2
        elif character == "{":
            end = _closing(source, at)
            yield at + 1, source[at + 1 : end], True
            at = end + 1
        elif character == "}":
            raise ExpressionError("this `}` closes nothing: write `}}` for a brace", at + 1)
        else:
            end = next((i for i in range(at, len(source)) if source[i] in "{}"), len(source))
            yield at, source[at:end], False
            at = end


def _closing(source: str, opening: int) -> int:
    quote = ""
    for at in range(opening + 1, len(source)):
        character = source[at]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "}":
            return at
    raise ExpressionError("this `{` is never closed: write `{{` for a brace", opening + 1)

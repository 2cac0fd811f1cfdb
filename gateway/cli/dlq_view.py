"""Dead letters as lines for a person and as JSON for a machine. Pure."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import msgspec

from gateway.cli.log_view import marks_of
from gateway.cli.words import moment, size, utc
from gateway.observe.text import escape, preview, shorten

if TYPE_CHECKING:
    from gateway.model import DeadLetter

_WHOLE_PAYLOAD_CHARS = 1 << 20


def letter_line(letter: DeadLetter, *, replayed: bool) -> str:
    """One letter on one line."""
    tail = "  [replayed]" if replayed else ""
    return (
        f"{moment(letter.last_wall_ns)}  {escape(letter.id)}  {escape(letter.stage)}: {escape(letter.code)}"
        f"  {escape(letter.topic)}  {preview(letter.payload, 80)}{tail}"
    )


def letter_lines(letter: DeadLetter, *, replayed: bool) -> list[str]:
    """One letter, whole, a fact a line."""
    marks = marks_of(letter.flags)
    return [
        f"{escape(letter.id)}{'  [replayed]' if replayed else ''}",
        f"  topic     {escape(letter.topic)}{'  [' + ', '.join(marks) + ']' if marks else ''}",
        f"  refused   by {escape(letter.stage)}: {escape(letter.code)}, {shorten(letter.detail, 500)}",
        f"  tries     {letter.attempts}, first {moment(letter.first_wall_ns)}, last {moment(letter.last_wall_ns)}",
        f"  payload   {size(len(letter.payload))}",
        f"  {preview(letter.payload, _WHOLE_PAYLOAD_CHARS)}",
    ]


def letter_json(letter: DeadLetter, *, replayed: bool) -> str:
    """One letter as one line of JSON; the payload both exact and, where it is text, readable."""
    fields = {
        "id": letter.id,
        "topic": letter.topic,
        "stage": letter.stage,
        "code": letter.code,
        "detail": letter.detail,
        "attempts": letter.attempts,
        "first": utc(letter.first_wall_ns),
        "last": utc(letter.last_wall_ns),
        "qos": letter.flags & 3,
        "marks": marks_of(letter.flags),
        "replayed": replayed,
        "payload_base64": base64.b64encode(letter.payload).decode(),
        "payload_text": _text(letter.payload),
    }
    return msgspec.json.encode(fields).decode()


def _text(payload: bytes) -> str | None:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return None

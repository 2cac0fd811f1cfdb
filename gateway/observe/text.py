r"""Text from outside, made harmless for a terminal or a log: always one line, nothing that moves a cursor.

A topic, a payload, a client id or an upstream's error may hold newlines (which forge log lines), ANSI escapes (which
rewrite a terminal) or bidirectional overrides (which make a line read as another). They are shown as `\x1b`, `\u202e`.

Invariants:
- `escape` leaves printable text alone and never fails, lone surrogates included.
- A backslash that was there stays single: the result is for reading, not for parsing back.
"""

from __future__ import annotations

import codecs
import re

# Controls C0 and C1, DEL, line and paragraph separators, bidirectional controls and isolates, surrogates, BOM.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def escape(text: str) -> str:
    """The same text on one line, with everything invisible spelt out."""
    return _HARMFUL.sub(_spell, text)


def shorten(text: str, limit: int) -> str:
    """`escape`, cut to at most `limit` characters; an ellipsis shows the cut."""
    line = escape(text[: limit + 1])
    return line if len(line) <= limit else line[: max(limit - 1, 0)] + "…"


def preview(payload: bytes, limit: int = 200) -> str:
    """A payload for a person: its text, or hex digits if it is not UTF-8. At most about `limit` characters."""
    try:
        # Incremental: a character that the cut has halved is no error.
        text = codecs.getincrementaldecoder("utf-8")().decode(payload[: 4 * limit + 4])
    except UnicodeDecodeError:
        return shorten("0x" + payload[:limit].hex(), limit)
    return shorten(text, limit)


def _spell(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")

"""What a message says, in words. Pure.

What rules say holds whatever devices sent: it is text and stays text. No markup is written, and a title is one line,
so that no payload can add a header, a second line or a colour to what people read.

Invariants:
- A title is one line of printable characters, at most `LONGEST_TITLE` of them.
- A body holds printable characters and line feeds. It is no longer than asked for, in bytes of UTF-8, and what did not
  fit is counted in its last line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.act.notify_grouping import shortened

if TYPE_CHECKING:
    from gateway.act.notify_grouping import Message, Parcel

LONGEST_TITLE = 150
_LONGEST_KEY = 100
_PLACEHOLDER = re.compile(r"\{(rule|key|count|text)\}")
_SHORTEST_BODY_BYTES = 256
_LAST_LINE_BYTES = 80
"""What `and N more` takes, with room to spare."""


def one_line(text: str, most: int = LONGEST_TITLE) -> str:
    """A text on one line: whatever is not printable becomes a space, and spaces do not pile up."""
    # Far more than could be shown is not looked at.
    spaced = "".join(each if each.isprintable() else " " for each in text[: 4 * most])
    return shortened(" ".join(spaced.split()), most)


def plain_text(text: str) -> str:
    """A text with its line breaks as line feeds, and a space for whatever else is not printable."""
    lines = ("".join(each if each.isprintable() else " " for each in line).rstrip() for line in text.splitlines())
    return "\n".join(lines).strip("\n")


def title(template: str, parcel: Parcel) -> str:
    """A template with `{rule}`, `{key}`, `{count}` and `{text}` filled in, on one line.

    `{text}` of several begins with how many they are. `{rule}` and `{key}` of several are theirs if they share one.
    """
    first = parcel.messages[0]
    rules = {message.rule for message in parcel.messages}
    keys = {message.key for message in parcel.messages}
    values = {
        "rule": first.rule if len(rules) == 1 else f"{len(rules)} rules",
        "key": shortened(first.key, _LONGEST_KEY) if len(keys) == 1 else "",
        "count": str(parcel.total),
        "text": first.text if parcel.total == 1 else f"{parcel.total} messages: {first.text}",
    }
    # One pass: braces in a text stay what they are.
    return one_line(_PLACEHOLDER.sub(lambda match: values[match[1]], template))


def body(parcel: Parcel, most_bytes: int, *, with_reasons: bool = False) -> str:
    """Everything that is said, one below the other.

    Args:
        parcel: what is said.
        most_bytes: the longest that it may be in UTF-8, at least 256.
        with_reasons: whether each is followed by the rule and why it said so.
    """
    assert most_bytes >= _SHORTEST_BODY_BYTES, "there is room for a text and for what did not fit"
    if parcel.total == 1:
        return _fitted(_item(parcel.messages[0], with_reasons=with_reasons), most_bytes)
    lines = [f"{parcel.total} messages", ""]
    room = most_bytes - len("\n".join(lines)) - _LAST_LINE_BYTES
    left = parcel.total
    for message in parcel.messages:
        item = _indented(_item(message, with_reasons=with_reasons))
        size = len(item.encode(errors="replace")) + 1
        if size > room and left < parcel.total:
            break
        lines.append(_fitted(item, room))
        room -= size
        left -= 1
    if left:
        lines += ["", f"and {left} more: see the gateway's log"]
    return "\n".join(lines)


def _item(message: Message, *, with_reasons: bool) -> str:
    text = plain_text(message.text) or "(no text)"
    if not with_reasons:
        return text
    because = f"\nbecause {one_line(message.because, most=500)}" if message.because else ""
    of = f" ({one_line(message.key, _LONGEST_KEY)})" if message.key else ""
    return f"{text}{because}\nrule {one_line(message.rule)}{of}"


def _indented(text: str) -> str:
    return "- " + text.replace("\n", "\n  ")


def _fitted(text: str, most_bytes: int) -> str:
    data = text.encode(errors="replace")
    if len(data) <= most_bytes:
        return text
    return data[: most_bytes - 3].decode(errors="ignore") + "…"

"""What was expected beside what was decided: which belong together, and where they differ.

Invariants:
- A decision is compared with what is written of it, key by key: what is not written may be anything.
- Payloads are compared as values: JSON as what it means, whatever its spaces and the order of its keys; anything else
  as text. `true` is no 1. Numbers are the same if they agree to nine digits.
- Order counts. Of all ways to pair two lists, one with the most matches is shown.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from gateway.model import Command, Decision, Emit, Notify, Publish, Set

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.rules.trying.timeline import Expected

_DIGITS = 1e-9
_MOST_PAIRS = 250_000
"""Beyond so many possible pairs, what is left after equal beginnings and ends is paired by position."""


class Row(NamedTuple):
    """One line of a comparison."""

    expected: Expected | None
    """None: nobody expected what was decided."""
    got: Decision | None
    """None: what was expected was not decided."""
    differs: tuple[str, ...] = ()
    """What is not as it is written, if both are there: names of fields."""

    @property
    def is_as_expected(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.expected is not None and self.got is not None and not self.differs


def kind_of(decision: Decision) -> str:
    """What kind of action was decided, in the words of the rule language."""
    match decision.action:
        case Notify():
            return "notify"
        case Command():
            return "command"
        case Emit():
            return "emit"
        case Publish():
            return "publish"
        case Set():
            return "set"


def fields_of(decision: Decision) -> dict[str, Any]:
    """What an action says, under the names of the rule language, payloads as values."""
    match decision.action:
        case Notify(to, text):
            return {"to": to, "text": text}
        case Command(topic, payload, state):
            return {"topic": topic, "payload": value_of(payload)} | ({} if state is None else {"state": state})
        case Emit(topic, payload):
            return {"topic": topic, "payload": value_of(payload)}
        case Publish(topic, payload, qos, retain):
            return {"topic": topic, "payload": value_of(payload), "qos": qos, "retain": retain}
        case Set(name, value):
            return {name: value}


def value_of(payload: bytes) -> Any:
    """A payload as a value: JSON as what it means, anything else as text."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return payload.decode("utf-8", "replace")


def same(expected: Any, got: Any) -> bool:
    """Whether two values are the same, for a person: `1` and `1.0` are, `1` and `true` are not."""
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return expected == got or math.isclose(expected, got, rel_tol=_DIGITS)
    if isinstance(expected, dict) and isinstance(got, dict):
        return expected.keys() == got.keys() and all(same(value, got[key]) for key, value in expected.items())
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(map(same, expected, got))
    return type(expected) is type(got) and bool(expected == got)


def differences(expected: Expected, got: Decision) -> tuple[str, ...]:
    """Names of what is not as it is written; empty if all is."""
    if expected.kind != kind_of(got):
        return ("kind",)
    found = fields_of(got)
    wrong = [name for name, value in expected.fields.items() if not _agrees(name, value, found, got)]
    around = {
        "rule": expected.rule in {None, got.rule},
        "key": expected.key in {None, got.key},
        "at": expected.at_ns in {None, got.elapsed_ns},
        "because": expected.because is None or expected.because in got.because,
        "shadow": expected.shadow == got.shadow,
    }
    return (*wrong, *(name for name, is_right in around.items() if not is_right))


def compare(expected: Sequence[Expected], got: Sequence[Decision]) -> tuple[Row, ...]:
    """Put two lists side by side, in the order of both."""
    head, shorter = 0, min(len(expected), len(got))
    while head < shorter and not differences(expected[head], got[head]):
        head += 1
    tail = 0
    while tail < shorter - head and not differences(expected[-tail - 1], got[-tail - 1]):
        tail += 1
    rows = [Row(*pair) for pair in zip(expected[:head], got[:head], strict=True)]
    rows += _unlike(expected[head : len(expected) - tail], got[head : len(got) - tail])
    rows += [Row(expected[-back], got[-back]) for back in range(tail, 0, -1)]
    return tuple(rows)


def _unlike(expected: Sequence[Expected], got: Sequence[Decision]) -> list[Row]:
    """Pair two lists that differ at both ends: those that match, and between them those of one kind."""
    rows: list[Row] = []
    left = right = 0
    for to_left, to_right in [*_longest_match(expected, got), (len(expected), len(got))]:
        rows += _between(expected[left:to_left], got[right:to_right])
        rows += [Row(*pair) for pair in zip(expected[to_left : to_left + 1], got[to_right : to_right + 1], strict=True)]
        left, right = to_left + 1, to_right + 1
    return rows


def _longest_match(expected: Sequence[Expected], got: Sequence[Decision]) -> list[tuple[int, int]]:
    """Positions of a longest sequence that both have in common; none if the lists are too long to look for it."""
    if len(expected) * len(got) > _MOST_PAIRS:
        return []
    alike = [[not differences(each, decision) for decision in got] for each in expected]
    longest = [[0] * (len(got) + 1) for _ in range(len(expected) + 1)]  # from here on, how many match
    for left in reversed(range(len(expected))):
        for right in reversed(range(len(got))):
            both = longest[left + 1][right + 1] + 1 if alike[left][right] else 0
            longest[left][right] = max(both, longest[left + 1][right], longest[left][right + 1])
    found, left, right = [], 0, 0
    while left < len(expected) and right < len(got):
        if alike[left][right] and longest[left][right] == longest[left + 1][right + 1] + 1:
            found.append((left, right))
            left, right = left + 1, right + 1
        elif longest[left + 1][right] >= longest[left][right + 1]:
            left += 1
        else:
            right += 1
    return found


def _between(expected: Sequence[Expected], got: Sequence[Decision]) -> list[Row]:
    """Rows of which none matches: what is of one kind stands side by side."""
    rows: list[Row] = []
    rest = list(got)
    for each in expected:
        place = next((index for index, decision in enumerate(rest) if kind_of(decision) == each.kind), None)
        if place is None:
            rows.append(Row(each, None))
            continue
        rows += [Row(None, decision) for decision in rest[:place]]
        rows.append(Row(each, rest[place], differences(each, rest[place])))
        rest = rest[place + 1 :]
    return [*rows, *(Row(None, decision) for decision in rest)]


def _agrees(name: str, value: Any, found: dict[str, Any], got: Decision) -> bool:
    if name not in found:
        return False
    if name == "payload" and isinstance(value, str) and isinstance(got.action, Command | Emit | Publish):
        return value.encode() == got.action.payload or same(value, found[name])
    return same(value, found[name])

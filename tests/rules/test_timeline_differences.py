"""Expected beside decided: which belong together, and what counts as the same."""

from __future__ import annotations

import random
from itertools import combinations

import msgspec
import pytest

from gateway.model import Command, Decision, Emit, Notify, Publish, Set
from gateway.rules.trying.difference import compare, differences, same, value_of
from gateway.rules.trying.timeline import Expected

JSON = {"b": [1, 2.5], "a": {"on": True, "off": None}}


def decided(action, **changes) -> Decision:
    return msgspec.structs.replace(Decision("r/k/5/0", "r", "k", action, 5, 1, "t > 10: t = 11"), **changes)


def expected(kind: str, **around) -> Expected:
    fields = around.pop("fields", {})
    return Expected("x:1:1", kind, fields, **around)


@pytest.mark.parametrize(
    ("left", "right", "is_same"),
    [
        (1, 1.0, True), (1, True, False), (0, False, False), (True, True, True), (None, None, True), (None, 0, False),
        (0.1 + 0.2, 0.3, True), (1e9, 1e9 + 0.1, True), (1, 1.001, False), ("1", 1, False), ("a", "a", True),
        ([1, [2]], [1, [2.0]], True), ([1], [1, 2], False), ([], {}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True), ({"a": 1}, {"a": 1, "b": 2}, False), ({"a": 1}, {"a": True}, False),
        (2**62, 2**62 + 1, True), (float("inf"), float("inf"), True), (float("nan"), float("nan"), False),
    ],
)  # fmt: skip
def test_values_are_compared_as_a_person_would(left, right, is_same):
    """Kinds are never mixed, and a number is a number."""
    assert same(left, right) is same(right, left) is is_same


@pytest.mark.parametrize(
    ("kind", "fields", "action"),
    [
        ("notify", {"to": "a", "text": "b"}, Notify("a", "b")),
        ("notify", {}, Notify("a", "b")),
        ("command", {"topic": "t", "payload": JSON, "state": "on"}, Command("t", msgspec.json.encode(JSON), "on")),
        ("command", {"state": "on"}, Command("t", b"", "on")),
        ("emit", {"payload": {"n": 1}}, Emit("t", b' {"n" : 1.0}')),
        ("emit", {"payload": "text"}, Emit("t", b'"text"')),
        ("publish", {"payload": "21.5", "qos": 1, "retain": False}, Publish("t", b"21.5")),
        ("publish", {"payload": 21.5}, Publish("t", b"21.5")),
        ("publish", {"payload": ""}, Publish("t", b"")),
        ("publish", {"payload": "zu früh"}, Publish("t", "zu früh".encode())),
        ("set", {"x": [1, 2]}, Set("x", [1, 2])),
    ],
)
def test_an_action_agrees_with_whatever_is_not_written_of_it(kind, fields, action):
    """Each kind, wholly and in part; payloads as values."""
    assert differences(expected(kind, fields=fields), decided(action)) == ()


@pytest.mark.parametrize(
    ("action", "around", "wrong"),
    [
        (Notify("a", "b"), {"fields": {"to": "c", "text": "b"}}, ("to",)),
        (Notify("a", "b"), {"fields": {"text": "B"}, "rule": "q", "key": ""}, ("text", "rule", "key")),
        (Notify("a", "b"), {"at_ns": 6}, ("at",)),
        (Notify("a", "b"), {"because": "t < 10"}, ("because",)),
        (Notify("a", "b"), {"shadow": True}, ("shadow",)),
        (Command("t", b"1"), {}, ("kind",)),
    ],
)
def test_what_differs_is_named(action, around, wrong):
    """A person is told which words do not hold."""
    assert differences(expected("notify", **around), decided(action)) == wrong


def test_a_command_without_a_state_has_none():
    """Asking for one is a difference, not an error."""
    assert differences(expected("command", fields={"state": "on"}), decided(Command("t", b""))) == ("state",)
    assert differences(expected("set", fields={"y": 1}), decided(Set("x", 1))) == ("y",)


def test_any_payload_has_a_value():
    """Neither broken JSON nor broken text stops a comparison."""
    assert value_of(b"\xff{") == "\ufffd{"
    assert value_of(b"[" * 100_000) == "[" * 100_000


def rows_of(left: str, right: str) -> list[tuple[str, str]]:
    """`compare` on letters: a letter expected, a letter decided, or a dot."""
    wanted = [expected("notify", fields={"text": letter}) for letter in left]
    rows = compare(wanted, [decided(Notify("a", letter)) for letter in right])
    return [
        (row.expected.fields["text"] if row.expected else ".", row.got.action.text if row.got else ".") for row in rows
    ]


@pytest.mark.parametrize(
    ("left", "right", "shown"),
    [
        ("", "", ""),
        ("abc", "abc", "aa bb cc"),
        ("abc", "ac", "aa b. cc"),
        ("ac", "abc", "aa .b cc"),
        ("abc", "axc", "aa bx cc"),
        ("abcd", "bcde", "a. bb cc dd .e"),
        ("", "ab", ".a .b"),
        ("ab", "", "a. b."),
    ],
)
def test_what_matches_stands_side_by_side_and_the_rest_between(left, right, shown):
    """One missing in the middle does not make all that follows look wrong."""
    assert " ".join(map("".join, rows_of(left, right))) == shown


def test_no_pairing_of_two_lists_has_more_matches(seed):
    """Against every subsequence of both, on random short lists; both keep their order and lose nothing."""
    chance = random.Random(seed)
    for _ in range(300):
        left, right = ("".join(chance.choices("abc", k=chance.randrange(7))) for _ in range(2))
        rows = rows_of(left, right)
        assert "".join(a for a, _ in rows if a != ".") == left
        assert "".join(b for _, b in rows if b != ".") == right
        best = max(size for size in range(8) if subsequences(left, size) & subsequences(right, size))
        assert sum(a == b for a, b in rows) == best


def subsequences(text: str, size: int) -> set[str]:
    return {"".join(part) for part in combinations(text, size)}


def test_long_lists_that_have_nothing_in_common_cost_little():
    """Beyond a bound they are paired by position, so that no mistake in a test takes minutes."""
    rows = rows_of("a" * 3_000, "b" * 2_999)
    assert len(rows) == 3_000
    assert rows[0] == ("a", "b")
    assert rows[-1] == ("a", ".")

"""What expressions mean: values, unknown, and where an error stands."""

from __future__ import annotations

import math

import pytest

from gateway.rules.expressions.expression import ExpressionError, compile_condition, compile_value

NAN, INFINITE = math.nan, math.inf

VALUES = [
    # source, fields, value
    ("a + b * 2", {"a": 1, "b": 2}, 5),
    ("(a + b) * 2", {"a": 1, "b": 2}, 6),
    ("-a", {"a": 3}, -3),
    ("- -a", {"a": 3}, 3),
    ("-2 - a", {"a": 3}, -5),
    ("a / 4", {"a": 1}, 0.25),
    ("a % 3", {"a": 7}, 1),
    ("a / 0", {"a": 1}, None),
    ("a % 0", {"a": 1}, None),
    ("a * a", {"a": 1e200}, None),
    ("1 / (a * a)", {"a": 1e200}, None),
    ("a + 1", {"a": True}, None),
    ("a + 1", {"a": "1"}, None),
    ("a + 1", {"a": None}, None),
    ("a + 1", {"a": [1]}, None),
    ("a + 1", {"a": NAN}, None),
    ("a + 1", {"a": INFINITE}, None),
    ("a + 1", {}, None),
    ("a + 1", {"a": 10**400}, None),
    ("a.b.c", {"a": {"b": {"c": 7}}}, 7),
    ("a.b.c", {"a": {"b": 7}}, None),
    ("a.keys", {"a": {}}, None),
    ("a.gi_frame.f_back", {"a": (x for x in "no payload holds this")}, None),
    ("a.keys", {"a": {"keys": 1}}, 1),
    ("a[1]", {"a": [5, 6]}, 6),
    ("a[2]", {"a": [5, 6]}, None),
    ("a[0]", {"a": "text"}, None),
    ('a["b c"]', {"a": {"b c": 1}}, 1),
    ('field("co2-level") + 1', {"co2-level": 400}, 401),
    ('field("a").b[0]', {"a": {"b": [9]}}, 9),
    ('field("min")', {"min": 3}, 3),
    ("abs(a)", {"a": -3}, 3),
    ("min(a, b, 0)", {"a": 1, "b": -1}, -1),
    ("max(a, b)", {"a": 1, "b": None}, None),
    ("round(a)", {"a": 2.5}, 2),
    ("round(a, 1)", {"a": 2.25}, 2.2),
    ("round(a, b)", {"a": 2.25, "b": 10**9}, None),
    ("floor(a) + ceil(a)", {"a": 1.5}, 3),
    ("clamp(a, 0, 10)", {"a": 99}, 10),
    ("len(a)", {"a": "four"}, 4),
    ("len(a)", {"a": 4}, None),
    ("lower(a)", {"a": "ON"}, "on"),
    ("upper(a)", {"a": 1}, None),
    ("known(a)", {"a": 0}, True),
    ("known(a)", {"a": False}, True),
    ("known(a)", {"a": NAN}, False),
    ("known(a)", {}, False),
    ("default(a, 5)", {}, 5),
    ("default(a, 5)", {"a": NAN}, 5),
    ("default(a, 5)", {"a": 0}, 0),
    ("1 if a else 2", {"a": True}, 1),
    ("1 if a else 2", {"a": False}, 2),
    ("1 if a else 2", {"a": 1}, None),
    ("true", {}, True),
    ("null", {}, None),
    ("'a' if a > 0 else 'b'", {"a": 1}, "a"),
    ("1_000 + 0x10 + 1e2", {}, 1116.0),
]


@pytest.mark.parametrize(("source", "fields", "value"), VALUES, ids=[f"{s} of {f}" for s, f, _ in VALUES])
def test_an_expression_gives(source, fields, value):
    """Each row: what it computes, with unknown as None."""
    result = compile_value(source).evaluate(fields, {})
    assert result == value
    assert type(result) is type(value)


CONDITIONS = [
    ("t > 21", {"t": 21.5}, True),
    ("t > 21", {"t": 20}, False),
    ("t > 21", {"t": NAN}, None),
    ("t > 21", {"t": INFINITE}, None),
    ("not (t > 21)", {"t": NAN}, None),
    ("not (t > 21)", {}, None),
    ("t > 21", {"t": "22"}, None),
    ("t > 0", {"t": True}, None),
    ("t == 1", {"t": True}, None),
    ("t == 1", {"t": 1.0}, True),
    ("t != 1", {"t": "1"}, None),
    ("t == 'on'", {"t": "on"}, True),
    ("t != 'on'", {"t": "off"}, True),
    ("t == true", {"t": True}, True),
    ("t == true", {"t": 1}, None),
    ("t == u", {"t": "x", "u": "x"}, True),
    ("t == u", {"t": [1], "u": [1]}, None),
    ("18 < t < 22", {"t": 20}, True),
    ("18 < t < 22", {"t": 22}, False),
    ("18 < t <= 22 != 23", {"t": 22}, True),
    ("t > 21 and h < 60", {"t": 20}, False),
    ("t > 21 and h < 60", {"t": 22}, None),
    ("t > 21 or h < 60", {"t": 22}, True),
    ("t > 21 or h < 60", {"t": 20}, None),
    ("a or b", {"a": 1, "b": True}, True),
    ("a and b", {"a": 1, "b": False}, False),
    ("a and b", {"a": 1, "b": True}, None),
    ("not a", {"a": 0}, None),
    ("not a", {"a": False}, True),
    ("a", {"a": True}, True),
    ("a", {"a": 5}, None),
    ("a.b", {"a": {"b": False}}, False),
    ("s in ['a', 'b']", {"s": "b"}, True),
    ("s in ['a', 'b']", {"s": "c"}, False),
    ("s in ['a', 1]", {"s": "c"}, False),
    ("s in ['a', 'b']", {"s": 1}, None),
    ("s not in [1, 2]", {"s": 3.0}, True),
    ("s in [1, 2]", {"s": True}, None),
    ("s in [true]", {"s": True}, True),
    ("s in [1]", {"s": NAN}, None),
    ("a == null", {"a": None}, True),
    ("a == null", {}, True),
    ("a != null", {"a": 1}, True),
    ("null != a", {"a": NAN}, False),
    ("contains(s, 'ell')", {"s": "hello"}, True),
    ("contains(s, 2)", {"s": [1, 2]}, True),
    ("contains(s, 2)", {"s": "2"}, None),
    ("starts_with(s, 'he')", {"s": "hello"}, True),
    ("ends_with(s, 'he')", {}, None),
    ("abs(a - b) > 3", {"a": 1, "b": 5}, True),
    ("(t > 1) == (h > 1)", {"t": 2, "h": 2}, True),
    ("t > 1 if a else h > 1", {"t": 2, "h": 0, "a": False}, False),
    ("t > 1 if a else h > 1", {"t": 2, "h": 0}, None),
]


@pytest.mark.parametrize(("source", "fields", "value"), CONDITIONS, ids=[f"{s} of {f}" for s, f, _ in CONDITIONS])
def test_a_condition_is_true_false_or_unknown(source, fields, value):
    """Each row: Kleene's logic, with a comparison of what is missing, NaN or of another kind unknown (R10)."""
    assert compile_condition(source).evaluate(fields, {}) is value


def test_a_captured_level_hides_a_field_of_the_same_name():
    """A device cannot pretend to be another by sending its name."""
    condition = compile_condition('device == "a"', ("device",))
    assert condition.evaluate({"device": "b"}, {"device": "a"}) is True


def test_line_ends_in_a_folded_text_are_spaces():
    """YAML's block texts are welcome."""
    assert compile_condition("a > 1\n  and b > 1\n").evaluate({"a": 2, "b": 2}, {}) is True


ERRORS = [
    ("t = 5", 3, "`==`"),
    ("t > 5 && u", 7, "`and`"),
    ("t || u", 3, "`or`"),
    ("!t", 1, "`not`"),
    ("  t >", 5, "not an expression"),
    ("t > 5 and u ** 2 > 1", 11, "`**`"),
    ("t > True", 5, "`true`"),
    ("t > 'hot'", 5, "orders numbers"),
    ("t + 'x' > 1", 5, "needs a number"),
    ("t == 1 == 'x'", 11, "never be true"),
    ("abz(t)", 1, "did you mean `abs`?"),
    ("round()", 1, "1 to 2 arguments"),
    ("t and 5", 7, "needs a truth"),
    ("t < null", 1, "`null` can only"),
    ("größe > 1", 1, 'field("größe")'),
    ("'ü' == größe", 8, 'field("größe")'),
    ("t in u", 6, "list of constants"),
    ("t in [u]", 6, "constants only"),
    ("a + b", 1, "a condition is true or false"),
    ("", 1, "empty"),
    ("   ", 1, "empty"),
    ("a" * 1001, 1, "1000 characters"),
    ("max > 3", 1, 'field("max")'),
    ("9223372036854775809 < a", 1, "63 bits"),
    ("1e999 < a", 1, "infinite"),
]


@pytest.mark.parametrize(("source", "column", "words"), ERRORS, ids=[source[:30] for source, _, _ in ERRORS])
def test_an_error_says_where_and_what_to_write_instead(source, column, words):
    """Errors carry the column and name the way out."""
    with pytest.raises(ExpressionError) as caught:
        compile_condition(source)
    assert words in str(caught.value)
    assert caught.value.column == column


def test_readings_name_every_field_with_its_value():
    """The sentence of a decision shows what it was based on."""
    condition = compile_condition('power.phases[0] > 5 and device == "a" and t < 3', ("device",))
    shown = condition.readings({"power": {"phases": [7.25]}}, {"device": "a"})
    assert shown == "power.phases[0] = 7.25, device = a, t = unknown"

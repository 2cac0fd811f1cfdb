"""Conditions that can never be true, and `until`s that hold at once: what is claimed, and that it is never wrong."""

from __future__ import annotations

import random

import pytest

from gateway.rules.expressions.expression import ExpressionError, compile_condition
from gateway.rules.reading.ranges import branches

NEVER = [
    "t > 30 and t < 20",
    "t > 20 and t <= 20",
    "30 < t < 20",
    "20 > t and t > 25",
    "t == 5 and t == 6",
    "t == 5 and t != 5",
    "t in [1, 2] and t > 2",
    "t in [1, 2] and t not in [1, 2, 3]",
    "t >= 5 and t <= 5 and t != 5",
    "mode == 'auto' and mode == 'manual'",
    "mode == 'auto' and mode > 3",
    "mode == 'auto' and mode == 3",
    "on and not on",
    "on and on == false",
    "t > 5 and (t < 3 or t == 4)",
    "not (t > 5 or t <= 5)",
    "abs(t) > 5 and abs(t) < 3",
    "a + b > 5 and a + b < 3",
    "(t > 5 if on else t > 6) and t < 5",
    "t > 2 * 10 and t < -(-5)",
    "known(t) and not known(t)",
    "avg(t, 5m) > 30 and avg(t, 5m) < 20",
    "a.b > 3 and a.b < 2",
]
PERHAPS = [
    "t > 20 and t < 30",
    "t >= 20 and t <= 20",
    "t > 30 or t < 20",
    "not (t > 30 and t < 20)",
    "t in [1, 'a'] and t == 'a'",
    "t != 5 and t != 6",
    "a > b and b > 3",
    "a > 5 and b < 3",
    "abs(t) > 5 and t < -5",
    "a.b > 3 and a.c < 2",
    "avg(t, 5m) > 30 and t < 20",
    "device == 'kitchen'",
    "-t > 3 and t < 2",
]


def _begins(*sources):
    return branches([compile_condition(each, ["device"], beyond=True).tree for each in sources])


@pytest.mark.parametrize("source", NEVER)
def test_what_can_never_be_true_is_found(source):
    """`check` says so before anybody waits for it."""
    assert _begins(source) == []


@pytest.mark.parametrize("source", PERHAPS)
def test_what_may_be_true_is_left_alone(source):
    """A warning that is wrong teaches to pass over all of them."""
    assert _begins(source)


def test_more_ways_than_are_worth_following_give_no_claim():
    """Twenty choices of two are a million branches."""
    source = " and ".join(f"(a{n} > 1 or b{n} > 1)" for n in range(20))
    assert _begins(source + " and t > 3 and t < 2") is None


def test_rules_that_can_never_begin_or_end_at_once_are_named_with_their_place(load):
    """`path:line:column`, the rule's name, and the condition as it is written."""
    ruleset = load("""
        rules:
          - {id: never, on: t, when: t > 30 and t < 20, then: [{notify: {to: x, text: a}}]}
          - {id: backwards, on: t, when: t > 25, until: t > 20, then: [{notify: {to: x, text: a}}]}
          - {id: gated, on: t, where: "kind == 'a' and kind == 'b'", then: [{notify: {to: x, text: a}}]}
          - {id: fine, on: t, when: t > 25, until: t < 20, then: [{notify: {to: x, text: a}}]}
          - {id: other, on: t, when: t > 25, until: u > 20, then: [{notify: {to: x, text: a}}]}
          - {id: unknown, on: t, when: t > 25 or on, until: t > 20 or on, then: [{notify: {to: x, text: a}}]}
    """)
    said = [warning.split(": ", 1) for warning in ruleset.warnings]
    assert [text.split("`")[1] for _, text in said] == ["never", "backwards", "gated"]
    assert "is never true" in said[0][1]
    assert "`until: t > 20` holds wherever `t > 25` does" in said[1][1]
    assert all(place.count(":") == 2 for place, _ in said)


VALUES = [None, -1, 0, 1, 1.5, 2, 3, float("nan"), 10**400, True, False, "a", "b", "", [1], {"x": 1}]
ATOMS = ["x", "y", "abs(x)", "x + y", "x.k", "device", "len(y)", "default(x, 1)", "min(x, y)", "known(x)"]
LITERALS = ["-1", "0", "1", "1.5", "2", "3", "'a'", "'b'", "true", "false", "1 + 1"]


def _condition(rng: random.Random, depth: int) -> str:
    pick = rng.random()
    if depth and pick < 0.5:
        op = rng.choice(["and", "and", "or"])
        return f"({_condition(rng, depth - 1)} {op} {_condition(rng, depth - 1)})"
    if depth and pick < 0.6:
        return f"(not {_condition(rng, depth - 1)})"
    if depth and pick < 0.65:
        parts = [_condition(rng, depth - 1) for _ in range(3)]
        return f"({parts[0]} if {parts[1]} else {parts[2]})"
    left = rng.choice(ATOMS)
    if pick < 0.75:
        options = ", ".join(rng.sample([each for each in LITERALS if "+" not in each], 2))
        return f"({left} {rng.choice(['in', 'not in'])} [{options}])"
    right = rng.choice(LITERALS if rng.random() < 0.8 else ATOMS)
    op = rng.choice(["<", "<=", ">", ">=", "==", "!="])
    sides = (left, right) if rng.random() < 0.7 else (right, left)
    return f"({sides[0]} {op} {sides[1]})"


def _pair(rng: random.Random) -> tuple[str, str]:
    """A `when` and an `until`; half of them compare one thing alike, as people do."""
    if rng.random() < 0.5:
        return _condition(rng, 1), _condition(rng, 1)
    item, op = rng.choice(ATOMS), rng.choice(["<", "<=", ">", ">=", "==", "!="])
    return f"{item} {op} {rng.choice(LITERALS)}", f"{item} {op} {rng.choice(LITERALS)}"


def _compiled(source: str):
    try:
        return compile_condition(source, ["device"])
    except ExpressionError:
        return None


def test_no_event_fulfils_what_is_said_never_to_be_true(seed):
    """Soundness: random conditions, random payloads with every kind of value in them, the real evaluation."""
    rng = random.Random(seed)
    claimed = 0
    for _ in range(4_000):
        expression = _compiled(_condition(rng, 3))
        if expression is None or branches([expression.tree]) != []:
            continue
        claimed += 1
        for _ in range(40):
            fields = {name: rng.choice(VALUES) for name in ("x", "y") if rng.random() < 0.9}
            captured = {"device": rng.choice(["a", "b"])}
            assert expression.evaluate(fields, captured) is not True, (seed, expression.source)
    assert claimed > 100, seed


def test_no_event_breaks_an_until_that_is_said_to_hold_at_once(seed, load):
    """Soundness of the other claim: whenever `when` is true, so is that `until`."""
    rng = random.Random(seed)
    claimed = 0
    sources = [_pair(rng) for _ in range(1_500)]
    pairs = [(when, until) for when, until in sources if _compiled(when) and _compiled(until)]
    rules = [
        f'{{id: r{n}, on: \'d/{{device}}\', when: "{when}", until: "{until}", then: [{{notify: {{to: x, text: a}}}}]}}'
        for n, (when, until) in enumerate(pairs)
    ]
    ruleset = load("rules: [" + ",\n".join(rules) + "]")
    ending = {text.split("`")[1] for text in ruleset.warnings if "ends with the next reading" in text}
    for rule in ruleset.rules:
        if rule.id not in ending:
            continue
        claimed += 1
        for _ in range(60):
            fields = {name: rng.choice(VALUES) for name in ("x", "y") if rng.random() < 0.9}
            captured = {"device": rng.choice(["a", "b"])}
            if rule.when.evaluate(fields, captured) is True:
                assert rule.until.evaluate(fields, captured) is True, (seed, rule.when.source, rule.until.source)
    assert claimed > 10, seed

"""The fast and the exact way through a compiled expression, and a third that shares no code with either."""

from __future__ import annotations

import math
import operator
import random

import pytest

from gateway.rules.expressions import codegen
from gateway.rules.expressions.expression import compile_value
from gateway.rules.expressions.grammar import parse
from gateway.rules.expressions.nodes import (
    Among,
    Arithmetic,
    Call,
    Choice,
    Compare,
    Field,
    Literal,
    Logic,
    Negative,
    Not,
)

_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_SUM = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "%": operator.mod}


def _kind(value):
    if isinstance(value, bool):
        return bool
    if isinstance(value, int | float):
        try:
            return "number" if math.isfinite(float(value)) else None
        except OverflowError:
            return None
    return str if isinstance(value, str) else None


def naive(node, fields):
    """The meaning of a tree, by the book and without haste."""
    match node:
        case Literal(value):
            return value
        case Field((name, *rest)):
            value = fields.get(name)
            for step in rest:
                value = value.get(step) if isinstance(value, dict) else None
            return value
        case Negative(operand):
            value = naive(operand, fields)
            return -value if _kind(value) == "number" else None
        case Arithmetic(op, left, right):
            a, b = naive(left, fields), naive(right, fields)
            if _kind(a) != "number" or _kind(b) != "number":
                return None
            try:
                result = _SUM[op](a, b)
            except ArithmeticError:
                return None
            return result if _kind(result) else None
        case Compare(ops, operands):
            values = [naive(operand, fields) for operand in operands]
            links = [_link(op, a, b) for op, a, b in zip(ops, values, values[1:], strict=False)]
            return False if False in links else None if None in links else True
        case Among(item, options, negated):
            links = [_link("==", naive(item, fields), option.value) for option in options]
            found = True if True in links else False if False in links else None
            return found if found is None else found != negated
        case Logic(op, operands):
            values = [v if isinstance(v, bool) else None for v in (naive(o, fields) for o in operands)]
            decisive = op == "or"
            return decisive if decisive in values else None if None in values else not decisive
        case Not(operand):
            value = naive(operand, fields)
            return not value if isinstance(value, bool) else None
        case Call(name, arguments):
            values = [naive(argument, fields) for argument in arguments]
            if any(_kind(value) != "number" for value in values):
                return None
            return {"abs": abs, "min": min, "max": max}[name](*values)
        case Choice(condition, then, otherwise):
            value = naive(condition, fields)
            return naive(then if value else otherwise, fields) if isinstance(value, bool) else None
    raise AssertionError(node)


def _link(op, a, b):
    if _kind(a) is None or _kind(a) != _kind(b):
        return None
    if op in _ORDER:
        return _ORDER[op](a, b) if _kind(a) == "number" else None
    return (a == b) == (op == "==")


def _number(rng, depth):
    if depth <= 0 or rng.random() < 0.3:
        return rng.choice(["n", "m", "o.p", "3", "0", "-1.5", "1e200", "21"])
    return rng.choice(
        [
            lambda: f"({_number(rng, depth - 1)} {rng.choice('+-*/%')} {_number(rng, depth - 1)})",
            lambda: f"-{_number(rng, depth - 1)}",
            lambda: f"{rng.choice(['min', 'max'])}({_number(rng, depth - 1)}, {_number(rng, depth - 1)})",
            lambda: f"abs({_number(rng, depth - 1)})",
            lambda: f"({_number(rng, depth - 1)} if {_truth(rng, depth - 1)} else {_number(rng, depth - 1)})",
        ]
    )()


def _truth(rng, depth):
    if depth <= 0 or rng.random() < 0.1:
        return rng.choice(["b", "c", "true", "s == 'on'", "n > 2", "s == w"])
    return rng.choice(
        [
            lambda: f"({_truth(rng, depth - 1)} {rng.choice(['and', 'or'])} {_truth(rng, depth - 1)})",
            lambda: f"(not {_truth(rng, depth - 1)})",
            lambda: f"({_number(rng, depth - 1)} {rng.choice(list(_ORDER))} {_number(rng, depth - 1)})",
            lambda: f"({_number(rng, depth - 1)} {rng.choice(['==', '!='])} {_number(rng, depth - 1)})",
            lambda: f"({_number(rng, depth - 1)} < {_number(rng, depth - 1)} <= {_number(rng, depth - 1)})",
            lambda: f"(s {rng.choice(['in', 'not in'])} ['on', 'off'])",
            lambda: f"(n {rng.choice(['in', 'not in'])} [1, 2.5, 21])",
            lambda: f"(b == {_truth(rng, depth - 1)})",
        ]
    )()


_NUMBERS = [0, 1, 2.5, -3, 21, 1e200, -1e308, 2**63, 10**310, math.nan, math.inf, True, "3", None, [], {}]
_TRUTHS = [True, False, True, False, 1, 0, "true", None]
_TEXTS = ["on", "off", "", "x", True, 1, None, math.nan]


def _payload(rng):
    fields = {
        "n": rng.choice(_NUMBERS) if rng.random() < 0.4 else rng.uniform(-30, 30),
        "m": rng.choice(_NUMBERS) if rng.random() < 0.4 else rng.randrange(-30, 30),
        "o": rng.choice([{"p": rng.choice(_NUMBERS)}, {"p": 20.5}, {"p": 2}, {}, None, "p", [1]]),
        "b": rng.choice(_TRUTHS),
        "c": rng.choice(_TRUTHS),
        "s": rng.choice(_TEXTS),
        "w": rng.choice(_TEXTS),
    }
    return {name: value for name, value in fields.items() if rng.random() < 0.95}


def test_both_ways_and_the_naive_one_give_the_same(seed):
    """Speed changes no meaning: three evaluators, random expressions, payloads that try every trap."""
    rng = random.Random(seed)
    fast = 0
    for _ in range(1_500):
        source = _truth(rng, 4) if rng.random() < 0.7 else _number(rng, 4)
        if len(source) > 900:
            continue
        tree = parse(source)
        evaluate = compile_value(source).evaluate
        fast += evaluate.__name__ == "evaluate"
        for _ in range(20):
            fields = _payload(rng)
            expected = naive(tree, fields)
            assert _shown(evaluate(fields, {})) == _shown(expected), (source, fields)
    assert fast > 300


def _shown(value):
    return (type(value).__name__, repr(value)) if not isinstance(value, int | float) else (type(value) is bool, value)


@pytest.mark.parametrize("source", ["t > 25 and h < 60", "state == 'on'", "a.b > 1 or c", "abs(a - b) > 3"])
def test_an_ordinary_condition_has_a_fast_way(source):
    """What people write does not take the slow way unnoticed."""
    assert codegen.compile_tree(parse(source)).__name__ == "evaluate"

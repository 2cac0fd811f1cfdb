"""A condition by hand-written code held 1 and true to be the same, which they are to Python and not to a rule."""

from __future__ import annotations

import pytest

from gateway.rules.expressions.expression import compile_condition


@pytest.mark.parametrize(
    "source",
    [
        "min(x, y) in [true]",
        "min(x, y) not in [false]",
        "x + y in [true]",
        "-x not in [false]",
    ],
)
def test_a_number_is_neither_in_nor_outside_a_list_of_truths(source):
    """Values of different kinds are never equal and never different."""
    assert compile_condition(source).evaluate({"x": 1, "y": 0}, {}) is None

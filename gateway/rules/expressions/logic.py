"""What an expression computes with: three-valued logic and an arithmetic that never raises.

*Unknown* is the third truth value and the absence of a number at once. It is written `None`, and JSON's `null` is the
same thing: devices send it where they have no reading, and a rule must not tell the two apart by accident.

Invariants:
- Every function takes anything that a payload can hold and returns a value or unknown; none raises.
- A number is an int or float, not a boolean, whose value as a float is finite. NaN and infinities are unknown, so that
  `not (t > 21)` does not fire on a NaN.
- Values of different kinds are never equal and never different: comparing them is unknown.
- What could grow without bound (digits of a number, length of a text) is bounded by its operands.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Truth: TypeAlias = bool | None
Number: TypeAlias = int | float

_MOST_DECIMALS = 12


def number(value: Any) -> Number | None:
    """The value if it is a finite number, else unknown."""
    if value.__class__ is float or value.__class__ is int:
        try:
            if value * 0.0 == 0.0:
                return value
        except OverflowError:  # an integer beyond every float
            return None
    return None


def truth(value: Any) -> Truth:
    """The value if it is a boolean, else unknown."""
    return value if value is True or value is False else None


def text(value: Any) -> str | None:
    """The value if it is a text, else unknown."""
    return value if value.__class__ is str else None


def field(fields: dict[str, Any], *path: str | int) -> Any:
    """What stands at `path` below `fields`; unknown if any step of it is missing."""
    value: Any = fields
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if type(value) is dict else None
        else:
            value = value[step] if type(value) is list and step < len(value) else None
    return value


def both(*operands: Any) -> Truth:
    """Kleene's `and`: one false decides, whatever is unknown."""
    result: Truth = True
    for operand in operands:
        if operand is False:
            return False
        if operand is not True:
            result = None
    return result


def either(*operands: Any) -> Truth:
    """Kleene's `or`: one true decides, whatever is unknown."""
    result: Truth = False
    for operand in operands:
        if operand is True:
            return True
        if operand is not False:
            result = None
    return result


def negation(operand: Any) -> Truth:
    """Kleene's `not`: the opposite of unknown is unknown."""
    if operand is True:
        return False
    return True if operand is False else None


def choice(condition: Any, then: Any, otherwise: Any) -> Any:
    """`then if condition else otherwise`; unknown if the condition is."""
    if condition is True:
        return then
    return otherwise if condition is False else None


def same(left: Any, right: Any) -> Truth:
    """Equality within one kind: number, text or boolean. Anything else is unknown."""
    a, b = number(left), number(right)
    if a is not None and b is not None:
        return a == b
    kind = left.__class__
    return left == right if kind is right.__class__ and (kind is str or kind is bool) else None


def differs(left: Any, right: Any) -> Truth:
    """The opposite of `same`; unknown where that is."""
    return negation(same(left, right))


def _ordering(holds: Callable[[Number, Number], bool]) -> Callable[[Any, Any], Truth]:
    def compare(left: Any, right: Any) -> Truth:
        a, b = number(left), number(right)
        return None if a is None or b is None else holds(a, b)

    return compare


less = _ordering(lambda a, b: a < b)
at_most = _ordering(lambda a, b: a <= b)
greater = _ordering(lambda a, b: a > b)
at_least = _ordering(lambda a, b: a >= b)


def among(item: Any, *options: Any) -> Truth:
    """Whether `item` equals one of the options; unknown if it is of the kind of none of them."""
    answers = [same(item, option) for option in options]
    if True in answers:
        return True
    return False if False in answers else None


def not_among(item: Any, *options: Any) -> Truth:
    """The opposite of `among`; unknown where that is."""
    return negation(among(item, *options))


def _arithmetic(compute: Callable[[Number, Number], Number]) -> Callable[[Any, Any], Number | None]:
    def combine(left: Any, right: Any) -> Number | None:
        a, b = number(left), number(right)
        if a is None or b is None:
            return None
        try:
            return number(compute(a, b))
        except (OverflowError, ZeroDivisionError):
            return None

    return combine


plus = _arithmetic(lambda a, b: a + b)
minus = _arithmetic(lambda a, b: a - b)
times = _arithmetic(lambda a, b: a * b)
over = _arithmetic(lambda a, b: a / b)
modulo = _arithmetic(lambda a, b: a % b)


def negative(operand: Any) -> Number | None:
    """Unary minus."""
    value = number(operand)
    return None if value is None else -value


# The function table of the language. Each takes payload values and is total.


def known(value: Any) -> bool:
    """Whether there is a value at all. The one way to turn unknown into a truth."""
    if value.__class__ is float or value.__class__ is int:
        return number(value) is not None
    return value is not None


def default(value: Any, otherwise: Any) -> Any:
    """The value, or another one if it is unknown."""
    return value if known(value) else otherwise


def absolute(value: Any) -> Number | None:
    """`abs(x)`."""
    checked = number(value)
    return None if checked is None else abs(checked)


def smallest(*values: Any) -> Number | None:
    """`min(a, b, ...)`; unknown if one of them is."""
    numbers = [number(value) for value in values]
    return None if None in numbers else min(numbers)  # type: ignore[type-var]  # None was just excluded


def largest(*values: Any) -> Number | None:
    """`max(a, b, ...)`; unknown if one of them is."""
    numbers = [number(value) for value in values]
    return None if None in numbers else max(numbers)  # type: ignore[type-var]  # None was just excluded


def rounded(value: Any, decimals: Any = 0) -> Number | None:
    """`round(x)` or `round(x, decimals)`, halves to even; decimals from 0 to 12."""
    checked = number(value)
    if checked is None or decimals.__class__ is not int or not 0 <= decimals <= _MOST_DECIMALS:
        return None
    return round(checked, decimals) if decimals else round(checked)


def floor(value: Any) -> int | None:
    """`floor(x)`."""
    checked = number(value)
    return None if checked is None else math.floor(checked)


def ceil(value: Any) -> int | None:
    """`ceil(x)`."""
    checked = number(value)
    return None if checked is None else math.ceil(checked)


def clamp(value: Any, least: Any, most: Any) -> Number | None:
    """`clamp(x, least, most)`: x, moved into the range."""
    return smallest(largest(value, least), most)


def length(value: Any) -> int | None:
    """`len(x)` of a text, list or mapping."""
    return len(value) if value.__class__ in {str, list, dict} else None


def lower(value: Any) -> str | None:
    """`lower(text)`."""
    checked = text(value)
    return None if checked is None else checked.lower()


def upper(value: Any) -> str | None:
    """`upper(text)`."""
    checked = text(value)
    return None if checked is None else checked.upper()


def contains(whole: Any, part: Any) -> Truth:
    """`contains(text, part)`, or whether a list holds a value."""
    if whole.__class__ is list:
        return either(*(same(item, part) is True for item in whole)) if known(part) else None
    a, b = text(whole), text(part)
    return None if a is None or b is None else b in a


def starts_with(whole: Any, part: Any) -> Truth:
    """`starts_with(text, part)`."""
    a, b = text(whole), text(part)
    return None if a is None or b is None else a.startswith(b)


def ends_with(whole: Any, part: Any) -> Truth:
    """`ends_with(text, part)`."""
    a, b = text(whole), text(part)
    return None if a is None or b is None else a.endswith(b)

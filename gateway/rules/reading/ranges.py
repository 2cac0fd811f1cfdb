"""Conditions that can never be true, found by following what each comparison says of what it compares.

`temperature > 30 and temperature < 20` narrows one field twice until nothing is left of it. A condition is followed
into its *branches*: the ways in which it can come out as wanted. Each is a map from what is compared (a field, a
window, or any other part of an expression, taken as it is written) to the values that it may then have. A branch in
which something has no value left is none; a condition without branches cannot be true.

Invariants:
- Sound: what is said never to be true is true for no event (`tests/rules/test_ranges.py` looks for counterexamples).
  Whatever is not understood narrows nothing. So some conditions that cannot be true are not found.
- A comparison that is true or false, and not unknown, says of what kind both sides are: values of different kinds are
  neither equal nor different (`gateway.rules.expressions.logic`).
- Branches are bounded; beyond that nothing is claimed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from gateway.rules.expressions import logic
from gateway.rules.expressions.nodes import (
    Among,
    Arithmetic,
    Choice,
    Compare,
    Literal,
    Logic,
    Negative,
    Node,
    Not,
    kind_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.rules.compiled import Rule

_MOST_BRANCHES = 256
_KINDS = frozenset({"number", "text", "truth"})
_UNORDERED = frozenset({"==", "!="})
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
_EVALUATE = {
    "<": logic.less,
    "<=": logic.at_most,
    ">": logic.greater,
    ">=": logic.at_least,
    "==": logic.same,
    "!=": logic.differs,
}
_COMPUTE = {"+": logic.plus, "-": logic.minus, "*": logic.times, "/": logic.over, "%": logic.modulo}


class _Values(NamedTuple):
    """What something may be: values of one kind, within bounds, among some, and not among others."""

    kind: str
    low: float = -math.inf
    low_open: bool = True
    high: float = math.inf
    high_open: bool = True
    among: frozenset[Any] | None = None
    """None: all that lie within the bounds."""
    besides: frozenset[Any] = frozenset()


_Branch: TypeAlias = dict[str, _Values]
"""By the `repr` of a node, which tells apart what tuples hold to be equal: 1, 1.0 and true, or nodes of two kinds."""


def unreachable(rules: Iterable[Rule]) -> list[str]:
    """A warning for every rule that can never begin, and for every one that ends as soon as it has begun.

    Args:
        rules: compiled.

    Returns:
        `path:line:column: message`, in the order of the rules.
    """
    found = []
    for rule in rules:
        conditions = [each for each in (rule.gate, rule.when) if each is not None]
        if not conditions:
            continue
        said = " and ".join(f"`{each.source}`" for each in conditions)
        begins = branches([each.tree for each in conditions])
        if begins == []:
            found.append(f"{rule.place}: `{rule.id}` can never begin: {said} is never true")
        elif begins and rule.until is not None and _always(rule.until.tree, begins):
            found.append(
                f"{rule.place}: `{rule.id}` ends with the next reading: `until: {rule.until.source}` holds wherever "
                f"{said} does; the two thresholds are probably the wrong way round"
            )
    return found


def branches(conditions: Sequence[Node]) -> list[_Branch] | None:
    """The ways in which all of some conditions can be true at once; None if there are too many to follow."""
    try:
        return _all(conditions, {}, wanted=True)
    except _TooManyError:
        return None


def _always(condition: Node, begins: list[_Branch]) -> bool:
    """Whether a condition is true, and not unknown, in every one of these branches."""
    try:
        return all(_is_known(condition, branch) and not _follow(condition, branch, wanted=False) for branch in begins)
    except _TooManyError:
        return False


class _TooManyError(Exception):
    """More branches than are worth following."""


def _follow(node: Node, branch: _Branch, *, wanted: bool) -> list[_Branch]:
    """The ways in which a node can be `wanted`, from where a branch stands."""
    match node:
        case Literal(value):
            return [branch] if value is wanted else []
        case Not(operand):
            return _follow(operand, branch, wanted=not wanted)
        case Logic(op, operands):
            follow = _all if (op == "and") is wanted else _any
            return follow(operands, branch, wanted=wanted)
        case Compare(ops, operands):
            links = [Compare((op,), (a, b)) for op, a, b in zip(ops, operands, operands[1:], strict=False)]
            if len(links) > 1:
                return (_all if wanted else _any)(links, branch, wanted=wanted)
            return _compare(ops[0] if wanted else _OPPOSITE[ops[0]], operands[0], operands[1], branch)
        case Among(item, options, negated):
            return _among(item, [option.value for option in options], branch, wanted=wanted is not negated)
        case Choice(condition, then, otherwise):
            ways = ((True, then), (False, otherwise))
            starts = [(start, side) for way, side in ways for start in _follow(condition, branch, wanted=way)]
            found = [after for start, side in starts for after in _follow(side, start, wanted=wanted)]
            return _bounded(found)
        case _:
            return _narrow(node, _Values("truth", among=frozenset({wanted})), branch)


def _all(nodes: Sequence[Node], branch: _Branch, *, wanted: bool) -> list[_Branch]:
    found = [branch]
    for node in nodes:
        found = _bounded([after for before in found for after in _follow(node, before, wanted=wanted)])
    return found


def _any(nodes: Sequence[Node], branch: _Branch, *, wanted: bool) -> list[_Branch]:
    return _bounded([after for node in nodes for after in _follow(node, branch, wanted=wanted)])


def _bounded(found: list[_Branch]) -> list[_Branch]:
    if len(found) > _MOST_BRANCHES:
        raise _TooManyError
    return found


def _compare(op: str, left: Node, right: Node, branch: _Branch) -> list[_Branch]:
    """The ways in which one comparison can be true."""
    if _is_constant(left):
        if _is_constant(right):
            return [branch] if _EVALUATE[op](_constant(left), _constant(right)) is True else []
        left, right, op = right, left, _MIRRORED[op]
    if _is_constant(right):
        values = _beyond(op, _constant(right))
        return [] if values is None else _narrow(left, values, branch)
    if op in _UNORDERED:
        return [branch]  # both are of one kind, and which one it is only the event can tell
    return [both for one in _narrow(left, _Values("number"), branch) for both in _narrow(right, _Values("number"), one)]


def _beyond(op: str, constant: Any) -> _Values | None:
    """The values that stand so to a constant; None if none does."""
    kind = _kind(constant)
    if kind is None or (kind != "number" and op not in _UNORDERED):
        return None
    match op:
        case "<" | "<=":
            return _Values(kind, high=constant, high_open=op == "<")
        case ">" | ">=":
            return _Values(kind, low=constant, low_open=op == ">")
        case "==":
            return _Values(kind, among=frozenset({constant}))
        case _:
            return _Values(kind, besides=frozenset({constant}))


def _among(item: Node, options: list[Any], branch: _Branch, *, wanted: bool) -> list[_Branch]:
    if _is_constant(item):
        return [branch] if logic.among(_constant(item), *options) is wanted else []
    by_kind: dict[str, set[Any]] = {}
    for option in options:
        if (kind := _kind(option)) is not None:
            by_kind.setdefault(kind, set()).add(option)
    narrowed = [
        _Values(kind, among=frozenset(values)) if wanted else _Values(kind, besides=frozenset(values))
        for kind, values in by_kind.items()
    ]
    return [after for values in narrowed for after in _narrow(item, values, branch)]


def _narrow(node: Node, values: _Values, branch: _Branch) -> list[_Branch]:
    """The branch with one thing narrowed; none if nothing is left of it."""
    kind = kind_of(node)
    known = branch.get(repr(node), values if kind is None else _Values(kind))
    left = _meet(known, values)
    return [] if left is None else [{**branch, repr(node): left}]


def _meet(one: _Values, other: _Values) -> _Values | None:
    """What lies in both; None if nothing does."""
    if one.kind != other.kind:
        return None
    low, low_open = max((one.low, one.low_open), (other.low, other.low_open))
    high, high_closed = min((one.high, not one.high_open), (other.high, not other.high_open))
    besides = one.besides | other.besides
    among = one.among if other.among is None else other.among if one.among is None else one.among & other.among
    if one.kind == "truth" and among is None:
        among = frozenset({True, False})
    met = _Values(one.kind, low, low_open, high, not high_closed, among, besides)
    if among is not None:
        among = frozenset(value for value in among if value not in besides and _lies_within(value, met))
        return met._replace(among=among) if among else None
    is_point = low == high and not low_open and high_closed
    if one.kind == "number" and ((low >= high and not is_point) or (is_point and low in besides)):
        return None
    return met


def _lies_within(value: Any, values: _Values) -> bool:
    if values.kind != "number":
        return True
    above = value > values.low or (value == values.low and not values.low_open)
    return above and (value < values.high or (value == values.high and not values.high_open))


def _is_known(node: Node, branch: _Branch) -> bool:
    """Whether a condition cannot be unknown, given what a branch says of all that it reads."""
    match node:
        case Literal(value):
            return value is True or value is False
        case Not(operand):
            return _is_known(operand, branch)
        case Logic(_, operands):
            return all(_is_known(operand, branch) for operand in operands)
        case Compare(ops, operands):
            kinds = {_kind_in(operand, branch) for operand in operands}
            return len(kinds) == 1 and (kinds <= _KINDS if _UNORDERED.issuperset(ops) else kinds == {"number"})
        case Among(item, options):
            return _kind_in(item, branch) in {_kind(option.value) for option in options} - {None}
        case _:
            return _kind_in(node, branch) == "truth"


def _kind_in(node: Node, branch: _Branch) -> str | None:
    """The kind of what a node gives for certain; None if it may be unknown."""
    if _is_constant(node):
        return _kind(_constant(node))
    values = branch.get(repr(node))
    return None if values is None else values.kind


def _is_constant(node: Node) -> bool:
    match node:
        case Literal():
            return True
        case Negative(operand):
            return _is_constant(operand)
        case Arithmetic(_, left, right):
            return _is_constant(left) and _is_constant(right)
        case _:
            return False


def _constant(node: Node) -> Any:
    match node:
        case Literal(value):
            return value
        case Negative(operand):
            return logic.negative(_constant(operand))
        case Arithmetic(op, left, right):
            return _COMPUTE[op](_constant(left), _constant(right))
        case _:
            raise AssertionError("asked only of constants")


def _kind(value: Any) -> str | None:
    if value is True or value is False:
        return "truth"
    if isinstance(value, str):
        return "text"
    return None if logic.number(value) is None else "number"

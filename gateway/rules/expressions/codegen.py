"""Expression trees into Python functions, compiled once at load.

The one place that calls `compile` and `exec`, and only on text written here: names of functions from `logic`, local
names made of a letter and a number, and `repr` of checked constants. Nothing of what an operator wrote reaches the
compiler in any other form.

Each expression becomes one function with two ways through it:

- **exact**: nested calls into `logic`, right for every payload there can be, about a microsecond;
- **fast**: the expression as one would write it by hand, behind a guard that holds only where both agree, namely
  when every field it names is there and has the kind that its use demands. Anything else falls through to *exact*.

Invariants:
- *fast* gives what *exact* gives or gives way to it (`tests/rules/test_expression_two_ways_agree.py`).
- The guard of a number is `x * 0.0 == 0.0`, false for NaN and infinities and a TypeError for all that is no number,
  together with `is not True` and `is not False`, since Python counts with booleans. One product guards the sum of all
  numbers; a sum that overflows only means the slower way.
- Every intermediate result is guarded too: 1 / (a * b) must not hide that a * b was infinite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.rules.expressions import logic
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
    Node,
    Not,
    kind_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Evaluate: TypeAlias = "Callable[[dict[str, Any], dict[str, str]], Any]"
"""`(fields of the event, captured levels of its topic) -> value`; None is unknown."""

_COMPARE = {
    "==": "same",
    "!=": "differs",
    "<": "less",
    "<=": "at_most",
    ">": "greater",
    ">=": "at_least",
}
_ARITHMETIC = {"+": "plus", "-": "minus", "*": "times", "/": "over", "%": "modulo"}
_FUNCTIONS = {
    "abs": "absolute",
    "min": "smallest",
    "max": "largest",
    "round": "rounded",
    "len": "length",
}
"""Where the language's name for a function is not that of `logic`."""

_ALIKE = frozenset({"abs", "min", "max"})
"""Functions that Python has too and that mean the same on finite numbers."""

_NAMESPACE = {
    "__builtins__": {},
    "abs": abs,
    "min": min,
    "max": max,
    "str": str,
    "LookupError": LookupError,
    "TypeError": TypeError,
    "ArithmeticError": ArithmeticError,
} | {f"_{name}": function for name, function in vars(logic).items() if callable(function) and not name.startswith("_")}


def compile_tree(tree: Node) -> Evaluate:
    """One function for one expression. It raises on no payload."""
    exact = f"def exact(f, c):\n    return {_exact(tree)}\n"
    try:
        source = exact + _Fast().function(tree)
    except _OneWayOnly:
        source = exact + "evaluate = exact\n"
    namespace = dict(_NAMESPACE)
    # The text above is all ours: see the design note.
    exec(compile(source, "<rule expression>", "exec"), namespace)  # noqa: S102
    return namespace["evaluate"]  # type: ignore[return-value]  # exec has put a function there


def _exact(node: Node) -> str:
    match node:
        case Literal(value):
            return repr(value)
        case Field(path, captured):
            return f"_field({'c' if captured else 'f'}, {', '.join(map(repr, path))})"
        case Negative(operand):
            return f"_negative({_exact(operand)})"
        case Arithmetic(op, left, right):
            return f"_{_ARITHMETIC[op]}({_exact(left)}, {_exact(right)})"
        case Compare(ops, operands):
            sides = [_exact(operand) for operand in operands]
            links = [f"_{_COMPARE[op]}({a}, {b})" for op, a, b in zip(ops, sides, sides[1:], strict=False)]
            return links[0] if len(links) == 1 else f"_both({', '.join(links)})"
        case Among(item, options, negated):
            name = "_not_among" if negated else "_among"
            return f"{name}({_exact(item)}, {', '.join(map(_exact, options))})"
        case Logic(op, operands):
            return f"{'_both' if op == 'and' else '_either'}({', '.join(map(_exact, operands))})"
        case Not(operand):
            return f"_negation({_exact(operand)})"
        case Call(name, arguments):
            return f"_{_FUNCTIONS.get(name, name)}({', '.join(map(_exact, arguments))})"
        case Choice(condition, then, otherwise):
            return f"_choice({_exact(condition)}, {_exact(then)}, {_exact(otherwise)})"


class _OneWayOnly(Exception):  # noqa: N818 - an answer, not an error
    """The expression has parts whose kind only the event can tell: *exact* is the only way."""


class _Fast:
    """Writes the fast way of one expression."""

    def __init__(self) -> None:
        self._fields: dict[Field, tuple[str, str]] = {}
        """To (local name, kind)."""
        self._results: dict[str, str] = {}
        """Guarded intermediate results: code to local name."""

    def function(self, tree: Node) -> str:
        """The function `evaluate`, which calls `exact` where its guard does not hold."""
        kind = kind_of(tree)
        if kind is None or kind == "null" or not fields_of(tree):
            raise _OneWayOnly
        value = self._code(tree, kind)
        lines = ["def evaluate(f, c):", "    try:"]
        for field, (local, _) in self._fields.items():
            path = "".join(f"[{step!r}]" for step in field.path)
            lines.append(f"        {local} = {'c' if field.captured else 'f'}{path}")
        lines.append(f"        if {self._guard()}:")
        lines += [f"            {local} = {code}" for code, local in self._results.items()]
        if self._results:
            lines.append(f"            if ({' + '.join(self._results.values())}) * 0.0 == 0.0:")
            lines.append(f"                return {value}")
        else:
            lines.append(f"            return {value}")
        lines += ["    except (LookupError, TypeError, ArithmeticError):", "        pass", "    return exact(f, c)"]
        return "\n".join(lines) + "\n"

    def _guard(self) -> str:
        numbers = [local for local, kind in self._fields.values() if kind == "number"]
        parts = [f"({' + '.join(numbers)}) * 0.0 == 0.0"] if numbers else []
        parts += [f"{local} is not True and {local} is not False" for local in numbers]
        for local, kind in self._fields.values():
            if kind == "text":
                parts.append(f"{local}.__class__ is str")
            elif kind == "truth":
                parts.append(f"({local} is True or {local} is False)")
        return " and ".join(parts)

    def _code(self, node: Node, kind: str) -> str:
        """The node as one would write it by hand, given that its value has this kind."""
        if kind_of(node) not in {kind, None}:
            raise _OneWayOnly  # to Python 1 and true are one
        match node:
            case Literal(value):
                return repr(value)
            case Field():
                return self._field(node, kind)
            case Negative(operand):
                return f"(-{self._code(operand, 'number')})"
            case Arithmetic(op, left, right):
                code = f"{self._code(left, 'number')} {op} {self._code(right, 'number')}"
                return self._results.setdefault(code, f"n{len(self._results)}")
            case Compare(ops, operands):
                kinds = [kind_of(operand) for operand in operands if kind_of(operand)]
                ordered = any(op not in {"==", "!="} for op in ops)
                side = "number" if ordered else kinds[0] if kinds else None
                if side is None or (len(ops) > 1 and not ordered):
                    raise _OneWayOnly
                sides = [self._code(operand, side) for operand in operands]
                return "(" + sides[0] + "".join(f" {op} {b}" for op, b in zip(ops, sides[1:], strict=True)) + ")"
            case Among(item, options, negated):
                kinds = list({kind_of(option) for option in options})
                if len(kinds) > 1 or kinds[0] is None:
                    raise _OneWayOnly
                listed = ", ".join(repr(option.value) for option in options)
                return f"({self._code(item, kinds[0])} {'not in' if negated else 'in'} ({listed},))"
            case Logic(op, operands):
                return "(" + f" {op} ".join(self._code(operand, "truth") for operand in operands) + ")"
            case Not(operand):
                return f"(not {self._code(operand, 'truth')})"
            case Call(name, arguments) if name in _ALIKE:
                return f"{name}({', '.join(self._code(argument, 'number') for argument in arguments)})"
            case Choice(condition, then, otherwise):
                test = self._code(condition, "truth")
                return f"({self._code(then, kind)} if {test} else {self._code(otherwise, kind)})"
            case _:
                raise _OneWayOnly

    def _field(self, field: Field, kind: str) -> str:
        if any(isinstance(step, int) for step in field.path):  # a text can be indexed too
            raise _OneWayOnly
        local, known_kind = self._fields.setdefault(field, (f"v{len(self._fields)}", kind))
        if known_kind != kind:
            raise _OneWayOnly
        return local


def fields_of(node: Any) -> list[Field]:
    """Every field below a node, each once, in the order of reading."""
    if isinstance(node, Field):
        return [node]
    found: dict[Field, None] = {}
    if isinstance(node, tuple):  # all nodes are
        for part in node:
            found.update(dict.fromkeys(fields_of(part)))
    return list(found)

"""The grammar of expressions: a text in, a tree of ten node kinds out, or the column at which it is not one.

Python's own parser does the reading; nothing it returns is ever executed. Its tree is walked against an allow-list and
rebuilt from those of `nodes`, so that what has no node there cannot exist further on: `codegen` writes programs from
them alone.

Invariants:
- A source is at most `MAX_SOURCE` characters *before* the parser sees it, and its tree at most `MAX_NODES` nodes and
  `MAX_DEPTH` levels before anything recurses into it.
- Dots and brackets reach into payload fields, never into Python objects.
- What can never be true whatever a device sends (`temperature > "hot"`) is refused here, not unknown for ever.
"""

from __future__ import annotations

import ast
import difflib
import re
import warnings
from typing import TYPE_CHECKING

from gateway.config.scalars import Wrong, duration_s
from gateway.errors import GatewayError
from gateway.rules.expressions.nodes import (
    FUNCTIONS,
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
from gateway.rules.expressions.references import (
    DeviceReference,
    LatestReference,
    Span,
    VariableReference,
    WindowReference,
)
from gateway.rules.expressions.refusals import MISTAKES, PYTHON_WORDS, REFUSED
from gateway.rules.expressions.windows import AGGREGATES

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.rules.expressions.references import Reference

MAX_SOURCE = 1_000
MAX_NODES = 200
MAX_DEPTH = 40
_MAX_INTEGER = 2**63


class ExpressionError(GatewayError):
    """A text is no expression of the language.

    Attributes:
        column: where in the text, counting from 1.
    """

    def __init__(self, message: str, column: int) -> None:
        super().__init__(message)
        self.column = column


_ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Mod: "%"}
_COMPARE = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}

_LOOKUPS = frozenset({"device", "latest"})
_DURATION = re.compile(
    r"""'[^']*'|"[^"]*"|(?<![\w.])[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d|w)(?:[0-9]+(?:ms|s|m|h|d|w))*(?!\w)"""
)
"""Durations, and quoted texts so that what looks like one in them is passed over."""

_WANTS_NUMBERS = frozenset({"abs", "min", "max", "round", "floor", "ceil", "clamp"})


def parse(source: str, captures: Collection[str] = (), references: dict[str, Reference] | None = None) -> Node:
    """Read one expression.

    Args:
        source: the text; line ends count as spaces.
        captures: names that mean levels of the topic rather than fields of the event.
        references: takes up what the expression names beside the event, by its text, which stands as a field in the
            tree; None: it may name nothing else.

    Returns:
        The tree.

    Raises:
        ExpressionError: it is too long, no expression, or uses what the language does not have. Nothing else.
    """
    if len(source) > MAX_SOURCE:
        raise ExpressionError(f"an expression has at most {MAX_SOURCE} characters, this one has {len(source)}", 1)
    line = re.sub(r"[\r\n\t\f\v]", " ", source)
    for character, why in (("\\", "backslashes are not part of the language"), ("#", "`#` belongs into the YAML")):
        if character in line:
            raise ExpressionError(why, line.index(character) + 1)
    if not line.strip():
        raise ExpressionError("the expression is empty", 1)
    if foreign := re.search(r"\w*[^\x00-\x7f]\w*", _without_texts(line)):  # Python would normalise it behind our back
        raise ExpressionError(f'write `field("{foreign[0]}")` for names beyond ASCII', foreign.start() + 1)
    reader = _Reader(line, captures, references)
    tree = reader.tree()
    return reader.read(tree)


class _Reader:
    """Rebuilds Python's tree from allowed nodes."""

    def __init__(self, line: str, captures: Collection[str], references: dict[str, Reference] | None) -> None:
        self._indent = len(line) - len(line.lstrip())
        self._bytes = line.lstrip().encode("utf-8", "surrogatepass")
        # Python has no durations: a name of as many underscores, which no operator can write, stands in for each.
        self._line = _DURATION.sub(lambda found: "_" * len(found[0]) if found[0][0].isdigit() else found[0], line)
        self._durations = {
            len(line[self._indent : found.start()].encode("utf-8", "surrogatepass")): found[0]
            for found in _DURATION.finditer(line)
            if found[0][0].isdigit()
        }
        self._captures = captures
        self._references = references

    def tree(self) -> ast.expr:
        """Python's own tree, if it is small enough to be walked."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's advice on style is not ours to pass on
                tree = ast.parse(self._line.strip(), mode="eval").body
        except SyntaxError as error:
            raise self._syntax(error) from None
        except (ValueError, RecursionError, MemoryError, OverflowError):
            raise ExpressionError("this is not an expression", 1) from None
        nodes, level, depth = 0, [tree], 0
        while level:
            nodes += len(level)
            depth += 1
            if nodes > MAX_NODES or depth > MAX_DEPTH:
                raise ExpressionError(f"more than {MAX_NODES} parts or {MAX_DEPTH} levels: split the rule", 1)
            level = [child for node in level for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        return tree

    def _syntax(self, error: SyntaxError) -> ExpressionError:
        bare = _without_texts(self._line)
        for pattern, advice in MISTAKES:
            if found := pattern.search(bare):
                return ExpressionError(advice, found.start() + 1)
        length = len(self._line.strip())
        column = min(max(error.offset or length, 1), length) + self._indent
        return ExpressionError(f"not an expression: {error.msg}", column)

    def _refuse(self, node: ast.expr, why: str) -> ExpressionError:
        before = self._bytes[: node.col_offset].decode("utf-8", "replace")
        return ExpressionError(why, len(before) + 1 + self._indent)

    def _text(self, node: ast.expr) -> str:
        """What the operator wrote there."""
        return self._bytes[node.col_offset : node.end_col_offset].decode("utf-8", "replace")

    def read(self, node: ast.expr) -> Node:
        """One allowed node and all below it."""
        match node:
            case ast.Constant():
                return self._literal(node)
            case ast.Name() | ast.Attribute() | ast.Subscript():
                return self._field(node)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Not(self._wants(operand, "truth", "`not`"))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self._wants(operand, "number", "unary minus")
                if isinstance(inner, Literal) and isinstance(inner.value, int | float):
                    return Literal(-inner.value)
                return Negative(inner)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                sign = _ARITHMETIC[type(op)]
                a, b = (self._wants(side, "number", f"`{sign}`") for side in (left, right))
                return Arithmetic(sign, a, b)
            case ast.BoolOp(op=op, values=values):
                word = "and" if isinstance(op, ast.And) else "or"
                return Logic(word, tuple(self._wants(value, "truth", f"`{word}`") for value in values))
            case ast.Compare():
                return self._compare(node)
            case ast.Call():
                return self._call(node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return Choice(self._wants(test, "truth", "`if`"), self.read(body), self.read(orelse))
            case ast.BinOp(op=ast.Pow()):
                raise self._refuse(node, "`**` is not part of the language: multiply")
            case _:
                raise self._refuse(node, REFUSED.get(type(node), "this is not part of the language"))

    def _wants(self, node: ast.expr, kind: str, where: str) -> Node:
        inner = self.read(node)
        if kind_of(inner) not in {kind, None}:
            raise self._refuse(node, f"{where} needs a {kind}, and this is a {kind_of(inner)}")
        return inner

    def _literal(self, node: ast.Constant) -> Literal:
        value = node.value
        if value is True or value is False or value is None:
            raise self._refuse(node, f"write `{PYTHON_WORDS[str(value)]}`")
        if isinstance(value, int):
            if value > _MAX_INTEGER:
                raise self._refuse(node, "a whole number has at most 63 bits")
            return Literal(value)
        if isinstance(value, float):
            if value * 0.0 != 0.0:
                raise self._refuse(node, "this number is infinite")
            return Literal(value)
        if isinstance(value, str) and node.kind is None:
            return Literal(value)
        raise self._refuse(node, "a constant is a number, a text, true, false or null")

    def _field(self, node: ast.expr) -> Node:
        """A word, a capture, or a path such as `power.phases[0].watts`."""
        if isinstance(node, ast.Name) and node.id in _WORDS:
            return Literal(_WORDS[node.id])
        steps: list[str | int] = []
        inner = node
        while not isinstance(inner, ast.Name):
            if isinstance(inner, ast.Attribute):
                steps.append(self._name(inner, inner.attr))
                inner = inner.value
            elif isinstance(inner, ast.Subscript):
                steps.append(self._index(inner.slice))
                inner = inner.value
            elif isinstance(inner, ast.Call) and _name_of(inner) == "field":
                return Field((self._quoted(inner), *reversed(steps)), captured=False)
            elif isinstance(inner, ast.Call) and _name_of(inner) in _LOOKUPS:
                return self._refer(node, self._lookup(inner, self._text(node), tuple(reversed(steps))))
            else:
                raise self._refuse(node, "dots and brackets reach into fields of the event only")
        root = self._name(inner, inner.id)
        if root in _WORDS or root in FUNCTIONS or root == "field":
            raise self._refuse(inner, f'`{root}` is a word of the language; a field of that name is `field("{root}")`')
        if root in self._captures and not steps:
            return Field((root,), captured=True)
        return Field((root, *reversed(steps)), captured=False)

    def _name(self, node: ast.expr, name: str) -> str:
        if node.col_offset in self._durations:
            raise self._refuse(
                node, "a duration may only stand in a window such as `avg(x, 5m)`, or say how old a value may be"
            )
        if name.startswith("__"):
            raise self._refuse(node, "names do not begin with two underscores")
        return name

    def _index(self, node: ast.expr) -> str | int:
        match node:
            case ast.Constant(value=int() as index) if not isinstance(index, bool) and index < 2**31:
                return index
            case ast.Constant(value=str() as name, kind=None):
                return name
        raise self._refuse(node, "brackets take a whole number or a quoted name")

    def _quoted(self, node: ast.Call) -> str:
        match node:
            case ast.Call(args=[ast.Constant(value=str() as name, kind=None)], keywords=[]):
                return name
        raise self._refuse(node, '`field` takes one quoted name, as in `field("co2-level")`')

    def _compare(self, node: ast.Compare) -> Node:
        sides = [node.left, *node.comparators]
        if isinstance(node.ops[0], ast.In | ast.NotIn):
            if len(node.ops) > 1:
                raise self._refuse(node, "`in` does not chain: use `and`")
            options = self._options(node.comparators[0])
            return Among(self.read(node.left), options, isinstance(node.ops[0], ast.NotIn))
        if any(type(op) not in _COMPARE for op in node.ops):
            raise self._refuse(node, "compare with == != < <= > >= or `in`")
        ops = tuple(_COMPARE[type(op)] for op in node.ops)
        operands = tuple(self.read(side) for side in sides)
        if any(kind_of(operand) == "null" for operand in operands):
            return self._null_test(node, ops, operands)
        for op, left, right, side in zip(ops, operands, operands[1:], sides[1:], strict=False):
            kinds = {kind_of(left), kind_of(right)} - {None}
            if op not in {"==", "!="} and kinds - {"number"}:
                raise self._refuse(side, f"`{op}` orders numbers, and this is a {(kinds - {'number'}).pop()}")
            if len(kinds) > 1:
                one, other = sorted(map(str, kinds))
                raise self._refuse(side, f"this compares a {one} with a {other}: it can never be true")
        return Compare(ops, operands)

    def _null_test(self, node: ast.Compare, ops: tuple[str, ...], operands: tuple[Node, ...]) -> Node:
        if len(ops) > 1 or ops[0] not in {"==", "!="}:
            raise self._refuse(node, "`null` can only be asked for with == or !=")
        asked = operands[0] if kind_of(operands[1]) == "null" else operands[1]
        is_known = Call("known", (asked,))
        return is_known if ops[0] == "!=" else Not(is_known)

    def _options(self, node: ast.expr) -> tuple[Literal, ...]:
        if not isinstance(node, ast.List) or not node.elts:
            raise self._refuse(node, "`in` takes a list of constants in square brackets")
        options = [self.read(item) for item in node.elts]
        if not all(isinstance(option, Literal) and option.value is not None for option in options):
            raise self._refuse(node, "the list after `in` holds constants only")
        return tuple(option for option in options if isinstance(option, Literal))

    def _call(self, node: ast.Call) -> Node:
        if _name_of(node) == "field":
            return Field((self._quoted(node),), captured=False)
        name = _name_of(node)
        if name in AGGREGATES and (name not in FUNCTIONS or self._is_window(node)):
            return self._refer(node, self._window(node, name))
        if name == "var":
            return self._refer(node, VariableReference(self._text(node), self._quoted(node)))
        if name in _LOOKUPS:
            raise self._refuse(node, f"name the field, as in `{self._text(node)}.temperature`")
        if name not in FUNCTIONS:
            known = sorted({*FUNCTIONS, *AGGREGATES, *_LOOKUPS, "var"})
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean `{near[0]}`?" if near else "there are " + ", ".join(known)
            raise self._refuse(node, f"there is no such function: {hint}")
        fewest, most, _ = FUNCTIONS[name]
        if node.keywords or not fewest <= len(node.args) <= most:
            count = str(fewest) if fewest == most else f"{fewest} to {most}"
            raise self._refuse(node, f"`{name}` takes {count} arguments, without names")
        if name in _WANTS_NUMBERS:
            return Call(name, tuple(self._wants(argument, "number", f"`{name}`") for argument in node.args))
        return Call(name, tuple(self.read(argument) for argument in node.args))

    # References.

    def _refer(self, node: ast.expr, reference: Reference) -> Field:
        if self._references is None:
            raise self._refuse(
                node, f"`{reference.text}`: only rules may look beyond the event, and no window into another"
            )
        self._references[reference.text] = reference
        return Field((reference.text,), captured=False)

    def _is_window(self, node: ast.Call) -> bool:
        return any(argument.col_offset in self._durations for argument in node.args)

    def _window(self, node: ast.Call, name: str) -> WindowReference:
        match [*node.args]:
            case [*arguments, span, ast.Name(id="tumbling")] if span.col_offset in self._durations:
                tumbling = True
            case [*arguments, span] if span.col_offset in self._durations:
                tumbling = False
            case _:
                raise self._refuse(node, f"write `{name}(x, 5m)`, or `{name}(x, 5m, tumbling)`")
        if len(arguments) != 1 and (arguments or name != "count"):
            raise self._refuse(node, f"`{name}` takes one expression and a duration, as in `{name}(x, 5m)`")
        outside, self._references = self._references, None
        try:
            kind = "truth" if name == "count" else "number"
            argument = None
            if arguments:
                argument = self.read(arguments[0]) if name == "count" else self._wants(arguments[0], kind, f"`{name}`")
        finally:
            self._references = outside
        return WindowReference(self._text(node), name, argument, Span(self._duration_ns(span), tumbling))

    def _lookup(self, node: ast.Call, text: str, path: tuple[str | int, ...]) -> Reference:
        name, age_ns = _name_of(node), None
        match [*node.args]:
            case [ast.Constant(value=str() as quoted, kind=None)]:
                pass
            case [ast.Constant(value=str() as quoted, kind=None), age] if age.col_offset in self._durations:
                age_ns = self._duration_ns(age)
            case _:
                raise self._refuse(node, f'write `{name}("...").field`, or `{name}("...", 30m).field`')
        if node.keywords or not quoted:
            raise self._refuse(node, f"`{name}` takes a quoted name, and a duration if you like")
        if name == "device":
            if set(quoted) & set("/+#{}"):
                raise self._refuse(node, "a device is one level of a topic: use `latest` for a topic")
            return DeviceReference(text, quoted, path, age_ns)
        if set(quoted) & set("+#"):
            raise self._refuse(node, "`latest` takes one topic, without wildcards; captured levels are fine")
        for capture in re.findall(r"\{([^}]*)\}", quoted):
            if capture not in self._captures or capture == "topic":
                raise self._refuse(node, f"`{{{capture}}}` is no level that this rule captures")
        return LatestReference(text, quoted, path, age_ns)

    def _duration_ns(self, node: ast.expr) -> int:
        seconds = duration_s(self._durations[node.col_offset])
        if isinstance(seconds, Wrong):
            raise self._refuse(node, str(seconds))
        if seconds <= 0:
            raise self._refuse(node, "this must be longer than zero")
        return round(seconds * 1e9)


def _name_of(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _without_texts(line: str) -> str:
    """The line with its quoted parts blanked, so that columns stay."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", lambda quoted: " " * len(quoted[0]), line)

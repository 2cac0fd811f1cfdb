"""What an expression must not be able to do (R9): known ways out of other sandboxes, and noise."""

from __future__ import annotations

import random
import string

import pytest

from gateway.rules.expressions.expression import ExpressionError, compile_condition, compile_value
from gateway.rules.expressions.grammar import FUNCTIONS
from gateway.rules.expressions.template import compile_template, compile_topic

_BUILTINS = (
    "eval exec compile open input print getattr setattr delattr hasattr vars dir globals locals type object super "
    "isinstance issubclass callable id hash help breakpoint exit quit memoryview bytearray bytes str int float bool "
    "list dict set tuple frozenset range slice zip map filter iter next sorted reversed enumerate sum any all pow "
    "divmod bin hex oct chr ord ascii repr format classmethod staticmethod property __import__ __build_class__"
)
_DUNDERS = (
    "__class__ __bases__ __base__ __mro__ __subclasses__ __globals__ __builtins__ __dict__ __code__ __closure__ "
    "__init__ __new__ __reduce__ __reduce_ex__ __getattribute__ __getattr__ __setattr__ __import__ __loader__ __spec__ "
    "__self__ __func__ __module__ __name__ __qualname__ __annotations__ __wrapped__ __call__ __format__ __doc__"
)
_NEVER = [
    "(lambda: 1)()",
    "lambda x: x",
    "[x for x in a]",
    "{x for x in a}",
    "{x: 1 for x in a}",
    "(x for x in a)",
    "[x async for x in a]",
    "(x := 5) > 1",
    'f"{a}" == "x"',
    'f"{a.__class__}"',
    'f"{a!r:>{b}}"',
    '"%s" % a',
    '"{0.__class__}".format(a)',
    '"a" * 1000000000',
    '"a" + "b"',
    "'a' 'b'.join(c)",
    "9 ** 9 ** 9",
    "a ** b",
    "2 << 100000",
    "1 >> a",
    "a & b",
    "a | b",
    "a ^ b",
    "~a",
    "+a",
    "a // b",
    "a @ b",
    "a is b",
    "a is not b",
    "a is null",
    "a in b",
    "a in 'text'",
    "a in (1, 2)",
    "a in {1, 2}",
    "a in [b]",
    "a in []",
    "a in [[1]]",
    "a in [null]",
    "[1, 2]",
    "[1][0]",
    "(1, 2)",
    "{1, 2}",
    "{}",
    "{'a': 1}",
    "{**a}",
    "[*a]",
    "f(*a)",
    "abs(*a)",
    "max(**a)",
    "max(a, default=1)",
    "round(a, ndigits=1)",
    "round(number=a)",
    "abs",
    "abs.__self__",
    "abs(a).real",
    "abs(a)[0]",
    "(a + b).real",
    "(a).b()",
    "a.b()",
    "a['b']()",
    "a()()",
    "abs(a)(b)",
    "a[b]",
    "a[1:2]",
    "a[-1]",
    "a[1, 2]",
    "a[...]",
    "a[true]",
    "a[1.5]",
    "a[None]",
    "a[f'x']",
    "a[b'x']",
    "a[(yield)]",
    "...",
    "Ellipsis(1)",
    "1j",
    "1 + 2j > 0",
    "b'x'",
    "u'x' == a",
    "rb'x'",
    "'\\x41' == a",
    "'\\N{BULLET}'",
    "r'\\'",
    "yield",
    "(yield a)",
    "yield from a",
    "await a",
    "(await a)",
    "a; b",
    "a\0b",
    "a = 1",
    "a += 1",
    "del a",
    "import os",
    "from os import system",
    "pass",
    "raise a",
    "assert a",
    "return a",
    "if a: b",
    "while true: a",
    "class a: b",
    "def a(): b",
    "@a",
    "global a",
    "print a",
    "a > 1 # and b",
    "a > 1 \\\n and b",
    "`a`",
    "a <> b",
    "a ? b : c",
    "$a",
    "True",
    "False",
    "None",
    "not None",
    "true()",
    "null.a",
    "true.real",
    "'a'.upper()",
    "'a'.x",
    "'a'[0]",
    "(1).x",
    "1 .real",
    "1..real",
    "field(a)",
    "field('a', 'b')",
    "field()",
    "field(b'a')",
    "field('a')()",
    "field",
    "field.a",
    "min(a)",
    "min([1, 2])",
    "len()",
    "known",
    "9223372036854775809",
    "1e400",
    "-" * 900 + "1",
    "not " * 240 + "a",
    "(" * 300 + "a" + ")" * 300,
    "a" + ".a" * 300,
    "a" + "[0]" * 250,
    "a" + " + a" * 240,
    "a < " * 220 + "a",
    "a if a else " * 80 + "a",
    "[" * 500,
    "\u202e a > 1",
    "\uff41\uff42\uff53(a)",
    "\u2160 > 1",
    "ab\u0301s(a)",
    "\ud800 > 1",
    "'\ud800' == 1 +",
    "\ufeff\ufeffa",
    "\x0c\x1c\x1d\x85",
    "type('x', (), {})",
    "''.__class__.__mro__[1].__subclasses__()",
    "(1).__class__.__bases__[0]",
    "a.__class__.__init__.__globals__['os'].system('id')",
    "[].append.__self__",
    "max(a, key=lambda x: x)",
    "().__reduce_ex__(2)",
    "a.f_globals()",
    "__builtins__['eval']",
    "__builtins__.open",
    "exec('import os')",
    "open('/etc/passwd').read()",
    "a.format(b)",
    "a.format_map(b)",
    "'{a.__init__.__globals__}'.format_map(a)",
]
ESCAPES = sorted(
    {
        *_NEVER,
        *(f"{name}(a)" for name in _BUILTINS.split()),
        *(f"{name}()" for name in _BUILTINS.split()),
        *(f"a.{name}" for name in _DUNDERS.split()),
        *(f"{name} == 1" for name in _DUNDERS.split()),
        *(f"'x'.{name}" for name in _DUNDERS.split()),
        *(f"abs(a).{name}()" for name in _DUNDERS.split()),
    }
)


def test_there_are_enough_escapes():
    """The table has at least the 250 that R9 asks for."""
    assert len(ESCAPES) >= 250


@pytest.mark.parametrize("source", ESCAPES, ids=range(len(ESCAPES)))
def test_an_escape_is_refused_at_load(source):
    """Nothing but the language gets in, and nothing but ExpressionError comes out."""
    with pytest.raises(ExpressionError) as caught:
        compile_value(source)
    assert 1 <= caught.value.column <= max(len(source), 1)


@pytest.mark.parametrize("name", ["eval", "a.__class__", "().x", "open('x')", "lambda: 1", "device.__class__"])
def test_no_escape_hides_in_a_template(name):
    """Templates hold the same expressions, under the same law."""
    with pytest.raises(ExpressionError):
        compile_template("x {" + name + "(1)}")
    with pytest.raises(ExpressionError):
        compile_topic("a/{" + name + "}", ("device",))


_PIECES = [
    *FUNCTIONS,
    *("a", "b", "device", "field", "true", "false", "null", "None", "and", "or", "not", "in", "is", "if", "else"),
    *("lambda", "for", "await", "yield", "**", "//", "<=", ">=", "==", "!=", ":=", "\n", "\t"),
    *"+-*/%<>=()[]{},.:;@&|^~!?$#\\'\"`",
    *["1", "0", "1.5", "1e308", "9" * 18, "1_0", "0x1f", "'x'", '"y"', "__class__", "f'{a}'", "b''", "é", "\0", " "],
]
_PAYLOADS = [
    *[None, True, 0, -1, 2**63, 10**300, 1.5, float("nan"), float("inf"), -0.0, "", "x", [], [1, "x"], {}, {"b": 2}],
]


def test_whatever_compiles_evaluates_without_raising(seed):
    """Random token soup against random payloads: only ExpressionError at load, nothing at all when evaluating."""
    rng = random.Random(seed)
    compiled = 0
    for round_ in range(20_000):
        if round_ % 4 == 0:
            source = "".join(rng.choice(string.printable) for _ in range(rng.randrange(20)))
        else:
            source = " ".join(rng.choice(_PIECES) for _ in range(rng.randrange(1, 9)))
        try:
            evaluate = compile_condition(source, ("device",)).evaluate
        except ExpressionError:
            continue
        compiled += 1
        for _ in range(4):
            fields = {name: rng.choice(_PAYLOADS) for name in "ab" if rng.random() < 0.9}
            assert evaluate(fields, {"device": "x"}) in {True, False, None}
    assert compiled > 100

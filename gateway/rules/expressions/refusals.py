"""What an expression may not hold, and what an operator who wrote it is told: words of Python, and slips of the pen."""

from __future__ import annotations

import ast
import re

PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
"""What the language writes in small letters."""

REFUSED = {
    ast.Lambda: "functions cannot be defined in an expression",
    ast.JoinedStr: "f-strings are not part of the language",
    ast.NamedExpr: "`:=` is not part of the language",
    ast.ListComp: "comprehensions are not part of the language",
    ast.SetComp: "comprehensions are not part of the language",
    ast.DictComp: "comprehensions are not part of the language",
    ast.GeneratorExp: "comprehensions are not part of the language",
    ast.List: "a list may only stand after `in`",
    ast.Tuple: "a list may only stand after `in`, in square brackets",
    ast.Set: "write the list after `in` in square brackets",
    ast.Dict: "mappings are not part of the language",
    ast.Await: "`await` is not part of the language",
    ast.Yield: "`yield` is not part of the language",
    ast.YieldFrom: "`yield` is not part of the language",
    ast.Starred: "`*` may not unpack",
}
"""Parts of Python's grammar that are not part of the language."""

MISTAKES = (
    (re.compile(r"(?<![=!<>])=(?!=)"), "`=` assigns nothing here: compare with `==`"),
    (re.compile(r"&&"), "write `and` for `&&`"),
    (re.compile(r"\|\|"), "write `or` for `||`"),
    (re.compile(r"!(?!=)"), "write `not` for `!`"),
)
"""What is no expression at all, by how it is recognised."""

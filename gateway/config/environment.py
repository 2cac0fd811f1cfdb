"""`${NAME}` in the values of a configuration: what the environment says, put in before anything is read.

Invariants:
- Every value of the file may hold references, keys never do. What comes in is text: it is not read as YAML, so that a
  password made of digits stays a password.
- `$${` stands for `${`. A variable that is not set is a problem at its place; one that is set to nothing is nothing.
- `Scalar.raw` keeps what stands in the file. Messages show that, so that no secret is ever part of one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.config.document import Mapping, Node, Problems, Scalar, Sequence, cut

if TYPE_CHECKING:
    from collections.abc import Mapping as Variables

_REFERENCE = re.compile(r"\$?\$\{([^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPED = "$${"
_UNDECODED = re.compile("[\ud800-\udfff]")  # how Python shows bytes of the environment that are not UTF-8


def resolve(node: Node, variables: Variables[str, str], problems: Problems) -> Node:
    """The same tree with every reference replaced; problems are noted, and what is wrong becomes empty."""
    if isinstance(node, Mapping):
        return replace(node, items={key: resolve(value, variables, problems) for key, value in node.items.items()})
    if isinstance(node, Sequence):
        return replace(node, items=tuple(resolve(item, variables, problems) for item in node.items))
    if isinstance(node.value, str) and "${" in node.value:
        return replace(node, value=_filled(node, node.value, variables, problems))
    return node


def has_reference(node: Node | None) -> bool:
    """Whether part of a value comes from the environment."""
    return isinstance(node, Scalar) and any(not each[0].startswith(_ESCAPED) for each in _REFERENCE.finditer(node.raw))


def _filled(node: Scalar, text: str, variables: Variables[str, str], problems: Problems) -> str:
    def fill(reference: re.Match[str]) -> str:
        if reference[0].startswith(_ESCAPED):
            return reference[0][1:]
        name = reference[1]
        if not reference[0].endswith("}"):
            problems.settle(node.mark, "`${` without `}`; write ${NAME}, or $${ for the characters themselves")
        elif _NAME.fullmatch(name) is None:
            problems.settle(node.mark, f"`${{{cut(name)}}}` does not name an environment variable; write ${{NAME}}")
        elif name not in variables:
            problems.settle(node.mark, f"the environment variable {cut(name)} is not set")
        elif _UNDECODED.search(variables[name]):
            problems.settle(node.mark, f"the environment variable {name} is not UTF-8")
        else:
            return variables[name]
        return ""

    return _REFERENCE.sub(fill, text)

"""A mapping that is being taken apart, key by key, by code that reads like the documentation of its keys.

Every accessor notes a problem and returns its default if the value is wrong, so that one run finds them all. Accessors
without `required` return `default` when the key is absent; with `required=True` an absent key is a problem. `done()`
turns keys that nobody asked for into problems with a suggestion.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, TypeVar

from gateway.config import scalars
from gateway.config.document import Mapping, Mark, Node, Problems, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Quantity = TypeVar("_Quantity", int, float)


def did_you_mean(word: str, among: tuple[str, ...] | list[str]) -> str:
    """`; did you mean ...?`, or nothing if no word is near."""
    near = difflib.get_close_matches(word, among, n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else ""


class Section:
    """One mapping and the keys that have been asked for. See the module."""

    def __init__(self, node: Node | None, problems: Problems, where: Mark) -> None:
        """See the module.

        Args:
            node: what stands there; anything but a mapping (or nothing) is noted as a problem.
            problems: where problems go.
            where: the place to name if `node` is None.
        """
        self.mark = node.mark if node is not None else where
        self.problems = problems
        self._asked: dict[str, None] = {}
        self._node = node if isinstance(node, Mapping) else Mapping({}, {}, self.mark)
        if node is not None and not isinstance(node, Mapping) and not _is_nothing(node):
            problems.add(node.mark, f"a mapping (key: value) is expected here, not {_kind(node)}")

    def has(self, key: str) -> bool:
        """Whether the key is there (does not count as asking for it)."""
        return key in self._node.items

    def names(self) -> list[str]:
        """Every key, in file order; counts as asking for them all."""
        self._asked.update(dict.fromkeys(self._node.items))
        return list(self._node.items)

    def at(self, key: str) -> Mark:
        """Where the key's value stands, or the section itself if it is absent."""
        node = self._node.items.get(key)
        return node.mark if node is not None else self.mark

    def node(self, key: str, *, required: bool = False) -> Node | None:
        """The raw node, for values of more than one shape."""
        self._asked[key] = None
        node = self._node.items.get(key)
        if node is None and required:
            self.problems.add(self.mark, f"`{key}` is missing")
        return node

    def text(self, key: str, default: str = "", *, required: bool = False, pattern: str | None = None) -> str:
        """A string. A number or boolean there is a problem that says: quote it."""
        node = self._scalar(key, required=required)
        if node is None:
            return default
        value = node.value
        if not isinstance(value, str):
            shown = _shown(value).strip("`")
            self.problems.add(node.mark, f'`{key}` is a text; quote it: "{shown}"')
            return default
        if pattern is not None and re.fullmatch(pattern, value) is None:
            self.problems.add(node.mark, f"`{key}: {value}` must match {pattern}")
            return default
        if required and not value:
            self.problems.add(node.mark, f"`{key}` is empty")
        return value

    def number(
        self,
        key: str,
        default: float | None = None,
        *,
        required: bool = False,
        least: float | None = None,
        most: float | None = None,
    ) -> float | None:
        """A finite number (not a boolean, not `.nan`, not `.inf`), within bounds."""
        node = self._scalar(key, required=required)
        if node is None:
            return default
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.problems.add(node.mark, f"`{key}` is a number, not {_shown(value)}")
            return default
        if not math.isfinite(value):
            self.problems.add(node.mark, f"`{key}` is a finite number")
            return default
        return value if self._within(node, key, value, least, most) else default

    def integer(
        self,
        key: str,
        default: int | None = None,
        *,
        required: bool = False,
        least: int | None = None,
        most: int | None = None,
    ) -> int | None:
        """A whole number within bounds."""
        node = self._scalar(key, required=required)
        if node is None:
            return default
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int):
            self.problems.add(node.mark, f"`{key}` is a whole number, not {_shown(value)}")
            return default
        return value if self._within(node, key, value, least, most) else default

    def boolean(self, key: str, default: bool = False) -> bool:  # noqa: FBT001, FBT002 - reads as the key's value
        """`true` or `false`."""
        node = self._scalar(key, required=False)
        if node is None:
            return default
        if not isinstance(node.value, bool):
            self.problems.add(node.mark, f"`{key}` is true or false, not {_shown(node.value)}")
            return default
        return node.value

    def choice(
        self, key: str, among: tuple[str, ...], default: str | None = None, *, required: bool = False
    ) -> str | None:
        """One of the given words; otherwise a problem with a suggestion."""
        node = self._scalar(key, required=required)
        if node is None:
            return default
        if node.value not in among:
            hint = did_you_mean(node.value, among) if isinstance(node.value, str) else ""
            listed = ", ".join(among)
            self.problems.add(node.mark, f"`{key}` is one of {listed}, not {_shown(node.value)}{hint}")
            return default
        assert isinstance(node.value, str), "choices are words"
        return node.value

    def duration_s(self, key: str, default: float | None = None, *, required: bool = False) -> float | None:
        """`250ms`, `90s`, `5m`, `1h30m`, `7d` or `"00:05:00"`, in seconds. A bare number is a problem that says so."""
        return self._quantity(key, default, scalars.duration_s, required=required)

    def size_bytes(self, key: str, default: int | None = None, *, required: bool = False) -> int | None:
        """`64KiB`, `8MiB`, `1GiB` (also `kB`, `MB`, `GB`), in bytes. A bare number is a problem that says so."""
        return self._quantity(key, default, scalars.size_bytes, required=required)

    def section(self, key: str, *, required: bool = False) -> Section | None:
        """A mapping below; None if the key is absent."""
        node = self.node(key, required=required)
        return Section(node, self.problems, node.mark) if node is not None else None

    def each(self, key: str, *, required: bool = False) -> Iterator[Node]:
        """The items of a list below; a single item that is no list counts as a list of one."""
        node = self.node(key, required=required)
        if isinstance(node, Sequence):
            yield from node.items
        elif node is not None and not _is_nothing(node):
            yield node

    def done(self) -> None:
        """Note every key that was never asked for."""
        known = list(self._asked)
        for key, mark in self._node.key_marks.items():
            if key not in self._asked:
                hint = did_you_mean(key, known) or f"; known here: {', '.join(sorted(known))}"
                self.problems.add(mark, f"unknown key `{key}`{hint}")

    def _scalar(self, key: str, *, required: bool) -> Scalar | None:
        node = self.node(key, required=required)
        if node is None or isinstance(node, Scalar):
            return node
        self.problems.add(node.mark, f"`{key}` is a single value, not {_kind(node)}")
        return None

    def _quantity(
        self,
        key: str,
        default: _Quantity | None,
        read: Callable[[str | bool | int | float | None], _Quantity | scalars.Wrong],
        *,
        required: bool,
    ) -> _Quantity | None:
        node = self._scalar(key, required=required)
        if node is None:
            return default
        value = read(node.value)
        if isinstance(value, scalars.Wrong):
            self.problems.add(node.mark, f"`{key}`: {value.message}")
            return default
        return value

    def _within(self, node: Node, key: str, value: float, least: float | None, most: float | None) -> bool:
        if (least is None or value >= least) and (most is None or value <= most):
            return True
        bounds = [f"at least {least:g}" if least is not None else "", f"at most {most:g}" if most is not None else ""]
        self.problems.add(node.mark, f"`{key}` is {' and '.join(filter(None, bounds))}, not {value:g}")
        return False


def _is_nothing(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _kind(node: Node) -> str:
    if isinstance(node, Sequence):
        return "a list"
    return "a mapping" if isinstance(node, Mapping) else _shown(node.value)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "nothing" if value is None else f"`{value}`"

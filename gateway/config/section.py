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
from gateway.config.document import Mapping, Mark, Node, Problems, Scalar, Sequence, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Quantity = TypeVar("_Quantity", int, float)
_LONGEST_WORD = 64


def did_you_mean(word: str, among: tuple[str, ...] | list[str]) -> str:
    """`; did you mean ...?`, or nothing if no word is near."""
    if len(word) > _LONGEST_WORD:
        return ""
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

    def shown(self, key: str) -> str:
        """The key's value for a message: as it stands in the file, so that nothing from the environment is told."""
        node = self._node.items.get(key)
        return cut(node.raw) if isinstance(node, Scalar) else ""

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
        if value is None or (required and value == ""):
            self.problems.add(node.mark, f"`{key}` is empty")
            return default
        if not isinstance(value, str):
            self.problems.add(node.mark, f'`{key}` is a text; quote it: "{cut(node.raw)}"')
            return default
        if pattern is not None and re.fullmatch(pattern, value) is None:
            self.problems.add(node.mark, f"`{key}: {cut(node.raw)}` must match {pattern}")
            return default
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
            self.problems.add(node.mark, f"`{key}` is a number, not {_shown(node)}")
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
            self.problems.add(node.mark, f"`{key}` is a whole number, not {_shown(node)}")
            return default
        return value if self._within(node, key, value, least, most) else default

    def boolean(self, key: str, default: bool = False) -> bool:  # noqa: FBT001, FBT002 - reads as the key's value
        """`true` or `false`."""
        node = self._scalar(key, required=False)
        if node is None:
            return default
        if not isinstance(node.value, bool):
            self.problems.add(node.mark, f"`{key}` is true or false, not {_shown(node)}")
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
            self.problems.add(node.mark, f"`{key}` is one of {listed}, not {_shown(node)}{hint}")
            return default
        assert isinstance(node.value, str), "choices are words"
        return node.value

    def duration_s(
        self,
        key: str,
        default: float | None = None,
        *,
        required: bool = False,
        least_s: float | None = None,
        most_s: float | None = None,
    ) -> float | None:
        """`250ms`, `90s`, `5m`, `1h30m`, `7d` or `"00:05:00"`, in seconds. A bare number is a problem that says so."""
        found = self._quantity(key, scalars.duration_s, required=required)
        if found is None:
            return default
        node, value_s = found
        return value_s if self._within(node, key, value_s, least_s, most_s, scalars.duration_text) else default

    def size_bytes(
        self,
        key: str,
        default: int | None = None,
        *,
        required: bool = False,
        least_bytes: int | None = None,
        most_bytes: int | None = None,
    ) -> int | None:
        """`64KiB`, `8MiB`, `1GiB` (also `kB`, `MB`, `GB`), in bytes. A bare number is a problem that says so."""
        found = self._quantity(key, scalars.size_bytes, required=required)
        if found is None:
            return default
        node, value = found
        return value if self._within(node, key, value, least_bytes, most_bytes, scalars.size_text) else default

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
                self.problems.add(mark, f"unknown key `{cut(key)}`{hint}")

    def _scalar(self, key: str, *, required: bool) -> Scalar | None:
        node = self.node(key, required=required)
        if node is None or isinstance(node, Scalar):
            return node
        self.problems.add(node.mark, f"`{key}` is a single value, not {_kind(node)}")
        return None

    def _quantity(
        self,
        key: str,
        read: Callable[[str | bool | int | float | None], _Quantity | scalars.Wrong],
        *,
        required: bool,
    ) -> tuple[Scalar, _Quantity] | None:
        node = self._scalar(key, required=required)
        if node is None:
            return None
        value = read(node.value)
        if isinstance(value, scalars.Wrong):
            # A text is shown as well; a number stands in the message already, as what it might have meant.
            shown = f" `{cut(node.raw)}`;" if isinstance(node.value, str) else ""
            self.problems.add(node.mark, f"`{key}`:{shown} {value.message}")
            return None
        return node, value

    def _within(
        self,
        node: Scalar,
        key: str,
        value: _Quantity,
        least: _Quantity | None,
        most: _Quantity | None,
        shown: Callable[[_Quantity], str] = "{:g}".format,
    ) -> bool:
        if (least is None or value >= least) and (most is None or value <= most):
            return True
        bounds = [
            f"at least {shown(least)}" if least is not None else "",
            f"at most {shown(most)}" if most is not None else "",
        ]
        self.problems.add(node.mark, f"`{key}` is {' and '.join(filter(None, bounds))}, not {cut(node.raw)}")
        return False


def _is_nothing(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _kind(node: Node) -> str:
    if isinstance(node, Sequence):
        return "a list"
    return "a mapping" if isinstance(node, Mapping) else _shown(node)


def _shown(node: Scalar) -> str:
    if node.value is None:
        return "nothing"
    if isinstance(node.value, str) and not isinstance(scalars.plain_scalar(node.raw), str):
        return f'the text "{cut(node.raw)}"; take the quotes away'
    return f"`{cut(node.raw)}`"

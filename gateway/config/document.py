"""A YAML document whose every value knows where it stands, read with YAML 1.2 core scalars.

`parse` gives a tree of `Scalar`, `Sequence` and `Mapping`, each with its `Mark`. `Section` takes a mapping apart key by
key; whatever is wrong goes into `Problems` with its place, and reading goes on, so that the operator sees every problem
at once. Shared by the configuration and by the rule files.

Invariants:
- `on`, `off`, `yes`, `no`, `12:30`, `0o17`-less `010`, `1_000` and dates are strings: only `true`, `false`, `null`,
  decimal integers and floats (with `.inf`, `.nan`) are anything else (YAML 1.2.2, 10.3.2 core schema).
- Duplicate keys, aliases, tags, a second document and unknown keys are problems, never surprises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Mark(NamedTuple):
    """A place in a file; line and column count from 1."""

    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A plain or quoted value: str, bool, int, float or None."""

    value: str | bool | int | float | None
    mark: Mark


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    mark: Mark


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping, in file order; `key_marks` says where each key stands."""

    items: dict[str, Node]
    key_marks: dict[str, Mark]
    mark: Mark


Node: TypeAlias = Scalar | Sequence | Mapping


class Problems:
    """Collects everything that is wrong, with its place."""

    def __init__(self) -> None:
        self._found: list[tuple[Mark, str]] = []

    def add(self, mark: Mark, message: str) -> None:
        """Note one problem."""
        self._found.append((mark, message))

    def __bool__(self) -> bool:
        return bool(self._found)

    def lines(self) -> list[str]:
        """Every problem as `path:line:column: message`, in file order."""
        return [f"{mark}: {message}" for mark, message in sorted(self._found)]

    def raise_if_any(self) -> None:
        """Raise what was found.

        Raises:
            ConfigError: if there is at least one problem.
        """
        if self._found:
            raise ConfigError(self.lines())


def parse(text: str, path: str, problems: Problems) -> Node | None:
    """Read one YAML document. None if it is so broken that there is no tree; `problems` says why."""
    raise NotImplementedError


def parse_file(path: Path, problems: Problems) -> Node | None:
    """`parse` on a file: UTF-8, BOM allowed, at most 1 MiB."""
    raise NotImplementedError


def plain(node: Node) -> object:
    """The same tree as dicts, lists and scalars, without places."""
    raise NotImplementedError


class Section:
    """A mapping that is being taken apart. Every accessor notes a problem and returns its default if the value is wrong.

    Accessors without `required` return `default` when the key is absent. With `required=True` an absent key is a problem.
    `done()` turns keys that nobody asked for into problems with a suggestion ("did you mean `threshold`?").
    """

    def __init__(self, node: Node | None, problems: Problems, where: Mark) -> None:
        """Args: node: what stands there; anything but a mapping is noted as a problem. where: used if node is None."""
        raise NotImplementedError

    mark: Mark
    problems: Problems

    def has(self, key: str) -> bool:
        """Whether the key is there (does not count as asking for it)."""
        raise NotImplementedError

    def at(self, key: str) -> Mark:
        """Where the key's value stands, or the section itself if it is absent."""
        raise NotImplementedError

    def node(self, key: str, *, required: bool = False) -> Node | None:
        """The raw node, for values of more than one shape."""
        raise NotImplementedError

    def text(self, key: str, default: str = "", *, required: bool = False, pattern: str | None = None) -> str:
        """A string. A number or boolean there is a problem that says: quote it."""
        raise NotImplementedError

    def number(self, key: str, default: float | None = None, *, required: bool = False,
               least: float | None = None, most: float | None = None) -> float | None:
        """A finite number (not a boolean, not `.nan`, not `.inf`), within bounds."""
        raise NotImplementedError

    def integer(self, key: str, default: int | None = None, *, required: bool = False,
                least: int | None = None, most: int | None = None) -> int | None:
        """A whole number within bounds."""
        raise NotImplementedError

    def boolean(self, key: str, default: bool = False) -> bool:  # noqa: FBT001, FBT002 - reads as the key's value
        """`true` or `false`."""
        raise NotImplementedError

    def choice(self, key: str, among: tuple[str, ...], default: str | None = None, *, required: bool = False) -> str | None:
        """One of the given words; otherwise a problem with a suggestion."""
        raise NotImplementedError

    def duration_s(self, key: str, default: float | None = None, *, required: bool = False) -> float | None:
        """`250ms`, `90s`, `5m`, `1h30m`, `7d` or `"00:05:00"`, in seconds. A bare number is a problem that says so."""
        raise NotImplementedError

    def size_bytes(self, key: str, default: int | None = None, *, required: bool = False) -> int | None:
        """`64KiB`, `8MiB`, `1GiB` (also `kB`, `MB`, `GB`), in bytes. A bare number is a problem that says so."""
        raise NotImplementedError

    def section(self, key: str, *, required: bool = False) -> Section | None:
        """A mapping below."""
        raise NotImplementedError

    def each(self, key: str, *, required: bool = False) -> Iterator[Node]:
        """The items of a list below; a single item that is no list counts as a list of one."""
        raise NotImplementedError

    def done(self) -> None:
        """Note every key that was never asked for."""
        raise NotImplementedError

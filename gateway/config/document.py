"""A YAML document whose every value knows where it stands, read with YAML 1.2 core scalars.

`parse` gives a tree of `Scalar`, `Sequence` and `Mapping`, each with its `Mark`. `gateway.config.section.Section` takes
a mapping apart key by key; whatever is wrong goes into `Problems` with its place, and reading goes on, so that the
operator sees every problem at once. Shared by the configuration and by the rule files.

Invariants:
- Only `true`, `false`, `null`, decimal numbers, `.inf` and `.nan` are anything but strings (see `scalars`).
- Duplicate keys, anchors, aliases, tags and a second document are problems, never surprises.
- Size, depth and number of values are bounded before anything is built: no file can exhaust the machine.
- Whatever the bytes, `parse_file` gives a tree or a problem. It raises nothing.
- A problem is one line of printable characters, so that no file can write to the terminal or forge a log line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import yaml

from gateway.config.scalars import plain_scalar
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 50
MAX_NODES = 50_000
_SHOWN_CHARACTERS = 80
_SURROGATE = re.compile("[\ud800-\udfff]")


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
    raw: str = ""
    """As it stands in the file. Messages show this, never `value`: that may hold a secret from the environment."""


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
        self._settled: set[Mark] = set()

    def add(self, mark: Mark, message: str) -> None:
        """Note one problem."""
        if mark not in self._settled:
            self._found.append((mark, _printable(message)))

    def settle(self, mark: Mark, message: str) -> None:
        """Note a problem that leaves a value unknown: what else seems wrong with it only follows from that."""
        self.add(mark, message)
        self._settled.add(mark)

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
    start = Mark(path, 1, 1)
    if len(text) > MAX_BYTES:
        problems.add(start, f"larger than {MAX_BYTES} bytes")
        return None
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        problems.add(Mark(path, line, column), f"a character that YAML does not allow: U+{int(error.character):04X}")
        return None
    try:
        return _Builder(path, problems).document(_events(loader))
    except yaml.MarkedYAMLError as error:
        problems.add(_mark(path, error.problem_mark or error.context_mark), _sentence(error))
    except _GaveUpError as error:
        problems.add(error.mark, str(error))
    except RecursionError:
        problems.add(start, f"nested deeper than {MAX_DEPTH} levels")
    except (ValueError, OverflowError):
        # PyYAML's scanner lets these through from chr() and int(): an escape or a version number out of all range.
        problems.add(_mark(path, loader.get_mark()), "not valid YAML: a number that is out of range")
    finally:
        loader.dispose()
    return None


def parse_file(path: Path, problems: Problems) -> Node | None:
    """`parse` on a file: UTF-8, BOM allowed, at most 1 MiB."""
    start = Mark(str(path), 1, 1)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        problems.add(start, f"cannot be read: {error.strerror}")
        return None
    if len(data) > MAX_BYTES:
        problems.add(start, f"larger than {MAX_BYTES} bytes")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        problems.add(Mark(str(path), line, column), "not UTF-8; save the file as UTF-8")
        return None
    return parse(text, str(path), problems)


def plain(node: Node) -> object:
    """The same tree as dicts, lists and scalars, without places."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.value


def cut(text: str, most: int = _SHOWN_CHARACTERS) -> str:
    """A value from a file, short enough for a message: at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


class _GaveUpError(Exception):
    """The document is refused as a whole."""

    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(message)
        self.mark = mark


def _events(loader: yaml.SafeLoader) -> Iterator[yaml.Event]:
    while loader.check_event():
        yield loader.get_event()  # type: ignore[no-untyped-call] # the stubs leave it bare


class _Builder:
    """Turns PyYAML's events into a tree. Works on events, not nodes, so that aliases are refused before they expand."""

    def __init__(self, path: str, problems: Problems) -> None:
        self._path = path
        self._problems = problems
        self._nodes = 0
        self._is_whole = True
        """Whether the tree holds every value that the file means."""

    def document(self, stream: Iterator[yaml.Event]) -> Node | None:
        found: Node | None = None
        documents = 0
        for event in stream:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _GaveUpError(self._at(event), "a second document; one file holds one")
            elif isinstance(event, yaml.NodeEvent):
                found = self._node(event, stream, 0)
        if found is None or (isinstance(found, Scalar) and found.value is None):
            if self._is_whole:
                self._problems.add(Mark(self._path, 1, 1), "the file is empty")
            return None
        return found if self._is_whole else None

    def _node(self, event: yaml.Event, stream: Iterator[yaml.Event], depth: int) -> Node:
        mark = self._at(event)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _GaveUpError(mark, f"more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise _GaveUpError(mark, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._missing(mark, f"an alias (*{cut(str(event.anchor))}); write the value out")
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            self._problems.add(mark, f"an anchor (&{cut(event.anchor)}); write the value out wherever it is meant")
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            self._problems.add(mark, f"a tag ({cut(tag)}); plain values only")
            self._is_whole = False
        if isinstance(event, yaml.ScalarEvent):
            if _SURROGATE.search(event.value):
                return self._missing(mark, "an escape that stands for half a character (U+D800 to U+DFFF)")
            is_plain = event.style is None and event.tag is None
            return Scalar(plain_scalar(event.value) if is_plain else event.value, mark, event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(item := next(stream), yaml.SequenceEndEvent):
                items.append(self._node(item, stream, depth + 1))
            return Sequence(tuple(items), mark)
        return self._mapping(mark, stream, depth)

    def _missing(self, mark: Mark, message: str) -> Scalar:
        """A value that cannot be had. The rest is still read for its problems, but there will be no tree."""
        self._problems.add(mark, message)
        self._is_whole = False
        return Scalar(None, mark)

    def _mapping(self, mark: Mark, stream: Iterator[yaml.Event], depth: int) -> Mapping:
        items: dict[str, Node] = {}
        marks: dict[str, Mark] = {}
        while not isinstance(event := next(stream), yaml.MappingEndEvent):
            key_node = self._node(event, stream, depth + 1)
            value = self._node(next(stream), stream, depth + 1)
            if not isinstance(event, yaml.ScalarEvent):
                self._problems.add(key_node.mark, "a key is a word, not a list or a mapping")
                continue
            key = event.value
            if key in items:
                self._problems.add(key_node.mark, f"`{cut(key)}` stands twice; first in line {marks[key].line}")
                continue
            items[key] = value
            marks[key] = key_node.mark
        return Mapping(items, marks, mark)

    def _at(self, event: yaml.Event) -> Mark:
        return _mark(self._path, event.start_mark)


def _mark(path: str, mark: yaml.error.Mark | yaml._yaml.Mark | None) -> Mark:
    return Mark(path, mark.line + 1, mark.column + 1) if mark is not None else Mark(path, 1, 1)


def _printable(message: str) -> str:
    if message.isprintable():
        return message
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in message)


def _sentence(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "not valid YAML"
    if "'\\t'" in problem:
        return "a tab; indent with spaces"
    return f"not valid YAML: {problem}" + (f" ({error.context})" if error.context else "")

"""Records out of the log, as JSON lines or CSV (Parquet: `gateway.cli.log_parquet`), and the file they go to.

Invariants:
- Memory does not grow with the log: records are written as they are read.
- A file bears its name only once it is complete and on the disk. Whatever breaks off before leaves none.
- JSON lines and Parquet are exact: what a device sent can be had back, byte for byte but for the white space of JSON.
  In CSV a text that a spreadsheet would take for a formula is preceded by an apostrophe.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import functools
import io
import os
import re
import stat
import sys
from typing import IO, TYPE_CHECKING, Protocol

import msgspec

from gateway.cli.words import utc
from gateway.errors import StorageError
from gateway.model import DERIVED, DUPLICATE, QOS_MASK, REPLAYED, RETAINED, Format, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.model import Batch

_FORMULA = re.compile(r"[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_TOPICS_REMEMBERED = 65_536


class Row(msgspec.Struct, gc=False):
    """One record. Its fields are the columns, in this order."""

    id: str
    seq: int
    kind: str
    topic: str
    time: str
    """Corrected; RFC 3339, UTC, microseconds."""
    clock_synced: bool
    qos: int
    retained: bool
    duplicate: bool
    derived: bool
    replayed: bool
    payload: str | msgspec.Raw
    payload_as: str
    """`json`, `text` or `base64`: what the payload stands there as."""


_WORDS = {True: "true", False: "false"}
COLUMNS = Row.__struct_fields__
_FLAGS = [
    (flags & QOS_MASK, bool(flags & RETAINED), bool(flags & DUPLICATE), bool(flags & DERIVED), bool(flags & REPLAYED))
    for flags in range(256)
]


class Sheet(Protocol):
    """Where rows go."""

    def write(self, rows: list[Row]) -> None:
        """Some rows more."""

    def finish(self) -> None:
        """There are no more."""


def chosen(topic: str, *, kinds: frozenset[Kind]) -> Callable[[Batch], list[int]]:
    """What picks the indexes of the wanted records out of a batch.

    Args:
        topic: an MQTT filter; `{name}` stands for one level.
        kinds: which kinds of records are wanted at all.

    Raises:
        ValueError: the filter is none.
    """
    if topic == "#":
        return lambda batch: list(range(len(batch))) if batch.kind in kinds else []

    from gateway.mqtt.topics import compile_filter

    matches = functools.lru_cache(_TOPICS_REMEMBERED)(compile_filter(topic).matches)
    return lambda batch: [i for i, name in enumerate(batch.topics) if matches(name)] if batch.kind in kinds else []


def rows_of(batch: Batch, wall_ns: int, indexes: list[int]) -> list[Row]:
    """Records of a batch. Without the gateway's id, an id is the rest of it: `{log id}/{epoch}/{number}`."""
    prefix = batch.origin.prefix().removeprefix("/")
    kind, time, synced = batch.kind.name.lower(), utc(wall_ns), batch.stamp.synced
    first, topics, formats, flags, payloads = batch.seq, batch.topics, batch.formats, batch.flags, batch.payloads
    return [
        Row(
            f"{prefix}{first + index}",
            first + index,
            kind,
            topics[index],
            time,
            synced,
            *_FLAGS[flags[index]],
            *_payload(payloads[index], formats[index]),
        )
        for index in indexes
    ]


def _payload(payload: bytes, form: int) -> tuple[str, str]:
    """As JSON where the topic's format says so and the payload keeps to it; else as text; else as base64."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return base64.b64encode(payload).decode(), "base64"
    if form in (Format.JSON, Format.NUMBER):
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            msgspec.json.decode(payload)
            return text, "json"
    return text, "text"


class JsonLines:
    """One JSON object a line."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._encode = msgspec.json.Encoder().encode_lines

    def write(self, rows: list[Row]) -> None:
        """Some rows more."""
        for row in rows:
            if row.payload_as == "json":
                row.payload = _one_line(str(row.payload))
        self._out.write(self._encode(rows))

    def finish(self) -> None:
        """Nothing follows the last line."""


def _one_line(text: str) -> msgspec.Raw:
    """As the device wrote it: a number keeps its digits, a key that stands twice stands twice. But on one line."""
    return msgspec.Raw(msgspec.json.format(text, indent=-1) if "\n" in text or "\r" in text else text)


class Csv:
    """RFC 4180, UTF-8, with a header line; lines end in LF."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._put([COLUMNS])

    def write(self, rows: list[Row]) -> None:
        """Some rows more."""
        self._put([_cells(row) for row in rows])

    def finish(self) -> None:
        """Nothing follows the last line."""

    def _put(self, lines: list[tuple[object, ...]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(lines)
        self._out.write(text.getvalue().encode())


def _cells(row: Row) -> tuple[object, ...]:
    row.topic, row.payload = _harmless(row.topic), _harmless(str(row.payload))
    return tuple(_WORDS[value] if isinstance(value, bool) else value for value in msgspec.structs.astuple(row))


def _harmless(text: str) -> str:
    """A cell that no spreadsheet runs. Numbers are none of these, whatever their sign."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


@contextlib.contextmanager
def target(path: Path | None, *, force: bool) -> Iterator[IO[bytes]]:
    """Where to write: stdout if `path` is None, else a file that appears, whole and synced, when all went well.

    Args:
        path: of the file.
        force: whether one that is there may be replaced.

    Raises:
        StorageError: it is there, it is no file, or the disk refuses.
    """
    if path is None:
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # whoever reads has had enough
            raise
        except OSError as error:
            raise StorageError(f"cannot write to stdout: {error.strerror or error}") from error
        return
    path = path.resolve()
    _require_free(path, force=force)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            # Readable by the owner alone: it holds what the log holds.
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as out:  # noqa: PTH123 - a descriptor, not a path
                yield out
                out.flush()
                os.fsync(out.fileno())
            _require_free(path, force=force)
            fresh.replace(path)
            _sync_names(path.parent)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        fresh.unlink(missing_ok=True)


def _require_free(path: Path, *, force: bool) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise StorageError(f"{path} is not a file; write to stdout with --output -")
    if not force:
        raise StorageError(f"{path} is there already; --force replaces it")


def _sync_names(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

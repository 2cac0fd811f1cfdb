"""A disk in memory that promises nothing but what was synced, and every state that a power cut may leave it in.

`Disk` is a `gateway.ringlog.storage.Storage` in memory; `Recorder` is one that notes each operation, and dies before
one of them if told to. `Aftermath` goes through the operations and knows, for the prefix that it has seen, what the
disk may hold after a cut:

- data and size of a file are certain up to its last `sync`; of the operations since, any may be missing or torn,
- names are certain up to the last `sync_dir` of their directory; of the changes since, any may be missing. A new
  file's own sync does not make its name certain, and a rename does not wait for the data: stricter than ext4,
- where a write is missing stand the bytes that were there before, zeros up to the size that it would have given the
  file, or bytes of an older life of the same log.

What the kernel wrote back by itself before the cut is what the cut left: write-back needs no step of its own.
Directories are durable when `make_dir` returns, as its contract says.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

MOST_MISSING = 3
"""Operations that are missing at once, if not all of them are."""
SECTORS_BYTES = (512, 4_096)
ON_DATA = ("write", "truncate", "allocate")
ON_NAMES = ("create", "rename", "remove")


class Op(NamedTuple):
    """One operation. `at` is an offset or a size, in bytes."""

    kind: str
    inode: int = 0
    path: str = ""
    new_path: str = ""
    at: int = 0
    data: bytes = b""


FILLS = ("old", "zeros", "stale")
"""What stands where a write is missing."""


class KilledError(Exception):
    """The process ends here; what it has written stays in the page cache."""


@dataclass
class Disk:
    """A directory tree."""

    entries: dict[str, int] = field(default_factory=dict)
    contents: dict[int, bytes | bytearray] = field(default_factory=dict)

    def note(self, op: Op) -> None:
        """Nobody listens."""

    def make_dir(self, path: Path) -> None:
        """Directories are not modelled: they are durable when this returns."""

    def names(self, path: Path) -> list[str]:
        prefix = f"{path}/"
        return sorted(entry[len(prefix) :] for entry in self.entries if entry.startswith(prefix))

    def create(self, path: Path) -> MemoryFile:
        if str(path) in self.entries:
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        inode = len(self.contents) + 1
        while inode in self.contents:
            inode += 1
        self.note(Op("create", inode, str(path)))
        self.entries[str(path)] = inode
        self.contents[inode] = bytearray()
        return MemoryFile(self, inode)

    def open(self, path: Path, *, writable: bool = False) -> MemoryFile:
        if str(path) not in self.entries:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return MemoryFile(self, self.entries[str(path)])

    def rename(self, old: Path, new: Path) -> None:
        inode = self.entries[str(old)]
        self.note(Op("rename", inode, str(old), str(new)))
        del self.entries[str(old)]
        self.entries[str(new)] = inode

    def remove(self, path: Path) -> None:
        if str(path) in self.entries:
            self.note(Op("remove", self.entries[str(path)], str(path)))
            del self.entries[str(path)]

    def sync_dir(self, path: Path) -> None:
        self.note(Op("sync_dir", path=str(path)))


class MemoryFile:
    """An open file of a `Disk`."""

    def __init__(self, disk: Disk, inode: int) -> None:
        self._disk, self._inode = disk, inode

    def _apply(self, op: Op) -> None:
        self._disk.note(op)
        content = self._disk.contents[self._inode]
        if isinstance(content, bytes):
            content = self._disk.contents[self._inode] = bytearray(content)
        apply(content, op)

    def read(self, size_bytes: int, offset: int) -> bytes:
        return bytes(self._disk.contents[self._inode][offset : offset + size_bytes])

    def write(self, data: bytes, offset: int) -> None:
        self._apply(Op("write", self._inode, at=offset, data=bytes(data)))

    def truncate(self, size_bytes: int) -> None:
        self._apply(Op("truncate", self._inode, at=size_bytes))

    def allocate(self, size_bytes: int) -> None:
        self._apply(Op("allocate", self._inode, at=size_bytes))

    def sync(self) -> None:
        self._disk.note(Op("sync", self._inode))

    def size_bytes(self) -> int:
        return len(self._disk.contents[self._inode])

    def close(self) -> None:
        pass


def apply(content: bytearray, op: Op) -> None:
    """Carry out an operation on data."""
    if op.kind == "truncate":
        del content[op.at :]
    if len(content) < op.at:
        content.extend(bytes(op.at - len(content)))
    if op.kind == "write":
        content[op.at : op.at + len(op.data)] = op.data


class Recorder(Disk):
    """A disk that works, and keeps account of what was asked of it."""

    def __init__(self, found: Disk | None = None) -> None:
        """Args: found: what is on it; empty if there is none."""
        super().__init__()
        if found is not None:
            self.entries = dict(found.entries)
            self.contents = {inode: bytes(content) for inode, content in found.contents.items()}
        self.ops: list[Op] = []
        self.ops_left: int | None = None
        """After so many more operations the process dies. None: it lives."""
        self._lock = threading.Lock()

    def note(self, op: Op) -> None:
        with self._lock:
            if self.ops_left is not None:
                if self.ops_left == 0:
                    raise KilledError
                self.ops_left -= 1
            self.ops.append(op)


class Loss(NamedTuple):
    """What a cut took of the operations that were not certain, by their index among them."""

    missing: tuple[int, ...] = ()
    torn: tuple[int, int] | None = None
    """A write, and how many of its bytes are there."""
    fill: str = "old"
    """One of `FILLS`."""


class Aftermath:
    """Follows operations; knows what is certain and what is not."""

    def __init__(self, found: Disk | None = None, stale: bytes = b"EGLF") -> None:
        """See the module.

        Args:
            found: what is certain from the beginning.
            stale: what an older life has left in blocks that are free.
        """
        found = found if found is not None else Disk()
        self._entries = dict(found.entries)
        self._synced = {inode: bytes(content) for inode, content in found.contents.items()}
        self.uncertain: list[Op] = []
        self.stale = stale

    def advance(self, op: Op) -> None:
        """One more operation was carried out."""
        if op.kind == "create":
            self._synced[op.inode] = b""
        if op.kind == "write" and op.data.startswith(b"EGLF") and len(op.data) > len(self.stale):
            self.stale = op.data
        if op.kind == "sync":
            self._settle_data(op.inode)
        elif op.kind == "sync_dir":
            self._settle_names(op.path)
        else:
            self.uncertain.append(op)

    def _settle_data(self, inode: int) -> None:
        content = bytearray(self._synced[inode])
        for op in self.uncertain:
            if op.inode == inode and op.kind in ON_DATA:
                apply(content, op)
        self._synced[inode] = bytes(content)
        self.uncertain = [op for op in self.uncertain if op.inode != inode or op.kind in ON_NAMES]

    def _settle_names(self, directory: str) -> None:
        here = [op for op in self.uncertain if op.kind in ON_NAMES and str(Path(op.path).parent) == directory]
        _rename(self._entries, here)
        self.uncertain = [op for op in self.uncertain if op not in here]

    def losses(self) -> Iterator[Loss]:
        """Everything that a cut may take here."""
        indexes = range(len(self.uncertain))
        for count in range(min(MOST_MISSING, len(indexes)) + 1):
            for missing in combinations(indexes, count):
                yield Loss(missing)
        if len(indexes) > MOST_MISSING:
            yield Loss(tuple(indexes))
        for index in indexes:
            op = self.uncertain[index]
            if op.kind != "write":
                continue
            for fill in FILLS[1:]:
                yield Loss((index,), fill=fill)
                for other in indexes[index + 1 :]:
                    yield Loss((index, other), fill=fill)
            for kept_bytes in tears(op):
                for fill in FILLS:
                    yield Loss((), (index, kept_bytes), fill)
                for other in indexes:
                    if other != index:
                        yield Loss((other,), (index, kept_bytes))

    def after(self, loss: Loss) -> Disk:
        """The disk that the next start finds."""
        entries = dict(self._entries)
        _rename(entries, (op for i, op in enumerate(self.uncertain) if op.kind in ON_NAMES and i not in loss.missing))
        contents: dict[int, bytes | bytearray] = {inode: self._synced[inode] for inode in entries.values()}
        for index, op in enumerate(self.uncertain):
            if op.kind in ON_NAMES or op.inode not in contents:
                continue
            for part in self._parts(index, op, loss):
                content = contents[op.inode]
                if isinstance(content, bytes):
                    content = contents[op.inode] = bytearray(content)
                apply(content, part)
        return Disk(entries, contents)

    def _parts(self, index: int, op: Op, loss: Loss) -> Iterable[Op]:
        kept_bytes = len(op.data)
        if index in loss.missing:
            kept_bytes = 0
        elif loss.torn is not None and loss.torn[0] == index:
            kept_bytes = loss.torn[1]
        elif op.kind != "write":
            return (op,)
        parts = [op._replace(data=op.data[:kept_bytes])] if kept_bytes else []
        lost_bytes = len(op.data) - kept_bytes
        if loss.fill != "old" and lost_bytes:
            older = self.stale if loss.fill == "stale" else b"\0"
            fill = (older * (lost_bytes // len(older) + 1))[:lost_bytes]
            parts.append(op._replace(at=op.at + kept_bytes, data=fill))
        return parts


def _rename(entries: dict[str, int], ops: Iterable[Op]) -> None:
    for op in ops:
        if op.kind == "create":
            entries[op.path] = op.inode
        else:
            entries.pop(op.path, None)
            if op.kind == "rename":
                entries[op.new_path] = op.inode


def tears(op: Op) -> list[int]:
    """Where a write may end early: at sector boundaries of the file; of many, the first and the last."""
    cuts: set[int] = set()
    for sector_bytes in SECTORS_BYTES:
        first = sector_bytes - op.at % sector_bytes
        inside = range(first, len(op.data), sector_bytes)
        cuts.update((*inside[:2], *inside[-2:]))
    return sorted(cuts)

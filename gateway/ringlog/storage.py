"""The disk, as the log sees it: the one place that makes file-system calls.

Everything durable goes through `Storage` and `File`, so that tests can hand in a disk that tears, lies, fills up or
forgets. Every call may raise OSError; nothing here retries, hides or interprets one.

Invariants:
- `write` either writes everything or raises: a short write is continued until the disk takes the rest or refuses.
- `sync` covers data and the size; `sync_dir` covers names. A new file is durable after both.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class File(Protocol):
    """An open file with explicit offsets: no position of its own."""

    def read(self, size_bytes: int, offset: int) -> bytes:
        """Up to `size_bytes`; shorter only at the end of the file."""

    def write(self, data: bytes, offset: int) -> None:
        """All of `data` at `offset`, or OSError."""

    def sync(self) -> None:
        """Return when what was written is on the medium (fdatasync)."""

    def truncate(self, size_bytes: int) -> None:
        """Cut or extend to this size."""

    def allocate(self, size_bytes: int) -> None:
        """Reserve space up to this size; the new part reads as zeros."""

    def size_bytes(self) -> int:
        """Present size."""

    def close(self) -> None:
        """Give the descriptor back."""


class Storage(Protocol):
    """A directory tree."""

    def make_dir(self, path: Path) -> None:
        """Create the directory, its parents and their names, durably; fine if it is there."""

    def names(self, path: Path) -> list[str]:
        """Sorted names in a directory."""

    def create(self, path: Path) -> File:
        """A new, empty file; FileExistsError if the name is taken."""

    def open(self, path: Path, *, writable: bool = False) -> File:
        """An existing file."""

    def rename(self, old: Path, new: Path) -> None:
        """Move a file over another, atomically as to names."""

    def remove(self, path: Path) -> None:
        """Delete a file; fine if it is gone."""

    def sync_dir(self, path: Path) -> None:
        """Return when the directory's names are on the medium."""


class DiskFile:
    """A file descriptor."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size_bytes: int, offset: int) -> bytes:
        """Up to `size_bytes`; shorter only at the end of the file."""
        data = os.pread(self._fd, size_bytes, offset)
        if len(data) == size_bytes or not data:
            return data
        parts = [data]
        have = len(data)
        while have < size_bytes and (data := os.pread(self._fd, size_bytes - have, offset + have)):
            parts.append(data)
            have += len(data)
        return b"".join(parts)

    def write(self, data: bytes, offset: int) -> None:
        """All of `data` at `offset`, or OSError."""
        done = os.pwrite(self._fd, data, offset)
        while done < len(data):
            done += os.pwrite(self._fd, memoryview(data)[done:], offset + done)

    def sync(self) -> None:
        """Return when what was written is on the medium (fdatasync)."""
        os.fdatasync(self._fd)

    def truncate(self, size_bytes: int) -> None:
        """Cut or extend to this size."""
        os.ftruncate(self._fd, size_bytes)

    def allocate(self, size_bytes: int) -> None:
        """Reserve space up to this size; the new part reads as zeros."""
        os.posix_fallocate(self._fd, 0, size_bytes)

    def size_bytes(self) -> int:
        """Present size."""
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)


class DiskStorage:
    """The machine's own file system. Files are readable by their owner alone."""

    def make_dir(self, path: Path) -> None:
        """Create the directory, its parents and their names, durably; fine if it is there."""
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
            self.sync_dir(each.parent)

    def names(self, path: Path) -> list[str]:
        """Sorted names in a directory."""
        return sorted(entry.name for entry in path.iterdir())

    def create(self, path: Path) -> DiskFile:
        """A new, empty file; FileExistsError if the name is taken."""
        return DiskFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def open(self, path: Path, *, writable: bool = False) -> DiskFile:
        """An existing file. OSError for a link, a pipe or a directory: what is ours is a plain file in its place."""
        access = os.O_RDWR if writable else os.O_RDONLY
        fd = os.open(path, access | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return DiskFile(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Move a file over another, atomically as to names."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """Delete a file; fine if it is gone."""
        path.unlink(missing_ok=True)

    def sync_dir(self, path: Path) -> None:
        """Return when the directory's names are on the medium."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

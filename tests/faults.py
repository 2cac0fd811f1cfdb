"""A disk that fails where it is told to, of the same shape as the real one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from gateway.ringlog.storage import DiskFile, DiskStorage


class FaultyStorage(DiskStorage):
    """The real disk, of which chosen calls fail: `fail("sync", 3, EIO)` lets the third sync from now on fail once."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self._plans: list[list] = []

    def fail(self, call: str, nth: int, code: int, *, times: int = 1) -> None:
        """Let the nth call of this name from now on fail, and the `times - 1` after it."""
        self._plans.append([call, nth, code, times])

    def heal(self) -> None:
        """Let every call succeed again."""
        self._plans.clear()

    def note(self, call: str, name: str) -> None:
        """Record a call, and fail it if that was asked for."""
        self.calls.append((call, name))
        for plan in self._plans:
            if plan[0] == call:
                plan[1] -= 1
                if plan[1] <= 0 and plan[3] > 0:
                    plan[3] -= 1
                    raise OSError(plan[2], os.strerror(plan[2]))

    def create(self, path: Path) -> FaultyFile:
        self.note("create", path.name)
        return FaultyFile(super().create(path), path.name, self)

    def open(self, path: Path, *, writable: bool = False) -> DiskFile | FaultyFile:
        file = super().open(path, writable=writable)
        return FaultyFile(file, path.name, self) if writable else file

    def rename(self, old: Path, new: Path) -> None:
        self.note("rename", new.name)
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self.note("remove", path.name)
        super().remove(path)

    def sync_dir(self, path: Path) -> None:
        self.note("sync_dir", path.name)
        super().sync_dir(path)


class FaultyFile:
    """One file of a `FaultyStorage`."""

    def __init__(self, file: DiskFile, name: str, storage: FaultyStorage) -> None:
        self._file, self._name, self._storage = file, name, storage

    def read(self, size_bytes: int, offset: int) -> bytes:
        return self._file.read(size_bytes, offset)

    def write(self, data: bytes, offset: int) -> None:
        try:
            self._storage.note("write", self._name)
        except OSError:
            self._file.write(data[: len(data) // 2], offset)  # a short write, as a full disk leaves it
            raise
        self._file.write(data, offset)

    def sync(self) -> None:
        self._storage.note("sync", self._name)
        self._file.sync()

    def truncate(self, size_bytes: int) -> None:
        self._storage.note("truncate", self._name)
        self._file.truncate(size_bytes)

    def allocate(self, size_bytes: int) -> None:
        self._storage.note("allocate", self._name)
        self._file.allocate(size_bytes)

    def size_bytes(self) -> int:
        return self._file.size_bytes()

    def close(self) -> None:
        self._file.close()


class StallingStorage(FaultyStorage):
    """A card that takes its time: while `go` is clear, every sync waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.go.set()

    def note(self, call: str, name: str) -> None:
        if call == "sync":
            assert self.go.wait(60), "a stall that nobody ends"
        super().note(call, name)

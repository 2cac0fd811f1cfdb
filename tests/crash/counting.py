"""A disk that counts what is asked of it, and a loop on which a minute of nothing takes no time.

Counts are kept by file name. Pages are what a flash card sees: of each file, the 4 KiB pages that were touched since
its last sync. Nothing is really synced, so that a count does not depend on how busy the disk is.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections import defaultdict
from dataclasses import dataclass, field, fields
from pathlib import Path

from gateway.ringlog.storage import DiskFile, DiskStorage
from tests.conftest import HandClock

PAGE_BYTES = 4_096


@dataclass
class Tally:
    """What was asked of one file, or of several."""

    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    written_bytes: int = 0
    page_bytes: int = 0
    """In whole pages, once per sync."""
    syncs: int = 0
    others: int = 0
    """Calls that change a size or a name: create, allocate, truncate, rename, remove, and syncs of the directory."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def changes(self) -> int:
        """Calls after which the disk has something to do."""
        return self.writes + self.syncs + self.others


@dataclass
class CountingStorage(DiskStorage):
    """The machine's disk, counted, without the cost of syncs."""

    files: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    """By `directory/name`."""

    @property
    def total(self) -> Tally:
        """Of all files."""
        return sum(self.files.values(), Tally())

    def under(self, start: str) -> Tally:
        """Of the files whose `directory/name` begins like this."""
        return sum((tally for name, tally in self.files.items() if name.startswith(start)), Tally())

    def forget(self) -> None:
        """Count from nought again. Files that are open go on being counted."""
        for tally in self.files.values():
            tally.__init__()

    def create(self, path: Path) -> CountingFile:
        self._of(path).others += 1
        return CountingFile(super().create(path), self._of(path))

    def open(self, path: Path, *, writable: bool = False) -> CountingFile:
        return CountingFile(super().open(path, writable=writable), self._of(path))

    def rename(self, old: Path, new: Path) -> None:
        self._of(new).others += 1
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self._of(path).others += 1
        super().remove(path)

    def sync_dir(self, path: Path) -> None:
        self._of(path / "").others += 1

    def _of(self, path: Path) -> Tally:
        return self.files[f"{path.parent.name}/{path.name}"]


class CountingFile:
    """One file of a `CountingStorage`."""

    def __init__(self, file: DiskFile, tally: Tally) -> None:
        self._file = file
        self._tally = tally
        self._touched: set[int] = set()
        self.size_bytes = file.size_bytes
        self.close = file.close

    def read(self, size_bytes: int, offset: int) -> bytes:
        data = self._file.read(size_bytes, offset)
        self._tally.reads += 1
        self._tally.read_bytes += len(data)
        return data

    def write(self, data: bytes, offset: int) -> None:
        self._tally.writes += 1
        self._tally.written_bytes += len(data)
        self._touched.update(range(offset // PAGE_BYTES, (offset + len(data) - 1) // PAGE_BYTES + 1))
        self._file.write(data, offset)

    def sync(self) -> None:
        self._tally.syncs += 1
        self._tally.page_bytes += PAGE_BYTES * len(self._touched)
        self._touched.clear()

    def truncate(self, size_bytes: int) -> None:
        self._tally.others += 1
        self._file.truncate(size_bytes)

    def allocate(self, size_bytes: int) -> None:
        self._tally.others += 1
        self._file.allocate(size_bytes)


class LeapingSelector(selectors.DefaultSelector):
    """Waits as any other until it is told to leap: then whatever would be waited for has passed already."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__()
        self.leaping = False
        self.leapt_s = 0.0
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0 if self.leaping and timeout is not None else timeout)
        if self.leaping and timeout is not None and timeout > 0 and not found:
            self.leapt_s += timeout
            self._clock.advance(timeout)
        return found


class LeapingLoop(asyncio.SelectorEventLoop):
    """A loop with real sockets and threads, on which quiet time passes at once when asked."""

    def __init__(self, clock: HandClock) -> None:
        self._leaper = LeapingSelector(clock)
        super().__init__(self._leaper)

    def time(self) -> float:
        return time.monotonic() + self._leaper.leapt_s

    async def leap(self, seconds: float) -> None:
        """Let so much time pass on the loop's clock and on the gateway's, with every timer that falls due in it."""
        self._leaper.leaping = True
        try:
            await asyncio.sleep(seconds)
        finally:
            self._leaper.leaping = False

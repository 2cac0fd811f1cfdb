"""`type: file`: append one line of JSON per event, synced parcel by parcel.

Invariants:
- Delivered means: written and synced (fdatasync), in a file whose name is synced too.
- The file ends with a line end whenever a parcel begins. What a crash or a full disk left behind the last one is cut.
- A failed sync is never repeated: the file is cut back to what was synced before, and the parcel is written anew.
- The file may be moved or removed at any time (rotation): the next parcel begins a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from gateway.forward.envelope import JsonLines
from gateway.forward.verdict import Delivered, NeedsOperator, Retry

if TYPE_CHECKING:
    from gateway.config.settings import FileSinkSettings
    from gateway.forward.parcel import Parcel
    from gateway.forward.verdict import Verdict
    from gateway.model import Gap

_PIECE_BYTES = 64 * 1024


class FileSink:
    """One file, written in a thread of its own."""

    def __init__(self, settings: FileSinkSettings) -> None:
        self._settings = settings
        self._lines = JsonLines()
        self._fd: int | None = None
        self._undo_to: int | None = None  # the synced size before the parcel that is being written
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sink-{settings.name}")

    async def open(self) -> None:
        """Nothing to do: the file is opened with the first parcel, so that an absent disk is a reason to retry."""

    async def send(self, parcel: Parcel) -> Verdict:
        """Append the parcel's lines and sync."""
        return await self._in_thread(b"".join(map(self._lines.text, parcel.batches)), len(parcel))

    async def announce(self, gap: Gap, wall_ns: int) -> Verdict:
        """Append a line that tells of the gap."""
        return await self._in_thread(self._lines.gap(gap, wall_ns), 1)

    async def close(self) -> None:
        """Close the file, after a write that is still going on."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, text: bytes, count: int) -> Verdict:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._append, text, count)

    # In the thread.

    def _append(self, text: bytes, count: int) -> Verdict:
        try:
            fd = self._current()
            self._undo_to = os.fstat(fd).st_size
            _write_all(fd, text)
            os.fdatasync(fd)
            self._undo_to = None
        except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
            self._undo()
            return NeedsOperator(f"{self._settings.path}: {error.strerror}")
        except OSError as error:
            self._undo()
            return Retry(f"{self._settings.path}: {error.strerror}")
        return Delivered(count)

    def _current(self) -> int:
        """The file under our name, opened anew if another one or none stands there now."""
        if self._fd is not None:
            try:
                there, ours = self._settings.path.stat(), os.fstat(self._fd)
            except FileNotFoundError:
                self._close()
            else:
                if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
                    self._close()
        if self._fd is None:
            self._fd = self._open()
        return self._fd

    def _open(self) -> int:
        path = self._settings.path
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            _cut_torn_line(fd)
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _undo(self) -> None:
        """After an error: take back what may be half there, and begin with a new descriptor."""
        if self._fd is not None and self._undo_to is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._undo_to)
        self._undo_to = None
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _cut_torn_line(fd: int) -> None:
    """Cut what stands behind the last line end: half a line from a crash."""
    size = end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _PIECE_BYTES)
        place = os.pread(fd, end - start, start).rfind(b"\n")
        if place >= 0:
            end = start + place + 1
            break
        end = start
    if end < size:
        os.ftruncate(fd, end)

"""Reading round blocks that the medium does not give back any more.

A dying card answers for a block with EIO, for ever. That is damage like any other: it costs the records in the block
and stops nobody (L5). Whether it is the block or the whole disk that is gone is not to be told from here: who reads
past such a block first sees that the disk still takes a write.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.ringlog.storage import File

BLOCK_BYTES = 4_096


class PatientFile:
    """A file of which unreadable blocks read as zeros: no frame is valid there."""

    def __init__(self, file: File) -> None:
        self._file = file
        self.unreadable_bytes = 0
        """How much was asked for and not given."""

    def read(self, size_bytes: int, offset: int) -> bytes:
        """Up to `size_bytes`; shorter only at the end of the file.

        Raises:
            OSError: for anything but a block that cannot be read.
        """
        try:
            return self._file.read(size_bytes, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        parts = []
        end = min(offset + size_bytes, self._file.size_bytes())
        while offset < end:
            stop = min(end, offset - offset % BLOCK_BYTES + BLOCK_BYTES)
            parts.append(self._block(stop - offset, offset))
            offset = stop
        return b"".join(parts)

    def _block(self, size_bytes: int, offset: int) -> bytes:
        try:
            return self._file.read(size_bytes, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.unreadable_bytes += size_bytes
            return bytes(size_bytes)

    def write(self, data: bytes, offset: int) -> None:
        """All of `data` at `offset`, or OSError."""
        self._file.write(data, offset)

    def sync(self) -> None:
        """Return when what was written is on the medium."""
        self._file.sync()

    def truncate(self, size_bytes: int) -> None:
        """Cut or extend to this size."""
        self._file.truncate(size_bytes)

    def allocate(self, size_bytes: int) -> None:
        """Reserve space up to this size."""
        self._file.allocate(size_bytes)

    def size_bytes(self) -> int:
        """Present size."""
        return self._file.size_bytes()

    def close(self) -> None:
        """Give the descriptor back."""
        self._file.close()

"""A small value that survives a crash at any instant: two slots, written in turn.

    offset size  a slot (4,096 bytes; two of them make the file)
         0    4  magic "EGSL"
         4    4  bytes of the value
         8    8  generation
        16    4  CRC-32 over bytes 0-15 and the value, seeded as in `gateway.ringlog.frame`
        20       the value

The slot with the higher generation is the value; a damaged slot is as if it had never been written, so that the other
one, at most one write older, takes its place. A sector that tears cannot touch both.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING
from zlib import crc32

from gateway.ringlog.frame import CRC_SEED

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.ringlog.storage import File, Storage

_MAGIC = b"EGSL"
_HEAD = struct.Struct("<4sIQ")
_CRC = struct.Struct("<I")
SLOT_BYTES = 4_096
MAX_VALUE_BYTES = SLOT_BYTES - _HEAD.size - _CRC.size


class SlotFile:
    """One value under one name. Not thread-safe: it belongs to the log-writer thread once the log is open."""

    def __init__(self, storage: Storage, path: Path) -> None:
        self._storage = storage
        self._path = path
        self._generation: int | None = None
        """Of the newest slot; None: not looked at yet."""
        self._file: File | None = None

    def load(self) -> bytes | None:
        """The newest undamaged value; None if there is none, for whatever reason."""
        best: bytes | None = None
        newest = 0
        self._generation = self._generation or 0
        try:
            file = self._storage.open(self._path)
        except OSError:
            return None
        with contextlib.closing(file):
            for slot in (0, 1):
                with contextlib.suppress(OSError):
                    generation, value = _read_slot(file.read(SLOT_BYTES, slot * SLOT_BYTES))
                    if generation > newest:
                        newest, best = generation, value
        self._generation = max(self._generation, newest)
        return best

    def is_there(self) -> bool:
        """Whether the file exists, readable or not."""
        return self._path.name in self._storage.names(self._path.parent)

    def store(self, value: bytes) -> None:
        """Replace the value; durable when this returns.

        Raises:
            OSError: if the disk refused. A later `load` then gives the former value or this one, whole in either case.
        """
        assert len(value) <= MAX_VALUE_BYTES, "a slot holds a small value"
        if self._generation is None:
            self.load()  # a value with a lower generation than the one that is there would not count
        file = self._file if self._file is not None else self._open()
        assert self._generation is not None, "known by now"
        generation = self._generation + 1
        head = _HEAD.pack(_MAGIC, len(value), generation)
        data = head + _CRC.pack(crc32(value, crc32(head, CRC_SEED))) + value
        try:
            file.write(data, (generation % 2) * SLOT_BYTES)
            file.sync()
        except OSError:
            # What a failed sync left behind is unknown. Skip a generation, so that the next try spares the good slot.
            self._generation += 2
            self.close()
            raise
        self._generation = generation

    def close(self) -> None:
        """Give the descriptor back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> File:
        try:
            file = self._storage.open(self._path, writable=True)
        except FileNotFoundError:
            return self._create()
        try:
            if file.size_bytes() < 2 * SLOT_BYTES:
                if self._generation == 0:
                    # No slot is whole. Zeros must not complete one that ended in zeros, or it outranks what comes now.
                    file.truncate(0)
                file.truncate(2 * SLOT_BYTES)
            # Whoever wrote it may have been killed before it was on the medium, name or slot: and one slot goes now.
            file.sync()
            self._storage.sync_dir(self._path.parent)
        except OSError:
            file.close()
            raise
        self._file = file
        return file

    def _create(self) -> File:
        file = self._storage.create(self._path)
        try:
            file.allocate(2 * SLOT_BYTES)
            file.sync()
            self._storage.sync_dir(self._path.parent)
        except OSError:
            # Never asked again: the next try begins with another file, whose name will be synced.
            file.close()
            with contextlib.suppress(OSError):
                self._storage.remove(self._path)
            raise
        self._file = file
        return file


def _read_slot(data: bytes) -> tuple[int, bytes]:
    start = _HEAD.size + _CRC.size
    if len(data) >= start:
        magic, length, generation = _HEAD.unpack_from(data)
        value = data[start : start + length]
        (crc,) = _CRC.unpack_from(data, _HEAD.size)
        if magic == _MAGIC and len(value) == length and crc == crc32(value, crc32(data[: _HEAD.size], CRC_SEED)):
            return generation, value
    return 0, b""

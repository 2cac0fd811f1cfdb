r"""A value of any size that is replaced as a whole: rule state at a position of the log.

    offset size
         0    8  magic "EGSNAP\x00\x01"
         8    4  bytes of the value
        12    4  CRC-32 over bytes 0-11 and the value, seeded as in `gateway.ringlog.frame`
        16       the value

What a consumer stores is *placed*: its state, with the position of the log at which it held.

Written to a temporary file, synced, renamed over the old one, and the directory synced: a crash leaves the old or the
new, whole.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from gateway.model import Position
from gateway.ringlog.frame import CRC_SEED

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.ringlog.storage import Storage

_MAGIC = b"EGSNAP\x00\x01"
_HEAD = struct.Struct("<8sI")
_CRC = struct.Struct("<I")
_START = _HEAD.size + _CRC.size


def load(storage: Storage, path: Path) -> bytes | None:
    """The value; None if there is none or it is damaged. What a crash left unfinished is removed."""
    with contextlib.suppress(OSError):
        storage.remove(_unfinished(path))
    try:
        with contextlib.closing(storage.open(path)) as file:
            data = file.read(file.size_bytes(), 0)
    except OSError:
        return None
    if len(data) < _START:
        return None
    magic, length = _HEAD.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _HEAD.size)
    value = data[_START:]
    if magic != _MAGIC or length != len(value) or crc != crc32(value, crc32(data[: _HEAD.size], CRC_SEED)):
        return None
    return value


def store(storage: Storage, path: Path, value: bytes) -> None:
    """Replace the value; durable when this returns.

    Raises:
        OSError: if the disk refuses. The former value still stands.
    """
    head = _HEAD.pack(_MAGIC, len(value))
    fresh = _unfinished(path)
    storage.remove(fresh)
    with contextlib.closing(storage.create(fresh)) as file:
        file.write(head + _CRC.pack(crc32(value, crc32(head, CRC_SEED))) + value, 0)
        file.sync()
    storage.rename(fresh, path)
    storage.sync_dir(path.parent)


class _Placed(msgspec.Struct, frozen=True):
    log_id: str
    seq: int
    ordinal: int
    state: bytes


def encode_placed(log_id: str, position: Position, state: bytes) -> bytes:
    """State with the position of a log at which it held, as a value."""
    return msgspec.msgpack.encode(_Placed(log_id, position.seq, position.ordinal, state))


def decode_placed(value: bytes | None, log_id: str) -> tuple[Position, bytes] | None:
    """The position and the state in a value; None if there is no value, or it is of another log.

    Raises:
        ValueError: it cannot be read.
    """
    if value is None:
        return None
    try:
        placed = msgspec.msgpack.decode(value, type=_Placed)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    return (Position(placed.seq, placed.ordinal), placed.state) if placed.log_id == log_id else None


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")

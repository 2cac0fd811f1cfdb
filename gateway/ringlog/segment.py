r"""One file of the log: its name, its header, and the frames that follow.

A segment is named by its first sequence number, `00000000000000001042.seg`, never by a clock. It starts with 64 bytes:

    offset size
         0    8  magic "EGLOG\x00\r\n"
         8    4  format version (1)
        12    4  epoch in which it was begun
        16    8  log id
        24    8  sequence number of its first record
        32    8  ordinal of its first record
        40   20  zeros
        60    4  CRC-32 over bytes 0-59, seeded as in `gateway.ringlog.frame`

Frames follow back to back. While a segment is being written it is allocated to its full size and ends in zeros; when it
is sealed it is cut to what it holds.

Invariants:
- A segment is written by one opening of the log only. Recovery cuts it, nobody ever appends to it again.
- After any failed write or sync it is abandoned (cut back to what was synced) and a new one is begun.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from gateway.errors import LogCorruptError, LogVersionError
from gateway.model import Position
from gateway.ringlog.frame import CRC_SEED, HEADER_BYTES, MAGIC, Header, NeedMore, check, frame_log_id, peek

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.ringlog.storage import File, Storage

FILE_MAGIC = b"EGLOG\x00\r\n"
FILE_VERSION = 1
SUFFIX = ".seg"
_HEAD = struct.Struct("<8sIIQQQ20x")
_CRC = struct.Struct("<I")
HEAD_BYTES = _HEAD.size + _CRC.size
_CHUNK_BYTES = 1024 * 1024


class SegmentHead(NamedTuple):
    """The first 64 bytes of a segment."""

    epoch: int
    log_id: int
    seq: int
    ordinal: int


class Damage(NamedTuple):
    """Bytes that hold no valid frame."""

    segment: str
    offset: int
    length_bytes: int
    why: str


class Found(NamedTuple):
    """A valid frame, with the bytes that hold it."""

    header: Header
    offset: int
    """Within the segment."""
    data: bytes
    at: int
    """Within `data`."""


def name_of(seq: int) -> str:
    """File name of the segment that starts at `seq`."""
    return f"{seq:020d}{SUFFIX}"


def is_segment(name: str) -> bool:
    """Whether a directory entry is one of ours; anything else in the directory is left alone."""
    return name.endswith(SUFFIX) and len(name) == 20 + len(SUFFIX) and name[:20].isdecimal()


def read_head(file: File, name: str) -> SegmentHead:
    """The segment's header.

    Where magic, version and checksum stand is the same in every format version.

    Raises:
        LogCorruptError: if it is damaged.
        LogVersionError: if it was written by a newer release.
    """
    data = file.read(HEAD_BYTES, 0)
    if len(data) < HEAD_BYTES or data[:8] != FILE_MAGIC:
        raise LogCorruptError(name, 0, "not a log segment")
    _, version, epoch, log_id, seq, ordinal = _HEAD.unpack_from(data)
    if _CRC.unpack_from(data, _HEAD.size)[0] != crc32(data[: _HEAD.size], CRC_SEED):
        raise LogCorruptError(name, 0, "segment header checksum does not match")
    if version != FILE_VERSION:
        raise LogVersionError(name, 8, f"log format {version}; this release reads {FILE_VERSION}")
    return SegmentHead(epoch, log_id, seq, ordinal)


def head_from_frames(file: File, name: str) -> SegmentHead | None:
    """What the header must have said, told by the first valid frame; None if there is no frame that could belong here.

    Exact if it is the segment's first frame. If that is lost too, the ordinal is the lowest that is possible.
    """
    size, first_seq = file.size_bytes(), int(name[:20])
    window, base, offset = b"", HEAD_BYTES, HEAD_BYTES
    while offset < size:
        window, base, offset = _seek_magic(file, window, base, offset, size)
        if offset >= size:
            return None
        log_id = frame_log_id(window, offset - base)
        found = check(window, offset - base, log_id)
        if isinstance(found, NeedMore) and found.wanted_bytes <= size - offset:
            found = check(file.read(found.wanted_bytes, offset), 0, log_id)
        if isinstance(found, Header) and found.seq >= first_seq:
            ordinal = max(0, found.ordinal - (found.seq - first_seq))
            return SegmentHead(found.epoch, log_id, first_seq, ordinal)
        offset += 1
    return None


def first_elapsed_ns(file: File, log_id: int) -> int | None:
    """The log's own clock at the first record, on the word of a frame header; None if none stands where it should."""
    header = peek(file.read(HEADER_BYTES, HEAD_BYTES), 0, log_id)
    return header.elapsed_ns if isinstance(header, Header) else None


def scan(file: File, name: str, head: SegmentHead, start: int = HEAD_BYTES) -> Iterator[Found | Damage]:
    """Every valid frame from `start` on, in file order, and every stretch between them that is not one.

    One that another opening wrote is a leftover: its numbers may have been taken back and given out anew. After damage
    the scan looks for the next place where a valid frame starts: one flipped bit costs one frame. Zeros up to the end
    of the file are the allocated rest of a segment that was never sealed, and are not reported.
    """
    size = file.size_bytes()
    window, base = b"", start
    offset = start
    bad_from, why = -1, ""
    while offset < size:
        at = offset - base
        found = check(window, at, head.log_id)
        if isinstance(found, NeedMore):
            if base < offset or len(window) < found.wanted_bytes <= size - offset:
                window, base = file.read(max(_CHUNK_BYTES, found.wanted_bytes), offset), offset
                if len(window) >= found.wanted_bytes:
                    continue
            reason = "cut off"
        elif isinstance(found, Header) and found.epoch != head.epoch:
            if bad_from < 0:
                bad_from, why = offset, "left over from another opening"
            offset += found.frame_bytes
            continue
        elif isinstance(found, Header):
            if bad_from >= 0:
                yield Damage(name, bad_from, offset - bad_from, why)
                bad_from = -1
            yield Found(found, offset, window, at)
            offset += found.frame_bytes
            continue
        else:
            reason = found.why
        if bad_from < 0:
            bad_from, why = offset, reason
        window, base, offset = _seek_magic(file, window, base, offset + 1, size)
    if bad_from >= 0 and (length := _without_zero_tail(file, bad_from, size)):
        yield Damage(name, bad_from, length, why)


def is_misplaced(
    file: File, name: str, head: SegmentHead, found: Found, due_seq: int, bound_seq: int | None = None
) -> bool:
    """Whether a frame that leaves numbers out, from `due_seq` on, is a block that was written where it is not due.

    Then those that it leaves out stand behind it, and it comes again in its own place, or belongs to a later segment
    (from `bound_seq` on). Reads on to the end of the segment: to be asked only behind damage.
    """
    comes_again = bound_seq is not None and found.header.seq >= bound_seq
    left_out = False
    for item in scan(file, name, head, found.offset + found.header.frame_bytes):
        if isinstance(item, Found):
            comes_again = comes_again or item.header.seq == found.header.seq
            left_out = left_out or (item.header.end > due_seq and item.header.seq < found.header.seq)
    return left_out and comes_again


def locate(file: File, seq: int, head: SegmentHead) -> int:
    """Where to begin to `scan` for the frame that holds `seq`, or the first later one.

    Hops from header to header without reading bodies. A hop counts only if it lands on the header that must follow: a
    damaged length leads nowhere, and then the scan begins with the frame that has it.
    """
    size = file.size_bytes()
    offset, sure, window, base = HEAD_BYTES, HEAD_BYTES, b"", 0
    following: int | None = None
    while offset < size:
        header = peek(window, offset - base, head.log_id)
        if isinstance(header, NeedMore):
            window, base = file.read(_CHUNK_BYTES, offset), offset
            if len(window) < header.wanted_bytes:
                break
            continue
        if not isinstance(header, Header) or header.epoch != head.epoch or following not in (None, header.seq):
            break
        sure = offset
        if header.end > seq:
            break
        following = header.end
        offset += header.frame_bytes
    return sure


def _seek_magic(file: File, window: bytes, base: int, offset: int, size: int) -> tuple[bytes, int, int]:
    """The next place from `offset` on where a frame may start, with a window that reaches there; or `size`.

    A window is used up before another is read: a payload full of false beginnings costs a look each, not a read.
    """
    while offset < size:
        if not base <= offset < base + len(window):
            window, base = file.read(_CHUNK_BYTES, offset), offset
        hit = window.find(MAGIC, offset - base)
        if hit >= 0:
            return window, base, base + hit
        offset = max(offset + 1, base + len(window) - len(MAGIC) + 1)
        if base + len(window) >= size:
            break
        window = b""
    return b"", size, size


def _without_zero_tail(file: File, start: int, size: int) -> int:
    """Length of `[start, size)` less its trailing zeros."""
    end = size
    while end > start:
        chunk_start = max(start, end - _CHUNK_BYTES)
        kept = len(file.read(end - chunk_start, chunk_start).rstrip(b"\0"))
        if kept:
            return chunk_start + kept - start
        end = chunk_start
    return 0


class SegmentWriter:
    """The one segment that is being written. Lives in the log-writer thread."""

    def __init__(self, storage: Storage, directory: Path, head: SegmentHead, size_bytes: int) -> None:
        """Begin a new segment, durable in name and header when this returns.

        Args:
            storage: the disk.
            directory: where the log lives.
            head: who begins it, and at which record.
            size_bytes: what to allocate at once.
        """
        self.name = name_of(head.seq)
        self.head = head
        self.allocated_bytes = max(size_bytes, HEAD_BYTES)
        self.used_bytes = HEAD_BYTES
        self.synced_bytes = HEAD_BYTES
        self.end = self._synced_end = Position(head.seq, head.ordinal)
        path = directory / self.name
        self._file = storage.create(path)
        try:
            self._file.allocate(self.allocated_bytes)
            packed = _HEAD.pack(FILE_MAGIC, FILE_VERSION, head.epoch, head.log_id, head.seq, head.ordinal)
            self._file.write(packed + _CRC.pack(crc32(packed, CRC_SEED)), 0)
            self._file.sync()
            storage.sync_dir(directory)
        except OSError:
            self._file.close()
            with contextlib.suppress(OSError):
                storage.remove(path)
            raise

    def has_room(self, gathered_bytes: int, frame_bytes: int) -> bool:
        """Whether a frame still fits behind what is gathered for this segment.

        An empty segment takes any one frame, so that none is ever too large.
        """
        used_bytes = self.used_bytes + gathered_bytes
        return used_bytes + frame_bytes <= self.allocated_bytes or used_bytes == HEAD_BYTES

    def write(self, frames: bytes, end: Position) -> None:
        """Append whole frames. `end` is the position after their last record."""
        self._file.write(frames, self.used_bytes)
        self.used_bytes += len(frames)
        self.allocated_bytes = max(self.allocated_bytes, self.used_bytes)
        self.end = end

    def sync(self) -> None:
        """Return when all of it is on the medium."""
        self._file.sync()
        self.synced_bytes = self.used_bytes
        self._synced_end = self.end

    def seal(self) -> None:
        """Cut it to what it holds, sync, close."""
        self._file.truncate(self.used_bytes)
        self._file.sync()
        self._file.close()
        self.allocated_bytes = self.synced_bytes = self.used_bytes

    def abandon(self) -> None:
        """After an error: cut back to what is known to be on the medium, and never touch it again."""
        with contextlib.suppress(OSError):
            self._file.truncate(self.synced_bytes)
        self.allocated_bytes = self.used_bytes = self.synced_bytes
        self.end = self._synced_end
        with contextlib.suppress(OSError):
            self._file.close()

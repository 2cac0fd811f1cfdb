"""Making a damaged log whole again, out of what is left of it, while no gateway runs.

The gateway needs no repair to start or to serve what is left (L5). A repair takes the damage out of the log, so that it
is not reported for ever, brings back segments that an earlier release put aside because of their header, and leaves
everything as it was in a directory of its own.

Invariants:
- Nothing is changed or removed in the log itself: a copy of every frame that counts is built beside it, read back from
  the disk, held against what was written, and only then put in its place (`gateway.ringlog.swap`).
- Frames keep their bytes, and with them their numbers, ordinals, epochs and times: cursors and ids stay good. What is
  lost stays a gap, which is written off in the copy, so that it is told once.
- The copy belongs to the owner of the log, whoever repairs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from gateway.errors import LogInUseError, StorageError
from gateway.model import Batch, Position
from gateway.ringlog import swap
from gateway.ringlog.contents import (
    WRITTEN_OFF,
    Contents,
    Frame,
    Leftover,
    Loss,
    Range,
    Unfinished,
    follow,
    look,
    open_patiently,
)
from gateway.ringlog.frame import decode
from gateway.ringlog.inspect import report_on
from gateway.ringlog.recovery import BROKEN_SUFFIX, SegmentInfo
from gateway.ringlog.segment import HEAD_BYTES, Found, SegmentWriter, head_from_frames, is_segment, name_of, scan
from gateway.ringlog.slots import SlotFile
from gateway.ringlog.storage import DiskFile, DiskStorage
from gateway.ringlog.store import LOCK, LOGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.ringlog.inspect import VerifyReport
    from gateway.ringlog.storage import Storage

_PIECE_BYTES = 1024 * 1024
_SPARE_BYTES = 1024 * 1024
"""Beyond the copy itself: directories, meta, the list of what was written off."""


class LogRepair(msgspec.Struct, frozen=True):
    """What was found in one log, and what was done."""

    log: str
    outcome: str
    """`sound`: nothing to do. `damaged`: found, and left as it is. `repaired`."""
    segments: int
    frames: int
    records: int
    """Kept, in so many frames and segments."""
    brought_back_records: int
    """Of these, out of segments that had been put aside."""
    lost: list[Range]
    """Numbers that are nowhere."""
    damaged: list[Loss]
    quarantined_bytes: int
    """That are in the original and not in the copy."""
    original: str | None
    """Name of the directory where the log lies as it was."""
    resumed: str | None
    """What an earlier repair that broke off had left, and became the log now."""


@dataclass(slots=True)
class _Tally:
    """What one reading of a log comes to."""

    segments: int = 0
    frames: int = 0
    records: int = 0
    brought_back_records: int = 0
    quarantined_bytes: int = 0
    losses: list[Loss] = field(default_factory=list)

    @property
    def lost(self) -> list[Range]:
        """Joined where they touch."""
        joined: list[Range] = []
        for loss in sorted(self.losses, key=lambda loss: loss.from_seq):
            if loss.from_seq == loss.to_seq:
                continue
            if joined and joined[-1].to_seq == loss.from_seq:
                joined[-1] = Range(joined[-1].from_seq, loss.to_seq)
            else:
                joined.append(Range(loss.from_seq, loss.to_seq))
        return joined


def repair(
    data_dir: Path,
    *,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
    storage: Storage | None = None,
) -> list[LogRepair]:
    """Repair every log of a data directory that needs it.

    Args:
        data_dir: the data directory.
        dry_run: find out what would be done, and change nothing.
        progress: told how many bytes have been read since the last call; in all, twice what `size_bytes` says.
        storage: the disk to write to; tests hand in a worse one.

    Raises:
        LogInUseError: if a gateway runs on the directory.
        StorageError: if there is no log, no room for the copy, or the disk refuses. The log is as it was, or repaired.
    """
    storage = storage or DiskStorage()
    with _held(data_dir):
        try:
            return list(_repair_all(data_dir, storage, progress, dry_run=dry_run))
        except OSError as error:
            raise StorageError(f"cannot repair {data_dir}: {error.strerror or error}") from error


def size_bytes(data_dir: Path) -> int:
    """What the segments of all logs come to."""
    return sum(look(data_dir, log).size_bytes for log in LOGS if (data_dir / log).is_dir())


def _repair_all(
    data_dir: Path, storage: Storage, progress: Callable[[int], None] | None, *, dry_run: bool
) -> Iterator[LogRepair]:
    found = False
    for log in LOGS:
        stands_in = swap.stand_in(storage, data_dir, log)
        if stands_in is not None and not dry_run:
            swap.settle(storage, data_dir, log)
        if stands_in is None and not (data_dir / log).is_dir():
            continue
        found = True
        place = (stands_in or log) if dry_run else log
        if not dry_run:
            swap.discard(storage, data_dir, log)
        yield _repair_log(data_dir, place, storage, progress, dry_run=dry_run, resumed=stands_in)
    if not found:
        raise StorageError(f"{data_dir} holds no log named {LOGS[0]}")


def _repair_log(
    data_dir: Path,
    log: str,
    storage: Storage,
    progress: Callable[[int], None] | None,
    *,
    dry_run: bool,
    resumed: str | None,
) -> LogRepair:
    contents = look(data_dir, log)
    report = report_on(contents, progress)
    whole = _with_asides(contents, report)
    tally = _Tally()
    original = None
    if report.sound and whole is contents:
        outcome = "sound"
        tally = _Tally(len(contents.segments), report.frames, report.records)
        if progress is not None:
            progress(contents.size_bytes)
    elif dry_run:
        outcome = "damaged"
        tally.segments = len({frame.segment for frame in _kept(whole, tally, progress)})
    else:
        outcome = "repaired"
        _require_room(data_dir, whole)
        _build(swap.begin(storage, data_dir, log), storage, whole, tally, progress)
        original = swap.replace(storage, data_dir, log).name
    return LogRepair(
        log=log,
        outcome=outcome,
        segments=tally.segments,
        frames=tally.frames,
        records=tally.records,
        brought_back_records=tally.brought_back_records,
        lost=tally.lost,
        damaged=tally.losses,
        quarantined_bytes=tally.quarantined_bytes,
        original=original,
        resumed=resumed,
    )


# What there is to keep.


def _with_asides(contents: Contents, report: VerifyReport) -> Contents:
    """The log with those segments that were put aside for their headers and whose numbers are missing in it."""
    asides = []
    for name in DiskStorage().names(contents.directory):
        named = name.removesuffix(BROKEN_SUFFIX)
        if named == name or not is_segment(named):
            continue
        with contextlib.closing(open_patiently(contents.directory / name)) as file:
            head = head_from_frames(file, named)
            if head is not None and head.log_id == contents.log_id:
                asides.append(SegmentInfo(name, head, file.size_bytes()))
    gaps = [Range(loss.from_seq, loss.to_seq) for loss in report.damaged]
    for aside in asides:
        if _fits(contents, aside, gaps):
            segments = sorted([*contents.segments, aside], key=lambda segment: segment.head.seq)
            contents = contents._replace(segments=segments)
    return contents


def _fits(contents: Contents, aside: SegmentInfo, gaps: list[Range]) -> bool:
    """Whether a segment that was put aside belongs where its number says: nothing was written there since."""
    seq, epoch = aside.head.seq, aside.head.epoch
    before = [segment for segment in contents.segments if segment.head.seq <= seq]
    after = [segment for segment in contents.segments if segment.head.seq > seq]
    if (before and (before[-1].head.seq == seq or before[-1].head.epoch > epoch)) or (
        after and after[0].head.epoch < epoch
    ):
        return False
    if not before:
        # Evicted since, if the log does not go on where it ends.
        return not after or _end(contents.directory / aside.name, aside) == after[0].head.seq
    if not after:
        return _end(contents.directory / before[-1].name, before[-1]) <= seq
    return any(gap.from_seq <= seq < gap.to_seq for gap in gaps)


def _end(path: Path, segment: SegmentInfo) -> int:
    with contextlib.closing(open_patiently(path)) as file:
        items = scan(file, segment.name, segment.head)
        return max((item.header.end for item in items if isinstance(item, Found)), default=segment.head.seq)


def _kept(contents: Contents, tally: _Tally, progress: Callable[[int], None] | None) -> Iterator[Frame]:
    """Every frame to keep, in order; what else there is goes into the tally."""
    for item in follow(contents, progress=progress):
        if isinstance(item, Loss):
            tally.losses.append(item)
            tally.quarantined_bytes += item.length_bytes
        elif isinstance(item, Unfinished):
            tally.quarantined_bytes += item.damage.length_bytes
        elif isinstance(item, Leftover):
            tally.quarantined_bytes += item.found.header.frame_bytes
        elif isinstance(item, Frame):
            found, segment = item.found, contents.segments[item.segment]
            header = found.header
            batch = decode(found.data, found.at, header, "")
            if not isinstance(batch, Batch):
                size = header.frame_bytes
                tally.losses.append(Loss(segment.name, found.offset, size, batch.why, header.seq, header.end))
                tally.quarantined_bytes += size
                continue
            tally.frames += 1
            tally.records += header.records
            if not is_segment(segment.name):
                tally.brought_back_records += header.records
            yield item


# The copy.


def _build(
    copy: Path, storage: Storage, contents: Contents, tally: _Tally, progress: Callable[[int], None] | None
) -> None:
    """Fill the directory with a complete log; it is durable, and has been read back, when this returns."""
    epoch = contents.epoch
    open_copy: _SegmentCopy | None = None
    for frame in _kept(contents, tally, progress):
        if open_copy is None or open_copy.index != frame.segment:
            if open_copy is not None:
                open_copy.finish()
            open_copy = _SegmentCopy(storage, copy, contents, frame.segment)
            tally.segments += 1
        open_copy.add(frame.found)
        epoch = max(epoch, frame.found.header.epoch)
    if open_copy is not None:
        open_copy.finish()
    newest = len(contents.segments) - 1
    if newest >= 0 and (open_copy is None or open_copy.index != newest):
        # Nothing of it is left but where it begins: from there the next opening goes on.
        _SegmentCopy(storage, copy, contents, newest).finish()
        tally.segments += 1
    begin_seq = contents.segments[0].head.seq if contents.segments else 0
    known = {numbers for numbers in contents.written_off if numbers.to_seq > begin_seq}
    if written_off := sorted({*known, *tally.lost}):
        with contextlib.closing(storage.create(copy / WRITTEN_OFF)) as file:
            file.write(msgspec.json.encode(written_off), 0)
            file.sync()
    storage.sync_dir(copy)
    log_id = contents.log_id or int.from_bytes(os.urandom(8), "little") | 1
    meta = SlotFile(storage, copy / swap.META)
    meta.store(log_id.to_bytes(8, "little") + epoch.to_bytes(4, "little"))
    meta.close()
    swap.give_to_owner(copy, contents.directory)
    storage.sync_dir(copy)


class _SegmentCopy:
    """One segment of the copy."""

    def __init__(self, storage: Storage, directory: Path, contents: Contents, index: int) -> None:
        segment = contents.segments[index]
        self.index = index
        self._path = directory / name_of(segment.head.seq)
        self._writer = SegmentWriter(storage, directory, segment.head, segment.size_bytes)
        self._frames: list[bytes] = []
        self._gathered_bytes = 0
        self._end = Position(segment.head.seq, segment.head.ordinal)
        self._written = hashlib.sha256()

    def add(self, found: Found) -> None:
        """One frame more."""
        header = found.header
        frame = found.data[found.at : found.at + header.frame_bytes]
        self._written.update(frame)
        self._frames.append(frame)
        self._gathered_bytes += len(frame)
        self._end = Position(header.end, header.end_ordinal)
        if self._gathered_bytes >= _PIECE_BYTES:
            self._write()

    def finish(self) -> None:
        """Sync it, and read it back.

        Raises:
            StorageError: if the disk gives back something else.
        """
        self._write()
        self._writer.seal()
        read = hashlib.sha256()
        with contextlib.closing(_uncached(self._path)) as file:
            offset = HEAD_BYTES
            while data := file.read(_PIECE_BYTES, offset):
                read.update(data)
                offset += len(data)
        if read.digest() != self._written.digest():
            raise StorageError(f"{self._path} does not read back as it was written: the log was left as it is")

    def _write(self) -> None:
        if self._frames:
            self._writer.write(b"".join(self._frames), self._end)
            self._frames.clear()
            self._gathered_bytes = 0


def _uncached(path: Path) -> DiskFile:
    """The file as the medium holds it, as far as the kernel lets us say so."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return DiskFile(fd)


def _require_room(data_dir: Path, contents: Contents) -> None:
    wanted_bytes = contents.size_bytes + _SPARE_BYTES
    disk = os.statvfs(data_dir)
    free_bytes = disk.f_bavail * disk.f_frsize
    if free_bytes < wanted_bytes:
        raise StorageError(
            f"a copy of {contents.directory} needs {wanted_bytes >> 20} MiB, and only {free_bytes >> 20} MiB are free:"
            " nothing was changed"
        )


@contextlib.contextmanager
def _held(data_dir: Path) -> Iterator[None]:
    """The lock that a running gateway holds."""
    path = data_dir / LOCK
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"cannot open {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LogInUseError(f"a gateway is running on {data_dir}: stop it first") from None
        owner = data_dir.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.fchown(fd, owner.st_uid, owner.st_gid)
        yield
    finally:
        os.close(fd)

"""What a log directory holds, found out before anything is written to it.

Recovery is a precondition of writing: `recover` settles what the last opening left behind, and only then may a new
segment begin.

Invariants:
- Only the last segment is scanned; the others are known by their headers. Opening does not grow with the log.
- A torn tail (nothing valid after it) is cut off; the cut bytes are kept beside it as `.broken` and reported. Damage
  with valid frames after it is copied to `.broken` and left where it is: readers pass over it and tell what they miss.
- What is kept is synced before anybody is served from it: it may so far have lived in the page cache alone.
- Files that are not ours are never touched. A segment whose header is damaged is known by its frames; one without a
  frame is renamed to `.broken`, not deleted.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gateway.errors import LogCorruptError, LogVersionError
from gateway.model import Position, Stamp
from gateway.ringlog.badblocks import PatientFile
from gateway.ringlog.segment import (
    HEAD_BYTES,
    Damage,
    Found,
    SegmentHead,
    first_elapsed_ns,
    head_from_frames,
    is_segment,
    name_of,
    read_head,
    scan,
)

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.ringlog.storage import File, Storage

BROKEN_SUFFIX = ".broken"
_KEPT_ASIDES = 16
_BLANK_BYTES = 64 * 1024


class SegmentInfo(NamedTuple):
    """A segment that is not being written any more."""

    name: str
    head: SegmentHead
    size_bytes: int
    first_elapsed_ns: int | None = None
    """The log's own clock at its first record; None if that is unreadable."""
    last_elapsed_ns: int | None = None
    """The same at its last record; None if it was not scanned: it is then no later than the next segment's first."""

    @property
    def start(self) -> Position:
        """Position of its first record."""
        return Position(self.head.seq, self.head.ordinal)


@dataclass(slots=True)
class Recovered:
    """What was found."""

    log_id: int | None = None
    """None: the directory holds no segment."""
    epoch: int = 0
    segments: list[SegmentInfo] = field(default_factory=list)
    end: Position = Position(0, 0)
    last_stamp: Stamp | None = None
    """Clocks of the last record, to go on counting from."""
    torn: Damage | None = None
    damaged: list[Damage] = field(default_factory=list)

    def reached(self, epoch: int) -> int:
        """How far the log had got when this epoch ended: the number after its last record.

        The same at each later start, however many there have been: what an epoch has written, the next goes on behind.
        """
        later = (segment.head.seq for segment in self.segments if segment.head.epoch > epoch)
        return min(later, default=self.end.seq)


Survey: TypeAlias = tuple[list[SegmentInfo], list[Damage]]


def survey(storage: Storage, directory: Path) -> Survey:
    """Every segment, in order, and what is wrong with headers. Changes nothing.

    A segment whose header is damaged is known by its frames: it is in both lists. One that has no frame either is only
    in the second.

    Raises:
        LogVersionError: if a segment was written by a newer release.
        OSError: if the directory cannot be read.
    """
    segments: list[SegmentInfo] = []
    damaged: list[Damage] = []
    for name in filter(is_segment, storage.names(directory)):
        try:
            file = PatientFile(storage.open(directory / name))
        except OSError as error:
            damaged.append(Damage(name, 0, 0, error.strerror or str(error)))
            continue
        with contextlib.closing(file):
            head, damage = _head(file, name)
            if damage is not None:
                damaged.append(damage)
            if head is not None:
                begun_ns = first_elapsed_ns(file, head.log_id)
                segments.append(SegmentInfo(name, head, file.size_bytes(), begun_ns))
    return segments, damaged


def _head(file: File, name: str) -> tuple[SegmentHead | None, Damage | None]:
    try:
        head = read_head(file, name)
    except LogVersionError:
        raise
    except LogCorruptError as error:
        known = head_from_frames(file, name)
        return known, Damage(name, 0, HEAD_BYTES if known is not None else file.size_bytes(), error.why)
    except OSError as error:
        return None, Damage(name, 0, 0, error.strerror or str(error))
    if name != name_of(head.seq):
        return None, Damage(name, 0, file.size_bytes(), f"name does not match its first record, {head.seq}")
    return head, None


def recover(storage: Storage, directory: Path, log_id: int | None, surveyed: Survey | None = None) -> Recovered:
    """Settle what is there, so that a new segment can begin at `end`.

    Args:
        storage: the disk.
        directory: the log's own directory; must exist.
        log_id: from the log's meta file, None if that is lost: then the newest segment's word is taken.
        surveyed: what `survey` has just told; None asks it.

    Raises:
        LogVersionError: if the log was written by a newer release.
        OSError: if the disk refuses.
    """
    segments, damaged = surveyed if surveyed is not None else survey(storage, directory)
    known = {segment.name for segment in segments}
    broken = [damage for damage in damaged if damage.segment not in known]
    found = Recovered(damaged=_put_aside(storage, directory, broken, max(known, default="")))
    found.damaged += [damage for damage in damaged if damage.segment in known]
    if segments and log_id not in {segment.head.log_id for segment in segments}:
        # Meta is lost, or was taken from another log: it must not make strangers of all segments.
        log_id = segments[-1].head.log_id
    found.log_id = log_id
    ours = [segment for segment in segments if segment.head.log_id == log_id]
    found.damaged += [
        Damage(segment.name, 0, segment.size_bytes, "belongs to another log")
        for segment in segments
        if segment.head.log_id != log_id
    ]
    if not ours:
        return found
    found.epoch = max(segment.head.epoch for segment in ours)
    found.segments = ours
    while found.segments:
        if _settle_tail(storage, directory, found):
            break
    if broken or found.torn:
        _prune_asides(storage, directory)
        storage.sync_dir(directory)
    return found


def _put_aside(storage: Storage, directory: Path, broken: list[Damage], newest: str) -> list[Damage]:
    """Move what is no segment out of the way, and return what is worth reporting.

    A blank file behind all others is a segment whose beginning broke off: nothing was ever in it.
    """
    reported = []
    for damage in broken:
        path = directory / damage.segment
        if damage.segment > newest and _is_blank(storage, path):
            storage.remove(path)
            continue
        with contextlib.suppress(OSError):
            move_aside(storage, path)
        reported.append(damage)
    return reported


def move_aside(storage: Storage, path: Path) -> None:
    """Take a file out of a segment's place under a name that is free: it is somebody's, or may be wanted yet.

    Raises:
        OSError: if the disk refuses.
    """
    taken = set(storage.names(path.parent))
    free = (f"{path.name}{f'-{number}' if number else ''}{BROKEN_SUFFIX}" for number in count())
    storage.rename(path, path.with_name(next(name for name in free if name not in taken)))


def _is_blank(storage: Storage, path: Path) -> bool:
    try:
        with contextlib.closing(storage.open(path)) as file:
            return not any(file.read(_BLANK_BYTES, 0))
    except OSError:
        return False


def _prune_asides(storage: Storage, directory: Path) -> None:
    """Keep the newest copies of cut-off bytes: one that is killed every night must not fill its disk with them."""
    asides = [name for name in storage.names(directory) if name.endswith(BROKEN_SUFFIX) and name.count(".") == 3]
    for name in asides[:-_KEPT_ASIDES]:
        storage.remove(directory / name)


def _settle_tail(storage: Storage, directory: Path, found: Recovered) -> bool:
    """Scan the last segment, cut its torn tail, sync it. False if it held nothing and is gone: look further back."""
    tail = found.segments[-1]
    path = directory / tail.name
    with contextlib.closing(PatientFile(storage.open(path, writable=True))) as file:
        end, offset = tail.start, HEAD_BYTES
        pending: Damage | None = None
        for item in scan(file, tail.name, tail.head):
            if isinstance(item, Damage) or item.header.seq < end.seq:
                pending = _together(pending, item, tail.name)
                continue
            if pending is not None:
                found.damaged.append(pending)
                _keep_aside(storage, path, file, pending)
                pending = None
            header = item.header
            end = max(end, Position(header.end, header.end_ordinal))
            offset = item.offset + header.frame_bytes
            found.last_stamp = Stamp(header.wall_ns, header.mono_ns, header.elapsed_ns, header.boot_id, header.synced)
        found.end = max(found.end, end)
        unreadable_bytes = file.unreadable_bytes
        if unreadable_bytes:
            # It may be readable another time: nothing is cut off. It ends where its last record does all the same.
            found.damaged.append(pending or Damage(tail.name, offset, unreadable_bytes, "cannot be read"))
        elif pending is not None:
            found.torn = pending
            if offset > HEAD_BYTES:
                _keep_aside(storage, path, file, pending)
        if offset > HEAD_BYTES:
            if not unreadable_bytes and file.size_bytes() > offset:
                file.truncate(offset)
            file.sync()
            last_ns = found.last_stamp.elapsed_ns if found.last_stamp is not None else None
            found.segments[-1] = tail._replace(size_bytes=offset, last_elapsed_ns=last_ns)
            return True
    # No record in it. Its number range is free again, its epoch is not.
    if pending is not None or unreadable_bytes:
        move_aside(storage, path)
    else:
        storage.remove(path)
    storage.sync_dir(directory)
    found.segments.pop()
    return False


def _together(before: Damage | None, item: Damage | Found, name: str) -> Damage:
    """One stretch: what is no frame, and frames whose numbers have been seen."""
    if isinstance(item, Found):
        item = Damage(name, item.offset, item.header.frame_bytes, "left over from another time")
    return item if before is None else before._replace(length_bytes=item.offset + item.length_bytes - before.offset)


def _keep_aside(storage: Storage, path: Path, file: File, torn: Damage) -> None:
    """Copy the cut bytes next to the segment, for whoever wants to look. A full disk must not stop a start."""
    aside = path.with_name(f"{path.name}.{torn.offset}{BROKEN_SUFFIX}")
    with contextlib.suppress(OSError):
        storage.remove(aside)
        with contextlib.closing(storage.create(aside)) as copy:
            copy.write(file.read(torn.length_bytes, torn.offset), 0)

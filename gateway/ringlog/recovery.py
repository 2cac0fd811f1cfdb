"""What a log directory holds, found out before anything is written to it.

Recovery is a precondition of writing: `recover` settles what the last opening left behind, and only then may a new
segment begin.

Invariants:
- Only the last segment is scanned; the others are known by their headers. Opening does not grow with the log.
- A torn tail (nothing valid after it) is cut off; the cut bytes are kept beside it as `.broken` and reported. Damage
  with valid frames after it is left where it is: readers pass over it and report what they miss.
- What is kept is synced before anybody is served from it: it may so far have lived in the page cache alone.
- Files that are not ours are never touched. A segment whose header is damaged is renamed to `.broken`, not deleted.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import LogCorruptError
from gateway.model import Position, Stamp
from gateway.ringlog.segment import HEAD_BYTES, Damage, SegmentHead, is_segment, name_of, read_head, scan

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.ringlog.storage import File, Storage

BROKEN_SUFFIX = ".broken"


class SegmentInfo(NamedTuple):
    """A segment that is not being written any more."""

    name: str
    head: SegmentHead
    size_bytes: int

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


def survey(storage: Storage, directory: Path) -> tuple[list[SegmentInfo], list[Damage]]:
    """Every segment by its header, in order, and those whose header is unreadable. Changes nothing.

    Raises:
        LogCorruptError: if a segment was written by a newer release.
    """
    segments: list[SegmentInfo] = []
    broken: list[Damage] = []
    for name in filter(is_segment, storage.names(directory)):
        with contextlib.closing(storage.open(directory / name)) as file:
            size = file.size_bytes()
            try:
                head = read_head(file, name)
            except LogCorruptError as error:
                if error.offset == 8:
                    raise
                broken.append(Damage(name, 0, size, error.why))
                continue
        if name != name_of(head.seq):
            broken.append(Damage(name, 0, size, f"name does not match its first record, {head.seq}"))
            continue
        segments.append(SegmentInfo(name, head, size))
    return segments, broken


def recover(storage: Storage, directory: Path, log_id: int | None) -> Recovered:
    """Settle what is there, so that a new segment can begin at `end`.

    Args:
        storage: the disk.
        directory: the log's own directory; must exist.
        log_id: from the log's meta file, None if that is lost: then the newest segment's word is taken.

    Raises:
        LogCorruptError: if the log was written by a newer release.
        OSError: if the disk refuses.
    """
    segments, broken = survey(storage, directory)
    found = Recovered(damaged=broken)
    for damage in broken:
        storage.rename(directory / damage.segment, directory / (damage.segment + BROKEN_SUFFIX))
    if log_id is None and segments:
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
        storage.sync_dir(directory)
    return found


def _settle_tail(storage: Storage, directory: Path, found: Recovered) -> bool:
    """Scan the last segment, cut its torn tail, sync it. False if it held nothing and is gone: look further back."""
    tail = found.segments[-1]
    path = directory / tail.name
    with contextlib.closing(storage.open(path, writable=True)) as file:
        end, offset = tail.start, HEAD_BYTES
        pending: Damage | None = None
        for item in scan(file, tail.name, tail.head.log_id):
            if isinstance(item, Damage):
                pending = item
                continue
            if pending is not None:
                found.damaged.append(pending)
                pending = None
            header = item.header
            end = max(end, Position(header.end, header.end_ordinal))
            offset = item.offset + header.frame_bytes
            found.last_stamp = Stamp(header.wall_ns, header.mono_ns, header.elapsed_ns, header.boot_id, header.synced)
        found.end = max(found.end, end)
        if offset > HEAD_BYTES or pending is not None:
            if pending is not None:
                found.torn = pending
                _keep_aside(storage, path, file, pending)
            if file.size_bytes() > offset:
                file.truncate(offset)
            file.sync()
            found.segments[-1] = tail._replace(size_bytes=offset)
        if offset > HEAD_BYTES:
            return True
    # Nothing valid in it: an opening that wrote nothing. Its number range is free again, its epoch is not.
    storage.remove(path)
    storage.sync_dir(directory)
    found.segments.pop()
    return False


def _keep_aside(storage: Storage, path: Path, file: File, torn: Damage) -> None:
    """Copy the cut bytes next to the segment, for whoever wants to look. A full disk must not stop a start."""
    aside = path.with_name(f"{path.name}.{torn.offset}{BROKEN_SUFFIX}")
    with contextlib.suppress(OSError):
        storage.remove(aside)
        with contextlib.closing(storage.create(aside)) as copy:
            copy.write(file.read(torn.length_bytes, torn.offset), 0)

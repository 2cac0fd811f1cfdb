"""What a log's directory holds, read from the outside: every frame that counts, and what became of every number.

Read-only, no lock, fine beside a running gateway.

Invariants:
- A frame counts if the gateway's own readers would see it: it is valid, and its numbers follow what came before and lie
  before the next segment. Any other valid frame is a leftover.
- Every number between the first and the last is in a frame, or told as lost with what cost it, or written off before.
- Beside a running gateway the last frames may still be on their way. What looks damaged in the newest segment is looked
  at again; what then still stands at its very end is an unfinished write, not damage. A segment that is evicted
  meanwhile is told as such.
- A block that the medium no longer gives back costs the records in that block, like any other damage.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from gateway.errors import LogVersionError, StorageError
from gateway.ringlog.badblocks import PatientFile
from gateway.ringlog.frame import HEADER_BYTES, Header, check, peek
from gateway.ringlog.recovery import survey
from gateway.ringlog.segment import HEAD_BYTES, Damage, Found, is_misplaced, scan
from gateway.ringlog.slots import SlotFile
from gateway.ringlog.storage import DiskStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from gateway.ringlog.recovery import SegmentInfo
    from gateway.ringlog.segment import SegmentHead
    from gateway.ringlog.storage import File, Storage

WRITTEN_OFF = "written-off.json"
"""Beside the segments of a repaired log: numbers that are known to be lost, `[[from, to], ...]`."""
_PROGRESS_BYTES = 256 * 1024
_META_BYTES = 12


class Range(NamedTuple):
    """Numbers of records, `[from_seq, to_seq)`."""

    from_seq: int
    to_seq: int

    @property
    def records(self) -> int:
        """How many."""
        return self.to_seq - self.from_seq


class Frame(NamedTuple):
    """A frame that counts."""

    segment: int
    """Index of its segment."""
    found: Found


class Loss(msgspec.Struct, frozen=True):
    """A damaged stretch, and the numbers that it cost: `[from_seq, to_seq)`, which may be none."""

    segment: str
    offset: int
    length_bytes: int
    why: str
    from_seq: int
    to_seq: int


class WrittenOff(NamedTuple):
    """Numbers that a repair has already accounted for."""

    range: Range


class Leftover(NamedTuple):
    """A valid frame whose numbers are not wanted where it stands."""

    segment: int
    """Index of its segment."""
    found: Found


class Unfinished(NamedTuple):
    """What stands behind the last frame of all: a write that was never acknowledged."""

    damage: Damage


class Evicted(NamedTuple):
    """A segment that the running gateway gave up before it was read."""

    range: Range


Seen: TypeAlias = Frame | Loss | WrittenOff | Leftover | Unfinished | Evicted


class Contents(NamedTuple):
    """What there is at one instant, by the first bytes of each file."""

    directory: Path
    log_id: int
    epoch: int
    segments: list[SegmentInfo]
    """Those of this log, in order."""
    damaged: list[Damage]
    """Headers, and files that are no segments of this log."""
    written_off: list[Range]

    @property
    def size_bytes(self) -> int:
        """Of all segments."""
        return sum(segment.size_bytes for segment in self.segments)

    def following(self, index: int) -> int | None:
        """The first number that is not in the segment at `index`; None if that is the newest."""
        return self.segments[index + 1].head.seq if index + 1 < len(self.segments) else None


def open_patiently(path: Path) -> PatientFile:
    """A file to read, whatever its medium still gives back."""
    return PatientFile(DiskStorage().open(path))


def look(data_dir: Path, log: str) -> Contents:
    """What there is of a log.

    Raises:
        StorageError: if there is no such log, or its directory cannot be read.
        LogVersionError: if it was written by a newer release.
    """
    storage = DiskStorage()
    directory = data_dir / log
    if not directory.is_dir():
        raise StorageError(f"{data_dir} holds no log named {log}")
    try:
        segments, damaged = survey(storage, directory)
    except LogVersionError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {directory}: {error.strerror or error}") from error
    log_id, epoch = _identity(storage, directory, segments)
    foreign = [segment for segment in segments if segment.head.log_id != log_id]
    ours = sorted((s for s in segments if s.head.log_id == log_id), key=lambda segment: segment.head.seq)
    newest = max((segment.name for segment in ours), default="")
    damaged = [item for item in damaged if not _is_passing(directory / item.segment, newest)]
    damaged += [Damage(segment.name, 0, segment.size_bytes, "belongs to another log") for segment in foreign]
    return Contents(directory, log_id, epoch, ours, damaged, _written_off(directory))


def follow(
    contents: Contents,
    picked: Iterable[int] | None = None,
    start: Callable[[File], tuple[int, int | None]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Seen]:
    """Everything that a log holds, in order, and what it no longer holds.

    Args:
        contents: from `look`.
        picked: indexes of the segments to read, in order; None: all.
        start: where in a segment to begin, and at which number if that is known; None: at its first frame.
        progress: told how many bytes have been read since the last call; in all, the size of what was picked.

    Raises:
        StorageError: if a segment cannot be opened.
    """
    whole_files = _lost_files(contents)
    heads = {item.segment: item for item in contents.damaged}
    expected: int | None = None
    previous = -2
    for index in range(len(contents.segments)) if picked is None else picked:
        segment, bound = contents.segments[index], contents.following(index)
        if index != previous + 1:
            expected = segment.head.seq
        previous = index
        if (damage := heads.get(segment.name)) is not None:
            yield Loss(*damage, from_seq=segment.head.seq, to_seq=segment.head.seq)
        try:
            opened = open_patiently(contents.directory / segment.name)
        except FileNotFoundError:
            yield Evicted(Range(segment.head.seq, bound if bound is not None else segment.head.seq))
            expected = bound
            continue
        except OSError as error:
            raise StorageError(f"cannot read {contents.directory / segment.name}: {error.strerror}") from error
        with contextlib.closing(opened):
            offset, known = HEAD_BYTES, expected
            if start is not None and (place := start(opened))[0] != HEAD_BYTES:
                offset, known = place
            yield from _segment(contents, index, opened, offset, known, whole_files, progress)
        expected = bound
    yield from (Loss(*item, from_seq=0, to_seq=0) for item in whole_files.values())


def _segment(
    contents: Contents,
    index: int,
    file: PatientFile,
    offset: int,
    expected: int | None,
    whole_files: dict[int, Damage],
    progress: Callable[[int], None] | None,
) -> Iterator[Seen]:
    segment, bound = contents.segments[index], contents.following(index)
    pending: Damage | None = None
    told = False
    done = 0
    for item in _scan(file, segment, offset, grows=bound is None):
        if isinstance(item, Damage):
            pending, told = item, True
            continue
        header = item.header
        offset = item.offset + header.frame_bytes
        expected = header.seq if expected is None else expected
        is_due = header.seq >= expected and (bound is None or header.end <= bound)
        is_ahead = header.seq > expected
        if not is_due or (is_ahead and is_misplaced(file, segment.name, segment.head, item, expected)):
            yield Leftover(index, item)
            continue
        yield from _lost(contents, pending, Damage(segment.name, item.offset, 0, ""), (expected, header.seq), {})
        pending = None
        yield Frame(index, item)
        expected = header.end
        if progress is not None and offset - done > _PROGRESS_BYTES:
            progress(offset - done)
            done = offset
    if bound is not None:
        yield from _lost(
            contents, pending, Damage(segment.name, offset, 0, ""), (expected or bound, bound), whole_files
        )
    elif pending is not None:
        yield _tail(file, pending, contents.log_id, expected)
    elif file.unreadable_bytes and not told:
        # Reads as zeros, and so as the unused rest: whether records were there nobody can say.
        yield Loss(segment.name, offset, file.unreadable_bytes, "cannot be read", expected or 0, expected or 0)
    if progress is not None:
        progress(segment.size_bytes - done)


def _scan(file: PatientFile, segment: SegmentInfo, offset: int, *, grows: bool) -> Iterator[Found | Damage]:
    """As `scan`. In a segment that grows, what is damaged at first sight may be a frame on its way: look again."""
    while True:
        for item in scan(file, segment.name, segment.head, offset):
            if grows and isinstance(item, Damage) and _is_whole(file, item.offset, segment.head):
                offset = item.offset
                break
            yield item
        else:
            return


def _is_whole(file: File, offset: int, head: SegmentHead) -> bool:
    header = peek(file.read(HEADER_BYTES, offset), 0, head.log_id)
    if not isinstance(header, Header) or header.epoch != head.epoch:
        return False
    return isinstance(check(file.read(header.frame_bytes, offset), 0, head.log_id), Header)


def _lost(
    contents: Contents, pending: Damage | None, place: Damage, numbers: tuple[int, int], whole_files: dict[int, Damage]
) -> Iterator[Seen]:
    """What came between two frames: damage, with the numbers it cost, or numbers that are just not there."""
    missing, known = _less(Range(*numbers), contents.written_off)
    yield from map(WrittenOff, known)
    if pending is None:
        for gap in missing:
            for seq in [seq for seq in whole_files if gap.from_seq <= seq < gap.to_seq]:
                pending = whole_files.pop(seq)
            yield Loss(*(pending or place._replace(why="records are missing here")), *gap)
            pending = None
        return
    # One stretch of damage; what it cost is one range, unless part of it was written off before.
    for gap in missing or [Range(numbers[0], numbers[0])]:
        yield Loss(*pending, *gap)


def _less(wanted: Range, known: list[Range]) -> tuple[list[Range], list[Range]]:
    """The parts of a range that are not known, and those that are."""
    missing, met, at = [], [], wanted.from_seq
    for each in sorted(known):
        begin, end = max(each.from_seq, at), min(each.to_seq, wanted.to_seq)
        if begin < end:
            if at < begin:
                missing.append(Range(at, begin))
            met.append(Range(begin, end))
            at = end
    if at < wanted.to_seq:
        missing.append(Range(at, wanted.to_seq))
    return missing, met


def _tail(file: File, damage: Damage, log_id: int, expected: int | None) -> Seen:
    """What stands behind the last frame: unfinished, unless a whole frame with the right numbers ends with the file.

    A segment is cut to its frames only when it is sealed, after they were synced.
    """
    header = peek(file.read(HEADER_BYTES, damage.offset), 0, log_id)
    if not isinstance(header, Header) or damage.offset + header.frame_bytes != file.size_bytes():
        return Unfinished(damage)
    if header.seq != expected or damage.offset == HEAD_BYTES:
        return Unfinished(damage)
    return Loss(*damage, from_seq=header.seq, to_seq=header.end)


def _lost_files(contents: Contents) -> dict[int, Damage]:
    """Files of which nothing is left, by the number with which they began."""
    ours = {segment.name for segment in contents.segments}
    return {int(item.segment[:20]): item for item in contents.damaged if item.segment not in ours}


def _identity(storage: Storage, directory: Path, segments: list[SegmentInfo]) -> tuple[int, int]:
    meta = SlotFile(storage, directory / "meta").load()
    log_id, epoch = (segments[-1].head.log_id, 0) if segments else (0, 0)
    if meta is not None and len(meta) == _META_BYTES:
        log_id, epoch = int.from_bytes(meta[:8], "little"), int.from_bytes(meta[8:], "little")
    return log_id, max([epoch, *(segment.head.epoch for segment in segments if segment.head.log_id == log_id)])


def _is_passing(path: Path, newest: str) -> bool:
    """Whether a running gateway explains a damaged header: evicted meanwhile, or just being created."""
    try:
        with contextlib.closing(open_patiently(path)) as file:
            return path.name > newest and not any(file.read(HEAD_BYTES, 0))
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _written_off(directory: Path) -> list[Range]:
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((directory / WRITTEN_OFF).read_bytes(), type=list[Range])
    return []

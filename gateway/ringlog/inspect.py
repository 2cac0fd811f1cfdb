"""Looking at a log without opening it: figures, verification, and every batch. Read-only, no lock.

Fine beside a running gateway; `gateway.ringlog.contents` says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.errors import StorageError
from gateway.model import Batch, Position
from gateway.ringlog.by_time import hop, read_timeline, stamp_of
from gateway.ringlog.contents import Evicted, Frame, Leftover, Loss, Unfinished, WrittenOff, follow, look
from gateway.ringlog.frame import Torn, decode
from gateway.ringlog.segment import Damage
from gateway.ringlog.store import EVENTS_DIR, LOGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.ringlog.contents import Contents
    from gateway.ringlog.frame import Header
    from gateway.ringlog.storage import File


class SegmentSummary(msgspec.Struct, frozen=True):
    """One segment."""

    name: str
    first_seq: int
    size_bytes: int
    records: int


class LogInfo(msgspec.Struct, frozen=True):
    """A log in figures, by the first bytes of its segments: what is damaged within them is not missed here."""

    log_id: str
    epoch: int
    first_seq: int
    end_seq: int
    records: int
    events: int
    size_bytes: int
    segments: list[SegmentSummary]
    oldest_wall_ns: int | None
    """Corrected, as `gateway.ringlog.timeline` tells it."""
    newest_wall_ns: int | None
    damaged: list[Damage]
    """Headers only."""


class VerifyReport(msgspec.Struct, frozen=True):
    """Every byte of a log, checked."""

    frames: int
    records: int
    size_bytes: int
    damaged: list[Loss]
    """Every stretch that is not what was written, and every run of numbers that is nowhere."""
    missing_records: int
    """Numbers between the first and the last record that no valid frame holds, but for those written off."""
    torn_tail: Damage | None
    """Cut off at the next start; never acknowledged."""
    leftovers: int = 0
    """Valid frames that readers pass over: copies, and what earlier files left in the same blocks."""
    written_off_records: int = 0
    """Lost before, and accounted for by a repair."""

    @property
    def sound(self) -> bool:
        """Whether nothing that was acknowledged is missing."""
        return not self.damaged and not self.missing_records


def logs_in(data_dir: Path) -> list[str]:
    """Names of the logs that a data directory holds, the events first.

    Raises:
        StorageError: if it holds none.
    """
    found = [log for log in LOGS if (data_dir / log).is_dir()]
    if EVENTS_DIR not in found:
        raise StorageError(f"{data_dir} holds no log named {EVENTS_DIR}")
    return found


def scan_log(
    data_dir: Path, log: str = EVENTS_DIR, from_seq: int | None = None, gateway: str = ""
) -> Iterator[Batch | Damage]:
    """Every batch from `from_seq` on (from the oldest if None), and every damaged range between.

    Raises:
        StorageError: if there is no such log, or it cannot be read.
    """
    contents = look(data_dir, log)
    first = seen = from_seq or 0
    indexes = range(len(contents.segments))
    picked = [index for index in indexes if (end := contents.following(index)) is None or end > seen]

    def start(file: File) -> tuple[int, int | None]:
        return hop(file, contents.log_id, lambda header: header.end > first)

    for item in follow(contents, picked, None if from_seq is None else start):
        if isinstance(item, Loss):
            yield Damage(item.segment, item.offset, item.length_bytes, item.why)
        elif isinstance(item, Unfinished):
            yield item.damage
        elif isinstance(item, Frame) and item.found.header.end > seen:
            batch = decode(item.found.data, item.found.at, item.found.header, gateway)
            if isinstance(batch, Torn):
                yield _undecodable(contents, item, batch)
                continue
            yield batch if batch.seq >= seen else batch.slice(seen - batch.seq, len(batch))
            seen = batch.end


def info(data_dir: Path, log: str = EVENTS_DIR) -> LogInfo:
    """The log in figures. Reads the first bytes of each segment, and the headers in the newest.

    Raises:
        StorageError: if there is no such log, or it cannot be read.
    """
    contents = look(data_dir, log)
    timeline, firsts = read_timeline(contents)
    begin = end = contents.segments[0].start if contents.segments else Position(0, 0)
    newest = None
    for index in reversed(range(len(contents.segments))):
        end = max(end, contents.segments[index].start)
        if (last := _last_header(contents, index)) is not None:
            end, newest = max(end, Position(last.end, last.end_ordinal)), stamp_of(last)
            break
    oldest = next((stamp for stamp in firsts if stamp is not None), None)
    return LogInfo(
        log_id=f"{contents.log_id:016x}" if contents.log_id else "",
        epoch=contents.epoch,
        first_seq=begin.seq,
        end_seq=end.seq,
        records=end.seq - begin.seq,
        events=end.ordinal - begin.ordinal,
        size_bytes=contents.size_bytes,
        segments=[
            SegmentSummary(
                segment.name,
                segment.head.seq,
                segment.size_bytes,
                (end.seq if (bound := contents.following(index)) is None else bound) - segment.head.seq,
            )
            for index, segment in enumerate(contents.segments)
        ],
        oldest_wall_ns=timeline.wall_ns(oldest) if oldest is not None else None,
        newest_wall_ns=timeline.wall_ns(newest) if newest is not None else None,
        damaged=contents.damaged,
    )


def verify(data_dir: Path, log: str = EVENTS_DIR, progress: Callable[[int], None] | None = None) -> VerifyReport:
    """Check every frame's checksum, that it decodes, and the run of sequence numbers.

    Args:
        data_dir: the data directory.
        log: which of its logs.
        progress: told how many bytes have been read since the last call.

    Raises:
        StorageError: if there is no such log, or it cannot be read.
    """
    return report_on(look(data_dir, log), progress)


def report_on(contents: Contents, progress: Callable[[int], None] | None = None) -> VerifyReport:
    """`verify`, of what was looked at already."""
    frames = records = leftovers = written_off = 0
    damaged: list[Loss] = []
    tail: Damage | None = None
    for item in follow(contents, progress=progress):
        if isinstance(item, Frame):
            frames += 1
            header = item.found.header
            batch = decode(item.found.data, item.found.at, header, "")
            if isinstance(batch, Torn):
                damaged.append(Loss(*_undecodable(contents, item, batch), header.seq, header.end))
            else:
                records += len(batch)
        elif isinstance(item, Loss):
            damaged.append(item)
        elif isinstance(item, Unfinished):
            tail = item.damage
        elif isinstance(item, WrittenOff):
            written_off += item.range.records
        else:
            leftovers += isinstance(item, Leftover)
            assert isinstance(item, Leftover | Evicted), "nothing else is ever seen"
    missing = sum(loss.to_seq - loss.from_seq for loss in damaged)
    return VerifyReport(frames, records, contents.size_bytes, damaged, missing, tail, leftovers, written_off)


def _undecodable(contents: Contents, frame: Frame, torn: Torn) -> Damage:
    """A frame whose checksum is right and whose body is not: the writer itself was broken."""
    found = frame.found
    return Damage(contents.segments[frame.segment].name, found.offset, found.header.frame_bytes, torn.why)


def _last_header(contents: Contents, index: int) -> Header | None:
    """Of the last frame of a segment that counts."""

    def where_hopping_ends(file: File) -> tuple[int, int | None]:
        return hop(file, contents.log_id, lambda _: False)

    found = [item.found.header for item in follow(contents, [index], where_hopping_ends) if isinstance(item, Frame)]
    return found[-1] if found else None

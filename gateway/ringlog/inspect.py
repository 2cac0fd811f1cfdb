"""Looking at a log without opening it: read-only, no lock, fine beside a running gateway.

Beside a running gateway the last frames may still be on their way: what looks torn at the very end of the newest
segment is then the gateway's own unfinished write.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from gateway.errors import StorageError
from gateway.model import Batch, Kind
from gateway.ringlog.frame import Torn, decode
from gateway.ringlog.recovery import survey
from gateway.ringlog.segment import HEAD_BYTES, Damage, locate, scan
from gateway.ringlog.storage import DiskStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.ringlog.recovery import SegmentInfo


class SegmentSummary(msgspec.Struct, frozen=True):
    """One segment."""

    name: str
    first_seq: int
    size_bytes: int
    records: int


class LogInfo(msgspec.Struct, frozen=True):
    """A log in figures."""

    log_id: str
    epoch: int
    first_seq: int
    end_seq: int
    records: int
    events: int
    size_bytes: int
    segments: list[SegmentSummary]
    oldest_wall_ns: int | None
    newest_wall_ns: int | None
    damaged: list[Damage]


class VerifyReport(msgspec.Struct, frozen=True):
    """Every byte of a log, checked."""

    frames: int
    records: int
    size_bytes: int
    damaged: list[Damage]
    missing_records: int
    """Numbers between the first and the last record that no valid frame holds."""
    torn_tail: Damage | None
    """Cut off at the next start; never acknowledged."""

    @property
    def sound(self) -> bool:
        """Whether nothing that was acknowledged is missing."""
        return not self.damaged and not self.missing_records


def scan_log(
    data_dir: Path, log: str = "events", from_seq: int | None = None, gateway: str = ""
) -> Iterator[Batch | Damage]:
    """Every batch from `from_seq` on (from the oldest if None), and every damaged range between.

    Raises:
        StorageError: if there is no such log, or it cannot be read.
    """
    seen = from_seq if from_seq is not None else 0
    for segment, item, batch in _walk(data_dir, log, from_seq, gateway):
        if isinstance(item, Damage):
            yield item
        elif isinstance(batch, Torn):
            yield Damage(segment.name, item, 0, batch.why)
        elif batch is not None and batch.end > seen:
            yield batch if batch.seq >= seen else batch.slice(seen - batch.seq, len(batch))
            seen = batch.end


def info(data_dir: Path, log: str = "events") -> LogInfo:
    """The log in figures. Reads all of it.

    Raises:
        StorageError: if there is no such log, or it cannot be read.
    """
    segments, broken = _survey(data_dir, log)
    records = dict.fromkeys((segment.name for segment in segments), 0)
    sizes: dict[str, int] = dict.fromkeys(records, HEAD_BYTES)
    damaged = list(broken)
    events, first, end, epoch = 0, None, 0, 0
    oldest: int | None = None
    newest: int | None = None
    for segment, item, batch in _walk(data_dir, log, None, ""):
        if isinstance(item, Damage):
            damaged.append(item)
        elif isinstance(batch, Batch) and batch.end > end:
            first = batch.seq if first is None else first
            end, epoch = batch.end, batch.origin.epoch
            records[segment.name] += len(batch)
            events += len(batch) if batch.kind is Kind.EVENTS else 0
            oldest = batch.stamp.wall_ns if oldest is None else oldest
            newest = batch.stamp.wall_ns
    for segment in segments:
        sizes[segment.name] = segment.size_bytes
    return LogInfo(
        log_id=f"{segments[-1].head.log_id:016x}" if segments else "",
        epoch=epoch,
        first_seq=first or 0,
        end_seq=end,
        records=sum(records.values()),
        events=events,
        size_bytes=sum(sizes.values()),
        segments=[SegmentSummary(s.name, s.head.seq, s.size_bytes, records[s.name]) for s in segments],
        oldest_wall_ns=oldest,
        newest_wall_ns=newest,
        damaged=damaged,
    )


def verify(data_dir: Path, log: str = "events") -> VerifyReport:
    """Check every frame's checksum and the run of sequence numbers.

    Raises:
        StorageError: if there is no such log, or it cannot be read.
    """
    segments, damaged = _survey(data_dir, log)
    damaged = list(damaged)
    frames = records = missing = 0
    end: int | None = None
    tail: Damage | None = None
    for segment, item, batch in _walk(data_dir, log, None, ""):
        if isinstance(item, Damage):
            if segment is segments[-1] or segment.name == segments[-1].name:
                tail = item
            else:
                damaged.append(item)
            continue
        if tail is not None:  # something valid follows: it was no tail
            damaged.append(tail)
            tail = None
        frames += 1
        if isinstance(batch, Torn):
            damaged.append(Damage(segment.name, item, 0, batch.why))
        elif isinstance(batch, Batch):
            records += len(batch)
            missing += max(0, batch.seq - end) if end is not None else 0
            end = max(batch.end, end or 0)
    return VerifyReport(frames, records, sum(s.size_bytes for s in segments), damaged, missing, tail)


def _survey(data_dir: Path, log: str) -> tuple[list[SegmentInfo], list[Damage]]:
    directory = data_dir / log
    if not directory.is_dir():
        raise StorageError(f"{data_dir} holds no log named {log}")
    try:
        return survey(DiskStorage(), directory)
    except OSError as error:
        raise StorageError(f"cannot read {directory}: {error}") from error


def _walk(
    data_dir: Path, log: str, from_seq: int | None, gateway: str
) -> Iterator[tuple[SegmentInfo, Damage, None] | tuple[SegmentInfo, int, Batch | Torn]]:
    segments, _ = _survey(data_dir, log)
    storage = DiskStorage()
    for index, segment in enumerate(segments):
        following = segments[index + 1].head.seq if index + 1 < len(segments) else None
        if from_seq is not None and following is not None and following <= from_seq:
            continue
        try:
            file = storage.open(data_dir / log / segment.name)
        except FileNotFoundError:  # evicted by the running gateway
            continue
        with contextlib.closing(file):
            start = HEAD_BYTES if from_seq is None else locate(file, from_seq, segment.head.log_id)
            for found in scan(file, segment.name, segment.head.log_id, start):
                if isinstance(found, Damage):
                    yield segment, found, None
                else:
                    yield segment, found.offset, decode(found.data, found.at, found.header, gateway)

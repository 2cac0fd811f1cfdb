"""Finding records by when they happened, without reading those that happened at another time.

Each segment's first frame header stands at a fixed place, so that 156 bytes a segment tell between which times its
records lie (`gateway.ringlog.timeline`, which also says what that relies on); within a segment one hops over headers.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from gateway.model import Batch, Stamp
from gateway.ringlog.contents import Evicted, Frame, Loss, Range, follow, look, open_patiently
from gateway.ringlog.frame import HEADER_BYTES, Header, NeedMore, Torn, decode, peek
from gateway.ringlog.segment import HEAD_BYTES
from gateway.ringlog.timeline import EVER_NS, Timeline, boots_in_doubt, spans, timeline_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.ringlog.contents import Contents
    from gateway.ringlog.storage import File

_HOP_BYTES = 4_096
"""Of this much, bodies that are long are not read at all, and headers that are close are read together."""


class Timed(NamedTuple):
    """A batch, and when it happened: corrected, UTC, ns since 1970."""

    batch: Batch
    wall_ns: int


class Window:
    """The records of one log in `[from_ns, to_ns)`, by corrected wall time."""

    def __init__(self, data_dir: Path, log: str, from_ns: int = -EVER_NS, to_ns: int = EVER_NS) -> None:
        """Find out which segments to read.

        Raises:
            StorageError: if there is no such log, or it cannot be read.
        """
        self._contents = look(data_dir, log)
        self._from_ns, self._to_ns = from_ns, to_ns
        self.timeline, firsts = read_timeline(self._contents)
        found = enumerate(spans(self.timeline, firsts))
        self._picked = [index for index, span in found if span.touches(from_ns, to_ns)]
        self.size_bytes = sum(self._contents.segments[index].size_bytes for index in self._picked)
        """What there is to read, at most."""

    def __iter__(self) -> Iterator[Timed | Loss | Range]:
        """See `read`."""
        return self.read()

    def read(self, gateway: str = "", progress: Callable[[int], None] | None = None) -> Iterator[Timed | Loss | Range]:
        """Every batch, oldest first; what was damaged in the segments read; numbers evicted before they were read.

        Args:
            gateway: for the ids of records.
            progress: told how many bytes have been read since the last call; in all, `size_bytes`.

        Raises:
            StorageError: if a segment cannot be opened.
        """
        begin = None if self._from_ns == -EVER_NS else self._begin
        for item in follow(self._contents, self._picked, begin, progress):
            if isinstance(item, Loss):
                yield item
            elif isinstance(item, Evicted):
                yield item.range
            elif isinstance(item, Frame) and self._holds(item.found.header):
                header = item.found.header
                batch = decode(item.found.data, item.found.at, header, gateway)
                if isinstance(batch, Torn):
                    name = self._contents.segments[item.segment].name
                    yield Loss(name, item.found.offset, header.frame_bytes, batch.why, header.seq, header.end)
                else:
                    yield Timed(batch, self._wall_ns(header))

    def _begin(self, file: File) -> tuple[int, int | None]:
        return hop(file, self._contents.log_id, lambda header: self._wall_ns(header) >= self._from_ns)

    def _holds(self, header: Header) -> bool:
        return self._from_ns <= self._wall_ns(header) < self._to_ns

    def _wall_ns(self, header: Header) -> int:
        return self.timeline.wall_ns(stamp_of(header))


def seek_time(data_dir: Path, log: str, wall_ns: int) -> int | None:
    """The number of the first record whose corrected time is at or after `wall_ns`; None if there is none.

    What follows it need not be later too, where a clock was moved: filter by `Window.timeline`.

    Raises:
        StorageError: if there is no such log, or it cannot be read.
    """
    return next((found.batch.seq for found in Window(data_dir, log, wall_ns) if isinstance(found, Timed)), None)


def read_timeline(contents: Contents) -> tuple[Timeline, list[Stamp | None]]:
    """Corrected times, and the stamp of each segment's first record. Reads 156 bytes a segment.

    Where a boot's segments all begin before its clock was right, the last of them is read, too.
    """
    firsts = [_first_stamp(contents, index) for index in range(len(contents.segments))]
    # One header's word, unchecked, is not enough to move other records by it.
    newest = {stamp.boot_id: index for index, stamp in enumerate(firsts) if stamp is not None and stamp.synced}
    told = [_synced_stamp(contents, index, newest=False) for index in newest.values()]
    told += [_synced_stamp(contents, index, newest=True) for index in boots_in_doubt(firsts)]
    return timeline_of(stamp for stamp in told if stamp is not None), firsts


def stamp_of(header: Header) -> Stamp:
    """The clocks of a frame."""
    return Stamp(header.wall_ns, header.mono_ns, header.elapsed_ns, header.boot_id, header.synced)


def hop(file: File, log_id: int, found: Callable[[Header], bool]) -> tuple[int, int | None]:
    """From header to header, without looking at bodies or checksums.

    A header that is damaged may point anywhere. So where the hopping meets anything but the next number it goes back to
    the frame from which it came, and leaves the rest to a scan.

    Returns:
        Where the first header stands that is `found`, else the last one of all; and the number at which it begins, None
        if it is the first.
    """
    window, base = b"", HEAD_BYTES
    offset, expected = HEAD_BYTES, None
    came_from: tuple[int, int | None] = HEAD_BYTES, None
    while True:
        at = offset - base
        header = peek(window, at, log_id) if at < len(window) else NeedMore(HEADER_BYTES)
        if isinstance(header, NeedMore):
            window, base = file.read(_HOP_BYTES, offset), offset
            if len(window) < HEADER_BYTES:
                return came_from
            continue
        if isinstance(header, Torn) or expected not in (None, header.seq):
            return came_from
        if found(header):
            return offset, expected
        came_from = offset, expected
        offset, expected = offset + header.frame_bytes, header.end


def _first_stamp(contents: Contents, index: int) -> Stamp | None:
    path = contents.directory / contents.segments[index].name
    with contextlib.suppress(OSError), contextlib.closing(open_patiently(path)) as file:
        header = peek(file.read(HEADER_BYTES, HEAD_BYTES), 0, contents.log_id)
        return stamp_of(header) if isinstance(header, Header) else None
    return None


def _synced_stamp(contents: Contents, index: int, *, newest: bool) -> Stamp | None:
    """The first synchronised stamp of a segment, or its newest."""
    stamp: Stamp | None = None
    for item in follow(contents, [index]):
        if isinstance(item, Frame) and item.found.header.synced:
            stamp = stamp_of(item.found.header)
            if not newest:
                break
    return stamp

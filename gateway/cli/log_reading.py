"""Reading a log's end without reading the whole log: the newest records, and what comes after them.

Invariants:
- Only as many segments are read as it takes to find the wanted records, counted from the newest.
- Nothing is locked and nothing is written: a gateway may be running on the directory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from gateway.errors import StorageError
from gateway.model import Batch
from gateway.ringlog import inspect
from gateway.ringlog.recovery import survey
from gateway.ringlog.storage import DiskStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gateway.model import Event
    from gateway.ringlog.segment import Damage

FOLLOW_EVERY_S = 0.2


def newest(
    place: Path, wanted: Callable[[Batch], list[Event]], last: int
) -> tuple[list[tuple[Batch, Event]], list[Damage], int]:
    """The newest records that are wanted.

    Args:
        place: the data directory.
        wanted: picks records out of a batch.
        last: how many, at most.

    Returns:
        The records with their batches, oldest first; the damage met on the way; the number after the newest record of
        all, wanted or not.

    Raises:
        StorageError: there is no log, or it cannot be read.
    """
    starts = _segment_starts(place)
    segments = 1
    while True:
        start = starts[-segments] if segments < len(starts) else None
        found: deque[tuple[Batch, Event]] = deque(maxlen=last)
        damaged: list[Damage] = []
        end = 0
        for item in inspect.scan_log(place, from_seq=start):
            if isinstance(item, Batch):
                end = item.end
                found.extend((item, event) for event in wanted(item))
            else:
                damaged.append(item)
        if start is None or len(found) >= last:
            return list(found), damaged, end
        segments *= 4


def _segment_starts(place: Path) -> list[int]:
    try:
        return [segment.head.seq for segment in survey(DiskStorage(), place / "events")[0]]
    except OSError as error:
        raise StorageError(f"cannot read the log in {place}: {error.strerror}") from error


async def follow(place: Path, seq: int, wanted: Callable[[Batch], list[Event]]) -> AsyncIterator[tuple[Batch, Event]]:
    """Records from `seq` on, as they are written. Never ends by itself."""
    while True:
        for item in inspect.scan_log(place, from_seq=seq):
            # What looks damaged at the growing end is a write under way: it is read again, whole, next time.
            if isinstance(item, Batch):
                seq = item.end
                for event in wanted(item):
                    yield item, event
        await asyncio.sleep(FOLLOW_EVERY_S)

"""Reading a log's end without reading the whole log: the newest records, and what comes after them.

Invariants:
- Only as many segments are read as it takes to find the wanted records, counted from the newest.
- Nothing is locked and nothing is written: a gateway may be running on the directory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from gateway.model import Batch
from gateway.ringlog import contents, inspect
from gateway.ringlog.by_time import read_timeline
from gateway.ringlog.frame import decode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gateway.model import Event
    from gateway.ringlog.contents import Loss
    from gateway.ringlog.timeline import Timeline

FOLLOW_EVERY_S = 0.2


class Newest(NamedTuple):
    """The end of a log."""

    records: list[tuple[Batch, Event]]
    """Oldest first."""
    losses: list[Loss]
    """Damage in the segments that were read."""
    end: int
    """The number after the newest record of all, wanted or not."""
    timeline: Timeline
    """When records happened."""


def newest(place: Path, wanted: Callable[[Batch], list[Event]], last: int, log: str = "events") -> Newest:
    """The newest records that are wanted.

    Args:
        place: the data directory.
        wanted: picks records out of a batch.
        last: how many, at most.
        log: which of its logs.

    Raises:
        StorageError: there is no log, or it cannot be read.
    """
    held = contents.look(place, log)
    timeline, _ = read_timeline(held)
    begin, step = len(held.segments), 1
    while True:
        begin = max(0, begin - step)
        found: deque[tuple[Batch, Event]] = deque(maxlen=last)
        losses: list[Loss] = []
        end = held.segments[begin].head.seq if held.segments else 0
        for item in contents.follow(held, range(begin, len(held.segments))):
            if isinstance(item, contents.Loss):
                losses.append(item)
            elif isinstance(item, contents.Frame):
                header = item.found.header
                end = header.end
                batch = decode(item.found.data, item.found.at, header, "")
                if isinstance(batch, Batch):
                    found.extend((batch, event) for event in wanted(batch))
        if begin == 0 or len(found) >= last:
            return Newest(list(found), losses, end, timeline)
        step *= 4


async def follow(
    place: Path, seq: int, wanted: Callable[[Batch], list[Event]], log: str = "events"
) -> AsyncIterator[tuple[Batch, Event]]:
    """Records from `seq` on, as they are written. Never ends by itself."""
    while True:
        for item in inspect.scan_log(place, log, seq):
            # What looks damaged at the growing end is a write under way: it is read again, whole, next time.
            if isinstance(item, Batch):
                seq = item.end
                for event in wanted(item):
                    yield item, event
        await asyncio.sleep(FOLLOW_EVERY_S)

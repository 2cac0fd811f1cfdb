"""Logs as plain bytes with known contents, ways to damage them, and what must be left of a log after that.

What must be left is worked out from the layout that `docs/log-format.md` publishes, by `frames_of` and `slots_of`,
which share no code with the gateway. `Log.left` says which records and gaps remain if certain frames are lost.
`tests.crash.bench` lays such bytes into a directory, opens it, and reads what is really left.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from gateway.model import Gap, Kind, Position

SEGMENT_HEAD_BYTES = 64
FRAME_HEAD_BYTES = 92
SLOT_BYTES = 4_096
Record = tuple[int, Kind, str, bytes]
"""Sequence number, kind, topic, payload."""


class Frame(NamedTuple):
    """Where a frame of an undamaged segment lies, and what it holds."""

    start: int
    stop: int
    seq: int
    end: int
    ordinal: int
    end_ordinal: int


class Left(NamedTuple):
    """What a reader gets of a log."""

    records: list[Record]
    gaps: list[Gap]

    def should_be(self, other: Left, case: str = "") -> None:
        """Fail with what differs, in a few words, unless this is equal to the other."""
        if self != other:
            have, want = set(self.records), set(other.records)
            missing, extra = sorted(r[0] for r in want - have), sorted(r[0] for r in have - want)
            raise AssertionError(
                f"{case}: missing {missing[:9]}, wrong or unexpected {extra[:9]}, "
                f"gaps {self.gaps}, expected {other.gaps}"
                + ("" if missing or extra or self.gaps != other.gaps else "; order or repeats differ")
            )


@dataclass(frozen=True)
class Log:
    """A log as it lies on disk, undamaged, and what is in it."""

    files: dict[str, bytes]
    """By name; the segments and `meta`."""
    records: list[Record]
    epoch: int

    @property
    def segments(self) -> list[str]:
        """Names, in order."""
        return sorted(name for name in self.files if name.endswith(".seg"))

    @cached_property
    def frames(self) -> list[Frame]:
        """Of all segments, in order."""
        return [frame for name in self.segments for frame in frames_of(self.files[name])]

    def with_bytes(self, name: str, data: bytes) -> dict[str, bytes]:
        """The files, one of them changed."""
        return {**self.files, name: data}

    def left(self, lost: Collection[Frame], start: Position = Position(0, 0)) -> Left:
        """What must be read from `start` on if exactly these frames are lost; at the very end they were a torn tail."""
        records: list[Record] = []
        gaps: list[Gap] = []
        place = start
        for frame in self.frames:
            if frame in lost or frame.end <= place.seq:
                continue
            if frame.seq > place.seq:
                gaps.append(Gap(place.seq, frame.seq, frame.ordinal - place.ordinal, "damaged"))
            records += self.records[max(frame.seq, place.seq) : frame.end]
            place = Position(frame.end, frame.end_ordinal)
        return Left(records, gaps)


def frames_of(segment: bytes) -> list[Frame]:
    """The frames of an undamaged segment, by the published layout alone."""
    frames = []
    start = SEGMENT_HEAD_BYTES
    while segment[start : start + 4] == b"EGLF":
        kind = Kind(segment[start + 5])
        (records, seq, ordinal) = struct.unpack_from("<IQQ", segment, start + 20)
        (stored_bytes,) = struct.unpack_from("<I", segment, start + 80)
        stop = start + FRAME_HEAD_BYTES + stored_bytes
        events = records if kind is Kind.EVENTS else 0
        frames.append(Frame(start, stop, seq, seq + records, ordinal, ordinal + events))
        start = stop
    return frames


def hit(frames: Iterable[Frame], good: bytes, bad: bytes) -> list[Frame]:
    """Those of the frames whose bytes are not what they were."""
    return [frame for frame in frames if good[frame.start : frame.stop] != bad[frame.start : frame.stop]]


class Slot(NamedTuple):
    """A written slot of a two-slot file."""

    start: int
    stop: int
    generation: int


def slots_of(data: bytes) -> list[Slot]:
    """The written slots of an undamaged two-slot file, the newest first, by the published layout alone."""
    slots = []
    for start in (0, SLOT_BYTES):
        if data[start : start + 4] == b"EGSL":
            length, generation = struct.unpack_from("<IQ", data, start + 4)
            stop = start + 20 + length
            slots.append(Slot(start, stop, generation))
    return sorted(slots, key=lambda slot: -slot.generation)


def flipped(data: bytes, *bits: int) -> bytes:
    """The bytes with some bits the other way round."""
    changed = bytearray(data)
    for bit in bits:
        changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


def sample(rng: random.Random, total: int, count: int) -> Iterable[int]:
    """All of `range(total)` if that is asked for; else both ends, an even half and a random half."""
    if count >= total:
        return range(total)
    even = range(0, total, max(1, 2 * total // count))
    return sorted({0, total - 1, *even, *rng.sample(range(total), count - count // 2)})

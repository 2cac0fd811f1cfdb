"""S6: bits that turn over, and sectors half written, blanked, or written in the wrong place.

The damage strikes a full segment of 16 KiB, once with a segment behind it (mid-log), once as the last of the log. Only
the records of damaged frames may be missing: mid-log they come as a gap, the last ones of the log as a torn tail.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.model import Position
from gateway.ringlog.storage import DiskFile
from tests.crash.bench import LONGEST_FRAME_BYTES, Bench, CalmStorage, build, fill, without_tail
from tests.crash.damage import Frame, Log, flipped, frames_of, hit, sample
from tests.crash.figures import keep, share

SEGMENT_BYTES = 16_384
BITS = SEGMENT_BYTES * 8
SECTOR_BYTES = 512
BLOCK_BYTES = 4_096
CODECS = pytest.mark.parametrize("compress", [False, True], ids=["plain", "zstd"])
PLACES = pytest.mark.parametrize("mid_log", [True, False], ids=["mid-log", "at the tail"])
LONG = pytest.mark.timeout(3_600)
ALL_LEFT = "0 wrong payloads, exactly the damaged frames lost and counted"


class Patient:
    """A log of which one segment is damaged in many ways, one after the other."""

    def __init__(self, bench: Bench, rng: random.Random, *, mid_log: bool) -> None:
        log = build(bench, rng)
        self.bench, self.rng = bench, rng
        self.log = log if mid_log else without_tail(log)
        self.name = log.segments[1]
        self.good = log.files[self.name]
        self.frames = frames_of(self.good)

    async def endures(self, bad: bytes, *, thoroughly: bool = False) -> None:
        """One case: damaged like this, exactly the frames that were hit are lost, wherever one starts to read."""
        bench, log = self.bench, self.log
        lost = hit(self.frames, self.good, bad)
        bench.lay(log.with_bytes(self.name, bad))
        ring = bench.open()
        left = log.left(lost)
        found = await bench.read(ring)
        found.should_be(left, f"read from the beginning, hit {lost}")
        assert ring.appended.seq == left.records[-1][0] + 1
        assert not lost or ring.recovered.torn or ring.recovered.damaged or left.gaps, "damage is told"
        if thoroughly:
            start = self.somewhere(lost)
            (await bench.read(ring, start)).should_be(log.left(lost, start), f"read from {start}, hit {lost}")
            await bench.goes_on(ring, found)

    def somewhere(self, lost: list[Frame]) -> Position:
        """A place where a consumer may have stood: the beginning of a frame that is whole, in the damaged segment."""
        whole = [frame for frame in self.frames if frame not in lost] or self.log.frames[:1]
        frame = self.rng.choice(whole)
        return Position(frame.seq, frame.ordinal)


def codec(bench: Bench) -> str:
    return "zstd" if bench.compress else "plain"


@LONG
@CODECS
@PLACES
async def test_a_flipped_bit_costs_the_records_of_its_frame_and_no_others(rng, seed, compress, mid_log):
    """Law L5: damage costs the damaged records alone; a bit of the segment's own header costs none at all."""
    with Bench.on_light_storage(compress=compress) as bench:
        patient = Patient(bench, rng, mid_log=mid_log)
        lengths = {(frame.start + 80) * 8 + bit for frame in patient.frames for bit in range(4, 12)}
        bits = sorted({*sample(rng, BITS, share(450, BITS)), *range(0, 64 * 8, share(7, 1)), *lengths})
        for number, bit in enumerate(bits):
            await patient.endures(flipped(patient.good, bit), thoroughly=number % 20 == 0 or bit in lengths)
    place = "mid-log" if mid_log else "last"
    done = f"{len(bits):,} bits of a {place} segment of {SEGMENT_BYTES:,} B, {codec(bench)}"
    keep("S6", "one bit flipped", done, ALL_LEFT, seed=seed)


@LONG
@CODECS
async def test_two_flipped_bits_cost_the_records_of_their_frames_and_no_others(rng, seed, compress):
    """Law L5: the checksum sees any two bits of a frame, and two damaged frames are two gaps, or one if they adjoin."""
    with Bench.on_light_storage(compress=compress) as bench:
        patient = Patient(bench, rng, mid_log=True)
        count = share(500, 50_000)
        for number in range(count):
            first = rng.randrange(BITS)
            second = (first + rng.randrange(1, rng.choice((256, BITS)))) % BITS
            await patient.endures(flipped(patient.good, first, second), thoroughly=number % 50 == 0)
    keep("S6", "two bits flipped", f"{count:,} pairs, {codec(bench)}", ALL_LEFT, seed=seed)


def sectors(rng: random.Random, good: bytes, count: int) -> Iterator[bytes]:
    """The segment with one sector blanked, half written, or holding another one's bytes."""
    places = len(good) // SECTOR_BYTES
    for _ in range(count):
        start = rng.randrange(places) * SECTOR_BYTES
        old = good[start : start + SECTOR_BYTES]
        other = rng.randrange(places) * SECTOR_BYTES
        stray = good[other : other + SECTOR_BYTES]
        cut = rng.randrange(SECTOR_BYTES)
        blank = bytes(SECTOR_BYTES)
        new = rng.choice((blank, old[:cut] + blank[cut:], blank[:cut] + old[cut:], stray, old[:cut] + stray[cut:]))
        yield good[:start] + new + good[start + SECTOR_BYTES :]


@LONG
@CODECS
@PLACES
async def test_a_damaged_sector_costs_the_records_of_its_frames_and_no_others(rng, seed, compress, mid_log):
    """Law L5: a sector that was shorn, blanked or overwritten with another one costs the frames that lay in it."""
    with Bench.on_light_storage(compress=compress) as bench:
        patient = Patient(bench, rng, mid_log=mid_log)
        count = share(300, 25_000)
        for number, bad in enumerate(sectors(rng, patient.good, count)):
            await patient.endures(bad, thoroughly=number % 50 == 0)
    place = "mid-log" if mid_log else "last"
    keep("S6", "sector shorn, blanked or misplaced", f"{count:,} sectors {place}, {codec(bench)}", ALL_LEFT, seed=seed)


@LONG
@CODECS
async def test_damage_beneath_a_running_gateway_costs_the_damaged_frame_alone(rng, seed, compress):
    """Law L5: a card that loses a frame of the very segment that is being written stops no reader at it."""
    with Bench.on_light_storage(compress=compress) as bench:
        bench.lay({})
        ring = bench.open()
        records = fill(bench, ring, rng, SEGMENT_BYTES - LONGEST_FRAME_BYTES)
        name = f"{0:020d}.seg"
        log = Log({name: (bench.directory / name).read_bytes()}, records, ring.epoch)
        frames = [frame for frame in log.frames if frame.end <= ring.tip_start().seq]
        assert len(frames) < len(log.frames), "the last frames are read from memory"
        count = share(200, 4_000)
        for number in range(count):
            frame = frames[-1] if number % 10 == 0 else rng.choice(frames)
            bad = flipped(log.files[name], rng.randrange(frame.start * 8, frame.stop * 8))
            (bench.directory / name).write_bytes(bad)
            (await bench.read(ring)).should_be(log.left([frame]), f"hit {frame} of {frames}")
    keep("S6", "one bit flipped beneath a running gateway", f"{count:,} bits, {codec(bench)}", ALL_LEFT, seed=seed)


class CountingStorage(CalmStorage):
    """Knows how much was read."""

    read_bytes = 0

    def open(self, path: Path, *, writable: bool = False) -> SimpleNamespace:
        file = super().open(path, writable=writable)
        read = file.read

        def count(size_bytes: int, offset: int) -> bytes:
            data = read(size_bytes, offset)
            self.read_bytes += len(data)
            return data

        return SimpleNamespace(
            **{name: getattr(file, name) for name in ("write", "sync", "truncate", "allocate", "size_bytes", "close")},
            read=count,
        )


async def test_a_damaged_frame_full_of_false_beginnings_is_passed_in_one_go():
    """Law L13: what a device puts into a payload does not decide how long the search behind damage takes."""
    with Bench.on_light_storage(segment_bytes=400_000) as bench:
        ring = bench.open()
        bench.append(ring, [b"EGLF" * 60_000])
        bench.append(ring, [b"after"])
        ring.close()
        (segment,) = bench.directory.glob("*.seg")
        data = segment.read_bytes()
        segment.write_bytes(flipped(data, 70 * 8))
        bench.storage = storage = CountingStorage()
        found = await bench.read(bench.open())
        assert [seq for seq, *_ in found.records] == [1]
        assert storage.read_bytes < 20 * len(data), "every false beginning costs a look, not a read of a megabyte"


class BadBlockStorage(CalmStorage):
    """A medium of which one block cannot be read any more."""

    def __init__(self, path: Path, start: int) -> None:
        self._inode, self._start = path.stat().st_ino, start

    def open(self, path: Path, *, writable: bool = False) -> DiskFile:
        file = super().open(path, writable=writable)
        return BadBlockFile(file._fd, self._start) if path.stat().st_ino == self._inode else file


class BadBlockFile(DiskFile):
    __slots__ = ("_bad",)

    def __init__(self, fd: int, bad: int) -> None:
        super().__init__(fd)
        self._bad = bad

    def read(self, size_bytes: int, offset: int) -> bytes:
        if offset < self._bad + BLOCK_BYTES and self._bad < offset + size_bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size_bytes, offset)


@CODECS
@PLACES
@pytest.mark.parametrize("block", range(SEGMENT_BYTES // BLOCK_BYTES))
async def test_a_block_that_cannot_be_read_costs_the_records_of_its_frames_and_no_others(rng, compress, mid_log, block):
    """Law L5: a bad sector answers with EIO, not with wrong bytes; it is damage like any other, and stops nobody."""
    with Bench.on_light_storage(compress=compress) as bench:
        patient = Patient(bench, rng, mid_log=mid_log)
        start = block * BLOCK_BYTES
        lost = [frame for frame in patient.frames if frame.start < start + BLOCK_BYTES and start < frame.stop]
        bench.lay(patient.log.files)
        bench.storage = BadBlockStorage(bench.directory / patient.name, start)
        ring = bench.open()
        left = patient.log.left(lost)
        found = await bench.read(ring)
        found.should_be(left, f"block {block}, hit {lost}")
        assert ring.recovered.torn or ring.recovered.damaged or left.gaps, "damage is told"
        assert patient.good in bench.files().values(), "it may be readable another time: nothing of it was cut off"
        await bench.goes_on(ring, found)

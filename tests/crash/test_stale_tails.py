"""S7: what a card may leave behind the last frame: zeros, noise, and old bytes with a good checksum. No record in any.

The tail segment ends with its last frame; the strange bytes are put right behind it, as if the file's size had been
made durable and what was to stand there had not.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from gateway.model import Position
from gateway.ringlog.inspect import info, scan_log
from gateway.ringlog.segment import Damage
from tests.crash.bench import Bench, build
from tests.crash.damage import Log, frames_of, sample
from tests.crash.figures import keep, share

LONG = pytest.mark.timeout(3_600)


class Tail:
    """A log and the place behind its last frame."""

    def __init__(self, bench: Bench, rng: random.Random) -> None:
        self.bench, self.rng = bench, rng
        log = build(bench, rng, tail_bytes=4_000)
        self.name = log.segments[-1]
        self.good = log.files[self.name][: frames_of(log.files[self.name])[-1].stop]
        self.log = replace(log, files=log.with_bytes(self.name, self.good))
        self.end = Position(log.frames[-1].end, log.frames[-1].end_ordinal)
        self.stamp = bench.open().recovered.last_stamp

    async def takes_none_of(self, strange: bytes, *, thoroughly: bool = False) -> None:
        """One case: with these bytes behind the last frame the log is what it was, and goes on."""
        bench, log = self.bench, self.log
        bench.lay(log.with_bytes(self.name, self.good + strange))
        ring = bench.open()
        assert ring.appended == ring.durable == self.end
        assert ring.recovered.last_stamp == self.stamp, "the log's own clock goes on from its last record"
        if strange.strip(b"\0"):
            assert ring.recovered.torn is not None, "what was cut off is told"
        assert (bench.directory / self.name).read_bytes() == self.good, "the segment is cut back to its frames"
        if thoroughly:
            found = await bench.read(ring)
            found.should_be(log.left(()))
            await bench.goes_on(ring, found)


@LONG
async def test_zeros_behind_the_last_frame_are_no_records(rng, seed):
    """Law L2: what a power cut leaves of a grown file holds nothing, however long it is."""
    with Bench.on_light_storage() as bench:
        tail = Tail(bench, rng)
        lengths = [1 + length for length in sample(rng, 8_192, share(2_000, 8_192))]
        for number, length in enumerate(lengths):
            await tail.takes_none_of(bytes(length), thoroughly=number % 40 == 0)
    keep("S7", "zero tail", f"{len(lengths):,} lengths of 1 to 8,192 B", "0 accepted as records", seed=seed)


@LONG
async def test_noise_behind_the_last_frame_is_no_record(rng, seed):
    """Law L2: neither noise alone nor noise that begins like a frame is taken for one."""
    with Bench.on_light_storage() as bench:
        tail = Tail(bench, rng)
        count = share(1_000, 8_192)
        frame = frames_of(tail.good)[-1]
        for number in range(count):
            noise = rng.randbytes(rng.randrange(1, 8_193))
            begun = tail.good[frame.start : frame.start + rng.randrange(frame.stop - frame.start)]
            strange = rng.choice((noise, begun + noise, b"EGLF" * (len(noise) // 4) or b"E", bytes(len(noise)) + noise))
            await tail.takes_none_of(strange, thoroughly=number % 40 == 0)
    keep("S7", "noise in the tail", f"{count:,} tails of 1 to 8,192 B", "0 accepted as records", seed=seed)


def of_another_log(rng: random.Random, compress: bool) -> Log:
    """A log of its own, with the same numbers."""
    with Bench.on_light_storage(compress=compress) as other:
        return build(other, rng, tail_bytes=8_000)


@LONG
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "zstd"])
async def test_valid_frames_of_an_earlier_segment_are_no_records_a_second_time(rng, seed, compress):
    """Laws L2, L3: old blocks of the same log carry good checksums and old numbers: they are passed over, and cut."""
    with Bench.on_light_storage(compress=compress) as bench:
        tail = Tail(bench, rng)
        count = share(300, 2_000)
        old = [tail.log.files[name] for name in tail.log.segments]
        for number in range(count):
            await tail.takes_none_of(stretch(rng, rng.choice(old)), thoroughly=number % 20 == 0)
    done = f"{count:,} stretches of older segments of the log"
    keep("S7", "stale tail, good checksums", f"{done}, {'zstd' if compress else 'plain'}", "0 accepted", seed=seed)


@LONG
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "zstd"])
async def test_valid_frames_of_another_log_are_no_records_of_this_one(rng, seed, compress):
    """Law L5: blocks of a log that lay on the disk before carry its id, and are not ours whatever their numbers."""
    with Bench.on_light_storage(compress=compress) as bench:
        tail = Tail(bench, rng)
        count = share(300, 2_000)
        foreign = of_another_log(rng, compress)
        for number in range(count):
            strange = stretch(rng, foreign.files[rng.choice(foreign.segments)])
            await tail.takes_none_of(strange, thoroughly=number % 20 == 0)
    done = f"{count:,} stretches of segments of another log"
    keep("S7", "stale tail, good checksums", f"{done}, {'zstd' if compress else 'plain'}", "0 accepted", seed=seed)


@LONG
async def test_frames_whose_numbers_a_crash_took_back_are_no_records_of_the_next_opening(rng, seed):
    """Law L3: a number names one event. What an earlier opening wrote under it, and lost, must not come back."""
    with Bench.on_light_storage() as bench:
        log = build(bench, rng, tail_bytes=6_000)
        name = log.segments[-1]
        frames = frames_of(log.files[name])
        count = share(200, 1_000)
        for _ in range(count):
            # A crash loses the end of the tail; the next opening writes a little under the same numbers.
            kept = rng.randrange(1, len(frames) - 1)
            bench.lay(log.with_bytes(name, log.files[name][: frames[kept].start]))
            ring = bench.open()
            written = bench.append(ring, [b"after the crash"] * (frames[kept].end - frames[kept].seq))
            ring.close()
            before = await bench.read(ring)
            # Then the lost blocks turn up again, right behind what was written.
            path = bench.directory / f"{written.seq:020d}.seg"
            path.write_bytes(path.read_bytes() + log.files[name][frames[kept + 1].start : frames[-1].stop])
            ring = bench.open()
            assert ring.appended.seq == written.end
            found = await bench.read(ring)
            found.should_be(before)
            await bench.goes_on(ring, found)
    keep("S7", "tail of a lost opening, due numbers", f"{count:,} tails", "0 accepted as records", seed=seed)


def stretch(rng: random.Random, segment: bytes) -> bytes:
    """Some of a segment: whole frames, or cut out anywhere; close behind the last frame, or after zeros or noise."""
    frames = frames_of(segment)
    if rng.random() < 0.7:
        first = rng.randrange(len(frames))
        part = segment[frames[first].start : frames[rng.randrange(first, len(frames))].stop]
    else:
        start = rng.randrange(len(segment))
        part = segment[start : start + rng.randrange(1, 8_192)]
    return rng.choice((b"", b"", bytes(rng.randrange(600)), rng.randbytes(rng.randrange(1, 600)))) + part


def test_inspection_counts_no_leftover_as_a_record(rng, tmp_path):
    """Law L7: the figures of `gateway log info` are those of the log, not of what lies behind it."""
    bench = Bench(tmp_path / "events")
    tail = Tail(bench, rng)
    older = tail.log.files[tail.log.segments[0]]
    bench.lay(tail.log.with_bytes(tail.name, tail.good + older[frames_of(older)[0].start :]))
    figures = info(tmp_path)
    assert (figures.first_seq, figures.end_seq, figures.records) == (0, tail.end.seq, tail.end.seq)
    assert figures.events == tail.end.ordinal
    batches = [item for item in scan_log(tmp_path) if not isinstance(item, Damage)]
    assert [payload for batch in batches for payload in batch.payloads] == [record[3] for record in tail.log.records]

"""S5: a file that is cut off at any byte. What is left is the longest prefix that is whole, and life goes on."""

from __future__ import annotations

import msgspec
import pytest

from gateway.model import Cursor, DeadLetter, Position
from gateway.ringlog import snapshot
from gateway.ringlog.deadletters import DeadLetters
from tests.crash.bench import LONGEST_FRAME_BYTES, Bench, build
from tests.crash.damage import SEGMENT_HEAD_BYTES, Left, Log, frames_of, sample, slots_of
from tests.crash.figures import keep, share

CUT = "file cut off"
TAIL_BYTES = 65_536


async def cut_tail(bench: Bench, log: Log, length: int, *, whole: bool) -> None:
    """One case: the tail segment ends after `length` bytes; what is left is written to, closed, and opened again."""
    tail = log.segments[-1]
    good = log.files[tail]
    kept = [frame for frame in frames_of(good) if frame.stop <= length]
    last = kept[-1] if kept else log.frames[-len(frames_of(good)) - 1]
    bench.lay(log.with_bytes(tail, good[:length]))
    ring = bench.open()
    assert ring.appended.seq == last.end
    if kept:
        assert (bench.directory / tail).read_bytes() == good[: last.stop]
    else:
        assert not (bench.directory / tail).exists(), "a segment without a record leaves its name to the next"
    begin = last.stop if kept else SEGMENT_HEAD_BYTES if length >= SEGMENT_HEAD_BYTES else 0
    torn = good[begin:length].rstrip(b"\0")
    asides = [path.read_bytes().rstrip(b"\0") for path in bench.directory.glob("*.broken")]
    assert len(asides) == bool(torn), "what is cut off is kept beside the segment, and nothing else is"
    assert all(aside.endswith(torn) for aside in asides)
    assert not kept or asides in ([], [torn]), "of a segment that goes on, what was cut off alone is put aside"
    start = Position(0, 0) if whole else Position(last.seq, last.ordinal)
    found = await bench.read(ring, start)
    found.should_be(Left(log.records[start.seq : last.end], []), f"cut to {length} bytes")
    added = await bench.add_one(ring)
    again = bench.open()
    assert again.recovered.torn is None
    (await bench.read(again, start)).should_be(Left([*found.records, added], []), f"cut to {length} bytes, reopened")


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "zstd"])
@pytest.mark.timeout(1_800)
async def test_a_tail_cut_at_any_byte_keeps_every_whole_frame_before_the_cut(rng, seed, compress):
    """Laws L2, L5: the longest valid prefix is recovered; the log takes appends and opens clean the next time."""
    with Bench.on_light_storage(compress=compress, segment_bytes=TAIL_BYTES) as bench:
        log = build(bench, rng, tail_bytes=TAIL_BYTES - LONGEST_FRAME_BYTES)
        edges = set(range(SEGMENT_HEAD_BYTES + 2)) | {
            frame.stop + step for frame in frames_of(log.files[log.segments[-1]]) for step in (-1, 0, 1)
        }
        lengths = sorted({*sample(rng, TAIL_BYTES + 1, share(600, TAIL_BYTES + 1)), *edges})
        for number, length in enumerate(lengths):
            await cut_tail(bench, log, length, whole=number % 50 == 0)
    codec = "zstd" if compress else "plain"
    done = f"{len(lengths):,} lengths of a {TAIL_BYTES:,} B tail segment, {codec}"
    keep("S5", CUT, done, "longest valid prefix every time, every log writable and reopened clean", seed=seed)


@pytest.mark.timeout(1_800)
async def test_a_cut_cursor_falls_back_to_the_slot_that_is_whole(rng, seed):
    """Law L3: a cursor that was cut off costs duplicates: the older slot counts, and the next store is kept."""
    with Bench.on_light_storage() as bench:
        path = bench.directory / "cloud.cursor"
        older, newer, fresh = Cursor(500, 400), Cursor(70_000, 60_000), Cursor(70_001, 60_001)
        store = bench.cursors()
        for cursor in (older, newer):
            await store.store("cloud", cursor)
        store.close()
        good = path.read_bytes()
        newest, oldest = slots_of(good)
        written = {length for slot in (newest, oldest) for length in range(slot.start, slot.stop + 1)}
        lengths = sorted({*sample(rng, len(good) + 1, share(600, len(good) + 1)), *written})
        for length in lengths:
            path.write_bytes(good[:length])
            store = bench.cursors()
            kept = [(slot, cursor) for slot, cursor in ((newest, newer), (oldest, older)) if slot.stop <= length]
            assert store.load("cloud") == (kept[0][1] if kept else None), length
            assert store.unusable == ([] if kept else ["cloud"])
            await store.store("cloud", fresh)
            store.close()
            assert bench.cursors().load("cloud") == fresh, f"stored after a cut to {length} bytes"
    keep("S5", CUT, f"{len(lengths):,} lengths of a cursor", "the newest whole slot every time", seed=seed)


@pytest.mark.timeout(1_800)
async def test_a_cut_meta_file_costs_the_log_nothing(rng, seed):
    """Laws L3, L5: the segments tell again what the log is called, and no opening gets an epoch that was in use."""
    with Bench.on_light_storage() as bench:
        log = build(bench, rng)
        good = log.files["meta"]
        lengths = sample(rng, len(good) + 1, share(500, len(good) + 1))
        whole = log.left(())
        log_id = bench.open().log_id
        for length in lengths:
            bench.lay(log.with_bytes("meta", good[:length]))
            ring = bench.open()
            assert (ring.log_id, ring.epoch) == (log_id, log.epoch + 1)
            (await bench.read(ring)).should_be(whole, f"cut to {length} bytes")
    keep("S5", CUT, f"{len(lengths):,} lengths of the meta file", "0 records lost, 0 ids reused", seed=seed)


def letter(number: int) -> DeadLetter:
    """A letter that was refused."""
    return DeadLetter("", f"devices/{number}", b"\xff%d" % number, 1, "ingest", "utf8", "not UTF-8", 1, 5, number)


def tail_of(bench: Bench) -> bytes:
    """The only segment that lies there; nothing before the first record."""
    return b"".join(path.read_bytes() for path in bench.directory.glob("*.seg"))


@pytest.mark.timeout(1_800)
async def test_a_cut_dead_letter_log_keeps_every_whole_letter_before_the_cut(rng, seed):
    """Law L5: what could not be processed is kept like everything else."""
    with Bench.on_light_storage(segment_bytes=8_192) as bench:
        ring = bench.open()
        letters = DeadLetters(ring, bench.committer)
        while len(frames := frames_of(tail_of(bench))) < 9:
            letters.append([letter(ring.appended.seq + number) for number in range(rng.randrange(1, 4))])
            bench.write(ring)
        log = Log(bench.files(), [], ring.epoch)
        tail, good = log.segments[0], tail_of(bench)
        lengths = sample(rng, len(good) + 1, share(300, len(good) + 1))
        for length in lengths:
            bench.lay(log.with_bytes(tail, good[:length]))
            ring = bench.open()
            assert ring.appended.seq == max((frame.end for frame in frames if frame.stop <= length), default=0)
            found = await bench.read(ring)
            kept = [msgspec.json.decode(payload, type=DeadLetter) for _, _, _, payload in found.records]
            assert [one.last_wall_ns for one in kept] == list(range(ring.appended.seq))
            DeadLetters(ring, bench.committer).append([letter(99)])
            bench.write(ring)
            ring.close()
            assert (await bench.read(bench.open())).records[-1][0] == ring.appended.seq - 1
    keep(
        "S5", CUT, f"{len(lengths):,} lengths of a dead-letter segment", "every whole letter before the cut", seed=seed
    )


@pytest.mark.timeout(1_800)
def test_a_cut_rules_snapshot_is_as_if_there_were_none(rng, seed):
    """Law L12: half a state is no state; the rules start from the log, and the next snapshot is kept."""
    with Bench.on_light_storage() as bench:
        path = bench.directory / "rules.snapshot"
        snapshot.store(bench.storage, path, rng.randbytes(5_000))
        good = path.read_bytes()
        lengths = sample(rng, len(good), share(500, len(good)))
        for length in lengths:
            path.write_bytes(good[:length])
            assert snapshot.load(bench.storage, path) is None
        snapshot.store(bench.storage, path, b"new")
        assert snapshot.load(bench.storage, path) == b"new"
    keep("S5", CUT, f"{len(lengths):,} lengths of a rules snapshot", "none taken for whole", seed=seed)

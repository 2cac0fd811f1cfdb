"""S13: cursors that were flipped, blanked, swapped, or point into nothing. Duplicates only, never a loss.

A cursor that cannot be used falls back to the other slot, which is older: what it repeats was delivered before. Without
either the consumer is told so (`CursorStore.unusable`) and starts with the oldest record. Cursors that were cut off are
in `test_truncation.py`.
"""

from __future__ import annotations

import pytest

from gateway.model import Cursor, Gap, Position
from tests.crash.bench import Bench, build
from tests.crash.damage import SLOT_BYTES, flipped, sample, slots_of
from tests.crash.figures import keep, share

LONG = pytest.mark.timeout(3_600)
OLDER, NEWER, FRESH = Cursor(500, 400, 3, 390, 5, 2), Cursor(70_000, 60_000, 3, 59_990, 5, 2), Cursor(70_001, 60_001)
NAME = "cloud"
FILE = f"{NAME}.cursor"


async def two_slots(bench: Bench) -> bytes:
    """A cursor file whose slots hold OLDER and NEWER."""
    store = bench.cursors()
    for cursor in (OLDER, NEWER):
        await store.store(NAME, cursor)
    store.close()
    return (bench.directory / FILE).read_bytes()


async def load_and_go_on(bench: Bench, data: bytes) -> Cursor | None:
    """What these bytes are read as. Whatever it is: the next cursor is kept, and a restart finds it."""
    bench.lay({FILE: data})
    store = bench.cursors()
    cursor = store.load(NAME)
    assert store.unusable == ([] if cursor is not None else [NAME]), "a cursor that is there and lost is told"
    await store.store(NAME, FRESH)
    store.close()
    assert bench.cursors().load(NAME) == FRESH
    return cursor


@LONG
async def test_any_flipped_bit_of_a_cursor_falls_back_to_the_other_slot(rng, seed):
    """Law L3: one bit costs duplicates of one cursor's age at most."""
    with Bench.on_light_storage() as bench:
        good = await two_slots(bench)
        newest, oldest = slots_of(good)
        used = [bit for slot in (newest, oldest) for bit in range(slot.start * 8, slot.stop * 8)]
        bits = sorted(
            {*sample(rng, len(good) * 8, share(1_500, len(good) * 8)), *rng.sample(used, share(500, len(used)))}
        )
        for bit in bits:
            expected = OLDER if newest.start <= bit // 8 < newest.stop else NEWER
            assert await load_and_go_on(bench, flipped(good, bit)) == expected, bit
    keep("S13", "one bit of a cursor flipped", f"{len(bits):,} bits", "the undamaged slot every time", seed=seed)


@LONG
async def test_noise_in_a_cursor_is_never_taken_for_one(rng, seed):
    """Law L3: bytes that nobody wrote move nobody's place, and stop no start."""
    with Bench.on_light_storage() as bench:
        good = await two_slots(bench)
        newest, oldest = slots_of(good)
        count = share(1_500, 20_000)
        for number in range(count):
            data, hit = bytearray(good), set()
            for slot in rng.sample((newest, oldest), rng.choice((1, 2))):
                start = rng.randrange(slot.start, slot.stop)
                stop = rng.randrange(start + 1, slot.stop + 1)
                data[start:stop] = rng.choice((rng.randbytes(stop - start), bytes(stop - start)))
                if data[slot.start : slot.stop] != good[slot.start : slot.stop]:
                    hit.add(slot)
            expected = NEWER if newest not in hit else OLDER if oldest not in hit else None
            assert await load_and_go_on(bench, bytes(data)) == expected, number
    keep("S13", "noise in a cursor", f"{count:,} files", "0 taken for a cursor, 0 starts refused", seed=seed)


WHOLE = {
    "empty": b"",
    "one byte": b"E",
    "zeros": bytes(2 * SLOT_BYTES),
    "text": b"position: 42\n",
    "all bits set": b"\xff" * 2 * SLOT_BYTES,
    "longer than any": b"EGSL" * 10_000,
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_cursor_file_that_is_none_is_told_and_replaced(name):
    """Law L3: the consumer is known to have had a cursor, so it sees everything again instead of starting at `now`."""
    with Bench.on_light_storage() as bench:
        assert await load_and_go_on(bench, WHOLE[name]) is None


async def test_a_missing_cursor_is_no_damage():
    """Law: a consumer that never ran starts where its settings say."""
    with Bench.on_light_storage() as bench:
        store = bench.cursors()
        assert store.load(NAME) is None
        assert store.unusable == []


async def test_a_cursor_of_another_log_is_not_used():
    """Law L3: numbers mean nothing in another log; the consumer starts afresh and is told."""
    with Bench.on_light_storage() as bench:
        await two_slots(bench)
        store = bench.cursors(log_id="00000000000000bb")
        assert store.load(NAME) is None
        assert store.unusable == [NAME]


async def test_slots_of_two_logs_in_one_file_give_the_newer_generation_or_nothing():
    """Law L3: a cursor whose newest slot was made for another log is unusable, not silently older."""
    with Bench.on_light_storage() as bench:
        await two_slots(bench)
        other = bench.cursors(log_id="00000000000000bb")
        other.load(NAME)
        await other.store(NAME, FRESH)
        other.close()
        assert bench.cursors().load(NAME) is None
        assert bench.cursors(log_id="00000000000000bb").load(NAME) == FRESH


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "zstd"])
async def test_a_cursor_beyond_the_end_is_brought_back_to_it(rng, compress):
    """Law L3: a card that lied has lost records, not the consumer: it goes on with the next one, and is told."""
    with Bench.on_light_storage(compress=compress) as bench:
        log = build(bench, rng)
        bench.lay(log.files)
        ring = bench.open()
        end = ring.appended
        for beyond in (Position(end.seq + 1, end.ordinal + 1), Position(2**62, 2**62), Position(end.seq, 2**40)):
            reader = bench.reader(ring, beyond)
            assert reader.was_clamped
            assert reader.position == ring.appended
            assert reader.pending_events() == 0
            batch = bench.append(ring, [b"next"])
            assert (await reader.read(10)).payloads == batch.payloads


async def test_a_cursor_before_the_oldest_segment_gets_the_gap_and_then_everything(rng):
    """Laws L6, L7: what is gone is announced once and counted in events, and nothing behind it is missed."""
    with Bench.on_light_storage() as bench:
        log = build(bench, rng)
        first, *rest = log.segments
        bench.lay({name: data for name, data in log.files.items() if name != first})
        ring = bench.open()
        oldest = ring.floor
        assert oldest.seq == int(rest[0][:20])
        for seq in (0, 1, oldest.seq - 1):
            ordinal = sum(1 for record in log.records[:seq] if record[1] == 0)
            found = await bench.read(ring, Position(seq, ordinal))
            assert found.gaps == [Gap(seq, oldest.seq, oldest.ordinal - ordinal, "evicted")]
            assert found.records == log.records[oldest.seq :]


@LONG
async def test_whatever_slot_a_consumer_falls_back_to_it_misses_nothing(rng, seed):
    """Law L3, the whole way: store, damage, load, read on. Records from the true place on come, perhaps some before."""
    with Bench.on_light_storage() as bench:
        log = build(bench, rng)
        bench.lay(log.files)
        ring = bench.open()
        places = [Position(frame.seq, frame.ordinal) for frame in log.frames]
        count = share(300, 5_000)
        repeated = 0
        with Bench.on_light_storage() as shelf:
            for _ in range(count):
                at = rng.randrange(1, len(places))
                before, true = places[rng.randrange(at)], places[at]
                store = shelf.cursors()
                for place in (before, true):
                    await store.store(NAME, Cursor(place.seq, place.ordinal))
                store.close()
                path = shelf.directory / FILE
                data = path.read_bytes()
                path.write_bytes(flipped(data, *rng.sample(range(len(data) * 8), rng.choice((1, 2, 40, 4_000)))))
                cursor = shelf.cursors().load(NAME) or Cursor(0, 0)
                assert cursor.seq <= true.seq, "never ahead of what was settled"
                found = await bench.read(ring, Position(cursor.seq, cursor.ordinal))
                assert found.records[-(len(log.records) - true.seq) :] == log.records[true.seq :]
                assert found.gaps == []
                repeated += true.seq - cursor.seq
                path.unlink()
    keep("S13", "cursor damaged, consumer restarted", f"{count:,} restarts", f"0 lost, {repeated:,} repeats", seed=seed)

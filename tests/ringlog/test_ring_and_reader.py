"""The ring log and its readers, on a real disk: order, marks, eviction, gaps, reopening."""

from __future__ import annotations

import asyncio
import errno
import random

import pytest

from gateway.config.settings import LogSettings
from gateway.errors import LogInUseError
from gateway.model import Gap, Kind, Position
from gateway.ringlog.inspect import info, scan_log, verify
from gateway.ringlog.ring import PATIENCE_RECORDS
from gateway.ringlog.segment import Damage


def payloads(start, count, size=100):
    return [f"{number:08d}".encode().ljust(size, b".") for number in range(start, start + count)]


async def read_all(store, start=Position(0, 0), max_records=1_000):
    reader = store.reader(start, durable_only=True)
    found, gaps = [], []
    while reader.position.seq < store.events.durable.seq:
        item = await reader.read(max_records)
        if isinstance(item, Gap):
            gaps.append(item)
        else:
            assert len(item) <= max_records
            found += [(event.seq, event.payload[:8]) for event in item.events()]
    return found, gaps


async def fill(store, make_batch, start, count, per_batch=10):
    for first in range(start, start + count, per_batch):
        store.events.append(make_batch(payloads(first, per_batch), stamp=store.events.stamp()))
        await store.committer.flush()


async def test_records_come_back_in_order_from_memory_and_from_disk(open_store, make_batch):
    """Law L4: one order, whoever reads, wherever from."""
    store = open_store()
    await fill(store, make_batch, 0, 400)
    found, gaps = await read_all(store)
    assert found == [(n, f"{n:08d}".encode()) for n in range(400)]
    assert gaps == []
    assert len(store.events.layout.segments) > 1, "the test is meant to cross segments"


@pytest.mark.parametrize("max_records", [1, 3, 7, 1_000])
async def test_a_reader_may_take_any_number_at_a_time_and_start_anywhere(open_store, make_batch, max_records):
    """Law: batches are cut to what the reader asks for, never lost between two reads."""
    store = open_store()
    await fill(store, make_batch, 0, 200)
    for start in (0, 1, 9, 10, 155, 199):
        found, _ = await read_all(store, Position(start, start), max_records)
        assert [seq for seq, _ in found] == list(range(start, 200))


async def test_a_reader_of_durable_records_never_sees_one_that_is_not(open_store, make_batch):
    """Law L1: nothing leaves before it is on disk; rules alone may look ahead."""
    store = open_store()
    durable, ahead = (store.reader(Position(0, 0), durable_only=flag) for flag in (True, False))
    store.events.append(make_batch(payloads(0, 5)))
    assert durable.poll(10) is None
    assert len(ahead.poll(10)) == 5
    await store.committer.flush()
    assert len(durable.poll(10)) == 5


async def test_a_waiting_reader_wakes_when_its_mark_moves(open_store, make_batch):
    """Law: nobody polls."""
    store = open_store()
    reader = store.reader(Position(0, 0), durable_only=True)
    waiting = asyncio.create_task(reader.read(10))
    await asyncio.sleep(0)
    assert not waiting.done()
    store.events.append(make_batch(payloads(0, 3)))
    batch = await asyncio.wait_for(waiting, 10)
    assert len(batch) == 3
    assert store.events.durable.seq == 3


async def test_the_ring_stays_within_its_size_and_announces_what_it_gave_up(open_store, make_batch, small):
    """Law L6: bounded, oldest first, and whoever missed something is told how much."""
    store = open_store()
    for first in range(0, 3_000, 50):
        store.events.append(make_batch(payloads(first, 50)))
        await store.committer.flush()
        assert store.events.layout.size_bytes <= small.max_size_bytes + small.segment_size_bytes
    found, gaps = await read_all(store)
    (gap,) = gaps
    assert gap.reason == "evicted"
    assert (gap.from_seq, gap.to_seq) == (0, found[0][0])
    assert gap.events + len(found) == 3_000
    assert [seq for seq, _ in found] == list(range(gap.to_seq, 3_000))


async def test_ordinals_count_events_alone(open_store, make_batch):
    """Law L7: pending is exact although decisions lie between the events."""
    store = open_store()
    for _ in range(4):
        store.events.append(make_batch(payloads(0, 3)))
        store.events.append(make_batch([b"{}"] * 2, kind=Kind.DECISIONS))
    reader = store.reader(Position(0, 0), durable_only=False)
    assert reader.pending_events() == 12
    seen = 0
    while (batch := reader.poll(100)) is not None:
        seen += len(batch) if batch.kind is Kind.EVENTS else 0
        assert reader.pending_events() == 12 - seen
    assert store.events.appended == Position(20, 12)


async def test_a_reopened_log_goes_on_where_it_ended_under_a_new_epoch(open_store, make_batch, clock):
    """Laws L2, L3: nothing durable is lost, and no id ever names two events."""
    store = open_store()
    await fill(store, make_batch, 0, 30)
    first = store.events.origin
    elapsed_ns = store.events.elapsed_ns()
    await store.close()
    clock.advance(60)
    store = open_store()
    assert store.events.appended == Position(30, 30)
    assert store.events.origin.log_id == first.log_id
    assert store.events.origin.epoch == first.epoch + 1
    assert store.events.elapsed_ns() == elapsed_ns + 60 * 10**9
    await fill(store, make_batch, 30, 30)
    found, gaps = await read_all(store)
    assert found == [(n, f"{n:08d}".encode()) for n in range(60)]
    assert gaps == []


@pytest.mark.parametrize(
    ("synced", "wall_step_s", "counted_s"), [(True, 3_600, 3_600), (False, 3_600, 0), (True, -9_999_999, 0)]
)
async def test_a_reboot_counts_the_pause_only_if_both_clocks_were_right(
    open_store, make_batch, clock, synced, wall_step_s, counted_s
):
    """Law L11: elapsed time never goes back and is never guessed from a clock that may jump."""
    clock.is_synced = synced
    store = open_store()
    await fill(store, make_batch, 0, 10)
    before_ns = store.events.elapsed_ns()
    await store.close()
    clock.reboot(wall_ns=clock.wall + wall_step_s * 10**9)
    store = open_store()
    assert store.events.elapsed_ns() - before_ns == counted_s * 10**9


async def test_what_was_cut_off_at_the_tail_is_cut_and_the_rest_is_kept(open_store, make_batch, tmp_path, seed):
    """Law L5: a torn tail costs what was never acknowledged, the log opens, and takes more."""
    rng = random.Random(seed)
    store = open_store()
    await fill(store, make_batch, 0, 40)
    await store.close()
    (segment,) = sorted((tmp_path / "data/events").glob("*.seg"))
    good = segment.read_bytes()
    starts = [0]
    for batch in scan_log(tmp_path / "data"):
        assert not isinstance(batch, Damage)
        starts.append(batch.end)
    for _ in range(60):
        cut = rng.randrange(64, len(good))
        data_dir = tmp_path / f"cut-{cut}"
        (data_dir / "events").mkdir(parents=True, exist_ok=True)
        (data_dir / "events" / segment.name).write_bytes(good[:cut] + bytes(rng.randrange(3) * 50))
        torn = open_store(data_dir=data_dir)
        end = torn.events.appended.seq
        assert end in starts
        await fill(torn, make_batch, end, 10)
        found, gaps = await read_all(torn)
        assert found == [(n, f"{n:08d}".encode()) for n in range(end + 10)]
        assert gaps == []
        await torn.close()


async def test_damage_in_the_middle_costs_the_damaged_frame_alone(open_store, make_batch, tmp_path):
    """Law L5: the records behind the damage are kept, and the reader is told what is missing."""
    store = open_store()
    await fill(store, make_batch, 0, 50)
    await store.close()
    (segment,) = sorted((tmp_path / "data/events").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    place = data.index(b"00000020")
    data[place + 30] ^= 0x10
    segment.write_bytes(data)
    report = verify(tmp_path / "data")
    assert not report.sound
    assert (report.missing_records, len(report.damaged)) == (10, 1)
    store = open_store()
    found, gaps = await read_all(store)
    assert gaps == [Gap(20, 30, 10, "damaged")]
    assert [seq for seq, _ in found] == [*range(20), *range(30, 50)]


async def test_a_missing_segment_is_a_gap_not_an_end(open_store, make_batch, tmp_path):
    """Law L5: what an operator deletes by mistake stops nothing."""
    store = open_store()
    await fill(store, make_batch, 0, 600)
    await store.close()
    segments = sorted((tmp_path / "data/events").glob("*.seg"))
    first, after = int(segments[1].name[:20]), int(segments[2].name[:20])
    segments[1].unlink()
    store = open_store()
    found, gaps = await read_all(store)
    assert gaps == [Gap(first, after, after - first, "damaged")]
    assert len(found) == 600 - (after - first)


async def test_foreign_files_in_the_directory_are_left_alone(open_store, make_batch, tmp_path):
    """Law L5: nobody's file is deleted, and none stops a start."""
    events = tmp_path / "data/events"
    events.mkdir(parents=True)
    (events / "notes.txt").write_text("mine")
    (events / f"{7:020d}.seg").write_bytes(b"not a segment at all" * 10)
    store = open_store()
    await fill(store, make_batch, 0, 10)
    assert (events / "notes.txt").read_text() == "mine"
    assert (events / f"{7:020d}.seg.broken").exists()
    assert len(store.events.recovered.damaged) == 1
    assert (await read_all(store))[0][-1][0] == 9


@pytest.mark.parametrize("call", ["sync", "write"])
@pytest.mark.parametrize("nth", range(1, 6))
async def test_an_io_error_loses_nothing_and_nothing_is_synced_twice(
    open_store, make_batch, faulty, tmp_path, call, nth
):
    """Law L1: after EIO the page cache is no evidence; the records are written again from memory, elsewhere."""
    store = open_store(storage=faulty)
    await fill(store, make_batch, 0, 20)
    faulty.calls.clear()
    faulty.fail(call, nth, errno.EIO)
    acknowledged = []
    for first in range(20, 120, 10):
        store.events.append(make_batch(payloads(first, 10)))
        store.committer.when_durable(lambda end=first + 10: acknowledged.append(end))
        await store.committer.flush()
    await asyncio.sleep(0)
    assert acknowledged == list(range(30, 130, 10))
    assert store.events.chain.abandoned_segments == 1
    await store.close()
    report = verify(tmp_path / "data")
    assert report.sound
    assert report.records == 120
    store = open_store()
    assert [seq for seq, _ in (await read_all(store))[0]] == list(range(120))


async def test_a_disk_that_stays_broken_stops_the_log_and_acknowledges_nothing(open_store, make_batch, faulty):
    """Law L1: the second failure ends it; nobody is told that something is durable."""
    failures, acknowledged = [], []
    store = open_store(storage=faulty, on_failure=failures.append)
    await fill(store, make_batch, 0, 20)
    faulty.fail("sync", 1, errno.EIO, times=1_000)
    store.events.append(make_batch(payloads(20, 10)))
    store.committer.when_durable(lambda: acknowledged.append(1))
    await store.committer.flush()
    store.events.append(make_batch(payloads(30, 10)))
    await store.committer.flush()
    await asyncio.sleep(0)
    assert len(failures) == 1
    assert acknowledged == []
    assert store.events.durable.seq == 20


async def test_a_full_disk_gives_up_the_oldest_segment(open_store, make_batch, faulty, full_error):
    """Law: ENOSPC is a condition, not an error: the ring shrinks and goes on."""
    store = open_store(storage=faulty)
    await fill(store, make_batch, 0, 400)
    before = len(store.events.layout.sealed)
    faulty.fail("allocate", 1, full_error, times=2)
    await fill(store, make_batch, 400, 200)
    assert store.committer.failure is None
    assert store.events.chain.evicted["disk_full"] > 0
    assert len(store.events.layout.sealed) <= before
    found, gaps = await read_all(store)
    assert gaps[0].events + len(found) == 600


async def test_a_second_gateway_on_the_directory_is_refused(open_store, tmp_path):
    """Law: one writer."""
    open_store()
    with pytest.raises(LogInUseError, match="in use by another gateway"):
        open_store()


async def test_an_event_and_the_decision_it_causes_share_one_sync(open_store, make_batch, faulty):
    """Law: whoever waits for an append runs before the job is made up."""
    store = open_store(storage=faulty)
    await fill(store, make_batch, 0, 10)
    reader = store.reader(store.events.appended, durable_only=False)

    async def decide():
        await reader.read(10)
        store.events.append(make_batch([b"{}"], kind=Kind.DECISIONS))

    task = asyncio.create_task(decide())
    await asyncio.sleep(0)
    faulty.calls.clear()
    store.events.append(make_batch(payloads(10, 1)))
    await task
    await store.committer.flush()
    assert store.events.durable.seq == 12
    assert [call for call, _ in faulty.calls].count("sync") == 1


async def test_a_lazy_policy_syncs_by_its_interval_and_at_the_end(open_store, make_batch, faulty, clock):
    """Law: `sync: 50ms` trades what a power cut may take for fewer syncs; a clean stop still syncs everything."""
    settings = LogSettings(max_size_bytes=2**20, segment_size_bytes=2**19, sync_interval_s=3_600.0, compress=False)
    store = open_store(settings, storage=faulty)
    clock.advance(4_000)
    await fill(store, make_batch, 0, 10)
    faulty.calls.clear()
    await fill(store, make_batch, 10, 90)
    assert ("sync", "00000000000000000000.seg") not in faulty.calls
    assert store.events.durable.seq == 100
    clock.advance(4_000)
    await fill(store, make_batch, 100, 10)
    assert faulty.calls.count(("sync", "00000000000000000000.seg")) == 1
    await store.close()
    assert faulty.calls.count(("sync", "00000000000000000000.seg")) >= 2


async def test_figures_of_a_log_are_read_beside_a_running_gateway(open_store, make_batch, tmp_path):
    """Law: inspection takes no lock and changes nothing."""
    store = open_store()
    await fill(store, make_batch, 0, 250)
    figures = info(tmp_path / "data")
    assert (figures.first_seq, figures.end_seq, figures.events) == (0, 250, 250)
    assert verify(tmp_path / "data").sound
    assert sum(len(batch) for batch in scan_log(tmp_path / "data", from_seq=123)) == 127


async def test_an_idle_log_writes_nothing(open_store, make_batch, faulty):
    """Law: no event, no wear."""
    store = open_store(storage=faulty)
    await fill(store, make_batch, 0, 10)
    faulty.calls.clear()
    for _ in range(50):
        await asyncio.sleep(0)
    assert faulty.calls == []


@pytest.mark.parametrize("durable_only", [False, True])
async def test_who_waits_for_decisions_sleeps_through_events_but_for_many(open_store, make_batch, durable_only):
    """A turn of events wakes nobody who has nothing to do with them; a decision does, and so does what piles up."""
    store = open_store(LogSettings(compress=False))
    ring = store.events

    async def woken_by(*batches) -> bool:
        waiter = ring.waiter(durable_only=durable_only, patient=True)
        for batch in batches:
            ring.append(batch)
            await store.committer.flush()
        return waiter.done()

    few = [make_batch(payloads(0, 10), stamp=ring.stamp()) for _ in range(5)]
    assert not await woken_by(*few)
    assert await woken_by(make_batch([b"{}"], kind=Kind.DECISIONS, stamp=ring.stamp()))
    many = [make_batch(payloads(0, 256), stamp=ring.stamp()) for _ in range(PATIENCE_RECORDS // 256)]
    assert not await woken_by(*many[1:])
    assert await woken_by(many[0])

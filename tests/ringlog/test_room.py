"""A full disk, a full ring, and what gives way: `gateway.ringlog.room`, `chain` and `committer` together."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace

import pytest

from gateway.errors import StorageError
from gateway.model import Batch, Cursor, DeadLetter, Gap
from gateway.ringlog.store import RESERVE
from tests.faults import FaultyStorage

FOR_GOOD = 10**9


class FullStorage(FaultyStorage):
    """A disk on which nothing new fits while `full` is set, but for what a removed reserve gives back."""

    def __init__(self) -> None:
        super().__init__()
        self.code = errno.ENOSPC
        self.full = False
        self.spare = 0

    def note(self, call: str, name: str) -> None:
        super().note(call, name)
        if call == "remove" and name == RESERVE:
            self.spare = 2
        if self.full and call == "allocate":
            if name == RESERVE or self.spare == 0:
                raise OSError(self.code, "No space left on device")
            self.spare -= 1


@pytest.fixture
def disk() -> FullStorage:
    return FullStorage()


def letter(number: int) -> DeadLetter:
    return DeadLetter("", "devices/a/climate", b"x" * 50, 1, "ingest", "json", f"no {number}", 1, 0, 0)


async def fill(store, make_batch, start: int, count: int) -> None:
    for first in range(start, start + count, 10):
        store.events.append(make_batch([b"%06d" % seq + b"." * 150 for seq in range(first, first + 10)]))
        await store.committer.flush()


async def until_held(store) -> None:
    async with asyncio.timeout(20):
        while not store.committer.held:
            await asyncio.sleep(0)


async def test_a_log_without_room_acknowledges_nothing_and_goes_on_when_there_is_some(open_store, make_batch, disk):
    """Laws L1, L6: held, not failed; what was held is written in its order, and only then acknowledged."""
    store = open_store(storage=disk)
    told = []
    disk.full = True
    for start in (0, 10, 20):
        store.events.append(make_batch([b"%d" % seq for seq in range(start, start + 10)]))
        store.committer.when_durable(lambda start=start: told.append(start))
    await until_held(store)
    assert store.committer.held == {"events": "No space left on device"}
    assert (told, store.events.durable.seq) == ([], 0)
    assert store.committer.failure is None
    disk.full = False
    async with asyncio.timeout(5):
        await store.committer.flush()
    await asyncio.sleep(0)
    assert told == [0, 10, 20]
    assert store.events.durable.seq == 30
    assert store.committer.held == {}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EFBIG])
async def test_every_refusal_for_want_of_room_is_waited_for(open_store, make_batch, disk, code):
    """Law L6: a full quota, a read-only remount, too many files: conditions that end, not reasons to die."""
    store = open_store(storage=disk)
    disk.full, disk.code = True, code
    store.events.append(make_batch([b"1"]))
    await until_held(store)
    disk.full = False
    async with asyncio.timeout(5):
        await store.committer.flush()
    assert store.events.durable.seq == 1


async def test_a_write_that_finds_no_room_in_the_middle_of_a_segment_is_rewritten(open_store, make_batch, faulty):
    """Law L2: a short write seals the segment; the batch goes into the next one, once there is room, whole."""
    store = open_store(storage=faulty)
    await fill(store, make_batch, 0, 20)
    faulty.fail("write", 1, errno.EROFS, times=FOR_GOOD)
    faulty.fail("create", 1, errno.EROFS, times=FOR_GOOD)
    faulty.fail("remove", 1, errno.EROFS, times=FOR_GOOD)
    store.events.append(make_batch([b"late"]))
    await until_held(store)
    assert store.events.durable.seq == 20
    faulty.heal()
    async with asyncio.timeout(5):
        await store.committer.flush()
    assert store.events.durable.seq == 21
    await store.close()
    store = open_store()
    reader = store.reader(store.events.floor, durable_only=True)
    payloads = []
    while reader.position.seq < 21:
        payloads += (await reader.read(100)).payloads
    assert [payload[:6] for payload in payloads] == [b"%06d" % seq for seq in range(20)] + [b"late"]


async def test_cursors_and_dead_letters_are_stored_on_a_full_disk(open_store, make_batch, disk):
    """Law L6: the reserve is theirs; telemetry does not get it, and it is whole again before telemetry grows."""
    store = open_store(storage=disk)
    disk.full = True
    store.events.append(make_batch([b"1"]))
    await until_held(store)
    async with asyncio.timeout(5):
        await store.dead_letters.store([letter(1)])
        await store.cursors.store("cloud", Cursor(0, 0), after_events=False)
    assert store.dead_letters.ring.durable.seq == 1
    assert store.events.durable.seq == 0
    assert ("remove", RESERVE) in disk.calls
    disk.calls.clear()
    disk.full = False
    async with asyncio.timeout(5):
        await store.committer.flush()
    names = [name for call, name in disk.calls if call == "allocate"]
    assert names == [RESERVE, "00000000000000000000.seg"]


async def test_a_full_disk_costs_no_dead_letter(open_store, disk):
    """Law L6: dead letters give way to their own size only; without room they wait, and their sender with them."""
    store = open_store(storage=disk)
    for number in range(0, 300, 10):
        await store.dead_letters.store([letter(each) for each in range(number, number + 10)])
    before = store.dead_letters.ring.floor
    disk.full = True
    for number in range(300, 600, 10):  # more than the reserve takes
        store.dead_letters.append([letter(each) for each in range(number, number + 10)])
    storing = asyncio.create_task(store.dead_letters.store([letter(600)]))
    async with asyncio.timeout(20):
        while "deadletters" not in store.committer.held:
            await asyncio.sleep(0)
    assert store.dead_letters.ring.floor == before
    assert not storing.done()
    disk.full = False
    async with asyncio.timeout(5):
        await storing


async def test_what_builds_on_held_events_waits_and_what_does_not_goes_on(open_store, make_batch, disk):
    """Law L12: a snapshot never runs ahead of the log that it stands for; a sink's cursor does not depend on it."""
    store = open_store(storage=disk)
    disk.full = True
    store.events.append(make_batch([b"1"]))
    await until_held(store)
    snapshot = asyncio.create_task(store.store_rules(b"state after 1"))
    await asyncio.wait_for(store.cursors.store("cloud", Cursor(0, 0), after_events=False), 5)
    assert not snapshot.done()
    disk.full = False
    await asyncio.wait_for(snapshot, 5)
    assert store.events.durable.seq == 1


async def test_a_log_that_is_held_when_it_closes_ends_without_waiting(open_store, make_batch, disk):
    """Law L1: what had no room was acknowledged to nobody, so that nothing is lost by ending."""
    store = open_store(storage=disk)
    disk.full = True
    told = []
    store.events.append(make_batch([b"1"]))
    store.committer.when_durable(lambda: told.append(1))
    await until_held(store)
    snapshot = asyncio.create_task(store.store_rules(b"state"))
    await asyncio.sleep(0)
    await asyncio.wait_for(store.close(), 5)
    with pytest.raises(StorageError, match="no room on the disk: events: No space left"):
        await snapshot
    assert told == []


async def test_with_hold_a_full_ring_waits_for_the_slowest_sink(open_store, make_batch, small):
    """Law L6: `when_full: hold` gives up nothing that a sink has not seen; it acknowledges nothing until it has."""
    store = open_store(replace(small, when_full="hold"))
    store.cursors.note("slow", Cursor(0, 0))
    store.cursors.note("fast", Cursor(10, 10))
    async with asyncio.timeout(20):
        while not store.committer.held:
            store.events.append(make_batch([b"." * 150] * 10))
            while store.committer._busy or store.committer._wanted:
                await asyncio.sleep(0)
    assert store.committer.held == {"events": "the ring is full of events that a sink has not seen yet"}
    assert store.events.floor.seq == 0
    durable = store.events.durable
    store.cursors.note("slow", Cursor(durable.seq, durable.ordinal))
    assert store.events.floor.seq == 0
    store.cursors.note("fast", Cursor(durable.seq, durable.ordinal))
    async with asyncio.timeout(5):
        await store.committer.flush()
    assert store.events.durable == store.events.appended
    assert store.events.floor.seq > 0


async def test_a_noted_cursor_is_on_disk_before_the_segment_that_it_passed_is_unlinked(open_store, make_batch, faulty):
    """Law L7: a crash does not count as evicted what was delivered."""
    store = open_store(storage=faulty)
    await fill(store, make_batch, 0, 600)
    store.cursors.note("cloud", Cursor(600, 600, delivered=600))
    faulty.calls.clear()
    await fill(store, make_batch, 600, 200)
    steps = [call for call in faulty.calls if call[0] == "remove" or call == ("sync", "cloud.cursor")]
    kinds = [call for call, _ in steps]
    assert kinds[:3] == ["sync", "sync", "remove"]  # the new file, the cursor in it, the segment
    assert kinds.count("sync") == 2  # one that has not moved is not written again
    assert store.cursors.load("cloud") == Cursor(600, 600, delivered=600)


async def test_a_store_of_an_older_cursor_does_not_undo_a_newer_one(open_store):
    """Law L3: a cursor on disk never goes back, whichever way it got there."""
    store = open_store()
    store.cursors.note("cloud", Cursor(5, 5))
    pending = asyncio.create_task(store.cursors.store("cloud", Cursor(5, 5), after_events=False))
    await asyncio.sleep(0)
    store.cursors.note("cloud", Cursor(9, 9))
    await pending
    store.cursors.write_noted()
    assert store.cursors.load("cloud") == Cursor(9, 9)


async def test_evictions_say_what_the_slowest_sink_misses(open_store, make_batch, monkeypatch):
    """Law L6: what is evicted unsent is counted and announced."""
    from gateway.observe import events

    told = []
    monkeypatch.setattr(events, "log_evicted", lambda log, **what: told.append((log, what["events"], what["unsent"])))
    store = open_store()
    store.cursors.note("cloud", Cursor(100, 100))
    await fill(store, make_batch, 0, 1_000)
    evicted = store.events.floor.ordinal
    assert evicted > 100
    assert sum(events for _, events, _ in told) == evicted
    assert sum(unsent for _, _, unsent in told) == evicted - 100
    assert store.events.chain.evicted == {"size": evicted}


async def test_events_older_than_the_configured_age_are_given_up(open_store, make_batch, small, clock):
    """Laws L6, L11: by the log's own clock, so that a jump of the wall clock evicts nothing."""
    store = open_store(replace(small, max_age_s=3_600.0))

    def now(payloads: list[bytes]) -> Batch:
        return make_batch(payloads, stamp=store.events.stamp())

    store.events.append(now([b"old"]))
    await store.committer.flush()
    clock.wall += 10**18
    await store.events.expire()
    assert store.events.floor.seq == 0
    clock.advance(1_800)
    await store.events.expire()  # finishes the segment, so that it can go by itself
    store.events.append(now([b"young"]))
    await store.committer.flush()
    clock.advance(1_900)
    await store.events.expire()
    assert store.events.floor.seq == 1
    assert store.events.chain.evicted == {"age": 1}
    reader = store.reader(type(store.events.floor)(0, 0), durable_only=True)
    assert await reader.read(10) == Gap(0, 1, 1, "evicted")
    assert (await reader.read(10)).payloads == [b"young"]
    clock.advance(10_000)
    await store.events.expire()
    await store.events.expire()
    assert store.events.floor.seq == 1  # the last segment stays: it knows where the numbers have got to


async def test_ages_are_known_after_a_restart(open_store, make_batch, small, clock, tmp_path):
    """Law L11: the age of what an earlier life wrote is told by its first frame."""
    settings = replace(small, max_age_s=3_600.0)
    store = open_store(settings)
    store.events.append(make_batch([b"old"], stamp=store.events.stamp()))
    await store.committer.flush()
    await store.close()
    clock.advance(3_000)
    store = open_store(settings)
    store.events.append(make_batch([b"young"], stamp=store.events.stamp()))
    await store.committer.flush()
    await store.events.expire()
    assert store.events.floor.seq == 0
    clock.advance(700)
    await store.events.expire()
    assert store.events.floor.seq == 1


async def test_a_damaged_segment_header_costs_no_record(open_store, make_batch, tmp_path):
    """Law L5: the frames know whose they are; the damage is told."""
    store = open_store()
    await fill(store, make_batch, 0, 300)
    await store.close()
    damaged = sorted((tmp_path / "data" / "events").glob("*.seg"))[::2]
    for path in damaged:
        with path.open("r+b") as file:
            file.seek(20)
            file.write(b"\xff\xff\xff\xff")
    store = open_store()
    assert len(damaged) >= 2
    found = store.events.recovered.damaged
    assert [(each.segment, each.length_bytes) for each in found] == [(path.name, 64) for path in damaged]
    reader = store.reader(type(store.events.floor)(0, 0), durable_only=True)
    seen = 0
    while reader.position.seq < store.events.durable.seq:
        item = await reader.read(1_000)
        assert isinstance(item, Batch)
        seen += len(item)
    assert seen == 300

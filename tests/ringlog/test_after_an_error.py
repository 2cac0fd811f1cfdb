"""What a segment that had an error is worth: its synced bytes, and not one more."""

from __future__ import annotations

import asyncio
import errno

import pytest

from gateway.model import Gap, Position


def payloads(start, count):
    return [f"{number:08d}".encode().ljust(100, b".") for number in range(start, start + count)]


async def read_all(store):
    reader = store.reader(Position(0, 0), durable_only=True)
    found = []
    while reader.position.seq < store.events.durable.seq:
        item = await reader.read(1_000)
        assert not isinstance(item, Gap)
        found += [event.payload[:8] for event in item.events()]
    return found


def names(count):
    return [f"{number:08d}".encode() for number in range(count)]


@pytest.mark.parametrize("call", ["write", "sync"])
async def test_nothing_is_ever_written_to_a_segment_that_had_an_error(open_store, make_batch, faulty, call):
    """Law L1: neither an append nor another sync goes to it; it is cut back, and the next one begins."""
    store = open_store(storage=faulty)
    store.events.append(make_batch(payloads(0, 10)))
    await store.committer.flush()
    faulty.calls.clear()
    faulty.fail(call, 1, errno.EIO)
    for start in (10, 20):
        store.events.append(make_batch(payloads(start, 10)))
        await store.committer.flush()
    spoilt = "00000000000000000000.seg"
    before, after = ["write"] if call == "write" else ["write", "sync"], ["truncate"]
    assert [kind for kind, name in faulty.calls if name == spoilt] == before + after
    assert await read_all(store) == names(30)


@pytest.mark.parametrize("nth", range(1, 9))
async def test_a_job_over_several_segments_keeps_its_order_through_an_error(open_store, make_batch, faulty, nth):
    """Law L4: what was written and not synced goes before what was not written."""
    store = open_store(storage=faulty)
    faulty.fail("sync", nth, errno.EIO)
    for start in range(0, 600, 10):
        store.events.append(make_batch(payloads(start, 10)))
    await store.committer.flush()
    assert store.events.durable.seq == 600
    await store.close()
    store = open_store()
    assert await read_all(store) == names(600)


async def test_a_torn_tail_is_cut_off_and_kept_aside(open_store, make_batch, tmp_path):
    """Law L5: what is behind the last whole frame goes, is reported, and can be looked at."""
    store = open_store()
    store.events.append(make_batch(payloads(0, 10)))
    await store.committer.flush()
    await store.close()
    (segment,) = (tmp_path / "data/events").glob("*.seg")
    whole = segment.read_bytes()
    segment.write_bytes(whole + whole[64:200])
    store = open_store()
    torn = store.events.recovered.torn
    assert (torn.offset, torn.length_bytes) == (len(whole), 136)
    assert segment.read_bytes() == whole
    assert (tmp_path / f"data/events/{segment.name}.{len(whole)}.broken").read_bytes() == whole[64:200]
    assert await read_all(store) == names(10)


async def test_copies_of_torn_tails_do_not_pile_up(open_store, make_batch, tmp_path):
    """Law L6: a gateway that is killed every night does not fill its disk with what was cut off."""
    for life in range(25):
        store = open_store()
        store.events.append(make_batch(payloads(life, 1)))
        await store.committer.flush()
        await store.close()
        newest = max((tmp_path / "data/events").glob("*.seg"))
        newest.write_bytes(newest.read_bytes() + b"EGLF torn")
    assert len(list((tmp_path / "data/events").glob("*.broken"))) <= 17
    assert await read_all(open_store()) == names(25)


async def test_an_opening_that_wrote_nothing_has_an_epoch_of_its_own(open_store):
    """Law L3: the epoch is on disk before the first append, so that an id never names two events."""
    epochs = []
    for _ in range(3):
        store = open_store()
        epochs.append(store.events.epoch)
        await store.close()
        await asyncio.sleep(0)
    assert epochs == [1, 2, 3]

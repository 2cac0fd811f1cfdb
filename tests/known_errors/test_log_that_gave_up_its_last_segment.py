"""A log whose last segment was given up forgot where it ended: the next start began at number 0, at the hour 0."""

from __future__ import annotations

import asyncio
import errno

import pytest

from gateway.config.settings import LogSettings
from gateway.model import Cursor, Position
from gateway.ringlog import Store
from tests.faults import FaultyStorage

SEGMENT_BYTES = 16 * 1024


@pytest.fixture
def open_store(tmp_path, clock):
    settings = LogSettings(
        max_size_bytes=8 * SEGMENT_BYTES, segment_size_bytes=SEGMENT_BYTES, max_age_s=60, compress=False
    )
    return lambda storage=None: Store(tmp_path, "gw", settings, clock, lambda error: None, storage)


async def fill(store: Store, make_batch) -> Cursor:
    """Fifty events, and a sink that has had them all."""
    for seq in range(50):
        store.events.append(make_batch([b"%d" % seq]))
    await store.committer.flush()
    cursor = Cursor(50, 50, delivered=50)
    await store.cursors.store("cloud", cursor, after_events=False)
    return cursor


async def goes_on(store: Store, cursor: Cursor, make_batch) -> None:
    """The numbers go on, and the sink gets what comes now: it is not behind its cursor."""
    try:
        assert store.events.appended == (50, 50)
        reader = store.reader(Position(cursor.seq, cursor.ordinal), durable_only=True)
        assert not reader.was_clamped
        store.events.append(make_batch([b"after the silence"]))
        assert (await reader.read(100)).payloads == [b"after the silence"]
    finally:
        await store.close()


async def test_numbers_and_the_logs_clock_go_on_after_everything_was_too_old(open_store, make_batch, clock):
    """Laws L2, L7, L11: what comes after a silence longer than `max_age` is not behind the cursor of a sink."""
    store = open_store()
    cursor = await fill(store, make_batch)
    clock.advance(3_600)
    await store.events.expire()
    elapsed_ns = store.events.elapsed_ns()
    await store.close()
    store = open_store()
    assert store.events.elapsed_ns() >= elapsed_ns
    await goes_on(store, cursor, make_batch)


async def test_numbers_go_on_after_everything_was_given_up_for_space(open_store, make_batch):
    """Laws L2, L7: a disk that stays full takes segment after segment, and not the log's place in its own numbers."""
    disk = FaultyStorage()
    store = open_store(disk)
    cursor = await fill(store, make_batch)
    disk.fail("allocate", 1, errno.ENOSPC, times=10**9)
    store.events.append(make_batch([b"x" * SEGMENT_BYTES]))  # needs a segment of its own
    async with asyncio.timeout(20):
        while not store.committer.held:
            await asyncio.sleep(0)
    await store.close()
    await goes_on(open_store(), cursor, make_batch)

"""S11: a card that is slow, or stands still for seconds: only the writer thread waits for it, and a sync is shared."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.model import Cursor
from gateway.ringlog import Store
from tests.conftest import HandClock
from tests.crash.figures import keep, share
from tests.crash.mounts import MIB, ext4, slow_writes
from tests.crash.writer import SINK, SMALL, Witness, end, open_store, settled
from tests.faults import StallingStorage

STALL_S = 7.0
STALLS = 20
WRITES_PER_S = 20
SENDERS = 64
"""Each with one event on its way: the next follows its acknowledgement."""
TURNS = 2_000
ROOMY = replace(SMALL, max_size_bytes=16 * MIB, segment_size_bytes=4 * MIB)
_WAIT_S = 20.0


@pytest.fixture
def witness(tmp_path, rng):
    with contextlib.closing(Witness(tmp_path / "journal", rng)) as outside:
        yield outside


@contextlib.asynccontextmanager
async def opened(data_dir: Path, clock: HandClock, storage=None, settings=SMALL) -> AsyncIterator[Store]:
    """A store that is closed in the end and has not failed."""
    store = open_store(data_dir, clock, settings, storage)
    try:
        yield store
    finally:
        await end(store)
    assert store.committer.failure is None


async def the_loop_is_free(store: Store, witness: Witness) -> None:
    """Meanwhile, on the loop: it turns, events come in, rules read them, cursors move, and nobody is told "stored"."""
    told, durable = witness.told, store.events.durable
    rules = store.reader(store.events.appended, durable_only=False)
    for turn in range(TURNS):
        if turn % 100 == 0:
            witness.send(store, 5)
            assert len(await rules.read(10)) == 5
            store.cursors.note(SINK, Cursor(0, 0))
        await asyncio.sleep(0)
    assert (witness.told, store.events.durable) == (told, durable)


async def test_stalls_of_seven_seconds_hold_up_nothing_but_the_acknowledgements(tmp_path, clock, witness):
    """Laws L1, L8: twenty stalls, by the clock in hand; each is seen while it happens and measured when it is over."""
    card = StallingStorage()
    async with opened(tmp_path / "data", clock, card) as store:
        for stall in range(STALLS):
            card.go.clear()
            try:
                witness.send(store, 5)
                async with asyncio.timeout(_WAIT_S):
                    while store.committer.stalled_s() == 0:  # a job is on its way as soon as time passes
                        await asyncio.sleep(0)
                        clock.advance(STALL_S / 1_000)
                clock.advance(STALL_S - store.committer.stalled_s())
                assert store.committer.stalled_s() == pytest.approx(STALL_S)
                await the_loop_is_free(store, witness)
            finally:
                card.go.set()
            await settled(store)
            assert store.committer.stalled_s() == 0, f"after stall {stall}"
    assert witness.told == STALLS * (5 + 5 * TURNS // 100)
    keep(
        "S11",
        "card that stands still for 7 s at a sync (by the test's clock)",
        f"{STALLS} stalls, {STALLS * TURNS:,} turns of the loop meanwhile",
        f"0 turns blocked, 0 acknowledged during a stall, all {witness.told:,} afterwards",
    )


async def test_a_file_system_that_stands_still_blocks_the_writer_alone(tmp_path, root, clock, witness):
    """Laws L1, L8: frozen by the kernel in the middle of the writing; rules go on, and all is stored after the thaw."""
    stalls = share(3, 100)
    with ext4(tmp_path) as mains:
        async with opened(mains.place / "data", clock) as store:
            for _ in range(stalls):
                witness.send(store, 5)
                await settled(store)
                with mains.frozen():
                    witness.send(store, 5)
                    await the_loop_is_free(store, witness)
                async with asyncio.timeout(_WAIT_S):
                    await store.committer.flush()
                assert store.events.durable == store.events.appended
        async with opened(mains.place / "data", clock) as store:
            judgement = await witness.judge(store)
    assert judgement.clean, judgement
    keep(
        "S11",
        "file system frozen by the kernel while the log writes",
        f"{stalls} times, {stalls * TURNS:,} turns of the loop meanwhile",
        f"0 turns blocked, 0 acknowledged while frozen, {judgement.acknowledged:,} in the end, 0 lost",
    )


async def test_a_card_of_twenty_writes_a_second_stores_many_events_with_each(tmp_path, root, clock, witness, seed):
    """Law L13: what one sync costs is shared by all that wait for it, however slow it is."""
    rounds = share(12, 400)
    with ext4(tmp_path) as mains, slow_writes(mains, WRITES_PER_S) as tasks:
        async with opened(mains.place / "data", clock, settings=ROOMY) as store:
            witness.send(store, 1)
            await settled(store)  # the segment is there
            writer = next(thread for thread in threading.enumerate() if thread.name == "gateway.ringlog.writer")
            tasks.write_text(str(writer.native_id))
            begun, syncs, told = time.monotonic(), store.committer.syncs, witness.told
            waiting: list[asyncio.Future[None]] = []
            while store.committer.syncs < syncs + rounds:
                waiting = [future for future in waiting if not future.done()]
                for sender in range(SENDERS - len(waiting)):
                    witness.send(store, 1, stream=f"devices/{sender}/climate", size_bytes=150)
                    stored = asyncio.get_running_loop().create_future()
                    store.committer.when_durable(lambda stored=stored: stored.done() or stored.set_result(None))
                    waiting.append(stored)
                async with asyncio.timeout(_WAIT_S):
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            took_s = time.monotonic() - begun
            syncs, told = store.committer.syncs - syncs, witness.told - told
            (tasks.parent.parent / "tasks").write_text(str(writer.native_id))
        async with opened(mains.place / "data", clock, settings=ROOMY) as store:
            judgement = await witness.judge(store)
    assert judgement.clean, judgement
    assert told / syncs >= SENDERS / 4, "senders that wait at the same time share a sync"
    keep(
        "S11",
        f"card of {WRITES_PER_S} writes a second, {SENDERS} senders with one event on its way each",
        f"{told:,} events in {syncs} syncs, {took_s:.1f} s",
        f"{told / syncs:.0f} events a sync, {told / took_s:.0f} durable events a second, 0 lost",
        seed=seed,
    )

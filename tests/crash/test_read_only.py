"""S10: a file system that turns read-only under a running store, or gives nothing but errors any more.

The kernel does not make a file system read-only while a file on it is open for writing, which a running store always
has: so an operator's hand is refused, and what happens in the field is one of three things, each of them real here.

    a view        the directory's path leads to a read-only place for a while: what is open goes on, nothing new opens
    errors=ro     the kernel met an error of its own and refuses every change (EROFS) until the next mount
    shut down     the device is gone: every call fails (EIO)
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path

import pytest

from gateway.errors import StorageError
from gateway.ringlog.store import EVENTS_DIR
from tests.conftest import HandClock
from tests.crash.figures import keep, share
from tests.crash.mounts import Cut, ext4, read_only
from tests.crash.writer import Disk, Upstream, Witness, end, is_dead, open_store, settled, until

_SPACE_IS_BACK_S = 20.0
EROFS = {"events": "Read-only file system"}


@pytest.fixture
def witness(tmp_path, rng):
    with contextlib.closing(Witness(tmp_path / "journal", rng)) as outside:
        yield outside


@pytest.fixture
def disk():
    """Gives back what a store that has failed leaves open."""
    storage = Disk()
    yield storage
    storage.die()


async def starts_with_everything(data_dir, witness) -> int:
    """The next start needs nobody and has all that was acknowledged. How much that was."""
    store = open_store(data_dir, HandClock())
    try:
        judgement = await witness.judge(store)
        witness.send(store, 5)
        await settled(store)
    finally:
        await store.close()
    assert judgement.clean, judgement
    assert store.events.durable == store.events.appended
    return judgement.acknowledged


async def until_dead(store, witness) -> None:
    """Send until the store has met what is wrong with its disk."""
    while not is_dead(store):
        witness.send(store, 5)
        await settled(store)


async def test_a_read_only_directory_holds_the_log_until_it_is_writable(tmp_path, root, witness, seed):
    """Laws L1, L2: rules go on, nobody is told anything, and all of it is stored afterwards, without a restart."""
    rounds = share(2, 40)
    with ext4(tmp_path) as mains:
        data_dir = mains.place / "data"
        store = open_store(data_dir, HandClock())
        try:
            for _ in range(rounds):
                witness.send(store, 20)
                await settled(store)
                rules = store.reader(store.events.appended, durable_only=False)
                with read_only(data_dir / EVENTS_DIR):
                    await until_dead(store, witness)
                    assert store.committer.held == EROFS
                    told, durable = witness.told, store.events.durable
                    witness.send(store, 5)
                    while rules.position.seq < store.events.appended.seq:
                        await rules.read(1_000)
                    await asyncio.wait_for(witness.bury(store), _SPACE_IS_BACK_S)  # in another directory
                    assert (witness.told, store.events.durable) == (told + 1, durable)
                async with asyncio.timeout(_SPACE_IS_BACK_S):
                    await store.committer.flush()
                assert store.events.durable == store.events.appended
        finally:
            await end(store)
        acknowledged = await starts_with_everything(data_dir, witness)
    assert acknowledged == len(witness.journal()[0]) - 5, "every message was acknowledged in the end"
    keep(
        "S10",
        "directory read-only for a while under a running store (EROFS)",
        f"{rounds} times, {acknowledged:,} messages",
        "held each time, 0 acknowledged meanwhile, all stored without a restart, 0 lost after a reopening",
        seed=seed,
    )


class CountedDisk(Disk):
    """Counts how often a removal was tried."""

    def __init__(self) -> None:
        super().__init__()
        self.removals = 0

    def note(self, call: str, path: Path) -> None:
        self.removals += call == "remove" and path.suffix == ".seg"


async def test_a_segment_that_cannot_be_removed_is_not_given_up(tmp_path, root, witness):
    """Laws L6, L7: a full ring in a read-only place: readers keep what is still there, however often it is tried."""
    card = CountedDisk()
    with ext4(tmp_path) as mains:
        data_dir = mains.place / "data"
        store = open_store(data_dir, HandClock(), storage=card)
        try:
            upstream = Upstream(store, witness)
            while not store.events.chain.evicted:
                witness.send(store, 20)
                await settled(store)
            with read_only(data_dir / EVENTS_DIR):
                floor = store.events.floor
                tried = card.removals
                await until_dead(store, witness)
                await until(lambda: card.removals >= tried + 4)
                assert store.committer.held == EROFS
                assert store.events.floor == floor, "given up, and still on the disk"
                await upstream.take()
            async with asyncio.timeout(_SPACE_IS_BACK_S):
                await store.committer.flush()
            assert store.events.floor.ordinal == sum(store.events.chain.evicted.values()), "each is counted (L7)"
        finally:
            await end(store)
            card.die()
        await starts_with_everything(data_dir, witness)
    assert upstream.cursor.evicted == floor.ordinal


async def test_the_kernel_keeps_a_running_store_writable(tmp_path, root, witness):
    """Law L2: `mount -o remount,ro` by an operator is refused while a store runs there, and costs nothing."""
    with ext4(tmp_path) as mains:
        store = open_store(mains.place / "data", HandClock())
        try:
            command = ["mount", "-o", "remount,ro", mains.place]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            witness.send(store, 5)
            await settled(store)
            assert store.events.durable.seq == 5
        finally:
            await end(store)
        assert done.returncode != 0
        assert "busy" in done.stderr
        await starts_with_everything(mains.place / "data", witness)


async def test_a_file_system_that_turns_read_only_for_good_loses_nothing(tmp_path, root, witness, disk, seed):
    """Laws L1, L2: ext4 with `errors=remount-ro`: held, nothing acknowledged, whole at the next mount."""
    rounds = share(2, 40)
    acknowledged = 0
    with ext4(tmp_path, options="errors=remount-ro") as mains:
        data_dir = mains.place / "data"
        for _ in range(rounds):
            failures: list[StorageError] = []
            store = open_store(data_dir, HandClock(), storage=disk, failures=failures)
            try:
                for _ in range(witness.rng.randint(1, 20)):
                    witness.send(store, 10)
                    await settled(store)
                mains.report_error()
                told = witness.told
                await until_dead(store, witness)
                assert store.committer.held == EROFS
                assert witness.told == told, "no change was possible any more"
                witness.send(store, 5)
                assert store.events.durable < store.events.appended
            finally:
                await end(store)
                disk.die()
            assert not failures, "held: only a person can make it writable, and a restart would help nobody"
            mains.unmount()
            mains.mount()
            acknowledged = await starts_with_everything(data_dir, witness)
    keep(
        "S10",
        "ext4 turns read-only after an error of its own (EROFS until the next mount)",
        f"{rounds} times, {acknowledged:,} acknowledged",
        "held, 0 acknowledged meanwhile, 0 lost after the next mount",
        seed=seed,
    )


async def test_a_device_that_is_gone_ends_the_writing_once(tmp_path, root, witness, disk, seed):
    """Laws L1, L2, L10: EIO from every call is told once as a `StorageError`; nothing is acknowledged after it."""
    rounds = share(2, 40)
    acknowledged = 0
    with ext4(tmp_path) as mains:
        data_dir = mains.place / "data"
        for _ in range(rounds):
            failures: list[StorageError] = []
            store = open_store(data_dir, HandClock(), storage=disk, failures=failures)
            try:
                upstream = Upstream(store, witness)
                for _ in range(witness.rng.randint(1, 20)):
                    witness.send(store, 10)
                    await settled(store)
                await upstream.take()
                mains.cut(Cut.DATA_AND_LOG)
                told = witness.told
                await until_dead(store, witness)
                for storing in (witness.bury(store), witness.snap(store), upstream.keep()):
                    with pytest.raises(StorageError):
                        await storing
                witness.send(store, 5)
                await store.committer.flush()
                assert witness.told == told
            finally:
                await end(store)
                disk.die()
            assert len(failures) == 1
            assert "Input/output error" in str(failures[0])
            mains.unmount()
            mains.mount()
            acknowledged = await starts_with_everything(data_dir, witness)
    keep(
        "S10",
        "the device is gone under a running store (EIO)",
        f"{rounds} times, {acknowledged:,} acknowledged",
        "one StorageError each, 0 acknowledged after it, 0 lost after the next mount",
        seed=seed,
    )

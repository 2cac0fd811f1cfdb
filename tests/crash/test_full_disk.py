"""S8: no room, on real file systems: nothing is acknowledged that is not stored, and the log goes on when there is.

The retry comes every half second; how long it really took until the log acknowledged again is in the figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config.settings import LogSettings
from gateway.errors import StorageError
from gateway.model import Position
from gateway.ringlog import Store
from gateway.ringlog.store import RESERVE
from tests.conftest import HandClock
from tests.crash.figures import keep, share
from tests.crash.mounts import MIB, filled, out_of_inodes, tmpfs
from tests.crash.writer import AUDIT, KIB, Upstream, Witness, end, open_store, settled, until

RING = LogSettings(
    max_size_bytes=16 * MIB,
    segment_size_bytes=256 * KIB,
    tip_bytes=64 * KIB,
    dead_letters_max_size_bytes=MIB,
    audit_max_size_bytes=MIB,
    compress=False,
)
"""Twice what the disk holds."""
DISK_BYTES = 8 * MIB
POLICIES = ("evict", "hold")
REPOSITORY = Path(__file__).parents[2]
_SPACE_IS_BACK_S = 20.0


@pytest.fixture
def witness(tmp_path, rng):
    with contextlib.closing(Witness(tmp_path / "journal", rng)) as outside:
        yield outside


@contextlib.asynccontextmanager
async def opened(data_dir: Path, settings: LogSettings) -> AsyncIterator[Store]:
    """A store that is closed in the end, whatever became of it."""
    failures: list[StorageError] = []
    store = open_store(data_dir, HandClock(), settings, failures=failures)
    try:
        yield store
    finally:
        await end(store)
    assert not failures, "a full disk is no failure"


async def flood(store: Store, witness: Witness, size_bytes: int) -> None:
    """So many bytes of events, each batch settled before the next, until they are sent or the log is held."""
    for _ in range(size_bytes // (64 * KIB)):
        witness.send(store, 64, size_bytes=KIB)
        await settled(store)
        if store.committer.held:
            return


async def acknowledges_again(store: Store) -> float:
    """Wait until everything is durable. How many seconds that took."""
    begun = time.monotonic()
    async with asyncio.timeout(_SPACE_IS_BACK_S):
        await store.committer.flush()
    await asyncio.sleep(0)  # the last acknowledgements are on their way
    assert store.events.durable == store.events.appended
    assert not store.committer.held
    return time.monotonic() - begun


async def survives_a_reopening(data_dir: Path, settings: LogSettings, witness: Witness) -> int:
    """Everything that was acknowledged is there after a reopening. How many that were."""
    async with opened(data_dir, settings) as store:
        judgement = await witness.judge(store)
    assert judgement.clean, judgement
    return judgement.acknowledged


async def test_a_disk_smaller_than_the_ring_costs_the_oldest_events_and_says_so(tmp_path, root, witness, seed):
    """Laws L1, L6: with `evict` the senders notice nothing, and what went is announced; the reserve stays whole."""
    with tmpfs(tmp_path, size_bytes=DISK_BYTES) as disk:
        async with opened(disk / "data", RING) as store:
            upstream = Upstream(store, witness)
            for _ in range(share(1, 4)):
                await flood(store, witness, 12 * MIB)
                await upstream.take()
                await upstream.keep()
                await witness.bury(store)
            await flood(store, witness, 300 * KIB)  # the letters may have used it: it is whole before events may grow
            assert not store.committer.held
            evicted = store.events.chain.evicted["disk_full"]
            assert store.events.floor.ordinal == evicted > 0
            assert upstream.cursor.evicted > 0, "the sink is told what it missed"
            assert (disk / "data" / RESERVE).stat().st_size == store.reserve.size_bytes
        acknowledged = await survives_a_reopening(disk / "data", RING, witness)
    keep(
        "S8",
        "disk of 8 MiB under a ring of 16 MiB, `evict`",
        f"{acknowledged:,} events of 1 KiB",
        f"all acknowledged, 0 lost, {evicted:,} evicted and announced",
        seed=seed,
    )


async def test_with_hold_a_full_disk_waits_until_the_sink_has_caught_up(tmp_path, root, witness, seed):
    """Laws L1, L6: with `hold` nothing goes that the sink has not seen, and the disk gets free by its seeing it."""
    settings = replace(RING, when_full="hold")
    with tmpfs(tmp_path, size_bytes=DISK_BYTES) as disk:
        async with opened(disk / "data", settings) as store:
            upstream = Upstream(store, witness)
            for _ in range(share(1, 4)):
                await flood(store, witness, 32 * MIB)
                assert store.committer.held == {"events": "No space left on device"}
                told = witness.told
                witness.send(store, 1)
                await witness.bury(store)  # from the reserve
                await upstream.take()
                assert witness.told == told + 1, "the letter alone"
                await upstream.keep()
                await acknowledges_again(store)
            evicted = store.events.chain.evicted["disk_full"]
            assert upstream.cursor.evicted == 0 < evicted, "nothing went unseen"
        acknowledged = await survives_a_reopening(disk / "data", settings, witness)
    keep(
        "S8",
        "disk of 8 MiB under a ring of 16 MiB, `hold`",
        f"{acknowledged:,} events of 1 KiB, held {share(1, 4)} times",
        "0 lost, 0 evicted before the sink had them",
        seed=seed,
    )


async def before_the_first(store: Store, witness: Witness) -> None:
    """No segment yet."""


async def in_the_middle(store: Store, witness: Witness) -> None:
    """A few segments, the last one half full, none of them seen by the sink."""
    await flood(store, witness, 5 * RING.segment_size_bytes // 2)


LACKS = {"of space": filled, "of inodes": out_of_inodes}


@pytest.mark.parametrize("lack", LACKS)
@pytest.mark.parametrize(
    ("policy", "start"), [("evict", before_the_first), ("hold", before_the_first), ("hold", in_the_middle)]
)
async def test_a_log_without_room_acknowledges_again_without_a_restart(tmp_path, root, witness, lack, policy, start):
    """Laws L1, L2: held while a foreign file takes all the room; then everything is stored, in its order, and stays."""
    settings = replace(RING, when_full=policy)
    with tmpfs(tmp_path, size_bytes=DISK_BYTES, inodes=200) as disk:
        async with opened(disk / "data", settings) as store:
            store.cursors.note("slow", Upstream(store, witness).cursor)
            await start(store, witness)
            rules = store.reader(store.events.appended, durable_only=False)
            with LACKS[lack](disk):
                await flood(store, witness, 2 * settings.segment_size_bytes)
                assert store.committer.held == {"events": "No space left on device"}
                durable, told = store.events.durable, witness.told
                for _ in range(3):
                    witness.send(store, 10)
                while rules.position.seq < store.events.appended.seq:
                    await rules.read(1_000)  # rules go on
                assert (store.events.durable, witness.told) == (durable, told)
            after_s = await acknowledges_again(store)
            await flood(store, witness, settings.segment_size_bytes)
        acknowledged = await survives_a_reopening(disk / "data", settings, witness)
    place = "before the first segment" if start is before_the_first else "in the middle of a segment"
    keep(
        "S8",
        f"disk out {lack} {place}, `{policy}`",
        f"{acknowledged:,} events",
        f"0 acknowledged while held; acknowledging {after_s:.1f} s after room came back; 0 lost after a reopening",
    )


async def test_an_event_larger_than_a_segment_is_stored_whole_or_waits(tmp_path, root, witness):
    """Laws L1, L2: a true short write, in the middle of one frame, seals the segment and costs nothing."""
    settings = replace(RING, when_full="hold")
    with tmpfs(tmp_path, size_bytes=DISK_BYTES) as disk:
        async with opened(disk / "data", settings) as store:
            store.cursors.note("slow", Upstream(store, witness).cursor)
            with filled(disk, leave_bytes=3 * settings.segment_size_bytes // 2):
                witness.send(store, 1, size_bytes=4 * settings.segment_size_bytes)
                await settled(store)
                assert store.committer.held == {"events": "No space left on device"}
                assert witness.told == 0
            await acknowledges_again(store)
        assert await survives_a_reopening(disk / "data", settings, witness) == 1


async def a_dead_letter(store: Store, witness: Witness) -> None:
    await witness.bury(store, 3)


async def a_new_cursor(store: Store, witness: Witness) -> None:
    await Upstream(store, witness).keep()


async def an_audit_record(store: Store, witness: Witness) -> None:
    witness.append(store, store.audit, witness.compose(AUDIT, 3))
    await store.committer.flush()


SMALL_THINGS: list[Callable[[Store, Witness], Awaitable[None]]] = [a_dead_letter, a_new_cursor, an_audit_record]


@pytest.mark.parametrize("lack", LACKS)
@pytest.mark.parametrize("thing", SMALL_THINGS)
async def test_small_things_are_stored_on_a_disk_without_any_room(tmp_path, root, witness, thing, lack):
    """Law L6: the reserve is theirs. A file that is removed for them gives back its space and its inode."""
    with tmpfs(tmp_path, size_bytes=DISK_BYTES, inodes=200) as disk:
        async with opened(disk / "data", RING) as store:
            with LACKS[lack](disk):
                async with asyncio.timeout(_SPACE_IS_BACK_S):
                    await thing(store, witness)
                assert not store.committer.held
                assert not (disk / "data" / RESERVE).exists()
            witness.send(store, 10)
            await acknowledges_again(store)
            assert (disk / "data" / RESERVE).stat().st_size == store.reserve.size_bytes, "whole before telemetry grows"
        await survives_a_reopening(disk / "data", RING, witness)


async def test_a_snapshot_that_finds_no_room_leaves_the_former_one(tmp_path, root, witness):
    """Law L12: refused and told; the former one stands, nothing is left over, and the next one is stored."""
    with tmpfs(tmp_path, size_bytes=DISK_BYTES) as disk:
        async with opened(disk / "data", RING) as store:
            await witness.snap(store)
            with filled(disk, leave_bytes=64 * KIB), pytest.raises(StorageError, match="No space left"):
                await witness.snap(store, 200_000)
            assert store.load_rules().startswith(b"1 ")
            await witness.snap(store, 200_000)
        await survives_a_reopening(disk / "data", RING, witness)
        assert witness.snapshot_kept == 3


@pytest.mark.parametrize("lack", LACKS)
async def test_a_start_on_a_full_disk_succeeds(tmp_path, root, witness, lack):
    """Law L5: nobody makes room by hand before the gateway starts; it starts, is held, and goes on."""
    settings = replace(RING, when_full="hold")
    with tmpfs(tmp_path, size_bytes=DISK_BYTES, inodes=200) as disk:
        async with opened(disk / "data", settings) as store:
            await in_the_middle(store, witness)
            await Upstream(store, witness).keep()
        (disk / "data" / RESERVE).unlink()
        with LACKS[lack](disk):
            async with opened(disk / "data", settings) as store:
                judgement = await witness.judge(store)
                assert judgement.clean, judgement
                store.cursors.note("slow", Upstream(store, witness).cursor)
                witness.send(store, 10)
                await until(lambda: store.committer.held)
                assert store.events.floor == Position(0, 0)
        async with opened(disk / "data", settings) as store:
            witness.send(store, 10)
            await acknowledges_again(store)
        await survives_a_reopening(disk / "data", settings, witness)


@pytest.mark.parametrize(
    ("limit", "left", "why"),
    [
        ("descriptors", -1_000, "Too many open files"),  # not even one for the next segment
        ("descriptors", 0, "Too many open files"),  # one, that of the sealed segment: none for the directory
        ("file size", 100_000, "File too large"),
    ],
)
async def test_a_limit_of_the_process_holds_the_log_until_it_is_raised(tmp_path, witness, limit, left, why):
    """Laws L1, L2: EMFILE with no descriptor left or one, EFBIG in the middle of a frame: held, then stored."""
    command = [sys.executable, "-m", "tests.crash.limited", tmp_path, limit, str(left)]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen == {"held": {"events": why}, "acknowledged_while_held": 0, "failure": None}
    acknowledged = await survives_a_reopening(tmp_path / "data", RING, witness)
    sent, _ = witness.journal()
    assert acknowledged == len(sent), "everything that was offered is stored now"
    keep(
        "S8", f"process out of room: {why}", f"{acknowledged:,} events", "0 acknowledged while held, 0 lost after that"
    )

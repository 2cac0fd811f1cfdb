"""S9b and S12: a medium that fails behind the page cache's back, and one that says "synced" and has not.

**S9b, the real fsyncgate.** ext4 in an image on a tmpfs that is full: write-back fails, one sync is told (EIO), and the
next sync of the same file succeeds although the data is gone. Whoever retries a sync loses data here; a control test
shows that the rig does that.

**S12, the lying card.** Syncs do nothing, then the power goes. What was acknowledged may be gone; nobody can help that;
what must hold all the same: the next start needs nobody, nothing comes out that was never sent, cursors that stand
beyond the log's end are brought back, and what that costs is counted.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.errors import StorageError
from gateway.ringlog import Store
from gateway.ringlog.storage import DiskFile
from tests.conftest import HandClock
from tests.crash.figures import keep, share
from tests.crash.mounts import MIB, Cut, Ext4, ext4, resize_tmpfs, tmpfs
from tests.crash.writer import (
    KIB,
    SMALL,
    Disk,
    TrackedFile,
    Upstream,
    Witness,
    end,
    is_dead,
    open_store,
    settled,
    snapshot_of,
)
from tests.oracle import Name, judge

HOST_BYTES = 12 * MIB
"""What the image really has, of the 64 MiB that it claims."""
ROOMY = replace(SMALL, max_size_bytes=32 * MIB, segment_size_bytes=256 * KIB)


def test_the_rig_makes_a_retried_sync_lose_data(tmp_path, root):
    """The control: after one EIO the same file syncs without an error, and what it held is gone after a remount."""
    with (
        tmpfs(tmp_path, size_bytes=HOST_BYTES) as host,
        ext4(tmp_path, size_bytes=64 * MIB, image=host / "i", most_kib=4) as mains,
    ):
        path = mains.place / "naive"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        told: list[bytes] = []
        errors = 0
        try:
            for number in range(16):
                block = bytes([number + 1]) * MIB
                os.pwrite(fd, block, number * MIB)
                for _ in range(3):
                    try:
                        os.fsync(fd)
                    except OSError:
                        errors += 1
                    else:
                        told.append(block)
                        break
                if errors and told[-1] == block:
                    break
        finally:
            os.close(fd)
        resize_tmpfs(host, 4 * HOST_BYTES)
        mains.unmount()
        mains.mount()
        found = path.read_bytes()
    assert errors, "write-back never failed"
    lost = [block[0] for block in told if found[(block[0] - 1) * MIB : block[0] * MIB] != block]
    assert lost, "a retried sync was as good as its word: the rig proves nothing"


async def test_a_write_back_that_fails_loses_nothing_that_was_acknowledged(tmp_path, root, rng, seed):
    """Law L1: after an error the page cache is no evidence; only what a successful sync covered is acknowledged."""
    rounds = share(1, 40)
    acknowledged = 0
    for number in range(rounds):
        with (
            contextlib.closing(Witness(tmp_path / f"journal{number}", rng)) as witness,
            tmpfs(tmp_path, size_bytes=HOST_BYTES) as host,
            ext4(tmp_path, size_bytes=64 * MIB, image=host / "image", most_kib=4) as mains,
        ):
            acknowledged += await one_fsyncgate(mains, host, witness)
    keep(
        "S9",
        "write-back fails under the file system: one sync is refused, the next would succeed",
        f"{rounds} times",
        f"{acknowledged:,} acknowledged, 0 lost after the remount",
        seed=seed,
    )


async def one_fsyncgate(mains: Ext4, host: Path, witness: Witness) -> int:
    """Write until the medium fails, remount with room, judge. How much was acknowledged."""
    data_dir = mains.place / "data"
    disk = Disk()
    store = open_store(data_dir, HandClock(), ROOMY, storage=disk)
    upstream = Upstream(store, witness)
    try:
        while not is_dead(store):
            witness.send(store, witness.rng.randint(1, 60), size_bytes=witness.rng.choice((200, 1_000, 4_000)))
            await settled(store)
            with contextlib.suppress(StorageError, OSError):
                await upstream.take()
    finally:
        await end(store)
        disk.die()
    resize_tmpfs(host, 4 * HOST_BYTES)
    mains.unmount()
    mains.mount()
    store = open_store(data_dir, HandClock(), ROOMY)
    try:
        judgement = await witness.judge(store)
        witness.send(store, 5)
        await settled(store)
        assert store.events.durable == store.events.appended, "it takes events again"
    finally:
        await end(store)
    assert judgement.clean, judgement
    return judgement.acknowledged


class LyingDisk(Disk):
    """A card that says "synced" at once, of some files or of all. The file system believes it."""

    def __init__(self, kept: tuple[str, ...]) -> None:
        """Args: kept: endings of the files of which it keeps its word."""
        super().__init__()
        self.kept = kept

    def create(self, path: Path) -> LyingFile:
        return LyingFile(super().create(path), self)

    def open(self, path: Path, *, writable: bool = False) -> DiskFile | TrackedFile:
        file = super().open(path, writable=writable)
        return LyingFile(file, self) if isinstance(file, TrackedFile) else file

    def sync_dir(self, path: Path) -> None:
        """Does nothing."""


class LyingFile(TrackedFile):
    """A file on it."""

    def __init__(self, file: TrackedFile, disk: LyingDisk) -> None:
        super().__init__(file._file, file.path, disk)
        self._keeps_its_word = file.path.name.endswith(disk.kept)
        disk._open_files.remove(file)

    def sync(self) -> None:
        if self._keeps_its_word:
            super().sync()


CARDS: tuple[tuple[str, ...], ...] = ((), (".cursor",), (".cursor", "meta"), (".seg",), (".seg", "meta"), ("",))
"""What a card keeps its word about, from nothing to everything. One that spares the cursors makes them run ahead."""


@dataclass
class Aftermath:
    """What lying cost, over all cuts."""

    cuts: int = 0
    lost: int = 0
    """Acknowledged events that are gone."""
    gone: set[Name] = field(default_factory=set)
    """The same, on the present disk."""
    clamped: int = 0
    """Cursors that stood beyond the log's end."""
    beyond: int = 0
    """Events that were counted as lost by bringing them back."""
    reused: int = 0
    """Ids that named a second event: the price of a card that loses the epoch."""


async def test_a_card_that_lies_costs_data_and_never_a_start(tmp_path, root, rng, seed):
    """Laws L5, L7: no start that fails, no wrong payload, a cursor beyond the end is brought back and counted."""
    seen = Aftermath()
    cuts, lives_per_disk = share(12, 600), 12
    for first in range(0, cuts, lives_per_disk):
        clock = HandClock()
        with contextlib.closing(Witness(tmp_path / f"journal{first}", rng)) as witness, ext4(tmp_path) as mains:
            for kept in rng.sample(2 * CARDS, lives_per_disk):
                await one_lying_life(mains, LyingDisk(kept), witness, clock, seen)
                clock.reboot()
            store = open_store(mains.place / "data", clock)
            try:
                await what_is_there_is_right(store, witness, seen)
            finally:
                await store.close()
        seen.lost += len(seen.gone)
        seen.gone.clear()
        seen.reused += len(set(witness.reused_ids))
    assert seen.lost, "the cards never took anything: the rig proves nothing"
    assert seen.clamped, "no cursor ever stood beyond the end"
    keep(
        "S12",
        "a card that lies about syncs, then a power cut",
        f"{seen.cuts} cuts",
        f"0 failed starts, 0 wrong payloads, 0 out of order; {seen.lost:,} acknowledged events gone (not promised); "
        f"{seen.clamped} cursors beyond the end brought back, {seen.beyond:,} events counted for that; "
        f"{seen.reused:,} ids used twice",
        seed=seed,
    )


async def one_lying_life(mains: Ext4, disk: LyingDisk, witness: Witness, clock: HandClock, seen: Aftermath) -> None:
    """Open what the last cut left, look at all of it, write on, have the power cut."""
    store = open_store(mains.place / "data", clock, storage=disk)
    try:
        await what_is_there_is_right(store, witness, seen)
        upstream = Upstream(store, witness)
        assert upstream.was_clamped == (upstream.beyond > 0), "the ledger counts what the reader takes back"
        seen.clamped += upstream.was_clamped
        seen.beyond += upstream.beyond
        for _ in range(witness.rng.randint(3, 30)):
            witness.send(store, witness.rng.randint(1, 10))
            await settled(store)
            await upstream.take()
        await upstream.keep()
        await witness.bury(store)
        await witness.snap(store)
        mains.cut(Cut.NOTHING)
        while not is_dead(store):
            witness.send(store, 1)
            await settled(store)
    finally:
        await end(store)
        disk.die()
    mains.unmount()
    mains.mount()
    seen.cuts += 1


async def what_is_there_is_right(store: Store, witness: Witness, seen: Aftermath) -> None:
    """Whatever is missing: nothing that is there was not sent, nothing stands twice or out of its order."""
    sent, acknowledged = witness.journal()
    found = [item for ring in store.rings for item in await witness.read(store, ring)]
    judgement = judge(sent, acknowledged, found)
    assert not judgement.phantom, judgement
    assert not judgement.disordered, judgement
    assert judgement.repeats == 0, judgement
    value = store.load_rules()
    assert value is None or value == snapshot_of(int(value.split(b" ")[0]), len(value))
    seen.gone |= set(judgement.lost) - witness.evicted(store)

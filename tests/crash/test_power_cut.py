"""S3: the power goes, on ext4, at any call and in the middle of any: nothing that was promised is missing then."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.errors import StorageError
from gateway.ringlog import Store
from gateway.ringlog.store import EVENTS_DIR
from tests.conftest import HandClock
from tests.crash.figures import keep, share
from tests.crash.mounts import Cut, Ext4, ext4
from tests.crash.writer import (
    AUDIT,
    SMALL,
    Disk,
    TrackedFile,
    Upstream,
    Witness,
    end,
    is_dead,
    open_store,
    settled,
)
from tests.oracle import leaks_in

SETTINGS = {
    "ordered, journal not flushed": ("data=ordered", Cut.NOTHING),
    "ordered, journal flushed": ("data=ordered", Cut.LOG),
    "writeback, journal not flushed": ("data=writeback,nodelalloc", Cut.NOTHING),
    "writeback, journal flushed": ("data=writeback,nodelalloc", Cut.LOG),
    "writeback, no flush at rename": ("data=writeback,nodelalloc,noauto_da_alloc", Cut.LOG),
}
LIVES_PER_DISK = 25
"""On one file system, so that freed blocks come back with what an older life has left in them."""
STREAMS = [f"devices/{number}/climate" for number in range(3)]


@dataclass
class Campaign:
    """What was done and seen."""

    cuts: int = 0
    acknowledged: int = 0
    while_opening: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    """Calls at which the power went."""
    tails: Counter[str] = field(default_factory=Counter)
    """What became of bytes that were written and not synced."""


class MainsDisk(Disk):
    """A disk whose power goes at a chosen call: before it, or while it runs."""

    def __init__(self, mains: Ext4, how: Cut, rng: random.Random) -> None:
        super().__init__()
        self._mains, self._how = mains, how
        # Rolls, renames and the like are few among writes and syncs, and freed blocks are soon used again.
        self._aim = rng.choice(("anything", "what is rare", "what follows an eviction"))
        self._countdown = rng.randint(
            1, {"anything": 120, "what is rare": 25, "what follows an eviction": 12}[self._aim]
        )
        self._has_evicted = False
        self._beside = rng.random() < 0.5
        self._cutter: threading.Thread | None = None
        self.is_off = False
        self.is_steady = False
        """The power stays on for the present."""
        self.moment = ""
        self.caught: list[TrackedFile] = []
        """Files that were open for writing when it happened."""

    def note(self, call: str, path: Path) -> None:
        if self.is_off or self.is_steady:
            return
        family = path.suffix.lstrip(".") or path.name
        is_common = call in {"write", "sync"} and family == "seg"
        self._has_evicted |= (call, family) == ("remove", "seg")
        if (self._aim == "what is rare" and is_common) or (
            self._aim == "what follows an eviction" and not self._has_evicted
        ):
            return
        self._countdown -= 1
        if self._countdown > 0:
            return
        self.moment = f"{call} {family}"
        self.caught = self.open_files
        self.is_off = True
        if self._beside:
            self._cutter = threading.Thread(target=self._mains.cut, args=(self._how,))
            self._cutter.start()
        else:
            self._mains.cut(self._how)

    def die(self) -> None:
        """As a process dies when its machine does."""
        if self._cutter is not None:
            self._cutter.join()
        super().die()


async def one_life(mains: Ext4, how: Cut, witness: Witness, clock: HandClock, seen: Campaign) -> None:
    """Open, judge what the last cut left, work until the next one."""
    disk = MainsDisk(mains, how, witness.rng)
    try:
        store = open_store(mains.place / "data", clock, storage=disk)
    except StorageError:
        if not disk.is_off:
            raise  # a start that needs a person's hand
        seen.while_opening += 1
    else:
        witness.is_cut_off = lambda: disk.is_off
        async with asyncio.TaskGroup() as tasks:
            try:
                if not disk.is_off:  # else a cut in the middle of the last call of the opening
                    disk.is_steady = True
                    judgement = await witness.judge(store)
                    disk.is_steady = False
                    assert judgement.clean, judgement
                    await live(store, witness, disk, tasks)
            finally:
                await end(store)
    finally:
        disk.die()
    mains.unmount()
    mains.mount()
    seen.cuts += 1
    seen.moments[disk.moment] += 1
    seen.tails.update(what_is_left(file) for file in disk.caught if file.unsynced)


async def live(store: Store, witness: Witness, disk: MainsDisk, tasks: asyncio.TaskGroup) -> None:
    """Do a bit of everything until the power goes, and go on until the store has noticed."""
    rng = witness.rng
    upstream = Upstream(store, witness)
    assert not upstream.was_clamped, "a cursor was let out before what it passed was on disk"
    while not disk.is_off:
        match rng.choices(("events", "huge", "letters", "audit", "snapshot", "cursor"), (30, 1, 3, 3, 3, 6))[0]:
            case "events":
                witness.send(store, rng.randint(1, 8), stream=rng.choice(STREAMS))
            case "huge":  # larger than a segment, which grows for it
                witness.send(store, 1, stream=rng.choice(STREAMS), size_bytes=3 * SMALL.segment_size_bytes)
            case "letters":
                tasks.create_task(unless_off(witness.bury(store, rng.randint(1, 3))))
            case "audit":
                witness.append(store, store.audit, witness.compose(AUDIT, 2))
            case "snapshot":
                await unless_off(witness.snap(store, rng.choice((100, 3_000, 30_000))))
            case "cursor":
                await unless_off(upstream.take())
                await unless_off(upstream.keep())
        if rng.random() < 0.6:
            await settled(store)
    while not is_dead(store):
        witness.send(store, 1)
        await settled(store)


async def unless_off(doing: Coroutine[None, None, None]) -> None:
    """What a disk without power refuses is nobody's fault."""
    with contextlib.suppress(StorageError, OSError):
        await doing


def what_is_left(file: TrackedFile) -> str:
    """What the medium has of bytes that were written and never synced."""
    try:
        content = file.path.read_bytes()
    except FileNotFoundError:
        return "file gone"
    written = b"".join(data for _, data in file.unsynced)
    found = b"".join(content[offset : offset + len(data)] for offset, data in file.unsynced)
    if found == written:
        return "all there"
    if len(found) < len(written):
        return "cut short"
    return "torn" if any(found) else "zeros"


async def after_the_last(mains: Ext4, witness: Witness, clock: HandClock) -> int:
    """Open once more, with the power on: everything is there, works, and is in its bounds. Acknowledged so far."""
    data_dir = mains.place / "data"
    witness.is_cut_off = lambda: False
    disk = Disk()
    store = open_store(data_dir, clock, storage=disk)
    try:
        judgement = await witness.judge(store)
        witness.send(store, 5)
        await witness.snap(store)
        await store.close()
    finally:
        disk.die()
    size_bytes = sum(path.stat().st_size for path in (data_dir / EVENTS_DIR).glob("*.seg"))
    leaks = leaks_in(data_dir)
    assert judgement.clean, judgement
    assert not leaks
    assert size_bytes <= SMALL.max_size_bytes + 4 * SMALL.segment_size_bytes, (
        "L6, with a segment grown for a huge event"
    )
    store = open_store(data_dir, clock)
    try:
        judgement = await witness.judge(store)
    finally:
        await store.close()
    assert judgement.clean, judgement
    return judgement.acknowledged


@pytest.mark.parametrize("setting", SETTINGS)
async def test_a_power_cut_takes_nothing_that_was_promised(tmp_path, root, rng, seed, setting):
    """Laws L1, L2, L3, L5: at any call, and in the middle of any; the next start needs nobody and has everything."""
    options, how = SETTINGS[setting]
    seen = Campaign()
    cuts = share(8, 800)
    for first in range(0, cuts, LIVES_PER_DISK):
        clock = HandClock()
        witness = Witness(tmp_path / f"journal{first}", rng)
        with contextlib.closing(witness), ext4(tmp_path, options=options) as mains:
            for _ in range(min(LIVES_PER_DISK, cuts - first)):
                await one_life(mains, how, witness, clock, seen)
                clock.reboot()
            seen.acknowledged += await after_the_last(mains, witness, clock)
    tails = ", ".join(f"{count} {what}" for what, count in seen.tails.most_common())
    print("cuts at:", dict(seen.moments.most_common()))
    keep(
        "S3",
        f"power cut, ext4 {setting}",
        f"{seen.cuts:,} cuts, {seen.while_opening:,} of them while starting, at {len(seen.moments)} kinds of call",
        f"{seen.acknowledged:,} acknowledged, 0 lost, 0 phantom, 0 manual steps; files with unsynced bytes: {tails}",
        seed=seed,
    )

"""`repair`: everything that is left of a damaged log, in a log that is sound; and nothing lost if it breaks off."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.config.settings import LogSettings
from gateway.errors import LogInUseError, StorageError
from gateway.model import Batch, Gap, Position
from gateway.ringlog import Store, contents, swap
from gateway.ringlog.inspect import scan_log, verify
from gateway.ringlog.repair import repair
from gateway.ringlog.storage import DiskFile, DiskStorage
from tests.crash.figures import keep, share

LOG = LogSettings(
    max_size_bytes=1 << 20, segment_size_bytes=8 * 1024, tip_bytes=4_096, compress=False, sync_interval_s=None
)


class Crash(BaseException):
    """The process is gone: nothing after this runs."""


class DyingStorage(DiskStorage):
    """Dies at the nth call that changes something, before or after it was carried out."""

    def __init__(self, nth: int | None, *, after: bool = False) -> None:
        self.calls = 0
        self._nth, self._after = nth, after

    def step(self, call):
        self.calls += 1
        dies = self.calls == self._nth
        if dies and not self._after:
            raise Crash
        result = call()
        if dies:
            raise Crash
        return result

    def make_dir(self, path):
        self.step(lambda: super(DyingStorage, self).make_dir(path))

    def create(self, path):
        return DyingFile(self.step(lambda: super(DyingStorage, self).create(path)), self)

    def open(self, path, *, writable=False):
        file = super().open(path, writable=writable)
        return DyingFile(file, self) if writable else file

    def rename(self, old, new):
        self.step(lambda: super(DyingStorage, self).rename(old, new))

    def remove(self, path):
        self.step(lambda: super(DyingStorage, self).remove(path))

    def sync_dir(self, path):
        self.step(lambda: super(DyingStorage, self).sync_dir(path))


class DyingFile:
    def __init__(self, file: DiskFile, storage: DyingStorage) -> None:
        self._file, self._storage = file, storage

    def __getattr__(self, name):
        call = getattr(self._file, name)
        if name in {"write", "sync", "truncate", "allocate"}:
            return lambda *args: self._storage.step(lambda: call(*args))
        return call


@pytest.fixture
async def lived(tmp_path, clock, make_batch) -> Path:
    """A data directory with three openings' worth of events, 900 records in all, and a few dead letters."""
    data_dir = tmp_path / "data"
    for opening in range(3):
        store = Store(data_dir, "gw", LOG, clock, lambda error: None)
        for batch in range(30):
            first = 300 * opening + 10 * batch
            payloads = [b"%08d" % seq + b"." * 90 for seq in range(first, first + 10)]
            store.events.append(make_batch(payloads, stamp=store.events.stamp()))
            await store.committer.flush()
        await store.close()
        clock.advance(60)
    return data_dir


def held(data_dir: Path, log="events") -> dict[int, bytes]:
    """Every record by its number."""
    batches = (item for item in scan_log(data_dir, log) if isinstance(item, Batch))
    return {event.seq: event.payload for batch in batches for event in batch.events()}


def tree(path: Path) -> dict[str, bytes]:
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def segments(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "events").glob("*.seg"))


def flip(path: Path, at: int, bit: int = 0x10) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bit
    path.write_bytes(data)


def events_of(done):
    return next(each for each in done if each.log == "events")


async def read_as_a_sink(data_dir: Path, clock) -> tuple[dict[int, bytes], list[Gap]]:
    """What the gateway's own reader gets, in order."""
    store = Store(data_dir, "gw", LOG, clock, lambda error: None)
    try:
        reader = store.reader(Position(0, 0), durable_only=True)
        found, gaps = {}, []
        while reader.position.seq < store.events.durable.seq:
            item = await reader.read(1_000)
            if isinstance(item, Gap):
                gaps.append(item)
            else:
                assert not found or item.seq > max(found)
                found |= {event.seq: event.payload for event in item.events()}
        return found, gaps
    finally:
        await store.close()


async def test_a_sound_log_is_left_as_it_is(lived):
    """Law L5: nothing to mend, nothing to write."""
    before = tree(lived)
    done = repair(lived)
    assert [(each.log, each.outcome) for each in done] == [
        (log, "sound") for log in ("events", "deadletters", "audit", "clients")
    ]
    assert events_of(done).records == 900
    assert tree(lived) == before


async def test_an_unfinished_write_at_the_end_needs_no_repair(lived):
    """Law L5: the next start cuts it off by itself."""
    with segments(lived)[-1].open("ab") as out:
        out.write(b"EGLF half a frame")
    before = tree(lived)
    assert events_of(repair(lived)).outcome == "sound"
    assert tree(lived) == before


async def test_a_repair_keeps_every_record_that_is_left_and_says_what_is_lost(lived, clock):
    """Law L5: one flipped bit costs one frame; the log as it was stays beside it, untouched."""
    bad = segments(lived)[1]
    flip(bad, 64 + 300)
    before, original = held(lived), tree(lived / "events")
    lost = sorted(set(range(900)) - before.keys())
    assert len(lost) == 10
    done = events_of(repair(lived))
    assert (done.outcome, done.records, done.original) == ("repaired", 890, "events.damaged-1")
    assert [tuple(gone) for gone in done.lost] == [(lost[0], lost[-1] + 1)]
    (loss,) = done.damaged
    assert (loss.segment, loss.offset, loss.why) == (bad.name, 64, "checksum does not match")
    assert done.quarantined_bytes == loss.length_bytes
    assert held(lived) == before
    assert tree(lived / "events.damaged-1") == original
    found, gaps = await read_as_a_sink(lived, clock)
    assert found == before
    assert gaps == [Gap(lost[0], lost[-1] + 1, 10, "damaged")]


async def test_what_was_lost_is_written_off_and_told_once(lived):
    """Law: after a repair the log is sound, and a second repair finds nothing to do; new damage is still found."""
    flip(segments(lived)[1], 400)
    repair(lived)
    report = verify(lived)
    assert report.sound
    assert report.written_off_records == 10
    assert events_of(repair(lived)).outcome == "sound"
    flip(segments(lived)[4], 400)
    assert verify(lived).missing_records == 10
    done = events_of(repair(lived))
    assert (done.original, done.records) == ("events.damaged-2", 880)
    assert verify(lived).written_off_records == 20


async def test_a_log_goes_on_after_a_repair_under_ids_that_were_never_used(lived, clock, make_batch):
    """Law L3: no number and epoch name two events; cursors stay good."""
    store = Store(lived, "gw", LOG, clock, lambda error: None)
    first = store.events.origin
    await store.close()
    flip(segments(lived)[0], 400)
    repair(lived)
    store = Store(lived, "gw", LOG, clock, lambda error: None)
    try:
        assert store.events.origin.log_id == first.log_id
        assert store.events.origin.epoch > first.epoch
        assert store.events.appended == Position(900, 900)
        store.events.append(make_batch([b"on"], stamp=store.events.stamp()))
        await store.committer.flush()
    finally:
        await store.close()
    assert held(lived)[900] == b"on"


async def test_a_dry_run_says_the_same_and_changes_nothing(lived):
    """Law: whoever wants to know first can."""
    flip(segments(lived)[1], 400)
    before = tree(lived)
    told = events_of(repair(lived, dry_run=True))
    assert tree(lived) == before
    done = events_of(repair(lived))
    assert told.outcome == "damaged"
    assert (told.lost, told.records, told.segments, told.quarantined_bytes) == (
        done.lost,
        done.records,
        done.segments,
        done.quarantined_bytes,
    )


async def test_a_running_gateway_is_not_repaired_under_its_feet(lived, clock):
    """Law: one writer; the lock that the gateway holds is the lock that a repair takes."""
    store = Store(lived, "gw", LOG, clock, lambda error: None)
    try:
        for dry_run in (False, True):
            with pytest.raises(LogInUseError, match="stop it first"):
                repair(lived, dry_run=dry_run)
    finally:
        await store.close()


DAMAGE = {}


def damage(function):
    DAMAGE[function.__name__] = function
    return function


@damage
def flipped_bits(rng, files):
    for _ in range(rng.randint(1, 5)):
        path = rng.choice(files)
        flip(path, rng.randrange(path.stat().st_size), 1 << rng.randrange(8))


@damage
def zeroed_sectors(rng, files):
    path = rng.choice(files)
    data = bytearray(path.read_bytes())
    at = 512 * rng.randrange(len(data) // 512)
    data[at : at + 512] = bytes(len(data[at : at + 512]))
    path.write_bytes(data)


@damage
def a_lost_header(rng, files):
    path = rng.choice(files)
    path.write_bytes(rng.randbytes(64) + path.read_bytes()[64:])


@damage
def a_segment_that_is_gone(rng, files):
    rng.choice(files[1:]).unlink()


@damage
def a_segment_that_is_garbage(rng, files):
    path = rng.choice(files)
    path.write_bytes(rng.randbytes(path.stat().st_size))


@damage
def a_segment_cut_short(rng, files):
    path = rng.choice(files[:-1])
    os.truncate(path, rng.randrange(path.stat().st_size))


@damage
def a_copy_under_another_name(rng, files):
    other, path = rng.sample(files, 2)
    path.write_bytes(other.read_bytes())


@damage
def a_stale_frame_in_the_middle(rng, files):
    older, newer = sorted(rng.sample(files, 2))
    data = bytearray(newer.read_bytes())
    old = older.read_bytes()[64 : 64 + 1_500]
    at = rng.randrange(64, max(65, len(data) - len(old)))
    data[at : at + len(old)] = old
    newer.write_bytes(data)


@damage
def a_newer_frame_in_the_middle(rng, files):
    older, newer = sorted(rng.sample(files, 2))
    data = bytearray(older.read_bytes())
    new = newer.read_bytes()[64 : 64 + 1_500]
    at = rng.randrange(64, max(65, len(data) - len(new)))
    data[at : at + len(new)] = new
    older.write_bytes(data)


@damage
def sectors_in_the_wrong_order(rng, files):
    path = rng.choice(files)
    data = bytearray(path.read_bytes())
    one, other = (512 * rng.randrange(len(data) // 512) for _ in "ab")
    data[one : one + 512], data[other : other + 512] = data[other : other + 512], data[one : one + 512]
    path.write_bytes(data)


@damage
def frames_in_the_wrong_order(rng, files):
    path = rng.choice(files)
    data = bytearray(path.read_bytes())
    size = len(data[64:]) // (len(data[64:]) // 1_099)
    one, other = (64 + size * rng.randrange((len(data) - 64) // size) for _ in "ab")
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]
    path.write_bytes(data)


@damage
def a_lost_meta(rng, files):
    (files[0].parent / "meta").unlink()
    flipped_bits(rng, files)


@pytest.mark.parametrize("kind", DAMAGE)
async def test_readers_see_the_same_before_and_after_a_repair(lived, tmp_path, clock, seed, kind):
    """Law L5: nothing that a reader could still get is lost by a repair, nothing appears that was not there."""
    rng = random.Random(seed)
    whole = held(lived)
    cases, lost = share(4, 150), 0
    for number in range(cases):
        data_dir, witness = tmp_path / f"case-{number}", tmp_path / f"witness-{number}"
        shutil.copytree(lived, data_dir)
        DAMAGE[kind](rng, segments(data_dir))
        shutil.copytree(data_dir, witness)
        before = held(data_dir)
        done = events_of(repair(data_dir))
        if done.outcome == "repaired":
            assert tree(data_dir / "events.damaged-1") == tree(witness / "events")
        after = held(data_dir)
        assert after == before
        assert after.items() <= whole.items()
        assert verify(data_dir).sound
        assert events_of(repair(data_dir)).outcome == "sound"
        seen, _ = await read_as_a_sink(witness, clock)
        assert (await read_as_a_sink(data_dir, clock))[0] == seen == before
        lost += len(whole) - len(after)
        for path in (data_dir, witness):
            shutil.rmtree(path)
    keep("repair", kind.replace("_", " "), f"{cases} logs", f"0 records lost beyond the {lost} damaged ones", seed=seed)


def count_steps(data_dir: Path) -> int:
    storage = DyingStorage(None)
    repair(data_dir, storage=storage)
    return storage.calls


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after it"])
async def test_a_repair_that_dies_anywhere_loses_nothing(lived, tmp_path, clock, after):
    """Law L5: at every call that changes the disk; the gateway starts, or the next repair finishes."""
    flip(segments(lived)[1], 400)
    flip(segments(lived)[5], 400)
    before = held(lived)
    trial = tmp_path / "trial"
    shutil.copytree(lived, trial)
    steps = count_steps(trial)
    every = share(8, 1)
    died = resumed = 0
    for nth in range(1, steps + 1):
        if nth % every and nth < steps - 6:
            continue
        again, start = tmp_path / f"again-{nth}", tmp_path / f"start-{nth}"
        shutil.copytree(lived, again)
        with pytest.raises(Crash):
            repair(again, storage=DyingStorage(nth, after=after))
        died += 1
        shutil.copytree(again, start)
        # Either the next repair …
        resumed += any(each.resumed for each in repair(again))
        assert held(again) == before
        assert verify(again).sound
        assert not (again / "events.repaired").exists()
        # … or a start of the gateway.
        swap.settle(DiskStorage(), start, "events")
        assert (await read_as_a_sink(start, clock))[0] == before
        for path in (again, start):
            shutil.rmtree(path)
    assert resumed > 0, "the swap itself must be among the steps"
    keep(
        "repair",
        f"repair killed {'after' if after else 'before'} a call that changes the disk",
        f"{died} kill points of {steps}",
        f"0 records lost, 0 logs begun anew; {resumed} swaps finished by the next repair",
    )


@pytest.mark.timeout(900)
async def test_a_repair_that_dies_again_while_it_is_resumed_loses_nothing(lived, tmp_path):
    """Law L5: finishing and discarding are as safe to interrupt as the repair itself."""
    flip(segments(lived)[1], 400)
    before = held(lived)
    trial = tmp_path / "trial"
    shutil.copytree(lived, trial)
    steps = count_steps(trial)
    every = share(20, 1)
    for nth in (*range(every, steps, every), steps - 3, steps - 2, steps - 1):
        for second in range(1, 4 if every > 1 else 12):
            data_dir = tmp_path / f"{nth}-{second}"
            shutil.copytree(lived, data_dir)
            with pytest.raises(Crash):
                repair(data_dir, storage=DyingStorage(nth))
            try:
                repair(data_dir, storage=DyingStorage(second))
            except Crash:
                repair(data_dir)
            assert held(data_dir) == before
            assert verify(data_dir).sound
            shutil.rmtree(data_dir)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("call", ["create", "allocate", "write", "sync", "sync_dir", "rename"])
async def test_a_disk_that_refuses_leaves_the_log_whole(lived, faulty, call, code):
    """Law L5: one line for the operator, and everything that was there before."""
    flip(segments(lived)[1], 400)
    before = held(lived)
    faulty.fail(call, 1, code, times=1_000)
    with pytest.raises(StorageError, match="cannot repair"):
        repair(lived, storage=faulty)
    assert held(lived) == before
    assert events_of(repair(lived)).outcome == "repaired"
    assert held(lived) == before


async def test_a_copy_for_which_there_is_no_room_is_not_begun(lived, monkeypatch):
    """Law L6: a disk is not filled to the brim for a repair."""
    flip(segments(lived)[1], 400)
    before = tree(lived)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=100, f_frsize=4_096))
    with pytest.raises(StorageError, match=r"needs .* MiB, and only 0 MiB are free"):
        repair(lived)
    assert tree(lived) == before


async def test_a_copy_that_does_not_read_back_takes_no_logs_place(lived):
    """Law: what is put in the log's place has been read from the disk first."""

    class Lying(DiskStorage):
        def create(self, path):
            file = super().create(path)
            if path.suffix == ".seg":
                write = file.write
                return SimpleFile(file, lambda data, at: write(data[:-1] + bytes([data[-1] ^ 1]), at))
            return file

    class SimpleFile:
        def __init__(self, file, write):
            self._file, self.write = file, write

        def __getattr__(self, name):
            return getattr(self._file, name)

    flip(segments(lived)[1], 400)
    before = tree(lived / "events")
    with pytest.raises(StorageError, match="does not read back"):
        repair(lived, storage=Lying())
    assert tree(lived / "events") == before


async def test_segments_put_aside_for_their_header_are_brought_back(lived):
    """Law L5: an earlier release renamed them; their records are as good as ever."""
    whole = held(lived)
    path = segments(lived)[3]
    flip(path, 5)
    path.rename(path.with_name(path.name + ".broken"))
    gone = len(whole) - len(held(lived))
    assert gone > 0
    done = events_of(repair(lived))
    assert (done.outcome, done.brought_back_records, done.lost) == ("repaired", gone, [])
    assert held(lived) == whole
    assert verify(lived).sound


async def test_a_newest_segment_put_aside_is_brought_back_unless_its_numbers_are_taken(
    lived, tmp_path, clock, make_batch
):
    """Law L3: what was written since under the same numbers is the log; the older one stays in quarantine."""
    whole = held(lived)
    path = segments(lived)[-1]
    flip(path, 5)
    path.rename(path.with_name(path.name + ".broken"))
    overtaken = tmp_path / "overtaken"
    shutil.copytree(lived, overtaken)
    assert events_of(repair(lived)).outcome == "repaired"
    assert held(lived) == whole
    store = Store(overtaken, "gw", LOG, clock, lambda error: None)
    store.events.append(make_batch([b"new"], stamp=store.events.stamp()))
    await store.committer.flush()
    await store.close()
    before = held(overtaken)
    assert b"new" in before.values()
    assert events_of(repair(overtaken)).outcome == "sound"
    assert held(overtaken) == before


async def test_blocks_that_cannot_be_read_cost_the_records_in_them_alone(lived, monkeypatch):
    """Law L5: a card that wears out; the rest of the segment, and of the log, is kept."""
    whole = held(lived)
    bad = segments(lived)[2]
    inode = bad.stat().st_ino
    pread = os.pread

    def worn(fd, size_bytes, offset):
        if os.fstat(fd).st_ino == inode and offset < 8_192 and offset + size_bytes > 4_096:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, size_bytes, offset)

    monkeypatch.setattr(os, "pread", worn)
    report = verify(lived)
    assert {loss.segment for loss in report.damaged} == {bad.name}
    assert 30 <= report.missing_records <= 60
    done = events_of(repair(lived))
    assert done.outcome == "repaired"
    monkeypatch.undo()
    assert len(held(lived)) == len(whole) - report.missing_records
    assert verify(lived).sound


async def test_a_log_repaired_by_root_still_belongs_to_the_gateway(lived, monkeypatch):
    """Law L5: the gateway always starts, also after an operator has helped as root."""
    flip(segments(lived)[1], 400)
    given = {}
    stat = Path.stat
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda fd, *owner: given.update({Path(f"/proc/self/fd/{fd}").readlink(): owner}))
    monkeypatch.setattr(
        Path,
        "stat",
        lambda path, **kwargs: SimpleNamespace(st_uid=990, st_gid=991, st_mode=stat(path, **kwargs).st_mode),
    )
    assert events_of(repair(lived)).outcome == "repaired"
    monkeypatch.undo()
    names = {path.name for path, owner in given.items() if owner == (990, 991)}
    assert {"lock", "events.repaired"} <= names
    assert {path.name for path in (lived / "events").iterdir()} <= names


@pytest.mark.parametrize("left", ["events.repaired", "events.damaged-1"])
async def test_a_log_whose_directory_is_missing_is_never_begun_anew(lived, clock, left):
    """Law L5: what stands for the log takes its place; the newest original if the copy is not complete."""
    before = held(lived)
    (lived / "events").rename(lived / left)
    (lived / "events.damaged-0").mkdir()
    if left == "events.damaged-1":
        (lived / "events.repaired").mkdir()
    assert swap.settle(DiskStorage(), lived, "events") == left
    assert swap.settle(DiskStorage(), lived, "events") is None
    assert (await read_as_a_sink(lived, clock))[0] == before


def test_where_there_was_never_a_log_nothing_stands_for_it(tmp_path):
    """Law: a first start begins an empty log, and a repair of nothing says so."""
    assert swap.settle(DiskStorage(), tmp_path, "events") is None
    with pytest.raises(StorageError, match="holds no log"):
        repair(tmp_path)


async def test_verify_names_the_damaged_range_and_what_it_cost(lived):
    """Law L5: segment, offset, length, and the numbers that are gone; also where a whole segment is."""
    files = segments(lived)
    flip(files[1], 400)
    first, after = int(files[3].name[:20]), int(files[4].name[:20])
    files[3].unlink()
    flip(files[-1], files[-1].stat().st_size - 1)
    report = verify(lived)
    one, missing, last = report.damaged
    begin = int(files[1].name[:20])
    assert (one.segment, one.offset, one.from_seq, one.to_seq) == (files[1].name, 64, begin, begin + 10)
    assert one.length_bytes == 92 + 2 + 3 + len("devices/a/climate") + 10 * (2 + 1 + 4 + 98)
    assert (missing.why, missing.from_seq, missing.to_seq) == ("records are missing here", first, after)
    assert (last.segment, last.to_seq) == (files[-1].name, 900), "the segment was sealed: this was no unfinished write"
    assert report.missing_records == 10 + (after - first) + 10
    assert report.torn_tail is None


async def test_what_a_damaged_list_of_losses_says_is_not_believed(lived):
    """Law L5: then the loss is told again, and written off again."""
    flip(segments(lived)[1], 400)
    repair(lived)
    (lived / "events" / contents.WRITTEN_OFF).write_text("[[0, 5")
    assert verify(lived).missing_records == 10
    assert events_of(repair(lived)).outcome == "repaired"
    assert verify(lived).sound

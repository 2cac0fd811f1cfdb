"""S14: what people do to a data directory. The gateway starts, says what is missing, and touches nothing foreign."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import pytest

from gateway.config.settings import LogSettings
from gateway.errors import LogInUseError
from gateway.ringlog import Store
from gateway.ringlog.storage import DiskFile
from tests.conftest import HandClock
from tests.crash.bench import Bench, CalmStorage, build_short
from tests.crash.damage import Left, Log, frames_of
from tests.crash.figures import keep

FOREIGN = b"mine, and not a log at all\n" * 40
NOBODY = 65_534


@pytest.fixture(scope="module", autouse=True)
def figures(request) -> Iterator[None]:
    """One line for the table, when all of it has been tried."""
    before = request.session.testsfailed
    yield
    if request.session.testsfailed == before:
        cases = sum(item.path == request.path for item in request.session.items)
        keep("S14", "operator damage", f"{cases} cases", "every start, gaps counted, nothing foreign touched")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench.on_light_storage() as light:
        yield light


@pytest.fixture
def log(bench, rng) -> Log:
    """Six short segments, closed in good order; they lie in the bench."""
    return build_short(bench, rng, 6)


def left_without(log: Log, *names: str) -> Left:
    """What remains if these segments are gone: before the oldest it counts as evicted, between others as damaged."""
    lost = [frame for name in names for frame in frames_of(log.files[name])]
    left = log.left(lost)
    if left.gaps and left.gaps[0].from_seq == 0:
        left.gaps[0] = left.gaps[0]._replace(reason="evicted")
    return left


async def starts_with(bench: Bench, log: Log, expected: Left) -> None:
    """It starts as the same log under a new epoch, gives exactly this, takes more, and starts again."""
    ring = bench.open()
    assert ring.epoch == log.epoch + 1, "no opening has the epoch of another"
    found = await bench.read(ring)
    found.should_be(expected)
    await bench.goes_on(ring, found)


DELETED: dict[str, Callable[[list[str]], list[str]]] = {
    "the first": lambda names: names[:1],
    "the first two": lambda names: names[:2],
    "one in the middle": lambda names: names[2:3],
    "two in the middle": lambda names: names[2:4],
    "every second": lambda names: names[1::2],
    "the last": lambda names: names[-1:],
    "the last two": lambda names: names[-2:],
    "all but the first": lambda names: names[1:],
    "all but one in the middle": lambda names: [*names[:3], *names[4:]],
    "all but the last": lambda names: names[:-1],
    "all": lambda names: names,
}


@pytest.mark.parametrize("with_meta", [True, False], ids=["meta kept", "meta deleted too"])
@pytest.mark.parametrize("which", DELETED)
async def test_deleted_segments_are_a_gap_that_is_counted(bench, log, which, with_meta):
    """Laws L5, L7: whatever was deleted, the rest is delivered, and what is missing is counted in events."""
    gone = DELETED[which](log.segments)
    for name in [*gone, *([] if with_meta else ["meta"])]:
        (bench.directory / name).unlink()
    left = left_without(log, *gone)
    if with_meta:
        await starts_with(bench, log, left)
        return
    # Without meta the segments say which log this is. Openings of which nothing is left are forgotten with them.
    ring = bench.open()
    (await bench.read(ring)).should_be(left)
    await bench.goes_on(ring, left)


async def test_a_log_whose_meta_is_gone_keeps_its_name_and_its_epochs(bench, log):
    """Law L3: ids stay unique: the log id is in every segment, and the newest epoch in the newest of them."""
    log_id = bench.open().log_id
    bench.lay({name: log.files[name] for name in log.segments})
    ring = bench.open()
    assert (ring.log_id, ring.epoch) == (log_id, log.epoch + 1)


async def test_a_meta_file_of_another_log_costs_no_record(bench, log, rng):
    """Law L5: one small file that was copied to the wrong place must not make strangers of all segments."""
    log_id = bench.open().log_id
    with Bench.on_light_storage() as other:
        foreign = build_short(other, rng, 1).files["meta"]
    bench.lay(log.with_bytes("meta", foreign))
    assert bench.open().log_id == log_id
    bench.lay(log.with_bytes("meta", foreign))
    ring = bench.open()
    (await bench.read(ring)).should_be(log.left(()))
    await bench.goes_on(ring, log.left(()))


def next_name(log: Log) -> str:
    """What the segment of the next opening will want to be called."""
    return f"{len(log.records):020d}.seg"


def name_between(log: Log) -> str:
    """A segment's name that no segment has."""
    return f"{int(log.segments[2][:20]) + 1:020d}.seg"


PLACES: dict[str, Callable[[Log], str]] = {
    "between two": name_between,
    "where the next begins": next_name,
    "far behind": lambda log: f"{10**15:020d}.seg",
}
IN_PLACES = pytest.mark.parametrize("place", PLACES)


@IN_PLACES
@pytest.mark.parametrize("copied", [0, 2, -1])
async def test_a_copy_of_a_segment_under_another_name_is_not_read_twice(bench, log, copied, place):
    """Law L3: a copy that an operator made in the directory repeats nothing and hides nothing."""
    data = log.files[log.segments[copied]]
    (bench.directory / PLACES[place](log)).write_bytes(data)
    await starts_with(bench, log, log.left(()))
    assert data in [content for name, content in bench.files().items() if name not in log.segments], "it is kept"


@IN_PLACES
async def test_a_segment_of_another_log_is_not_read_and_not_lost(bench, log, rng, place):
    """Law L5: what another gateway wrote is none of our records, is kept whole, and is in nobody's way."""
    with Bench.on_light_storage() as other:
        strange = build_short(other, rng, 2)
    # Its header has to fit its name, as it would if the other log had come so far.
    data = renumbered(strange.files[strange.segments[0]], int(PLACES[place](log)[:20]))
    (bench.directory / PLACES[place](log)).write_bytes(data)
    await starts_with(bench, log, log.left(()))
    assert data in bench.files().values()


def renumbered(segment: bytes, seq: int) -> bytes:
    """The segment as if it began with another number."""
    head = segment[:24] + seq.to_bytes(8, "little") + segment[32:60]
    return head + crc32(head, 0x45474C46).to_bytes(4, "little") + segment[64:]


FOREIGN_NAMES = [
    "notes.txt", ".hidden", "0.seg", "x.seg", ".seg", "segment", "00000000000000000000.seg.bak", "meta.old", "meta~",
    "copy of 00000000000000000000.seg", "00000000000000000000.SEG", "0000000000000000000a.seg", "lost+found.seg",
]  # fmt: skip


async def test_foreign_files_stay_as_they_are(bench, log):
    """Law L5: nobody's file is read, renamed, changed or deleted, and none is in the way."""
    for name in FOREIGN_NAMES:
        (bench.directory / name).write_bytes(FOREIGN)
    (bench.directory / "backup").mkdir()
    (bench.directory / "backup" / log.segments[0]).write_bytes(FOREIGN)
    await starts_with(bench, log, log.left(()))
    assert [(bench.directory / name).read_bytes() for name in FOREIGN_NAMES] == [FOREIGN] * len(FOREIGN_NAMES)
    assert (bench.directory / "backup" / log.segments[0]).read_bytes() == FOREIGN
    shutil.rmtree(bench.directory / "backup")


@IN_PLACES
@pytest.mark.parametrize(
    "data", [FOREIGN, b"", bytes(5_000), b"EGLOG\x00\r\n"], ids=["text", "empty", "zeros", "magic"]
)
async def test_a_foreign_file_with_a_segments_name_is_moved_aside_at_most(bench, log, place, data):
    """Law L5: what only looks like a segment stops no start, and its bytes are kept (unless there are none)."""
    (bench.directory / PLACES[place](log)).write_bytes(data)
    await starts_with(bench, log, log.left(()))
    assert not data.strip(b"\0") or data in bench.files().values()


async def test_what_was_moved_aside_is_not_overwritten_by_the_next(bench, log):
    """Law L5: the same name turns up again with other bytes: both are kept."""
    wanted = [FOREIGN, FOREIGN[::-1], FOREIGN.upper()]
    for data in wanted:
        (bench.directory / name_between(log)).write_bytes(data)
        bench.open()
    assert set(wanted) <= set(bench.files().values())


@IN_PLACES
async def test_a_directory_with_a_segments_name_stops_nothing(bench, log, place):
    """Law L5: it is in nobody's way, and what lies in it stays."""
    directory = bench.directory / PLACES[place](log)
    directory.mkdir()
    (directory / "inside").write_bytes(FOREIGN)
    await starts_with(bench, log, log.left(()))
    (inside,) = bench.directory.glob("*/inside")
    assert inside.read_bytes() == FOREIGN
    shutil.rmtree(inside.parent)


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """A directory that is not the log's."""
    path = tmp_path / "elsewhere"
    path.mkdir()
    return path


TARGETS: dict[str, Callable[[Path, Log], Path]] = {
    "nothing": lambda place, log: place / "nothing",
    "a directory": lambda place, log: place,
    "a foreign file": lambda place, log: written(place / "notes.txt", FOREIGN),
    "a segment of the log": lambda place, log: written(place / "copy", log.files[log.segments[1]]),
    "a torn segment of the log": lambda place, log: written(place / "copy", log.files[log.segments[-1]][:-5]),
    "itself": lambda place, log: Path("itself"),
}


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@IN_PLACES
@pytest.mark.parametrize("target", TARGETS)
async def test_a_symlink_with_a_segments_name_stops_nothing_and_is_not_followed_to_write(
    bench, log, elsewhere, place, target
):
    """Law L5: what a link points to is not ours: it is neither cut, nor deleted, nor read twice."""
    name = PLACES[place](log)
    path = bench.directory / name
    path.symlink_to(name if target == "itself" else TARGETS[target](elsewhere, log))
    before = {each.name: each.read_bytes() for each in elsewhere.iterdir()}
    await starts_with(bench, log, log.left(()))
    assert {each.name: each.read_bytes() for each in elsewhere.iterdir()} == before
    for each in bench.directory.iterdir():
        if each.is_symlink():
            each.unlink()


@pytest.mark.parametrize("moved", [0, 2, -1], ids=["the first", "one in the middle", "the last"])
async def test_a_segment_that_was_moved_away_and_linked_is_never_changed_there(bench, log, elsewhere, moved):
    """Law L5: its records come, or are a gap; the file on the other disk stays as it is."""
    name = log.segments[moved]
    torn = log.files[name] + b"EGLF and then nothing"
    (elsewhere / name).write_bytes(torn)
    (bench.directory / name).unlink()
    (bench.directory / name).symlink_to(elsewhere / name)
    ring = bench.open()
    found = await bench.read(ring)
    assert found in (log.left(()), left_without(log, name))
    await bench.goes_on(ring, found)
    assert (elsewhere / name).read_bytes() == torn


@IN_PLACES
@pytest.mark.timeout(20)
async def test_a_pipe_with_a_segments_name_holds_up_no_start(bench, log, place):
    """Law L5: nothing in the directory can make the gateway wait."""
    os.mkfifo(bench.directory / PLACES[place](log))
    await starts_with(bench, log, log.left(()))


class ForbiddenStorage(CalmStorage):
    """A disk on which one file cannot be opened, whatever it is called."""

    def __init__(self, path: Path, code: int) -> None:
        self._inode, self._code = path.stat().st_ino, code

    def open(self, path: Path, *, writable: bool = False) -> DiskFile:
        if path.exists() and path.stat().st_ino == self._inode:
            raise OSError(self._code, os.strerror(self._code))
        return super().open(path, writable=writable)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO], ids=["EACCES", "EIO"])
@pytest.mark.parametrize("which", [0, 2, -1], ids=["the first", "one in the middle", "the last"])
async def test_a_segment_that_cannot_be_opened_costs_its_own_records_alone(bench, log, which, code):
    """Law L5: a file that root once restored, or that a bad inode hides, stops no start and no reader."""
    name = log.segments[which]
    bench.storage = ForbiddenStorage(bench.directory / name, code)
    await starts_with(bench, log, left_without(log, name))


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("which", [0, 2, -1], ids=["the first", "one in the middle", "the last"])
async def test_a_segment_of_another_owner_costs_its_own_records_alone(bench, log, which):
    """Law L5: restored as root with mode 600, as it happens: the gateway's user cannot read it, and starts."""
    name = log.segments[which]
    for path in (bench.directory, *bench.directory.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    os.chown(bench.directory / name, 0, 0)
    (bench.directory / name).chmod(0o600)
    os.seteuid(NOBODY)
    try:
        await starts_with(bench, log, left_without(log, name))
    finally:
        os.seteuid(0)
    assert log.files[name] in bench.files().values(), "and what it holds is kept for whoever can"


SECOND = """
import asyncio, sys
from pathlib import Path
from gateway.clock import SystemClock
from gateway.config.settings import LogSettings
from gateway.errors import LogInUseError
from gateway.ringlog import Store

async def main():
    try:
        store = Store(Path(sys.argv[1]), "gw", LogSettings(), SystemClock(), print)
    except LogInUseError as error:
        print(error)
        return 7
    await store.close()
    return 0

sys.exit(asyncio.run(main()))
"""


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def test_two_gateways_on_one_directory_are_refused_at_once(tmp_path):
    """Law: one writer. The second is told in one line, has changed nothing, and may start when the first is gone."""
    data_dir = tmp_path / "data"
    settings = LogSettings(max_size_bytes=2**20, segment_size_bytes=2**16)
    first = Store(data_dir, "gw", settings, HandClock(), lambda error: None)
    try:
        before = contents(data_dir)
        with pytest.raises(LogInUseError, match="in use by another gateway"):
            Store(data_dir, "gw", settings, HandClock(), lambda error: None)
        command = [sys.executable, "-c", SECOND, str(data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (7, "")
        assert done.stdout.count("\n") == 1
        assert "in use by another gateway" in done.stdout
        assert contents(data_dir) == before
    finally:
        await first.close()
    assert subprocess.run(command, timeout=60, check=False).returncode == 0

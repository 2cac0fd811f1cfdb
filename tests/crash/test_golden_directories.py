"""S15: a data directory of each format version opens for ever, and one of a newer version is refused unchanged.

`tests/golden/` holds what a release wrote, and a listing of what was put in; nothing here writes there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import pytest

from gateway.config.settings import LogSettings
from gateway.errors import LogCorruptError
from gateway.model import Batch, Cursor, Format, Gap, Position
from gateway.ringlog import RingLog, Store, letters_of
from gateway.ringlog.inspect import scan_log
from gateway.ringlog.segment import Damage
from tests.conftest import HandClock
from tests.crash.figures import keep
from tests.golden import build_format_1

GOLDEN = Path(__file__).parents[1] / "golden"
FORMATS = ["format-1"]
ALL_FORMATS = pytest.mark.parametrize("name", FORMATS)
LOGS = ["events", "deadletters", "audit"]
SETTINGS = LogSettings(max_size_bytes=2**20, segment_size_bytes=2**16)


def listing_of(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def files_in(directory: Path) -> dict[str, bytes]:
    """All files but the lock, which anybody who looks may make, and the reserve, which is space alone."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name not in {"lock", "reserve"}
    }


@pytest.fixture
async def opened(tmp_path) -> AsyncIterator:
    """Opens copies of golden directories; closes them on the way out."""
    stores: list[Store] = []

    def build(name: str) -> Store:
        data_dir = tmp_path / name
        if not data_dir.exists():
            shutil.copytree(GOLDEN / name, data_dir)
        clock = HandClock(wall_ns=1_800_000_000_000_000_000)
        stores.append(Store(data_dir, listing_of(name)["gateway"], SETTINGS, clock, lambda error: None))
        return stores[-1]

    yield build
    for store in stores:
        if store.committer._thread.is_alive():
            await store.close()


async def read_all(store: Store, ring: RingLog) -> tuple[list[Batch], list[Gap]]:
    reader = store.reader(Position(0, 0), durable_only=True, log=ring)
    batches, gaps = [], []
    while reader.position.seq < ring.durable.seq:
        item = await reader.read(100_000)
        (gaps if isinstance(item, Gap) else batches).append(item)
    return batches, gaps


def told(batch: Batch) -> dict:
    """A batch in the words of the listing."""
    columns = zip(batch.topics, batch.formats, batch.flags, batch.payloads, strict=True)
    stamp = batch.stamp
    return {
        "ids": batch.origin.prefix(),
        "seq": batch.seq,
        "ordinal": batch.ordinal,
        "kind": batch.kind.name,
        "stamp": [stamp.wall_ns, stamp.mono_ns, stamp.elapsed_ns, stamp.boot_id.hex(), stamp.synced],
        "records": [[topic, Format(fmt).name, flag, payload.hex()] for topic, fmt, flag, payload in columns],
    }


@ALL_FORMATS
def test_the_golden_directory_is_the_one_that_was_committed(name):
    """Law: what a release wrote is evidence, and evidence is not edited."""
    digests = {path: sha256(data).hexdigest() for path, data in files_in(GOLDEN / name).items()}
    assert digests == listing_of(name)["files"]


def test_the_golden_directory_covers_what_a_log_can_hold():
    """Law: the evidence holds both codecs, both kinds, all three openings, a torn tail and an evicted beginning."""
    listing = listing_of("format-1")
    codecs = set()
    for path in sorted((GOLDEN / "format-1/events").glob("*.seg")):
        data = path.read_bytes()
        codecs |= {data[at + 6] for at in range(64, len(data)) if data[at : at + 4] == b"EGLF"}
    assert codecs == {0, 1}
    assert {batch["kind"] for batch in listing["events"]} == {"EVENTS", "DECISIONS"}
    assert {batch["ids"].split("/")[-2] for batch in listing["events"]} == {"1", "2", "3"}
    assert listing["evicted"]["records"] > 0
    assert listing["torn"]["length_bytes"] > 0


@ALL_FORMATS
async def test_a_golden_directory_gives_exactly_what_was_put_in(opened, name):
    """Laws L2, L3: every release reads what an earlier one wrote: records, ids, clocks, letters, cursors, state."""
    listing, store = listing_of(name), opened(name)
    known = [ring for ring in store.rings if ring.name in listing["log_ids"]]  # later releases have added logs
    assert {ring.name: ring.origin.log_id for ring in known} == listing["log_ids"]
    assert {ring.epoch for ring in known} == {listing["epoch"] + 1}
    batches, gaps = await read_all(store, store.events)
    evicted = listing["evicted"]
    assert gaps == [Gap(0, evicted["records"], evicted["events"], "evicted")]
    assert [told(batch) for batch in batches] == listing["events"]
    torn = store.events.recovered.torn
    assert torn is not None
    assert (torn.segment, torn.offset, torn.length_bytes) == tuple(listing["torn"].values())
    assert store.events.recovered.damaged == []
    trail, gaps = await read_all(store, store.audit)
    assert [told(batch)["records"] for batch in trail] == [batch["records"] for batch in listing["audit"]]
    letters, more_gaps = await read_all(store, store.dead_letters.ring)
    assert gaps == more_gaps == []
    found = [letter for batch in letters for letter in letters_of(batch)]
    fields = [{name: getattr(letter, name) for name in letter.__struct_fields__} for letter in found]
    assert [each | {"payload": each["payload"].hex()} for each in fields] == listing["dead_letters"]
    assert {each: store.cursors.load(each) for each in listing["cursors"]} == {
        each: Cursor(*values) for each, values in listing["cursors"].items()
    }
    assert store.cursors.unusable == []
    assert store.load_rules() == bytes.fromhex(listing["rules"])
    keep("S15", "golden data directory", name, f"{sum(map(len, batches)):,} records and all else as put in")


@ALL_FORMATS
async def test_a_golden_directory_takes_more_and_opens_again(opened, name, make_batch):
    """Laws L2, L3: the old part and the new one are one log, with one numbering and ids that never repeat."""
    listing, store = listing_of(name), opened(name)
    last = listing["events"][-1]
    assert store.events.appended.seq == last["seq"] + len(last["records"])
    assert store.events.elapsed_ns() > last["stamp"][2], "the log's own clock goes on"
    store.events.append(make_batch([b"new"] * 3, stamp=store.events.stamp()))
    await store.committer.flush()
    await store.close()
    batches, _ = await read_all(again := opened(name), again.events)
    assert [told(batch) for batch in batches[:-1]] == listing["events"]
    assert batches[-1].payloads == [b"new"] * 3
    assert batches[-1].origin.prefix() not in {batch["ids"] for batch in listing["events"]}
    assert again.events.recovered.torn is None


@ALL_FORMATS
def test_inspection_reads_a_golden_directory_as_it_lies(name):
    """Law: what an operator is shown of an old directory is what a gateway would read of it, and nothing is changed."""
    before = files_in(GOLDEN / name)
    listing = listing_of(name)
    items = list(scan_log(GOLDEN / name, "events", gateway=listing["gateway"]))
    assert [told(item) for item in items if isinstance(item, Batch)] == listing["events"]
    assert [item.offset for item in items if isinstance(item, Damage)] == [listing["torn"]["offset"]]
    assert files_in(GOLDEN / name) == before


def of_version(segment: bytes, version: int) -> bytes:
    """The segment as a release with another format would have begun it: with its version, and a checksum that holds."""
    head = segment[:8] + version.to_bytes(4, "little") + segment[12:60]
    return head + crc32(head, 0x45474C46).to_bytes(4, "little") + segment[64:]


@ALL_FORMATS
@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("which", [0, -1], ids=["first segment", "last segment"])
@pytest.mark.parametrize("version", [2, 0xFFFFFFFF])
async def test_a_newer_format_is_refused_in_one_line_and_nothing_is_changed(
    tmp_path, clock, opened, name, log, which, version
):
    """Law L5: an older release after a failed update leaves the data as it is, for the newer one to come back to."""
    data_dir = tmp_path / name
    shutil.copytree(GOLDEN / name, data_dir)
    segment = sorted((data_dir / log).glob("*.seg"))[which]
    segment.write_bytes(of_version(segment.read_bytes(), version))
    before = files_in(data_dir)
    with pytest.raises(LogCorruptError) as refusal:
        opened(name)
    assert str(refusal.value).count("\n") == 0
    assert segment.name in str(refusal.value)
    assert f"log format {version}; this release reads 1" in str(refusal.value)
    assert files_in(data_dir) == before


@ALL_FORMATS
@pytest.mark.parametrize("bit", range(32))
async def test_a_flipped_version_bit_is_damage_and_no_newer_release(tmp_path, opened, name, bit):
    """Law L5: one bit of a version field must not shut the gateway out of its own log: the checksum tells the two."""
    data_dir = tmp_path / name
    shutil.copytree(GOLDEN / name, data_dir)
    segment = min((data_dir / "events").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[8 + bit // 8] ^= 1 << bit % 8
    segment.write_bytes(data)
    store = opened(name)
    batches, _ = await read_all(store, store.events)
    assert [told(batch) for batch in batches] == listing_of(name)["events"]


def test_the_script_that_made_it_refuses_to_run_over_it():
    """Law: a golden directory that is made anew proves nothing."""
    before = files_in(GOLDEN / "format-1")
    with pytest.raises(SystemExit, match="has to stay as it is for ever"):
        build_format_1.main()
    assert files_in(GOLDEN / "format-1") == before


def test_every_golden_directory_is_opened_here():
    """Law: a format that is written must be read by this file for ever."""
    assert sorted(path.name for path in GOLDEN.iterdir() if path.is_dir() and path.name != "__pycache__") == FORMATS

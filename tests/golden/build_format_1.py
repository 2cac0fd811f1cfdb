"""How `format-1/` was made. Kept for the record: it must never be run again over it.

The directory is what the first release that wrote format 1 left behind after a crash: an events log whose beginning was
evicted, written by three openings (compressed, not compressed, compressed and torn), dead letters, an audit trail, two
cursors, of which one was written twice, and a rules snapshot. `format-1.json` beside it says what a reader must find in
it for as long as this project reads format 1, told by what was put in, not by what was read back.

    python -m tests.golden.build_format_1        refuses if the directory is there

A new format version gets a directory, a listing and a script of its own. Left out of the directory: `lock`, which is
empty, and `reserve`, which is space and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from gateway.config.settings import LogSettings
from gateway.model import DERIVED, RETAINED, Batch, Cursor, DeadLetter, Format, Kind
from gateway.ringlog import RingLog, Store
from tests.conftest import HandClock

HERE = Path(__file__).parent
DIRECTORY, LISTING = HERE / "format-1", HERE / "format-1.json"
GATEWAY = "golden-01"
TORN_BYTES = 70
RULES = b'{"rules": {"freezer-warm": {"since_ns": 1700000000000000000}}}'
SIZES = {"max_size_bytes": 12_288, "segment_size_bytes": 3_072, "tip_bytes": 1_024}
BATCHES = {1: 130, 2: 16, 3: 6}
"""By opening."""

Records = list[tuple[str, Format, int, bytes]]


def append(ring: RingLog, listing: list, kind: Kind, records: Records) -> None:
    """Append one batch, and note what went in."""
    stamp = ring.stamp()
    topics, formats, flags, payloads = (list(column) for column in zip(*records, strict=True))
    batch = Batch(kind, stamp, topics, formats, flags, payloads)
    ring.append(batch)
    listing.append(
        {
            "ids": batch.origin.prefix(),
            "seq": batch.seq,
            "ordinal": batch.ordinal,
            "kind": kind.name,
            "stamp": [stamp.wall_ns, stamp.mono_ns, stamp.elapsed_ns, stamp.boot_id.hex(), stamp.synced],
            "records": [[topic, fmt.name, flag, payload.hex()] for topic, fmt, flag, payload in records],
        }
    )


def batches(opening: int, count: int) -> list[tuple[Kind, list[tuple[str, Format, int, bytes]]]]:
    """What one opening takes in."""
    made = []
    for number in range(count):
        climate = b'{"temperature": %d.%d, "opening": %d}' % (number % 40, number % 10, opening)
        readings = [
            ("devices/a/climate", Format.JSON, 1, climate),
            ("devices/ü/text", Format.TEXT, 1 | RETAINED, "grün, 20 °C".encode()),
            ("devices/b/level", Format.NUMBER, 0, b"-12.5e3"),
            ("devices/c/raw", Format.RAW, 2 | DERIVED, bytes(range(number % 9))),
        ]
        made.append((Kind.EVENTS, readings[: 1 + number % 4] * (1 + number % 3)))
        if number % 5 == 0:
            made.append(
                (Kind.DECISIONS, [("rules/freezer-warm", Format.JSON, 0, b'{"type": "outcome", "n": %d}' % number)])
            )
    return made


async def opening(data_dir: Path, clock: HandClock, number: int, listing: dict) -> Store:
    """Open the store, append, and leave it open."""
    settings = LogSettings(
        **SIZES, dead_letters_max_size_bytes=65_536, audit_max_size_bytes=65_536, compress=number != 2
    )
    store = Store(data_dir, GATEWAY, settings, clock, lambda error: None)
    for kind, records in batches(number, BATCHES[number]):
        append(store.events, listing["events"], kind, records)
        if kind is Kind.DECISIONS:
            append(store.audit, listing["audit"], kind, records)
        await store.committer.flush()
        clock.advance(0.25)
    wall_ns = clock.wall
    letters = [
        DeadLetter("", "devices/a/climate", b"\xff{", 1, "ingest", "utf8", "not UTF-8", 1, wall_ns, wall_ns),
        DeadLetter(f"{GATEWAY}/0/1/7", "devices/b/level", b"21,5", 1, "cloud", "400", "bad value", 3, 5, wall_ns),
    ]
    own = f"{store.dead_letters.ring.origin.prefix()}{store.dead_letters.ring.appended.seq}"
    await store.dead_letters.store(letters)
    for letter in letters:
        told = {name: getattr(letter, name) for name in DeadLetter.__struct_fields__}
        listing["dead_letters"].append(told | {"id": letter.id or own, "payload": letter.payload.hex()})
    return store


async def build(data_dir: Path) -> dict:
    """Fill the directory, and return the listing."""
    listing: dict = {"events": [], "audit": [], "dead_letters": []}
    clock = HandClock()
    for number in (1, 2):
        store = await opening(data_dir, clock, number, listing)
        await store.close()
        clock.reboot(wall_ns=clock.wall + 3_600 * 10**9)
    store = await opening(data_dir, clock, 3, listing)
    cursors = {}
    for name, place in (("history", 5), ("cloud", -20), ("cloud", -8)):
        batch = listing["events"][place]
        cursors[name] = Cursor(batch["seq"], batch["ordinal"], 3, batch["ordinal"] - 8, 4, 1)
        await store.cursors.store(name, cursors[name])
    await store.store_rules(RULES)
    append(store.events, [], Kind.EVENTS, [("devices/a/climate", Format.JSON, 1, b'{"lost": true}')])
    await store.committer.flush()
    floor, active = store.events.floor, store.events.layout.active
    assert active is not None
    path = data_dir / "events" / active.name
    crashed = path.read_bytes()
    log_ids = {ring.name: ring.origin.log_id for ring in store.rings}
    await store.close()
    # The crash: the segment was never sealed, and of its last frame only the beginning reached the disk.
    last = crashed.rindex(b"EGLF")
    assert last > 64, "the torn frame follows others"
    path.write_bytes(crashed[: last + TORN_BYTES].ljust(len(crashed), b"\0"))
    for name in ("lock", "reserve"):
        (data_dir / name).unlink()
    listing["events"] = [batch for batch in listing["events"] if batch["seq"] >= floor.seq]
    assert {batch["ids"].split("/")[2] for batch in listing["events"]} == {"1", "2", "3"}, "something of each opening"
    return {
        "gateway": GATEWAY,
        "log_ids": log_ids,
        "epoch": 3,
        "evicted": {"records": floor.seq, "events": floor.ordinal},
        "torn": {"segment": active.name, "offset": last, "length_bytes": TORN_BYTES},
        "cursors": {name: [getattr(one, field) for field in Cursor.__struct_fields__] for name, one in cursors.items()},
        "rules": RULES.hex(),
        **listing,
        "files": {
            str(each.relative_to(data_dir)): sha256(each.read_bytes()).hexdigest()
            for each in sorted(data_dir.rglob("*"))
            if each.is_file()
        },
    }


def main() -> None:
    """Make the directory and the listing, if they are not there."""
    if DIRECTORY.exists():
        sys.exit(f"{DIRECTORY} is there, and has to stay as it is for ever")
    with tempfile.TemporaryDirectory() as name:
        listing = asyncio.run(build(Path(name) / "data"))
        shutil.copytree(Path(name) / "data", DIRECTORY)
    lines = [f"{json.dumps(key)}: {told(value)}" for key, value in listing.items()]
    LISTING.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def told(value: object) -> str:
    """As JSON; a list with a line for each of its items."""
    if not isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]"


if __name__ == "__main__":
    main()

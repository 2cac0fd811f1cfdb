"""S17, the start: opening reads the last segment and the heads of all others, however large the log is.

The log is made by two lives: a whole gateway that was told to stop, and a writer behind it, killed with its last
segment nearly full. What opening reads is counted; what it takes is measured in a process of its own, for the record.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.app.gateway import Gateway
from gateway.clock import SystemClock
from gateway.config.settings import LogSettings
from gateway.model import Batch, Cursor, Format, Kind
from gateway.ringlog import Store
from gateway.ringlog.frame import HEADER_BYTES
from gateway.ringlog.segment import HEAD_BYTES
from gateway.ringlog.slots import SLOT_BYTES
from gateway.rules.reading.language import load_rules
from tests.crash.counting import CountingStorage
from tests.crash.figures import keep, share
from tests.crash.opening import settings

MIB = 1024 * 1024
SEGMENT_BYTES = LogSettings().segment_size_bytes
SINKS = [f"sink-{number}" for number in range(8)]
LOG_MIB = share(64, 1_024)
MAX_BYTES = (LOG_MIB + 64) * MIB
TAIL_BYTES = SEGMENT_BYTES * 7 // 8
LONG = b'{"temperature":21.53,"humidity":48.2,"status":"%s"}' % (b"nominal" * 136)
SHORT = b'{"temperature":21.53,"humidity":48.2,"pressure":1013.2,"rssi":-67,"state":"ok","seq":12345,"fw":"2.14.3"}'


async def fill(store: Store, stop_bytes: int, payload: bytes, per_batch: int) -> None:
    """Append until the segments hold so many bytes."""
    events = store.events
    while events.chain.written_bytes < stop_bytes:
        topics = [f"devices/d{number % 20}/climate" for number in range(per_batch)]
        columns = topics, [int(Format.JSON)] * per_batch, [1] * per_batch, [payload] * per_batch
        events.append(Batch(Kind.EVENTS, events.stamp(), *columns))
        await store.committer.flush()


async def live_and_stop(data_dir: Path, log: LogSettings) -> None:
    """A gateway that takes in nearly everything, and is told to stop."""
    gateway = Gateway(settings(data_dir, log, []), load_rules([]), SystemClock(), CountingStorage())
    await gateway.start()
    await fill(gateway.store, LOG_MIB * MIB - SEGMENT_BYTES, LONG, 1_000)
    assert await gateway.drain(), "it ended well"


async def live_and_die(data_dir: Path, log: LogSettings) -> None:
    """A writer that is killed with its last segment nearly full, when every sink has everything."""
    store = Store(data_dir, "gw", log, SystemClock(), pytest.fail, CountingStorage())
    await fill(store, TAIL_BYTES, SHORT, 100)
    place = store.events.durable
    cursor = Cursor(place.seq, place.ordinal, 0, delivered=place.ordinal)
    for name in SINKS:
        await store.cursors.store(name, cursor, after_events=False)
    store.committer.abandon()
    await asyncio.to_thread(store.committer._thread.join)
    store.cursors.close()
    os.close(store._lock)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A data directory with a large log."""
    home = tmp_path_factory.mktemp("large")
    log = LogSettings(max_size_bytes=MAX_BYTES, compress=False)
    try:
        asyncio.run(live_and_stop(home / "data", log))
        asyncio.run(live_and_die(home / "data", log))
        yield home / "data"
    finally:
        shutil.rmtree(home)


def segments_in(data_dir: Path) -> list[str]:
    """Their names, in order."""
    return sorted(path.name for path in (data_dir / "events").glob("*.seg"))


@pytest.mark.timeout(900)
async def test_opening_reads_the_last_segment_and_the_heads_of_the_others(large, clock):
    """Law L13: a start costs no more when the log is large. Counted, not timed."""
    *sealed, tail = segments_in(large)
    assert len(sealed) >= LOG_MIB * MIB // SEGMENT_BYTES - 2
    storage = CountingStorage()
    store = Store(large, "gw", LogSettings(max_size_bytes=MAX_BYTES, compress=False), clock, pytest.fail, storage)
    cursors = [store.cursors.load(name) for name in SINKS]
    seen = storage.total
    events = store.events.appended.ordinal - store.events.floor.ordinal
    await store.close()

    assert {storage.files[f"events/{name}"].read_bytes for name in sealed} == {HEAD_BYTES + HEADER_BYTES}
    # In windows of a MiB, each from the frame that the one before cut off; the zeros at the end are looked at twice.
    of_tail = storage.files[f"events/{tail}"].read_bytes
    assert TAIL_BYTES <= of_tail <= SEGMENT_BYTES * 1.25
    of_trail = sum(
        each.read_bytes for name, each in storage.files.items() if name.startswith("audit/") and ".seg" in name
    )
    assert of_trail < 4_096, "the trail holds that a gateway has started, and no more"
    of_others = seen.read_bytes - of_tail - of_trail - len(sealed) * (HEAD_BYTES + HEADER_BYTES)
    assert of_others <= (len(SINKS) + len(store.rings)) * 2 * SLOT_BYTES, "two slots per cursor and meta file"
    assert [cursor.ordinal for cursor in cursors] == [events] * len(SINKS)
    keep(
        "S17",
        "opening",
        f"{LOG_MIB:,} MiB in {len(sealed) + 1} segments, {events:,} events, {len(SINKS)} cursors",
        f"{HEAD_BYTES + HEADER_BYTES} bytes read of each sealed segment, {of_tail / MIB:.1f} MiB of the last, "
        f"{of_others / 1024:.0f} KiB of all else",
    )


@pytest.mark.timeout(900)
def test_a_fresh_process_opens_a_large_log_with_eight_sinks_and_has_lost_nothing(large):
    """Law L13: what a start takes in time and memory is for the record; that all is there is for certain."""
    for path in large.rglob("*.seg"):
        forget_pages(path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.opening", str(large), str(MAX_BYTES), *SINKS],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["pending"] == [0] * len(SINKS)
    keep(
        "S17",
        "start of a fresh process",
        f"{LOG_MIB:,} MiB, {found['events']:,} events, {len(SINKS)} sinks, no page of it in memory",
        f"log open after {found['open_s']:.2f} s, ports after {found['ready_s']:.2f} s, "
        f"at most {found['peak_mib']:.0f} MiB of memory",
    )


def forget_pages(path: Path) -> None:
    """Let the kernel drop what it keeps of a file, as after a boot."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)

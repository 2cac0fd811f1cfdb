"""S16, wear: what telemetry costs the flash, and that silence costs nothing.

What is counted is what the log asks of its disk, by a `Storage` that counts; for a whole gateway also what the process
asks of the kernel. The file system's own journal is not in these figures.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from gateway.config.settings import FileSinkSettings, LogSettings
from gateway.model import Batch, Cursor, Format, Kind
from gateway.ringlog import Store
from tests.app.lives import Lives
from tests.conftest import HandClock
from tests.crash.counting import CountingStorage, LeapingLoop, Tally
from tests.crash.figures import keep
from tests.scenarios.site import until

MINUTE_S = 60
RULES = """
rules:
  - id: hot
    on: devices/{device}/climate
    when: temperature > 60
    for: 10s
    then: [{notify: {to: nobody, text: "{device}"}}]
"""


def readings(count: int, rng: random.Random) -> list[bytes]:
    """JSON telemetry of about 200 bytes, in which every figure moves as its sensor would."""
    return [
        (
            f'{{"device":"climate-{number % 10:02}","seq":{40_000 + number},"ts":{1_795_449_600_000 + 100 * number},'
            f'"temperature":{rng.gauss(21, 1):.2f},"humidity":{rng.gauss(50, 3):.1f},'
            f'"pressure":{rng.gauss(1013, 1):.2f},"co2":{rng.gauss(620, 40):.0f},"lux":{rng.expovariate(1 / 300):.1f},'
            f'"voc":{rng.gauss(0.4, 0.1):.3f},"battery_v":{rng.gauss(3.1, 0.02):.3f},"rssi":{-rng.randrange(58, 83)},'
            f'"fw":"2.14.3","state":"ok"}}'
        ).encode()
        for number in range(count)
    ]


def batch_of(store: Store, payloads: list[bytes]) -> Batch:
    """As ingest would append it."""
    topics = [f"devices/climate-{number % 10:02}/telemetry" for number in range(len(payloads))]
    count = len(payloads)
    return Batch(Kind.EVENTS, store.events.stamp(), topics, [int(Format.JSON)] * count, [1] * count, payloads)


async def durable(store: Store) -> None:
    """Wait until everything appended so far is on disk."""
    done = asyncio.Event()
    store.committer.when_durable(done.set)
    async with asyncio.timeout(20):
        await done.wait()


async def a_minute(store: Store, clock: HandClock, payloads: list[bytes], per_append: int) -> None:
    """A minute of telemetry in appends of so many events, and one sink that stores its cursor each second."""
    appends = len(payloads) // per_append
    each_s = MINUTE_S / appends
    second = int(clock.mono_ns() // 1e9)
    for number in range(appends):
        clock.advance(each_s)
        store.events.append(batch_of(store, payloads[number * per_append : (number + 1) * per_append]))
        await durable(store)
        if clock.mono_ns() // 1e9 > second:
            second = clock.mono_ns() // 1e9
            place = store.events.durable
            cursor = Cursor(place.seq, place.ordinal, 0, delivered=place.ordinal)
            await store.cursors.store("cloud", cursor, after_events=False)


async def opened(path: Path, clock: HandClock, storage: CountingStorage, settings: LogSettings) -> Store:
    """A store in which every file is there already, with nothing counted yet."""
    store = Store(path, "gw", settings, clock, pytest.fail, storage)
    store.events.append(batch_of(store, [b"{}"]))
    await durable(store)
    for number in (1, 2):
        await store.cursors.store("cloud", Cursor(number, number, delivered=number), after_events=False)
    storage.forget()
    return store


def told(seen: Tally, payload_bytes: int) -> str:
    """For the table."""
    return (
        f"{seen.written_bytes / payload_bytes:.2f} bytes written per byte of payload, "
        f"{seen.syncs / MINUTE_S:.1f} syncs/s, {seen.page_bytes / payload_bytes:.1f} in whole pages"
    )


async def test_ten_events_a_second_one_by_one_write_less_than_twice_their_payload(tmp_path, clock):
    """Law: the flash is spared. Even where each event waits for a sync of its own, what is added is less than it."""
    storage = CountingStorage()
    store = await opened(tmp_path / "data", clock, storage, LogSettings())
    payloads = readings(10 * MINUTE_S, random.Random(16))
    await a_minute(store, clock, payloads, per_append=1)
    seen = storage.total
    await store.close()
    payload_bytes = sum(map(len, payloads))
    keep("S16", "10 events/s of 200 bytes, one by one", "600 events, 60 cursors", told(seen, payload_bytes), seed=16)
    assert seen.written_bytes <= 2.0 * payload_bytes
    # One for each event, because each is acknowledged by itself, and one for the cursor each second.
    assert seen.syncs <= 11 * MINUTE_S
    assert seen.writes == seen.syncs, "nothing is written that is not synced, nor twice"
    assert seen.others == 0, "no file is made, cut or removed"


async def test_ten_events_a_second_with_a_sync_each_second_cost_two_syncs_a_second(tmp_path, clock):
    """Law: the flash is spared. Who allows a power cut to take a second pays for a second."""
    storage = CountingStorage()
    store = await opened(tmp_path / "data", clock, storage, LogSettings(sync_interval_s=1.0))
    payloads = readings(10 * MINUTE_S, random.Random(16))
    await a_minute(store, clock, payloads, per_append=1)
    seen = storage.total
    await store.close()
    payload_bytes = sum(map(len, payloads))
    keep("S16", "the same, `sync: 1s`", "600 events, 60 cursors", told(seen, payload_bytes), seed=16)
    assert seen.written_bytes <= 2.0 * payload_bytes
    assert seen.syncs <= 2 * MINUTE_S + 2


@pytest.mark.parametrize("per_append", [100, 500])
async def test_telemetry_in_batches_is_written_at_less_than_four_tenths_of_its_size(tmp_path, clock, per_append):
    """Law: the flash is spared. Compression, headers and cursors together."""
    storage = CountingStorage()
    store = await opened(tmp_path / "data", clock, storage, LogSettings())
    payloads = readings(60 * per_append, random.Random(16))
    await a_minute(store, clock, payloads, per_append)
    seen = storage.total
    await store.close()
    payload_bytes = sum(map(len, payloads))
    done = f"{len(payloads):,} events, 60 cursors"
    keep("S16", f"{per_append} events/s of 200 bytes, in one batch", done, told(seen, payload_bytes), seed=16)
    assert seen.written_bytes <= 0.4 * payload_bytes


def test_a_whole_gateway_writes_nothing_in_a_minute_in_which_nothing_arrives(tmp_path):
    """Law: the flash is spared. No timer, snapshot, cursor or metric touches the disk for nothing."""
    clock, storage = HandClock(), CountingStorage()
    loop = LeapingLoop(clock)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        quiet, kernel_writes = runner.run(_a_quiet_minute(tmp_path, clock, storage, loop))
    keep("S16", "idle", "1 minute of a whole gateway", f"{quiet.writes} writes, {quiet.syncs} syncs")
    assert quiet.changes == 0, {name: tally for name, tally in storage.files.items() if tally.changes}
    assert kernel_writes == 0, "nor does anything else in the process, such as a sink's own file"


async def _a_quiet_minute(
    tmp_path: Path, clock: HandClock, storage: CountingStorage, loop: LeapingLoop
) -> tuple[Tally, int]:
    sink = FileSinkSettings(name="archive", path=tmp_path / "archive.jsonl")
    lives = Lives(tmp_path, clock, RULES)
    gateway = await lives.begin(storage, forward=(sink,))
    try:
        peer = await lives.peer()
        for degrees in (20, 61, 20):
            await lives.say(peer, "devices/a/climate", temperature=degrees)
        runner = gateway.runners[0]
        await until(lambda: runner.cursor.delivered == 3, "the sink has them")
        assert storage.total.writes > 0, "the counting storage is the one in use"
        await asyncio.to_thread(peer.close)
        # Cursors, rule state and the audit trail are put on disk a while after something has happened.
        await loop.leap(MINUTE_S)
        await gateway.store.committer.flush()
        storage.forget()
        before = _kernel_writes()
        await loop.leap(MINUTE_S)
        await gateway.store.committer.flush()
        return storage.total, _kernel_writes() - before
    finally:
        await lives.close()


def _kernel_writes() -> int:
    """Write calls of this process so far, to whatever: sockets of the loop's own do not count among them."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["syscw"])

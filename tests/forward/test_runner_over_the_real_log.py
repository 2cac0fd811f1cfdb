"""The runner over a real data directory: ring, cursors and dead letters on disk, and real time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random

import pytest

from gateway.config.settings import FileSinkSettings, LogSettings, RetrySettings, SinkSettings
from gateway.forward.runner import Runner
from gateway.forward.sinks import build
from gateway.forward.verdict import Delivered, Refused, Retry
from gateway.model import Kind, Position
from gateway.ringlog import Store
from gateway.ringlog.deadletters import letters_of
from tests.forward.conftest import ScriptedSink, balance, batch_of, until

RETRY = RetrySettings(base_s=0.005, max_s=0.05)
SMALL = LogSettings(
    max_size_bytes=128 * 1024,
    segment_size_bytes=16 * 1024,
    tip_bytes=4_096,
    dead_letters_max_size_bytes=128 * 1024,
    compress=False,
)


@pytest.fixture
def open_store(tmp_path, clock):
    """Opens the data directory of this test; closes it at the end of the block."""

    @contextlib.asynccontextmanager
    async def build_store(settings=SMALL):
        store = Store(tmp_path / "data", "gw", settings, clock, lambda error: None)
        try:
            yield store
        finally:
            await store.close()

    return build_store


def settings_of(name="cloud", **settings) -> SinkSettings:
    return SinkSettings(name=name, retry=RETRY, **settings)


async def feed(store, numbers, per_batch=50) -> None:
    """Append events, with a decision behind each batch, and wait until they are durable."""
    numbers = list(numbers)
    for start in range(0, len(numbers), per_batch):
        store.events.append(batch_of([b'{"n":%d}' % n for n in numbers[start : start + per_batch]]))
        store.events.append(batch_of([b"{}"], kind=Kind.DECISIONS))
    await until(lambda: store.events.durable == store.events.appended)


@contextlib.asynccontextmanager
async def running(runner, *, drain=True):
    task = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        if drain:
            await runner.drain(2.0)
        else:
            task.cancel()  # as a kill would: nothing is committed on the way out
        await asyncio.wait([task])


async def test_events_on_disk_and_at_the_tip_reach_a_file_once_and_in_order(open_store, tmp_path, clock):
    """L4 and L7 from the disk's older part over the tip to what arrives meanwhile."""
    path = tmp_path / "events.jsonl"
    settings = FileSinkSettings(name="disk", path=path, retry=RETRY)
    async with open_store(LogSettings(segment_size_bytes=64 * 1024, tip_bytes=4_096)) as store:
        await feed(store, range(2_000))
        runner = Runner(settings, build(settings, "gw", ()), store, clock=clock, rng=random.Random(1))
        async with running(runner):
            await feed(store, range(2_000, 3_000))
            await until(lambda: runner.pending == 0)
            balance(runner)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["data"]["n"] for line in lines] == list(range(3_000))
    assert len({line["id"] for line in lines}) == 3_000


async def test_restarts_at_random_lose_nothing_and_repeat_at_most_a_window_each(open_store, clock, seed):
    """L2 and L3: ten kills in mid-stream; cursors and dead letters come back from disk."""
    rng = random.Random(seed)
    taken: list[int] = []
    restarts = 10
    async with open_store(LogSettings(segment_size_bytes=64 * 1024)) as store:
        await feed(store, range(3_000))
    for life in range(restarts + 1):
        async with open_store(LogSettings(segment_size_bytes=64 * 1024)) as store:
            sink = ScriptedSink(lambda seqs: Retry("away") if rng.random() < 0.2 else Delivered(len(seqs)))
            runner = Runner(
                settings_of(batch_records=60, window_records=150), sink, store, clock=clock, rng=random.Random(seed)
            )
            goal = rng.randrange(50, 400)
            async with running(runner, drain=life == restarts):
                await until(lambda: runner.pending == 0 or (life < restarts and len(sink.taken) >= goal))  # noqa: B023
                balance(runner)
            taken += sink.taken
    assert runner.status().delivered == runner.status().received == 3_000
    assert len(set(taken)) == 3_000
    assert len(taken) - 3_000 <= restarts * 150


async def test_poison_lies_whole_in_the_dead_letter_log(open_store, clock):
    """K6: original bytes, id, topic, sink, code and tries; durable, and readable by others."""
    async with open_store() as store:
        await feed(store, range(200))
        sink = ScriptedSink(lambda seqs: Refused("http_400", "no") if 41 in seqs else Delivered(len(seqs)))
        runner = Runner(settings_of(), sink, store, clock=clock, rng=random.Random(1))
        async with running(runner):
            await until(lambda: runner.pending == 0)
            balance(runner)
        ring = store.dead_letters.ring
        [letter] = letters_of(ring.tip_batch(0))
        assert (letter.payload, letter.topic, letter.stage, letter.code) == (
            b'{"n":41}',
            "devices/a/climate",
            "cloud",
            "http_400",
        )
        assert letter.id == f"{store.events.origin.prefix()}41"
        assert letter.attempts >= 2
        assert ring.durable == ring.appended


async def test_a_sink_that_was_away_too_long_is_told_what_was_evicted(open_store, clock):
    """L6 and L7 over a ring that has turned: delivered + evicted is everything, and the gaps say which."""
    async with open_store() as store:
        away = True
        sink = ScriptedSink(lambda seqs: Retry("away") if away else Delivered(len(seqs)))
        runner = Runner(settings_of(batch_records=50), sink, store, clock=clock, rng=random.Random(1))
        async with running(runner):
            for start in range(0, 12_000, 500):
                await feed(store, range(start, start + 500))
                balance(runner)
            assert store.events.floor.seq > 0, "the ring has turned"
            away = False
            await until(lambda: runner.pending == 0)
            balance(runner)
            status = runner.status()
        assert status.received == 12_000
        assert status.evicted == sum(gap.events for gap in sink.gaps) > 0
        assert status.delivered == len(sink.taken) == 12_000 - status.evicted
        assert sink.taken == sorted(sink.taken)


async def test_a_lost_tail_of_the_log_is_survived(open_store, clock, tmp_path):
    """S12: the cursor stands beyond a log that lost its end; the runner starts, and new events are delivered."""
    async with open_store() as store:
        await feed(store, range(100))
        runner = Runner(settings_of(), ScriptedSink(), store, clock=clock, rng=random.Random(1))
        async with running(runner):
            await until(lambda: runner.pending == 0)
        await store.cursors.store("cloud", runner.cursor)
    [segment] = sorted((tmp_path / "data" / "events").glob("*.seg"), key=lambda path: path.name) or [None]
    assert segment is not None
    data = segment.read_bytes()
    segment.write_bytes(data[: len(data) // 2])
    async with open_store() as store:
        assert store.events.appended < Position(102, 100)
        sink = ScriptedSink()
        runner = Runner(settings_of(), sink, store, clock=clock, rng=random.Random(1))
        assert runner.clamped > 0
        async with running(runner):
            await feed(store, range(1_000, 1_020))
            await until(lambda: runner.pending == 0 and sink.taken)
            balance(runner)
        assert len(sink.taken) == 20

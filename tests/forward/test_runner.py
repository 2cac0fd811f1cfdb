"""The runner against scripted sinks, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random

import pytest

from gateway.forward.verdict import Delivered, NeedsOperator, Refusal, Refused, Retry, TooLarge
from gateway.model import Cursor, Kind
from tests.forward.conftest import MemoryStore, ScriptedSink, balance, batch_of, until


def fill(store: MemoryStore, count: int, per_batch: int = 100) -> None:
    for start in range(0, count, per_batch):
        store.events.append(batch_of([b'{"n":%d}' % n for n in range(start, min(count, start + per_batch))]))


@contextlib.asynccontextmanager
async def running(runner):
    task = asyncio.create_task(runner.run())
    try:
        yield task
    finally:
        await runner.drain(1.0)
        await task


def poisoned(bad):
    """A sink that refuses any request with one of these records in it."""
    return lambda seqs: Refused("http_400", "bad") if bad & set(seqs) else Delivered(len(seqs))


def test_everything_is_delivered_once_in_order_and_the_cursor_says_so(virtual, store, make_runner):
    """L4 and L7 on a day without trouble."""

    async def main():
        fill(store, 1_050, per_batch=30)
        sink = ScriptedSink()
        runner = make_runner(store, sink, batch_records=200)
        async with running(runner):
            await until(lambda: runner.pending == 0)
            balance(runner)
        assert sink.taken == list(range(1_050))
        assert max(map(len, sink.offers)) <= 200
        assert len(sink.offers) < 10, "several log batches share one send"
        assert store.stored["cloud"] == Cursor(1_050, 1_050, 0, 1_050, 0, 0)
        assert (sink.opened, sink.closed) == (1, 1)

    virtual(main())


def test_a_lone_event_is_sent_at_once_and_what_comes_often_is_sent_together(virtual, store, make_runner):
    """A send costs the same for one event as for many: of 1,000 events a second a hundred sends, not a thousand."""

    async def main():
        sink = ScriptedSink()
        runner = make_runner(store, sink, batch_records=200)
        loop = asyncio.get_running_loop()
        async with running(runner):
            began_s = loop.time()
            store.events.append(batch_of([b"1"]))
            await until(lambda: runner.pending == 0)
            assert sink.times_s == [began_s]
            await asyncio.sleep(1.0)
            for _ in range(1_000):
                store.events.append(batch_of([b"2"]))
                await asyncio.sleep(0.001)
            await until(lambda: runner.pending == 0)
        assert sink.taken == list(range(1_001))
        assert 90 <= len(sink.offers) <= 110

    virtual(main())


@pytest.mark.parametrize("position", range(100))
def test_poison_at_any_position_costs_one_record_and_few_requests(virtual, make_runner, position):
    """K2: everything else arrives in order; the poisoned record is refused alone before it is given up."""

    async def main():
        store = MemoryStore()
        fill(store, 100)
        sink = ScriptedSink(poisoned({position}))
        runner = make_runner(store, sink, batch_records=100)
        async with running(runner):
            await until(lambda: runner.pending == 0)
            balance(runner)
        assert sink.taken == [n for n in range(100) if n != position]
        assert [letter.id for letter in store.letters] == [f"gw/0123456789abcdef/1/{position}"]
        assert [position] in sink.offers
        assert len(sink.offers) <= 1 * (math.ceil(math.log2(100)) + 2) + 1

    virtual(main())


def test_one_percent_of_poison_in_ten_thousand_is_found_and_nothing_else(virtual, store, make_runner, seed):
    """K2 at random places."""
    bad = set(random.Random(seed).sample(range(10_000), 100))

    async def main():
        fill(store, 10_000)
        sink = ScriptedSink(poisoned(bad))
        runner = make_runner(store, sink, batch_records=100)
        async with running(runner):
            await until(lambda: runner.pending == 0)
            balance(runner)
        assert sink.taken == [n for n in range(10_000) if n not in bad]
        assert [letter.payload for letter in store.letters] == [b'{"n":%d}' % n for n in sorted(bad)]
        assert len(sink.offers) <= 100 * (math.ceil(math.log2(100)) + 2) + 100
        assert runner.status().dead_lettered == {"http_400": 100}

    virtual(main())


def test_a_batch_refused_for_its_size_costs_no_record(virtual, store, make_runner):
    """A server that answers 400 to more than 30 records at once takes them all, 30 at a time."""

    async def main():
        fill(store, 500)
        sink = ScriptedSink(lambda seqs: Refused("http_400", "too many") if len(seqs) > 30 else Delivered(len(seqs)))
        runner = make_runner(store, sink, batch_records=100)
        async with running(runner):
            await until(lambda: runner.pending == 0)
        assert sink.taken == list(range(500))
        assert store.letters == []

    virtual(main())


def test_too_large_splits_and_a_single_one_too_large_is_a_dead_letter(virtual, store, make_runner):
    """K3: 413 halves the request; one record that is too large by itself is refused."""

    async def main():
        fill(store, 300)
        sink = ScriptedSink(lambda seqs: TooLarge("413") if len(seqs) > 20 or 77 in seqs else Delivered(len(seqs)))
        runner = make_runner(store, sink, batch_records=100)
        async with running(runner):
            await until(lambda: runner.pending == 0)
            balance(runner)
        assert sink.taken == [n for n in range(300) if n != 77]
        assert [(letter.code, letter.stage) for letter in store.letters] == [("too_large", "cloud")]

    virtual(main())


def test_single_refusals_inside_a_delivery_are_dead_lettered_in_place(virtual, store, make_runner):
    """A broker that refuses single messages: the others count as delivered, and only those."""

    async def main():
        fill(store, 100)

        def script(seqs):
            refused = tuple(Refusal(index, "mqtt_0x90", "bad") for index, seq in enumerate(seqs) if seq % 10 == 3)
            return Delivered(len(seqs), refused)

        sink = ScriptedSink(script)
        runner = make_runner(store, sink)
        async with running(runner):
            await until(lambda: runner.pending == 0)
            balance(runner)
        assert runner.status().delivered == 90
        assert [letter.payload for letter in store.letters] == [b'{"n":%d}' % n for n in range(3, 100, 10)]

    virtual(main())


def test_a_dead_letter_is_durable_before_the_cursor_passes_it(virtual, store, make_runner):
    """K6, also when the dead-letter log fails at first."""

    async def main():
        store.fail_letters = 3
        fill(store, 10)
        runner = make_runner(store, ScriptedSink(poisoned({4})), batch_records=10)
        async with running(runner):
            await until(lambda: runner.pending == 0)
            balance(runner)
        place = [kind for kind, _ in store.journal].index("letter")
        assert all(ordinal <= 4 for kind, ordinal in store.journal[:place] if kind == "cursor")
        assert store.stored["cloud"].dead_lettered == 1

    virtual(main())


def test_sent_and_not_under_a_durable_cursor_never_exceeds_the_window(virtual, store, make_runner):
    """L3: what a kill at any moment can repeat is at most one window."""

    async def main():
        worst = 0

        def script(seqs):
            nonlocal worst
            durable = store.stored.get("cloud")
            worst = max(worst, seqs[-1] + 1 - (durable.ordinal if durable else 0))
            return Delivered(len(seqs))

        fill(store, 5_000, per_batch=170)
        sink = ScriptedSink(script)
        runner = make_runner(store, sink, batch_records=100, window_records=350)
        async with running(runner):
            await until(lambda: runner.pending == 0)
        assert 100 < worst <= 350
        assert len(store.history) < 5_000 / 100, "the cursor is not synced for every send"

    virtual(main())


def test_an_idle_sink_commits_within_about_a_second_and_then_writes_nothing(virtual, store, make_runner):
    """The last batch of the day is not repeated by a kill at night; idle means no writes."""

    async def main():
        fill(store, 10)
        runner = make_runner(store, ScriptedSink())
        async with running(runner):
            await until(lambda: runner.pending == 0)
            await asyncio.sleep(1.5)
            assert store.stored["cloud"].ordinal == 10
            writes = len(store.history)
            await asyncio.sleep(3_600)
            assert len(store.history) == writes

    virtual(main())


def test_a_restart_from_any_durable_cursor_loses_nothing(virtual, make_runner, seed):
    """L2 and L3: whatever cursor was stored last, the rest is delivered, and at most a window twice."""
    store = MemoryStore()
    rng = random.Random(seed)

    async def first():
        fill(store, 2_000)
        sink = ScriptedSink(lambda seqs: Retry("away") if rng.random() < 0.3 else Delivered(len(seqs)))
        runner = make_runner(store, sink, batch_records=100, window_records=300)
        task = asyncio.create_task(runner.run())
        await until(lambda: len(sink.taken) > 900)
        task.cancel()  # as a kill would: no drain, no commit
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return sink.taken

    async def second():
        store.events.changed = asyncio.Event()
        sink = ScriptedSink()
        runner = make_runner(store, sink, batch_records=100, window_records=300)
        async with running(runner):
            await until(lambda: runner.pending == 0)
            balance(runner)
        return sink.taken

    before = virtual(first())
    after = virtual(second())
    assert set(before) | set(after) == set(range(2_000))
    assert len(before) + len(after) - 2_000 <= 300
    assert after == sorted(after)


def test_evicted_events_are_counted_and_announced_before_the_cursor_passes_them(virtual, store, make_runner):
    """L6: a sink that was away too long is told what it will never see."""

    async def main():
        fill(store, 500)
        store.events.evict(3)
        store.stored["cloud"] = Cursor(100, 100, 0, 100, 0, 0)
        sink = ScriptedSink()
        runner = make_runner(store, sink)
        async with running(runner):
            await until(lambda: runner.pending == 0)
            balance(runner)
        assert [(gap.from_seq, gap.to_seq, gap.events) for gap in sink.gaps] == [(100, 300, 200)]
        assert sink.taken == list(range(300, 500))
        assert store.stored["cloud"] == Cursor(500, 500, 0, 300, 0, 200)

    virtual(main())


def test_a_gap_is_announced_again_after_a_crash_that_forgot_the_announcement(virtual, store, make_runner):
    """L6: the durable cursor stays before a gap until the sink has been told."""

    async def main():
        fill(store, 300)
        store.events.evict(1)
        store.stored["cloud"] = Cursor(0, 0)
        sink = ScriptedSink()
        heard = asyncio.Event()

        async def deaf(gap, wall_ns):
            heard.set()
            return Retry("away")

        sink.announce = deaf
        runner = make_runner(store, sink)
        async with running(runner):
            await asyncio.wait_for(heard.wait(), 10)
            balance(runner)
            assert runner.status().evicted == 100
        assert store.stored["cloud"].ordinal == 0

    virtual(main())


def test_decisions_between_events_are_passed_over(virtual, store, make_runner):
    """Sinks see events only; decisions carry no ordinal and leave the accounts alone."""

    async def main():
        for n in range(10):
            store.events.append(batch_of([b"%d" % n] * 5))
            store.events.append(batch_of([b"{}"] * 3, kind=Kind.DECISIONS))
        sink = ScriptedSink()
        runner = make_runner(store, sink)
        async with running(runner):
            await until(lambda: runner.pending == 0)
            balance(runner)
        assert len(sink.taken) == 50
        assert store.stored["cloud"].ordinal == 50

    virtual(main())


@pytest.mark.parametrize("start", ["oldest", "now"])
def test_a_new_sink_begins_where_its_settings_say(virtual, store, make_runner, start):
    """K7: oldest or now, explicitly, and durable before anything is sent."""

    async def main():
        fill(store, 200)
        store.events.evict(1)
        sink = ScriptedSink()
        runner = make_runner(store, sink, start=start)
        async with running(runner):
            fill(store, 100)
            await until(lambda: runner.pending == 0 and sink.taken)
            balance(runner)
        assert sink.taken == list(range(100 if start == "oldest" else 200, 300))
        assert sink.gaps == []
        assert store.history[0].ordinal == sink.taken[0]

    virtual(main())


def test_a_sink_whose_cursor_is_unusable_sees_everything_again(virtual, store, make_runner):
    """S13: damage to a cursor costs duplicates, never events, even for a sink that started at `now`."""

    async def main():
        fill(store, 100)
        store.unusable.append("cloud")
        sink = ScriptedSink()
        runner = make_runner(store, sink, start="now")
        async with running(runner):
            await until(lambda: runner.pending == 0)
        assert sink.taken == list(range(100))

    virtual(main())


def test_a_cursor_beyond_the_end_of_the_log_is_pulled_back_and_counted(virtual, store, make_runner):
    """S12, S13: a disk that lied about a sync is never fatal, and the accounts still balance."""

    async def main():
        fill(store, 100)
        store.stored["cloud"] = Cursor(150, 140, 0, 130, 10, 0)
        sink = ScriptedSink()
        runner = make_runner(store, sink)
        assert runner.clamped == 40
        assert "40 events beyond" in runner.status().last_error
        async with running(runner):
            fill(store, 50)
            await until(lambda: sink.taken)
            await until(lambda: runner.pending == 0)
            balance(runner)
        assert sink.taken == list(range(100, 150))
        assert runner.status().dead_lettered == {"earlier": 10}

    virtual(main())


def test_a_flapping_sink_is_neither_hammered_nor_given_up(virtual, store, make_runner):
    """K5: one second up, one second down, for an hour: at most one failed try a second, and steady progress."""

    async def main():
        loop = asyncio.get_running_loop()
        sink = ScriptedSink()
        failures: list[float] = []
        progress: list[int] = []

        def script(seqs):
            if int(loop.time()) % 2:
                failures.append(loop.time())
                return Retry("down")
            return Delivered(len(seqs))

        sink.script = script
        runner = make_runner(store, sink)
        async with running(runner):
            for _ in range(360):
                for _ in range(10):
                    fill(store, 10)
                    await asyncio.sleep(1.0)
                progress.append(len(sink.taken))
                balance(runner)
        assert len(failures) <= 3_600
        assert progress == sorted(progress)
        assert len(sink.taken) > 35_000 - 2_000, "within a few minutes of the live edge"
        assert len(sink.taken) == len(set(sink.taken))

    virtual(main())


def test_an_outage_of_a_day_is_drained_in_order(virtual, store, make_runner):
    """K4: what gathered is delivered once, in order, and the pauses never exceed their maximum by much."""

    async def main():
        loop = asyncio.get_running_loop()
        sink = ScriptedSink(lambda seqs: Retry("away") if loop.time() < 86_400 else Delivered(len(seqs)))
        runner = make_runner(store, sink)
        async with running(runner):
            for _ in range(24):
                fill(store, 100)
                await asyncio.sleep(3_600)
            assert not sink.taken or loop.time() >= 86_400
            assert not runner.up
            assert 0 <= (runner.status().next_try_s or 0) <= 60
            await until(lambda: runner.pending == 0, timeout_s=200)
            balance(runner)
            assert runner.up
            assert runner.status().last_error == ""
        assert sink.taken == list(range(2_400))
        gaps = [b - a for a, b in zip(sink.times_s, sink.times_s[1:], strict=False)]
        assert max(gaps) <= 60.0

    virtual(main())


def test_a_sink_that_needs_its_operator_keeps_the_data_and_is_tried_slowly(virtual, store, make_runner):
    """K3: 401, 403 and 404 never cost an event; the status says what is wrong."""

    async def main():
        fill(store, 100)
        fixed = False
        sink = ScriptedSink(lambda seqs: Delivered(len(seqs)) if fixed else NeedsOperator("HTTP 401: no"))
        runner = make_runner(store, sink)
        async with running(runner):
            await asyncio.sleep(600)
            assert not runner.up
            assert runner.status().last_error == "HTTP 401: no"
            assert store.letters == []
            assert 10 <= len(sink.offers) <= 21
            fixed = True
            await until(lambda: runner.pending == 0, timeout_s=70)
        assert sink.taken == list(range(100))

    virtual(main())


def test_retry_after_is_honoured_within_a_tenth(virtual, store, make_runner):
    """K3: a sink that asks for 30 s of quiet gets 30 to 33."""

    async def main():
        fill(store, 10)
        sink = ScriptedSink(lambda seqs: Retry("429", 30.0) if len(sink.offers) < 4 else Delivered(len(seqs)))
        runner = make_runner(store, sink)
        async with running(runner):
            await until(lambda: runner.pending == 0, timeout_s=200)
        pauses = [b - a for a, b in zip(sink.times_s, sink.times_s[1:], strict=False)]
        assert len(pauses) == 3
        assert all(30.0 <= pause <= 33.1 for pause in pauses)

    virtual(main())


def test_whatever_a_sink_raises_is_a_reason_to_try_again(virtual, store, make_runner):
    """L8: a bug in a sink neither ends its runner nor loses an event."""

    async def main():
        fill(store, 50)
        sink = ScriptedSink()

        def script(seqs):
            if len(sink.offers) < 5:
                raise ZeroDivisionError("a bug")
            return Delivered(len(seqs))

        async def broken_open():
            raise RuntimeError("cannot open")

        sink.script, sink.open = script, broken_open
        runner = make_runner(store, sink)
        async with running(runner):
            await until(lambda: runner.pending == 0)
        assert sink.taken == list(range(50))

    virtual(main())


def test_a_stuck_sink_slows_no_other(virtual, store, make_runner, clock):
    """L8: each runner has its own place and pace."""

    async def main():
        fill(store, 1_000)
        stuck, quick = ScriptedSink(), ScriptedSink()

        async def never(parcel):
            await asyncio.Event().wait()

        stuck.send = never
        one, other = make_runner(store, stuck), make_runner(store, quick)
        async with running(one), running(other):
            await until(lambda: other.pending == 0, timeout_s=1)
            assert one.pending == 1_000
            balance(one)

    virtual(main())


def test_a_failing_cursor_store_stops_sending_at_the_window_and_loses_nothing(virtual, store, make_runner):
    """L3 outranks progress: without a durable cursor nothing more than a window goes out."""

    async def main():
        fill(store, 1_000)
        store.fail_cursors = 12
        sink = ScriptedSink()
        runner = make_runner(store, sink, batch_records=100, window_records=200)
        async with running(runner):
            await until(lambda: runner.pending == 0, timeout_s=600)
            balance(runner)
        assert sink.taken == list(range(1_000))

    virtual(main())


def test_drain_lets_a_send_in_flight_end_and_stores_its_cursor(virtual, store, make_runner):
    """Shutdown repeats nothing when the sink answers in time, and waits no longer than it was told."""

    async def main():
        fill(store, 100)
        sink = ScriptedSink()
        begun = asyncio.Event()

        async def slow(parcel):
            begun.set()
            await asyncio.sleep(2.0)
            return Delivered(len(parcel))

        sink.send = slow
        runner = make_runner(store, sink)
        task = asyncio.create_task(runner.run())
        await begun.wait()
        await runner.drain(5.0)
        await task
        assert store.stored["cloud"].ordinal == 100
        assert sink.closed == 1
        before = asyncio.get_running_loop().time()
        await runner.drain(5.0)
        assert asyncio.get_running_loop().time() - before < 1

    virtual(main())

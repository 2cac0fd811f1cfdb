"""When records happened, and finding them by it: clocks that start in 1970, jump, and are put right."""

from __future__ import annotations

import contextlib
import itertools
import random
from typing import NamedTuple

import pytest

from gateway.model import Batch, Format, Kind, Origin, Position, Stamp
from gateway.ringlog.by_time import Timed, Window, read_timeline, seek_time
from gateway.ringlog.contents import look
from gateway.ringlog.frame import encode
from gateway.ringlog.inspect import info, scan_log
from gateway.ringlog.segment import HEAD_BYTES, SegmentHead, SegmentWriter, name_of
from gateway.ringlog.storage import DiskStorage
from gateway.ringlog.timeline import ANY_TIME, EVER_NS, SLACK_NS, boots_in_doubt, spans, timeline_of
from tests.crash.figures import keep, share

S = 1_000_000_000
TODAY = 1_770_000_000 * S
A, B = b"A" * 16, b"B" * 16
LOG_ID = 0x1234


def stamp(wall_s: float, mono_s: float, boot: bytes = A, *, synced: bool = True) -> Stamp:
    return Stamp(int(wall_s * S), int(mono_s * S), int(mono_s * S), boot, synced)


def frame(seq: int, at: Stamp, records: int = 2) -> bytes:
    batch = Batch(
        kind=Kind.EVENTS,
        stamp=at,
        topics=["devices/a/climate"] * records,
        formats=[Format.TEXT] * records,
        flags=[1] * records,
        payloads=[b"%08d" % (seq + index) for index in range(records)],
        origin=Origin("gw", f"{LOG_ID:016x}", 1),
        seq=seq,
        ordinal=seq,
    )
    return encode(batch, LOG_ID, None)


def write_log(data_dir, segments: list[list[Stamp]]) -> None:
    """A log of two records a stamp, in segments as told."""
    directory = data_dir / "events"
    directory.mkdir(parents=True)
    seq = 0
    for stamps in segments:
        writer = SegmentWriter(DiskStorage(), directory, SegmentHead(1, LOG_ID, seq, seq), 64 * 1024)
        for at in stamps:
            writer.write(frame(seq, at), Position(seq + 2, seq + 2))
            seq += 2
        writer.seal()


def found_in(data_dir, from_ns=-EVER_NS, to_ns=EVER_NS) -> list[tuple[int, int]]:
    return [
        (item.batch.seq, item.wall_ns) for item in Window(data_dir, "events", from_ns, to_ns) if type(item) is Timed
    ]


@pytest.mark.parametrize(
    ("at", "told_s"),
    [
        (stamp(1_770_000_100, 100), 1_770_000_100),
        (stamp(5, 40, synced=False), 1_770_000_040),
        (stamp(1_900_000_000, 400, synced=False), 1_770_000_400),
        (stamp(1_770_000_777, 20), 1_770_000_777),
        (stamp(7, 40, B, synced=False), 7),
        (stamp(8, 40, bytes(16), synced=False), 8),
    ],
    ids=["synchronised", "before", "after it was lost", "synchronised, elsewhere", "another boot", "no boot id"],
)
def test_an_unsynchronised_time_is_told_by_the_synchronised_one_of_its_boot(at, told_s):
    """Law L11: the wall clock's jump from 1970 moves no record, and what nobody knows is left as it stands."""
    timeline = timeline_of([stamp(1_770_000_050, 100), stamp(1_770_000_100, 100), stamp(3, 3, bytes(16))])
    assert timeline.wall_ns(at) == told_s * S


def test_where_no_clock_moved_the_next_segment_bounds_the_one_before():
    """Law L13: a range of times reads the segments that it touches and no other."""
    firsts = [stamp(1_000 + mono_s, mono_s) for mono_s in (0, 100, 200)]
    assert spans(timeline_of(firsts), firsts) == [
        (1_000 * S - SLACK_NS, 1_100 * S + SLACK_NS),
        (1_100 * S - SLACK_NS, 1_200 * S + SLACK_NS),
        ANY_TIME,
    ]


@pytest.mark.parametrize(
    "following",
    [None, stamp(1_100, 100, B), stamp(1_103, 100), stamp(900, 100), stamp(1_000, -5)],
    ids=["unreadable", "reboot", "forward", "back", "monotonic clock back"],
)
def test_where_a_clock_may_have_moved_a_segment_may_hold_any_time(following):
    """Law: a range never misses a record because of a jump between two segments."""
    first = stamp(1_000, 0)
    assert spans(timeline_of([first]), [first, following])[0] == ANY_TIME


def test_in_a_boot_that_never_was_synchronised_a_segment_may_hold_any_time():
    """Law: nobody knows what the clock did between two segments, even if it seems to have run on."""
    firsts = [stamp(1_000 + mono_s, mono_s, synced=False) for mono_s in (0, 100, 200)]
    assert spans(timeline_of(firsts), firsts) == [ANY_TIME] * 3


@pytest.mark.parametrize("clock", ["wall_ns", "mono_ns", "elapsed_ns", "boot_id", "synced"])
def test_a_flipped_bit_in_a_first_header_leaves_no_segment_out(clock):
    """Law L5: what is read there is unchecked; where clocks contradict each other none of them is believed."""
    first, following = (stamp(9 + mono_s, mono_s, synced=False) for mono_s in (100, 200))
    timeline = timeline_of([stamp(1_000, 0)])
    (span, _) = spans(timeline, [first, following])
    assert span == (1_100 * S - SLACK_NS, 1_200 * S + SLACK_NS)
    for bit in range(62):
        bad = {
            "boot_id": bytes(16),
            "synced": True,
        }.get(clock) or getattr(first, clock) ^ 1 << bit
        (got, _) = spans(timeline, [first._replace(**{clock: bad}), following])
        assert got.first_ns <= span.first_ns + 2 * SLACK_NS
        assert got.last_ns >= span.last_ns


def test_a_boot_is_in_doubt_only_if_no_segment_begins_synchronised():
    """Law L13: most often no segment is read for it."""
    unsynced = stamp(1, 1, synced=False)
    assert boots_in_doubt([unsynced, stamp(1_000, 2), None]) == []
    assert boots_in_doubt([unsynced, unsynced, stamp(9, 9, B, synced=False), None]) == [1, 2]
    assert boots_in_doubt([stamp(1, 1, bytes(16), synced=False)]) == []


@pytest.mark.parametrize("answered_in", [0, 1, 2])
def test_records_before_the_time_source_answered_have_their_true_time(tmp_path, answered_in):
    """Law L11: whether it answers in the first segment, in a later one, or in the very last."""
    true = [[TODAY // S + 10 * (5 * n + k) for k in range(5)] for n in range(3)]
    segments = [
        [
            stamp(
                wall_s if (synced := (n, k) >= (answered_in, 3)) else wall_s - TODAY // S,
                10 * (5 * n + k),
                synced=synced,
            )
            for k, wall_s in enumerate(walls)
        ]
        for n, walls in enumerate(true)
    ]
    write_log(tmp_path, segments)
    assert found_in(tmp_path) == [(2 * n, wall_s * S) for n, wall_s in enumerate(itertools.chain(*true))]
    assert found_in(tmp_path, to_ns=TODAY) == []
    figures = info(tmp_path)
    assert (figures.oldest_wall_ns, figures.newest_wall_ns) == (TODAY, TODAY + 140 * S)


def test_a_range_reads_no_more_segments_than_it_touches(tmp_path):
    """Law L13: an hour out of a week costs an hour of reading."""
    write_log(tmp_path, [[stamp(TODAY // S + 100 * n + k, 100 * n + k) for k in range(0, 100, 5)] for n in range(50)])
    window = Window(tmp_path, "events", TODAY + 1_010 * S, TODAY + 1_030 * S)
    assert window.size_bytes <= 3 * info(tmp_path).segments[0].size_bytes, "the one, one by the slack, and the last"
    told = []
    seqs = [item.batch.seq for item in window.read(progress=told.append) if type(item) is Timed]
    assert seqs == [2 * (20 * 10 + k) for k in (2, 3, 4, 5)]
    assert sum(told) == window.size_bytes


def test_a_time_is_sought_to_the_record(tmp_path):
    """Law: `seek_time` is the first record at or after it; there need be none."""
    write_log(
        tmp_path, [[stamp(TODAY // S + 10 * n, 10 * n) for n in range(start, start + 10)] for start in (0, 10, 20)]
    )
    assert seek_time(tmp_path, "events", 0) == 0
    assert seek_time(tmp_path, "events", TODAY + 120 * S) == 24
    assert seek_time(tmp_path, "events", TODAY + 120 * S + 1) == 26
    assert seek_time(tmp_path, "events", TODAY + 291 * S) is None


class Life(NamedTuple):
    """Boots as a machine without a battery clock lives through them."""

    segments: list[list[Stamp]]
    true_ns: list[int | None]
    """By frame; None where nobody can know."""


def live(rng: random.Random) -> Life:
    segments: list[list[Stamp]] = []
    true: list[int | None] = []
    now_ns = TODAY
    for number in range(rng.randint(1, 5)):
        boot = bytes([number + 1]) * 16
        booted_ns = now_ns = now_ns + rng.randrange(1, 100_000) * S
        begun_ns = rng.randrange(10**6) * S
        shown_ns = rng.choice([0, now_ns - 3_000 * S, now_ns + 10**7 * S])
        answers, ever = rng.random(), rng.random() < 0.7
        synced = ever and answers < 0.3
        frames = []
        for _ in range(rng.randint(1, 60)):
            step_ns = rng.randrange(0, 600) * S
            now_ns += step_ns
            shown_ns += step_ns
            if rng.random() < 0.05:
                shown_ns += rng.randrange(-(10**5), 10**5) * S
            if ever and rng.random() < 0.1:
                synced = not synced
            if synced:
                shown_ns = now_ns  # and so it stays when the source is lost
            mono_ns = now_ns - booted_ns
            frames.append(Stamp(now_ns if synced else shown_ns, mono_ns, begun_ns + mono_ns, boot, synced))
        cuts = sorted(rng.randrange(1, len(frames)) for _ in range(rng.randrange(4))) if len(frames) > 1 else []
        pieces = [frames[a:b] for a, b in zip([0, *cuts], [*cuts, len(frames)], strict=True) if a < b]
        segments += pieces
        true += [at.mono_ns + booted_ns for at in frames]
    return Life(segments, true)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged headers"])
def test_a_range_of_times_misses_no_record_whatever_the_clocks_did(tmp_path, seed, damaged):
    """Law L11: held against reading all of it: clocks that jump, boots that never were right, flipped bits."""
    rng = random.Random(seed)
    lives, ranges = share(25, 500), 12
    corrected = 0
    for number in range(lives):
        data_dir = tmp_path / str(number)
        life = live(rng)
        write_log(data_dir, life.segments)
        if damaged:
            for path in (data_dir / "events").glob("*.seg"):
                if rng.random() < 0.4:
                    data = bytearray(path.read_bytes())
                    data[HEAD_BYTES + rng.randrange(92)] ^= 1 << rng.randrange(8)
                    path.write_bytes(data)
        timeline, _ = read_timeline(look(data_dir, "events"))
        batches = [item for item in scan_log(data_dir) if isinstance(item, Batch)]
        times = [(batch.seq, timeline.wall_ns(batch.stamp)) for batch in batches]
        for batch, (_, wall_ns) in zip(batches, times, strict=True):
            if batch.stamp.synced or wall_ns != batch.stamp.wall_ns:
                corrected += not batch.stamp.synced
                assert wall_ns == life.true_ns[batch.seq // 2], "a time that was corrected is the true one"
        assert found_in(data_dir) == times
        if not times:  # all of it was damaged
            continue
        for _ in range(ranges):
            edges = [rng.choice(times)[1] + rng.choice([0, 0, 1, rng.randrange(-(10**6), 10**6) * S]) for _ in "ab"]
            begin_ns, end_ns = min(edges), max(edges) + 1
            wanted = [(seq, wall_ns) for seq, wall_ns in times if begin_ns <= wall_ns < end_ns]
            assert found_in(data_dir, begin_ns, end_ns) == wanted
            assert seek_time(data_dir, "events", begin_ns) == next(
                (s for s, wall_ns in times if wall_ns >= begin_ns), None
            )
    keep(
        "time",
        "clocks that jump and headers with flipped bits" if damaged else "clocks that jump",
        f"{lives} logs, {lives * ranges} ranges of time",
        f"0 records missed; {corrected} times corrected, all to the true one",
        seed=seed,
    )


def test_a_log_that_is_not_there_yet_has_no_times(tmp_path):
    """Law: an empty log is no error."""
    (tmp_path / "events").mkdir()
    assert found_in(tmp_path) == []
    assert seek_time(tmp_path, "events", 0) is None
    assert info(tmp_path).oldest_wall_ns is None


def test_a_segment_that_is_evicted_while_one_reads_is_told_and_is_no_damage(tmp_path):
    """Law: reading beside a running gateway finds no damage where there is none."""
    write_log(tmp_path, [[stamp(TODAY // S + 10 * n, 10 * n)] for n in range(5)])
    window = Window(tmp_path, "events")
    items = iter(window)
    assert next(items).batch.seq == 0
    for seq in (2, 4):
        (tmp_path / "events" / name_of(seq)).unlink()
    rest = list(items)
    assert [tuple(item) for item in rest[:2]] == [(2, 4), (4, 6)]
    assert [item.batch.seq for item in rest[2:]] == [6, 8]


def test_a_frame_that_was_on_its_way_at_first_sight_is_no_damage(tmp_path, monkeypatch):
    """Law: the newest segment grows while it is read; what looks torn there is looked at again."""
    write_log(tmp_path, [[stamp(TODAY // S, n) for n in range(3)]])
    path = tmp_path / "events" / name_of(0)
    whole = path.read_bytes()
    size = len(frame(0, stamp(0, 0)))
    on_its_way = bytearray(whole)
    on_its_way[HEAD_BYTES + size + 100 : HEAD_BYTES + 2 * size] = bytes(size - 100)
    path.write_bytes(on_its_way)

    from gateway.ringlog import contents

    scan = contents.scan

    def slow(*args):
        found = list(scan(*args))
        path.write_bytes(whole)  # by now the writer has got there
        yield from found

    monkeypatch.setattr(contents, "scan", slow)
    with contextlib.closing(scan_log(tmp_path)) as items:
        assert [batch.seq for batch in items] == [0, 2, 4]

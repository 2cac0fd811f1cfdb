"""S9 (a): a disk that refuses a sync, once or from then on, at each sync of the scripted lives. strace says no for it.

After a refused sync the page cache is no evidence: what was not synced before is written anew elsewhere, from memory,
and nobody asks the same descriptor a second time, since the second answer would be a lie.

strace counts by thread: what it refuses the writer from some call on, the main thread is refused from as many calls of
its own on, and so not at its closing. A life whose last cursor is refused can thus still end by closing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.crash.cases import Point, Script, Seen, name_of, workspace
from tests.crash.figures import FULL, keep
from tests.crash.processes import Lane, Lanes, open_lanes
from tests.crash.strace import SYNCS, Call, asked_again, parse
from tests.crash.workload import FAILED, REFUSED


@pytest.fixture(scope="module")
def lanes():
    with open_lanes() as lanes:
        yield lanes


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with workspace(tmp_path_factory.mktemp("syncs")) as place:
        yield place


@pytest.fixture(scope="module")
def script(lanes, home) -> Script:
    return Script(lanes.first, home / "script")


class Sync(NamedTuple):
    """A sync that is refused."""

    number: int
    point: Point
    counts: dict[str, int]
    """How many of each name its phase has made by then, this one included."""


def syncs_of(script: Script) -> list[Sync]:
    """Every sync of both lives."""
    found = []
    counts: Counter[tuple[int, str, str]] = Counter()
    for point in script.points:
        if point.aim.name in SYNCS:
            counts[point.life, point.phase, point.aim.name] = point.aim.nth
            so_far = {name: counts[point.life, point.phase, name] for name in SYNCS}
            found.append(Sync(len(found), point, so_far))
    return found


def chosen(script: Script, rng: random.Random) -> list[Sync]:
    """All of them, or one of each kind."""
    syncs = syncs_of(script)
    one_each = {sync.point.kind: sync for sync in rng.sample(syncs, len(syncs))}
    return syncs if FULL else list(one_each.values())


def refused_rooms(calls: Sequence[Call], data: Path) -> set[str]:
    """In which parts of the data directory something could not be synced; `.` for its own names."""
    paths = [Path(call.paths[0]).relative_to(data) for call in calls if call.error == "EIO"]
    return {path.parts[0] if path.parts else "." for path in paths}


def told_of(codes: Counter[int]) -> str:
    """Exit codes, in words."""
    words = {0: "went on", REFUSED: "went on without a cursor or snapshot", FAILED: "ended with an error"}
    return ", ".join(f"{codes[code]:,} {word}" for code, word in words.items() if codes[code])


@pytest.mark.timeout(3_600 if FULL else 180)
def test_one_refused_sync_costs_nothing_that_was_acknowledged(lanes: Lanes, script: Script, home, rng, seed):
    """Laws L1, L2: the log gets over it by itself while it works; at its opening or closing it says so and ends."""

    def one(lane: Lane, sync: Sync) -> tuple[Seen, int]:
        point, aim = sync.point, sync.point.aim
        refusal = f"{aim.name}:error=EIO:when={aim.nth}"
        case, pid, code, calls = script.live(lane, point, home / f"{name_of(sync.number)}-once", refusal)
        where = f"{point}: {case.home}"
        refused = [call.tid for call in calls if call.error == "EIO"]
        assert refused, f"{where}: nothing was refused"
        assert len(refused) == len(set(refused)), f"{where}: a thread was refused twice"
        # The main thread syncs at opening and closing only, where it does not try anything else.
        assert code in ({0, REFUSED, FAILED} if pid in refused else {0, REFUSED}), f"{where} ended with {code}"
        again = [(call.name, call.paths[0]) for call in asked_again(calls)]
        assert again == [], where
        seen = case.judge(lane)
        case.clear()
        return seen, code

    found = lanes.each(one, chosen(script, rng))
    keep(
        "S9",
        "EIO at one fdatasync or fsync, by strace",
        f"{len(found):,} syncs of {len(syncs_of(script)):,}",
        f"0 lost, 0 phantom, 0 disordered, 0 syncs or writes on that descriptor again; "
        f"{told_of(Counter(code for _, code in found))}",
        seed=seed,
    )


@pytest.mark.timeout(3_600 if FULL else 180)
def test_a_disk_that_refuses_every_sync_ends_the_process_with_an_error(lanes: Lanes, script: Script, home, rng, seed):
    """Laws L1, L2: nothing is acknowledged from then on, the exit code says so, and what was acknowledged is there."""

    def one(lane: Lane, sync: Sync) -> tuple[Seen, int]:
        point, counts = sync.point, sync.counts
        from_then_on = [f"{name}:error=EIO:when={count + (name != point.aim.name)}+" for name, count in counts.items()]
        case, _, code, calls = script.live(lane, point, home / f"{name_of(sync.number)}-for-good", *from_then_on)
        where = f"{point}: {case.home}"
        refused = refused_rooms(calls, case.data)
        assert refused, f"{where}: nothing was refused"
        assert code in ({FAILED} if refused & {"events", "deadletters"} else {FAILED, REFUSED}), f"{where}: {code}"
        again = [(call.name, call.paths[0]) for call in asked_again(calls)]
        assert again == [], where
        seen = case.judge(lane)
        case.clear()
        return seen, code

    found = lanes.each(one, chosen(script, rng))
    keep(
        "S9",
        "EIO at every fdatasync and fsync from one on, by strace",
        f"{len(found):,} first syncs of {len(syncs_of(script)):,}",
        "0 lost, 0 phantom, 0 disordered, 0 syncs or writes on a refused descriptor again; "
        f"{told_of(Counter(code for _, code in found))}",
        seed=seed,
    )


def test_the_judge_of_traces_knows_a_second_try():
    """Law L2: what the two tests above look for is found where it is."""
    trace = (
        '7 openat(AT_FDCWD</>, "/d/a", O_RDWR) = 5</d/a>\n'
        "7 fdatasync(5</d/a>) = -1 EIO (Input/output error) (INJECTED)\n"
        "7 close(5</d/a>) = 0\n"
        "7 fdatasync(5</d/b>) = 0\n"
        "7 fsync(5</d/b> <unfinished ...>\n"
        '8 pwrite64(5</d/a>, ""..., 3, 0) = 3\n'
        "7 <... fsync resumed>) = -1 EIO (Input/output error) (INJECTED)\n"
        "7 fdatasync(5</d/b>) = 0\n"
    )
    assert [(call.name, call.paths[0]) for call in asked_again(parse(trace))] == [
        ("pwrite64", "/d/a"),
        ("fdatasync", "/d/b"),
    ]

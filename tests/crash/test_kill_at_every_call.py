"""S2, from outside the process: strace kills it before a system call, whoever makes that call and from which language.

`test_kill_before_every_call` asks the same of calls made through Python's `os`, and tears writes in two.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.crash.cases import Case, Point, Script, Seen, name_of, repeats, workspace
from tests.crash.figures import FULL, keep, share
from tests.crash.processes import Lane, Lanes, open_lanes
from tests.crash.strace import Tracer, aims, was_interrupted
from tests.crash.verdict import Told


@pytest.fixture(scope="module")
def lanes():
    with open_lanes() as lanes:
        yield lanes


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with workspace(tmp_path_factory.mktemp("kills")) as place:
        yield place


@pytest.fixture(scope="module")
def script(lanes, home) -> Script:
    return Script(lanes.first, home / "script")


def kill_at(script: Script, lane: Lane, point: Point, home: Path) -> Case:
    """Live up to a call, and no further."""
    while True:
        case, _, code, calls = script.live(lane, point, home, f"{point.aim.name}:signal=SIGKILL:when={point.aim.nth}")
        if not was_interrupted(calls, case.data):
            break
        case.clear()
    assert code == -signal.SIGKILL, f"{point}: {case.home} ended with {code} instead of a kill"
    changes = [call for call in calls if call.changes(case.data)]
    made = " ".join(call.name for call in changes)
    assert len(changes) == point.position, f"{point}: {case.home} was killed elsewhere, after {made}"
    return case


def kill_the_start(lane: Lane, case: Case, rng: random.Random) -> None:
    """Begin the start after a kill, and kill that as well, at a call of its recovery."""
    rehearsal = case.copy(case.home.with_name(case.home.name + "-rehearsal"))
    start = ("verdict", "script", rehearsal.data, rehearsal.journal, "--gate", "open")
    lane.start(*start, output=rehearsal.output)
    tracer = Tracer(lane.pid, rehearsal.trace)
    main_thread = lane.pid
    lane.go_on()
    assert lane.wait() == 0, f"{case.home}: {rehearsal.output.read_text()[-3_000:]}"
    calls = tracer.calls()
    writes = (i for i, call in enumerate(calls) if call.tid != main_thread and call.changes(rehearsal.data))
    opened = next(writes, len(calls))
    chosen = rng.choice([aim for aim in aims(calls, rehearsal.data) if aim.index < opened])
    rehearsal.clear()
    lane.start("verdict", "script", case.data, case.journal, "--gate", "open", output=case.output)
    tracer = Tracer(lane.pid, case.trace, inject=[f"{chosen.name}:signal=SIGKILL:when={chosen.nth}"])
    lane.go_on()
    code = lane.wait()
    tracer.calls()
    assert code == -signal.SIGKILL, f"{case.home} ended with {code} instead of a second kill"


def test_the_script_does_what_is_worth_a_kill(script: Script):
    """Laws L2, L6: it rotates, evicts, commits, dead-letters; no call that changes the directory is left out."""
    told = Told.by(script.finished.journal)
    ledger = script.finished.journal.with_name("journal.ledger").read_text()
    assert (script.unseen, script.unreachable) == (set(), [])
    assert len(script.points) >= 1_000
    assert sum(point.aim.name == "fallocate" for point in script.points if point.phase == "work") >= 2 * 3
    assert ledger.count("cursor ") >= 20
    assert sum(reason == "evicted" for _, _, reason in told.gaps) >= 2
    assert len(told.letters) >= 5
    assert told.snapshot == 2


@pytest.mark.timeout(3_600 if FULL else 180)
def test_a_process_killed_before_any_call_has_kept_what_it_acknowledged(lanes: Lanes, script: Script, home, rng, seed):
    """Laws L2, L3, L4, L5: nothing lost, invented or turned round, and the next start needs no help."""
    points = script.points if FULL else script.sample(rng, 60)

    def one(lane: Lane, item: tuple[int, Point]) -> Seen:
        number, point = item
        case = kill_at(script, lane, point, home / name_of(number))
        seen = case.judge(lane)
        case.clear()
        return seen

    found = lanes.each(one, list(enumerate(points)))
    keep(
        "S2",
        "SIGKILL by strace before every system call that changes the data directory, in two lives",
        f"{len(found):,} kill points of {len(script.points):,}",
        repeats(found, 1),
        seed=seed,
    )


@pytest.mark.timeout(3_600 if FULL else 180)
def test_a_start_that_is_killed_too_leaves_all_to_the_next(lanes: Lanes, script: Script, home, rng, seed):
    """Laws L2, L5: recovery may be ended before any of its calls and begun again."""
    cases = [(number, rng.choice(script.points), rng.randrange(2**32)) for number in range(share(12, 200))]

    def one(lane: Lane, item: tuple[int, Point, int]) -> Seen:
        number, point, draw = item
        case = kill_at(script, lane, point, home / f"{name_of(number)}-twice")
        kill_the_start(lane, case, random.Random(draw))
        seen = case.judge(lane, faults=2)
        case.clear()
        return seen

    found = lanes.each(one, cases)
    keep(
        "S2",
        "a second SIGKILL by strace, before a system call of the recovery that follows",
        f"{len(found):,} pairs of kill points",
        repeats(found, 2),
        seed=seed,
    )

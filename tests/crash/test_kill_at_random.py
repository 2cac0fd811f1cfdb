"""S1: kill -9 at random moments of a life under load, on a log of 64 MiB, again and again on the same log."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crash.cases import Case, Seen
from tests.crash.figures import FULL, keep, share
from tests.crash.processes import HERE, Lane, open_lanes
from tests.crash.verdict import Told
from tests.crash.workload import IN_FLIGHT, WINDOW

BATCHES_PER_S = 200.0
"""Two and a half messages each."""
SOONEST_S, LATEST_S = 0.02, 0.5
JUDGE_EVERY = 100
"""Kills between two judgements of everything."""
FULL_BYTES = 56 * 1024 * 1024


@pytest.fixture
def full_log(tmp_path) -> Case:
    """A log of its full size, which its sink has read; on disk, as in use."""
    case = Case(tmp_path / "full")
    case.home.mkdir()
    with open_lanes(1) as lanes:
        code = lanes.first.run("workload", "flood", case.data, case.journal, "--fill", output=case.output)
        assert code == 0, case.output.read_text()
    assert sum(path.stat().st_size for path in (case.data / "events").iterdir()) >= FULL_BYTES
    return case


def live_and_die(lane: Lane, case: Case, rng: random.Random) -> None:
    """One life under load, killed at some moment of its opening or its work."""
    load = ("--rate", BATCHES_PER_S, "--seed", rng.randrange(2**32))
    lane.start("workload", "flood", case.data, case.journal, *load, output=case.output)
    try:
        code = lane.wait(rng.uniform(SOONEST_S, LATEST_S))
    except TimeoutError:
        assert lane.kill() == -9, f"{case.home} ended by itself as it was killed"
    else:
        raise AssertionError(f"{case.home} ended by itself with {code}:\n{case.output.read_text()[-3_000:]}")


def cold_start_s(case: Case) -> float:
    """From the start of an interpreter to the end of a life of one batch on this log."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "tests.crash.workload", "flood", case.data, case.journal, "--batches", "1"]
    subprocess.run(list(map(str, command)), cwd=HERE, check=True, capture_output=True, timeout=60)
    return time.perf_counter() - began


@pytest.mark.timeout(7_200 if FULL else 180)
def test_kills_at_any_moment_lose_nothing_that_was_acknowledged(full_log: Case, tmp_path: Path, seed):
    """Laws L2, L3, L4, L5: two full logs, each killed again and again; every start after a kill goes by itself."""
    kills = share(10, 500)

    def one(number: int) -> tuple[Seen, Told]:
        rng = random.Random(seed + number)
        case = full_log.copy(tmp_path / f"killed-{number}")
        with open_lanes(1) as lanes:
            for kill in range(1, kills + 1):
                live_and_die(lanes.first, case, rng)
                if kill % JUDGE_EVERY == 0 or kill == kills:
                    seen = case.judge(lanes.first, "flood", faults=kill)
        return seen, Told.by(case.journal)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(one, range(2)))
    cold_s = cold_start_s(Case(tmp_path / "killed-0"))
    faults = 2 * kills
    lives = sum(len(told.ready_ms) for _, told in found)
    keep(
        "S1",
        "kill -9 at random moments, 20 to 500 ms into a life at up to 500 events/s on a log of 64 MiB",
        f"{faults:,} kills, {sum(seen.acknowledged for seen, _ in found):,} records acknowledged",
        f"0 lost, 0 phantom, 0 disordered; repeats {sum(seen.log_repeats for seen, _ in found):,} in the log "
        f"(bound {faults * IN_FLIGHT:,}), {sum(seen.sink_repeats for seen, _ in found):,} at the sink "
        f"(bound {faults * (WINDOW + IN_FLIGHT):,}); {lives:,} openings of at most "
        f"{max(seen.ready_ms for seen, _ in found):,.0f} ms, interpreter to exit {cold_s * 1e3:,.0f} ms",
        seed=seed,
    )

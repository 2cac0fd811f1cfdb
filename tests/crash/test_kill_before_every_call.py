"""S1, S2: a process that is killed before any of its system calls, while it works and while it recovers."""

from __future__ import annotations

import asyncio
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crash.figures import FULL, keep, share
from tests.crash.fused import APPENDS, RECORDS, WINDOW, Places, verify
from tests.oracle import Judgement

MEMORY = Path("/dev/shm")
ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
IDLE: queue.SimpleQueue[Nursery] = queue.SimpleQueue()


@pytest.fixture
def home(tmp_path):
    """In memory, where there is some: a kill does not ask for the medium, and a sync then costs nothing."""
    place = Path(tempfile.mkdtemp(prefix="kill-", dir=MEMORY if MEMORY.is_dir() else tmp_path))
    yield place
    shutil.rmtree(place)


class Nursery:
    """A process that forks lives, one at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.crash.fused"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def live(self, place: Path, what: str, at: int, torn: bool) -> int:
        """One life; how it ended."""
        self._process.stdin.write(f"{place} {what} {at} {torn}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery is gone"
        return int(answer)

    def close(self) -> None:
        with self._process as process:
            process.stdin.close()


@pytest.fixture(scope="module", autouse=True)
def nurseries():
    """As many as work at once."""
    made = [Nursery() for _ in range(WORKERS)]
    for each in made:
        IDLE.put(each)
    yield
    for each in made:
        each.close()
    while not IDLE.empty():
        IDLE.get()


def live(place: Path, what: str = "script", *, at: int = 0, torn: bool = False) -> int:
    """One life; how it ended."""
    nursery = IDLE.get()
    try:
        return nursery.live(place, what, at, torn)
    finally:
        IDLE.put(nursery)


def calls_of(place: Path, what: str = "script") -> int:
    """How many calls a life makes that nobody ends."""
    assert live(place, what) == 0
    return int(Places(place).count.read_text())


def judge_kill(place: Path, at: int, *, torn: bool, again: int = 0) -> Judgement:
    """Kill at a call, perhaps once more at a call of the start that follows, and judge what is left."""
    place.mkdir()
    # Two requests that meet in one job make a few calls less: the very last ones may never come.
    assert live(place, at=at, torn=torn) in (-signal.SIGKILL, 0)
    if again:
        assert live(place, "start", at=again, torn=torn) in (-signal.SIGKILL, 0)
    found = asyncio.run(verify(Places(place)))
    where = f"killed at call {at}{' torn' if torn else ''}, then {again}: {found}"
    assert found.clean, where
    assert found.repeats <= WINDOW * (1 + bool(again)), where
    shutil.rmtree(place)
    return found


def judge_all(home: Path, cases: list[tuple[int, bool, int]]) -> list[Judgement]:
    """Two at a time. What a failing case has left stays until the test has ended."""

    def one(case: tuple[int, bool, int]) -> Judgement:
        at, torn, again = case
        return judge_kill(home / f"{at}-{torn}-{again}", at, torn=torn, again=again)

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(one, cases))


def test_the_script_does_what_it_says(home):
    """A workload that rotates, evicts and commits nothing would prove nothing."""
    count = calls_of(home)
    found = asyncio.run(verify(Places(home)))
    assert found.clean, str(found)
    assert found.acknowledged == APPENDS * RECORDS + 10 + RECORDS
    assert count >= 1_000


@pytest.mark.timeout(3_600 if FULL else 180)
def test_a_kill_before_any_call_loses_nothing_that_was_acknowledged(home, rng, seed):
    """Laws L2, L3, L5: before every call that changes a file, and halfway through every write."""
    (home / "count").mkdir()
    count = calls_of(home / "count")
    cases = [(at, torn, 0) for torn in (False, True) for at in range(1, count + 1)]
    if not FULL:
        cases = rng.sample(cases, 150)
    found = judge_all(home, cases)
    keep(
        "S2",
        "SIGKILL before every call that changes a file, and halfway through every write",
        f"{len(cases):,} kill points of {2 * count:,}",
        f"0 lost, 0 phantom, 0 disordered, at most {max(each.repeats for each in found)} repeats (bound {WINDOW})",
        seed=seed,
    )


@pytest.mark.timeout(3_600 if FULL else 180)
def test_a_second_kill_while_the_log_recovers_loses_nothing_either(home, rng, seed):
    """Laws L2, L5: recovery can be ended anywhere and begun again."""
    (home / "count").mkdir()
    count = calls_of(home / "count")
    starts = calls_of(home / "count", "start")
    cases = [(rng.randint(1, count), rng.random() < 0.5, rng.randint(1, starts)) for _ in range(share(50, 1_000))]
    found = judge_all(home, cases)
    keep(
        "S2",
        "a second SIGKILL while the start after the first recovers",
        f"{len(cases):,} pairs of kill points",
        f"0 lost, 0 phantom, 0 disordered, at most {max(each.repeats for each in found)} repeats (bound {2 * WINDOW})",
        seed=seed,
    )


@pytest.mark.timeout(7_200 if FULL else 180)
def test_kill_after_kill_on_one_log_loses_nothing(home, seed):
    """Laws L2, L3: one log, killed again and again at random calls of ever new lives."""
    rng = random.Random(seed)
    place = home / "one"
    place.mkdir()
    (home / "count").mkdir()
    count = calls_of(home / "count")
    kills = share(15, 1_000)
    for _ in range(kills):
        assert live(place, at=rng.randint(1, count), torn=rng.random() < 0.5) in (-signal.SIGKILL, 0)
    found = asyncio.run(verify(Places(place)))
    assert (found.lost, found.phantom, found.leaks) == ([], [], []), str(found)
    assert found.repeats <= WINDOW * kills, str(found)
    keep(
        "S1",
        "kill -9 at random, again and again on one log",
        f"{kills:,} kills, {found.acknowledged:,} records acknowledged",
        f"0 lost, 0 phantom, {found.repeats:,} repeats (bound {WINDOW * kills:,})",
        seed=seed,
    )

"""S1, S2: a process that is killed before any of its system calls, while it works and while it recovers."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
from pathlib import Path

import pytest

from tests.crash.figures import FULL, keep, share
from tests.crash.fused import APPENDS, RECORDS, WINDOW, Places, verify
from tests.crash.nursery import Nursery
from tests.oracle import Judgement


def judge_kill(nursery: Nursery, place: Path, at: int, *, torn: bool, again: int = 0) -> Judgement:
    """Kill at a call, perhaps once more at a call of the start that follows, and judge what is left."""
    place.mkdir()
    # Two requests that meet in one job make a few calls less: the very last ones may never come.
    assert nursery.live(place, at=at, variant=torn) in (-signal.SIGKILL, 0)
    if again:
        assert nursery.live(place, "start", at=again, variant=torn) in (-signal.SIGKILL, 0)
    found = asyncio.run(verify(Places(place)))
    where = f"killed at call {at}{' torn' if torn else ''}, then {again}: {found}"
    assert found.clean, where
    assert found.repeats <= WINDOW * (1 + bool(again)), where
    shutil.rmtree(place)
    return found


def judge_all(nursery: Nursery, home: Path, cases: list[tuple[int, bool, int]]) -> list[Judgement]:
    """What a failing case has left stays until the test has ended."""

    def one(case: tuple[int, bool, int]) -> Judgement:
        at, torn, again = case
        return judge_kill(nursery, home / f"{at}-{torn}-{again}", at, torn=torn, again=again)

    return nursery.each(one, cases)


def test_the_script_does_what_it_says(nursery, home):
    """A workload that rotates, evicts and commits nothing would prove nothing."""
    count = nursery.calls_of(home / "whole")
    found = asyncio.run(verify(Places(home / "whole")))
    assert found.clean, str(found)
    assert found.acknowledged == APPENDS * RECORDS + 10 + RECORDS
    assert count >= 1_000


@pytest.mark.timeout(3_600 if FULL else 180)
def test_a_kill_before_any_call_loses_nothing_that_was_acknowledged(nursery, home, rng, seed):
    """Laws L2, L3, L5: before every call that changes a file, and halfway through every write."""
    count = nursery.calls_of(home / "count")
    cases = [(at, torn, 0) for torn in (False, True) for at in range(1, count + 1)]
    if not FULL:
        cases = rng.sample(cases, 150)
    found = judge_all(nursery, home, cases)
    keep(
        "S2",
        "SIGKILL before every call that changes a file, and halfway through every write",
        f"{len(cases):,} kill points of {2 * count:,}",
        f"0 lost, 0 phantom, 0 disordered, at most {max(each.repeats for each in found)} repeats (bound {WINDOW})",
        seed=seed,
    )


@pytest.mark.timeout(3_600 if FULL else 180)
def test_a_second_kill_while_the_log_recovers_loses_nothing_either(nursery, home, rng, seed):
    """Laws L2, L5: recovery can be ended anywhere and begun again."""
    count = nursery.calls_of(home / "count")
    starts = nursery.calls_of(home / "start", "start")
    cases = [(rng.randint(1, count), rng.random() < 0.5, 1 + index % starts) for index in range(share(50, 1_000))]
    found = judge_all(nursery, home, cases)
    keep(
        "S2",
        "a second SIGKILL while the start after the first recovers",
        f"{len(cases):,} pairs of kill points",
        f"0 lost, 0 phantom, 0 disordered, at most {max(each.repeats for each in found)} repeats (bound {2 * WINDOW})",
        seed=seed,
    )


@pytest.mark.timeout(7_200 if FULL else 180)
def test_kill_after_kill_on_one_log_loses_nothing(nursery, home, seed):
    """Laws L2, L3: one log, killed again and again at random calls of ever new lives."""
    rng = random.Random(seed)
    place = home / "one"
    place.mkdir()
    count = nursery.calls_of(home / "count")
    kills = share(15, 1_000)
    for _ in range(kills):
        ended = nursery.live(place, at=rng.randint(1, count), variant=rng.random() < 0.5)
        assert ended in (-signal.SIGKILL, 0)
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

"""S9: a sync that fails. The page cache is no evidence after it, and asking again would be told a lie."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.crash.figures import FULL, keep, share
from tests.crash.fused import WINDOW, Places, verify
from tests.crash.nursery import Nursery

FINE, ENDED = 0, 1


def judge_refusal(nursery: Nursery, place: Path, at: int, *, for_good: bool) -> tuple[int, str]:
    """Let a sync fail, once or from then on, and judge what is left."""
    place.mkdir()
    ended = nursery.live(place, "refused", at=at, variant=for_good)
    error = Places(place).error.read_text() if Places(place).error.exists() else ""
    where = f"sync {at} refused{' for good' if for_good else ''}: ended with {ended} {error}"
    assert ended in (FINE, ENDED), where  # nothing else: least of all a sync that was asked twice
    assert ended == FINE or "StorageError" in error, where
    found = asyncio.run(verify(Places(place)))
    assert found.clean, f"{where}, {found}"
    assert found.repeats <= WINDOW, f"{where}, {found}"
    shutil.rmtree(place)
    return ended, error


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.timeout(3_600 if FULL else 180)
def test_a_refused_sync_loses_nothing_and_is_not_asked_again(nursery, home, rng, seed, for_good):
    """Laws L1, L2: written again from memory, elsewhere; if that fails too the process ends, and told nobody more."""
    count = nursery.calls_of(home / "count", "refused")
    cases = range(1, count + 1) if FULL else sorted(rng.sample(range(1, count + 1), share(50, count)))
    ends = nursery.each(lambda at: judge_refusal(nursery, home / f"{at}-{for_good}", at, for_good=for_good), cases)
    ended = sum(how == ENDED for how, _ in ends)
    if for_good:
        assert ended >= len(ends) - 5, (
            "a disk that takes nothing any more ends the process, unless it was the last sync"
        )
    else:
        others = [error for _, error in ends if error and "cannot open" not in error and "cannot seal" not in error]
        assert others == [], "one refusal is got over, unless it meets a start or the very end"
    keep(
        "S9",
        "EIO at a sync, " + ("from then on" if for_good else "once"),
        f"{len(ends):,} of {count:,} syncs",
        f"0 lost, 0 phantom, 0 syncs asked again on a descriptor that refused one, {ended:,} processes ended",
        seed=seed,
    )

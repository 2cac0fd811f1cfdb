"""The engine beside small models of its rules, over random lives.

    MODEL_SEQUENCES=1000000 python -m pytest tests/rules/test_rules_against_models.py -s

lives a million; the default is what a few seconds hold. TEST_SEED repeats a run.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.rules.model_lives import LIVES_OF_A_SETUP, divergences

SEQUENCES = int(os.environ.get("MODEL_SEQUENCES", "2000"))
_SHARE = 200 * LIVES_OF_A_SETUP
_FEW = 20_000


@pytest.mark.timeout(180 if SEQUENCES <= _FEW else 3 * 3600)
def test_random_lives_agree_with_the_models(seed):
    """L9, L11, L12: values, steps of time, loss, restarts, crashes, duplicates, jumps of the clock: 0 divergences."""
    began_s = time.perf_counter()
    found = divergences(seed, 0, SEQUENCES) if SEQUENCES <= _FEW else _in_processes(seed, SEQUENCES)
    took_s = time.perf_counter() - began_s
    print(f"{SEQUENCES:,} lives in {took_s:.1f} s, {SEQUENCES / took_s:,.0f} a second, {len(found)} divergences")
    assert not found, "\n\n".join(found)


def _in_processes(seed: int, count: int) -> list[str]:
    starts = range(0, count, _SHARE)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        shares = [pool.submit(divergences, seed, start, min(_SHARE, count - start)) for start in starts]
        return [each for share in shares for each in share.result()]

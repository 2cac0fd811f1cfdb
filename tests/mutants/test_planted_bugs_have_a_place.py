"""The plan of planted bugs stays in step with the source."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.clauses import BREACHES
from tests.mutants.plan import MUTANTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", [*MUTANTS, *BREACHES], ids=lambda mutant: mutant.name)
def test_a_planted_bug_has_exactly_one_place_and_tests_that_exist(mutant):
    """`make mutants` cannot pass because a bug was planted nowhere."""
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new
    assert [test for test in mutant.tests if not (ROOT / test).exists()] == []


def test_there_are_enough_planted_bugs():
    """At least the twelve of the plan, and no name twice."""
    assert len(MUTANTS) >= 12
    assert len({mutant.name for mutant in (*MUTANTS, *BREACHES)}) == len(MUTANTS) + len(BREACHES)

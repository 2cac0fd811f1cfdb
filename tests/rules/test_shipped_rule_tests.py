"""The tests that ship beside the rules: all pass, every rule has some, and a crash anywhere changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from gateway.rules.trying.testing import play
from gateway.rules.trying.timeline import Expect, ExpectStart, ExpectState, Moment, Restart, Silence
from gateway.rules.trying.timeline_reader import SUFFIX, load_tests

SHIPPED = Path(__file__).parents[2] / "rules"
FILES = sorted(SHIPPED.glob("*" + SUFFIX))
SUITES = [load_tests(path) for path in FILES]
CASES = [
    pytest.param(suite.ruleset, timeline, id=f"{suite.path.name}: {timeline.name}")
    for suite in SUITES
    for timeline in suite.timelines
]
MOST_CRASHES = 25
"""Of one test: evenly spread over its moments."""


@pytest.mark.parametrize(("ruleset", "timeline"), CASES)
def test_it_passes(ruleset, timeline):
    """What people start from does what its own tests say."""
    failure = play(timeline, ruleset).failure
    assert failure is None, f"{failure.place}: {failure.message}"


def test_every_rule_file_that_ships_has_tests_that_look_at_every_rule():
    """An example that nobody tests teaches not to."""
    beside = {path.name.removesuffix(SUFFIX) for path in FILES}
    assert beside == {path.stem for path in SHIPPED.glob("*.yaml") if not path.name.endswith(SUFFIX)}
    for suite in SUITES:
        decided = {each.rule for timeline in suite.timelines for each in play(timeline, suite.ruleset).decisions}
        assert decided == set(suite.ruleset.fingerprints), suite.path.name


@pytest.mark.parametrize("crash", [True, False])
@pytest.mark.parametrize(("ruleset", "timeline"), CASES)
def test_a_restart_anywhere_changes_no_decision(ruleset, timeline, crash):
    """State is a function of the log: what a crash or a restart leaves is what continuous running leaves (L12)."""
    alive = [moment for moment in timeline.moments if not isinstance(moment.what, Expect | ExpectStart | ExpectState)]
    alive.append(Moment(timeline.moments[-1].at_ns, timeline.place, Silence(0)))
    untouched = play(replace(timeline, moments=tuple(alive)), ruleset)
    assert untouched.failure is None
    for place in range(0, len(alive), len(alive) // MOST_CRASHES + 1):
        if isinstance(alive[place].what, Restart):
            continue  # the gateway is away
        restart = Moment(alive[place].at_ns, timeline.place, Restart(0, crash=crash))
        moments = (*alive[: place + 1], restart, restart, *alive[place + 1 :])
        verdict = play(replace(timeline, moments=moments), ruleset)
        assert verdict.failure is None, verdict.failure.message
        assert list(map(told, verdict.decisions)) == list(map(told, untouched.decisions)), place


def told(decision):
    """A decision without what a start changes: numbers of records, and which telling of a command nobody confirmed."""
    name = "otherwise" if "/otherwise/" in decision.id else decision.id
    return msgspec.structs.replace(decision, id=name, cause_seq=None)

"""Schedules in the engine: the wall clock is what records say it is."""

from __future__ import annotations

import pytest

from gateway.model import Batch, Kind, Stamp
from gateway.rules.engine import Engine

SECOND = 10**9
MORNING = 1_795_500_000  # 2026-11-24 06:00:00 UTC
RULES = """
rules:
  - id: wake
    on: {at: "06:30"}
    then: [{notify: {to: x, text: wake}}]
  - id: pulse
    on: {every: 10m}
    then: [{notify: {to: x, text: pulse}}]
"""


class Clocks:
    """An engine, and records that tell it nothing but the time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.said: list[tuple[int, str]] = []

    def record(self, elapsed_s: int, wall_s: int, *, synced: bool = True) -> None:
        """A record, stamped."""
        stamp = Stamp(wall_s * SECOND, 0, elapsed_s * SECOND, bytes(16), synced)
        self._keep(self.engine.run(Batch(Kind.EVENTS, stamp, ["x"], [0], [1], [b""], [{}])))

    def tick(self, elapsed_s: int) -> None:
        """Time passes."""
        self._keep(self.engine.tick(elapsed_s * SECOND))

    def _keep(self, decisions) -> None:
        self.said += [(decision.elapsed_ns // SECOND, decision.rule) for decision in decisions]

    def woke(self) -> list[int]:
        """When `wake` fired, on the log's clock."""
        return [at_s for at_s, rule in self.said if rule == "wake"]


@pytest.fixture
def clocks(load):
    """From six in the morning on, at 100 s of the log's clock."""
    found = Clocks(Engine(load(RULES)))
    found.record(100, MORNING)
    return found


def test_a_time_of_day_is_due_between_records(clocks):
    """Half past six is 1,800 s after six, with or without events."""
    clocks.tick(100 + 1_799)
    assert clocks.woke() == []
    clocks.tick(100 + 86_400 + 1_800)
    assert clocks.woke() == [100 + 1_800, 100 + 86_400 + 1_800]


@pytest.mark.parametrize("jump_s", [3_600, 86_400 * 365, 20 * 86_400 * 365])
def test_a_jump_forward_fires_nothing_and_is_followed(clocks, jump_s):
    """Law L11: what it leaps over is not made up for."""
    clocks.record(200, MORNING + 100 + jump_s)
    assert clocks.woke() == []
    clocks.tick(200 + 86_400)
    assert len(clocks.woke()) == 1


def test_a_jump_back_lets_a_time_come_again(clocks):
    """The clock on the wall says half past six a second time."""
    clocks.tick(1_950)
    clocks.record(2_000, MORNING + 1_900 - 3_600)
    clocks.tick(2_000 + 3_500)
    assert clocks.woke() == [1_900, 2_000 + 3_500]


def test_a_clock_that_is_not_synchronised_moves_no_schedule(load):
    """T2: nothing is due at 1970, and nothing is made up for when the time is known."""
    clocks = Clocks(Engine(load(RULES)))
    clocks.record(10, 0, synced=False)
    clocks.tick(86_400)
    assert clocks.woke() == []
    clocks.record(86_500, MORNING)
    clocks.tick(86_500 + 1_800)
    assert clocks.woke() == [86_500 + 1_800]


def test_a_period_counts_on_the_clock_of_the_log(clocks):
    """Law L11: no wall clock comes near it."""
    clocks.record(700, MORNING + 9_999_999)
    clocks.tick(1_900)
    assert [at_s for at_s, rule in clocks.said if rule == "pulse"] == [600, 1_200, 1_800]


def test_a_restart_between_two_times_changes_nothing(clocks, load):
    """Law L12: what was planned is state."""
    clocks.tick(500)
    engine = Engine(load(RULES))
    assert engine.restore(clocks.engine.snapshot()) == []
    clocks.engine = engine
    clocks.tick(100 + 1_800)
    assert clocks.woke() == [1_900]

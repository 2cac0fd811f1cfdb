"""The thermostat's one function: a table of situations, and an independent model that agrees with it throughout."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from gateway.rules.thermostat import COOL, HEAT, OFF, Limits, State, decide

S = 1_000_000_000

HEATING = Limits(
    stale_after_ns=60 * S,
    on_stale=OFF,
    heat_on_below=20.0,
    heat_off_above=22.0,
    min_on_ns=10 * S,
    min_off_ns=10 * S,
    max_on_ns=50 * S,
    reassert_ns=1_000 * S,
)
COOLING = HEATING._replace(heat_on_below=None, heat_off_above=None, cool_on_above=26.0, cool_off_below=24.0)
BOTH = HEATING._replace(cool_on_above=26.0, cool_off_below=24.0)

TABLE = [
    # what, limits, (running, since_s, reading, read_s), reading now, now_s, command
    ("the first call is off, even when cold", HEATING, (None, 0, None, 0), 5.0, 0, OFF),
    ("the first call is off without a reading", HEATING, (None, 0, None, 0), None, 0, OFF),
    ("cold and rested: heat", HEATING, (OFF, 0, 21.0, 0), 19.9, 10, HEAT),
    ("cold, not rested: wait", HEATING, (OFF, 0, 21.0, 0), 19.9, 9.9, None),
    ("the wait is over: heat without a new reading", HEATING, (OFF, 0, 19.9, 5), None, 10, HEAT),
    ("exactly at the threshold: nothing", HEATING, (OFF, 0, 21.0, 0), 20.0, 20, None),
    ("between the thresholds, off stays off", HEATING, (OFF, 0, 19.0, 0), 21.0, 20, None),
    ("between the thresholds, on stays on", HEATING, (HEAT, 0, 19.0, 0), 21.0, 20, None),
    ("warm, run long enough: off", HEATING, (HEAT, 0, 19.0, 0), 22.1, 10, OFF),
    ("warm, not run long enough: wait", HEATING, (HEAT, 0, 19.0, 0), 22.1, 9, None),
    ("silent: off", HEATING, (HEAT, 30, 19.0, 0), None, 60, OFF),
    ("silent within min_on: off all the same", HEATING, (HEAT, 55, 19.0, 0), None, 60, OFF),
    ("almost silent: stay", HEATING, (HEAT, 30, 19.0, 0), None, 59.9, None),
    ("max_on, though cold: off", HEATING, (HEAT, 0, 19.0, 45), 15.0, 50, OFF),
    ("max_on within min_on: off", HEATING._replace(min_on_ns=99 * S), (HEAT, 0, 19.0, 45), 15.0, 50, OFF),
    ("silent, told to hold: stay", HEATING._replace(on_stale="hold"), (HEAT, 30, 19.0, 0), None, 61, None),
    ("silent, told to hold, max_on: off", HEATING._replace(on_stale="hold"), (HEAT, 0, 19.0, 0), None, 61, OFF),
    ("silent, told on: heat", HEATING._replace(on_stale="on"), (OFF, 0, 21.0, 0), None, 60, HEAT),
    ("silent, told on, not rested: wait", HEATING._replace(on_stale="on"), (OFF, 55, 21.0, 0), None, 60, None),
    ("silent, told on, cooling: cool", COOLING._replace(on_stale="on"), (OFF, 0, 21.0, 0), None, 60, COOL),
    ("hot: cool", COOLING, (OFF, 0, 25.0, 0), 26.1, 20, COOL),
    ("cooled: off", COOLING, (COOL, 0, 27.0, 0), 23.9, 20, OFF),
    ("from heat to cool by way of off", BOTH, (HEAT, 0, 19.0, 0), 30.0, 20, OFF),
    ("and then, rested, cool", BOTH, (OFF, 20, 30.0, 20), None, 30, COOL),
    ("from cool to heat by way of off", BOTH, (COOL, 0, 30.0, 0), 10.0, 20, OFF),
    ("both, comfortable: nothing", BOTH, (OFF, 0, 23.0, 0), 23.0, 20, None),
    ("said again after reassert", HEATING._replace(reassert_ns=20 * S), (OFF, 0, 21.0, 0), None, 20, OFF),
]


@pytest.mark.parametrize(
    ("what", "limits", "before", "reading", "now_s", "command"), TABLE, ids=[row[0] for row in TABLE]
)
def test_thermostat(what, limits, before, reading, now_s, command):
    """Each row: one situation and what it calls for."""
    running, since_s, last, read_s = before
    state = State(running, since_s * S, since_s * S, last, read_s * S)
    verdict = decide(limits, state, reading, round(now_s * S))
    assert verdict.command == command
    assert verdict.deadline_ns > now_s * S
    assert bool(verdict.because) == (command is not None)


class Model:
    """A thermostat as one would write it without deadlines: looked at every second, whatever happens."""

    def __init__(self, limits):
        self.limits = limits
        self.mode, self.changed, self.said = None, 0, 0
        self.value, self.heard = None, -math.inf

    def look(self, second, reading):
        if reading is not None:
            self.value, self.heard = reading, second
        wish, urgent = self._wish(second)
        if self.mode is None:
            return self._say(second, OFF)
        age = second - self.changed
        if wish != self.mode:
            if self.mode == OFF and age >= self.limits.min_off_ns / S:
                return self._say(second, wish)
            if self.mode != OFF and (urgent or age >= self.limits.min_on_ns / S):
                return self._say(second, OFF)
        if second - self.said >= self.limits.reassert_ns / S:
            self.said = second
            return self.mode
        return None

    def _say(self, second, mode):
        self.mode, self.changed, self.said = mode, second, second
        return mode

    def _wish(self, second):
        lim = self.limits
        if self.mode in {HEAT, COOL} and lim.max_on_ns and second - self.changed >= lim.max_on_ns / S:
            return OFF, True
        if second - self.heard >= lim.stale_after_ns / S:
            if lim.on_stale == "hold":
                return self.mode, False
            return (OFF, True) if lim.on_stale == OFF else (HEAT if lim.heat_on_below else COOL, False)
        heats, cools = lim.heat_on_below is not None, lim.cool_on_above is not None
        if heats and (self.value < lim.heat_on_below or (self.mode == HEAT and self.value <= lim.heat_off_above)):
            return HEAT, False
        if cools and (self.value > lim.cool_on_above or (self.mode == COOL and self.value >= lim.cool_off_below)):
            return COOL, False
        return OFF, False


def _random_limits(rng):
    limits = rng.choice([HEATING, COOLING, BOTH])
    stale = ["off", "hold"] if limits is BOTH else ["off", "hold", "on"]
    return limits._replace(
        stale_after_ns=rng.randrange(1, 20) * S,
        on_stale=rng.choice(stale),
        min_on_ns=rng.randrange(10) * S,
        min_off_ns=rng.randrange(1, 10) * S,
        max_on_ns=rng.choice([None, rng.randrange(1, 30) * S]),
        reassert_ns=rng.choice([7, 25, 1_000]) * S,
    )


def _random_sequence(rng, seconds):
    """Readings by second: drifting, jumping, silent, doubled, not a number."""
    value, second = rng.uniform(15, 30), 0
    while second < seconds:
        value = rng.uniform(10, 35) if rng.random() < 0.2 else value + rng.uniform(-2, 2)
        yield second, None if rng.random() < 0.1 else value
        second += rng.choice([0, 1, 1, 2, 3, 5, rng.randrange(40)])


def test_twenty_thousand_random_lives_agree_with_the_model(seed):
    """Woken only at its deadlines and by readings, it says what a model says that is looked at every second (R1)."""
    rng = random.Random(seed)
    for _ in range(20_000):
        limits = _random_limits(rng)
        model, state, due_ns = Model(limits), State(), 10**30
        said, modelled, second = [], [], 0
        for at, reading in _random_sequence(rng, 60):
            while second < at:  # the model looks at every second, readings or not
                second += 1
                modelled.append((second, model.look(second, None) if model.mode is not None else None))
            modelled.append((at, model.look(at, reading)))
            while due_ns <= at * S:
                fired_ns = due_ns
                state, command, _, due_ns = decide(limits, state, None, fired_ns)
                said.append((fired_ns // S, command))
            state, command, _, due_ns = decide(limits, state, reading, at * S)
            said.append((at, command))
        assert [entry for entry in said if entry[1]] == [entry for entry in modelled if entry[1]], limits


def test_safety_holds_for_every_random_life(seed):
    """Never on longer than max_on (R3), never on a silent sensor (R2), never faster than min_on and min_off (R1)."""
    rng = random.Random(seed)
    for _ in range(1_000):
        limits = _random_limits(rng)._replace(reassert_ns=10**15)
        state, due_ns, heard, switches = State(), 10**30, None, []
        for at, reading in [*_random_sequence(rng, 120), (10_000, None)]:
            looks = []
            while due_ns <= at * S:
                verdict = decide(limits, state, None, due_ns)
                looks.append((due_ns, verdict))
                state, due_ns = verdict.state, verdict.deadline_ns
            verdict = decide(limits, state, reading, at * S)
            looks.append((at * S, verdict))
            state, due_ns = verdict.state, verdict.deadline_ns
            for now_ns, look in looks:
                fresh = at * S if reading is not None and look is verdict else heard
                if look.command in {HEAT, COOL} and limits.on_stale != "on":
                    assert fresh is not None
                    assert now_ns - fresh < limits.stale_after_ns
                if look.command:
                    switches.append((now_ns, look.command, look.because))
            heard = at * S if reading is not None else heard
        for (began, one, _), (ended, other, why) in pairwise(switches):
            if one == OFF:
                assert ended - began >= limits.min_off_ns
            else:
                assert other == OFF
                assert limits.max_on_ns is None or ended - began <= limits.max_on_ns
                assert ended - began >= limits.min_on_ns or "max_on" in why or "silent" in why
        if limits.on_stale == OFF:
            assert state.running == OFF, "ten thousand seconds of silence"


def test_no_bad_reading_breaks_a_silence():
    """A sensor that only sends NaN is a silent sensor: `decide` is called without a reading."""
    state = decide(HEATING, State(OFF, 0, 0, 19.0, 50 * S), None, 20 * S).state
    assert state.read_ns == 50 * S

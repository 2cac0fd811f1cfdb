"""What the interlock holds an actuator to over time, whatever is proposed to it and whatever the device answers."""

from __future__ import annotations

import random

import pytest

from gateway.act.interlock import REPEAT_S, Allow, Deny, Interlock
from gateway.model import ActuatorLimits, Command, Expect, Notify

S = 1_000_000_000
HEATER = "devices/a/heater/set"
TELL = (Notify("oncall", "it does not answer"),)
ANSWER = Expect("devices/a/heater/state", "value == wanted", 5.0, 3)
ON = Command(HEATER, b"ON", "on")
OFF = Command(HEATER, b"OFF", "off", ANSWER, TELL)
BARE_OFF = Command(HEATER, b"OFF", "off", ANSWER)
MAX_ON_S = 3_600

CAPPED = {
    "off when safe": ActuatorLimits(max_on_s=MAX_ON_S, safe=OFF, off=OFF),
    "held when safe": ActuatorLimits(max_on_s=MAX_ON_S, safe=None, off=OFF),
    "on when safe": ActuatorLimits(max_on_s=MAX_ON_S, safe=ON, off=OFF),
    "only a safe command known": ActuatorLimits(max_on_s=MAX_ON_S, safe=OFF),
}


@pytest.mark.parametrize("limits", CAPPED.values(), ids=CAPPED)
def test_the_cap_switches_off_whatever_the_safe_state_is(limits):
    """Law L10: `on_stale: on` and `hold` say what silence means; they do not lift `max_on`."""
    gate = Interlock({HEATER: limits}, max_age_s=60)
    gate.note(ON, 10 * S)
    assert gate.tick((10 + MAX_ON_S) * S - 1) == []
    assert gate.tick((10 + MAX_ON_S) * S) == [OFF]


@pytest.mark.parametrize("limits", [*CAPPED.values(), ActuatorLimits(max_on_s=1), ActuatorLimits(max_on_s=1, safe=ON)])
def test_after_a_tick_the_deadline_lies_ahead(limits):
    """Whoever waits for the deadline never spins, even where there is nothing that could be sent."""
    gate = Interlock({HEATER: limits}, max_age_s=60)
    gate.note(ON, 0)
    for now_s in (0, MAX_ON_S, MAX_ON_S + 1, 2 * MAX_ON_S, 9 * MAX_ON_S):
        gate.tick(now_s * S)
        assert gate.deadline_ns is None or gate.deadline_ns > now_s * S


def test_what_nobody_has_commanded_counts_as_on_from_the_first_look():
    """A heater left on by an earlier life is switched off within `max_on` of this one."""
    gate = Interlock({HEATER: CAPPED["held when safe"]}, max_age_s=60)
    assert gate.tick(100 * S) == []
    assert gate.deadline_ns == (100 + MAX_ON_S) * S
    assert isinstance(gate.judge(BARE_OFF, 200 * S, 200 * S), Allow)
    assert gate.tick((100 + MAX_ON_S) * S) == [OFF]


def test_an_actuator_past_its_cap_is_told_again_until_it_is_off_and_people_once():
    """Level-triggered: one lost message is not the end of it, and nobody is woken every minute."""
    gate = Interlock({HEATER: CAPPED["off when safe"]}, max_age_s=60)
    gate.note(ON, 0)
    told = []
    for second in range(MAX_ON_S, MAX_ON_S + 200):
        told += [(second - MAX_ON_S, command) for command in gate.tick(second * S)]
    assert told == [(0, OFF), (REPEAT_S, BARE_OFF), (2 * REPEAT_S, BARE_OFF), (3 * REPEAT_S, BARE_OFF)]
    gate.note(BARE_OFF, (MAX_ON_S + 200) * S)
    assert gate.deadline_ns is None


def test_an_off_that_was_never_confirmed_leaves_the_cap_running():
    """Never optimistic: what was told to go off and did not answer has been on all the time."""
    gate = Interlock({HEATER: CAPPED["off when safe"]}, max_age_s=60)
    gate.note(ON, 0)
    gate.note(OFF, 1_000 * S)
    assert gate.deadline_ns is None
    gate.doubt(OFF)
    assert gate.deadline_ns == MAX_ON_S * S
    assert gate.tick(MAX_ON_S * S) == [OFF]
    gate.note(OFF, MAX_ON_S * S)
    gate.doubt(OFF)
    assert gate.deadline_ns == (MAX_ON_S + REPEAT_S) * S
    assert isinstance(gate.judge(ON, MAX_ON_S * S, MAX_ON_S * S), Deny)


def test_an_on_that_was_never_confirmed_changes_nothing():
    """It counts as on either way."""
    gate = Interlock({HEATER: CAPPED["off when safe"]}, max_age_s=60)
    gate.note(ON, 0)
    gate.doubt(ON)
    assert gate.deadline_ns == MAX_ON_S * S


def test_the_rest_is_counted_from_the_first_off_confirmed_or_not():
    """A compressor that may have stopped is not started again at once."""
    gate = Interlock({HEATER: ActuatorLimits(min_off_s=180)}, max_age_s=60)
    gate.note(ON, 0)
    gate.note(OFF, 100 * S)
    gate.doubt(OFF)
    gate.note(OFF, 200 * S)
    assert isinstance(gate.judge(ON, 279 * S, 279 * S), Deny)
    assert isinstance(gate.judge(ON, 280 * S, 280 * S), Allow)


def test_saying_on_again_does_not_extend_the_cap():
    """A rule that repeats itself gains no time by it."""
    gate = Interlock({HEATER: CAPPED["off when safe"]}, max_age_s=60)
    for second in range(0, MAX_ON_S, 60):
        gate.note(ON, second * S)
    assert gate.deadline_ns == MAX_ON_S * S


def test_a_denial_says_what_stands_in_the_way():
    """Whoever asks why a command did not go out reads both times."""
    gate = Interlock({HEATER: ActuatorLimits(min_off_s=180)}, max_age_s=60)
    gate.note(OFF, 0)
    assert gate.judge(ON, 60 * S, 60 * S) == Deny("off for 60 s, min_off is 180 s")


def test_random_proposals_never_break_a_limit(seed):
    """R3: no proposals, however mad, keep a relay on past its cap or start it before its rest."""
    rng = random.Random(seed)
    for _ in range(200):
        limits = ActuatorLimits(min_off_s=rng.choice([0, 30, 180]), max_on_s=rng.choice([60, 600]), off=OFF)
        gate = Interlock({HEATER: limits}, max_age_s=60)
        relay, since_s, now_s = "off", -1e9, 0
        for _ in range(300):
            now_s += rng.choice([1, 1, 5, 20])
            commands = gate.tick(now_s * S)
            proposal = rng.choice([ON, ON, ON, OFF, None])
            if proposal is not None and isinstance(gate.judge(proposal, now_s * S, now_s * S), Allow):
                commands.append(proposal)
            for command in commands:
                if command.state == relay:
                    gate.note(command, now_s * S)
                    continue
                if command.state == "on":
                    assert now_s - since_s >= limits.min_off_s
                gate.note(command, now_s * S)
                relay, since_s = command.state, now_s
            assert relay == "off" or now_s - since_s < limits.max_on_s + 20

"""The interlock as a table, and a command's life, in virtual time."""

from __future__ import annotations

import random

import pytest

from gateway.act.interlock import RATE_PER_MINUTE, Allow, Deny, Expired, Interlock
from gateway.act.outbox import Ended, Outbox, Send
from gateway.model import ActuatorLimits, Command, Decision, Expect, Notify

S = 1_000_000_000
HEATER = "devices/a/heater/set"
ON = Command(HEATER, b'{"state":"ON"}', "on")
OFF = Command(HEATER, b'{"state":"OFF"}', "off")
LIMITS = {HEATER: ActuatorLimits(min_on_s=180, min_off_s=180, max_on_s=3_600, safe=OFF)}


def gate(*sent: tuple[Command, float]) -> Interlock:
    """An interlock that has let these commands through at these seconds."""
    found = Interlock(LIMITS, max_age_s=60)
    for command, at_s in sent:
        found.note(command, int(at_s * S))
    return found


@pytest.mark.parametrize(
    ("sent", "command", "decided_s", "now_s", "verdict"),
    [
        ((), ON, 100, 100, Allow),
        ((), OFF, 100, 100, Allow),
        (((ON, 0),), OFF, 1, 1, Allow),  # off is the safe direction, min_on or not
        (((OFF, 0),), ON, 179, 179, Deny),
        (((OFF, 0),), ON, 180, 180, Allow),
        (((ON, 0),), ON, 100, 100, Allow),  # said again, not switched again
        (((ON, 0),), ON, 3_600, 3_600, Deny),
        (((ON, 0),), OFF, 9_999, 9_999, Allow),
        ((), ON, 0, 60, Allow),
        ((), ON, 0, 60.001, Expired),
        ((), OFF, 0, 3_600, Expired),  # history moves nothing, not even off
        (((OFF, 0),), Command("devices/b/heater/set", b"{}", "on"), 1, 1, Allow),  # another actuator's business
    ],
)
def test_the_gate_decides_by_the_table(sent, command, decided_s, now_s, verdict):
    """Law: the interlock holds whatever rules propose, and `off` is always allowed."""
    assert isinstance(gate(*sent).judge(command, int(decided_s * S), int(now_s * S)), verdict)


def test_more_than_twenty_commands_a_minute_are_a_loop_and_off_is_exempt():
    """Law: a flood is cut; the safe direction is not."""
    found = gate(*((Command(HEATER, b"{}", None), second) for second in range(RATE_PER_MINUTE)))
    assert isinstance(found.judge(Command(HEATER, b"{}", None), 30 * S, 30 * S), Deny)
    assert isinstance(found.judge(OFF, 30 * S, 30 * S), Allow)
    assert isinstance(found.judge(Command(HEATER, b"{}", None), 61 * S, 61 * S), Allow)


def test_an_actuator_that_is_on_for_too_long_is_switched_off_whatever_rules_say():
    """Law L10: max_on is a hard cap, with a deadline of its own."""
    found = gate((ON, 10))
    assert found.deadline_ns == 3_610 * S
    assert found.tick(3_609 * S) == []
    assert found.tick(3_610 * S) == [OFF]
    found.note(OFF, 3_610 * S)
    assert found.deadline_ns is None


def decision(number: int, command: Command) -> Decision:
    return Decision(f"r//{number}/0", "r", "", command, 0, None, "")


def expecting(state: str, retries: int = 3) -> Command:
    otherwise = (Notify("oncall", "it does not answer"),)
    expect = Expect("devices/a/heater/state", "state == wanted.state", 5.0, retries)
    return Command(HEATER, b'{"state":"%s"}' % state.encode(), state.lower(), expect, otherwise)


def outbox() -> Outbox:
    return Outbox(lambda where, value, wanted: value.get("state") == wanted["state"])


def states(effects) -> list[str]:
    return [effect.outcome.state if isinstance(effect, Ended) else f"try {effect.attempt}" for effect in effects]


def test_a_command_ends_when_the_device_says_so():
    """Law: never optimistic; a report of another state, or on another topic, confirms nothing."""
    box = outbox()
    assert states(box.start(decision(1, expecting("ON")), 7, 0)) == ["try 1"]
    assert box.oldest_seq == 7
    assert box.observe("devices/a/heater/state", {"state": "OFF"}, S) == []
    assert box.observe("devices/b/heater/state", {"state": "ON"}, S) == []
    assert states(box.observe("devices/a/heater/state", {"state": "ON"}, S)) == ["confirmed"]
    assert (box.oldest_seq, box.deadline_ns, box.expected) == (None, None, {})


def test_a_command_without_an_answer_is_tried_again_and_then_given_up():
    """Law: one try and three more, five seconds each; then what was to be done otherwise."""
    box = outbox()
    box.start(decision(1, expecting("ON")), 7, 0)
    seen = []
    for second in range(30):
        effects = box.tick(second * S)
        seen += [(second, state) for state in states(effects)]
    assert seen == [(5, "try 2"), (10, "try 3"), (15, "try 4"), (20, "unconfirmed")]
    assert box.deadline_ns is None


def test_a_newer_command_ends_the_wait_for_the_older_one():
    """Law: nobody retries what is no longer wanted."""
    box = outbox()
    box.start(decision(1, expecting("ON")), 7, 0)
    assert states(box.start(decision(2, expecting("OFF")), 8, S)) == ["superseded", "try 1"]
    assert box.observe("devices/a/heater/state", {"state": "ON"}, 2 * S) == []
    assert states(box.observe("devices/a/heater/state", {"state": "OFF"}, 2 * S)) == ["confirmed"]


def test_with_a_third_of_everything_lost_the_device_ends_up_right_or_somebody_is_told(seed):
    """Law: 1,000 commands, 30 % loss each way: confirmed means done; what is not done is told, never silence."""
    rng = random.Random(seed)
    told = 0
    for number in range(1_000):
        box, device, wanted = outbox(), "OFF", rng.choice(["ON", "OFF"])
        effects = box.start(decision(number, expecting(wanted)), number, 0)
        ended = None
        for second in range(30):
            for effect in effects:
                if isinstance(effect, Ended):
                    ended = effect
                elif isinstance(effect, Send) and rng.random() > 0.3:
                    device = wanted
            reports = [] if rng.random() < 0.3 else box.observe("devices/a/heater/state", {"state": device}, second * S)
            for effect in reports:
                ended = effect
            effects = box.tick(second * S)
        assert ended is not None
        if ended.outcome.state == "confirmed":
            assert device == wanted
        else:
            told += 1
            assert ended.otherwise
    print(f"{told} of 1,000 given up")
    assert told < 50

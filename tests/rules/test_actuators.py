"""What the interlock is told of actuators, also of those that only a pattern names."""

from __future__ import annotations

import pytest

from gateway.act.interlock import Allow, Deny, Interlock
from gateway.model import Command

SECOND = 10**9
FAN = """
rules:
  - id: fan
    on: devices/{device}/climate
    when: humidity > 70
    until: humidity < 60
    stale_after: 10m
    on_stale: "off"
    then: [{command: {topic: "devices/{device}/fan/set", payload: "ON", state: "on", max_on: 10m, min_off: 30s}}]
    finally: [{command: {topic: "devices/{device}/fan/set", payload: {fan: "{device}", state: "OFF"}, state: "off"}}]
"""


def on(topic: str) -> Command:
    """What a rule sends."""
    return Command(topic, b"ON", "on")


def test_an_actuator_of_a_pattern_has_limits_and_a_safe_command(load):
    """Law L10: what switches it off is known without an event, from the levels of its topic."""
    actuators = load(FAN).actuators
    limits = actuators["devices/a/fan/set"]
    assert (limits.min_off_s, limits.max_on_s) == (30, 600)
    assert limits.safe == Command("devices/a/fan/set", b'{"fan":"a","state":"OFF"}', "off")
    assert actuators.get("devices/a/pump/set") is None
    assert list(actuators) == []


def test_a_payload_that_an_event_decides_is_no_safe_command(load):
    """It could not be sent before there is an event."""
    assert load(FAN.replace('fan: "{device}"', 'at: "{humidity}"')).actuators["devices/a/fan/set"].safe is None


def test_the_stricter_limit_of_two_rules_holds(load):
    """Whoever is careful decides."""
    other = FAN.replace("rules:\n", "").replace("id: fan", "id: calm").replace("10m, min_off: 30s", "20m, min_off: 2m")
    limits = load(FAN + other).actuators["devices/a/fan/set"]
    assert (limits.min_off_s, limits.max_on_s) == (120, 600)


def test_a_rule_on_trial_binds_no_actuator(load):
    """Nobody acts on it."""
    assert load(FAN + "    shadow: true\n").actuators.get("devices/a/fan/set") is None


def test_the_interlock_holds_actuators_of_a_pattern_to_their_limits(load):
    """R3: `max_on` holds whatever rules say, and `min_off`, for each by itself; all are made safe in the end."""
    lock = Interlock(load(FAN).actuators, 60.0)
    lock.tick(0)
    a, b = on("devices/a/fan/set"), on("devices/b/fan/set")
    off = load(FAN).actuators["devices/a/fan/set"].safe
    assert lock.judge(a, 0, 0) == Allow()
    lock.note(off, 0)
    lock.note(a, 40 * SECOND)
    lock.note(b, 300 * SECOND)
    assert lock.deadline_ns == 640 * SECOND
    assert lock.tick(640 * SECOND) == [off]
    lock.note(off, 640 * SECOND, for_cap=True)
    assert isinstance(lock.judge(a, 650 * SECOND, 650 * SECOND), Deny)
    assert lock.judge(b, 650 * SECOND, 650 * SECOND) == Allow()
    assert [command.topic for command in lock.safe_commands()] == ["devices/a/fan/set", "devices/b/fan/set"]


@pytest.mark.parametrize("line", ["max_on: 0s", "max_on: 1s, min_on: 2s"])
def test_limits_that_make_no_sense_are_told(problems, line):
    """Each at its place."""
    assert any("`max_on`" in found for found in problems(FAN.replace("max_on: 10m", line)))


def test_limits_need_a_state(problems):
    """Nobody knows which of an actuator's states is on."""
    source = FAN.replace('payload: "ON", state: "on"', 'payload: "ON"')
    assert any("`min_off` needs a `state`" in found or "`max_on`" in found for found in problems(source))

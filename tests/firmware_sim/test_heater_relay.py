"""A room's relay: takes commands, confirms them, and looks after itself."""

from __future__ import annotations

import pytest

from firmware_sim import Faults, Span, World
from firmware_sim.catalogue import Habits
from firmware_sim.room import STATE_INTERVAL_S

SET = "devices/greenhouse/heater/set"
ON, OFF = b'{"state":"ON"}', b'{"state":"OFF"}'


def _states(messages, *causes: str) -> list[tuple[str, str]]:
    found = [(m.fields["state"], m.fields["cause"]) for m in messages if m.topic == "devices/greenhouse/heater/state"]
    return [pair for pair in found if not causes or pair[1] in causes]


def test_command_moves_the_relay_after_a_delay_and_is_confirmed_by_what_it_did():
    """Law: the confirmation tells the state that the relay has, not the one that was asked for."""
    world = World(7, 1)
    world.advance(5.0)
    assert world.command(SET, ON) == []
    assert not world.room().heater_on
    assert _states(world.advance(0.19), "command") == []
    assert _states(world.advance(0.45), "command") == [("ON", "command")]
    assert world.room().heater_on
    world.command(SET, OFF)
    assert _states(world.advance(1.0), "command") == [("OFF", "command")]
    assert not world.room().heater_on


def test_repeated_command_is_confirmed_again_and_moves_nothing():
    """Law: a retry after a lost confirmation gets its answer."""
    world = World(7, 1)
    for _ in range(3):
        world.command(SET, ON)
        assert _states(world.advance(1.0), "command") == [("ON", "command")]
    assert world.room().switches == 1


def test_the_last_of_several_commands_wins():
    """Law: a relay that has not moved yet follows the newest command, once."""
    world = World(7, 1)
    world.command(SET, ON)
    world.command(SET, OFF)
    assert _states(world.advance(1.0), "command") == [("OFF", "command")]
    assert world.room().switches == 0


def test_state_is_reported_every_minute_and_on_connecting():
    """Law: who missed a change learns the state within a minute."""
    world = World(7, 1)
    reports = _states(world.advance(10 * STATE_INTERVAL_S), "report")
    assert len(reports) in (10, 11)
    assert _states(world.hello("greenhouse")) == [("OFF", "connected")]


def test_relay_with_a_pulse_timeout_drops_by_itself_unless_on_is_repeated():
    """Law: the heater goes off so long after the last ON, even if nobody is left to say so."""
    world = World(7, 1, habits=Habits(pulse_timeout_s=600.0))
    world.command(SET, ON)
    world.advance(500.0)
    world.command(SET, ON)
    assert _states(world.advance(599.0), "timeout") == []
    assert _states(world.advance(2.0), "timeout") == [("OFF", "timeout")]
    assert not world.room().heater_on
    assert _states(world.advance(3_600.0), "timeout") == []


def test_off_cancels_the_pulse_timeout():
    """Law: a relay that was switched off has nothing to drop."""
    world = World(7, 1, habits=Habits(pulse_timeout_s=600.0))
    world.command(SET, ON)
    world.advance(10.0)
    world.command(SET, OFF)
    assert _states(world.advance(3_600.0), "timeout") == []


def test_pulse_timeout_shorter_than_the_relays_delay_leaves_it_off():
    """Law: a late ON never outlives its own timeout."""
    world = World(7, 1, habits=Habits(pulse_timeout_s=0.1))
    world.command(SET, ON)
    world.advance(60.0)
    assert not world.room().heater_on


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (SET, b"ON"),
        (SET, b""),
        (SET, b"\xff\xfe"),
        (SET, b"[]"),
        (SET, b'{"state":"on"}'),
        (SET, b'{"state":true}'),
        (SET, b'{"state":["ON"]}'),
        ("devices/greenhouse/lamp/set", ON),
        ("devices/greenhouse/heater/state", ON),
    ],
)
def test_command_that_is_not_understood_is_counted_and_changes_nothing(topic, payload):
    """Law: bad input from the network is neither obeyed nor fatal."""
    world = World(7, 1)
    assert world.command(topic, payload) == []
    assert _states(world.advance(30.0), "command") == []
    assert (world.room().commands, world.room().commands_rejected) == (0, 1)


@pytest.mark.parametrize("topic", ["devices/nobody/heater/set", "greenhouse/heater/set", "", "devices/freezer/x/set"])
def test_command_to_nobody_or_to_a_sensor_is_ignored(topic):
    """Law: only devices with an actuator obey."""
    world = World(7, 3)
    assert world.command(topic, ON) == []
    assert _states(world.advance(30.0), "command") == []


def test_deaf_device_ignores_commands_while_it_is_deaf():
    """Law: `deaf` eats commands within its span, counts them, and lets later ones through."""
    world = World(7, 1, faults=Faults(deaf=(Span("greenhouse", 10.0, 20.0),)))
    world.advance(15.0)
    world.command(SET, ON)
    assert _states(world.advance(4.0), "command") == []
    world.advance_to(20.0)
    world.command(SET, ON)
    assert _states(world.advance(1.0), "command") == [("ON", "command")]
    assert world.fault_counts == {"deaf": 1}

"""The stream of messages is a function of the seed, the habits and the commands."""

from __future__ import annotations

import hashlib
import json

import pytest

from firmware_sim import Faults, Span, World
from firmware_sim.catalogue import device_names
from firmware_sim.errors import OptionError

HOUR_S = 3_600.0


def _digest(messages) -> str:
    return hashlib.sha256(b"\n".join(m.topic.encode() + b" " + m.payload for m in messages)).hexdigest()


def test_same_seed_gives_the_same_stream_and_another_seed_another():
    """Law: everything random follows from the seed."""
    first, again, other = (World(seed, 12).advance(6 * HOUR_S) for seed in (7, 7, 8))
    assert _digest(first) == _digest(again)
    assert _digest(first) != _digest(other)


@pytest.mark.parametrize("dt_s", [0.7, 10.0, 61.0, HOUR_S])
def test_how_finely_time_is_advanced_changes_nothing(dt_s):
    """Law: a live fleet and a test that steps by the hour see the same devices."""
    whole = World(7, 8).advance(2 * HOUR_S)
    world = World(7, 8)
    pieces = []
    while world.now_s < 2 * HOUR_S:
        pieces += world.advance_to(min(world.now_s + dt_s, 2 * HOUR_S))
    assert _digest(pieces) == _digest(whole)


def test_stream_is_pinned_to_this_digest():
    """Law: the same on every machine and Python; a changed digest means that every recorded scenario changed."""
    assert _digest(World(7, 8).advance(HOUR_S))[:16] == "2013a2d1001e1b92"


def test_a_device_is_the_same_in_a_larger_fleet():
    """Law: a device's stream depends on its own randomness only."""
    small = World(7, 7).advance(HOUR_S)
    large = [m for m in World(7, 30).advance(HOUR_S) if m.device in device_names(7)]
    assert _digest(small) == _digest(large)


def test_messages_come_in_the_order_of_their_time_and_seq_counts_each_device_without_gaps():
    """Law: seq numbers every message of a device from 1, over all of its topics."""
    world = World(7, 12)
    messages = [m for _ in range(100) for m in world.advance(36.0)]
    assert [m.at_s for m in messages] == sorted(m.at_s for m in messages)
    for name in world.devices:
        seqs = [m.seq for m in messages if m.device == name]
        assert seqs == list(range(1, len(seqs) + 1))


def test_commands_take_effect_at_their_time_and_are_part_of_what_determines_the_stream():
    """Law: the same commands at the same times give the same stream; another time another."""

    def run(command_at_s: float) -> str:
        world = World(7, 2)
        messages = world.advance(command_at_s)
        messages += world.command("devices/greenhouse/heater/set", b'{"state":"ON"}')
        return _digest(messages + world.advance_to(HOUR_S))

    assert run(300.0) == run(300.0)
    assert run(300.0) != run(301.0)


def test_many_commands_leave_the_agenda_no_longer_than_the_devices():
    """Law: the cost of a world does not grow with the commands that it has seen."""
    world = World(7, 3)
    for _ in range(2_000):
        world.command("devices/greenhouse/heater/set", b'{"state":"ON"}')
        world.advance(1.0)
    assert len(world._agenda) <= len(world.devices) + 4


def test_names_and_topics_are_those_that_rules_rely_on():
    """Law: the first four devices have fixed names, the others are numbered by position."""
    assert device_names(8) == [
        "greenhouse",
        "living",
        "freezer",
        "outdoor",
        "climate-05",
        "power-06",
        "door-07",
        "climate-08",
    ]
    topics = {m.topic for m in World(7, 7).advance(3 * HOUR_S)}
    assert topics == {
        "devices/greenhouse/climate",
        "devices/greenhouse/heater/state",
        "devices/greenhouse/door",
        "devices/living/climate",
        "devices/living/heater/state",
        "devices/living/door",
        "devices/freezer/climate",
        "devices/outdoor/climate",
        "devices/climate-05/climate",
        "devices/power-06/power",
        "devices/door-07/door",
    }


def test_payloads_are_json_objects_of_the_documented_shape():
    """Law: every payload carries its values, seq and ts; ts is start plus simulated time."""
    shapes = {}
    for message in World(7, 7).advance(3 * HOUR_S):
        shapes.setdefault(message.channel, set()).add(tuple(sorted(json.loads(message.payload))))
        assert json.loads(message.payload)["ts"] == pytest.approx(1_767_247_200.0 + message.at_s, abs=1e-3)
    assert shapes == {
        "climate": {("humidity", "seq", "temperature", "ts"), ("humidity", "pressure", "seq", "temperature", "ts")},
        "heater/state": {("cause", "seq", "state", "ts")},
        "door": {("open", "seq", "ts")},
        "power": {("energy_wh", "power_w", "seq", "ts")},
    }


def test_time_never_goes_back():
    """Law: a time that has passed already says nothing and changes nothing."""
    world = World(7, 4)
    world.advance(100.0)
    assert world.advance_to(50.0) == []
    assert world.now_s == 100.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"devices": 0}, "0 devices are too few"),
        ({"sensor_interval_s": 0.0}, "not a positive duration"),
        ({"sensor_interval_s": float("nan")}, "not a positive duration"),
        ({"faults": Faults(silence=(Span("grenhouse"),))}, "there is no device 'grenhouse'"),
    ],
)
def test_senseless_arguments_are_refused_in_a_sentence(arguments, sentence):
    """Law: whoever builds a world wrongly is told what is wrong."""
    with pytest.raises(OptionError, match=sentence):
        World(**{"seed": 7, "devices": 2, **arguments})

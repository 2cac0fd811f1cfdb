"""A rule's life: true, held, over, silent, unknown; per key; and what the clock may not do to it."""

from __future__ import annotations

import json
import math

import pytest

from gateway.model import DERIVED, DUPLICATE, HOPS_SHIFT, REPLAYED, RETAINED, Command, Emit

FREEZER = """
    rules:
      - id: freezer
        on: devices/{device}/climate
        when: t > -15
        for: 10m
        until: t < -17
        stale_after: 5m
        then: [{notify: {to: oncall, text: "{device} warm {t}"}}]
        finally: [{notify: {to: oncall, text: "{device} cold {t}"}}]
"""
TOPIC = "devices/a/climate"


def test_a_condition_fires_once_it_has_held_long_enough(run, texts):
    """Not at 9:59, at 10:00 by the deadline, with the latest reading in the text, and once."""
    line = run(FREEZER)
    for second in range(0, 600, 60):
        assert line.event(second, TOPIC, {"t": -10 + second / 60}) == []
    assert line.engine.deadline_ns == 600 * 10**9
    assert line.tick(599.999) == []
    (decision,) = line.tick(605)
    assert texts([decision]) == ["a warm -1"]
    assert decision.id == "freezer/a/600000000000/0"
    assert decision.elapsed_ns == 600 * 10**9
    assert decision.cause_seq is None
    assert decision.because == "t > -15 for 10 min: t = -1"
    assert line.event(660, TOPIC, {"t": 0}) == []


def test_a_deadline_that_lies_before_an_event_fires_before_it(run, texts):
    """The event at 601 s cannot undo what was due at 600 s, whether or not somebody ticked."""
    line = run(FREEZER)
    line.event(0, TOPIC, {"t": 0})
    line.event(299, TOPIC, {"t": 0})
    line.event(590, TOPIC, {"t": 0})
    assert texts(line.event(601, TOPIC, {"t": -20})) == ["a warm 0", "a cold -20"]
    assert [d.id for d in line.decisions] == ["freezer/a/600000000000/0", "freezer/a/601000000000/0"]
    assert [d.cause_seq for d in line.decisions] == [None, 3]


def test_a_false_reading_starts_the_hold_anew(run):
    """`for` means held without a break."""
    line = run(FREEZER)
    line.event(0, TOPIC, {"t": 0})
    line.event(300, TOPIC, {"t": -16})
    line.event(310, TOPIC, {"t": 0})
    for second in range(500, 900, 100):
        line.event(second, TOPIC, {"t": 0})
    assert line.tick(909) == []
    assert len(line.tick(910)) == 1


def test_between_two_thresholds_nothing_changes(run, texts):
    """`until` is the only way out of an active rule."""
    line = run(FREEZER)
    for second in range(0, 601, 100):
        line.event(second, TOPIC, {"t": 0})
    for second in range(700, 2000, 100):
        assert line.event(second, TOPIC, {"t": -16}) == []
    assert texts(line.event(2000, TOPIC, {"t": -17.5})) == ["a cold -17.5"]


@pytest.mark.parametrize("bad", [{"t": math.nan}, {"t": None}, {}, {"t": "warm"}, {"t": True}, 7, "x", [1], None])
def test_an_unknown_reading_neither_breaks_nor_completes_a_hold(run, bad):
    """At 600 s the latest reading is unknown: nothing. The next known one, still true, completes it."""
    line = run(FREEZER)
    line.event(0, TOPIC, {"t": 0})
    line.event(400 - 150, TOPIC, {"t": 0})
    line.event(500, TOPIC, {"t": 0})
    line.event(550, TOPIC, bad)
    assert line.tick(650) == []
    assert len(line.event(651, TOPIC, {"t": 0})) == 1


@pytest.mark.parametrize("bad", [{"t": math.nan}, {}, {"t": "warm"}, None])
def test_an_unknown_reading_does_not_break_the_silence(run, bad):
    """A sensor that sends only rubbish is a silent sensor: after stale_after the hold is forgotten."""
    line = run(FREEZER)
    line.event(0, TOPIC, {"t": 0})
    for second in range(60, 540, 60):
        line.event(second, TOPIC, bad)
    for second in range(540, 1140, 60):
        assert line.event(second, TOPIC, {"t": 0}) == []
    assert len(line.event(1140, TOPIC, {"t": 0})) == 1


@pytest.mark.parametrize("flag", [RETAINED, DUPLICATE, REPLAYED])
def test_what_is_not_fresh_triggers_nothing_and_breaks_no_silence(run, flag):
    """L9: retained, duplicate and replayed records pass by."""
    line = run(FREEZER)
    line.event(0, TOPIC, {"t": 0}, flag)
    assert line.engine.deadline_ns is None
    line.event(0, TOPIC, {"t": 0})
    line.event(299, TOPIC, {"t": 0}, flag)
    assert line.engine.deadline_ns == 300 * 10**9


def test_every_key_has_a_state_of_its_own(run, texts):
    """One device's readings say nothing about another's."""
    line = run(FREEZER.replace("for: 10m", "for: 1m"))
    line.event(0, "devices/a/climate", {"t": 0})
    line.event(30, "devices/b/climate", {"t": 0})
    line.event(50, "devices/a/climate", {"t": -20})
    assert texts(line.tick(100)) == ["b warm 0"]


def test_a_rule_without_hold_fires_on_the_edge(run, texts):
    """True twice is one firing; false in between makes it two; the default end is `when` no longer true."""
    line = run("""
        rules:
          - id: door
            on: devices/{device}/door
            when: open
            then: [{notify: {to: x, text: opened}}]
            finally: [{notify: {to: x, text: closed}}]
    """)
    for second, is_open in enumerate([False, True, True, False, True]):
        line.event(second, "devices/a/door", {"open": is_open})
    assert texts(line.decisions) == ["opened", "closed", "opened"]


def test_a_rule_without_condition_fires_on_every_event(run, texts):
    """And events that came at once have ids of their own."""
    line = run("""
        rules:
          - id: echo
            on: orders/+/placed
            then: [{notify: {to: x, text: "{n} at {topic}"}}]
    """)
    line.batch(1, [("orders/1/placed", {"n": 5}, 1), ("orders/1/placed", {"n": 6}, 1)])
    assert texts(line.decisions) == ["5 at orders/1/placed", "6 at orders/1/placed"]
    assert [d.id for d in line.decisions] == ["echo//1000000000/0", "echo//1000000000/1"]


def test_a_payload_that_is_no_mapping_is_called_value(run, texts):
    """`format: number` and `text` work like JSON."""
    line = run("""
        rules: [{id: r, on: t, when: value > 5, then: [{notify: {to: x, text: "{value}"}}]}]
    """)
    line.event(0, "t", 7)
    assert texts(line.decisions) == ["7"]


PUMP = """
    rules:
      - id: pump
        on: devices/{device}/level
        when: level > 80
        until: level < 20
        stale_after: 1m
        on_stale: off
        then: [{command: {topic: "devices/{device}/pump/set", payload: {state: "ON"}, state: "on"}}]
        finally: [{command: {topic: "devices/{device}/pump/set", payload: {state: "OFF"}, state: "off"}}]
"""


def test_a_rule_that_drives_an_actuator_ends_when_its_sensor_falls_silent(run, texts):
    """L10: silence of stale_after runs `finally`, at that time, once; a reading may begin it again."""
    line = run(PUMP)
    (on,) = line.event(0, "devices/a/level", {"level": 90})
    assert on.action == Command("devices/a/pump/set", b'{"state":"ON"}', "on")
    line.event(50, "devices/a/level", {"level": 50})
    assert line.tick(109.9) == []
    (off,) = line.tick(500)
    assert (off.action.state, off.elapsed_ns) == ("off", 110 * 10**9)
    assert off.because == "no known reading for 60 s"
    assert line.tick(10_000) == []
    assert len(line.event(10_001, "devices/a/level", {"level": 90})) == 1


def test_an_alarm_outlives_the_silence_of_its_sensor(run):
    """A rule that moves nothing stays active: silence is not the all-clear."""
    line = run(FREEZER.replace("for: 10m", "for: 1m"))
    line.event(0, TOPIC, {"t": 0})
    assert len(line.tick(60)) == 1
    assert line.tick(100_000) == []
    assert line.engine.status(100_000 * 10**9)[0].phase == "active"


def test_status_tells_unknown_from_inactive(run):
    """Never seen, seen, silent."""
    line = run(FREEZER)
    assert line.engine.status(0) == []
    line.event(0, TOPIC, {"t": -20})
    assert line.engine.status(10**9)[0].phase == "inactive"
    assert line.engine.status(400 * 10**9)[0].phase == "unknown"
    line.event(500, TOPIC, {"t": 5})
    status = line.engine.status(501 * 10**9)[0]
    assert (status.phase, status.readings, status.key) == ("pending", "t = 5", "a")


RELAY = """
    rules:
      - id: relay
        on: a/{n}
        then: [{emit: {topic: "b/{n}", payload: {n: "{n}"}}}]
"""


@pytest.mark.parametrize(("hops", "emitted"), [(0, 1), (1, 2), (2, 3), (3, None)])
def test_a_chain_of_derived_events_is_cut_after_three_hops(run, hops, emitted):
    """Each hop counts one more; what would pass the limit is counted instead."""
    line = run(RELAY)
    decisions = line.event(0, "a/1", {}, (DERIVED | hops << HOPS_SHIFT) if hops else 1)
    assert [d.action for d in decisions] == ([Emit("b/1", b'{"n":"1"}', emitted)] if emitted else [])
    assert line.engine.loops_cut == (emitted is None)


def test_keys_beyond_the_limit_push_out_the_quietest_and_end_what_it_began(run):
    """Memory is bounded; idle keys go before active ones; an actuator is not left on."""
    line = run(PUMP, max_keys=4)
    for device in "abcd":
        line.event(0, f"devices/{device}/level", {"level": 90 if device in "ab" else 50})
    line.event(1, "devices/e/level", {"level": 50})
    assert line.engine.evicted_keys == 1
    assert {status.key for status in line.engine.status(0)} == {"a", "b", "d", "e"}
    for device in "fghijk":
        line.event(2, f"devices/{device}/level", {"level": 90})
    off = [d for d in line.decisions if d.action.state == "off"]
    assert {d.key for d in off} >= {"a", "b"}
    assert all(d.because == "forgotten to make room for other keys" for d in off)


def test_a_topic_that_no_rule_matches_is_remembered_as_such_and_bounded(run):
    """A flood of topics fills no memory and no rule."""
    line = run(FREEZER, max_topics=100)
    for n in range(1_000):
        assert line.event(n, f"other/{n}", {"t": 0}) == []
    assert len(line.engine._handlers) <= 100
    assert line.engine.status(0) == []


def test_captures_with_commas_do_not_share_a_key(run):
    """`a,b` + `c` is not `a` + `b,c`."""
    line = run("""
        rules: [{id: r, on: "s/{x}/{y}", when: v > 0, then: [{notify: {to: x, text: "{x}|{y}"}}]}]
    """)
    line.event(0, "s/a,b/c", {"v": 1})
    line.event(0, "s/a/b,c", {"v": 1})
    assert [d.key for d in line.decisions] == ["a%2Cb,c", "a,b%2Cc"]


THERMOSTAT = """
    thermostats:
      - id: living
        mode: heat
        sensor: {topic: devices/living/climate, field: temperature}
        on_below: 20.5
        off_above: 21.5
        min_on: 3m
        min_off: 3m
        max_on: 4h
        stale_after: 10m
        on_stale: "off"
        actuator:
          topic: devices/living/heater/set
          "on": {state: "ON"}
          "off": {state: "OFF"}
          expect: {topic: devices/living/heater/state, where: state == wanted.state, within: 5s, retries: 3}
          otherwise: [{notify: {to: oncall, text: "no answer"}}]
"""


def test_a_thermostat_in_the_engine(run):
    """Off first, heat once rested, off when silent; commands carry how they are confirmed."""
    line = run(THERMOSTAT)
    (first,) = line.event(0, "devices/living/climate", {"temperature": 15})
    assert (first.action.state, json.loads(first.action.payload)) == ("off", {"state": "OFF"})
    assert line.event(100, "devices/living/climate", {"temperature": 15}) == []
    (heat,) = line.tick(181)
    assert (heat.action.state, heat.elapsed_ns, heat.because) == ("on", 180 * 10**9, "15 is below 20.5")
    assert heat.action.expect.where == "state == wanted.state"
    assert heat.action.otherwise[0].text == "no answer"
    (off,) = line.tick(701)
    assert (off.action.state, off.elapsed_ns) == ("off", 700 * 10**9)
    assert off.because == "the sensor has been silent for 10 min"
    assert line.engine.firings() == {"living": 1}


def test_at_a_start_every_actuator_is_told_what_is_wanted_and_nothing_changes(run, load):
    """R6: re-assert or go safe; and the state is what the log says, not what a restart adds."""
    line = run(THERMOSTAT + PUMP)
    before = line.engine.snapshot()
    (safe,) = line.engine.start(5 * 10**9)
    assert (safe.action.topic, safe.action.state, safe.id) == (
        "devices/living/heater/set",
        "off",
        "living//5000000000/start-1",
    )
    assert line.engine.snapshot() == before
    line.event(10, "devices/a/level", {"level": 90})
    started = line.engine.start(20 * 10**9)
    assert [(d.rule, d.key, d.action.state) for d in started] == [("pump", "a", "on"), ("living", "", "off")]


def test_a_start_fires_what_fell_due_while_nobody_was_there(run):
    """The heater was on, the process was away for an hour: silent, so off, and off is what is asserted."""
    line = run(THERMOSTAT)
    line.event(0, "devices/living/climate", {"temperature": 15})
    line.event(200, "devices/living/climate", {"temperature": 15})
    started = line.engine.start(3_600 * 10**9)
    assert started[-1].action.state == "off"
    assert "the sensor has been silent for 10 min" in {d.because for d in started}


def test_a_fixed_actuator_of_an_idle_rule_is_turned_off_at_a_start(run):
    """Nobody knows what it does; off is its safe state."""
    line = run(PUMP.replace("{device}", "a"))
    assert [d.action.state for d in line.engine.start(1)] == ["off"]
    line.event(10, "devices/a/level", {"level": 90})
    assert [d.action.state for d in line.engine.start(11 * 10**9)] == ["on"]


def test_safe_commands_name_all_that_may_be_on(run):
    """For shutdown and for a lost disk: rules with captures, too."""
    line = run(THERMOSTAT + PUMP)
    assert set(line.engine.safe_commands()) == {"devices/living/heater/set"}
    line.event(10, "devices/a/level", {"level": 90})
    commands = line.engine.safe_commands()
    assert {topic: command.state for topic, command in commands.items()} == {
        "devices/living/heater/set": "off",
        "devices/a/pump/set": "off",
    }

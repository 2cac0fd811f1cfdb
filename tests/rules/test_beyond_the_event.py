"""What rules look at beside their own event: windows, other devices, the latest on a topic, variables."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from gateway.model import DUPLICATE, REPLAYED, RETAINED, Set
from gateway.rules.engine import Engine
from tests.rules.traced import S, Traced, told


@pytest.fixture
def line(load):
    """`line(yaml)` gives a traced timeline."""
    return lambda source, **limits: Traced(load(source), **limits)


AVERAGE = """
    rules:
      - id: warm
        on: d/{device}/t
        when: avg(t, 10s) > 20
        then: [{notify: {to: x, text: "{device} {avg(t, 10s):.2f} {count(10s)}"}}]
        finally: [{notify: {to: x, text: "{device} over"}}]
"""


def test_a_window_holds_the_events_of_its_own_key(line):
    """The samples of one device say nothing about another's."""
    rules = line(AVERAGE)
    rules.event(0, "d/a/t", {"t": 10})
    rules.event(1, "d/b/t", {"t": 30})
    rules.event(2, "d/a/t", {"t": 40})
    assert rules.said() == [(1, "b 30.00 1"), (2, "a 25.00 2")]


def test_a_window_that_empties_is_noticed_without_an_event(line):
    """`avg` of nothing is unknown and moves nothing; `count` of nothing is 0, seen at the next multiple of 10 s."""
    rules = line(AVERAGE.replace("avg(t, 10s) > 20", "count(10s) > 1"))
    rules.event(3, "d/a/t", {"t": 10})
    rules.event(4, "d/a/t", {"t": 10})
    assert told(rules.tick(100)) == [(20, "a over")]


def test_evaluate_every_says_how_often_it_is_looked_at(line):
    """At multiples on the log's own clock, whenever the tick comes."""
    rules = line(AVERAGE.replace("avg(t, 10s) > 20", "count(10s) > 1\n        evaluate_every: 3s"))
    rules.event(3, "d/a/t", {"t": 10})
    rules.event(4, "d/a/t", {"t": 10})
    assert told(rules.tick(1_000)) == [(15, "a over")]


@pytest.mark.parametrize("bad", [math.nan, math.inf, None, 10**400], ids=["NaN", "infinite", "null", "immense"])
def test_what_is_no_number_is_no_sample(line, bad):
    """A sensor that sends rubbish moves no average."""
    rules = line(AVERAGE)
    rules.event(0, "d/a/t", {"t": 10})
    rules.event(1, "d/a/t", {"t": bad})
    rules.event(2, "d/a/t", {})
    rules.event(3, "d/a/t", {"t": 31})
    assert rules.said() == [(3, "a 20.50 4")]


@pytest.mark.parametrize("bad", ["warm", True, [1], {"a": 1}, ""], ids=str)
@pytest.mark.parametrize("function", ["avg", "min", "max", "sum", "rate", "delta", "stddev", "median", "p95"])
def test_a_text_or_a_truth_in_a_window_of_numbers_is_no_sample(line, function, bad):
    """Kinds are never mixed: `true` is no 1, and one device that sends words stops nobody's rules."""
    rules = line(AVERAGE.replace("avg", function).replace(":.2f", "").replace("> 20", "> -1000"))
    for second, value in enumerate([5, bad, 5, bad]):
        rules.event(second, "d/a/t", {"t": value})
    rules.event(5, "d/b/t", {"t": 7})
    window = rules.engine._machines[0]["a"].windows[0]
    assert [value for _, value in window.values(5 * S)] == [5, 5]


def test_counting_what_holds(line):
    """`count(x > 5, 10s)` counts true ones, and neither false nor unknown ones."""
    rules = line(AVERAGE.replace("avg(t, 10s) > 20", "count(t > 5, 10s) >= 2"))
    for second, value in enumerate([6, 5, None, "x", math.nan, 7]):
        rules.event(second, "d/a/t", {"t": value})
    assert rules.said() == [(5, "a 5.40 6")] or [second for second, _ in rules.said()] == [5]


def test_a_tumbling_window_is_the_last_complete_stretch(line):
    """[0, 10) from second 10 on, looked at without an event."""
    rules = line(AVERAGE.replace("avg(t, 10s) > 20", "avg(t, 10s, tumbling) > 20"))
    rules.event(1, "d/a/t", {"t": 10})
    rules.event(9, "d/a/t", {"t": 40})
    assert rules.said() == []
    assert [second for second, _ in told(rules.tick(15))] == [10]


def test_samples_count_from_when_they_happened(line):
    """With `time`, what is reported late belongs where it happened."""
    rules = line("""
        rules:
          - id: r
            on: t
            time: ts
            max_age: 1m
            where: sum(v, 10s) >= 3
            then: [{notify: {to: x, text: "{sum(v, 10s)}"}}]
    """)
    at = rules.wall_s
    rules.event(20, "t", {"v": 1, "ts": at + 20})
    rules.event(21, "t", {"v": 5, "ts": at + 11})
    rules.event(21.5, "t", {"v": 1, "ts": at + 21.5})
    rules.event(22, "t", {"v": 1, "ts": at + 1})
    rules.event(23, "t", {"v": 1, "ts": at + 23})
    assert rules.said() == [(23, "3")]


def test_huge_numbers_leave_a_window_unknown_and_the_engine_alive(line):
    """Their sum is beyond every float: unknown, never infinite and never an error."""
    rules = line(AVERAGE.replace("avg(t, 10s)", "delta(t, 10s)"))
    rules.event(0, "d/a/t", {"t": -(10**308)})
    rules.event(1, "d/a/t", {"t": 10**308})
    rules.event(2, "d/b/t", {"t": 1})
    rules.event(3, "d/b/t", {"t": 100})
    assert rules.said() == [(3, "b 99.00 2")]


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 4_611_686_018_427_387_905])
def test_a_number_beyond_64_bits_does_not_keep_the_state_from_being_saved(load, value):
    """L12: a payload holds at most 64 bits, and a product of two of them may not fit; a snapshot still does."""
    rules = Traced(
        load("""
        rules:
          - id: r
            on: d/{device}/t
            when: known(t) and max(t * t * t, 10s) != 0
            then:
              - notify: {to: x, text: "{t}"}
              - set: {v: "{t * t * t}"}
              - wait: 5s
              - notify: {to: x, text: "{t}"}
    """)
    )
    rules.event(0, "d/a/t", {"t": value})
    rules.restart()
    assert told(rules.tick(5)) == [(5, str(value))]
    assert float(rules.engine.world.variables["v"]) == float(value**3)


@pytest.mark.parametrize("value", [10**30, -(10**30), [10**30], {"deep": [{"x": 2**64}]}], ids=str)
def test_a_payload_beyond_64_bits_does_not_keep_the_state_from_being_saved(load, value):
    """Ingest refuses such; an engine that meets one all the same can still be saved."""
    rules = Traced(
        load("""
        rules:
          - id: r
            on: devices/{device}/t
            when: known(t) and known(device("a").t)
            then:
              - set: {v: "{t}"}
              - wait: 5s
              - notify: {to: x, text: "{known(t)}"}
    """)
    )
    rules.event(0, "devices/a/t", {"t": value})
    rules.restart()
    assert told(rules.tick(5)) == [(5, "true")]


def test_asking_for_the_status_moves_no_window(line):
    """L12: a page that is looked at between a record's arrival and its evaluation changes no decision."""
    rules = line(AVERAGE.replace("avg(t, 10s) > 20", "sum(t, 10s) > 3"))
    rules.event(0, "d/a/t", {"t": 3})
    rules.engine.status(10 * S)
    assert len(rules.event(9.999, "d/a/t", {"t": 1})) == 1


DEVICE = """
    rules:
      - id: vent
        on: devices/{device}/climate
        when: t > device("outdoor", 30s).t
        then: [{notify: {to: x, text: '{device} {t} {device("outdoor", 30s).t}'}}]
        finally: [{notify: {to: x, text: "{device} over"}}]
"""


def test_another_device_is_looked_at_on_any_of_its_topics(line):
    """Unknown before it has spoken; the latest of all its topics afterwards."""
    rules = line(DEVICE)
    rules.event(0, "devices/in/climate", {"t": 25})
    rules.event(1, "devices/outdoor/weather", {"t": 20})
    rules.event(2, "devices/in/climate", {"t": 25})
    rules.event(3, "devices/outdoor/roof/sun", {"t": 26})
    rules.event(4, "devices/in/climate", {"t": 25})
    assert rules.said() == [(2, "in 25 20"), (4, "in over")]


def test_another_devices_value_moves_a_rule_at_the_next_look(line):
    """A rule is looked at with its own events and at multiples of `evaluate_every`."""
    rules = line(DEVICE)
    rules.event(0, "devices/outdoor/weather", {"t": 30})
    rules.event(1, "devices/in/climate", {"t": 25})
    rules.event(2, "devices/outdoor/weather", {"t": 20})
    assert told(rules.tick(50)) == [(10, "in 25 20")]


def test_a_value_is_unknown_from_the_instant_at_which_it_is_too_old(line):
    """At 29.999 s it counts, at 30 s it does not; an active rule is not ended by what is unknown."""
    rules = line(DEVICE)
    rules.event(0, "devices/outdoor/weather", {"t": 20})
    rules.event(29.999, "devices/a/climate", {"t": 25})
    rules.event(30, "devices/b/climate", {"t": 25})
    rules.event(31, "devices/a/climate", {"t": 15})
    assert rules.said() == [(29.999, "a 25 20")]
    assert rules.trace[-1].what == "unknown"


def test_without_an_age_the_rules_own_stale_after_counts(line):
    """And without that, a value never grows old."""
    source = DEVICE.replace('device("outdoor", 30s)', 'device("outdoor")')
    for stale_after, expected in (("        stale_after: 20s\n", 0), ("", 1)):
        rules = line(source.replace("        when:", f"{stale_after}        when:"))
        rules.event(0, "devices/outdoor/weather", {"t": 20})
        rules.event(20, "devices/a/climate", {"t": 25})
        assert len(rules.said()) == expected


@pytest.mark.parametrize("flag", [RETAINED, DUPLICATE, REPLAYED])
def test_what_is_not_fresh_is_nobodys_latest_value(line, flag):
    """L9: a retained message is not what a device says now."""
    rules = line(DEVICE)
    rules.event(0, "devices/outdoor/weather", {"t": 20}, flag)
    assert rules.event(1, "devices/a/climate", {"t": 25}) == []


@pytest.mark.parametrize("rubbish", [{"t": math.nan}, {"t": None}, {}, 7, None], ids=str)
def test_rubbish_leaves_the_last_known_value_standing(line, rubbish):
    """Until that is too old."""
    rules = line(DEVICE)
    rules.event(0, "devices/outdoor/weather", {"t": 20})
    rules.event(10, "devices/outdoor/weather", rubbish)
    assert len(rules.event(29, "devices/a/climate", {"t": 25})) == 1
    assert rules.event(30, "devices/b/climate", {"t": 25}) == []


LATEST = """
    rules:
      - id: window
        on: "room/{house}/{room}/heat"
        where: latest("room/{house}/{room}/window", 1m).open == true
        then: [{notify: {to: x, text: '{house}|{room}'}}]
"""


@pytest.mark.parametrize("house", ["a", "a,b", "100%", "%2C", ",", "ä ö"])
def test_captured_levels_of_any_spelling_find_their_own_value(line, house):
    """Commas and percent signs in a topic are levels like others, over a restart too."""
    rules = line(LATEST)
    for other in ("a", "a,b", "100%", "%2C", ",", "ä ö", "%252C"):
        rules.event(0, f"room/{other}/x,y/window", {"open": other == house})
    rules.event(0, f"room/{house}/x/window", {"open": False})
    rules.restart()
    for other in ("a", "a,b", "100%", "%2C", ",", "ä ö", "%252C"):
        rules.event(1, f"room/{other}/x,y/heat", 1)
    rules.event(1, f"room/{house}/x/heat", 1)
    assert rules.said() == [(1, f"{house}|x,y")]


def test_a_watch_keeps_a_bounded_number_of_values(line):
    """L13: ten thousand and one rooms cost what ten thousand cost; the quietest is forgotten."""
    rules = line(LATEST, max_topics=200)
    for number in range(10_001):
        rules.event(0, f"room/h/{number}/window", {"open": True})
    assert len(rules.engine._watches[0].dump()) == 10_000
    assert rules.event(1, "room/h/0/heat", 1) == []
    assert len(rules.event(1, "room/h/1/heat", 1)) == 1


def test_ten_thousand_and_one_keys_are_held_to_their_number(line):
    """L13: machines too; what was asked of the newest is unharmed."""
    rules = line(AVERAGE, max_topics=200)
    for number in range(10_001):
        rules.event(0, f"d/{number}/t", {"t": 0})
    assert len(rules.engine._machines[0]) <= 10_000
    assert rules.engine.evicted_keys == 625
    assert told(rules.event(1, "d/10000/t", {"t": 50})) == [(1, "10000 25.00 2")]


@pytest.mark.parametrize("name", ["{device}", "{topic}"])
def test_a_level_that_the_rule_does_not_capture_is_refused_at_load(problems, name):
    """Not a KeyError in the night."""
    found = problems(LATEST.replace("{house}/{room}/window", name + "/window"))
    assert len(found) == 1
    assert name.strip("{}") in found[0]


def test_a_schedule_may_not_look_at_captured_levels(problems):
    """It captures none."""
    assert problems("""
        rules: [{id: r, on: {every: 5m}, when: 'latest("d/{device}/x", 5m).y > 1', then: [{notify: {to: x, text: y}}]}]
    """)


SETTER = """
    rules:
      - id: first
        on: t
        then: [{set: {mode: "{value}"}}]
      - id: second
        on: t
        then: [{notify: {to: x, text: 'now {var("mode")}'}}]
"""


def test_a_variable_is_set_for_the_rules_that_stand_below_in_the_same_event(line):
    """Rules are asked in the order in which they are written."""
    rules = line(SETTER)
    rules.event(0, "t", "eco")
    rules.event(1, "t", "away")
    assert rules.said() == [(0, Set("mode", "eco")), (0, "now eco"), (1, Set("mode", "away")), (1, "now away")]


def test_a_rule_above_sees_the_variable_as_it_was(line):
    """The order decides, and nothing else."""
    first, second = SETTER.split("      - id: second")
    rules = line("    rules:\n      - id: second" + second + first.split("rules:\n")[1])
    rules.event(0, "t", "eco")
    rules.event(1, "t", "away")
    assert [text for _, text in rules.said() if isinstance(text, str)] == ["now unknown", "now eco"]


def test_a_variable_outlives_a_restart_and_a_new_rule_set(line, load):
    """It belongs to no rule."""
    rules = line(SETTER)
    rules.event(0, "t", "eco")
    rules.restart()
    assert rules.engine.world.variables == {"mode": "eco"}
    other = Engine(load("rules: [{id: r, on: u, then: [{notify: {to: x, text: '{var(\"mode\")}'}}]}]"))
    assert len(other.restore(rules.engine.snapshot())) == 2
    rules.engine = other
    assert told(rules.event(5, "u")) == [(5, "eco")]


def test_a_payload_cannot_pretend_to_be_a_reference(line):
    """A field that is named like one is not it."""
    rules = line(DEVICE)
    rules.event(0, "devices/a/climate", {"t": 25, 'device("outdoor", 30s).t': 1})
    assert rules.said() == []


REACHING = """
    rules:
      - {id: target, on: target, then: [{set: {target: "{value}"}}]}
      - id: pump
        on: level
        when: level > 1
        stale_after: 100s
        on_stale: "off"
        then: [{command: {topic: pump, payload: {state: "ON", to: '{var("target")}'}, state: "on"}}]
        finally: [{command: {topic: pump, payload: {state: "OFF", to: '{var("target")}'}, state: "off"}}]
"""


def test_what_is_said_again_at_a_start_still_looks_beyond_the_event(line):
    """R6: the actuator is told what was decided, not null."""
    rules = line(REACHING)
    rules.event(0, "target", 7)
    (on,) = rules.event(1, "level", {"level": 5})
    assert on.action.payload == b'{"state":"ON","to":7}'
    (again,) = rules.engine.start(2 * S)
    assert again.action.payload == on.action.payload
    assert rules.engine.safe_commands()["pump"].payload == b'{"state":"OFF","to":7}'


def test_what_was_denied_is_asked_for_again_as_it_was(line):
    """After thirty seconds, with what the rule looks at as it is then."""
    rules = line(REACHING)
    rules.event(0, "target", 7)
    (on,) = rules.event(1, "level", {"level": 5})
    rules.event(2, "target", 8)
    assert rules.engine.refused(on.id, "denied", 3 * S) == []
    (again,) = rules.tick(40)
    assert again.elapsed_ns == 33 * S
    assert again.action.payload in {b'{"state":"ON","to":7}', b'{"state":"ON","to":8}'}


def test_the_rate_is_per_second(line):
    """Between first and last sample, whatever the window is long."""
    rules = line(AVERAGE.replace("avg(t, 10s) > 20", "rate(t, 1m) > 1.5").replace("{avg(t, 10s):.2f}", "{rate(t, 1m)}"))
    rules.event(0, "d/a/t", {"t": 10})
    rules.event(4, "d/a/t", {"t": 17})
    assert rules.said() == [(4, f"a {float(Fraction(7, 4))} 2")]


def test_hours_of_nothing_cost_nothing(line):
    """L13: what nobody speaks of is looked at for an hour, and then no more."""
    rules = line(AVERAGE)
    rules.event(0, "d/a/t", {"t": 0})
    rules.tick(3_700)
    assert rules.engine.deadline_ns is None
    assert rules.tick(10**9) == []

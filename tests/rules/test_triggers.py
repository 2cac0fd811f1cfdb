"""What sets a rule off: thresholds that are passed, silence, schedules, other rules, and lists of these."""

from __future__ import annotations

import dataclasses
import math

import pytest

from gateway.model import DERIVED, DUPLICATE, RETAINED, Kind
from gateway.rules.compiled import RuleSet
from tests.rules.traced import WALL_S, S, Traced, told


@pytest.fixture
def line(load):
    """`line(yaml)` gives a traced timeline."""
    return lambda source, **limits: Traced(load(source), **limits)


CROSSING = """
    rules:
      - id: hot
        on: {topic: "d/{device}/t", field: t, above: 25}
        then: [{notify: {to: x, text: "{device} {t}"}}]
        finally: [{notify: {to: x, text: "{device} over at {t}"}}]
"""


def _values(rules, values, topic="d/a/t", start_s=0):
    for second, value in enumerate(values, start_s):
        rules.event(second, topic, {"t": value})
    return [text for _, text in rules.said()]


def test_a_threshold_fires_when_it_is_passed_and_once(line):
    """Below, beyond, beyond, below, beyond."""
    assert _values(line(CROSSING), [20, 26, 27, 25, 26]) == ["a 26", "a over at 25", "a 26"]


def test_the_first_value_is_no_crossing(line):
    """After a start nobody knows where it was before."""
    rules = line(CROSSING)
    assert _values(rules, [30, 31]) == []
    assert rules.whats() == ["unarmed", "unarmed"]
    assert _values(rules, [20, 30], start_s=5) == ["a 30"]


def test_the_first_value_is_one_if_the_rule_says_so(line):
    """`also_on_start: true`; once for each key."""
    rules = line(CROSSING.replace("above: 25", "above: 25, also_on_start: true"))
    assert _values(rules, [30, 31]) == ["a 30"]
    assert _values(rules, [30], topic="d/b/t", start_s=2) == ["a 30", "b 30"]


@pytest.mark.parametrize("between", [math.nan, None, "x", True])
def test_what_is_unknown_is_no_side_of_a_threshold(line, between):
    """Unknown first and beyond afterwards is no crossing; below, unknown, beyond is one."""
    assert _values(line(CROSSING), [between, 30]) == []
    assert _values(line(CROSSING), [20, between, 30]) == ["a 30"]


@pytest.mark.parametrize("flag", [RETAINED, DUPLICATE])
def test_what_is_not_fresh_is_no_side_of_a_threshold(line, flag):
    """L9: a retained value below does not arm, one beyond does not fire."""
    rules = line(CROSSING)
    rules.event(0, "d/a/t", {"t": 20}, flag)
    rules.event(1, "d/a/t", {"t": 30})
    assert rules.said() == []
    rules.event(2, "d/a/t", {"t": 20})
    rules.event(3, "d/a/t", {"t": 30}, flag)
    assert rules.said() == []


@pytest.mark.parametrize(
    ("limits", "values", "fired"),
    [
        ("below: 5", [6, 5, 4.9, 4], [2]),
        ("above: 5", [5, 5.1, 5, 6], [1, 3]),
        ("above: 5, below: 8", [4, 6, 7, 9, 7, 5, 8], [1, 4]),
    ],
)
def test_both_sides_and_a_range(line, limits, values, fired):
    """On the threshold is not beyond it; a range is entered from either side."""
    rules = line(CROSSING.replace("above: 25", limits))
    _values(rules, values)
    assert [second for second, text in rules.said() if "over" not in text] == fired


def test_when_is_asked_at_the_moment_of_the_crossing(line):
    """What is held back then is over, until it crosses anew."""
    rules = line(CROSSING.replace("then:", "when: armed == true\n        then:"))
    for second, (value, armed) in enumerate([(20, True), (30, False), (30, True), (20, False), (30, True)]):
        rules.event(second, "d/a/t", {"t": value, "armed": armed})
    assert rules.said() == [(4, "a 30")]
    assert rules.whats() == ["gated", "unarmed", "fired"]


def test_a_crossing_that_must_last(line):
    """`for` after a crossing counts from it."""
    rules = line(CROSSING.replace("then:", "for: 5s\n        then:"))
    _values(rules, [20, 30, 31, 20, 30])
    assert told(rules.tick(100)) == [(9, "a 30")]


def test_a_crossing_that_another_condition_ended_must_cross_anew(line):
    """`until` came true while the value stayed beyond: that is no crossing."""
    rules = line(CROSSING.replace("then:", 'until: mode == "off"\n        then:'))
    for second, (value, mode) in enumerate([(20, "on"), (30, "on"), (30, "off"), (30, "on"), (20, "on"), (30, "on")]):
        rules.event(second, "d/a/t", {"t": value, "mode": mode})
    assert rules.said() == [(1, "a 30"), (2, "a over at 30"), (5, "a 30")]


def test_a_crossing_ended_by_silence_must_cross_anew(line):
    """A sensor that comes back beyond the threshold has not crossed it."""
    rules = line("""
        rules:
          - id: fan
            on: {topic: t, field: v, above: 25}
            stale_after: 10s
            on_stale: "off"
            then: [{command: {topic: fan, payload: "ON", state: "on"}}]
            finally: [{command: {topic: fan, payload: "OFF", state: "off"}}]
    """)
    for second, value in [(0, 20), (1, 30), (50, 30), (51, 20), (52, 30)]:
        rules.event(second, "t", {"v": value})
    assert [(second, action.state) for second, action in rules.said()] == [(1, "on"), (11, "off"), (52, "on")]


def test_the_field_of_a_threshold_is_an_expression_of_its_own(problems):
    """Not half of one, which the threshold would complete to another."""
    found = problems(CROSSING.replace("field: t", 'field: "t) > 1 or (t"'))
    assert len(found) == 1
    assert "not an expression" in found[0]


SILENT = """
    rules:
      - id: gone
        on: {topic: "d/{device}/t", silent: 10s}
        then: [{notify: {to: x, text: "{device} gone"}}]
        finally: [{notify: {to: x, text: "{device} back"}}]
"""


def test_silence_fires_at_its_instant_and_ends_with_the_next_event(line):
    """Whenever the tick comes; and only for who has spoken."""
    rules = line(SILENT)
    rules.event(0, "d/a/t")
    rules.event(5, "d/a/t")
    rules.event(6, "d/b/t")
    assert rules.tick(14.999) == []
    assert told(rules.tick(100)) == [(15, "a gone"), (16, "b gone")]
    assert rules.tick(10_000) == []
    assert told(rules.event(10_001, "d/a/t")) == [(10_001, "a back")]


def test_an_event_at_the_very_instant_of_the_deadline_comes_after_it(line):
    """A deadline at an event's time fires before the event."""
    rules = line(SILENT)
    rules.event(0, "d/a/t")
    assert told(rules.event(10, "d/a/t")) == [(10, "a gone"), (10, "a back")]


@pytest.mark.parametrize("flag", [RETAINED, DUPLICATE])
def test_what_is_not_fresh_breaks_no_silence(line, flag):
    """L9."""
    rules = line(SILENT)
    rules.event(0, "d/a/t")
    rules.event(9, "d/a/t", 1, flag)
    assert told(rules.tick(20)) == [(10, "a gone")]
    assert rules.event(21, "d/a/t", 1, flag) == []


def test_silence_counts_from_the_start_if_the_rule_says_so(line):
    """For one that has never spoken, once; and not again after a restart."""
    rules = line("""
        rules:
          - id: gone
            on: {topic: d/a/t, silent: 10s, also_on_start: true}
            then: [{notify: {to: x, text: gone}}]
            finally: [{notify: {to: x, text: back}}]
    """)
    rules.clock(100)
    rules.tick(105)
    rules.restart()
    assert told(rules.tick(1_000)) == [(110, "gone")]
    rules.restart()
    assert rules.tick(2_000) == []
    assert told(rules.event(2_001, "d/a/t")) == [(2_001, "back")]


def test_what_was_held_back_at_the_silence_does_not_end_either(line):
    """No `finally` without a `then`: nobody hears that something is back of which nobody heard that it was gone."""
    rules = line(SILENT.replace("then:", "when: 'var(\"away\") == true'\n        then:"))
    rules.event(0, "d/a/t")
    assert rules.tick(20) == []
    assert rules.whats() == ["gated"]
    assert rules.engine.status(20 * S)[0].phase == "inactive"
    assert rules.event(21, "d/a/t") == []


def test_a_silence_that_cooldown_held_back_begins_when_it_is_over(line):
    """A sensor that flaps and then dies is missed, though later."""
    rules = line(SILENT.replace("then:", "cooldown: 1m\n        then:"))
    rules.event(0, "d/a/t")
    rules.event(11, "d/a/t")
    assert told(rules.tick(1_000)) == [(70, "a gone")]
    assert told(rules.event(1_001, "d/a/t")) == [(1_001, "a back")]


def test_a_silence_that_ends_while_cooldown_holds_it_back_is_not_told(line):
    """Neither that it began nor that it is over."""
    rules = line(SILENT.replace("then:", "cooldown: 1m\n        then:"))
    for second in (0, 11, 30, 40):
        rules.event(second, "d/a/t")
    assert rules.said() == [(10, "a gone"), (11, "a back")]
    assert told(rules.tick(1_000)) == [(70, "a gone")]


def _with_schedule(load, schedule, source=None):
    """A rule on a schedule of the test's own making."""
    ruleset = load(source or "rules: [{id: r, on: {every: 1h}, then: [{notify: {to: x, text: now}}]}]")
    rule = dataclasses.replace(ruleset.rules[0], schedules=(schedule,))
    return RuleSet(rules=(rule,))


class Multiples:
    """Due at every multiple of some seconds of the wall clock, and never after an end."""

    def __init__(self, period_s, end_s=math.inf):
        self.period_ns, self.end_ns = period_s * S, end_s * S
        self.asked = []

    def next_after(self, wall_ns):
        """As `gateway.rules.schedules.schedule.Schedule` has it."""
        self.asked.append(wall_ns)
        due_ns = (wall_ns // self.period_ns + 1) * self.period_ns
        return due_ns if due_ns <= self.end_ns else None

    def describe(self):
        """For a person."""
        return "on the test's own time"


def test_a_schedule_waits_until_the_wall_clock_is_known(load):
    """L11: an unsynchronised clock says nothing; the first synchronised record says all."""
    rules = Traced(_with_schedule(load, Multiples(100)))
    rules.clock(0, synced=False)
    assert rules.engine.deadline_ns is None
    assert rules.tick(1_000) == []
    rules.clock(1_000, wall_s=5_050)
    assert rules.engine.deadline_ns == 1_050 * S
    assert told(rules.tick(1_149)) == [(1_050, "now")]
    assert rules.decisions[0].because == "on the test's own time"


def test_a_jump_of_the_wall_clock_fires_nothing_and_is_followed(load):
    """L11: forward over ten times that were due, and back before one that was."""
    rules = Traced(_with_schedule(load, Multiples(100)))
    rules.clock(0, wall_s=10_000)
    assert rules.clock(50, wall_s=11_060) == []
    assert told(rules.tick(90)) == [(90, "now")]
    rules.clock(95, wall_s=11_090)
    assert rules.engine.deadline_ns == 105 * S
    assert told(rules.tick(105)) == [(105, "now")]


def test_a_clock_that_is_put_right_a_little_at_a_time_fires_each_time_once(load):
    """Slewing half a second, back and forth, around the very instant."""
    rules = Traced(_with_schedule(load, Multiples(10)))
    rules.clock(0, wall_s=1_000)
    for second in range(1, 100):
        rules.clock(second, wall_s=1_000 + second + (0.45 if second % 2 else -0.45))
    rules.tick(99.9)
    assert len(rules.decisions) == 10
    assert all(abs(second % 10 - (10 if second % 10 > 5 else 0)) <= 1 for second, _ in rules.said())


def test_a_schedule_that_is_over_never_fires_again(load):
    """And costs nothing."""
    rules = Traced(_with_schedule(load, Multiples(100, end_s=WALL_S + 250)))
    rules.clock(0)
    assert [second for second, _ in told(rules.tick(10_000))] == [100, 200]
    assert rules.engine.deadline_ns is None


def test_a_restart_neither_loses_nor_repeats_a_time(load):
    """L12: what fell due while nobody was there is due at its own time, once."""
    rules = Traced(_with_schedule(load, Multiples(100)))
    rules.clock(0)
    for moment in (50, 99.999, 100, 100.001, 350, 400):
        rules.tick(moment)
        rules.restart()
    assert [second for second, _ in rules.said()] == [100, 200, 300, 400]


def test_a_restart_moves_no_time_by_what_the_clocks_differ_now(load):
    """L12: the wall clock was put right by 0.4 s meanwhile; who lived on and who began anew fire at one instant."""
    lived, restarted = (Traced(_with_schedule(load, Multiples(100))) for _ in range(2))
    for rules in (lived, restarted):
        rules.clock(0, wall_s=1_000)
        rules.clock(50, wall_s=1_050.4)
        if rules is restarted:
            rules.restart()
        rules.tick(250)
    assert restarted.decisions == lived.decisions
    assert restarted.engine.snapshot() == lived.engine.snapshot()


def test_a_period_counts_on_the_logs_own_clock(line):
    """At its multiples, whatever the wall clock does and whether it is known."""
    rules = line("rules: [{id: r, on: {every: 5m}, then: [{notify: {to: x, text: now}}]}]")
    rules.clock(10, synced=False)
    rules.clock(200, wall_s=9 * WALL_S)
    assert [second for second, _ in told(rules.tick(900))] == [300, 600, 900]
    assert rules.decisions[0].because == "every 5m"
    assert rules.decisions[0].id == "r//300000000000/0"


def test_a_schedule_asks_its_condition_at_that_moment(line):
    """`when` looks at what is known then."""
    rules = line("""
        rules:
          - id: r
            on: {every: 10s}
            when: latest("door", 25s).open == true
            then: [{notify: {to: x, text: open}}]
    """)
    rules.clock(0)
    rules.event(5, "door", {"open": True})
    assert [second for second, _ in told(rules.tick(100))] == [10, 20]
    assert rules.whats()[:4] == ["fired", "fired", "gated", "gated"]


LIST = """
    rules:
      - id: any
        on: ["button/{room}", "switch/{room}/+"]
        then: [{notify: {to: x, text: "{room} {topic}"}}]
"""


def test_a_list_of_topics_is_any_of_them_with_one_state(line):
    """They capture the same names, so that a key is the same whichever came."""
    rules = line(LIST.replace("then:", "cooldown: 10s\n        then:"))
    rules.event(0, "button/hall")
    rules.event(1, "switch/hall/2")
    rules.event(2, "switch/attic/1")
    assert rules.said() == [(0, "hall button/hall"), (2, "attic switch/attic/1")]


def test_an_event_that_two_of_a_rules_topics_match_is_one_event(line):
    """A list is any of its topics: not one firing for each that matches."""
    rules = line("""
        rules:
          - id: any
            on: ["a/+", "a/#", a/b]
            where: count(1m) > 0
            then: [{notify: {to: x, text: "{count(1m)}"}}]
    """)
    rules.event(0, "a/b")
    rules.event(1, "a/b/c")
    assert rules.said() == [(0, "1"), (1, "2")]


def test_topics_and_a_schedule_in_one_list(line):
    """Either fires it."""
    rules = line("rules: [{id: r, on: [button, {every: 10s}], then: [{notify: {to: x, text: now}}]}]")
    rules.clock(0)
    rules.event(3, "button")
    rules.tick(20)
    assert [second for second, _ in rules.said()] == [3, 10, 20]


def test_what_another_rule_emits_is_heard_where_it_is_emitted(line):
    """`{rule: id}` stands for the topics of that rule's emits, captures included."""
    rules = line("""
        rules:
          - {id: peak, on: "m/{site}", where: w > 5, then: [{emit: {topic: "peak/{site}", payload: {w: "{w}"}}}]}
          - {id: shed, on: {rule: peak}, then: [{notify: {to: x, text: "{site} {w}"}}]}
    """)
    (emitted,) = rules.event(0, "m/north", {"w": 9})
    assert emitted.action.topic == "peak/north"
    derived = DERIVED | emitted.action.hops << 6
    assert told(rules.event(0, emitted.action.topic, {"w": 9}, derived)) == [(0, "north 9")]


def test_records_that_are_no_events_trigger_nothing_but_tell_the_time(line):
    """Decisions and markers stand in the same log."""
    rules = line(SILENT)
    rules.event(0, "d/a/t")
    assert told(rules.batch(20, [("d/a/t", None, 1)], kind=Kind.DECISIONS)) == [(10, "a gone")]

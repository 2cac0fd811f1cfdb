"""Sequences: actions with waits between them, and what a trigger does while one is under way."""

from __future__ import annotations

import pytest

from gateway.model import DUPLICATE
from tests.rules.traced import S, Traced, told


@pytest.fixture
def line(load):
    """`line(yaml)` gives a traced timeline."""
    return lambda source, **limits: Traced(load(source), **limits)


STEPS = """
    rules:
      - id: bell
        on: bell/{door}
        mode: single
        then:
          - notify: {to: x, text: "{door} {value} one"}
          - wait: 10s
          - notify: {to: x, text: "{door} {value} two"}
          - wait: 5s
          - notify: {to: x, text: "{door} {value} three"}
"""


def test_what_follows_a_wait_is_done_at_its_own_time(line):
    """Whenever the tick comes; with the event that began it, and with ids of that time."""
    rules = line(STEPS)
    rules.event(0, "bell/a", 7)
    rules.tick(100)
    assert rules.said() == [(0, "a 7 one"), (10, "a 7 two"), (15, "a 7 three")]
    assert [d.id for d in rules.decisions] == ["bell/a/0/0", "bell/a/10000000000/0", "bell/a/15000000000/0"]
    assert {d.cause_seq for d in rules.decisions} == {0}
    assert rules.engine.deadline_ns is None


def test_single_drops_what_comes_meanwhile(line):
    """And takes the first that comes after the end, at the very instant of it."""
    rules = line(STEPS)
    for second, value in [(0, 1), (1, 2), (14.999, 3), (15, 4)]:
        rules.event(second, "bell/a", value)
    rules.tick(100)
    assert [text for _, text in rules.said() if "one" in text] == ["a 1 one", "a 4 one"]
    assert [trace.detail for trace in rules.trace if trace.what == "dropped"] == ["mode single: 1 under way"] * 2


def test_restart_begins_again(line):
    """What was under way is forgotten."""
    rules = line(STEPS.replace("single", "restart"))
    rules.event(0, "bell/a", 1)
    rules.event(9, "bell/a", 2)
    rules.event(20, "bell/a", 3)
    rules.tick(100)
    assert rules.said() == [
        (0, "a 1 one"),
        (9, "a 2 one"),
        (19, "a 2 two"),
        (20, "a 3 one"),
        (30, "a 3 two"),
        (35, "a 3 three"),
    ]


def test_queued_waits_for_its_turn(line):
    """Each begins at the instant at which the one before ends, in the order in which they came."""
    rules = line(STEPS.replace("single", "queued"))
    for second in (0, 1, 2):
        rules.event(second, "bell/a", second)
    rules.tick(100)
    assert [second for second, _ in rules.said()] == [0, 10, 15, 15, 25, 30, 30, 40, 45]
    assert [text for _, text in rules.said() if "one" in text] == ["a 0 one", "a 1 one", "a 2 one"]
    assert rules.engine.deadline_ns is None


def test_parallel_runs_beside(line):
    """Each on its own time."""
    rules = line(STEPS.replace("single", "parallel"))
    for second in (0, 1, 2):
        rules.event(second, "bell/a", second)
    rules.tick(100)
    assert [second for second, _ in rules.said()] == [0, 1, 2, 10, 11, 12, 15, 16, 17]


@pytest.mark.parametrize("mode", ["queued", "parallel"])
def test_there_are_never_more_than_max(line, mode):
    """What is beyond is dropped, and told; those of another key are not counted."""
    rules = line(STEPS.replace("single", f"{mode}\n        max: 2"))
    for value in range(4):
        rules.event(0, "bell/a", value)
    rules.event(0, "bell/b", 9)
    rules.tick(100)
    assert [text for _, text in rules.said() if "three" in text and "a" in text.split()[0]] == [
        "a 0 three",
        "a 1 three",
    ]
    assert "b 9 three" in [text for _, text in rules.said()]
    assert rules.whats().count("dropped") == 2


@pytest.mark.parametrize("mode", ["single", "restart", "queued", "parallel"])
def test_a_duplicate_sets_nothing_off(line, mode):
    """L9."""
    rules = line(STEPS.replace("single", mode))
    rules.event(0, "bell/a", 1)
    rules.event(5, "bell/a", 1, DUPLICATE)
    rules.tick(100)
    assert [second for second, _ in rules.said()] == [0, 10, 15]


@pytest.mark.parametrize("mode", ["single", "restart", "queued", "parallel"])
def test_a_restart_at_any_second_of_a_sequence_shows_in_nothing(line, mode):
    """L12: with what is queued and what runs beside it."""
    source = STEPS.replace("single", mode)

    def live(restart_at):
        rules = line(source)
        for second in range(60):
            if second == restart_at:
                rules.restart()
            if second in {0, 3, 11, 25}:
                rules.event(second, "bell/a", second)
            rules.tick(second + 0.5)
        rules.tick(200)
        return rules.decisions

    expected = live(None)
    for second in range(60):
        assert live(second) == expected, second


HELD = """
    rules:
      - id: pump
        on: level
        when: value > 10
        stale_after: 30s
        on_stale: "off"
        then:
          - command: {topic: valve, payload: "OPEN", state: "on"}
          - wait: 5s
          - command: {topic: pump, payload: "ON", state: "on"}
          - wait: 5s
          - notify: {to: x, text: running}
        finally:
          - command: {topic: pump, payload: "OFF", state: "off"}
          - command: {topic: valve, payload: "SHUT", state: "off"}
"""


def _brief(decisions):
    return [
        (second, each if isinstance(each, str) else f"{each.topic} {each.state}") for second, each in told(decisions)
    ]


def test_the_end_of_a_rule_cancels_its_sequence(line):
    """The pump does not start five seconds after the valve was shut."""
    rules = line(HELD)
    rules.event(0, "level", 11)
    rules.event(3, "level", 9)
    rules.tick(100)
    assert _brief(rules.decisions) == [(0, "valve on"), (3, "pump off"), (3, "valve off")]
    assert rules.engine.deadline_ns is None


def test_a_step_at_the_very_instant_of_the_end_comes_first(line):
    """A deadline at an event's time fires before the event."""
    rules = line(HELD)
    rules.event(0, "level", 11)
    rules.event(5, "level", 9)
    assert _brief(rules.decisions) == [(0, "valve on"), (5, "pump on"), (5, "pump off"), (5, "valve off")]


def test_silence_cancels_a_sequence_before_its_step_of_the_same_instant(line):
    """At one instant silence comes before what is due."""
    rules = line(HELD.replace("stale_after: 30s", "stale_after: 5s"))
    rules.event(0, "level", 11)
    rules.tick(100)
    assert _brief(rules.decisions) == [(0, "valve on"), (5, "pump off"), (5, "valve off")]


def test_a_rule_that_goes_on_holding_runs_its_sequence_once(line):
    """Events that change nothing do not begin it again."""
    rules = line(HELD)
    for second in range(0, 20, 2):
        rules.event(second, "level", 11)
    assert _brief(rules.decisions) == [(0, "valve on"), (5, "pump on"), (10, "running")]


STAIRS = """
    rules:
      - id: stairs
        on: button
        mode: restart
        then:
          - command: {topic: light, payload: "ON", state: "on"}
          - wait: 3m
          - command: {topic: light, payload: "OFF", state: "off"}
"""


def test_at_a_start_a_sequence_under_way_says_again_what_it_last_commanded(line):
    """R6: on in the middle, off when there is none."""
    rules = line(STAIRS)
    assert _brief(rules.engine.start(1)) == [(1e-9, "light off")]
    rules.event(10, "button")
    rules.restart()
    assert _brief(rules.engine.start(20 * S)) == [(20, "light on")]
    assert _brief(rules.tick(1_000)) == [(190, "light off")]


def test_a_shutdown_in_the_middle_of_a_sequence_does_what_it_would_still_switch_off(line):
    """L10."""
    rules = line(STAIRS)
    rules.event(0, "button")
    assert {topic: command.state for topic, command in rules.engine.safe_commands().items()} == {"light": "off"}
    rules.tick(1_000)
    assert rules.engine.safe_commands() == {}


def test_a_shutdown_does_what_a_sequence_of_a_condition_and_its_finally_would_switch_off(line):
    """L10: whatever the sequence has reached."""
    rules = line(HELD)
    rules.event(0, "level", 11)
    assert {topic: command.state for topic, command in rules.engine.safe_commands().items()} == {
        "pump": "off",
        "valve": "off",
    }


def test_a_rule_that_is_taken_away_in_the_middle_switches_off_what_it_switched_on(line):
    """R11: a reload leaves no light burning."""
    rules = line(STAIRS)
    rules.event(0, "button")
    assert _brief(rules.engine.leave({}, 5 * S)) == [(5, "light off")]


def test_a_key_that_makes_room_switches_off_what_its_sequence_switched_on(line):
    """Memory is bounded; a light is not left on for that."""
    rules = line(STAIRS.replace("button", "button/{room}").replace("topic: light", 'topic: "light/{room}"'), max_keys=1)
    rules.event(0, "button/a")
    rules.event(1, "button/b")
    assert [(d.key, d.action.topic, d.action.state) for d in rules.decisions if d.action.state == "off"] == [
        ("a", "light/a", "off")
    ]


def test_a_queue_forgotten_to_make_room_fires_nothing_later(line):
    """Its machine is gone, with all its deadlines."""
    rules = line(STEPS.replace("single", "queued"), max_keys=1)
    for value in range(3):
        rules.event(0, "bell/a", value)
    rules.event(1, "bell/b", 9)
    rules.tick(100)
    assert [text for _, text in rules.said()] == ["a 0 one", "b 9 one", "b 9 two", "b 9 three"]
    assert rules.engine.deadline_ns is None


def test_each_firing_of_a_sequence_is_counted_when_it_begins(line):
    """Dropped ones are not firings."""
    rules = line(STEPS)
    for second in range(5):
        rules.event(second, "bell/a", second)
    assert rules.engine.firings() == {"bell": 1}


def test_a_variable_set_in_a_sequence_is_set_at_its_time(line):
    """What follows the wait reads what stands there then."""
    rules = line("""
        rules:
          - id: r
            on: go
            then:
              - set: {n: 1}
              - wait: 5s
              - notify: {to: x, text: 'n is {var("n")}'}
              - set: {n: 2}
          - {id: other, on: put, then: [{set: {n: "{value}"}}]}
    """)
    rules.event(0, "go")
    rules.event(3, "put", 42)
    rules.tick(10)
    assert (5, "n is 42") in rules.said()
    assert rules.engine.world.variables == {"n": 2}

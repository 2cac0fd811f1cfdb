"""What holds a rule back or keeps it going: cooldown, keep_for, until, what came before, limits, age, trial."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from gateway.model import DERIVED, HOPS_SHIFT, Publish, Set
from tests.rules.traced import S, Traced, told


@pytest.fixture
def line(load):
    """`line(yaml)` gives a traced timeline."""
    return lambda source, **limits: Traced(load(source), **limits)


LEVEL = """
    rules:
      - id: r
        on: d/{device}/t
        when: t > 20
        {more}
        then: [{notify: {to: x, text: "{device} {t}"}}]
        finally: [{notify: {to: x, text: "{device} over {t}"}}]
"""


def _rule(more, source=LEVEL):
    return source.replace("{more}", more.replace("; ", "\n        "))


def _feed(rules, readings, topic="d/a/t"):
    for second, value in readings:
        rules.event(second, topic, {"t": value})
    return rules


def test_keep_for_bridges_a_short_end(line):
    """It ends once it has been over for so long, at that instant; a beginning in between keeps it going."""
    rules = _feed(line(_rule("keep_for: 10s")), [(0, 25), (1, 15), (9, 25), (12, 15), (15, 14)])
    assert rules.said() == [(0, "a 25")]
    assert told(rules.tick(100)) == [(22, "a over 14")]


def test_keep_for_is_over_at_its_instant_even_if_an_event_comes_then(line):
    """The deadline lies before the event, which may begin it anew."""
    rules = _feed(line(_rule("keep_for: 10s")), [(0, 25), (1, 15), (11, 25)])
    assert rules.said() == [(0, "a 25"), (11, "a over 15"), (11, "a 25")]


def test_an_unknown_reading_does_not_stop_keep_for(line):
    """It is as no event."""
    rules = _feed(line(_rule("keep_for: 10s")), [(0, 25), (1, 15), (5, None), (10, "x")])
    assert told(rules.tick(100)) == [(11, "a over 15")]


def test_keep_for_with_until_counts_from_where_until_held(line):
    """Between the two thresholds neither is true: what was over is over no more."""
    rules = line(_rule("until: t < 10; keep_for: 5s"))
    _feed(rules, [(0, 25), (1, 9), (3, 15), (4, 9), (8, 9)])
    assert told(rules.tick(100)) == [(9, "a over 9")]


def test_cooldown_begins_what_still_holds_when_it_is_over(line):
    """Not before, and at that instant."""
    rules = _feed(line(_rule("cooldown: 1m")), [(0, 25), (10, 15), (20, 26), (59.999, 27)])
    assert rules.said() == [(0, "a 25"), (10, "a over 15")]
    assert told(rules.tick(1_000)) == [(60, "a 27")]


def test_cooldown_begins_nothing_that_holds_no_more(line):
    """Nor tells that it is over."""
    rules = _feed(line(_rule("cooldown: 1m")), [(0, 25), (10, 15), (20, 26), (30, 15)])
    rules.tick(1_000)
    assert rules.said() == [(0, "a 25"), (10, "a over 15")]


def test_cooldown_and_for_are_both_kept(line):
    """The later of the two decides."""
    rules = _feed(line(_rule("for: 15s; cooldown: 1m")), [(0, 25)])
    rules.tick(15)
    _feed(rules, [(20, 15), (65, 26)])
    assert told(rules.tick(1_000)) == [(80, "a 26")]
    _feed(rules, [(1_000, 15), (1_001, 26)])
    assert told(rules.tick(1_020)) == [(1_016, "a 26")]


def test_cooldown_of_a_rule_without_phases_drops(line):
    """An event is there once; at the very end of the cooldown the next one fires."""
    rules = line("rules: [{id: r, on: t, cooldown: 10s, then: [{notify: {to: x, text: '{value}'}}]}]")
    for second, value in [(0, 1), (1, 2), (9.999, 3), (10, 4)]:
        rules.event(second, "t", value)
    assert rules.said() == [(0, "1"), (10, "4")]
    assert rules.whats() == ["fired", "cooling", "cooling", "fired"]


def test_cooldown_counts_for_each_key(line):
    """One device's alarm does not silence another's."""
    rules = line(_rule("cooldown: 1m"))
    _feed(rules, [(0, 25), (1, 15)])
    _feed(rules, [(2, 25)], topic="d/b/t")
    assert (2, "b 25") in rules.said()


FOLLOWS = """
    rules:
      - id: r
        on: pay/{order}
        after: {on: "order/{order}", when: total > 10}
        within: 30s
        then: [{notify: {to: x, text: "{order}"}}]
"""


def test_what_must_come_before_counts_for_so_long_and_once(line):
    """Up to the very instant; then it is used up; and only for the same captures, and if it holds itself."""
    rules = line(FOLLOWS)
    rules.event(0, "pay/1")
    rules.event(1, "order/1", {"total": 50})
    rules.event(1, "order/2", {"total": 5})
    rules.event(1, "order/3", {"total": 50})
    rules.event(2, "pay/2")
    rules.event(31, "pay/1")
    rules.event(31, "pay/1")
    rules.event(31.001, "pay/3")
    assert rules.said() == [(31, "1")]
    assert rules.whats() == ["unarmed", "unarmed", "fired", "unarmed", "unarmed"]


def test_one_of_three_on_the_same_topic_is_used_up_as_the_trigger(line):
    """Two presses within half a minute fire once, and the third one follows nothing until a fourth."""
    rules = line(FOLLOWS.replace("pay/{order}", "press/{order}").replace("order/{order}", "press/{order}"))
    rules.batch(1, [("press/1", {"total": 50}, 1)] * 2)  # at one instant, and yet two
    for at_s in (2, 3, 4):
        rules.event(at_s, "press/1", {"total": 50})
    assert rules.said() == [(1, "1"), (3, "1")]
    assert rules.whats() == ["unarmed", "fired", "unarmed", "fired", "unarmed"]


def test_what_came_before_outlives_a_restart(line):
    """L12."""
    rules = line(FOLLOWS)
    rules.event(1, "order/1", {"total": 50})
    rules.restart()
    rules.event(2, "pay/1")
    assert rules.said() == [(2, "1")]


def test_an_older_event_that_comes_later_does_not_take_back_a_newer_one(line):
    """By their own time, the one of second 100 still lies within thirty seconds of second 105."""
    rules = line(FOLLOWS.replace("        then", "        time: ts\n        max_age: 10m\n        then"))
    at = rules.wall_s
    rules.event(100, "order/1", {"total": 50, "ts": at + 100})
    rules.event(101, "order/1", {"total": 50, "ts": at + 50})
    rules.event(105, "pay/1", {"ts": at + 105})
    assert rules.said() == [(105, "1")]


def test_what_happened_before_the_log_began_may_be_followed(line):
    """An event that is older than the log's first second is still only twenty seconds old."""
    rules = line(FOLLOWS.replace("        then", "        time: ts\n        max_age: 10m\n        then"))
    at = rules.wall_s
    rules.event(5, "order/1", {"total": 50, "ts": at - 15})
    rules.event(6, "pay/1", {"ts": at + 6})
    assert rules.said() == [(6, "1")]


def test_phases_that_must_follow_something(line):
    """`for` is held first; then it must have come within so long."""
    rules = line(_rule("for: 5s; after: {on: 'd/{device}/motion'}; within: 10s"))
    _feed(rules, [(0, 25)])
    rules.event(1, "d/a/motion")
    assert told(rules.tick(6)) == [(5, "a 25")]


BREAKER = """
    rules:
      - id: r
        on: t
        most_per_minute: 3
        then: [{notify: {to: x, text: "{value}"}}]
"""


def test_a_rule_that_fires_too_often_is_held_back(line):
    """Three within any minute, counted sliding; what is more is told and counted."""
    rules = line(BREAKER)
    for second in [0, 10, 20, 30, 59.999, 60, 60.001, 70, 75, 80]:
        rules.event(second, "t", second)
    assert [second for second, _ in rules.said()] == [0, 10, 20, 60, 70, 80]
    assert rules.engine.world.storms == rules.whats().count("storm") == 4


def test_a_rule_with_phases_begins_when_the_limit_lets_it(line):
    """What still holds then."""
    rules = line(_rule("most_per_minute: 2"))
    _feed(rules, [(0, 25), (1, 15), (2, 25), (3, 15), (4, 25)])
    assert [second for second, text in rules.said() if "over" not in text] == [0, 2]
    assert told(rules.tick(100)) == [(60, "a 25")]


@pytest.mark.parametrize(("action", "limit"), [("publish: {topic: z, payload: y}", 20), ("set: {v: 1}", 100)])
def test_what_commands_or_publishes_is_limited_unless_it_says_otherwise(line, action, limit):
    """Twenty a minute; what only remembers is not limited."""
    rules = line("rules: [{id: r, on: t, then: [{%s}]}]" % action)  # noqa: UP031 - braces all over
    for _ in range(100):
        rules.event(1, "t", 1)
    assert len(rules.decisions) == limit


def test_the_limit_outlives_a_restart(line):
    """A crash loop is no way around it."""
    rules = line(BREAKER)
    for second in range(10):
        rules.event(second, "t", second)
        rules.restart()
    assert len(rules.decisions) == 3


LATE = """
    rules:
      - id: r
        on: t
        time: ts
        max_age: 10s
        then: [{notify: {to: x, text: hi}}]
"""


def _times(at_s):
    instant = datetime.fromtimestamp(at_s, UTC)
    return [
        at_s,
        float(at_s),
        at_s * 1_000,
        at_s * 1_000.0,
        instant.isoformat(),
        instant.isoformat().replace("+00:00", "Z"),
        instant.isoformat().removesuffix("+00:00"),
        instant.astimezone(timezone(timedelta(hours=14))).isoformat(),
        instant.strftime("%Y%m%dT%H%M%SZ"),
    ]


@pytest.mark.parametrize("spelling", range(9))
@pytest.mark.parametrize(("age_s", "fires"), [(0, True), (10, True), (11, False), (-1, True), (10**8, False)])
def test_an_event_older_than_max_age_triggers_nothing(line, spelling, age_s, fires):
    """Seconds, milliseconds or ISO 8601 alike; it is told as late."""
    rules = line(LATE)
    rules.event(500, "t", {"ts": _times(round(rules.wall_s) + 500 - age_s)[spelling]})
    assert rules.whats() == (["fired"] if fires else ["late"])


@pytest.mark.parametrize("time", [None, "soon", "", True, [], {}, 0, -5, 1e300, "9" * 5_000, "2024-13-45", "\ud800"])
def test_a_time_that_is_none_is_the_time_of_arrival(line, time):
    """A device without a clock is still heard."""
    rules = line(LATE)
    assert len(rules.event(500, "t", {"ts": time})) == 1


@pytest.mark.parametrize(
    "time", ["0001-01-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", 99_999_999_999_999]
)
def test_times_at_the_ends_of_the_calendar_stop_nobody(line, time):
    """They are late, or they lie ahead and count from their arrival."""
    rules = line(LATE)
    fired = len(rules.event(500, "t", {"ts": time}))
    assert fired == (not str(time).startswith("0"))


def test_an_event_that_lies_far_ahead_counts_from_its_arrival(line):
    """And is told, since its device's clock is wrong."""
    rules = line(LATE)
    rules.event(500, "t", {"ts": rules.wall_s + 500 + 301})
    assert rules.whats() == ["late", "fired"]


def test_while_the_wall_clock_is_not_known_nothing_is_late(line):
    """L11: an age would be the difference of two clocks of which one says nothing."""
    rules = line(LATE)
    rules.synced = False
    assert len(rules.event(500, "t", {"ts": 5})) == 1


def test_a_late_event_neither_begins_nor_ends_nor_breaks_a_silence(line):
    """L9: what is old is no news."""
    rules = line("""
        rules:
          - id: r
            on: {topic: t, silent: 10s}
            time: ts
            then: [{notify: {to: x, text: gone}}]
            finally: [{notify: {to: x, text: back}}]
          - id: hot
            on: t
            when: v > 20
            time: ts
            then: [{notify: {to: x, text: hot}}]
            finally: [{notify: {to: x, text: cool}}]
    """)
    at = rules.wall_s
    rules.event(100, "t", {"v": 25, "ts": at + 100})
    rules.event(105, "t", {"v": 15, "ts": at + 40})
    assert rules.said() == [(100, "hot")]
    assert told(rules.tick(200)) == [(110, "gone")]
    rules.event(200, "t", {"v": 15, "ts": at + 139})
    assert rules.said() == [(100, "hot"), (110, "gone")]


SHADOW = """
    rules:
      - id: trial
        on: level
        shadow: true
        when: value > 10
        stale_after: 30s
        on_stale: "off"
        then:
          - command: {topic: pump, payload: "ON", state: "on"}
          - set: {mode: trial}
          - publish: {topic: z, payload: y}
        finally: [{command: {topic: pump, payload: "OFF", state: "off"}}]
"""


def test_a_rule_on_trial_decides_and_nobody_is_to_act_on_it(line):
    """Its decisions say so; it sets no variable, asserts nothing at a start, and makes nothing safe."""
    rules = line(SHADOW)
    decisions = rules.event(0, "level", 11)
    assert [type(d.action) for d in decisions][1:] == [Set, Publish]
    assert all(d.shadow for d in decisions)
    assert rules.engine.world.variables == {}
    assert rules.engine.start(S) == []
    assert rules.engine.safe_commands() == {}
    assert all(d.shadow for d in rules.tick(100))
    assert rules.whats() == ["fired", "stale"]


def test_a_rule_on_trial_decides_what_it_would_decide_in_earnest(load, line):
    """Same times, same ids, same words."""
    earnest, trial = line(SHADOW.replace("shadow: true", "shadow: false")), line(SHADOW)
    for rules in (earnest, trial):
        for second, value in [(0, 11), (5, 9), (6, 12), (50, 3)]:
            rules.event(second, "level", value)
    assert [(d.id, d.action, d.because) for d in earnest.decisions] == [
        (d.id, d.action, d.because) for d in trial.decisions
    ]


def test_a_tick_far_ahead_fires_everything_at_its_own_time(line):
    """Ten years at once are ten years one after the other."""
    source = _rule("for: 5s; cooldown: 1m; keep_for: 3s; stale_after: 20s")
    at_once, slowly = line(source), line(source)
    for rules in (at_once, slowly):
        _feed(rules, [(0, 25), (6, 15)])
    for second in range(7, 200):
        slowly.tick(second)
    at_once.tick(3e8)
    slowly.tick(3e8)
    assert at_once.decisions == slowly.decisions
    assert at_once.engine.snapshot() == slowly.engine.snapshot()


def test_a_key_that_is_forgotten_and_comes_again_at_once_has_ids_of_its_own(line):
    """No id means two things: who recovers would take the second decision for the first, and leave it out."""
    rules = line(_rule("cooldown: 0s"), max_keys=1)
    rules.batch(1, [(f"d/{device}/t", {"t": 25}, 1) for device in "abab"])
    ids = [decision.id for decision in rules.decisions]
    assert len(ids) == 7
    assert len(set(ids)) == len(ids)


def test_what_is_seen_true_at_a_later_look_stands_behind_as_many_rules_as_its_event(line):
    """A chain that is to be cut is not begun anew by waiting for another device."""
    rules = line("""
        rules:
          - id: r
            on: t
            when: v > device("o", 1h).v
            allow_loop: true
            then: [{emit: {topic: u, payload: x}}]
    """)
    rules.event(0, "t", {"v": 5}, DERIVED | 3 << HOPS_SHIFT)
    rules.event(1, "devices/o/t", {"v": 1})
    assert rules.tick(20) == []
    assert rules.whats() == ["unknown", "fired", "looped"]

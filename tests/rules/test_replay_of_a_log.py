"""L12: a replay of the log decides what the life decided, under the same ids; rules nobody listens to cost nothing."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from gateway.act.records import decode_records, encode_records
from gateway.ingest.decode import values_of
from gateway.model import DERIVED, HOPS_SHIFT, Batch, Command, Decision, Emit, Format, Kind, Outcome, Stamp
from gateway.ringlog.inspect import scan_log
from gateway.rules.engine import Engine
from gateway.rules.trying.replay import Dates, Decoder, Replay, warm_up_ns
from tests.lived import Life

SECOND_NS = 1_000_000_000
RULES = """
    rules:
      - id: hold
        on: d/{device}/t
        when: t > 20
        for: 7s
        until: t < 18
        stale_after: 12s
        then: [{emit: {topic: "alarm/{device}", payload: {t: "{t}"}}}]
      - id: pump
        on: d/{device}/t
        when: avg(t, 10s) > 22
        stale_after: 20s
        on_stale: "off"
        then: [{command: {topic: d/pump, payload: {state: "ON"}, state: "on", min_off: 5s}}]
        finally: [{command: {topic: d/pump, payload: {state: "OFF"}, state: "off"}}]
      - id: each
        on: "alarm/{device}"
        cooldown: 5s
        then: [{notify: {to: x, text: "{device} {t}"}}, {emit: {topic: echo, payload: {t: "{t}"}}}]
      - id: after
        on: echo
        then: [{set: {heard: "{t}"}}, {wait: 3s}, {notify: {to: x, text: later}}]
      - id: clockwork
        on: {every: 11s}
        when: var("heard") > 25
        then: [{notify: {to: x, text: tick}}]
    thermostats:
      - id: warm
        mode: heat
        sensor: {topic: d/a/t, field: t}
        on_below: 15
        off_above: 22
        min_on: 4s
        min_off: 6s
        stale_after: 9s
        on_stale: "off"
        actuator: {topic: d/a/heater, "on": "ON", "off": "OFF"}
"""


def records_of(batch):
    return [record for _, record in decode_records(batch)]


def replayed(batches, ruleset, *, others):
    replay = Replay(ruleset, records_of, others=others)
    decoder = Decoder(values_of, [replay.engine])
    decisions = []
    for batch in batches:
        decoder.fill(batch)
        decisions += replay.take(batch)
    return decisions + replay.finish(batches[-1].stamp.elapsed_ns)


def logged(batches):
    return [
        record
        for batch in batches
        if batch.kind is Kind.DECISIONS
        for record in records_of(batch)
        if isinstance(record, Decision)
    ]


def lived(tmp_path, ruleset, rng, count):
    life = Life(tmp_path, ruleset)
    steps = []
    for _ in range(count):
        topic = rng.choice(["d/a/t", "d/b/t", "other/x", ("d/a/t", 5), ("d/b/t", 9)])
        value = {"t": rng.choice([round(rng.uniform(5, 40), 1), 26.0, 19, None, "x"])}
        steps.append((rng.choice([0, 0.5, 1, 1, 2, 5, rng.randrange(25)]), topic, value))
    life.live(*steps, (30, "", None))
    return [batch for batch in scan_log(tmp_path) if isinstance(batch, Batch)]


def test_a_replay_takes_the_decisions_that_were_taken(load, tmp_path, seed):
    """L12: over the log as it was, with its derived events and outcomes: same ids and actions, none more, none less."""
    ruleset, rng = load(RULES), random.Random(seed)
    for number in range(4):
        batches = lived(tmp_path / str(number), ruleset, rng, 120)
        decisions = replayed(batches, ruleset, others=False)
        assert {each.id: each for each in decisions} == {each.id: each for each in logged(batches)}
        assert len(decisions) == len(logged(batches)) > 10


def test_the_same_rules_on_trial_derive_the_same_events_once(load, tmp_path, seed):
    """What they emit takes the place of what the log holds from them: nothing is seen twice, and nothing is missed."""
    ruleset, rng = load(RULES), random.Random(seed)
    for number in range(4):
        batches = lived(tmp_path / str(number), ruleset, rng, 120)
        decisions = replayed(batches, ruleset, others=True)
        assert {each.id: each.action for each in decisions} == {each.id: each.action for each in logged(batches)}


def _events(at_s, *records, seq=0, flags=1):
    return Batch(
        kind=Kind.EVENTS,
        stamp=Stamp(round(at_s * SECOND_NS), 0, round(at_s * SECOND_NS), bytes(16), True),
        topics=[topic for topic, _ in records],
        formats=[Format.JSON] * len(records),
        flags=[flags] * len(records),
        payloads=[payload for _, payload in records],
        seq=seq,
    )


def test_only_what_some_rule_listens_to_is_decoded(load):
    """L13: other topics keep their place, and their payloads are never looked at."""
    asked = []

    def counting(batch):
        asked.append(list(batch.topics))
        return values_of(batch)

    engine = Engine(load("rules: [{id: a, on: 'd/{device}/t', when: t > 1, then: [{notify: {to: x, text: hi}}]}]"))
    decoder = Decoder(counting, [engine])
    batch = _events(1, ("x", b"not json"), ("d/a/t", b'{"t": 2}'), ("y", b"{"), ("d/b/t", b'{"t": 0}'))
    decoder.fill(batch)
    assert asked == [["d/a/t", "d/b/t"]]
    assert batch.values == [None, {"t": 2}, None, {"t": 0}]
    assert [decision.cause_seq for decision in engine.run(replace(batch, seq=40))] == [41]
    decoder.fill(nothing := _events(2, ("x", b"x"), ("y", b"y")))
    assert nothing.values == [None, None]
    assert len(asked) == 1


def test_what_a_deadline_emits_is_seen_at_the_deadline_s_own_time(load):
    """Rules on trial: between two records that lie far apart a chain of rules runs as it would have run live."""
    ruleset = load("""
        rules:
          - {id: a, on: t, when: v > 1, for: 5s, then: [{emit: {topic: next, payload: {v: 7}}}]}
          - {id: b, on: next, when: v > 1, for: 5s, then: [{notify: {to: x, text: "{v}"}}]}
    """)
    decisions = replayed([_events(1, ("t", b'{"v": 2}')), _events(100, ("u", b"1"), seq=1)], ruleset, others=True)
    assert [(each.rule, each.elapsed_ns // SECOND_NS) for each in decisions] == [("a", 6), ("b", 11)]


def test_derived_events_of_rules_that_are_not_on_trial_stay(load):
    """Who derived an event stands in the record behind it: only what rules of the same name derived is left out."""
    ruleset = load("rules: [{id: b, on: next, then: [{notify: {to: x, text: hi}}]}]")
    both = load("""
        rules:
          - {id: a, on: t, then: [{emit: {topic: next, payload: {v: 7}}}]}
          - {id: b, on: next, then: [{notify: {to: x, text: hi}}]}
    """)
    stamp = Stamp(SECOND_NS, 0, SECOND_NS, bytes(16), True)
    emit = Decision(f"a//{SECOND_NS}/0", "a", "", Emit("next", b'{"v":7}'), SECOND_NS, 0, "an event came")
    log = [
        _events(1, ("t", b"1")),
        _events(1, ("next", b'{"v":7}'), seq=1, flags=DERIVED | 1 << HOPS_SHIFT),
        replace(encode_records([emit], stamp), seq=2),
    ]
    assert [each.rule for each in replayed(log, ruleset, others=True)] == ["b"]
    assert [each.rule for each in replayed(log, both, others=True)] == ["a", "b"]
    assert [each.rule for each in replayed(log[:2], ruleset, others=True)] == ["b"]


@pytest.mark.parametrize(("others", "retries"), [(True, 1), (False, 1)])
def test_what_was_denied_in_life_is_told_to_the_rule_that_decided_it_again(load, others, retries):
    """A rule on trial that takes the very decision asks again 30 s later, as it did in life; another one does not."""
    ruleset = load("""
        rules:
          - id: a
            on: t
            when: v > 1
            stale_after: 10m
            on_stale: hold
            then: [{command: {topic: fan, payload: "ON", state: "on"}}]
            finally: [{command: {topic: fan, payload: "OFF", state: "off"}}]
    """)
    stamp = Stamp(SECOND_NS, 0, SECOND_NS, bytes(16), True)
    for name, expected in ((f"a//{SECOND_NS}/0", 1 + retries), (f"a//{SECOND_NS}/7", 1 if others else 2)):
        denied = replace(encode_records([Outcome(name, "denied", "rest", SECOND_NS)], stamp), seq=1)
        log = [_events(1, ("t", b'{"v": 2}')), denied, _events(40, ("u", b"1"), seq=2)]
        decisions = replayed(log, ruleset, others=others)
        assert [each.action.state for each in decisions if isinstance(each.action, Command)] == ["on"] * expected


def test_the_wall_clock_of_an_instant_is_that_of_the_records_around_it():
    """A jump of the wall clock moves what comes after it, and nothing before."""
    dates = Dates()
    assert dates.wall_ns(5) == 5
    dates.note(10 * SECOND_NS, 1_000 * SECOND_NS)
    dates.note(20 * SECOND_NS, 1_010 * SECOND_NS)
    dates.note(30 * SECOND_NS, 5_000 * SECOND_NS)
    assert [dates.wall_ns(at * SECOND_NS) // SECOND_NS for at in (5, 15, 29, 30, 40)] == [995, 1005, 1019, 5000, 5010]


def test_the_warm_up_is_the_longest_duration_that_a_rule_names(load):
    """At least an hour; windows, ages, silences, waits and the thermostat's times count, tumbling windows twice."""
    one = "rules: [{{id: a, on: t, when: '{}', {} then: [{{notify: {{to: x, text: hi}}}}]}}]"
    hour_ns = 3_600 * SECOND_NS
    for when, more, hours in [
        ("v > 1", "", 1),
        ("v > 1", "for: 3h,", 3),
        ("v > 1", "for: 3h, keep_for: 2h,", 5),
        ("v > 1", "stale_after: 4h,", 4),
        ("v > 1", "cooldown: 1d,", 24),
        ("avg(v, 6h) > 1", "", 6),
        ("avg(v, 6h, tumbling) > 1", "", 12),
        ('device("x", 8h).v > 1', "", 8),
    ]:
        assert warm_up_ns(load(one.format(when, more))) == hours * hour_ns
    assert warm_up_ns(load(RULES)) == hour_ns

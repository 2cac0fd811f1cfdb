"""What the trace is told: each change of state and each near miss, when it happens, once, and with its values."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gateway.rules.trace
from gateway.model import DERIVED, HOPS_SHIFT
from gateway.rules.engine import Engine
from tests.rules.traced import S, Traced

LEVEL = """
    rules:
      - id: r
        on: d/{device}/t
        when: t > 20
        for: 5s
        until: t < 10
        stale_after: 30s
        on_stale: "off"
        cooldown: 1m
        then: [{command: {topic: "{device}/fan", payload: "ON", state: "on"}}]
        finally: [{command: {topic: "{device}/fan", payload: "OFF", state: "off"}}]
"""


@pytest.fixture
def line(load):
    """`line(yaml)` gives a traced timeline."""
    return lambda source, **limits: Traced(load(source), **limits)


def _told(rules):
    return [(trace.elapsed_ns / S, trace.what, trace.readings, trace.seq) for trace in rules.trace]


def test_a_whole_life_is_told_with_its_values(line):
    """pending, reset, pending, fired, unknown, ended: with the record that led to it, or none if time did."""
    rules = line(LEVEL)
    for second, value in [(0, 25), (2, 15), (3, 26), (10, None), (11, 12), (12, 9)]:
        rules.event(second, "d/a/t", {"t": value})
    assert _told(rules) == [
        (0, "pending", "t = 25", 0),
        (2, "reset", "t = 15", 1),
        (3, "pending", "t = 26", 2),
        (8, "fired", "t = 26", None),
        (10, "unknown", "t = unknown", 3),
        (12, "ended", "t = 9", 5),
    ]
    assert rules.trace[1].detail == "true for 2 s of 5 s"
    assert {(trace.rule, trace.key) for trace in rules.trace} == {("r", "a")}


def test_silence_is_told_once_at_its_instant(line):
    """Of a pending rule and of an active one; not of one that has nothing to lose."""
    rules = line(LEVEL)
    rules.event(0, "d/a/t", {"t": 25})
    rules.event(0, "d/b/t", {"t": 15})
    rules.tick(1_000)
    assert [each[:2] for each in _told(rules)] == [(0, "pending"), (5, "fired"), (30, "stale")]
    assert rules.trace[-1].detail == "no known reading for 30 s"


def test_what_cools_is_told(line):
    """When it would have begun."""
    rules = line(LEVEL)
    for second, value in [(0, 25), (6, 9), (7, 25)]:
        rules.event(second, "d/a/t", {"t": value})
    rules.event(20, "d/a/t", {"t": 26})
    assert (20, "cooling", "t = 26", 3) in _told(rules)


def test_rubbish_after_rubbish_is_told_once(line):
    """A sensor that sends NaN all night fills no page."""
    rules = line(LEVEL)
    rules.event(0, "d/a/t", {"t": 5})
    for second in range(1, 50):
        rules.event(second, "d/a/t", {"t": None})
    assert rules.whats() == ["unknown"]


@pytest.mark.parametrize("state", ["denied", "expired", "unconfirmed"])
def test_what_an_actuator_refused_is_told_to_its_rule(line, state):
    """By the decision's id, whatever the key looks like."""
    rules = line(LEVEL)
    rules.event(0, "d/a,b%/t", {"t": 25})
    (decision,) = rules.tick(5)
    rules.engine.refused(decision.id, state, 6 * S)
    trace = rules.trace[-1]
    assert (trace.what, trace.rule, trace.key, trace.elapsed_ns) == ("refused", "r", "a,b%", 6 * S)
    assert decision.id in trace.detail
    assert state in trace.detail


@pytest.mark.parametrize("name", ["gone/a/5/0", "r/nobody/5/0", "r", "", "/", "interlock//5/0", "make-safe//1/2"])
def test_a_refusal_that_concerns_nobody_is_passed_over(line, name):
    """Decisions of rules that are gone, of keys that were forgotten, of act itself."""
    rules = line(LEVEL)
    rules.event(0, "d/a/t", {"t": 5})
    assert rules.engine.refused(name, "denied", S) == []
    assert rules.trace == []


EDGE = """
    rules:
      - id: r
        on: t
        time: ts
        {more}
        then: [{emit: {topic: u, payload: "{v}"}}, {wait: 5s}, {notify: {to: x, text: y}}]
"""


@pytest.mark.parametrize(
    ("more", "events", "expected"),
    [
        ("mode: single", [(0, {}), (1, {})], ["fired", "dropped"]),
        ("mode: restart", [(0, {}), (1, {})], ["fired", "fired"]),
        ("mode: queued; max: 2", [(0, {}), (1, {}), (2, {})], ["fired", "queued", "fired", "dropped"]),
        ("mode: parallel; max: 2", [(0, {}), (1, {}), (2, {})], ["fired", "fired", "dropped"]),
        ("where: v > 5", [(0, {"v": 4}), (0, {"v": 6}), (0, {})], ["gated", "fired", "gated"]),
        ("cooldown: 10s", [(0, {}), (9, {}), (10, {})], ["fired", "cooling", "fired"]),
        ("mode: parallel; most_per_minute: 1", [(0, {}), (9, {}), (60, {})], ["fired", "storm", "fired"]),
        ("max_age: 5s", [(100, {"ts": 1_700_000_094}), (100, {"ts": 1_700_000_096})], ["late", "fired"]),
        ("after: {on: s}; within: 5s", [(0, {})], ["unarmed"]),
    ],
    ids=["dropped", "restart", "queued", "parallel", "gated", "cooling", "storm", "late", "unarmed"],
)
def test_each_near_miss_of_a_rule_that_only_fires_is_told_by_its_name(line, more, events, expected):
    """And what fires is told as fired."""
    rules = line(EDGE.replace("{more}", more.replace("; ", "\n        ")))
    for second, value in events:
        rules.event(second, "t", value)
    assert rules.whats() == expected


def test_a_chain_that_is_cut_is_told(line):
    """With the topic on which nothing was emitted."""
    rules = line(EDGE.replace("{more}", ""))
    rules.event(0, "t", {}, DERIVED | 3 << HOPS_SHIFT)
    assert rules.whats() == ["fired", "looped"]
    assert "`u`" in rules.trace[-1].detail


def test_the_trace_names_nothing_that_its_module_does_not(line, load):
    """The words are a vocabulary, and each is explained there."""
    folder = Path(gateway.rules.trace.__file__).parent
    explained = set(re.findall(r"`([a-z]+)`", folder.joinpath("trace.py").read_text(encoding="utf-8")))
    for path in folder.glob("*_machine.py"):
        source = path.read_text(encoding="utf-8")
        for word in re.findall(r'(?:tell\(|what = |_end\(|why_not = )"([a-z]+)"', source):
            assert word in explained, f"{path.name} tells `{word}`"


def test_a_trace_changes_no_decision(load):
    """Running without one gives the same, in the same words."""
    silent = Traced(load(LEVEL))
    silent.engine = Engine(silent.ruleset)
    told = Traced(load(LEVEL))
    for rules in (silent, told):
        for second, value in [(0, 25), (2, 15), (3, 26), (10, None), (11, 12), (12, 9), (13, 25)]:
            rules.event(second, "d/a/t", {"t": value})
        rules.tick(500)
    assert silent.decisions == told.decisions
    assert silent.trace == []
    assert silent.engine.snapshot() == told.engine.snapshot()

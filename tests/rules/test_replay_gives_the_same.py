"""L12: rule state is a function of the log, whenever ticks come and wherever a restart falls."""

from __future__ import annotations

import random

import msgspec
import pytest

from gateway.rules.engine import Engine

RULES = """
    rules:
      - id: hold
        on: d/{device}/t
        when: t > 20
        for: 7s
        until: t < 18
        stale_after: 12s
        then: [{notify: {to: x, text: "{device} {t} {name}"}}, {emit: {topic: "alarm/{device}", payload: {t: "{t}"}}}]
        finally: [{notify: {to: x, text: "{device} over at {t}"}}]
      - id: pump
        on: d/{device}/t
        when: t > 25 or wet == true
        for: 3s
        stale_after: 5s
        on_stale: off
        then: [{command: {topic: "d/{device}/pump", payload: {state: "ON", at: "{t}"}, state: "on"}}]
        finally: [{command: {topic: "d/{device}/pump", payload: {state: "OFF"}, state: "off"}}]
      - id: each
        on: "alarm/#"
        then: [{emit: {topic: derived, payload: "{t}"}}]
      - id: patient
        on: d/+/t
        when: t < 5
        for: 9s
        then: [{notify: {to: x, text: "{topic} {t}"}}]
    thermostats:
      - id: warm
        mode: heat
        sensor: {topic: d/a/t, field: t}
        on_below: 15
        off_above: 22
        min_on: 4s
        min_off: 6s
        max_on: 20s
        reassert: 11s
        stale_after: 9s
        on_stale: "off"
        actuator: {topic: d/a/heater, "on": "ON", "off": "OFF"}
"""


def _log(rng, records):
    """Batches of (time, records) as a log would hold them: several at once, bad, flagged, silences."""
    now, log = 0, []
    for _ in range(records):
        now += rng.choice([0, 1, 1, 1, 2, 3, rng.randrange(30)])
        batch = []
        for _ in range(rng.randrange(1, 4)):
            value = {"t": rng.choice([rng.uniform(0, 40), 26.0, 19, float("nan"), None, "x"]), "name": rng.choice("pq")}
            if rng.random() < 0.2:
                value["wet"] = rng.random() < 0.5
            topic = rng.choice(["d/a/t", "d/b/t", "d/c/t", "alarm/z", "other/x"])
            batch.append((topic, value, rng.choice([1, 1, 1, 1, 1, 4, 8, 0x10, 0xD0])))
        log.append((now, batch))
    return log


@pytest.fixture
def live(load, run):
    """`live(log, ...)` gives all decisions of one life."""
    ruleset = load(RULES)
    Timeline = type(run(RULES))

    def life(log, *, ticks=None, restart_before=()):
        line = Timeline(Engine(ruleset, max_keys=2))
        for index, (at, batch) in enumerate(log):
            if index in restart_before:
                snapshot = line.engine.snapshot()
                line.engine = Engine(ruleset, max_keys=2)
                assert line.engine.restore(snapshot) == []
                assert line.engine.snapshot() == snapshot
            if ticks is not None:
                last = log[index - 1][0] if index else 0
                for moment in sorted(ticks.uniform(last, at) for _ in range(ticks.randrange(4))):
                    line.tick(moment)
            line.batch(at, batch)
        line.tick(log[-1][0] + 100)
        return line.decisions, line.engine.snapshot()

    return life


def test_when_ticks_come_shows_in_nothing(live, seed):
    """Same decisions, same ids, same final state, with no tick between events and with many."""
    rng = random.Random(seed)
    for _ in range(60):
        log = _log(rng, 60)
        assert live(log) == live(log, ticks=rng)


def test_a_restart_before_any_record_shows_in_nothing(live, seed):
    """Snapshot and restore at every prefix of a log, and at many at once."""
    rng = random.Random(seed)
    log = _log(rng, 80)
    expected = live(log)
    for index in range(len(log)):
        assert live(log, restart_before={index}) == expected
    for _ in range(20):
        log = _log(rng, 60)
        assert live(log, restart_before=set(rng.sample(range(60), 15)), ticks=rng) == live(log)


def test_ids_name_each_decision_once(live, seed):
    """A replay repeats nothing because no id means two things."""
    rng = random.Random(seed)
    for _ in range(20):
        decisions, _ = live(_log(rng, 80))
        assert len({decision.id for decision in decisions}) == len(decisions)
        assert [d.elapsed_ns for d in decisions] == sorted(d.elapsed_ns for d in decisions)


def test_an_edit_keeps_the_state_of_rules_that_stay_the_same(load, run):
    """The timer of `hold` survives a reload in which another rule changed, moved and went away (R11)."""
    line = run(RULES)
    line.event(0, "d/a/t", {"t": 30})
    edited = RULES.replace("for: 3s", "for: 4s").replace("id: patient", "id: impatient")
    engine = Engine(load(edited))
    assert engine.restore(line.engine.snapshot()) == [
        "pump: its state is dropped, the rule has changed",
        "patient: its state is dropped, there is no such rule any more",
    ]
    line.engine = engine
    assert [d.elapsed_ns for d in line.tick(8) if d.rule == "hold"] == [7 * 10**9] * 2


def test_where_a_rule_stands_is_no_part_of_its_identity(load):
    """Comments, order of keys and moving a rule to another line keep its state."""
    one = load("rules: [{id: a, on: t, when: v > 1, then: [{notify: {to: x, text: hi}}]}]")
    other = load("""
        # a comment
        rules:
          - then: [{notify: {text: hi, to: x}}]
            when: "v > 1"
            on: t
            id: a
    """)
    assert one.fingerprints == other.fingerprints


@pytest.mark.parametrize("snapshot", [b"", b"\xc1", b"\x92\x01", b"\x92\x02\x80", b"\x92\x01\xa1x", b"not a snapshot"])
def test_a_snapshot_that_cannot_be_read_costs_the_state_and_nothing_else(run, snapshot):
    """The engine starts as new and says so in one sentence."""
    line = run(RULES)
    (sentence,) = line.engine.restore(snapshot)
    assert sentence.startswith("all state is dropped")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rules, _: rules.update(hold=[rules["hold"][0], {"d/a": 5}]),
        lambda rules, _: rules.update(hold=[rules["hold"][0], {"d/a": []}]),
        lambda _, world: world.pop(),
        lambda _, world: world.__setitem__(2, 7),
        lambda _, world: world.__setitem__(3, {"x": 1}),
    ],
)
def test_a_snapshot_that_does_not_fit_leaves_nothing_behind(run, load, spoil):
    """It decodes, and is none of ours: the engine starts as new, not with the half that could be read."""
    line = run(RULES)
    line.event(0, "d/a/t", {"t": 30})
    version, rules, world = msgspec.msgpack.decode(line.engine.snapshot())
    spoil(rules, world)
    engine = Engine(load(RULES))
    new = engine.snapshot()
    (sentence,) = engine.restore(msgspec.msgpack.encode([version, rules, world]))
    assert sentence.startswith("all state is dropped")
    assert engine.snapshot() == new


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**40 + 1])
def test_a_number_beyond_64_bits_comes_back_to_the_last_digit(load, run, number):
    """L12: JSON has no bounds, MessagePack has."""
    source = "rules: [{id: a, on: t, then: [{set: {last: '{v}'}}]}]"
    line = run(source)
    line.event(0, "t", {"v": number})
    line.engine.world.variables["n"] = number
    engine = Engine(load(source))
    assert engine.restore(line.engine.snapshot()) == []
    assert engine.world.variables["n"] == number
    assert type(engine.world.variables["n"]) is int

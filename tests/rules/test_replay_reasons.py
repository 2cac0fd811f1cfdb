"""From steps of machines to what a person reads: changes one by one, near misses folded."""

from __future__ import annotations

from gateway.model import Batch as Records
from gateway.model import Command, Decision, Kind, Notify, Stamp
from gateway.rules.trace import Trace
from gateway.rules.trying.reasons import MOST, Hearing, Story, captured_by, key_of

SECOND_NS = 1_000_000_000


def step(at_s, what, *, key="a", rule="r", detail="", readings="t = 1", seq=None):
    return Trace(at_s * SECOND_NS, rule, key, what, detail, readings, seq)


def story(*steps, device=None):
    found = Story("r", device)
    for each in steps:
        found.hear(each)
    return found


def told(found):
    return [(each.at_ns // SECOND_NS, each.key, each.what, each.times) for each in found.moments()]


def test_near_misses_of_one_kind_are_folded_until_something_changes():
    """Pending and given up, again and again, is one line; after a change it is another."""
    steps = [step(at, what) for at in range(0, 40, 4) for what in ("pending", "reset")]
    steps += [step(50, "pending"), step(60, "fired"), step(70, "ended"), step(80, "pending"), step(81, "reset")]
    found = story(*steps)
    assert told(found) == [(0, "a", "reset", 10), (60, "a", "fired", 1), (70, "a", "ended", 1), (81, "a", "reset", 1)]
    first, fired, *_ = found.moments()
    assert (first.until_ns, first.pending_ns) == (36 * SECOND_NS, 0)
    assert fired.pending_ns == 50 * SECOND_NS
    assert (found.fired, found.near_misses) == (1, {"reset": 11})


def test_keys_are_folded_apart_and_told_in_the_order_of_time():
    """What one device does does not break the line of another; `--device` leaves the others out."""
    steps = [step(1, "cooling"), step(2, "late", key="b"), step(3, "cooling"), step(4, "late", key="b,x")]
    assert told(story(*steps)) == [(1, "a", "cooling", 2), (2, "b", "late", 1), (4, "b,x", "late", 1)]
    assert told(story(*steps, device="x")) == [(4, "b,x", "late", 1)]
    assert told(story(step(1, "fired", key=""), step(1, "fired", rule="q"), device="x")) == [(1, "", "fired", 1)]


def test_what_is_pending_at_the_end_is_told_even_if_it_began_before():
    """The stretch begins, what came before is forgotten, but not what it is waiting for."""
    found = story(step(1, "fired"), step(2, "pending"))
    found.begin()
    assert told(found) == [(2, "a", "pending", 1)]
    found.hear(step(9, "fired"))
    assert [(each.what, each.pending_ns) for each in found.moments()] == [("fired", 2 * SECOND_NS)]


def test_decisions_stand_with_the_change_that_they_came_with():
    """Without one, as in a later stretch of a sequence, they are a moment of their own."""
    found = story(step(5, "fired"))

    def decide(at_s, number):
        at_ns = at_s * SECOND_NS
        found.decided(Decision(f"r/a/{at_ns}/{number}", "r", "a", Notify("x", "hi"), at_ns, 3, "the sequence"))

    for at_s, number in [(5, 0), (5, 1), (9, 0), (9, 1)]:
        decide(at_s, number)
    assert [(each.what, len(each.decisions)) for each in found.moments()] == [("fired", 2), ("decided", 2)]


def test_a_command_that_is_only_said_again_is_folded():
    """A thermostat repeats its command every ten minutes: one line between two changes, with the latest of them."""
    found = story()

    def decide(at_s, text):
        at_ns = at_s * SECOND_NS
        found.decided(Decision(f"r/a/{at_ns}/0", "r", "a", Command("fan", b"", text), at_ns, None, text))

    found.hear(step(0, "fired"))
    for at_s, text in [(0, "on"), (10, "on"), (20, "on"), (30, "off"), (40, "off"), (50, "on")]:
        decide(at_s, text)
    expected = [(0, "fired", 1), (10, "again", 2), (30, "decided", 1), (40, "again", 1), (50, "decided", 1)]
    assert [(at_s, what, times) for at_s, _, what, times in told(found)] == expected
    assert [len(each.decisions) for each in found.moments()] == [1] * 5
    assert found.moments()[1].decisions[0].elapsed_ns == 20 * SECOND_NS
    assert found.near_misses == {}


def test_the_newest_moments_are_kept_and_the_others_counted():
    """Memory is bounded, however often a rule fires."""
    found = story(*(step(at, "fired") for at in range(MOST + 25)))
    assert (len(found.moments()), found.forgotten, found.fired) == (MOST, 25, MOST + 25)
    assert found.moments()[0].at_ns == 25 * SECOND_NS


def test_what_a_rule_heard_says_how_near_it_came(load):
    """How often the condition was what, and between which values each number lay; what is not fresh is only counted."""
    ruleset = load("rules: [{id: r, on: 'd/{device}/t', when: t > 20 and ok, then: [{notify: {to: x, text: hi}}]}]")
    (rule,) = ruleset.rules
    hearing = Hearing(rule, Story("r", "a"))
    values = [{"t": 3, "ok": True}, {"t": 19.5, "ok": True}, {"t": "x", "ok": True}, {"t": 99, "ok": True}]
    for at_s, value in enumerate(values):
        hearing.take(
            Records(
                kind=Kind.EVENTS,
                stamp=Stamp(0, 0, at_s * SECOND_NS, bytes(16), True),
                topics=["d/a/t", "d/b/t", "other"],
                formats=[1, 1, 1],
                flags=[4 if value["t"] == 99 else 1, 1, 1],
                payloads=[b"", b"", b""],
                values=[value, {"t": 1000}, {"t": 1000}],
            )
        )
    assert (hearing.events, hearing.not_fresh, hearing.last_ns) == (4, 1, 3 * SECOND_NS)
    assert hearing.truths == {"false": 2, "unknown": 1}
    found = hearing.extremes["t"]
    assert (found.least, found.least_ns, found.most, found.most_ns) == (3, 0, 19.5, SECOND_NS)
    assert key_of(rule, captured_by(rule, "d/a/t")) == "a"
    assert captured_by(rule, "other") is None

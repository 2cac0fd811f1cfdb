"""Counting what rules did, and finding where two accounts part."""

from __future__ import annotations

import random

from gateway.model import Command, Decision, Emit, Notify, Set
from gateway.rules.trying.tally import SAME_NS, Balance, Tally, label

SECOND_NS = 1_000_000_000


def decision(at_s, action, *, rule="a", name="", shadow=False):
    at_ns = round(at_s * SECOND_NS)
    return Decision(name or f"{rule}//{at_ns}/0", rule, "", action, at_ns, None, "because", shadow)


def switch(at_s, state, **more):
    return decision(at_s, Command("fan", state.encode(), state), **more)


def test_an_actuator_is_on_from_the_first_on_to_the_first_off():
    """Saying it again switches nothing; what is on at the beginning counts from there, and at the end up to there."""
    tally = Tally()
    tally.add(switch(5, "on"))
    tally.begin(10 * SECOND_NS)
    for at_s, state in [(12, "on"), (20, "off"), (21, "off"), (30, "on"), (40, "on"), (50, "off"), (60, "on")]:
        tally.add(switch(at_s, state))
    tally.finish(70 * SECOND_NS)
    fan = tally.actuators["fan"]
    assert (fan.switched_on, fan.on_ns, fan.is_on) == (2, (10 + 20 + 10) * SECOND_NS, True)
    assert tally.rules["a"].actions == {"command on": 4, "command off": 3}
    assert (tally.rules["a"].first_ns, tally.rules["a"].last_ns) == (12 * SECOND_NS, 60 * SECOND_NS)


def test_what_was_denied_or_on_trial_switches_nothing():
    """A refusal may come after the command; a shadow rule's command never goes out."""
    tally = Tally()
    tally.begin(0)
    tally.add(switch(1, "on", name="denied"))
    tally.refuse("denied", "a")
    tally.add(switch(2, "on", shadow=True))
    tally.finish(100 * SECOND_NS)
    assert tally.actuators == {}
    assert (tally.rules["a"].refused, tally.rules["a"].actions["command on"]) == (1, 2)


def test_what_does_not_count_still_switches():
    """What a restart says again, or the interlock switches off, moves the actuator and is no rule's doing."""
    tally = Tally()
    tally.begin(0)
    tally.add(switch(1, "on"))
    tally.add(switch(11, "off", rule="interlock"), counts=False)
    tally.finish(100 * SECOND_NS)
    assert list(tally.rules) == ["a"]
    assert tally.actuators["fan"].on_ns == 10 * SECOND_NS


def test_two_accounts_of_the_same_are_no_difference_in_whatever_order_they_come(seed):
    """Sides come in any order, and up to a second apart; who decided makes no difference, what was done does."""
    rng = random.Random(seed)
    actions = [Notify("x", "a"), Notify("x", "b"), Emit("t", b"1"), Set("v", [1, {"a": 2}]), Command("f", b"", "on")]
    done = [(at_s * 3, rng.choice(actions)) for at_s in range(300)]
    entries = [(True, decision(at_s, action)) for at_s, action in done]
    entries += [(False, decision(at_s + rng.uniform(0, 0.9), action, rule="b")) for at_s, action in done]
    rng.shuffle(entries)
    balance = Balance()
    for new, each in entries:
        balance.add(each, new=new)
    assert (len(balance), balance.first()) == (0, None)


def test_the_first_difference_shows_both_sides():
    """What only one side did then, and what the other did next that this one did not."""
    balance = Balance()
    for new in (True, False):
        balance.add(decision(1, Notify("x", "both")), new=new)
    balance.add(late := decision(90, Notify("x", "late")), new=False)
    balance.add(early := decision(50, Notify("x", "early")), new=True)
    first = balance.first()
    assert (first.at_ns, first.new, first.old) == (50 * SECOND_NS, (early,), ())
    assert (first.next_new, first.next_old) == (None, late)
    assert len(balance) == 2


def test_more_than_a_second_apart_is_another_decision():
    """A deadline that moved is a difference; what is later by less is the same."""
    for apart_ns, count in [(SAME_NS, 0), (SAME_NS + 1, 2)]:
        balance = Balance()
        balance.add(decision(10, Notify("x", "a")), new=True)
        balance.add(decision(10 + apart_ns / 1e9, Notify("x", "a")), new=False)
        assert len(balance) == count


def test_memory_is_bounded_by_differences_that_are_kept(monkeypatch):
    """Beyond the bound later differences are not kept, which is told; the first one is still right."""
    monkeypatch.setattr("gateway.rules.trying.tally._MOST_DIFFERENCES", 10)
    balance = Balance()
    for at_s in range(100):
        balance.add(decision(at_s * 5, Notify("x", str(at_s))), new=True)
    assert (len(balance), balance.overflow) == (10, True)
    assert balance.first().at_ns == 0


def test_every_kind_of_action_has_a_label():
    """Counts are told by kind and by what tells them apart."""
    assert label(Command("f", b"", None)) == "command"
    assert label(Command("f", b"", "off")) == "command off"
    assert label(Notify("oncall", "x")) == "notify oncall"
    assert label(Emit("t", b"1")) == "emit"
    assert label(Set("v", 1)) == "set"

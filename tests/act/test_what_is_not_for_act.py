"""Decisions that nobody has to carry out: those on trial, and those that were done by having been recorded."""

from __future__ import annotations

import pytest

from gateway.model import Command, Decision, Emit, Notify, Publish, Set

COMMAND = Command("fan/set", b"ON", "on")


@pytest.mark.parametrize("action", [COMMAND, Publish("a", b"x"), Notify("x", "y"), Emit("a", b"{}"), Set("a", 1)])
def test_nobody_acts_on_a_decision_on_trial(action):
    """`shadow: true` suppresses every kind of action."""
    assert not Decision("r//0/0", "r", "", action, 0, None, "", shadow=True).leaves


@pytest.mark.parametrize(("action", "leaves"), [(COMMAND, True), (Emit("a", b"{}"), False), (Set("a", 1), False)])
def test_what_is_done_by_being_recorded_is_not_carried_out(action, leaves):
    """A derived event is in the log, a variable is set."""
    assert Decision("r//0/0", "r", "", action, 0, None, "").leaves is leaves

"""The queue of a device that is offline."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from firmware_sim.message import Message
from firmware_sim.outbox import Outbox


def _message(device: str, seq: int) -> Message:
    return Message(device, "climate", {"seq": seq}, 0.0)


def test_full_queue_keeps_the_newest_and_returns_the_oldest():
    """Law: each displaced message is handed back once, oldest first."""
    outbox = Outbox(3)
    displaced = [outbox.push(_message("a", seq)) for seq in range(1, 6)]
    assert [m and m.seq for m in displaced] == [None, None, None, 1, 2]
    assert [outbox.pop().seq for _ in range(len(outbox))] == [3, 4, 5]


def test_devices_take_turns():
    """Law: one device's backlog does not keep the others waiting."""
    outbox = Outbox(10)
    for seq in range(3):
        outbox.push(_message("a", seq))
    outbox.push(_message("b", 0))
    assert [outbox.pop().device for _ in range(4)] == ["a", "b", "a", "a"]


def test_random_use_agrees_with_a_naive_model(seed):
    """Law: per device first in, first out, bounded; nothing appears, nothing vanishes uncounted."""
    rng = random.Random(seed)
    outbox, model = Outbox(5), defaultdict(list)
    for seq in range(5_000):
        if rng.random() < 0.6:
            device = rng.choice("abc")
            displaced = outbox.push(_message(device, seq))
            model[device].append(seq)
            expected = model[device].pop(0) if len(model[device]) > 5 else None
            assert (displaced and displaced.seq) == expected
        elif len(outbox):
            message = outbox.pop()
            assert message.seq == model[message.device].pop(0)
        assert len(outbox) == sum(map(len, model.values()))


def test_empty_outbox_has_nothing_to_give():
    """Law: the caller asks for the length first."""
    with pytest.raises(IndexError):
        Outbox(1).pop()

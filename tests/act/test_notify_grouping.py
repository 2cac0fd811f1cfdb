"""`gateway.act.notify_grouping`: what goes out when, on a clock of whole seconds."""

from __future__ import annotations

import random

import pytest

from gateway.act.notify_grouping import LONGEST_TEXT, Gathering, Message, Parcel, message_of
from gateway.model import Decision, Notify

SECOND_NS = 1_000_000_000


def message(text: str) -> Message:
    return Message(f"r//0/{text}", "r", "", text, "")


def life(gathering: Gathering, said: dict[int, str], until: int) -> list[tuple[int, str]]:
    """Say each letter at its second; return when which letters went out, with `+n` for what was not told."""
    out = []
    for second in range(until):
        for letter in said.get(second, ""):
            gathering.add(message(letter), second * SECOND_NS)
        while (parcel := gathering.take(second * SECOND_NS)) is not None:
            letters = "".join(each.text for each in parcel.messages)
            out.append((second, letters + (f"+{parcel.more}" if parcel.more else "")))
    return out


@pytest.mark.parametrize(
    ("group_s", "most", "room", "said", "expected"),
    [
        pytest.param(10, 9, 9, {3: "a"}, [(13, "a")], id="one-waits-for-company"),
        pytest.param(10, 9, 9, {0: "a", 4: "b", 10: "c", 11: "d"}, [(10, "abc"), (21, "d")], id="those-of-ten-seconds"),
        pytest.param(10, 9, 9, {0: "a", 9: "b", 12: "c"}, [(10, "ab"), (22, "c")], id="counted-from-the-first"),
        pytest.param(0, 9, 9, {0: "a", 1: "bc"}, [(0, "a"), (1, "b"), (1, "c")], id="nobody-waits"),
        pytest.param(0, 3, 9, {0: "abcde"}, [(0, "a"), (0, "b"), (0, "cde")], id="the-last-takes-all"),
        pytest.param(0, 1, 9, {0: "ab", 5: "c", 7: "de"}, [(0, "ab"), (60, "cde")], id="held-by-the-rate"),
        pytest.param(
            0, 2, 9, {0: "a", 30: "b", 31: "c", 70: "d"}, [(0, "a"), (30, "b"), (60, "c"), (90, "d")], id="sliding"
        ),
        pytest.param(5, 1, 9, {0: "a", 50: "b", 59: "c"}, [(5, "a"), (65, "bc")], id="group-and-rate"),
        pytest.param(5, 1, 3, {0: "abcde", 10: "f"}, [(5, "abc+2"), (65, "f")], id="no-room-is-counted"),
        pytest.param(0, 2, 3, {0: "abcde"}, [(0, "a"), (0, "bc+2")], id="counted-where-the-queue-is-empty"),
    ],
)
def test_what_goes_out_when(group_s, most, room, said, expected):
    """The first opens a group, the rate is a sliding minute, and what finds no room is counted."""
    assert life(Gathering(group_s, 60, most, room), said, 200) == expected


def test_what_could_not_be_told_is_in_the_next_parcel():
    """Given up is not forgotten; nothing goes out for its sake alone."""
    gathering = Gathering(0, 60, 5)
    gathering.missed(4)
    assert gathering.due_ns() is None
    assert gathering.take(0) is None
    gathering.add(message("a"), 0)
    assert gathering.take(0) == Parcel((message("a"),), 4)
    gathering.add(message("b"), 0)
    assert gathering.take(0) == Parcel((message("b"),))


def test_what_is_urgent_waits_for_no_company_but_for_the_rate():
    """A gateway that stops tells what it can, and still floods nobody."""
    gathering = Gathering(10, 60, 1)
    gathering.add(message("a"), 0)
    assert gathering.take(0) is None
    assert gathering.due_ns(is_urgent=True) == 0
    assert gathering.take(0, is_urgent=True) == Parcel((message("a"),))
    gathering.add(message("b"), 0)
    assert gathering.take(59 * SECOND_NS, is_urgent=True) is None
    assert gathering.due_ns(is_urgent=True) == 60 * SECOND_NS


def test_a_text_that_nobody_would_read_is_cut():
    """A rule may put a whole payload into a text. What waits is bounded in bytes as well as in number."""
    said = Notify("oncall", "x" * 300_000)
    cut = message_of(Decision("r//0/0", "r", "", said, 0, None, "y" * 300_000), said)
    assert len(cut.text) == len(cut.because) == LONGEST_TEXT
    assert cut.text.endswith("…")


@pytest.mark.parametrize("_round", range(3))
def test_any_order_of_calls_keeps_the_laws(seed, _round):
    """Order kept, nothing lost uncounted, no more than `most` in any window, none too early, none late."""
    dice = random.Random(f"{seed}{_round}")
    for _ in range(200):
        group_ns = dice.choice([0, 1, 5, 40])
        every_ns, most, room = dice.randint(1, 30), dice.randint(1, 4), dice.randint(1, 6)
        gathering = Gathering(group_ns / 1e9, every_ns / 1e9, most, room)
        now_ns, said, refused, missed, told, more = 0, 0, 0, 0, [], 0
        sent_ns: list[int] = []
        waits_since: dict[str, int] = {}
        for _ in range(120):
            now_ns += dice.choice([0, 0, 1, 2, 7, 45])
            if dice.random() < 0.6:
                said += 1
                if gathering.add(message(str(said)), now_ns):
                    waits_since[str(said)] = now_ns
                else:
                    refused += 1
            elif dice.random() < 0.1:
                gathering.missed(2)
                missed += 2
            due_ns = gathering.due_ns()
            parcel = gathering.take(now_ns)
            assert (parcel is not None) == (due_ns is not None and due_ns <= now_ns)
            if parcel is not None:
                assert now_ns >= waits_since[parcel.messages[0].text] + group_ns
                sent_ns.append(now_ns)
                told += [int(each.text) for each in parcel.messages]
                more += parcel.more
                assert len(parcel.messages) <= room
            assert gathering.waiting <= room
            assert said == len(told) + refused + gathering.waiting
            assert more <= refused + missed
        assert told == sorted(told)
        for index, first_ns in enumerate(sent_ns[: len(sent_ns) - most]):
            assert sent_ns[index + most] - first_ns >= every_ns
        while gathering.waiting:
            due_ns = gathering.due_ns()
            now_ns = max(now_ns, due_ns)
            parcel = gathering.take(now_ns)
            assert parcel is not None, "what is due is given"
            more += parcel.more
        gathering.add(message("last"), now_ns)
        rest = gathering.take(now_ns + 10**12)
        assert more + rest.more == refused + missed

"""Which dead letters are put back: the pure decisions."""

import msgspec
import pytest

from gateway.model import DeadLetter
from gateway.web.deadletters import Ledger, ReplayRequest, replay_note


def letter(name: str, **changes) -> DeadLetter:
    fields = {
        "id": name,
        "topic": "devices/a/climate",
        "payload": b"{}",
        "flags": 1,
        "stage": "cloud",
        "code": "http_400",
        "detail": "no",
        "attempts": 1,
        "first_wall_ns": 1,
        "last_wall_ns": 2,
    }
    return DeadLetter(**(fields | changes))


ALL = ReplayRequest(all=True)


def test_all_means_every_letter_that_was_not_put_back():
    """A second `--all` repeats nothing."""
    a, b = letter("a"), letter("b")
    chosen, refused = Ledger([a, b, replay_note(a, 5)]).choose(ALL)
    assert (chosen, refused) == ([b], {})
    assert Ledger([a, b, replay_note(a, 5), replay_note(b, 6)]).choose(ALL) == ([], {})


def test_an_event_that_two_sinks_refused_is_put_back_once():
    """One event, one replay: every sink sees it anyway."""
    chosen, _ = Ledger([letter("a", stage="cloud"), letter("a", stage="history")]).choose(ALL)
    assert [one.stage for one in chosen] == ["cloud"]


def test_what_was_asked_for_by_name_and_cannot_be_is_explained():
    """Unknown, put back before, or no longer whole: each is a sentence, none a silent omission."""
    big = letter("big", stage="ingest", code="too_large")
    ledger = Ledger([letter("a"), big, letter("done"), replay_note(letter("done"), 3)])
    chosen, refused = ledger.choose(ReplayRequest(ids=("a", "big", "done", "nobody")))
    assert [one.id for one in chosen] == ["a"]
    assert refused == {
        "big": "it was too large to be kept whole",
        "done": "it has been put back already",
        "nobody": "the dead-letter log does not hold it",
    }


def test_a_truncated_payload_is_never_put_back_even_with_all():
    """The first KiB of a message is not the message."""
    chosen, refused = Ledger([letter("big", stage="ingest", code="too_large")]).choose(ALL)
    assert (chosen, list(refused)) == ([], ["big"])
    chosen, _ = Ledger([letter("sent", stage="cloud", code="too_large")]).choose(ALL)
    assert [one.id for one in chosen] == ["sent"]


def test_an_event_refused_anew_stands_again():
    """A sink that refuses it after it was put back makes it a dead letter once more."""
    ledger = Ledger([letter("a"), replay_note(letter("a"), 3), letter("a", stage="history")])
    assert [one.id for one in ledger.waiting()] == ["a", "a"]
    assert [one.id for one in ledger.choose(ALL)[0]] == ["a"]


def test_notes_are_no_letters():
    """The list shows what went wrong, not the book-keeping about it."""
    ledger = Ledger([letter("a"), replay_note(letter("a"), 3)])
    assert [one.id for one in ledger.letters] == ["a"]
    assert ledger.waiting() == []


@pytest.mark.parametrize("fields", [{}, {"ids": ["a"], "all": True}, {"ids": []}, {"everything": True}])
def test_a_request_is_either_some_or_all(fields):
    """Nothing is not all."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(fields), type=ReplayRequest)

"""Splitting, bisecting, and where a cursor stands."""

from __future__ import annotations

import math
import random

import pytest

from gateway.forward import ledger
from gateway.forward.parcel import Parcel
from gateway.forward.plan import Limit, Plan
from gateway.forward.verdict import Delivered, Refused, TooLarge
from gateway.model import Cursor, Position
from tests.forward.conftest import ORIGIN, batch_of


def walk(total, answer, limit=None, most=100_000):
    """Follow a plan to its end; returns what was delivered, what was refused, and how many sends it took."""
    plan = Plan(total, limit or Limit(total))
    delivered, refused, sends = [], [], 0
    while not plan.is_done:
        sends += 1
        assert sends < most, "a plan always ends"
        chunk = plan.chunk()
        assert chunk == plan.chunk()
        assert chunk[0] == plan.start < chunk[1] <= total
        settled = plan.judge(answer(*chunk))
        if settled is not None:
            dead = [refusal.index for refusal in settled.refused]
            refused += dead
            delivered += [n for n in range(settled.start, settled.stop) if n not in dead]
    return delivered, refused, sends


def refusing(bad):
    """A sink that refuses any request with one of these records in it."""
    return lambda start, stop: Refused("x", "") if bad & set(range(start, stop)) else Delivered(stop - start)


@pytest.mark.parametrize("total", [1, 2, 3, 7, 64, 100])
def test_every_set_of_poison_is_found_exactly(total, seed):
    """Random poison in parcels of many sizes: nothing else is refused, and every send is accounted for."""
    rng = random.Random(seed)
    for _ in range(200):
        bad = {n for n in range(total) if rng.random() < 0.05}
        delivered, refused, sends = walk(total, refusing(bad))
        assert delivered == [n for n in range(total) if n not in bad]
        assert refused == sorted(bad)
        assert sends <= len(bad) * (math.ceil(math.log2(total)) + 2) + 1


def test_a_hint_shortens_the_search_and_a_wrong_hint_costs_nothing_but_requests(seed):
    """`Refused.index` is believed only after the record was refused alone."""
    rng = random.Random(seed)
    right = lambda a, b: Refused("x", "", 42 - a) if a <= 42 < b else Delivered(b - a)  # noqa: E731
    assert walk(100, right) == ([n for n in range(100) if n != 42], [42], 4)

    def wrong(a, b):
        return Refused("x", "", rng.randrange(b - a)) if a <= 42 < b else Delivered(b - a)

    for _ in range(200):
        delivered, refused, _sends = walk(100, wrong)
        assert (delivered, refused) == ([n for n in range(100) if n != 42], [42])


def test_partial_deliveries_at_random_settle_everything_in_order(seed):
    """A sink may take fewer than all."""
    rng = random.Random(seed)
    delivered, refused, _sends = walk(500, lambda a, b: Delivered(rng.randint(1, b - a)))
    assert (delivered, refused) == (list(range(500)), [])


def test_the_limit_falls_by_half_and_is_regained_one_by_one():
    """413 at 60 or more: few requests are wasted on trying more again."""
    limit = Limit(500)
    answer = lambda a, b: TooLarge("") if b - a >= 60 else Delivered(b - a)  # noqa: E731
    delivered, refused, sends = walk(5_000, answer, limit)
    assert (delivered, refused) == (list(range(5_000)), [])
    assert sends < 5_000 / 45 + 20


def parcel_of(*sizes) -> Parcel:
    batches, seq, ordinal = [], 10, 3
    for size in sizes:
        batch = batch_of([b"%d" % n for n in range(size)])
        batch.origin, batch.seq, batch.ordinal = ORIGIN, seq, ordinal
        batches.append(batch)
        seq, ordinal = batch.end + 5, batch.end_ordinal  # five decisions behind each batch
    return Parcel(batches, Position(seq, ordinal))


def test_every_slice_of_a_parcel_holds_its_records_and_ends_where_the_next_begins():
    """The cursor of a part settled is where the rest starts."""
    parcel = parcel_of(3, 1, 4)
    seqs = [batch.seq + n for batch in parcel.batches for n in range(len(batch))]
    assert len(parcel) == 8
    for start in range(8):
        for stop in range(start + 1, 9):
            part = parcel.slice(start, stop)
            assert [batch.seq + n for batch in part.batches for n in range(len(batch))] == seqs[start:stop]
            assert part.end == parcel.position(stop)
    assert parcel.position(8) == parcel.end
    assert [parcel.position(n).seq for n in range(8)] == seqs
    with pytest.raises(IndexError):
        parcel.locate(8)


def test_the_ledger_refuses_steps_that_do_not_balance():
    """L7 is asserted on every step, in production too."""
    cursor = ledger.begin(Position(10, 4))
    cursor = ledger.advance(cursor, Position(20, 9), delivered=3, dead_lettered=1, evicted=1)
    assert cursor == Cursor(20, 9, 4, 3, 1, 1)
    with pytest.raises(AssertionError):
        ledger.advance(cursor, Position(30, 12), delivered=2)


def test_clamping_keeps_the_accounts():
    """S12: what was delivered stays delivered when the log forgets its end."""
    inside = Cursor(20, 9, 4, 3, 1, 1)
    assert ledger.clamp(inside, Position(20, 9)) == (inside, 0)
    clamped, beyond = ledger.clamp(inside, Position(8, 2))
    assert (clamped.seq, clamped.ordinal, beyond) == (8, 2, 7)
    assert clamped.ordinal - clamped.start_ordinal == ledger.settled_count(clamped) == 5

"""Windows against references that are slow and say what they mean, and against what samples may do to them."""

from __future__ import annotations

import math
import random
import statistics
from fractions import Fraction

import pytest

from gateway.rules.expressions.windows import AGGREGATES, MAX_SAMPLES, Span, Window

S = 1_000_000_000


def _quantile(values: list[float], share: Fraction) -> float:
    """R's type 7 in exact arithmetic."""
    ranked = sorted(Fraction(value) for value in values)
    place = share * (len(ranked) - 1)
    below = place.numerator // place.denominator
    above = min(below + 1, len(ranked) - 1)
    return float(ranked[below] + (place - below) * (ranked[above] - ranked[below]))


def _slowly(name: str, samples: list[tuple[int, float]]) -> float | None:
    """What the documentation says, computed exactly and without thrift."""
    values = [value for _, value in samples]
    if name == "count":
        return len(values)
    if not values or (name in {"delta", "rate"} and len(values) < 2):
        return None
    (first_ns, first), (last_ns, last) = samples[0], samples[-1]
    if name == "rate" and first_ns == last_ns:
        return None
    exact = [Fraction(value) for value in values]
    return {
        "avg": lambda: float(sum(exact) / len(exact)),
        "sum": lambda: float(sum(exact)),
        "min": lambda: min(values),
        "max": lambda: max(values),
        "delta": lambda: float(Fraction(last) - Fraction(first)),
        "rate": lambda: float((Fraction(last) - Fraction(first)) / Fraction(last_ns - first_ns, S)),
        "stddev": lambda: statistics.pstdev(values),
        "median": lambda: statistics.median(values),
        "p95": lambda: _quantile(values, Fraction(95, 100)),
    }[name]()


def _held(samples: list[tuple[int, float]], span: Span, now_ns: int) -> list[tuple[int, float]]:
    """Every sample there ever was, and of these the ones that count."""
    in_order = sorted(samples, key=lambda sample: sample[0])
    if not span.tumbling:
        return [sample for sample in in_order if now_ns - span.span_ns < sample[0] <= now_ns]
    end_ns = (now_ns - span.lateness_ns) // span.span_ns * span.span_ns
    return [sample for sample in in_order if end_ns - span.span_ns <= sample[0] < end_ns]


def _random_samples(rng: random.Random, count: int) -> list[tuple[int, int, float]]:
    """(when it came, when it happened, value), in the order in which they came."""
    at_ns, found = 0, []
    for _ in range(count):
        at_ns += rng.choice([0, 1, S // 3, S, S, 5 * S, rng.randrange(40 * S)])
        late_ns = rng.choice([0, 0, 0, 1, S, rng.randrange(30 * S)])
        found.append((at_ns, at_ns - late_ns, rng.choice([rng.uniform(-50, 50), rng.randrange(-9, 9), 1e9, -1e-9])))
    return found


@pytest.mark.parametrize(
    "span",
    [Span(10 * S), Span(1), Span(7 * S, tumbling=True), Span(7 * S, tumbling=True, lateness_ns=3 * S)],
    ids=["sliding", "sliding over a nanosecond", "tumbling", "tumbling with lateness"],
)
def test_a_window_agrees_with_a_slow_reference_at_every_moment(seed, span):
    """L12: every function, samples that come late and at once, asked at random moments between."""
    rng = random.Random(seed)
    for _ in range(15):
        window, so_far, last_ns = Window(span), [], 0
        for came_ns, at_ns, value in _random_samples(rng, 60):
            for now_ns in sorted(rng.randint(last_ns, came_ns) for _ in range(rng.randrange(3))):
                _compare(window, so_far, span, now_ns)
            window.add(at_ns, value)
            so_far.append((at_ns, value))
            last_ns = came_ns
            _compare(window, so_far, span, came_ns)


def _compare(window, so_far, span, now_ns):
    samples, expected = window.values(now_ns), _held(so_far, span, now_ns)
    assert sorted(samples) == sorted(expected)
    for name, aggregate in AGGREGATES.items():
        value, wanted = aggregate(samples), _slowly(name, expected)
        if name in {"delta", "rate"} and expected:  # samples of one instant stand in the order in which they came
            assert (value is None) == (wanted is None)
        if value is None or wanted is None:
            assert value is wanted, (name, value, wanted)
        else:
            assert value == pytest.approx(wanted, rel=1e-12, abs=1e-12), name


def test_a_restored_window_gives_what_it_would_have_given(seed):
    """L12: dump and load at any point, and the two never differ again."""
    rng = random.Random(seed)
    for span in (Span(10 * S), Span(7 * S, tumbling=True, lateness_ns=2 * S)):
        window, twin = Window(span), Window(span)
        for came_ns, at_ns, value in _random_samples(rng, 400):
            if rng.random() < 0.2:
                restored = Window(span)
                restored.load(twin.dump())
                twin = restored
            for each in (window, twin):
                each.add(at_ns, value)
            assert window.values(came_ns) == twin.values(came_ns)
            assert window.dump() == twin.dump()


def test_asking_changes_nothing(seed):
    """L12: whoever looks at the status page, and whenever, a window answers the same afterwards."""
    rng = random.Random(seed)
    for span in (Span(10 * S), Span(7 * S, tumbling=True)):
        asked, left_alone = Window(span), Window(span)
        for came_ns, at_ns, value in _random_samples(rng, 200):
            for each in (asked, left_alone):
                each.add(at_ns, value)
            asked.values(came_ns + rng.randrange(20 * S))
            assert list(asked.values(came_ns)) == list(left_alone.values(came_ns))


def test_a_sample_counts_until_its_span_is_over_and_no_instant_longer():
    """Exclusive at the old end, inclusive at the new one."""
    window = Window(Span(5 * S))
    window.add(10 * S, 1.0)
    assert list(window.values(10 * S)) == [(10 * S, 1.0)]
    assert list(window.values(15 * S - 1)) == [(10 * S, 1.0)]
    assert list(window.values(15 * S)) == []


def test_a_tumbling_window_stands_still_until_the_next_is_complete():
    """The stretch [5, 10) is the value from 10 until 15; a sample at 10 belongs to the next."""
    window = Window(Span(5 * S, tumbling=True))
    for second in (5, 9.999, 10, 14):
        window.add(round(second * S), second)
    assert [value for _, value in window.values(10 * S)] == [5, 9.999]
    assert [value for _, value in window.values(15 * S - 1)] == [5, 9.999]
    assert [value for _, value in window.values(15 * S)] == [10, 14]
    assert list(window.values(20 * S)) == []


def test_a_late_sample_counts_in_its_own_stretch_while_that_is_open():
    """With three seconds of lateness, what belongs to [5, 10) and comes at 12 is in it; what comes at 14 is too."""
    window = Window(Span(5 * S, tumbling=True, lateness_ns=3 * S))
    window.add(6 * S, 1.0)
    assert list(window.values(12 * S)) == []
    window.add(9 * S, 2.0)
    assert [value for _, value in window.values(13 * S)] == [1.0, 2.0]
    window.add(7 * S, 3.0)
    assert [value for _, value in window.values(14 * S)] == [1.0, 3.0, 2.0]


def test_an_overfull_window_drops_its_oldest_and_says_how_many():
    """L13: memory is bounded, whatever a device sends."""
    window = Window(Span(3_600 * S))
    for number in range(3 * MAX_SAMPLES):
        window.add(number, float(number))
    values = [value for _, value in window.values(3 * MAX_SAMPLES)]
    assert len(values) <= MAX_SAMPLES
    assert values == [float(number) for number in range(window.dropped, 3 * MAX_SAMPLES)]


def test_sums_are_exact():
    """A running sum would have lost the small ones: the value depends on the samples, not on their order."""
    window = Window(Span(100 * S))
    for second, value in enumerate([1e16, 1.0, 1.0, -1e16]):
        window.add(second * S, value)
    assert AGGREGATES["sum"](window.values(5 * S)) == 2.0
    assert AGGREGATES["avg"](window.values(5 * S)) == 0.5


@pytest.mark.parametrize("name", sorted(AGGREGATES))
@pytest.mark.parametrize(
    "values",
    [
        [1e308, 1e308, 1e308],
        [-1.7e308, 1.7e308],
        [10**308, -(10**308)],
        [-(10**308), 10**308, 5],
        [5e-324, -5e-324, 5e-324],
        [True, True, 2.5],
        [0.0, -0.0],
        [2**63, 2**64 + 1, -(2**70)],
    ],
    ids=str,
)
def test_no_numbers_make_an_aggregate_raise_or_overflow(name, values):
    """Beyond what a float can hold is unknown, never an error and never infinite."""
    window = Window(Span(100 * S))
    for second, value in enumerate(values):
        window.add(second * S, value)
    result = AGGREGATES[name](window.values(50 * S))
    assert result is None or abs(result) <= max(10, *(abs(value) for value in values)) * 4
    assert result is None or math.isfinite(float(result))

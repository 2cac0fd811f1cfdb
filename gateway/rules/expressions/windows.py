"""What has been measured lately: `avg(temperature, 5m)` and its kin, as a window of samples and a sum over it.

A *sliding* window ends now. A *tumbling* one is a stretch of fixed length, aligned to multiples of it on the log's own
clock; its value is that of the last stretch that is over, and stays until the next one is. With a `lateness`, a stretch
is over so much later, and what belongs into it and comes late still counts.

    avg sum min max     of the samples in it; unknown if there is none
    count               how many; 0 if there is none
    delta               the last minus the first; unknown with fewer than two
    rate                delta per second between those two
    stddev              of the whole population: sqrt(mean of squares of the deviations)
    median p95          between the two nearest ranks, linearly (as R's type 7)

Invariants:
- The value depends on the samples and the time alone, never on how they were added or what was asked before, so that a
  window restored from a snapshot gives what it would have given (L12). Sums are exact (`math.fsum`), not running.
- A window holds at most `MAX_SAMPLES`; then its oldest samples leave early, which is counted.
- A sample counts from its time, exclusive, until `span` after it: at 5 minutes, what came 5 minutes ago is out.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Samples: TypeAlias = "Sequence[tuple[int, float]]"
"""(time, value), in order of time."""
Aggregate: TypeAlias = "Callable[[Samples], float | None]"

MAX_SAMPLES = 10_000
_NS = 1e-9


class Span(NamedTuple):
    """Which samples a window holds. Durations in nanoseconds."""

    span_ns: int
    tumbling: bool = False
    lateness_ns: int = 0


class Window:
    """The samples of one window, in order of their time."""

    __slots__ = ("_samples", "_span", "dropped")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._samples: list[tuple[int, float]] = []
        self.dropped = 0
        """Samples that left early for want of room."""

    def add(self, at_ns: int, value: float) -> None:
        """Take in a sample. It may be older than the last one."""
        samples = self._samples
        if not samples or at_ns >= samples[-1][0]:
            samples.append((at_ns, value))
        else:
            insort(samples, (at_ns, value), key=_time)
        # Here and not where somebody looks, so that looking, at whatever time, changes nothing.
        oldest_ns = self._bounds_ns(samples[-1][0])[0]
        if samples[0][0] < oldest_ns:
            del samples[: bisect_left(samples, oldest_ns, key=_time)]
        if len(samples) > MAX_SAMPLES:
            excess = MAX_SAMPLES // 10
            self.dropped += excess
            del samples[:excess]

    def values(self, now_ns: int) -> list[tuple[int, float]]:
        """The samples that count now."""
        samples = self._samples
        oldest_ns, end_ns = self._bounds_ns(now_ns)
        if samples and samples[0][0] >= oldest_ns and samples[-1][0] < end_ns:
            return samples
        return samples[bisect_left(samples, oldest_ns, key=_time) : bisect_left(samples, end_ns, key=_time)]

    def _bounds_ns(self, now_ns: int) -> tuple[int, int]:
        """From when on, and before when, a sample counts."""
        span_ns, tumbling, lateness_ns = self._span
        if not tumbling:
            return now_ns - span_ns + 1, now_ns + 1
        end_ns = (now_ns - lateness_ns) // span_ns * span_ns
        return end_ns - span_ns, end_ns

    def dump(self) -> list[Any]:
        """The state, for a snapshot."""
        return [self.dropped, *(part for sample in self._samples for part in sample)]

    def load(self, state: Sequence[Any]) -> None:
        """Take up the state that `dump` gave."""
        self.dropped, *flat = state
        self._samples = list(zip(flat[::2], flat[1::2], strict=True))


def _time(sample: tuple[int, float]) -> int:
    return sample[0]


def _numbers(samples: Samples) -> list[float]:
    return [value for _, value in samples]


def _average(samples: Samples) -> float | None:
    return math.fsum(_numbers(samples)) / len(samples) if samples else None


def _total(samples: Samples) -> float | None:
    return math.fsum(_numbers(samples)) if samples else None


def _least(samples: Samples) -> float | None:
    return min(_numbers(samples)) if samples else None


def _most(samples: Samples) -> float | None:
    return max(_numbers(samples)) if samples else None


def _delta(samples: Samples) -> float | None:
    return samples[-1][1] - samples[0][1] if len(samples) > 1 else None


def _rate(samples: Samples) -> float | None:
    if len(samples) < 2 or samples[-1][0] == samples[0][0]:
        return None
    return (samples[-1][1] - samples[0][1]) / ((samples[-1][0] - samples[0][0]) * _NS)


def _deviation(samples: Samples) -> float | None:
    mean = _average(samples)
    if mean is None:
        return None
    return math.sqrt(math.fsum((value - mean) ** 2 for _, value in samples) / len(samples))


def _quantile(share: float) -> Aggregate:
    def between(samples: Samples) -> float | None:
        if not samples:
            return None
        ranked = sorted(_numbers(samples))
        place = share * (len(ranked) - 1)
        below = int(place)
        if below + 1 == len(ranked):
            return ranked[below]
        return ranked[below] + (place - below) * (ranked[below + 1] - ranked[below])

    return between


def _total_of(aggregate: Aggregate) -> Aggregate:
    """The same, unknown where the numbers leave what a float can hold."""

    def total(samples: Samples) -> float | None:
        try:
            value = aggregate(samples)
            return value if value is None or math.isfinite(value) else None
        except OverflowError:
            return None

    return total


AGGREGATES: dict[str, Aggregate] = {
    "avg": _total_of(_average),
    "sum": _total_of(_total),
    "min": _least,
    "max": _most,
    "count": len,
    "delta": _total_of(_delta),
    "rate": _total_of(_rate),
    "stddev": _total_of(_deviation),
    "median": _total_of(_quantile(0.5)),
    "p95": _total_of(_quantile(0.95)),
}
"""To a number; None is unknown."""

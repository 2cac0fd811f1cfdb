"""Which records of a parcel to send next, and what an answer settles: splitting and the search for poison. Pure.

Theory of operation. `start` divides the parcel: everything before it is settled, nothing behind it is. The next send
always begins at `start`, so that order is kept whatever happens. When the sink refuses a send of several records, the
plan halves it: the left half goes first; what is left of the refused range is never sent whole again. A record is
given up only when it has been refused *alone*: a server that answers 400 to a batch of 100 because it takes at most 50
must not cost an event.

Invariants:
- `start` never goes back; every step but a retry moves it or shrinks the range, so a plan ends.
- One poisoned record costs at most ⌈log2(range)⌉ + 1 sends beyond the one that was refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from gateway.forward.verdict import Delivered, Refusal, Refused, TooLarge


class Settled(NamedTuple):
    """Records `[start, stop)` of the parcel are done with."""

    start: int
    stop: int
    refused: tuple[Refusal, ...] = ()
    """Which of them the sink will never take; indices count from the parcel's start."""


class Limit:
    """How many records one send may hold: halved when the sink says "too much", regained one record per success."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = most

    def lower(self, refused_count: int) -> None:
        """`refused_count` records were too many at once."""
        self.now = max(1, min(self.now, refused_count // 2))

    def regain(self) -> None:
        """One more send went well."""
        self.now = min(self.most, self.now + 1)


class Plan:
    """The way through one parcel of `total` records."""

    def __init__(self, total: int, limit: Limit) -> None:
        self.total = total
        self.start = 0
        self._limit = limit
        self._refused_until: int | None = None  # [start, here) was refused as a whole
        self._split: int | None = None  # where the sink says the offending record stands
        self._widest = 0  # size of the first refused send of this search

    @property
    def is_done(self) -> bool:
        """Whether every record is settled."""
        return self.start >= self.total

    def chunk(self) -> tuple[int, int]:
        """The records to send next, as `[start, stop)`. Asking twice gives the same answer."""
        if self._refused_until is None:
            return self.start, min(self.total, self.start + self._limit.now)
        if self._split is not None and self._split > self.start:
            return self.start, min(self._split, self.start + self._limit.now)
        half = (self._refused_until - self.start + 1) // 2
        return self.start, self.start + min(half, self._limit.now)

    def judge(self, verdict: Delivered | Refused | TooLarge) -> Settled | None:
        """Take the answer to `chunk()`.

        Returns:
            What is settled now, or None if the next chunk has to find out.
        """
        start, stop = self.chunk()
        if isinstance(verdict, Delivered):
            return self._settle(verdict, stop - start)
        if isinstance(verdict, TooLarge):
            if stop - start > 1:
                self._limit.lower(stop - start)
                return None
            verdict = Refused("too_large", verdict.detail)
        if stop - start == 1:
            self.start = stop
            self._forget_search()
            return Settled(start, stop, (Refusal(start, verdict.code, verdict.detail),))
        self._widest = max(self._widest, stop - start)
        if verdict.index is not None and 0 <= verdict.index < stop - start:
            self._split = start + verdict.index
            stop = self._split + 1
        else:
            self._split = None
        self._refused_until = stop
        return None

    def _settle(self, verdict: Delivered, sent: int) -> Settled | None:
        count = min(verdict.count, sent)
        if count <= 0:
            return None
        start = self.start
        self.start += count
        if count == sent:
            self._limit.regain()
        if self._refused_until is not None and self.start >= self._refused_until:
            # Every record of the refused range was taken in smaller sends: there is no poison, it was too many at once.
            self._limit.lower(self._widest)
            self._forget_search()
        refused = tuple(replace(item, index=start + item.index) for item in verdict.refused)
        return Settled(start, self.start, refused)

    def _forget_search(self) -> None:
        self._refused_until = self._split = None
        self._widest = 0

"""What an engine tells whoever asks why: every change of state, and every near miss.

Nothing of this is stored. State is a function of the log (L12), so that a replay of the log with a trace says a week
later what happened, in the words and with the values of that time; running without one costs a comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias


class Trace(NamedTuple):
    """One step of one machine."""

    elapsed_ns: int
    """On the log's clock."""
    rule: str
    key: str
    what: str
    """Changes: `pending`, `fired`, `ended`, `reset` (no longer true before `for` was over), `stale`, `refused` (by the
    interlock or the actuator). Near misses: `unknown`, `late`, `cooling`, `gated` (triggered, but `when` did not hold),
    `unarmed` (beyond the threshold, but it never crossed it), `queued`, `dropped` (a run was under way), `storm`,
    `looped`. Thermostats also: `held` (`min_on` is not over; `cooling` means `min_off`), `max_on`, `window`, `away`,
    `schedule`."""
    detail: str
    """One sentence for a person."""
    readings: str
    """The inputs and their values at the time."""
    seq: int | None
    """The record that led to it; None if the passing of time did."""


Tracer: TypeAlias = Callable[[Trace], None]

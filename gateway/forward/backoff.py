"""How long to wait before the next try. Pure: the draw and the time are arguments.

Full jitter: a pause is drawn from [0, ceiling], where the ceiling doubles with every failure in a row up to `max_s`.

Invariants:
- A ceiling never exceeds `max_s`.
- Only success lowers the ceiling. The first one after a failure takes back half the steps; once the sink has been well
  for as long as the last pause could have lasted, the rest is forgotten. So a sink that comes and goes is not hammered,
  and one hiccup in an hour costs one short pause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.config.settings import RetrySettings

_MOST_STEPS = 62  # 2.0**62 seconds: beyond any max_s, and far from overflow


class Backoff:
    """The ladder of one sink."""

    def __init__(self, settings: RetrySettings) -> None:
        self._settings = settings
        self._steps = 0
        self._failing = False
        self._well_since_s = 0.0

    @property
    def ceiling_s(self) -> float:
        """The longest pause that the next failure can draw."""
        return min(self._settings.max_s, self._settings.base_s * 2.0**self._steps)

    def failed(self, draw: float) -> float:
        """One more failure. `draw` is uniform in [0, 1); returns the pause in seconds."""
        pause_s = draw * self.ceiling_s
        self._steps = min(self._steps + 1, _MOST_STEPS)
        self._failing = True
        return pause_s

    def succeeded(self, now_s: float) -> None:
        """Something was delivered. `now_s` is any steady clock, in seconds."""
        if self._failing:
            self._failing = False
            self._steps //= 2
            self._well_since_s = now_s
        elif self._steps and now_s - self._well_since_s >= self.ceiling_s:
            self._steps = 0


def asked_pause_s(after_s: float, draw: float) -> float:
    """The pause that a sink asked for, spread by a tenth so that a thousand gateways do not return in one second."""
    return after_s * (1.0 + draw / 10)

"""How long to wait before the next try to reach a peer. Pure: the draw is an argument.

Full jitter: a pause is drawn evenly from [0, ceiling], and the ceiling doubles with every try until it meets the cap.
So many gateways that lost one broker at one moment do not come back in one second.
"""

from __future__ import annotations

_MOST_DOUBLINGS = 62  # far beyond any cap, and far from overflow


def full_jitter_s(attempt: int, base_s: float, cap_s: float, draw: float) -> float:
    """The pause before the next try, in seconds.

    Args:
        attempt: tries that have failed in a row before this pause; 0 for the first pause.
        base_s: the longest first pause.
        cap_s: the longest pause of all.
        draw: uniform in [0, 1).
    """
    return draw * min(cap_s, base_s * 2.0 ** min(attempt, _MOST_DOUBLINGS))


def slow_pause_s(cap_s: float, draw: float) -> float:
    """The pause while only an operator can help: between half the cap and the cap, in seconds."""
    return cap_s * (0.5 + draw / 2)

"""One seed, many independent streams of random numbers.

Invariants:
- A stream depends on the seed and its purpose only: one device more, or a fault switched on, changes no other stream.
- The same on every machine and run: names are hashed by SHA-512 inside `random.Random`, never by `hash()`.
"""

from __future__ import annotations

from random import Random


def stream(seed: int, *purpose: str) -> Random:
    """The stream of random numbers for one purpose, such as `stream(7, "device", "greenhouse")`."""
    return Random("/".join((str(seed), *purpose)))


def noise(rng: Random, sigma: float) -> float:
    """Gaussian noise, cut off at three sigma, so that tests can state a bound and mean it."""
    return max(-3 * sigma, min(3 * sigma, rng.gauss(0.0, sigma)))

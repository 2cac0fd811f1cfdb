"""The heat balance of one well-mixed volume of air: C dT/dt = P - k (T - ambient).

Invariants:
- Each step is the exact solution for constant power, loss and ambient temperature, so that the size of a step changes
  nothing but how finely the ambient is followed.
- Energy is accounted: supplied_j - lost_j = C (T - T at the start), to rounding.
"""

from __future__ import annotations

import math


class HeatBalance:
    """A temperature, and where its heat came from and went."""

    def __init__(self, capacity_j_per_k: float, temperature_c: float) -> None:
        self.capacity_j_per_k = capacity_j_per_k
        self.temperature_c = temperature_c
        self.supplied_j = 0.0
        """By heaters and the sun; negative for what a compressor took out."""
        self.lost_j = 0.0
        """Through walls and doors; negative where ambient was warmer."""

    def advance(self, dt_s: float, *, power_w: float, loss_w_per_k: float, ambient_c: float) -> None:
        """Let time pass under constant conditions.

        Args:
            dt_s: how long.
            power_w: heat supplied; negative to cool.
            loss_w_per_k: conductance to the ambient, greater than 0.
            ambient_c: temperature on the other side.
        """
        settled_c = ambient_c + power_w / loss_w_per_k
        share = -math.expm1(-dt_s * loss_w_per_k / self.capacity_j_per_k)
        change_c = (settled_c - self.temperature_c) * share
        self.supplied_j += power_w * dt_s
        # The integral of k (T - ambient) over the step: the settled part flows all along, the rest while settling.
        self.lost_j += loss_w_per_k * (settled_c - ambient_c) * dt_s - self.capacity_j_per_k * change_c
        self.temperature_c += change_c

    def after(self, dt_s: float, *, power_w: float, loss_w_per_k: float, ambient_c: float) -> float:
        """The temperature after such a step, without taking it."""
        settled_c = ambient_c + power_w / loss_w_per_k
        share = -math.expm1(-dt_s * loss_w_per_k / self.capacity_j_per_k)
        return self.temperature_c + (settled_c - self.temperature_c) * share

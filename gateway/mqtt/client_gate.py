"""Between a connection to a broker and the gateway's intake: how much may be under way, and what if intake fails.

It outlives connections, since what they brought may be on its way to the disk when they are gone.

Invariants:
- The gate is shut, and the socket not read, while more than the budget is unsettled (until half of it is settled),
  while somebody has asked for a pause, or while intake refuses a batch.
- A batch that intake refused is not acknowledged and not lost: it is offered again, after growing pauses, before
  anything that came after it. So order holds, and the connection stays up.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.mqtt.backoff import full_jitter_s

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from gateway.model import Arrivals
    from gateway.mqtt.client_stats import ClientStats

REFUSED_BASE_S = 0.1
REFUSED_CAP_S = 5.0


class Gate:
    """Hands batches to intake and says whether more may come."""

    def __init__(
        self,
        intake: Callable[[Arrivals], None],
        max_unsettled_bytes: int,
        stats: ClientStats,
        rng: random.Random,
        on_change: Callable[[], None],
    ) -> None:
        """See the module.

        Args:
            intake: takes a batch over; its `settle` is to be called when the batch is on disk.
            max_unsettled_bytes: the budget.
            stats: `unsettled_bytes`, `paused`, `received_total`, `intake_errors` and `last_error` are kept there.
            rng: spreads the pauses.
            on_change: called when the gate has opened or shut.
        """
        self._intake = intake
        self._max_bytes = max_unsettled_bytes
        self._stats = stats
        self._rng = rng
        self._on_change = on_change
        self._is_full = False
        self._is_asked = False
        self._refused: tuple[Arrivals, int] | None = None
        self._refusals = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """More may come."""
        return not (self._is_full or self._is_asked or self._refused is not None)

    def offer(self, arrivals: Arrivals, size_bytes: int) -> None:
        """Hand a batch on. Whatever intake does, it is kept account of here."""
        self._stats.unsettled_bytes += size_bytes
        self._hand_over(arrivals, size_bytes)
        self._update()

    def settled(self, size_bytes: int) -> None:
        """A batch needs no memory any more."""
        self._stats.unsettled_bytes -= size_bytes
        if self._stats.paused:
            self._update()

    def ask(self, *, is_pause: bool) -> None:
        """Shut the gate on somebody's wish, or take the wish back."""
        self._is_asked = is_pause
        self._update()

    def disconnected(self) -> None:
        """The broker will send again what it has no acknowledgement for: a refused batch need not be kept."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._refused is not None:
            self._stats.unsettled_bytes -= self._refused[1]
            self._refused = None
        self._update()

    def _hand_over(self, arrivals: Arrivals, size_bytes: int) -> None:
        try:
            self._intake(arrivals)
        except Exception as error:  # noqa: BLE001 - whatever breaks behind us, the messages must stay unacknowledged
            self._stats.intake_errors += 1
            self._stats.last_error = f"a batch of {len(arrivals.topics)} messages could not be taken over: {error!r}"
            self._refused = (arrivals, size_bytes)
            pause_s = full_jitter_s(self._refusals, REFUSED_BASE_S, REFUSED_CAP_S, 0.5 + self._rng.random() / 2)
            self._refusals += 1
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._offer_again)
        else:
            self._refusals = 0
            self._stats.received_total += len(arrivals.topics)

    def _offer_again(self) -> None:
        assert self._refused is not None, "the timer runs only while a batch is refused"
        arrivals, size_bytes = self._refused
        self._refused = self._timer = None
        self._hand_over(arrivals, size_bytes)
        self._update()

    def _update(self) -> None:
        if self._stats.unsettled_bytes >= self._max_bytes:
            self._is_full = True
        elif self._stats.unsettled_bytes <= self._max_bytes // 2:
            self._is_full = False
        if self._stats.paused is self.is_open:
            self._stats.paused = not self.is_open
            self._on_change()

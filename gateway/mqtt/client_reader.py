"""When a connection's socket is read: as the system tells, after a rest, or not at all.

Invariants:
- While reading is wanted there is either the loop's reader or the timer of a rest; else neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.mqtt.client_pace import Pace

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.mqtt.client_socket import BrokerSocket


class Reader:
    """One connection's; it has to be told what each read brought."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: BrokerSocket,
        on_readable: Callable[[], None],
        mono_s: Callable[[], float],
    ) -> None:
        """Nothing is read before `start`.

        Args:
            loop: calls `on_readable`.
            sock: the connection.
            on_readable: reads once, and tells by `read` what came.
            mono_s: a clock finer than milliseconds.
        """
        self._loop = loop
        self._sock = sock
        self._on_readable = on_readable
        self._mono_s = mono_s
        self._pace = Pace()
        self._rest: asyncio.TimerHandle | None = None
        self._is_told = False
        self.is_reading = False
        """Reading is wanted."""

    @property
    def is_resting(self) -> bool:
        """The next read is a matter of time."""
        return self._rest is not None

    def start(self) -> None:
        """Read from now on."""
        if not self.is_reading:
            self.is_reading = True
            self._be_told()

    def stop(self) -> None:
        """Read no more."""
        self.is_reading = False
        self._pace.stop()
        self._end_rest()
        if self._is_told:
            self._is_told = False
            self._loop.remove_reader(self._sock.fileno())

    def read(self, messages: int, size_bytes: int) -> None:
        """Something was read: so many messages, in so many bytes. Decides when to read next."""
        if not self.is_reading:
            return
        rest_s = self._pace.read(messages, size_bytes, self._mono_s())
        if rest_s is None:
            self._be_told()
            return
        self._end_rest()
        self._rest = self._loop.call_later(rest_s, self._rested)
        if self._is_told:
            self._is_told = False
            self._loop.remove_reader(self._sock.fileno())

    def settled(self) -> None:
        """Everything that was read has been acknowledged."""
        if self._rest is not None and self._pace.settled(self._mono_s()):
            self._be_told()

    def _rested(self) -> None:
        self._rest = None
        self._on_readable()

    def _be_told(self) -> None:
        self._end_rest()
        if not self._is_told:
            self._is_told = True
            self._loop.add_reader(self._sock.fileno(), self._on_readable)

    def _end_rest(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

"""The HTTP server's door: how many connections may be open, and how long one may stand there without asking anything.

aiohttp bounds the size of a request and the pause between two of them, but neither the number of connections nor the
wait for the first request. A `Door` stands between the listening socket and aiohttp's protocol and adds both, so that
idle or slow connections cannot keep an operator out.

Invariants:
- At most `most` connections are with aiohttp; one more is answered 503 and closed, without a look at what it wants.
- A connection whose first request has not arrived within `patience_s` is closed.
- Bytes pass unseen; the door holds nothing for a connection that has gone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Connection: close\r\nRetry-After: 5\r\nCache-Control: no-store\r\n"
    b"Content-Type: application/json\r\nContent-Length: 52\r\n\r\n"
    b'{"error":{"status":503,"reason":"connections full"}}'
)


class Doorkeeper:
    """Makes a `Door` for each new connection and knows which are open."""

    def __init__(self, protocol: Callable[[], asyncio.Protocol], *, most: int, patience_s: float) -> None:
        """Args: protocol: makes what serves one connection. most: connections. patience_s: for the first request."""
        self._protocol = protocol
        self._most = most
        self._patience_s = patience_s
        self._doors: dict[asyncio.BaseTransport, Door] = {}

    def __call__(self) -> asyncio.Protocol:
        """What `loop.create_server` calls for each accepted connection."""
        return Door(self)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._doors)

    def admit(self, door: Door, transport: asyncio.Transport) -> asyncio.Protocol | None:
        """The protocol to serve this connection with, or None: the house is full."""
        if len(self._doors) >= self._most:
            return None
        self._doors[transport] = door
        door.expire_in(self._patience_s)
        return self._protocol()

    def arrived(self, transport: asyncio.BaseTransport | None) -> None:
        """A whole request has come over this connection: from here on aiohttp's own time-outs watch it."""
        if transport is not None and (door := self._doors.get(transport)):
            door.stop_waiting()

    def left(self, transport: asyncio.BaseTransport) -> None:
        """The connection is gone."""
        self._doors.pop(transport, None)


class Door(asyncio.Protocol):
    """One connection: passes everything on to the protocol that the doorkeeper allots."""

    def __init__(self, keeper: Doorkeeper) -> None:
        self._keeper = keeper
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask to be let in."""
        self._transport = cast("asyncio.Transport", transport)
        self._inner = self._keeper.admit(self, self._transport)
        if self._inner is None:
            self._transport.write(_BUSY)
            self._transport.close()
            return
        self._inner.connection_made(transport)

    def expire_in(self, patience_s: float) -> None:
        """Close the connection after this time unless `stop_waiting` comes first."""
        self._timer = asyncio.get_running_loop().call_later(patience_s, self._expire)

    def stop_waiting(self) -> None:
        """It has asked for something."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        """Pass it on."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place free."""
        self.stop_waiting()
        if self._transport is not None:
            self._keeper.left(self._transport)
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def _expire(self) -> None:
        if self._transport is not None:
            self._transport.abort()

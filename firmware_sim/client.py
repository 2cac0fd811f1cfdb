"""`aiomqtt.Client`, made to outlive its connections on any event loop.

aiomqtt 2.x asks the loop to watch a socket for writing one turn late. By then paho may have written everything, and the
loop spins; or the socket is closed and its number another connection's, which then never reads (asyncio), or the
process dies (uvloop). It also waits in vain for the CONNACK of a connection that has closed, and after the first one no
longer waits for it at all.

What is overridden here is not public, hence `aiomqtt<3` in pyproject.toml; the tests of `link` kill brokers, and take
every complaint of the loop for a failure.

Invariants:
- A socket is watched for writing only while it is the client's own and there is something to write.
- Entering returns after a CONNACK that lets us in, the tenth time as the first; if it fails it leaves no socket behind.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import aiomqtt

if TYPE_CHECKING:
    from paho.mqtt.client import Client as PahoClient


class LastingClient(aiomqtt.Client):
    """A client that may be entered again and again, with what it has in flight."""

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            aiomqtt.MqttError: if the broker is away, silent, or refuses.
        """
        if self._connected.done():
            self._connected = asyncio.Future()
        try:
            return await super().__aenter__()
        except aiomqtt.MqttError:
            if self._client.socket() is not None:
                # Here and now: paho would close it on the next attempt, in a thread that must not touch the loop.
                self._client.disconnect()
                self._client.loop_write()
            raise

    def _on_disconnect(self, *arguments: Any, **named: Any) -> None:
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttError("closed before the broker answered"))
            return
        super()._on_disconnect(*arguments, **named)
        if self._disconnected.done():
            self._disconnected.exception()  # seen: it may have come before anyone listens
        for answer in self._pending_subscribes.values():
            if not answer.done():
                answer.set_exception(aiomqtt.MqttError("closed before the broker answered"))

    def _on_socket_register_write(self, client: PahoClient, userdata: object, sock: object) -> None:
        del userdata
        # Not at once: while connecting, paho calls this in a thread of its own.
        self._loop.call_soon_threadsafe(self._watch, client, sock)

    def _watch(self, client: PahoClient, sock: object) -> None:
        own = client.socket()
        if own is not None and own is sock and client.want_write():
            self._loop.add_writer(own.fileno(), self._write, client)

    def _write(self, client: PahoClient) -> None:
        try:
            client.loop_write()
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is of no more use
            if not self._disconnected.done():
                self._disconnected.set_exception(error)

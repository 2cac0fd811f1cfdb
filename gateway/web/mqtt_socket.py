"""MQTT over WebSocket, for browsers: the same connection as on the listener's own port, in binary frames.

A `SocketTransport` stands between aiohttp's WebSocket and `gateway.mqtt.connection`, so that sessions, limits, users
and permissions are those of the listener. MQTT 5.0, chapter 6 [MQTT-6.0.0-1 to -4].

Invariants:
- A page may connect only if its origin is listed: a browser lets any page open a WebSocket to any machine that it can
  reach. What sends no Origin is no browser and is judged by user and password alone.
- Packets may span frames and frames hold many packets; a text frame ends the connection.
- What the peer does not read is bounded as on the other port: `Connection` is told to pause, and drops a peer that
  does not read at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, WSMsgType, web

from gateway.errors import GatewayError
from gateway.mqtt.listener import server_context
from gateway.observe import events
from gateway.web.door import Doorkeeper

if TYPE_CHECKING:
    from gateway.config.settings import WebSocketSettings
    from gateway.mqtt.connection import Connection
    from gateway.mqtt.listener import Listener

PATHS = ("/mqtt", "/")
SUBPROTOCOL = "mqtt"
MAX_HEADER_BYTES = 8 * 1024
HANDSHAKE_S = 10.0
SHUTDOWN_S = 2.0
CLOSE_S = 2.0
_FRAME_BYTES = 64 * 1024
"""What is gathered for one frame at most."""
_MORE_THAN_A_PACKET_BYTES = 64 * 1024


class MqttSocket:
    """The port for WebSockets, in front of a listener."""

    def __init__(self, settings: WebSocketSettings, listener: Listener, *, max_connections: int) -> None:
        """See the module. Nothing is open before `start`."""
        self._settings = settings
        self._listener = listener
        self._max_connections = max_connections
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None
        self._door: Doorkeeper | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Open the port.

        Raises:
            GatewayError: the port is taken, the address is not ours, or a certificate cannot be used.
        """
        app = web.Application()
        for path in PATHS:
            app.router.add_get(path, self._serve)
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=logging.getLogger("gateway.mqtt.websocket"),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            shutdown_timeout=SHUTDOWN_S,
        )
        await runner.setup()
        assert runner.server is not None, "set up"
        self._door = Doorkeeper(runner.server, most=self._max_connections, patience_s=HANDSHAKE_S)
        settings = self._settings
        where = f"{settings.host}:{settings.port}"
        try:
            context = None if settings.tls is None else server_context(settings.tls)
            self._listening = await asyncio.get_running_loop().create_server(
                self._door, settings.host, settings.port, ssl=context
            )
        except OSError as error:
            await runner.cleanup()
            raise GatewayError(f"cannot listen on {where}: {error.strerror or error}") from error
        self._runner = runner
        self.port = self._listening.sockets[0].getsockname()[1]
        events.listening("mqtt-websocket", f"{settings.host}:{self.port}")

    async def stop(self) -> None:
        """Close the port; the listener has said goodbye to its clients already. Harmless if never started."""
        listening, self._listening = self._listening, None
        runner, self._runner = self._runner, None
        if listening is not None:
            listening.close()
        if runner is not None:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self._door is not None:
            self._door.arrived(request.transport)
        origin = request.headers.get("Origin")
        if origin is not None and not {origin.lower(), "*"} & self._settings.origins:
            return web.Response(status=403, text="this page's origin is not among `websocket.origins`\n")
        if SUBPROTOCOL not in _offered(request):
            return web.Response(status=400, text="a WebSocket with the sub-protocol mqtt is expected here\n")
        size_bytes = self._listener.house.terms.max_packet_bytes + _MORE_THAN_A_PACKET_BYTES
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,), max_msg_size=size_bytes, timeout=CLOSE_S, compress=False, autoclose=True
        )
        await socket.prepare(request)
        connection = self._listener.connection()
        transport = SocketTransport(socket, request, connection)
        connection.connection_made(transport)
        try:
            await _read(socket, transport, connection)
        finally:
            await transport.end()
            connection.connection_lost(None)
        return socket


async def _read(socket: web.WebSocketResponse, transport: SocketTransport, connection: Connection) -> None:
    while not transport.is_closing():
        await transport.may_read.wait()
        message = await socket.receive()
        if message.type is WSMsgType.BINARY:
            connection.data_received(bytes(message.data))
        elif message.type is WSMsgType.TEXT:
            transport.code = WSCloseCode.UNSUPPORTED_DATA
            return
        else:
            return  # closed, or broken


def _offered(request: web.Request) -> set[str]:
    return {name.strip() for line in request.headers.getall("Sec-WebSocket-Protocol", []) for name in line.split(",")}


class SocketTransport(asyncio.Transport):
    """A WebSocket in the shape that `Connection` knows."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request, connection: Connection) -> None:
        super().__init__()
        self._socket = socket
        self._request = request
        self._connection = connection
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._high_bytes = _FRAME_BYTES
        self._is_paused = False
        self._is_closing = False
        self._sender: asyncio.Task[None] | None = None
        self.code = WSCloseCode.OK
        self.may_read = asyncio.Event()
        self.may_read.set()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Of the TCP or TLS connection below."""
        below = self._request.transport
        return default if below is None else below.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:  # noqa: ARG002 - half of `high`
        """When the connection is told to pause."""
        self._high_bytes = _FRAME_BYTES if high is None else high

    def get_write_buffer_size(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self._waiting_bytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, in order, soon."""
        if self._is_closing:
            return
        self._waiting.append(bytes(data))
        self._waiting_bytes += len(data)
        if self._waiting_bytes > self._high_bytes and not self._is_paused:
            self._is_paused = True
            self._connection.pause_writing()
        self._send_soon()

    def pause_reading(self) -> None:
        """Leave the next frames to aiohttp's own bounded queue."""
        self.may_read.clear()

    def resume_reading(self) -> None:
        """Take frames again."""
        self.may_read.set()

    def is_closing(self) -> bool:
        """Whether nothing more will be sent."""
        return self._is_closing

    def close(self) -> None:
        """Send what waits, then close."""
        if not self._is_closing:
            self._is_closing = True
            self.may_read.set()
            self._send_soon()

    def abort(self) -> None:
        """Close without sending what waits."""
        self._is_closing = True
        self._waiting.clear()
        self._waiting_bytes = 0
        self.may_read.set()
        if self._request.transport is not None:
            self._request.transport.abort()

    async def end(self) -> None:
        """Nothing more will be read: close, unless that is under way."""
        self.close()
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=CLOSE_S)

    def _send_soon(self) -> None:
        if self._sender is None or self._sender.done():
            self._sender = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):  # the peer has gone; reading finds out
            while self._waiting:
                data = b"".join(self._waiting)
                self._waiting.clear()
                await self._socket.send_bytes(data)
                self._waiting_bytes -= len(data)
                if self._is_paused and self._waiting_bytes <= self._high_bytes // 2:
                    self._is_paused = False
                    self._connection.resume_writing()
            if self._is_closing:
                await self._socket.close(code=self.code)

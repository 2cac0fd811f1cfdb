"""The socket that paho-mqtt is given, so that paho speaks MQTT while this house decides about every system call.

paho reads a packet with three to four `recv` calls and writes each acknowledgement with one `send`; either costs more
than the rest of the gateway together. So between paho and the operating system stands `BrokerSocket`: paho reads what
it is fed and writes into a buffer, and neither ever blocks or touches the network. The shell reads large pieces, takes
the PUBLISH packets out of them in bulk, feeds paho the rest, and sends the buffer once a turn.

    network ──receive──▶ shell ──feed──▶ paho        (what is not a plain PUBLISH)
    network ◀──flush──── buffer ◀──send── paho, shell (whole packets, in order)

`BrokerContext` is how paho comes by it, with public means only: paho takes as its socket whatever the `SSLContext` that
it was configured with makes of a TCP connection. Whether TLS is spoken is decided by the settings alone, in
`wrap_socket`.

Invariants:
- With TLS settings there is no way past a verified handshake: a failure of any kind closes the socket and raises.
- What paho believes to have sent is either in the buffer, in order, or sent.
- paho closing its socket only marks it; `release` closes it. So what is buffered can still leave (a last DISCONNECT).
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from gateway.config.settings import TlsSettings

RECEIVE_BYTES = 65_536


def _nothing() -> None:
    """Nobody has asked to hear of writes yet."""


class BrokerSocket:
    """One connection's socket, non-blocking. Has the few methods that paho calls on a socket, and the shell's own."""

    def __init__(self, sock: socket.socket) -> None:
        """Args: sock: connected, with its TLS handshake done."""
        sock.settimeout(0)
        self._sock = sock
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._inbox = b""
        self._inbox_at = 0
        self._outbox = bytearray()
        self.on_write: Callable[[], None] = _nothing
        """Called when the buffer gets its first byte: somebody should call `flush` soon."""
        self.is_closed_by_paho = False

    # The shell's side.

    def receive(self) -> bytes | None:
        """What the network has, about `RECEIVE_BYTES` at most. None: nothing now. Empty: the peer has closed.

        Raises:
            OSError: the connection is broken.
        """
        data = self._receive_once()
        if not self._is_tls or not data:
            return data
        # A TLS read gives one record. What the library has decrypted already wakes no selector, so nothing stays there.
        parts = [data]
        size_bytes = len(data)
        while size_bytes < RECEIVE_BYTES or self._sock.pending():  # type: ignore[attr-defined]  # is_tls says it is one
            more = self._receive_once()
            if not more:
                break  # an end of stream shows again at the next read
            parts.append(more)
            size_bytes += len(more)
        return b"".join(parts)

    def _receive_once(self) -> bytes | None:
        try:
            return self._sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""

    def feed(self, packet: bytes) -> None:
        """Let paho read this, then find nothing more. Everything fed before has been read."""
        self._inbox = packet
        self._inbox_at = 0

    @property
    def is_eaten(self) -> bool:
        """Everything that paho was fed it has read."""
        return self._inbox_at >= len(self._inbox)

    @property
    def unsent_bytes(self) -> int:
        """Written and not yet taken by the operating system."""
        return len(self._outbox)

    def flush(self) -> bool:
        """Send what is buffered. False: the operating system takes no more for now.

        Raises:
            OSError: the connection is broken.
        """
        while self._outbox:
            try:
                sent = self._sock.send(self._outbox)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            del self._outbox[:sent]
        return True

    def discard(self) -> bool:
        """Read and forget. False once the peer has closed, in whatever way."""
        try:
            return self._receive_once() != b""
        except OSError:
            return False

    def release(self) -> None:
        """Close for good."""
        self.on_write = _nothing
        self._sock.close()

    def fileno(self) -> int:
        """For the event loop; -1 once released."""
        return self._sock.fileno()

    # paho's side.

    def recv(self, size_bytes: int) -> bytes:
        """A piece of what was fed; BlockingIOError when that is used up."""
        start = self._inbox_at
        piece = self._inbox[start : start + size_bytes]
        if not piece:
            raise BlockingIOError
        self._inbox_at = start + len(piece)
        return piece

    def send(self, data: bytes | bytearray) -> int:
        """Take all of it."""
        if not self._outbox:
            self.on_write()
        self._outbox += data
        return len(data)

    def close(self) -> None:
        """Called when paho is done with the connection."""
        self.is_closed_by_paho = True

    def setblocking(self, _flag: bool) -> None:  # noqa: FBT001 - the signature is socket's
        """It never blocks, whatever is asked."""

    def settimeout(self, _timeout_s: float | None) -> None:
        """It never waits, whatever is asked."""

    def do_handshake(self) -> None:
        """It has been done."""


class BrokerContext(ssl.SSLContext):
    """Makes a `BrokerSocket` of paho's TCP connection; over TLS if there are settings for it."""

    sock: BrokerSocket | None = None
    """What it made."""
    _speaks_tls: bool

    # __new__, since SSLContext has its arguments there.
    def __new__(cls, tls: TlsSettings | None) -> Self:
        """Read the certificates.

        Raises:
            OSError: a file is missing or is no certificate (`ssl.SSLError`).
        """
        self = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
        self._speaks_tls = tls is not None
        if tls is not None:
            self.minimum_version = ssl.TLSVersion.TLSv1_2
            if tls.ca is None:
                self.load_default_certs()
            else:
                self.load_verify_locations(tls.ca)
            if tls.certificate is not None:
                self.load_cert_chain(tls.certificate, tls.key)
        return self

    def wrap_socket(self, sock: socket.socket, *_args: Any, **kwargs: Any) -> BrokerSocket:  # type: ignore[override]  # see the module
        """Called by paho on its TCP connection, which still has the connect timeout set.

        Raises:
            OSError: the handshake failed (`ssl.SSLError`, `TimeoutError`); the socket is closed.
        """
        try:
            if self._speaks_tls:
                kwargs["do_handshake_on_connect"] = True
                sock = super().wrap_socket(sock, **kwargs)
            self.sock = BrokerSocket(sock)
        except BaseException:
            sock.close()
            raise
        return self.sock

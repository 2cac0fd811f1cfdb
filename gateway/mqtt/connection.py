"""One client's socket: bytes in, bytes out. The thin shell around `conversation`.

Invariants:
- No input makes a callback raise. A violation closes this connection and no other; a bug of ours does the same and is
  reported.
- An incomplete packet is kept as bytes until it is whole, and not looked at again before: a packet that trickles in
  byte by byte costs no more than one that comes at once.
- However much one peer sends, the others have their turns: it is read in shares, and no further while a few of them
  are on their way to the disk.
- A peer that does not read is not sent more messages (they stay in its session), and one that does not even read the
  answers to what it sends is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, cast

from gateway.errors import ProtocolError
from gateway.mqtt.access import Peer
from gateway.mqtt.admission import RefusedError
from gateway.mqtt.conversation import Conversation
from gateway.mqtt.packets import V311, Reason
from gateway.mqtt.turn import learn_properties, scan
from gateway.mqtt.wire import Body, NeedMore, frame_at
from gateway.observe import events

if TYPE_CHECKING:
    from gateway.mqtt.listener import Listener

HIGH_WATER_BYTES = 256 * 1024
"""Waiting in a transport: beyond it no further messages are sent."""
MAX_BACKLOG_BYTES = 4 * 1024 * 1024
"""Beyond it the peer is not reading at all."""
FLUSH_BYTES = 64 * 1024
"""What is gathered for one write at most, so that the transport's high-water mark is noticed in time."""
MAX_CONNECT_BYTES = 64 * 1024
"""What a stranger may make us keep."""
LIGHT_BYTES = 1024
"""Who sends less at a time does not keep others waiting, but waits for those who send more."""
ALONE_UNDER_WAY_BYTES = 128 * 1024
"""What of one client may be on its way to the disk where everybody sends much."""
CONNECT_BYTE = 0x10
CLOSE_WITHIN_S = 5.0
"""How long a closed connection may take to send its last bytes."""


class Connection(asyncio.Protocol):
    """A client, as the event loop sees it."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._gathering = listener.gathering
        self._transport: asyncio.Transport | None = None
        self._limit_bytes = listener.house.terms.max_packet_bytes
        self._spoken = listener.house.spoken
        self._tail = bytearray()
        """A packet that is not whole yet."""
        self._wanted_bytes = 0
        self._rest = bytearray()
        """What came in behind it and has not been looked at."""
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._is_closed = False
        self._has_ended = False
        now_s = listener.now_s()
        self.version = V311
        self.is_writable = True
        self.peer = "?"
        self.since_s = now_s
        self.abort_s: float | None = None
        """When a closed connection is given up; None while open."""
        self._throttle = listener.throttle()
        self._is_throttled = False
        self.conversation: Conversation
        """From `connection_made` on."""

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open (and TLS agreed)."""
        self._transport = cast("asyncio.Transport", transport)
        self.peer = _address(transport.get_extra_info("peername"))
        self.conversation = Conversation(
            self._listener.house, self, Peer(self.peer, _certified(transport)), self._go_on_soon, self.since_s
        )
        if not self._listener.join(self):
            self._is_closed = True
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            # A 3.1.1 client may ask for no keep-alive at all; the kernel's own then finds the dead ones.
            with contextlib.suppress(OSError):  # it may be gone already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        if self._is_closed:
            return
        if self._rest or self.conversation.is_pending:  # they were on their way already
            self._rest += data
            return
        try:
            self._receive(data)
        except Exception as error:  # noqa: BLE001 - one client must not disturb another, whatever it found
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, RefusedError):
            self.close()  # it has been told, and so has everybody else
        elif isinstance(error, ProtocolError):
            events.protocol_broken(self.peer, code=f"0x{error.reason_code:02x}", detail=str(error))
            self.cut(error.reason_code, str(error))
        else:
            events.task_failed("mqtt.connection", error)
            self.cut(Reason.UNSPECIFIED)

    def pause_writing(self) -> None:
        """The peer reads more slowly than we send."""
        self.is_writable = False

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self.is_writable = True
        session = self.conversation.session
        if session is not None and session.outlet is self:
            session.pump(self._listener.now_s())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The socket is gone."""
        self._end()
        self._transport = None
        self._listener.leave(self)

    # Called by sessions, the gathering and the listener.

    def put(self, data: bytes) -> None:
        """Send, in order, at the latest when the loop's turn is over."""
        if self._is_closed:
            return
        if not self._parts:
            self._gathering.wake(self)
        self._parts.append(data)
        self._parts_bytes += len(data)
        if self._parts_bytes > FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered, at once."""
        transport = self._transport
        if not self._parts or transport is None:
            return
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._parts_bytes = 0
        transport.write(data)
        if not self.is_writable and transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
            events.protocol_broken(self.peer, code="not_reading", detail="the peer does not read what it is sent")
            self.abort()

    def cut(self, reason: int, why: str = "") -> None:
        """Close, telling a 5.0 client why."""
        self.close(self.conversation.farewell(reason, why))

    def close(self, farewell: bytes = b"") -> None:
        """Send what has gathered and a last packet, then close."""
        if self._is_closed:
            return
        if farewell:
            self.put(farewell)
        self.flush()
        self._is_closed = True
        self.abort_s = self._listener.now_s() + CLOSE_WITHIN_S
        if self._transport is not None:
            self._transport.close()
        self._end()

    def abort(self) -> None:
        """Close without sending anything more."""
        self._is_closed = True
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def pause_reading(self) -> None:
        """Leave what the peer sends to its own memory."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again; the time during which nobody listened does not count against the peer."""
        if self._transport is None or self._transport.is_closing() or self._is_held:
            return
        self.conversation.grace(self._listener.now_s())
        if self._rest:
            self._go_on_soon()
        else:
            self._transport.resume_reading()

    @property
    def _is_held(self) -> bool:
        """Whether this peer alone is not to be read, for the time being."""
        return self._is_throttled or self.conversation.is_pending or self.conversation.is_crowded

    def _go_on(self) -> None:
        """Read on: what held this peer back may be over, or its next share is due."""
        if self._is_closed or self._is_held or self._listener.is_deaf:
            return
        try:
            if self.conversation.session is None:
                self.conversation.proceed(self._listener.now_s())
            if self._rest:
                size_bytes = self._gathering.share_bytes if self._is_shared else len(self._rest)
                share = bytes(self._rest[:size_bytes])
                del self._rest[:size_bytes]
                self._take(share)
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(error)
        self.resume_reading()

    def _go_on_soon(self) -> None:
        self._listener.soon(self._go_on)

    def _unthrottle(self) -> None:
        self._is_throttled = False
        self._go_on()

    def check(self, now_s: float) -> None:
        """Give up on a peer that is silent for too long, or that does not let itself be closed."""
        if self.abort_s is not None:
            if self.abort_s <= now_s:
                self.abort()
            return
        deadline_s = self.conversation.deadline_s
        if deadline_s is not None and deadline_s <= now_s and not self._is_held:
            self.cut(Reason.KEEP_ALIVE_TIMEOUT)

    # Reading.

    def _receive(self, data: bytes) -> None:
        """Take what came in; where others wait, a share of it now and the rest by and by."""
        size_bytes = self._gathering.share_bytes
        if len(data) > size_bytes and self._is_shared:
            self._rest += data[size_bytes:]
            self.pause_reading()
            self._go_on_soon()
            data = data[:size_bytes]
        self._take(data)

    @property
    def _is_shared(self) -> bool:
        """Whether others wait who send little."""
        return self._gathering.has_light_senders(self._listener.now_s())

    def _take(self, data: bytes) -> None:
        if self._tail:
            self._tail += data
            if len(self._tail) < self._wanted_bytes:
                self.conversation.heard(self._listener.now_s())
                return
            data = bytes(self._tail)
            self._tail.clear()
        conversation = self.conversation
        turn = self._gathering.turn
        topics, size_bytes = turn.topics, len(data)
        before = len(topics)
        mids = turn.pubacks.get(conversation) or []
        recs = turn.pubrecs.get(conversation) or []
        answers = len(mids) + len(recs)
        position = 0
        try:
            position = self._parse(data, mids, recs)
        finally:
            # What came before a violation was received, and is stored like the rest.
            if len(topics) > before:
                turn.senders.append((before, conversation))
            if mids:
                turn.pubacks[conversation] = mids
            if recs:
                turn.pubrecs[conversation] = recs
            added = len(mids) + len(recs) - answers
            if added or len(topics) > before:
                self._gathering.gathered(size_bytes, conversation)
                is_shared = size_bytes > LIGHT_BYTES and self._is_shared
                conversation.gathered(size_bytes, self._gathering.share_bytes if is_shared else ALONE_UNDER_WAY_BYTES)
        if position < size_bytes:
            self._tail += data[position:]
        if added:
            conversation.count(added)
        if self._throttle is not None:
            self._slow_down(max(len(topics) - before, added), size_bytes)
        if conversation.is_pending or conversation.is_crowded or self._is_throttled:
            self.pause_reading()

    def _slow_down(self, messages: int, size_bytes: int) -> None:
        assert self._throttle is not None, "asked by the caller"
        wait_s = self._throttle.take(messages, size_bytes, self._listener.now_s())
        if wait_s and not self._is_throttled:
            self._is_throttled = True
            self._listener.throttled(wait_s, self._unthrottle)

    def _parse(self, data: bytes, mids: list[bytes], recs: list[bytes]) -> int:
        """Take every whole packet. Returns where the first incomplete one begins."""
        conversation = self.conversation
        listener = self._listener
        turn = self._gathering.turn
        now_s = listener.now_s()
        conversation.heard(now_s)
        position, end = 0, len(data)
        if end < LIGHT_BYTES:
            self._gathering.light_s = now_s
        while position < end:
            limit_bytes = self._limit_bytes
            if conversation.session is not None:
                position = scan(
                    data,
                    position,
                    limit_bytes,
                    conversation.known,
                    turn,
                    mids,
                    v5=conversation.version != V311,
                    spoken=self._spoken,
                )
                if position == end:
                    break
            else:
                if data[position] != CONNECT_BYTE:
                    raise ProtocolError("something before CONNECT", Reason.PROTOCOL_ERROR)
                limit_bytes = min(limit_bytes, MAX_CONNECT_BYTES)
            frame = frame_at(data, position, limit_bytes)
            if isinstance(frame, NeedMore):
                self._wanted_bytes = frame.wanted_bytes
                break
            packet = conversation.handle(frame.first, Body(data, frame.start, frame.stop), turn, now_s)
            if packet is not None and packet.properties:
                learn_properties(self._spoken, data, frame.start, packet)
            if packet is not None and packet.qos:
                (mids if packet.qos == 1 else recs).append(packet.mid)
            position = frame.stop
            if conversation.is_pending:  # what follows is looked at when it is known who this is
                self._rest[:0] = data[position:]
                return end
            if conversation.is_over:
                self.close()
                return end
        return position

    def _end(self) -> None:
        self._parts.clear()
        self._parts_bytes = 0
        self._rest.clear()
        if not self._has_ended:
            self._has_ended = True
            self.conversation.end(self._listener.now_s())
            self._listener.ended()


def _certified(transport: asyncio.BaseTransport) -> str:
    """The name in the client's certificate, which the handshake has checked: its common name, or else a DNS name."""
    tls = transport.get_extra_info("ssl_object")
    shown = tls.getpeercert() if tls is not None else None
    if not shown:
        return ""
    names = [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
    names += [value for kind, value in shown.get("subjectAltName", ()) if kind == "DNS"]
    return names[0] if names else ""


def _address(peername: object) -> str:
    if isinstance(peername, tuple) and len(peername) >= 2:
        return f"{peername[0]}:{peername[1]}"
    return str(peername or "?")

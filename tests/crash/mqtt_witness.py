"""An MQTT client of plain bytes that keeps account of all that it is told. It shares no code with the gateway.

It behaves as the specification demands of a client: what is not acknowledged is sent again on the next connection, with
DUP and its old packet id; a message at QoS 2 that came twice is recognised by its packet id until PUBREL; packet ids
are used again as soon as they are free. It takes the lowest that is free, so that they are used again at once.

What contradicts what it was told before goes into the journal at once, in words; whether all that was promised has come
is judged at the end (`tests.crash.promises`).
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count

from tests.crash.account import CLEARED, NEVER, Delivery, Journal, Message

PATIENCE_S = 30.0
"""An answer that takes longer never comes."""
V311, V5 = 4, 5
_SESSION_EXPIRY = 0x11
_NAMES = {2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP"} | {
    9: "SUBACK", 11: "UNSUBACK", 13: "PINGRESP", 14: "DISCONNECT"
}  # fmt: skip
_NOT_FOUND = 0x92
_SHUTTING_DOWN = b"\x8b"


class GoneError(Exception):
    """The other side has closed the connection."""


@dataclass
class _Outgoing:
    message: Message
    is_received: bool = False
    """PUBREC came; what is left is to release the packet id."""
    releases: int = 0
    """How often PUBREL was sent."""
    on_this_connection: bool = False


class Client:
    """One client. Between two connections it keeps what its session consists of."""

    def __init__(self, journal: Journal, name: str, version: int, **options: object) -> None:
        """Args: options: `is_kept`, `expiry_s` (5.0 only), `will` (a message)."""
        self.name, self.version = name, version
        self.is_kept = bool(options.get("is_kept", True))
        self.expiry_s = int(str(options.get("expiry_s", 3_600)))
        self.will = options.get("will")
        self.starts_clean = not self.is_kept
        """The next CONNECT asks for a new session."""
        self.may_be_present = {False}
        """What `session present` may say."""
        self.since = NEVER
        """The step in which its present session began."""
        self.outgoing: dict[int, _Outgoing] = {}
        self.incoming: dict[int, bytes] = {}
        """Messages at QoS 2 that came and are not released."""
        self.holds: set[str] = set()
        """Packets that are not sent for the present: PUBACK, PUBREC, PUBREL, PUBCOMP."""
        self._held: list[tuple[str, int, int]] = []
        self.granted: dict[str, int] = {}
        """Subscriptions that were confirmed."""
        self._journal = journal
        self._socket: socket.socket | None = None
        self._input = b""
        self._arrived: dict[int, bytes] = {}
        """Messages at QoS 1 and 2 of this connection that are not acknowledged, by packet id."""
        self._answers: dict[tuple[int, int], bytes] = {}
        self._last_mid = 0

    # Connecting.

    @property
    def is_connected(self) -> bool:
        return self._socket is not None

    def connect(self, port: int) -> None:
        """Connect, check `session present`, send again what is not acknowledged."""
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        except OSError as error:
            raise GoneError from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._input, self._held = b"", []
        self._answers.clear()
        self._arrived.clear()
        clean = self.starts_clean
        allowed = {False} if clean else set(self.may_be_present)
        if self.is_kept:
            self.may_be_present = {False, True}  # who knows what becomes of it
        self._send(self._connect_packet(clean=clean))
        connack = self._answer(2, 0)
        is_present = bool(connack[0])
        self._journal.note(self.name, "CONNACK", is_present, "clean" if clean else "")
        self._journal.expect(connack[1] == 0, f"{self.name} is refused: {connack.hex()}")
        self._journal.expect(is_present in allowed, f"{self.name}: session present is {is_present}, not in {allowed}")
        self.may_be_present = {self.is_kept and not (clean and self.version == V311)}
        if not is_present:
            self._forget()
        self.starts_clean = not self.is_kept
        self._resend()

    def _forget(self) -> None:
        self.since = self._journal.step
        self.incoming.clear()
        self.granted.clear()
        again = [each.message for each in self.outgoing.values() if not each.is_received]
        self.outgoing.clear()
        for message in again:
            self.offer(message)

    def _resend(self) -> None:
        for mid, each in self.outgoing.items():
            if each.on_this_connection:
                continue
            if each.is_received:
                self._release(mid, each)
            else:
                self._publish(mid, each, dup=True)

    def _connect_packet(self, *, clean: bool) -> bytes:
        flags, payload = 2 * clean, _text(self.name)
        if isinstance(self.will, Message):
            flags |= 0x04 | self.will.qos << 3 | self.will.retain << 5
            payload += (b"\0" if self.version == V5 else b"") + _text(self.will.topic) + _blob(self.will.payload)
        expiry_s = self.expiry_s if self.is_kept else 0
        properties = struct.pack(">BBI", 5, _SESSION_EXPIRY, expiry_s) if self.version == V5 else b""
        return _packet(0x10, _text("MQTT") + bytes((self.version, flags, 0, 0)) + properties + payload)

    def disconnect(self) -> None:
        """Say farewell, and wait until the other side has closed."""
        self._send(_packet(0xE0, b""))
        self._journal.note(self.name, "DISCONNECT")
        try:
            while True:
                self.receive()
        except GoneError:
            self.lose()

    def lose(self) -> None:
        """Close without a word."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        for each in self.outgoing.values():
            each.on_this_connection = False

    # Sending.

    def offer(self, message: Message) -> None:
        """Publish a message, unless that is under way or done."""
        if message.stored != NEVER or any(each.message is message for each in self.outgoing.values()):
            return
        each = _Outgoing(message)
        mid = next(number for number in count(1) if number not in self.outgoing)
        self.outgoing[mid] = each
        message.offered = min(message.offered, self._journal.step)
        self._publish(mid, each, dup=False)

    def _publish(self, mid: int, each: _Outgoing, *, dup: bool) -> None:
        message = each.message
        message.times += 1
        each.on_this_connection = True
        first = 0x30 | dup << 3 | message.qos << 1 | message.retain
        content = b"" if message.payload.startswith(CLEARED) else message.payload
        body = _text(message.topic) + struct.pack(">H", mid) + (b"\0" if self.version == V5 else b"") + content
        self._journal.note(self.name, "sends", message.payload, "mid", mid, "dup" if dup else "")
        self._send(_packet(first, body))

    def _release(self, mid: int, each: _Outgoing) -> None:
        each.on_this_connection = True
        if "PUBREL" not in self.holds:
            each.releases += 1
            self._send(_packet(0x62, struct.pack(">H", mid)))

    def release(self) -> None:
        """Send the PUBRELs that were held."""
        self.holds.discard("PUBREL")
        for mid, each in list(self.outgoing.items()):
            if each.is_received and not each.releases:
                self._release(mid, each)

    def answer_all(self) -> None:
        """Send what was held, and hold nothing more."""
        self.holds.clear()
        held, self._held = self._held, []
        for name, first, mid in held:
            self._reply(name, first, mid)
        self.release()

    def ask(self, first: int, entries: Iterable[bytes]) -> bytes:
        """SUBSCRIBE or UNSUBSCRIBE; the reason codes of the answer."""
        self._last_mid += 1
        mid = struct.pack(">H", self._last_mid)
        properties = b"\0" if self.version == V5 else b""
        self._send(_packet(first, mid + properties + b"".join(entries)))
        return self._answer((first >> 4) + 1, self._last_mid)[2 + len(properties) :]

    def subscribe(self, wanted: dict[str, int]) -> None:
        """Subscribe, and check that all is granted."""
        codes = self.ask(0x82, (_text(name) + bytes((qos,)) for name, qos in wanted.items()))
        self._journal.note(self.name, "SUBACK", *wanted)
        self._journal.expect(codes == bytes(wanted.values()), f"{self.name}: SUBACK {codes.hex()} for {wanted}")
        self.granted |= wanted

    def unsubscribe(self, *filters: str) -> None:
        """Unsubscribe. 5.0 says whether there was anything: it must have been, unless this is asked again."""
        codes = self.ask(0xA2, map(_text, filters))
        self._journal.note(self.name, "UNSUBACK", *filters)
        self._journal.expect(all(code in {0, 0x11} for code in codes), f"{self.name}: UNSUBACK {codes.hex()}")
        for name in filters:
            self.granted.pop(name, None)

    def ping(self) -> None:
        """Ask for a sign of life: all that was sent before it has come by then."""
        self._send(b"\xc0\0")
        self._answer(13, 0)

    def _send(self, data: bytes) -> None:
        if self._socket is None:
            raise GoneError
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise GoneError from error

    # Receiving.

    def _answer(self, kind: int, mid: int) -> bytes:
        wait([self], lambda: (kind, mid) in self._answers, f"{self.name} gets {_NAMES[kind]} {mid}")
        return self._answers.pop((kind, mid))

    def fileno(self) -> int:
        assert self._socket is not None
        return self._socket.fileno()

    def receive(self) -> None:
        """Take in what has come, waiting for something.

        Raises:
            GoneError: the connection is closed.
        """
        if self._socket is None:
            raise GoneError
        try:
            data = self._socket.recv(65_536)
        except ConnectionError as error:
            raise GoneError from error
        if not data:
            raise GoneError
        self._input += data
        while (found := _unpack(self._input)) is not None:
            first, body, self._input = found
            self._take(first, body)

    def _take(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == 3:
            self._take_publish(first, body)
        elif kind in {4, 5, 6, 7}:
            mid = int.from_bytes(body[:2], "big")
            reason = body[2] if len(body) > 2 else 0
            self._journal.note(self.name, "gets", _NAMES[kind], mid, hex(reason))
            (self._take_pubrel if kind == 6 else self._take_ack)(kind, mid, reason)
        elif kind in {2, 13}:
            self._answers[kind, 0] = body
        elif kind in {9, 11}:
            self._answers[kind, int.from_bytes(body[:2], "big")] = body
        elif (kind, body[:1]) != (14, _SHUTTING_DOWN):  # it closes then, which is seen
            self._journal.expect(False, f"{self.name} gets {_NAMES.get(kind, kind)} {body.hex()}")

    def _take_ack(self, kind: int, mid: int, reason: int) -> None:
        """PUBACK, PUBREC, PUBCOMP: of a message that this client has sent on this connection."""
        each, what = self.outgoing.get(mid), f"{self.name}: {_NAMES[kind]} {mid} with 0x{reason:02x}"
        if each is None or not each.on_this_connection:
            self._journal.expect(False, f"{what} for nothing")
            return
        wanted = 4 if each.message.qos == 1 else 7 if each.is_received else 5
        self._journal.expect(kind == wanted, f"{what} where {_NAMES[wanted]} was due")
        # That a packet id is known no longer may only be said of one that was released before.
        is_repeated = kind == 7 and each.releases > 1 and reason == _NOT_FOUND
        self._journal.expect(reason == 0 or is_repeated, what)
        if kind == 5:
            each.is_received = True
            each.message.stored = min(each.message.stored, self._journal.step)
            self._release(mid, each)
        else:
            each.message.stored = min(each.message.stored, self._journal.step)
            del self.outgoing[mid]
            self._journal.exchanges += 1

    def _take_publish(self, first: int, body: bytes) -> None:
        qos, dup, retain = first >> 1 & 3, bool(first & 8), bool(first & 1)
        end = 2 + int.from_bytes(body[:2], "big")
        topic, rest = body[2:end].decode(), body[end:]
        mid = 0
        if qos:
            mid, rest = int.from_bytes(rest[:2], "big"), rest[2:]
        if self.version == V5:
            rest = rest[1 + rest[0] :]
        rest = rest or CLEARED + topic.encode()
        self._journal.note(self.name, "gets", rest, "at", qos, "mid", mid, "dup" * dup, "retain" * retain)
        message = self._journal.messages.get(rest)
        known = message is not None and message.topic == topic and message.offered <= self._journal.step
        self._journal.expect(known, f"{self.name} gets {rest!r} on {topic}, which nobody has sent")
        if qos:
            self._journal.expect(mid not in self._arrived, f"{self.name}: {mid} for {rest!r} while under way")
            self._arrived[mid] = rest
        if qos == 2 and mid in self.incoming:
            self._journal.expect(
                self.incoming[mid] == rest, f"{self.name}: {mid} means {self.incoming[mid]!r} and {rest!r}"
            )
            self._journal.expect(dup, f"{self.name}: {rest!r} comes again without DUP")
        else:
            self._journal.deliveries.append(Delivery(self.name, rest, qos, retain, self._journal.step))
            if qos == 2:
                self.incoming[mid] = rest
        if qos == 1:
            self._reply("PUBACK", 0x40, mid)
        elif qos == 2:
            self._reply("PUBREC", 0x50, mid)

    def _take_pubrel(self, _kind: int, mid: int, reason: int) -> None:
        self._journal.expect(reason == 0, f"{self.name}: PUBREL {mid} with 0x{reason:02x}")
        self.incoming.pop(mid, None)
        self._arrived.pop(mid, None)
        self._reply("PUBCOMP", 0x70, mid)

    def _reply(self, name: str, first: int, mid: int) -> None:
        if name in self.holds:
            self._held.append((name, first, mid))
            return
        if name != "PUBREC":
            self._arrived.pop(mid, None)
            self._journal.exchanges += 1
        self._send(_packet(first, struct.pack(">H", mid)))


def wait(clients: Iterable[Client], condition: Callable[[], object], what: str) -> None:
    """Take in what comes until a condition holds.

    Raises:
        GoneError: a connection is closed.
        AssertionError: it takes too long.
    """
    end_s = time.monotonic() + PATIENCE_S
    everybody = [client for client in clients if client.is_connected]
    while not condition():
        ready, _, _ = select.select(everybody, [], [], max(0.0, end_s - time.monotonic()))
        assert ready, f"never: {what}"
        for client in ready:
            client.receive()


def _text(text: str) -> bytes:
    return _blob(text.encode())


def _blob(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _packet(first: int, body: bytes) -> bytes:
    length, rest = b"", len(body)
    while True:
        rest, digit = divmod(rest, 128)
        length += bytes((digit | (0x80 if rest else 0),))
        if not rest:
            return bytes((first,)) + length + body


def _unpack(data: bytes) -> tuple[int, bytes, bytes] | None:
    """First byte, body, and what is behind it; None: there is no whole packet."""
    length = shift = 0
    for at in range(1, 5):
        if len(data) <= at:
            return None
        length |= (data[at] & 0x7F) << shift
        shift += 7
        if not data[at] & 0x80:
            end = at + 1 + length
            return (data[0], data[at + 1 : end], data[end:]) if len(data) >= end else None
    raise AssertionError(f"no length: {data[:5].hex()}")

"""What the gateway keeps for one client, and how messages leave towards it.

A session outlives its connections (MQTT 5.0, 4.1): subscriptions, what is in flight and what waits stay until it ends.
While a client is connected the session has an `Outlet`, into which it puts bytes; the shell empties it.

    deliver ──▶ in flight, QoS 1: waits for PUBACK ──acknowledge────────────────────────────▶ done
       │            └──────  QoS 2: waits for PUBREC ──receive──▶ waits for PUBCOMP ──complete──▶ done
       └──────▶ queue (client away, slow, or window full) ──▶ in flight

Invariants:
- At most `window` messages are in flight, at most `max_queued` of `max_queued_bytes` wait. What finds the queue full
  is dropped and counted: the oldest are kept, since a subscriber that missed the middle could not tell.
- Messages leave in the order of `deliver`. After a reconnect those in flight go first, in their old order, with their
  old packet ids and DUP [MQTT-4.4.0-1, 4.6.0-1]. A QoS 2 message that the client has is not sent again: its PUBREL is,
  in the order in which the PUBRECs came [MQTT-4.3.3-6, 4.6.0-4].
- QoS 0 is never queued: it is dropped, and counted if the client was there but slow.
- Nothing larger than the client's Maximum Packet Size is sent [MQTT-3.1.2-24], nothing that has expired.
- Time is an argument (`now_s`, monotonic). Nothing here is ever written to a socket, logged or raised.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import NamedTuple, Protocol

from gateway.mqtt.codec import encode_publish, encode_pubrel
from gateway.mqtt.ledger import Done, Received, Sent
from gateway.mqtt.notes import Notes
from gateway.mqtt.packets import NO_PROPERTIES, V5, V311, Properties, Reason, Subscription, Will
from gateway.mqtt.properties import Property, encode_property_content

DEFAULT_WINDOW = 1_000
"""In flight towards a client that did not say how many it takes (Receive Maximum)."""
MAX_PACKET_ID = 65_535
_SHORT_TOPIC = 5
"""A shorter one would not be worth its three bytes."""


class Message(NamedTuple):
    """What is routed: made once, shared by all subscribers."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    """As its publisher set it."""
    properties: Properties = NO_PROPERTIES
    """What is passed on; expiry is kept apart."""
    expires_s: float | None = None
    """Monotonic. None: never."""


class Held(NamedTuple):
    """A message on its way to one client."""

    message: Message
    qos: int
    retain: bool
    """As this client shall see it."""
    identifiers: tuple[int, ...]
    """Of the subscriptions that it matched."""
    number: int = 0
    """By which the ledger knows it, within its session; 0: it is not kept."""


class Tally:
    """What became of messages for subscribers; one for all sessions."""

    __slots__ = ("delivered", "dropped")

    def __init__(self) -> None:
        self.delivered = 0
        self.dropped: dict[str, int] = {}
        """By cause: `queue_full`, `slow`, `too_large`, `expired`, `retained_full`."""

    def drop(self, cause: str) -> None:
        """Count one message that somebody will not get."""
        self.dropped[cause] = self.dropped.get(cause, 0) + 1


class Hearer(Protocol):
    """Whoever can be told something."""

    def put(self, data: bytes) -> None:
        """Send, in order, soon."""


class Outlet(Hearer, Protocol):
    """Towards a connected client. The shell's connection is one; tests have another."""

    version: int
    is_writable: bool
    """False while so much waits to be sent that more should wait in the session."""

    def cut(self, reason: int) -> None:
        """Close the connection, telling why where the version allows it. By the end of the call it is detached."""


class Session:
    """One client, connected or not."""

    __slots__ = (
        "_aliases",
        "_max_aliases",
        "_next_id",
        "_notes",
        "client_id",
        "ends_s",
        "expiry_s",
        "in_flight",
        "is_kept",
        "keepalive_s",
        "max_packet_bytes",
        "max_queued",
        "max_queued_bytes",
        "next_number",
        "outlet",
        "owner",
        "planned",
        "queue",
        "queued_bytes",
        "receiving",
        "released",
        "resend",
        "subscriptions",
        "tally",
        "version",
        "will",
        "will_due_s",
        "window",
    )

    def __init__(
        self,
        client_id: str,
        max_queued: int,
        tally: Tally,
        notes: Notes | None = None,
        *,
        max_queued_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self.client_id = client_id
        self.owner = ""
        """The name under which its client proved itself; empty: nobody had to."""
        self._notes = notes or Notes()
        self._aliases: dict[str, int] = {}
        """Topics that the client knows by a number."""
        self._max_aliases = 0
        self.is_kept = False
        """The ledger knows it: it is to outlive the gateway."""
        self.keepalive_s = 0
        self.next_number = 1
        self.planned: dict[int, Held] = {}
        """By number: messages for it that are on their way to the disk."""
        self.released: dict[int, int] = {}
        """Packet id to number, of kept QoS 2 messages that wait for PUBCOMP."""
        self.max_queued = max_queued
        self.max_queued_bytes = max_queued_bytes
        self.queued_bytes = 0
        """Topics and payloads of what waits."""
        self.tally = tally
        self.subscriptions: dict[str, Subscription] = {}
        self.queue: deque[Held] = deque()
        self.in_flight: dict[int, Held | None] = {}
        """By packet id, in the order of sending. None in place of a QoS 2 message that the client has: what remains
        is its packet id, until PUBCOMP."""
        self.resend: deque[int] = deque()
        """Packet ids in flight that this connection has not carried yet."""
        self.receiving: set[bytes] = set()
        """Packet ids of QoS 2 messages that were taken in and not yet released [MQTT-4.3.3-10]."""
        self.outlet: Outlet | None = None
        self.version = V311
        self.window = DEFAULT_WINDOW
        self.max_packet_bytes: int | None = None
        self.expiry_s = 0.0
        """How long it lives on without a connection."""
        self.ends_s: float | None = None
        """When it ends; None while connected."""
        self.will: Will | None = None
        self.will_due_s: float | None = None
        """When a will that was triggered is to be published; None: not triggered."""
        self._next_id = 1

    def attach(self, outlet: Outlet, *, window: int, max_packet_bytes: int | None, max_aliases: int = 0) -> None:
        """The client is here. What is in flight goes out again with the next `pump`."""
        self._aliases = {}  # they belong to one connection
        self._max_aliases = max_aliases
        self.outlet = outlet
        self.version = outlet.version
        self.window = window
        self.max_packet_bytes = max_packet_bytes
        self.ends_s = None
        self.resend = deque(self.in_flight)

    def plan(self, message: Message, qos: int, identifiers: tuple[int, ...], *, retain: bool) -> int:
        """A message above QoS 0 is for this session, once it is on disk. Returns its number."""
        number = self.next_number
        self.next_number += 1
        self.planned[number] = Held(message, qos, retain, identifiers, number)
        return number

    def deliver_planned(self, number: int, now_s: float) -> None:
        """A planned message is on disk: send it, or keep it for later. Nothing if the session has ended since."""
        held = self.planned.pop(number, None)
        if held is not None:
            self._deliver(held, now_s)

    def deliver(self, message: Message, qos: int, identifiers: tuple[int, ...], now_s: float, *, retain: bool) -> bool:
        """Send a message, or keep it for later.

        Args:
            message: what was published.
            qos: the lower of what was published and what is subscribed.
            identifiers: of the subscriptions that it matched.
            now_s: monotonic.
            retain: as this client shall see it.

        Returns:
            Whether it was sent or queued.
        """
        outlet = self.outlet
        if not qos:
            if outlet is None:
                return False
            if not outlet.is_writable:
                self.tally.drop("slow")
                return False
            return self._send(outlet, Held(message, 0, retain, identifiers), 0, now_s)
        return self._deliver(Held(message, qos, retain, identifiers), now_s)

    def _deliver(self, held: Held, now_s: float) -> bool:
        outlet = self.outlet
        is_first = not self.queue and not self.resend
        if outlet is not None and outlet.is_writable and is_first and len(self.in_flight) < self.window:
            return self._send(outlet, held, self._take_id(), now_s)
        size_bytes = _size_bytes(held)
        if len(self.queue) >= self.max_queued or self.queued_bytes + size_bytes > self.max_queued_bytes:
            return self._give_up(held, 0, "queue_full")
        self.enqueue(held)
        return True

    def enqueue(self, held: Held) -> None:
        """Let a message wait."""
        self.queue.append(held)
        self.queued_bytes += _size_bytes(held)

    def _dequeue(self) -> Held:
        held = self.queue.popleft()
        self.queued_bytes -= _size_bytes(held)
        return held

    def acknowledge(self, mid: int, now_s: float) -> None:
        """A PUBACK came in. One that names no QoS 1 message in flight means nothing to us and is passed over."""
        held = self.in_flight.get(mid)
        if held is not None and held.qos == 1:
            self._done(mid, now_s)

    def receive(self, mid: int, reason: int, now_s: float) -> None:
        """A PUBREC came in: the client has a QoS 2 message and gets a PUBREL, or it refuses the message."""
        outlet = self.outlet
        if outlet is None:
            return
        held = self.in_flight.get(mid)
        if held is not None and held.qos != 2:
            return
        if reason >= Reason.UNSPECIFIED:  # it will not have it, and so gets no PUBREL [MQTT-4.3.3-4]
            if mid in self.in_flight:
                self._done(mid, now_s)
            return
        if mid not in self.in_flight:
            outlet.put(encode_pubrel(self.version, mid, Reason.PACKET_ID_NOT_FOUND))
            return
        self._forget_resend(mid)
        del self.in_flight[mid]  # to the end: PUBRELs go in the order of PUBRECs
        self.in_flight[mid] = None
        if held is not None and held.number:
            self.released[mid] = held.number
            self._notes.note(Received(self.client_id, held.number))
        self._put_pubrel(outlet, mid)

    def complete(self, mid: int, now_s: float) -> None:
        """A PUBCOMP came in, whatever its reason: the packet id is free."""
        if self.in_flight.get(mid, self) is None:
            self._done(mid, now_s)

    def _done(self, mid: int, now_s: float) -> None:
        held = self.in_flight.pop(mid)
        self._is_over(self.released.pop(mid, 0) if held is None else held.number)
        self._forget_resend(mid)
        if self.queue or self.resend:
            self.pump(now_s)

    def _is_over(self, number: int) -> None:
        if number:
            self._notes.note_late(Done(self.client_id, number))

    def _forget_resend(self, mid: int) -> None:
        if self.resend and mid in self.resend:
            self.resend.remove(mid)

    def pump(self, now_s: float) -> None:
        """Send what the window and the outlet allow: after attaching, after a PUBACK, when writable again."""
        outlet = self.outlet
        if outlet is None:
            return
        while self.resend and outlet.is_writable and len(self.in_flight) - len(self.resend) < self.window:
            mid = self.resend.popleft()
            held = self.in_flight[mid]
            if held is None:
                self._put_pubrel(outlet, mid)
            else:
                self._send(outlet, held, mid, now_s, dup=True)
        while self.queue and not self.resend and outlet.is_writable and len(self.in_flight) < self.window:
            self._send(outlet, self._dequeue(), self._take_id(), now_s)

    def _send(self, outlet: Outlet, held: Held, mid: int, now_s: float, *, dup: bool = False) -> bool:
        """Put one PUBLISH into the outlet. Returns False if it had to be dropped."""
        message = held.message
        content = b""
        if message.expires_s is not None and message.expires_s <= now_s and not dup:
            return self._give_up(held, mid, "expired")
        if self.version == V5 and (message.properties or held.identifiers or message.expires_s is not None):
            content = self._content(held, now_s)
        topic, alias = message.topic, self._alias_of(held)
        if alias:
            content += encode_property_content({Property.TOPIC_ALIAS: alias})
            topic = "" if topic in self._aliases else topic
        packet = encode_publish(
            topic,
            message.payload,
            version=self.version,
            qos=held.qos,
            retain=held.retain,
            mid=mid,
            dup=dup,
            content=content,
        )
        if self.max_packet_bytes is not None and len(packet) > self.max_packet_bytes:
            return self._give_up(held, mid, "too_large")
        if alias:
            self._aliases[message.topic] = alias
        if mid:
            self.in_flight[mid] = held
        self.tally.delivered += not dup
        self._put(outlet, held, mid, packet, dup=dup)
        return True

    def _alias_of(self, held: Held) -> int:
        """The number that stands, or is to stand, for a message's topic; 0: none. First come, first served."""
        topic = held.message.topic
        if len(topic) < _SHORT_TOPIC or (held.number and held.qos == 2):
            return 0  # what waits for the disk may be overtaken by what takes its alias for granted
        known = self._aliases.get(topic, 0)
        return known or (len(self._aliases) + 1 if len(self._aliases) < self._max_aliases else 0)

    def _put(self, outlet: Outlet, held: Held, mid: int, packet: bytes, *, dup: bool) -> None:
        if held.number and not dup:
            (self._notes.note_late if held.qos == 1 else self._notes.note)(Sent(self.client_id, held.number, mid))
        if held.number and held.qos == 2:
            # Its packet id is all by which the client knows that it has it: it must not be forgotten.
            self._notes.stage(outlet, packet)
        else:
            outlet.put(packet)

    def _put_pubrel(self, outlet: Outlet, mid: int) -> None:
        packet = encode_pubrel(self.version, mid)
        if mid in self.released:
            self._notes.stage(outlet, packet)
        else:
            outlet.put(packet)

    def _give_up(self, held: Held, mid: int, cause: str) -> bool:
        self.in_flight.pop(mid, None)
        self._is_over(held.number)
        self.tally.drop(cause)
        return False

    @staticmethod
    def _content(held: Held, now_s: float) -> bytes:
        content = encode_property_content(held.message.properties)
        if held.message.expires_s is not None:
            # The receiver is told what is left of it, less the whole seconds of waiting [MQTT-3.3.2-6].
            left_s = max(1, ceil(held.message.expires_s - now_s))
            content += encode_property_content({Property.MESSAGE_EXPIRY: left_s})
        for identifier in held.identifiers:
            content += encode_property_content({Property.SUBSCRIPTION_ID: identifier})
        return content

    def _take_id(self) -> int:
        """A packet id that is not in flight; there is one, since the window is smaller than their number."""
        mid = self._next_id
        while mid in self.in_flight:
            mid = mid % MAX_PACKET_ID + 1
        self._next_id = mid % MAX_PACKET_ID + 1
        return mid


def _size_bytes(held: Held) -> int:
    return len(held.message.topic) + len(held.message.payload)

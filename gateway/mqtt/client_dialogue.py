"""What is said on one connection, by way of one paho-mqtt client: CONNECT, subscriptions, messages to the broker.

Knows paho and nothing of sockets, acknowledgements or time: packets from the broker are given to it whole, and what
paho writes goes into the socket that `client_socket` has slipped under it. Only paho's public interface is used.

Invariants:
- A paho client lives for one connection: nothing of it can leak into the next.
- Subscriptions are at QoS 1 and asked for on every connection, also where the session still knows us: what a broker
  has kept may be older than our last request. MQTT 5 then spares us the retained messages; in 3.1.1 they come again,
  flagged.
- A version 5 broker's limits (Receive Maximum, QoS, RETAIN, packet size, keep-alive) are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.mqtt.client_ladder import Cause, End
from gateway.mqtt.client_refusal import connack_end, disconnect_end
from gateway.mqtt.packets import V5

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paho.mqtt.reasoncodes import ReasonCode

    from gateway.config.settings import ConnectSettings
    from gateway.mqtt.client_outbox import Outbox
    from gateway.mqtt.client_socket import BrokerContext, BrokerSocket
    from gateway.mqtt.client_stats import ClientStats
    from gateway.mqtt.will import Will

CONNECT_TIMEOUT_S = 10.0
"""For TCP and TLS, and again for the CONNACK."""
RECEIVE_MAXIMUM = 4_096
"""Messages that a version 5 broker may send ahead of our acknowledgements: about what comes while a slow card syncs."""
MOST_IN_FLIGHT = 100
"""Our own messages without acknowledgement, unless the broker allows fewer."""
MOST_UNSENT_BYTES = 1024 * 1024
"""While so much waits for the operating system, nothing new is published."""
FILTERS_PER_SUBSCRIBE = 50
_PUBLISH_HEAD_BYTES = 16  # at most, beside topic and payload


@dataclass(slots=True)
class Limits:
    """What the broker is ready to do."""

    in_flight: int = MOST_IN_FLIGHT
    qos: int = 1
    retain: bool = True
    packet_bytes: int | None = None
    keepalive_s: float | None = None
    """None: the one that we asked for."""


class Listener(Protocol):
    """Who hears what comes of it: the link."""

    def accepted(self, *, session_present: bool, limits: Limits) -> None:
        """The broker has let us in."""

    def over(self, end: End) -> None:
        """The connection is over, or must be."""

    def message(self, message: MQTTMessage) -> None:
        """A message that paho had to decode."""

    def refused(self, filters: tuple[str, ...]) -> None:
        """These filters, and no others, are refused at present."""

    def unsubscribed(self) -> None:
        """Filters have been taken back."""

    def may_write(self) -> None:
        """There is something to write, or room to write."""


class Dialogue:
    """See the module."""

    def __init__(
        self,
        settings: ConnectSettings,
        client_id: str,
        will: Will | None,
        version: int,
        outbox: Outbox,
        stats: ClientStats,
        link: Listener,
    ) -> None:
        """Args: as for `Link`; link: hears what comes of it."""
        self._settings = settings
        self._version = version
        self._outbox = outbox
        self._stats = stats
        self._link = link
        self._limits = Limits()
        self._subscribing: dict[int, Sequence[str]] = {}
        self._refused: set[str] = set()
        self._client = client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if version == V5 else False,
            protocol=MQTTProtocolVersion.MQTTv5 if version == V5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(0)  # the window is ours
        if settings.credentials is not None:
            client.username_pw_set(settings.credentials.username, settings.credentials.password)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe

    # The link's side.

    def connect(self, context: BrokerContext) -> None:
        """Resolve, connect, shake hands, write the CONNECT. Blocks: call it in a thread.

        Raises:
            OSError: there is no connection.
        """
        settings = self._settings
        self._client.tls_set_context(context)
        if self._version != V5:
            self._client.connect(settings.host, settings.port, settings.keepalive_s)
            return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types there
        properties.SessionExpiryInterval = min(settings.session_expiry_s, 0xFFFF_FFFF)
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        properties.MaximumPacketSize = settings.max_unsettled_bytes
        self._client.connect(
            settings.host, settings.port, settings.keepalive_s, clean_start=False, properties=properties
        )

    def feed(self, sock: BrokerSocket, packet: bytes) -> None:
        """Have paho handle one packet from the broker. Anything may be raised on malformed ones."""
        sock.feed(packet)
        while not sock.is_eaten:
            code = self._client.loop_read()
            if code is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._link.over(End(Cause.LOST, f"the broker broke the protocol: {code.name}"))
                return

    def write(self) -> None:
        """Let paho write what it could not while it was in one of our callbacks."""
        if self._client.want_write():
            self._client.loop_write()

    def complete(self, mid: int) -> None:
        """Acknowledge a message of QoS 2."""
        self._client.ack(mid, 2)

    def goodbye(self) -> None:
        """Write a DISCONNECT that keeps the session."""
        self._client.disconnect()

    def subscribe(self, filters: Sequence[str]) -> None:
        """Ask for messages."""
        for start in range(0, len(filters), FILTERS_PER_SUBSCRIBE):
            some = filters[start : start + FILTERS_PER_SUBSCRIBE]
            if self._version == V5:
                options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
                _, mid = self._client.subscribe([(name, options) for name in some])
            else:
                _, mid = self._client.subscribe([(name, 1) for name in some])
            if mid is not None:
                self._subscribing[mid] = some
        self._link.may_write()

    def subscribe_refused(self) -> None:
        """Ask again for what was refused."""
        self.subscribe(sorted(self._refused))

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Take back what an earlier configuration had asked for."""
        self._client.unsubscribe(list(filters))
        self._link.may_write()

    def publish_waiting(self, now_s: float, unsent_bytes: int) -> None:
        """Publish what the outbox holds, as far as the broker's window and the operating system's buffer go."""
        outbox, stats, limits = self._outbox, self._stats, self._limits
        while outbox.in_flight < limits.in_flight and unsent_bytes < MOST_UNSENT_BYTES:
            message = outbox.take(now_s)
            if message is None:
                break
            size_bytes = len(message.payload) + len(message.topic.encode()) + _PUBLISH_HEAD_BYTES
            if limits.packet_bytes is not None and size_bytes > limits.packet_bytes:
                outbox.done(message)
                stats.publish_refused += 1
                stats.last_error = f"a message of {size_bytes} bytes is larger than the broker takes"
                continue
            unsent_bytes += size_bytes
            qos = min(message.qos, limits.qos)
            told = self._client.publish(message.topic, message.payload, qos, message.retain and limits.retain)
            if qos:
                outbox.sent(told.mid, message)
            else:
                outbox.done(message)
                stats.published_total += 1
        stats.publish_queued = len(outbox)
        stats.publish_expired = outbox.expired

    # What paho calls.

    def _on_connect(
        self, _client: Client, _data: object, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._link.over(connack_end(reason))
            return
        limits, told = self._limits, {} if properties is None else vars(properties)
        limits.in_flight = min(limits.in_flight, told.get("ReceiveMaximum", limits.in_flight))
        limits.qos = min(limits.qos, told.get("MaximumQoS", limits.qos))
        limits.retain = bool(told.get("RetainAvailable", limits.retain))
        limits.packet_bytes = told.get("MaximumPacketSize")
        limits.keepalive_s = told.get("ServerKeepAlive")
        self._link.accepted(session_present=flags.session_present, limits=limits)

    def _on_disconnect(
        self, _client: Client, _data: object, flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._link.over(disconnect_end(reason))
        else:
            self._link.over(End(Cause.LOST, f"the broker broke the protocol: {reason.getName()}"))

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._link.message(message)

    def _on_publish(
        self, _client: Client, _data: object, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if not self._outbox.acknowledged(mid):
            return  # QoS 0: counted when it was handed over
        if reason.is_failure:
            self._stats.publish_refused += 1
            self._stats.last_error = f"the broker refused a message: {reason.getName()}"
        else:
            self._stats.published_total += 1
        self._link.may_write()

    def _on_subscribe(
        self, _client: Client, _data: object, mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        for name, reason in zip(self._subscribing.pop(mid, ()), reasons, strict=False):
            if reason.is_failure:
                self._refused.add(name)
                self._stats.last_error = f"the broker refused the subscription {name}: {reason.getName()}"
            else:
                self._refused.discard(name)
        self._link.refused(tuple(sorted(self._refused)))

    def _on_unsubscribe(self, *_told: object) -> None:
        self._link.unsubscribed()

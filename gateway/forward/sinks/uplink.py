"""One connection to an upstream broker: a paho client from its TCP connect to its end, never a second one.

paho's thread does the network; this object is the bridge between it and the loop. Whoever wants a new connection makes
a new object, so that an acknowledgement can never count for a message of an earlier connection that happened to have
the same packet id.

Invariants:
- The thread only notes acknowledgements; it wakes the loop once per group of messages, not per message.
- A group is published only when the one before is wholly acknowledged. Within it, paho keeps to the window that the
  connection was made with: the broker's Receive Maximum is only known once it has answered, and paho cannot be told
  then, so the owner makes another connection if the window turns out to be too wide.
- `start`, `publish` and `end` block, and are called in a thread. `end` always ends, even on a dead socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.config.settings import MqttSinkSettings

CONNECT_TIMEOUT_MAX_S = 10.0
WIDEST_WINDOW = 65_535
"""Receive Maximum of a broker that announces none."""
MOST_AT_ONCE = 32_000
"""Messages of one group: their packet ids are distinct with a wide margin."""
_GOODBYE_S = 1.0
_QUICK_ACK = getattr(socket, "TCP_QUICKACK", socket.TCP_NODELAY)  # Linux only


class Message(NamedTuple):
    """One message to publish."""

    topic: str
    payload: bytes
    properties: Properties | None


class PackedProperties(Properties):
    """Properties of a PUBLISH that were put into bytes beforehand: paho asks no more of them than `pack()`."""

    def __init__(self, packed: bytes) -> None:  # paho's own __init__ builds tables per message: 20 times the cost
        object.__setattr__(self, "_packed", packed)

    def pack(self) -> bytes:
        """The properties as they stand in the packet, with their length."""
        packed: bytes = self.__dict__["_packed"]
        return packed

    def __str__(self) -> str:
        return "PackedProperties"


class Answer(NamedTuple):
    """What came of a connection attempt."""

    reason: int | None
    """MQTT 5 reason code of the CONNACK; None: the connection ended before one came."""
    name: str


class Connection:
    """One generation of the connection."""

    def __init__(self, settings: MqttSinkSettings, client_id: str, *, version_5: bool, window: int) -> None:
        self._settings = settings
        self.window = window
        self._loop = asyncio.get_running_loop()
        self.version_5 = version_5
        self.receive_maximum = WIDEST_WINDOW
        self.maximum_packet_bytes: int | None = None
        self.takes_qos_1 = True
        self.established = False
        """The broker has accepted us (set by the owner)."""
        self.lost: str | None = None
        """Why the connection ended; None while it stands."""
        self.acks: dict[int, int] = {}
        """Reason code by packet id, of the present group."""
        self._expected = 0
        self._settled = asyncio.Event()
        self._answer: asyncio.Future[Answer] = self._loop.create_future()
        self._gone = threading.Event()
        self._sock: Any = None
        self._client = self._build(client_id)

    def _build(self, client_id: str) -> Client:
        settings = self._settings
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if self.version_5 else True,
            protocol=MQTTProtocolVersion.MQTTv5 if self.version_5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = min(settings.timeout_s, CONNECT_TIMEOUT_MAX_S)
        client.max_inflight_messages_set(self.window)
        client.max_queued_messages_set(0)
        if settings.credentials is not None:
            client.username_pw_set(settings.credentials.username, settings.credentials.password)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    # In a thread of the sink.

    def start(self) -> None:
        """Connect and start paho's thread. The CONNACK is not waited for.

        Raises:
            OSError: if there is no connection (`ssl.SSLError` included).
        """
        settings = self._settings
        if settings.tls is not None:
            tls = settings.tls
            self._client.tls_set(
                ca_certs=None if tls.ca is None else str(tls.ca),
                certfile=None if tls.certificate is None else str(tls.certificate),
                keyfile=None if tls.key is None else str(tls.key),
            )
        self._client.connect(settings.host, settings.port, settings.keepalive_s)
        self._sock = self._client.socket()
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client.loop_start()

    def publish(self, messages: Sequence[Message]) -> list[int]:
        """Hand the messages to paho.

        Returns:
            Their packet ids; fewer than messages if the connection went in between.
        """
        ids = []
        publish = self._client.publish
        for topic, payload, properties in messages:
            info = publish(topic, payload, 1, retain=False, properties=properties)
            if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                break
            ids.append(info.mid)
        return ids

    def end(self) -> None:
        """Say goodbye if anybody listens, and stop paho's thread."""
        if self.lost is None:
            self._client.disconnect()
            self._gone.wait(_GOODBYE_S)
        # A socket that takes nothing would keep paho's thread waiting for its unsent packets.
        with contextlib.suppress(OSError, AttributeError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()

    # On the loop.

    async def answer(self) -> Answer:
        """What the broker said to our CONNECT."""
        return await self._answer

    def expect(self, count: int) -> None:
        """Begin a group of `count` messages."""
        self.acks = {}
        self._expected = count
        self._settled.clear()

    async def settled(self, timeout_s: float) -> bool:
        """Wait until the group is acknowledged or the connection is lost. False: nothing moved for `timeout_s`."""
        while not self._settled.is_set() and self.lost is None:
            seen = len(self.acks)
            try:
                async with asyncio.timeout(timeout_s):
                    await self._settled.wait()
            except TimeoutError:
                if len(self.acks) == seen:
                    return False
        return True

    # In paho's thread.

    def _on_connect(self, _client: Client, _userdata: object, _flags: object, reason: Any, properties: Any) -> None:
        if properties is not None:
            self.receive_maximum = getattr(properties, "ReceiveMaximum", WIDEST_WINDOW)
            self.maximum_packet_bytes = getattr(properties, "MaximumPacketSize", None)
            self.takes_qos_1 = getattr(properties, "MaximumQoS", 1) >= 1
        self._tell(self._resolve, Answer(reason.value, str(reason)))

    def _on_disconnect(self, _client: Client, _userdata: object, _flags: object, reason: Any, _properties: Any) -> None:
        why = f"the connection to the broker ended: {reason}"
        self.lost = why
        self._gone.set()
        self._tell(self._resolve, Answer(None, why))
        self._tell(self._settled.set)

    def _on_publish(self, _client: Client, _userdata: object, mid: int, reason: Any, _properties: Any) -> None:
        acks = self.acks
        acks[mid] = reason.value
        # Brokers hold small PUBACKs back until the last one is acknowledged by TCP, and our side delays that by 40 ms
        # where it has nothing to send: per parcel, not per message. The kernel forgets this option, so it is renewed.
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        if len(acks) >= self._expected:
            self._tell(self._settled.set)

    def _tell(self, call: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(call, *args)

    def _resolve(self, answer: Answer) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)


def user_properties(pairs: Sequence[tuple[str, str]]) -> PackedProperties:
    """User properties of a PUBLISH (MQTT 5, 2.2.2.2), packed."""
    body = b"".join([b"\x26" + _text(name) + _text(value) for name, value in pairs])
    return PackedProperties(_varint(len(body)) + body)


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _varint(number: int) -> bytes:
    written = bytearray()
    while True:
        number, low = divmod(number, 128)
        written.append(low | (0x80 if number else 0))
        if not number:
            return bytes(written)

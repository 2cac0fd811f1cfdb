"""One MQTT connection over aiomqtt, for one device or for several.

              offer()            _pump, at most `window`              PUBACK
    a fleet ──────────▶ outbox ──────────────────────────▶ aiomqtt ──────────▶ acked
                                        ▲                     │
                                        └────── refused ◀─────┘ it saw the connection break before we did

Invariants:
- Everything goes out at QoS 1, each device's messages in order of first appearance.
- The client and its publishes outlive a connection: what was in flight when it broke is repeated on the next one under
  its old packet id, marked DUP, before anything new. What the client refused is offered again after that: it can cost a
  duplicate, never a loss.
- Nothing is published before the SUBACK, and the SUBACK has a deadline: no half-open connection hangs us.
- Reconnecting goes on for ever, with full jitter: a pause drawn from [0, min(max, base * 2^attempt)].
- Commands are acknowledged as they are read (QoS 1, aiomqtt does so); what they lead to is in the fleet's hands.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiomqtt
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from firmware_sim.account import Account
from firmware_sim.client import LastingClient
from firmware_sim.message import PREFIX
from firmware_sim.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from random import Random

    from firmware_sim.address import BrokerAddress
    from firmware_sim.device import Device
    from firmware_sim.journal import Journal
    from firmware_sim.message import Message

_LOGGER = logging.getLogger("firmware_sim.mqtt")
# That a connection broke is in `last_error`; who wants it in paho's words adds a handler of their own.
_LOGGER.addHandler(logging.NullHandler())
_STABLE_S = 10.0
"""A connection that has lasted so long was a good one: the next pause starts small again."""
_WILL = b'{"online":false,"cause":"connection lost"}'


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkSettings:
    """How devices speak MQTT."""

    protocol: int = 4
    """4 is MQTT 3.1.1, 5 is MQTT 5."""
    username: str | None = None
    """None: the one in the broker's URL, if any."""
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    """Trust anchors (PEM) for `mqtts://`. None: the system's."""
    client_prefix: str = "sim-"
    """Before the device's name: the persistent client id."""
    window: int = 20
    """Unacknowledged messages per connection."""
    queue_size: int = 1_000
    """Messages that each device keeps while it cannot send; beyond it the oldest give way."""
    keepalive_s: int = 30
    timeout_s: float = 10.0
    """For the broker's answer to CONNECT, SUBSCRIBE and DISCONNECT."""
    session_expiry_s: int = 3_600
    """MQTT 5 only: how long the broker keeps the session."""
    backoff_base_s: float = 0.2
    backoff_max_s: float = 30.0
    status: bool = True
    """Whether to say `devices/<name>/status`, retained, with a last will."""


class Link:
    """A connection that is kept up.

    Args:
        presence: the device that the connection speaks as: its only one, or a hub for several.
        devices: names of the devices whose messages it carries.
        on_connect: called on each connection, once the broker has answered.
        on_command: called with topic and payload of each command.
    """

    def __init__(
        self,
        broker: BrokerAddress,
        settings: LinkSettings,
        presence: Device,
        devices: Sequence[str],
        *,
        rng: Random,
        now_s: Callable[[], float],
        on_connect: Callable[[Link], None],
        on_command: Callable[[str, bytes], None],
        journal: Journal | None,
    ) -> None:
        self.devices = tuple(devices)
        self.name = presence.name
        self.connected = False
        self.connects = 0
        self.last_error = ""
        """Why the last attempt or connection ended; empty while all is well."""
        self.accounts = {name: Account() for name in (*devices, presence.name)}
        self._broker = broker
        self._settings = settings
        self._presence = presence
        self._rng = rng
        self._now_s = now_s
        self._on_connect = on_connect
        self._on_command = on_command
        self._journal = journal
        self._outbox = Outbox(settings.queue_size)
        self._in_flight: dict[int, Message] = {}
        """With the client, by order of handing over; `_refused` likewise."""
        self._refused: dict[int, Message] = {}
        self._again: deque[Message] = deque()
        """Refused on an earlier connection: goes out before anything from the outbox."""
        self._handed = 0
        self._publishing: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._closing_nudge = asyncio.Event()
        self._is_closing = False
        self._is_abandoned = False

    def offer(self, message: Message) -> None:
        """Take a message to send as soon as possible. Never waits; the oldest one gives way when the queue is full."""
        self.accounts[message.device].offered += 1
        displaced = self._outbox.push(message)
        if displaced is not None:
            self.accounts[displaced.device].dropped += 1
            self._note("dropped", displaced)
        self._wake.set()

    def close(self) -> None:
        """Say goodbye, and end `run` once everything is acknowledged. While the broker is away, that keeps trying."""
        if not self._is_closing and self._settings.status and self.connects:
            self._say_status(online=False, cause="stopped")
        self._is_closing = True
        self._closing_nudge.set()
        self._wake.set()

    def abandon(self) -> None:
        """End `run` as soon as possible; what is not acknowledged stays so."""
        self._is_abandoned = True
        self.close()

    async def run(self) -> None:
        """Connect, and connect again, until closed."""
        attempt = 0
        async with asyncio.TaskGroup() as publishes:
            client = self._new_client()
            while not self._is_done:
                began_s = _monotonic_s()
                try:
                    async with client:
                        await self._serve(client, publishes)
                except* aiomqtt.MqttReentrantError:
                    # It could not take leave of a broker that hangs, and cannot be used again.
                    self._withdraw()
                    client = self._new_client()
                except* aiomqtt.MqttError as group:
                    self.last_error = _reason(group)
                if not self._is_done:
                    attempt = 0 if _monotonic_s() - began_s > _STABLE_S else attempt + 1
                    await self._pause(attempt)
            self._withdraw()

    async def _serve(self, client: aiomqtt.Client, publishes: asyncio.TaskGroup) -> None:
        """Live with one connection until it breaks (MqttError, in a group) or everything is done."""
        await client.subscribe([(f"{PREFIX}{name}/+/set", 1) for name in self.devices])
        self._again.extendleft(self._refused[turn] for turn in sorted(self._refused, reverse=True))
        self._refused.clear()
        self.connected = True
        self.connects += 1
        self.last_error = ""
        if not self._is_closing:
            if self._settings.status:
                self._say_status(online=True, cause="connected")
            self._on_connect(self)
        try:
            async with asyncio.TaskGroup() as tasks:
                receiver = tasks.create_task(self._receive(client), name=f"firmware_sim.link.{self.name}.receive")
                await self._pump(client, publishes)
                receiver.cancel()
        finally:
            self.connected = False

    async def _receive(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload
            self._on_command(str(message.topic), payload if isinstance(payload, bytes) else str(payload).encode())

    async def _pump(self, client: aiomqtt.Client, publishes: asyncio.TaskGroup) -> None:
        """Hand over what waits, as the window allows, until everything is done."""
        while not self._is_done:
            # A refusal means that this connection is gone: `_receive` is about to say so.
            while len(self._in_flight) < self._settings.window and not self._refused and (self._again or self._outbox):
                self._hand_over(client, publishes)
            self._wake.clear()
            await self._wake.wait()

    def _hand_over(self, client: aiomqtt.Client, publishes: asyncio.TaskGroup) -> None:
        is_again = bool(self._again)
        message = self._again.popleft() if is_again else self._outbox.pop()
        account = self.accounts[message.device]
        if is_again:
            account.resent += 1
        else:
            account.sent += 1
            account.last_seq = message.seq
        self._note("resent" if is_again else "sent", message)
        self._handed += 1
        self._in_flight[self._handed] = message
        # Tasks start in the order in which they are made, and publishing queues the packet before it first waits.
        task = publishes.create_task(self._publish(client, self._handed, message))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def _publish(self, client: aiomqtt.Client, turn: int, message: Message) -> None:
        """Publish, and wait for the PUBACK for as long as it takes, over any number of connections."""
        try:
            await client.publish(message.topic, message.payload, qos=1, retain=message.retain, timeout=math.inf)
        except aiomqtt.MqttError:
            self._refused[turn] = message
        else:
            self._refused.pop(turn, None)  # withdrawn at the very moment in which it was acknowledged
            account = self.accounts[message.device]
            account.acked += 1
            account.last_acked_seq = max(account.last_acked_seq, message.seq)
            self._note("acked", message)
        finally:
            del self._in_flight[turn]
            self._wake.set()

    def _withdraw(self) -> None:
        """Take everything back from a client that will not be used again."""
        self._refused |= self._in_flight
        for task in self._publishing:
            task.cancel()

    @property
    def _is_done(self) -> bool:
        waits = self._outbox or self._in_flight or self._refused or self._again
        return self._is_abandoned or (self._is_closing and not waits)

    async def _pause(self, attempt: int) -> None:
        """Wait before the next attempt; closing cuts it short, for one more try."""
        settings = self._settings
        longest_s = min(settings.backoff_max_s, settings.backoff_base_s * 2.0 ** min(attempt, 32))
        self._closing_nudge.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._rng.uniform(0.0, longest_s)):
                await self._closing_nudge.wait()

    def _say_status(self, *, online: bool, cause: str) -> None:
        self.offer(self._presence.say("status", {"online": online, "cause": cause}, self._now_s(), retain=True))

    def _note(self, event: str, message: Message) -> None:
        if self._journal is not None:
            self._journal.note(event, message)

    def _new_client(self) -> LastingClient:
        settings, broker = self._settings, self._broker
        is_v5 = settings.protocol == 5
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's typing ends here
        if is_v5:
            properties.SessionExpiryInterval = settings.session_expiry_s
        client = LastingClient(
            broker.host,
            broker.port,
            username=settings.username if settings.username is not None else broker.username,
            password=settings.password if settings.password is not None else broker.password,
            identifier=settings.client_prefix + self.name,
            protocol=aiomqtt.ProtocolVersion.V5 if is_v5 else aiomqtt.ProtocolVersion.V311,
            will=aiomqtt.Will(f"{PREFIX}{self.name}/status", _WILL, qos=1, retain=True) if settings.status else None,
            clean_session=None if is_v5 else False,
            clean_start=False if is_v5 else MQTT_CLEAN_START_FIRST_ONLY,  # what paho insists on for 3.1.1
            properties=properties if is_v5 else None,
            timeout=settings.timeout_s,
            keepalive=settings.keepalive_s,
            max_inflight_messages=settings.window,
            logger=_LOGGER,
            tls_context=ssl.create_default_context(cafile=settings.ca) if broker.tls else None,
        )
        # A full window is our usual state, not one to warn about.
        client.pending_calls_threshold = 2 * settings.window
        return client


def _monotonic_s() -> float:
    return asyncio.get_running_loop().time()


def _reason(error: BaseException) -> str:
    """The first cause in a group, as one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__

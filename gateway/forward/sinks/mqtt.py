"""`type: mqtt`: publish to an upstream broker at QoS 1, MQTT 5 where it is spoken, else 3.1.1.

Delivered means: a PUBACK with a reason code below 0x80. Payloads travel as they came. Under MQTT 5 each message carries
the user properties `id` and `time`; 3.1.1 has no place for them.

Invariants:
- A parcel goes out without waiting for single acknowledgements; what is not acknowledged when the connection ends is
  sent again on the next one, by the runner. Nothing is kept in paho or in a broker's session.
- A topic with a wildcard or too long for MQTT never goes out: brokers answer it by closing the connection.
- A message that the broker has announced it will not take (Maximum Packet Size) never goes out, for the same reason.
"""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from gateway.forward.captures import Captures, fill
from gateway.forward.envelope import GAP_TOPIC, gap_value, rfc3339
from gateway.forward.sinks.uplink import MOST_AT_ONCE, WIDEST_WINDOW, Connection, Message, user_properties
from gateway.forward.verdict import (
    PROTOCOL_NOT_SPOKEN,
    Delivered,
    NeedsOperator,
    Refusal,
    Refused,
    Retry,
    judge_connack,
    judge_puback,
)
from gateway.mqtt.topics import topic_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from gateway.config.settings import MqttSinkSettings, TopicSettings
    from gateway.forward.parcel import Parcel
    from gateway.forward.verdict import Verdict
    from gateway.model import Gap

    T = TypeVar("T")

_MOST_TOPICS = 10_000
_PACKET_OVERHEAD_BYTES = 1 + 4 + 2 + 2
"""Of a PUBLISH, at most: header, length, the topic's length, packet id."""
_MISSING = "_"


class MqttSink:
    """One upstream broker."""

    def __init__(self, settings: MqttSinkSettings, gateway_id: str, topics: Sequence[TopicSettings]) -> None:
        self._settings = settings
        self._gateway = gateway_id
        self._client_id = settings.client_id or f"gateway-{gateway_id}-{settings.name}"
        self._captures = Captures(topics)
        self._targets: dict[str, str | None] = {}
        self._connection: Connection | None = None
        self._only_311 = False  # the broker said so
        self._window = WIDEST_WINDOW  # unacknowledged messages that the broker takes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sink-{settings.name}")

    async def open(self) -> None:
        """Nothing to do: the first parcel connects."""

    async def send(self, parcel: Parcel) -> Verdict:
        """Publish the parcel and wait for its PUBACKs."""
        connection = await self._connected()
        if not isinstance(connection, Connection):
            return connection
        return await self._publish(connection, self._messages(parcel, connection))

    async def announce(self, gap: Gap, wall_ns: int) -> Verdict:
        """Publish a JSON object that tells of the gap, on the topic of gaps."""
        connection = await self._connected()
        if not isinstance(connection, Connection):
            return connection
        target = self._target(GAP_TOPIC)
        if target is None:
            return Refused("topic", "the topic template makes no topic for gap records")
        properties = user_properties([("time", rfc3339(wall_ns))]) if connection.version_5 else None
        return await self._publish(connection, [Message(target, msgspec.json.encode(gap_value(gap)), properties)])

    async def close(self) -> None:
        """Disconnect."""
        await self._drop()
        self._thread.shutdown(wait=False)

    # Connecting.

    async def _connected(self) -> Connection | Verdict:
        """The connection that stands, or a new one."""
        connection = self._connection
        if connection is not None and connection.established and connection.lost is None:
            return connection
        verdict: Verdict = Retry("no connection")
        for version_5 in (False,) if self._only_311 else (True, False):
            outcome = await self._connect(version_5=version_5)
            if isinstance(outcome, Connection) and outcome.receive_maximum < outcome.window:
                self._window = outcome.receive_maximum
                outcome = await self._connect(version_5=version_5)
            if isinstance(outcome, Connection):
                return outcome
            verdict, other_version_may_do = outcome
            if not other_version_may_do:
                break
        await self._drop()
        return verdict

    async def _connect(self, *, version_5: bool) -> Connection | tuple[Verdict, bool]:
        """A connection, or why there is none and whether the other version of MQTT is worth a try."""
        await self._drop()
        settings = self._settings
        where = f"{settings.host}:{settings.port}"
        connection = self._connection = Connection(settings, self._client_id, version_5=version_5, window=self._window)
        try:
            await self._in_thread(connection.start)
            async with asyncio.timeout(settings.timeout_s):
                answer = await connection.answer()
        except ssl.SSLError as error:
            return NeedsOperator(f"{where}: {error}"), False
        except TimeoutError:
            return Retry(f"{where}: no answer within {settings.timeout_s:g} s"), False
        except OSError as error:
            return Retry(f"{where}: {error}"), False
        if answer.reason is None:
            return Retry(f"{where}: {answer.name}"), True
        if answer.reason == PROTOCOL_NOT_SPOKEN:
            self._only_311 = version_5
            return NeedsOperator(f"{where}: {answer.name}"), version_5
        if answer.reason >= 0x80:
            return judge_connack(answer.reason, answer.name), False
        if not connection.takes_qos_1:
            return NeedsOperator(f"{where}: the broker takes no QoS 1"), False
        connection.established = True
        return connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._in_thread(connection.end)

    async def _in_thread(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    # Publishing.

    def _messages(self, parcel: Parcel, connection: Connection) -> list[Message | Refusal]:
        """What to publish, record by record; a refusal where the record cannot be."""
        messages: list[Message | Refusal] = []
        most_bytes = connection.maximum_packet_bytes
        for batch in parcel.batches:
            prefix, time = batch.origin.prefix(), ("time", rfc3339(batch.stamp.wall_ns))
            for seq, topic, payload in zip(range(batch.seq, batch.end), batch.topics, batch.payloads, strict=True):
                target = self._target(topic)
                if target is None:
                    messages.append(Refusal(len(messages), "topic", f"{topic!r} makes no topic that MQTT can carry"))
                    continue
                properties = user_properties([("id", f"{prefix}{seq}"), time]) if connection.version_5 else None
                if most_bytes is not None:
                    packed = 0 if properties is None else len(properties.pack())
                    size_bytes = _PACKET_OVERHEAD_BYTES + len(target.encode()) + packed + len(payload)
                    if size_bytes > most_bytes:
                        detail = f"{size_bytes} bytes, and the broker takes {most_bytes}"
                        messages.append(Refusal(len(messages), "too_large", detail))
                        continue
                messages.append(Message(target, payload, properties))
        return messages

    async def _publish(self, connection: Connection, items: Sequence[Message | Refusal]) -> Verdict:
        """Publish in groups, and tell how far it went."""
        outgoing = (item for item in items if isinstance(item, Message))
        reasons: list[int] = []
        stopped = "the connection was lost"
        try:
            while group := list(islice(outgoing, MOST_AT_ONCE)):
                connection.expect(len(group))
                ids = await self._in_thread(connection.publish, group)
                in_time = await connection.settled(self._settings.timeout_s)
                acks = connection.acks
                answered = [acks.get(id_) for id_ in ids]
                known = _leading(answered)
                reasons += known
                if len(known) < len(group):
                    stopped = connection.lost or ("no PUBACK came in time" if not in_time else stopped)
                    await self._drop()
                    break
        except asyncio.CancelledError:
            # Half of it may be under way: nothing of this connection may count for what is sent next.
            connection.lost = connection.lost or "cancelled"
            raise
        return _judge(items, reasons, stopped)

    def _target(self, topic: str) -> str | None:
        """Where a topic's events go; None if that is nowhere."""
        if topic not in self._targets:
            if len(self._targets) >= _MOST_TOPICS:
                self._targets.clear()
            values = {**self._captures.of(topic), "gateway": self._gateway, "topic": topic}
            target = fill(self._settings.topic, values, _MISSING)
            self._targets[topic] = None if target.startswith("$") or topic_problem(target) else target
        return self._targets[topic]


def _leading(answers: list[int | None]) -> list[int]:
    """The answers up to the first that is missing."""
    known = []
    for reason in answers:
        if reason is None:
            break
        known.append(reason)
    return known


def _judge(items: Sequence[Message | Refusal], reasons: list[int], stopped: str) -> Verdict:
    """Put acknowledgements and our own refusals together, in order."""
    refused: list[Refusal] = []
    end: Verdict = Retry(stopped)
    count = 0
    answers = iter(reasons)
    for index, item in enumerate(items):
        if isinstance(item, Refusal):
            refused.append(item)
        else:
            reason = next(answers, None)
            if reason is None:
                break
            outcome = judge_puback(reason, index)
            if isinstance(outcome, Retry | NeedsOperator):
                end = outcome
                break
            if outcome is not None:
                refused.append(outcome)
        count = index + 1
    return Delivered(count, tuple(refused)) if count else end

"""Numbers that stand for topics, on one connection and towards us (MQTT 5.0, 3.3.2.3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import ProtocolError
from gateway.mqtt.packets import Reason
from gateway.mqtt.properties import Property

if TYPE_CHECKING:
    from gateway.mqtt.packets import Publish

MAX_ALIASES = 32
"""Topic aliases that a client may define, announced as Topic Alias Maximum; and that it is sent at most."""


class Aliases:
    """What a client has defined. They end with its connection [MQTT-3.3.2-7]."""

    def __init__(self) -> None:
        self._topics: dict[int, str] = {}

    def resolve(self, packet: Publish) -> Publish:
        """The message with its topic, which an alias may stand for, or come to stand for.

        Raises:
            ProtocolError: 0x94 for an alias out of range [MQTT-3.3.2-8, -9], 0x82 for one that stands for nothing.
        """
        alias = packet.properties.get(Property.TOPIC_ALIAS)
        if alias is None:
            return packet
        if not 0 < alias <= MAX_ALIASES:
            raise ProtocolError(f"topic alias {alias}", Reason.BAD_ALIAS)
        if packet.topic:
            self._topics[alias] = packet.topic
            return packet
        topic = self._topics.get(alias)
        if topic is None:
            raise ProtocolError(f"topic alias {alias} was never defined", Reason.PROTOCOL_ERROR)
        return packet._replace(topic=topic)

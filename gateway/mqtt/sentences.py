"""What an answer may say beside its code: a sentence for people, to clients that take it.

A client says how large a packet may be that it is sent (Maximum Packet Size), and whether it wants sentences in other
packets than CONNACK and DISCONNECT (Request Problem Information).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.mqtt.packets import NO_PROPERTIES
from gateway.mqtt.properties import Property

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.mqtt.packets import Properties

_SENTENCE_CHARACTERS = 100


def fitting(build: Callable[[Properties], bytes], why: str, most_bytes: int | None) -> bytes:
    """A packet with a sentence in it; without it where it would be too large [MQTT-3.2.2-19, 3.14.2-3, 3.9.2-1].

    Args:
        build: makes the packet with these properties.
        why: the sentence; empty: none.
        most_bytes: the largest packet that the client takes; None: any.

    Returns:
        The packet; nothing if it is too large even so [MQTT-3.1.2-24].
    """
    if why:
        packet = build({Property.REASON_STRING: why[:_SENTENCE_CHARACTERS]})
        if most_bytes is None or len(packet) <= most_bytes:
            return packet
    packet = build(NO_PROPERTIES)
    return packet if most_bytes is None or len(packet) <= most_bytes else b""

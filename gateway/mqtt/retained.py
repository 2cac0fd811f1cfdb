"""The last retained message of each topic: whose it is, and what is on its way.

A message is retained once it is on disk. What is *coming* (noted, and not on disk yet) is what a restart would find, so
that it belongs to what is kept. What the gateway itself retains is not kept: it says it anew when it starts, and what
it said in an earlier life may be wrong by then.

Invariants:
- Bounded by number and by bytes; what finds no room is dropped and counted, and what stood there before is gone.
- An empty payload removes what is there [MQTT-3.3.1-6, -7].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.mqtt.routing import RetainedTree
from gateway.mqtt.topics import MAX_FILTER_LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.mqtt.session import Message, Tally


class RetainedStore:
    """See the module."""

    def __init__(self, most: int, most_bytes: int, tally: Tally) -> None:
        """Hold nothing yet.

        Args:
            most: topics.
            most_bytes: of topics and payloads together.
            tally: counts what finds no room.
        """
        self._most = most
        self._most_bytes = most_bytes
        self._tally = tally
        self._tree: RetainedTree[Message] = RetainedTree()
        self._bytes = 0
        self._coming: dict[str, tuple[int, Message]] = {}
        """How many are on their way to the disk, and the last of them."""
        self._own: set[str] = set()
        """Topics on which the gateway itself has retained something."""

    @property
    def count(self) -> int:
        """Topics."""
        return self._tree.count

    def put(self, message: Message) -> None:
        """Keep a message as its topic's last."""
        topic = message.topic
        self._forget(topic)
        if not message.payload:
            return
        size_bytes = len(topic) + len(message.payload)
        if (
            self._tree.count >= self._most
            or self._bytes + size_bytes > self._most_bytes
            or topic.count("/") >= MAX_FILTER_LEVELS
        ):
            self._tally.drop("retained_full")
            return
        self._tree.put(topic, message)
        self._bytes += size_bytes

    def put_own(self, message: Message) -> bool:
        """Keep one of the gateway's own. Whether a client's that is kept has given way to it."""
        topic = message.topic
        is_kept = topic not in self._own and topic not in self._coming and self._tree.get(topic) is not None
        self.put(message)
        self._own.add(topic)
        return is_kept

    def expect(self, message: Message) -> None:
        """One of a client's is on its way to the disk."""
        count, _ = self._coming.get(message.topic, (0, None))
        self._coming[message.topic] = (count + 1, message)

    def arrived(self, topic: str) -> None:
        """It is there, or will never be."""
        count, message = self._coming.pop(topic, (1, None))
        if count > 1 and message is not None:
            self._coming[topic] = (count - 1, message)

    def match(self, mqtt_filter: str, now_s: float) -> Iterator[Message]:
        """What is retained on every topic that a valid filter matches, and has not expired."""
        for message in self._tree.match(mqtt_filter):
            if message.expires_s is not None and message.expires_s <= now_s:
                self._forget(message.topic)
            else:
                yield message

    def kept(self) -> Iterator[Message]:
        """What a restart is to find."""
        yield from (each for each in self._tree if each.topic not in self._own and each.topic not in self._coming)
        yield from (message for _, message in self._coming.values() if message.payload)

    def _forget(self, topic: str) -> None:
        self._own.discard(topic)
        kept = self._tree.get(topic)
        if kept is not None:
            self._bytes -= len(topic) + len(kept.payload)
            self._tree.remove(topic)

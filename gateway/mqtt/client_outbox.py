"""Messages on their way to the broker: a bounded queue that outlives connections. No I/O; the time is an argument.

Invariants:
- A message leaves the queue when the broker has acknowledged it (QoS 1), when it was written (QoS 0), or when it has
  become too old: a command that waited for an hour must not switch anything.
- What was sent and not acknowledged when a connection ended goes out again, first and in the old order, as a new
  message with a new packet id. (At QoS 1 a broker keeps no state by packet id: only the DUP bit tells the two apart.)
- A full queue refuses the newest and says so; nothing that was accepted is thrown out for something newer.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

MAX_MESSAGES = 1_000
MAX_BYTES = 4 * 1024 * 1024


class Outgoing(NamedTuple):
    """One message."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    queued_s: float
    """On the loop's clock."""


class Outbox:
    """What waits, and what is on its way."""

    def __init__(self, max_age_s: float) -> None:
        """Args: max_age_s: older messages are not sent any more."""
        self._max_age_s = max_age_s
        self._waiting: deque[Outgoing] = deque()
        self._sent: dict[int, Outgoing] = {}
        self._size_bytes = 0
        self.expired = 0
        """How many became too old."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    @property
    def in_flight(self) -> int:
        """Sent and not yet acknowledged."""
        return len(self._sent)

    def put(self, message: Outgoing) -> bool:
        """Queue it. False: there is no room."""
        size_bytes = len(message.payload)
        if len(self) >= MAX_MESSAGES or self._size_bytes + size_bytes > MAX_BYTES:
            return False
        self._size_bytes += size_bytes
        self._waiting.append(message)
        return True

    def take(self, now_s: float) -> Outgoing | None:
        """The next message that is still worth sending; it must be `sent` or `done`."""
        while self._waiting:
            message = self._waiting.popleft()
            if now_s - message.queued_s <= self._max_age_s:
                return message
            self.expired += 1
            self.done(message)
        return None

    def sent(self, mid: int, message: Outgoing) -> None:
        """It is on its way under this packet id."""
        self._sent[mid] = message

    def acknowledged(self, mid: int) -> bool:
        """The broker has it. False: nothing is known under that packet id."""
        message = self._sent.pop(mid, None)
        if message is not None:
            self.done(message)
        return message is not None

    def done(self, message: Outgoing) -> None:
        """It needs no room any more."""
        self._size_bytes -= len(message.payload)

    def disconnected(self) -> None:
        """What was on its way has to go again."""
        self._waiting.extendleft(reversed(self._sent.values()))
        self._sent.clear()

"""What waits to be sent over one connection: a bounded queue per device. Pure.

Policy when full: a device keeps its newest messages, and the oldest one has to go, which the caller counts. This is
what a device with a little memory can honestly do while its network is away.

Invariants:
- Each device's messages leave in the order in which they were pushed.
- Devices that share a connection take turns, message by message.
- A device is in `_turns` if and only if it has something queued.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firmware_sim.message import Message


class Outbox:
    """Queues of the devices of one connection.

    Args:
        capacity: messages that each device keeps, from 1.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queues: dict[str, deque[Message]] = {}
        self._turns: deque[str] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, message: Message) -> Message | None:
        """Queue a message. Returns the one that it displaced, if any."""
        queue = self._queues.setdefault(message.device, deque())
        displaced = None
        if not queue:
            self._turns.append(message.device)
        if len(queue) >= self._capacity:
            displaced = queue.popleft()
            self._length -= 1
        queue.append(message)
        self._length += 1
        return displaced

    def pop(self) -> Message:
        """The next message to send.

        Raises:
            IndexError: if nothing waits.
        """
        device = self._turns.popleft()
        queue = self._queues[device]
        message = queue.popleft()
        self._length -= 1
        if queue:
            self._turns.append(device)
        return message

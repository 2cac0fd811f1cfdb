"""How fast one client may send: two buckets, one of messages and one of bytes, each a second deep.

Nothing is refused and nothing is lost: who sends faster is read more slowly, and TCP tells it to wait.
"""

from __future__ import annotations


class Throttle:
    """What one connection has left."""

    __slots__ = ("_bytes_per_s", "_free_bytes_s", "_free_messages_s", "_messages_per_s")

    def __init__(self, messages_per_s: float | None, bytes_per_s: float | None) -> None:
        """See the module. None: no such limit."""
        self._messages_per_s = messages_per_s
        self._bytes_per_s = bytes_per_s
        self._free_messages_s = float("-inf")
        """When all that was taken would have been paid for at the rate."""
        self._free_bytes_s = float("-inf")

    def take(self, messages: int, size_bytes: int, now_s: float) -> float:
        """Count what was read. Returns for how many seconds nothing more should be."""
        wait_s = 0.0
        if self._messages_per_s is not None:
            self._free_messages_s = max(self._free_messages_s, now_s) + messages / self._messages_per_s
            wait_s = self._free_messages_s - now_s - 1.0
        if self._bytes_per_s is not None:
            self._free_bytes_s = max(self._free_bytes_s, now_s) + size_bytes / self._bytes_per_s
            wait_s = max(wait_s, self._free_bytes_s - now_s - 1.0)
        return max(wait_s, 0.0)

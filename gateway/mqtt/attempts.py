"""Guessing passwords takes time: after `FREE` failures in a row, one try a second.

Counted by address and user name, so that behind one address a device with a wrong password delays no other; all names
that are no user's count as one, so that a stranger cannot fill the table. A delay, never a lock: whoever has the right
password gets in, a second later.
"""

from __future__ import annotations

from typing import TypeAlias

FREE = 5
DELAY_S = 1.0
MAX_WAIT_S = 10.0
"""More tries than fit into this are turned away unlooked at."""
FORGET_S = 600.0
MAX_KEYS = 10_000

Key: TypeAlias = tuple[str, str]
"""Address, and user name or nothing."""


class Attempts:
    """Failures in a row, by who tries."""

    def __init__(self) -> None:
        self._failures: dict[Key, int] = {}
        self._next_s: dict[Key, float] = {}
        """When the last try that was let through takes place, or took. In the order in which they were entered."""

    def wait_s(self, key: Key, now_s: float) -> float | None:
        """How long a try must wait; it counts as let through. None: too many are waiting already."""
        if self._failures.get(key, 0) < FREE:
            return 0.0
        last_s = self._next_s.get(key, 0.0)
        if now_s - last_s > FORGET_S:
            self.succeeded(key)
            return 0.0
        at_s = max(now_s, last_s) + DELAY_S
        if at_s - now_s > MAX_WAIT_S:
            return None
        self._next_s[key] = at_s
        return at_s - now_s

    def failed(self, key: Key, now_s: float) -> None:
        """A try was wrong."""
        self._failures[key] = self._failures.get(key, 0) + 1
        self._next_s[key] = max(now_s, self._next_s.pop(key, now_s))
        if len(self._next_s) > MAX_KEYS:
            oldest = next(iter(self._next_s))
            self.succeeded(oldest)

    def succeeded(self, key: Key) -> None:
        """A try was right: forget what was before."""
        self._failures.pop(key, None)
        self._next_s.pop(key, None)

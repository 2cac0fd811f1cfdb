"""When what is said to one receiver goes out, and how much of it in one message. Pure: time is an argument.

What waits is bounded, and so is how often something goes out:

- The first that waits opens a group. The group goes out `group_s` later, with everything that waits by then.
- In any `every_s` at most `most` parcels go out. While the rate holds them back, they wait and the group grows.
- With `group_s = 0` nothing waits for company: each goes out alone as far as the rate allows, and the last that it
  allows takes along all that waits. So a burst is told at once, and still in full.
- What finds no room is counted, and the parcel that takes the last of what waits says how many there were.

Invariants:
- Order is kept. The oldest stay: they are nearer to the cause.
- said = taken + waiting + refused for want of room + cleared, at any time.
- Seconds are on one clock that never goes back; which one is the caller's choice.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gateway.model import Decision, Notify

KEPT_MESSAGES = 100
LONGEST_TEXT = 2_000
"""Characters of one text or reason. A rule may put a whole payload into a text; nobody reads that."""


class Message(NamedTuple):
    """One thing that a rule says."""

    id: str
    """The decision's: a receiver can drop the second of two that a crash has made of one."""
    rule: str
    key: str
    text: str
    because: str


class Parcel(NamedTuple):
    """What goes out as one message."""

    messages: tuple[Message, ...]
    """At least one, oldest first."""
    more: int = 0
    """How many have been said before this and were not told: they found no room, or no try got through."""

    @property
    def total(self) -> int:
        """How many this speaks of."""
        return len(self.messages) + self.more


def message_of(decision: Decision, said: Notify) -> Message:
    """What a decision says, no longer than anyone would read."""
    return Message(decision.id, decision.rule, decision.key, shortened(said.text), shortened(decision.because))


def shortened(text: str, most: int = LONGEST_TEXT) -> str:
    """A text of at most so many characters, with a mark where something is missing."""
    return text if len(text) <= most else text[: most - 1] + "…"


class Gathering:
    """What waits for one receiver. See the module."""

    __slots__ = ("_every_ns", "_first_ns", "_group_ns", "_more", "_most", "_room", "_sent_ns", "_waiting")

    def __init__(self, group_s: float, every_s: float, most: int, room: int = KEPT_MESSAGES) -> None:
        """See the module.

        Args:
            group_s: how long the first waits for others, in seconds; 0: not at all.
            every_s: the length of the window in which parcels are counted, in seconds, above 0.
            most: how many may go out in it, at least 1.
            room: how many messages may wait, at least 1.
        """
        self._group_ns = round(group_s * 1e9)
        self._every_ns = round(every_s * 1e9)
        self._most = most
        self._room = room
        self._waiting: deque[Message] = deque()
        self._first_ns = 0
        """Since when the oldest waits."""
        self._sent_ns: deque[int] = deque(maxlen=most)
        """When the last `most` parcels were taken."""
        self._more = 0

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return len(self._waiting)

    def add(self, message: Message, now_ns: int) -> bool:
        """Let one wait. False: there was no room, and it is only counted."""
        if len(self._waiting) >= self._room:
            self._more += 1
            return False
        if not self._waiting:
            self._first_ns = now_ns
        self._waiting.append(message)
        return True

    def missed(self, count: int) -> None:
        """Note that so many could not be told after all; the next parcel says so."""
        self._more += count

    def clear(self) -> int:
        """Give up everything that waits. Returns how many that were."""
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def due_ns(self, *, is_urgent: bool = False) -> int | None:
        """When `take` has something to give: at or before now if it has already; None while nothing waits.

        Args:
            is_urgent: nothing more is worth waiting for; only the rate still counts.
        """
        if not self._waiting:
            return None
        ready_ns = self._first_ns + (0 if is_urgent else self._group_ns)
        if len(self._sent_ns) < self._most:
            return ready_ns
        return max(ready_ns, self._sent_ns[0] + self._every_ns)

    def take(self, now_ns: int, *, is_urgent: bool = False) -> Parcel | None:
        """What goes out now; None if it is not time. Counts against the rate whatever becomes of it."""
        due_ns = self.due_ns(is_urgent=is_urgent)
        if due_ns is None or now_ns < due_ns:
            return None
        alone = self._group_ns == 0 and self._free(now_ns) > 1
        messages = (self._waiting.popleft(),) if alone else tuple(self._waiting)
        if not alone:
            self._waiting.clear()
        more = 0
        if not self._waiting:
            more, self._more = self._more, 0
        self._sent_ns.append(now_ns)
        return Parcel(messages, more)

    def _free(self, now_ns: int) -> int:
        """How many parcels the rate still allows now."""
        return self._most - sum(sent_ns > now_ns - self._every_ns for sent_ns in self._sent_ns)

"""What the clients of a conversation have sent and what they were told: their common account."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

NEVER = 1 << 30
"""A step that does not come."""
CLEARED = b"cleared "
"""With the topic behind it, the name of a message without payload."""


@dataclass(eq=False)
class Message:
    """One message; its payload is its name."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    by: str
    offered: int = NEVER
    """The step in which it was first sent."""
    stored: int = NEVER
    """The step in which PUBACK or PUBREC came: from then on nothing may take it away."""
    times: int = 0
    """How often it was sent."""


class Delivery(NamedTuple):
    """A message that has reached an application."""

    client: str
    payload: bytes
    qos: int
    retain: bool
    step: int


@dataclass
class Journal:
    """What all clients of a conversation were told."""

    step: int = 0
    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    messages: dict[bytes, Message] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    exchanges: int = 0
    """Handshakes that were finished, in both directions."""

    def note(self, *words: object) -> None:
        """One line of the account."""
        self.lines.append(" ".join(map(str, (self.step, *words))))

    def expect(self, truth: object, otherwise: str) -> None:
        """Write down what is wrong unless something is so."""
        if not truth:
            self.wrong.append(f"step {self.step}: {otherwise}")
            self.note("WRONG", otherwise)

    def message(self, topic: str, qos: int, by: str, payload: bytes | None = None, *, retain: bool = False) -> Message:
        """A message that nobody has sent before."""
        name = b"<%s/%d>" % (by.encode(), len(self.messages)) if payload is None else payload
        made = self.messages[name] = Message(topic, name, qos, retain, by)
        return made

"""What became of one device's messages. Counted by the connection, read by anyone.

Invariants:
- offered = sent + dropped + queued
- sent = acked + unacknowledged
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Account:
    """Counts of one device, since the fleet started."""

    offered: int = 0
    """Given to the connection to be sent."""
    sent: int = 0
    """Handed to MQTT, each once."""
    resent: int = 0
    """Handed to MQTT again after the connection had broken. What the client library repeats by itself is not seen."""
    acked: int = 0
    """PUBACK received, each message once."""
    dropped: int = 0
    """Gave way to newer ones while the queue was full."""
    last_seq: int = 0
    """Of the latest message that was sent."""
    last_acked_seq: int = 0
    """The highest that was acknowledged."""
    commands: int = 0
    """Received, understood or not."""

    @property
    def unacknowledged(self) -> int:
        """Sent, and no PUBACK yet."""
        return self.sent - self.acked

    @property
    def queued(self) -> int:
        """Waiting to be sent."""
        return self.offered - self.sent - self.dropped

"""What the client beside a broker tells about itself: plain numbers and words, for status page and metrics to read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ClientStats:
    """Written by the client on the loop; anyone may read."""

    connected: bool = False
    """There is a connection and the broker has accepted it."""
    session_present: bool = False
    """The broker still knew us when we last connected."""
    generation: int = 0
    """Counts accepted connections."""
    protocol_version: int = 0
    """5 or 4 (which is 3.1.1) of the present or last connection; 0 before the first."""
    last_error: str = ""
    """The latest thing that went wrong, for a person; empty once a connection has come up without a complaint."""
    reconnects: int = 0
    """Accepted connections after the first."""
    sessions_lost: int = 0
    """Times that the broker had forgotten us, and with us everything that it had queued."""
    refused_filters: tuple[str, ...] = ()
    """What the broker will not let us subscribe to. Asked for again, slowly."""

    received_total: int = 0
    """Messages handed on, redelivered ones included."""
    acked_total: int = 0
    """Messages of QoS 1 and 2 that were acknowledged."""
    stale_acks_dropped: int = 0
    """Settled only after their connection was gone: the broker will send them again."""
    unsettled_bytes: int = 0
    """Handed on and not settled yet."""
    paused: bool = False
    """The socket is not being read."""
    intake_errors: int = 0
    """Times that a batch was not taken over. It is kept, not acknowledged, and offered again."""
    invalid_topics: int = 0
    """Messages whose topic no MQTT topic can be. Acknowledged and not handed on."""
    oversized: int = 0
    """Messages larger than the whole budget of unsettled bytes. Acknowledged and not handed on."""

    published_total: int = 0
    """Sent; at QoS 1: and acknowledged."""
    publish_queued: int = 0
    """Waiting, or sent and not acknowledged."""
    publish_dropped: int = 0
    """Refused because the queue was full."""
    publish_expired: int = 0
    """Too old when their turn came."""
    publish_refused: int = 0
    """The broker would not have them (MQTT 5), or they are larger than it takes."""

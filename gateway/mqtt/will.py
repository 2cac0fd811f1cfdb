"""What a broker is to publish for a client that is gone without a word."""

from __future__ import annotations

from typing import NamedTuple


class Will(NamedTuple):
    """Retained, at QoS 1."""

    topic: str
    payload: bytes

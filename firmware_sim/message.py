"""What a device says: a topic and named values, encoded only when it leaves.

Payload (JSON, one object):

    values   what the sensor measured, or the state of the relay; see each device
    seq      int, counts every message of the device from 1, over all of its topics
    ts       Unix seconds with milliseconds, by the device's own clock

Invariants:
- Faults change values before encoding (`fields`) or replace the encoded bytes (`raw`); nobody parses JSON to do so.
- `at_s` is simulated time since the start and never leaves the simulator.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple, TypeAlias

PREFIX = "devices/"

Fields: TypeAlias = dict[str, Any]
"""Named values of one payload: numbers, booleans and short strings."""

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Message(NamedTuple):
    """One message of one device."""

    device: str
    channel: str
    """The topic after the device's name, such as `climate` or `heater/state`."""
    fields: Fields
    at_s: float
    retain: bool = False
    raw: bytes | None = None
    """Bytes to send in place of the encoded fields."""

    @property
    def topic(self) -> str:
        """The MQTT topic."""
        return f"{PREFIX}{self.device}/{self.channel}"

    @property
    def payload(self) -> bytes:
        """The MQTT payload. Not-a-number is written as `NaN`, as careless firmware does."""
        return _encode(self.fields).encode() if self.raw is None else self.raw

    @property
    def seq(self) -> int:
        """The device's count of this message."""
        seq: int = self.fields["seq"]
        return seq

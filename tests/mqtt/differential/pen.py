"""Writes the packets of conversations by hand."""

from __future__ import annotations

import dataclasses

from tests.mqtt.conftest import connect, packet, publish, text, varint
from tests.mqtt.differential.scripts import Step

NEVER = b"\x11\xff\xff\xff\xff"
"""Session Expiry Interval: it does not end by itself."""
Steps = list[Step]


@dataclasses.dataclass(frozen=True)
class Pen:
    """Writes packets of one version."""

    v5: bool

    def hello(self, name: str, *, kept: bool = False, acks: bool = True, releases: bool = True, **how: object) -> Step:
        """CONNECT. `kept`: take up the session, and let it outlive the connection."""
        how = {"client_id": name, "clean": not kept, "v5": self.v5} | how
        if kept and self.v5:
            how["properties"] = NEVER + how.get("properties", b"")  # type: ignore[operator]
        return Step(name, connect(**how), opens=True, acks=acks, releases=releases)  # type: ignore[arg-type]

    def says(self, name: str, topic: str, payload: bytes = b"", **how: object) -> Step:
        return Step(name, publish(topic, payload, v5=self.v5, **how))  # type: ignore[arg-type]

    def subscribes(self, name: str, *filters: tuple[str, int], mid: int = 1, properties: bytes = b"") -> Step:
        listed = varint(len(properties)) + properties if self.v5 else b""
        body = b"".join(text(one) + bytes([options]) for one, options in filters)
        return Step(name, packet(0x82, mid.to_bytes(2, "big") + listed + body))

    def leaves(self, name: str, *filters: str, mid: int = 2) -> Step:
        listed = b"\0" if self.v5 else b""
        return Step(name, packet(0xA2, mid.to_bytes(2, "big") + listed + b"".join(map(text, filters))))


def answers(name: str, first: int, mid: int, rest: bytes = b"") -> Step:
    return Step(name, packet(first, mid.to_bytes(2, "big") + rest))


def drops(name: str) -> Step:
    return Step(name, drops=True)


def raw(name: str, data: bytes) -> Step:
    return Step(name, data)

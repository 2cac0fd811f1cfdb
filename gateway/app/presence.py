"""What devices are told of the gateway itself: `gateway/{id}/status`, retained, so that it is heard whenever they come.

    {"online": true,  "actuators": "driven"}
    {"online": true,  "actuators": "safe", "why": "the disk is lost"}
    {"online": false, "actuators": "safe", "why": "the gateway stops"}
    {"online": false, "actuators": "unknown", "why": "the connection broke off"}      said for us by a broker: our will

On our own listener a device hears of a gateway that is gone by its connection: nobody is left to send a will.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.mqtt.will import Will

if TYPE_CHECKING:
    from typing import Protocol

    class Publisher(Protocol):
        """A listener, or the client of a broker."""

        def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> int:
            """Send a message; how many it reached."""


def status_topic(gateway_id: str) -> str:
    """Where a gateway says how it is."""
    return f"gateway/{gateway_id}/status"


def will_of(gateway_id: str) -> Will:
    """What a broker is to say when we are gone without a word."""
    return Will(status_topic(gateway_id), _said(online=False, actuators="unknown", why="the connection broke off"))


class Presence:
    """Tells everyone who can be reached. Nothing is said twice in a row."""

    def __init__(self, gateway_id: str, publishers: list[Publisher]) -> None:
        self._topic = status_topic(gateway_id)
        self._publishers = publishers
        self._last = b""

    def online(self) -> None:
        """Rules decide, and actuators hear of it."""
        self._say(_said(online=True, actuators="driven"))

    def safe(self, why: str) -> None:
        """Actuators have been sent their safe commands, and nothing but `off` follows."""
        self._say(_said(online=True, actuators="safe", why=why))

    def offline(self, why: str) -> None:
        """The last word."""
        self._say(_said(online=False, actuators="safe", why=why))

    def _say(self, payload: bytes) -> None:
        if payload != self._last:
            self._last = payload
            for publisher in self._publishers:
                publisher.publish(self._topic, payload, qos=1, retain=True)


def _said(*, online: bool, actuators: str, why: str = "") -> bytes:
    return msgspec.json.encode({"online": online, "actuators": actuators} | ({"why": why} if why else {}))

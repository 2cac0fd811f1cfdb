"""How long the client stays away from its broker, by how the last connection ended. Pure: time and draws are arguments.

Two things must never happen: a thousand gateways that hammer a broker that has just come back, and two gateways with
one client id that throw each other out for ever at full speed (the broker accepts each, so each looks like success).

Invariants:
- The ladder is stepped up by every end of a connection, accepted or not, and stepped down by nothing but a connection
  that stood for `STABLE_S`.
- Where only an operator can help (credentials, client id, certificates) the pause is long from the start.
- A connection that is accepted and soon dropped, twice in a row without a failure to connect in between, is taken for a
  fight over the client id; MQTT 5 says so at once. Either gives at most two connections a minute.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from gateway.mqtt.backoff import full_jitter_s, slow_pause_s

BASE_S = 1.0
CAP_S = 120.0
STABLE_S = 60.0
FIGHT_S = 30.0
"""The shortest pause in a fight over the client id; the longest is twice that."""
FLAPS_OF_A_FIGHT = 2


class Cause(Enum):
    """How a connection, or the attempt at one, ended."""

    UNREACHABLE = auto()
    """No TCP connection, no TLS handshake, or no answer to CONNECT."""
    HUNG_UP = auto()
    """The broker closed instead of answering CONNECT: what some do that do not know the version."""
    OTHER_VERSION = auto()
    """The broker says that it speaks another version of MQTT: to be tried at once."""
    REFUSED = auto()
    """Credentials, client id, rights, certificates: an operator must act."""
    BUSY = auto()
    """The broker says that it cannot serve now."""
    TAKEN_OVER = auto()
    """Another client came with our client id."""
    CLOSED = auto()
    """It was up, and the broker closed it without a word."""
    LOST = auto()
    """It was up, and broke."""
    LEFT = auto()
    """We said goodbye."""


class End(NamedTuple):
    """Why there is no connection any more."""

    cause: Cause
    detail: str
    """One sentence for a person."""


class Ladder:
    """Remembers what the recent connections came to."""

    def __init__(self) -> None:
        self._attempt = 0
        self._flaps = 0
        self._was_other_version = False

    @property
    def is_fight(self) -> bool:
        """The recent connections look like a second client with our id."""
        return self._flaps >= FLAPS_OF_A_FIGHT

    def pause_s(self, cause: Cause, up_s: float | None, draw: float) -> float:
        """The pause before the next connection, in seconds.

        Args:
            cause: how the last one ended.
            up_s: how long it had stood since its CONNACK; None if it never did.
            draw: uniform in [0, 1).
        """
        was_other_version, self._was_other_version = self._was_other_version, cause is Cause.OTHER_VERSION
        if cause is Cause.OTHER_VERSION:
            # Refused in both: only an operator can help.
            return slow_pause_s(CAP_S, draw) if was_other_version else 0.0
        if up_s is None:
            self._flaps = 0
        elif up_s >= STABLE_S:
            self._attempt = self._flaps = 0
        else:
            self._flaps += 1
        pause_s = full_jitter_s(self._attempt, BASE_S, CAP_S, draw)
        self._attempt += 1
        if cause is Cause.REFUSED:
            return slow_pause_s(CAP_S, draw)
        if cause is Cause.TAKEN_OVER or self.is_fight:
            return max(pause_s, FIGHT_S * (1.0 + draw))
        return pause_s

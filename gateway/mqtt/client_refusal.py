"""What refusals and failures mean for us: try again soon, later, or only when an operator has acted. Pure."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from gateway.mqtt.client_ladder import Cause, End
from gateway.mqtt.packets import Reason

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode

_CERTIFICATE_NOT_YET_VALID = 9  # X509_V_ERR_CERT_NOT_YET_VALID
_BANNED = 0x8A
_SERVER_BUSY = 0x89
_USE_ANOTHER_SERVER, _SERVER_MOVED = 0x9C, 0x9D
_ADMINISTRATIVE = 0x98

_FOR_AN_OPERATOR = frozenset(
    {
        Reason.BAD_CLIENT_ID,
        Reason.BAD_CREDENTIALS,
        Reason.NOT_AUTHORIZED,
        Reason.BAD_AUTHENTICATION_METHOD,
        _BANNED,
        _USE_ANOTHER_SERVER,
        _SERVER_MOVED,
        _ADMINISTRATIVE,
    }
)
_BUSY = frozenset({Reason.SERVER_UNAVAILABLE, Reason.QUOTA_EXCEEDED, _SERVER_BUSY})


def connack_end(reason: ReasonCode) -> End:
    """What a CONNACK that refuses means. paho words 3.1.1's codes as those of MQTT 5."""
    detail = f"the broker refused the connection: {_words(reason)}"
    if reason.value == Reason.UNSUPPORTED_VERSION:
        return End(Cause.OTHER_VERSION, detail)
    if reason.value in _FOR_AN_OPERATOR:
        return End(Cause.REFUSED, detail)
    return End(Cause.BUSY if reason.value in _BUSY else Cause.UNREACHABLE, detail)


def disconnect_end(reason: ReasonCode) -> End:
    """What a DISCONNECT from the broker means (MQTT 5 only)."""
    if reason.value == Reason.TAKEN_OVER:
        return End(Cause.TAKEN_OVER, "another client has connected with our client id and taken the session over")
    detail = f"the broker ended the connection: {_words(reason)}"
    return End(Cause.REFUSED if reason.value in _FOR_AN_OPERATOR else Cause.LOST, detail)


def open_end(error: Exception) -> End:
    """What it means that there is no connection to speak MQTT on."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == _CERTIFICATE_NOT_YET_VALID:
            # Right after a start without a battery clock; time answers it, not an operator.
            return End(
                Cause.UNREACHABLE, "TLS: the broker's certificate is not valid yet; is this machine's clock set?"
            )
        return End(Cause.REFUSED, f"TLS: the broker's certificate was not accepted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return End(Cause.UNREACHABLE, f"TLS: {error.reason or error}")
    return End(Cause.UNREACHABLE, f"no connection: {error}")


def _words(reason: ReasonCode) -> str:
    return f"{reason.getName()} (0x{reason.value:02x})"

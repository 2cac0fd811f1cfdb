"""Where the broker is: `mqtt://[user:password@]host[:port]`, `mqtts://` for TLS."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from firmware_sim.errors import OptionError

_PORTS = {"mqtt": 1883, "mqtts": 8883}


class BrokerAddress(NamedTuple):
    """A broker to connect to."""

    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None


def parse_broker(url: str) -> BrokerAddress:
    """Take a broker's URL apart.

    Raises:
        OptionError: with what is wrong; never with the password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise OptionError(f"the broker's address is not a URL: {error}") from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise OptionError("the broker's address must look like mqtt://127.0.0.1:1883 or mqtts://broker.example")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise OptionError("the broker's address must end after the port")
    if port == 0:
        raise OptionError("the broker's port must be between 1 and 65535")
    return BrokerAddress(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        tls=parts.scheme == "mqtts",
        username=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )

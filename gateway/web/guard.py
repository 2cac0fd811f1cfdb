"""Who may ask what over HTTP, decided from the request's head alone. Pure: strings in, a verdict out.

A browser on the operator's machine will carry out requests for any page it has open. Three things keep such a page out:

- **Host**: a name that a foreign DNS server points at this machine (rebinding) is not one that we answer to.
- **Own header and JSON** on whatever changes something: a foreign page cannot send either without a preflight request,
  and none is ever allowed.
- **Origin**, where the browser sends one, must be this server's.

Whatever changes something is answered to connections from this machine only.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

REQUEST_HEADER = "X-Gateway-Request"
_ALWAYS_OURS = ("localhost", "127.0.0.1", "::1")


class Refusal(NamedTuple):
    """Why a request is not carried out."""

    status: int
    reason: str


def own_hosts(configured: str, machine: str) -> frozenset[str]:
    """The names that this server answers to, lower case and without brackets.

    Args:
        configured: the address it was told to bind.
        machine: the machine's own name; counts only if every address is bound, since then it can be asked for by name.
    """
    hosts = {*_ALWAYS_OURS, configured.lower().strip("[]")}
    if configured in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        hosts |= {machine.lower(), f"{machine.lower()}.local"}
    return frozenset(hosts - {"", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def host_name(header: str) -> str:
    """The host of a Host header, lower case, without port, brackets and a final dot. Empty if it is malformed."""
    header = header.strip().lower()
    if header.startswith("["):
        name, bracket, rest = header[1:].partition("]")
        return name if bracket and (not rest or _is_port(rest)) else ""
    name, colon, port = header.partition(":")
    if colon and not _is_port(":" + port):
        return ""
    return name.removesuffix(".")


def judge_host(header: str | None, own: Collection[str], local_address: str) -> Refusal | None:
    """Whether a Host header names this server. None: it does.

    Args:
        header: as received; None if there was none.
        own: from `own_hosts`.
        local_address: the address at which the connection came in, which rebinding cannot forge.
    """
    if not header or not (name := host_name(header)):
        return Refusal(400, "a valid Host header is required")
    if name in own or name == local_address:
        return None
    return Refusal(421, "this server does not answer to that host name")


def judge_change(headers: Mapping[str, str], content_type: str, remote: str | None) -> Refusal | None:
    """Whether a request that changes something may be carried out. None: it may.

    Args:
        headers: of the request; names are matched without regard to case by the mapping itself.
        content_type: media type without parameters.
        remote: the peer's address.
    """
    if not is_loopback(remote):
        return Refusal(403, "only from this machine")
    if headers.get(REQUEST_HEADER) != "1":
        return Refusal(403, f"the header {REQUEST_HEADER}: 1 is required")
    origin = headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("Host", "").lower():
        return Refusal(403, "not for pages of another origin")
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return Refusal(403, "not for pages of another site")
    if content_type != "application/json":
        return Refusal(415, "Content-Type: application/json is required")
    return None


def is_loopback(address: str | None) -> bool:
    """Whether a peer's address is this machine's own."""
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def _is_port(text: str) -> bool:
    digits = text[1:]
    return text.startswith(":") and digits.isascii() and digits.isdigit() and int(digits) <= 65_535

"""Asking a running gateway over its HTTP API, with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from gateway.errors import PeerError
from gateway.observe.status import GatewayStatus
from gateway.observe.text import shorten
from gateway.web.deadletters import REPLAY_PATH, ReplayRequest, ReplayResult
from gateway.web.guard import REQUEST_HEADER

if TYPE_CHECKING:
    from gateway.config.settings import HttpSettings

DEFAULT_URL = "http://127.0.0.1:8080"
_TIMEOUT_S = 10.0
_REPLAY_TIMEOUT_S = 120.0
_MAX_ANSWER_BYTES = 16 * 1024 * 1024


class NotRunningError(PeerError):
    """Nothing answers at that address."""


def url_of(settings: HttpSettings) -> str:
    """Where a gateway with these settings answers to this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def fetch_status(url: str) -> GatewayStatus:
    """The status of the gateway at `url`.

    Raises:
        NotRunningError: nothing answers there.
        PeerError: what answers is no gateway.
    """
    body = _ask(url, "/api/v1/status")
    try:
        return msgspec.json.decode(body, type=GatewayStatus)
    except msgspec.DecodeError as error:
        raise PeerError(f"{url} is no gateway: {error}") from error


def replay(url: str, request: ReplayRequest) -> ReplayResult:
    """Have the gateway at `url` put dead letters back.

    Raises:
        NotRunningError: nothing answers there.
        PeerError: it refuses.
    """
    body = _ask(url, REPLAY_PATH, msgspec.json.encode(request))
    try:
        return msgspec.json.decode(body, type=ReplayResult)
    except msgspec.DecodeError as error:
        raise PeerError(f"{url} is no gateway: {error}") from error


def _ask(url: str, path: str, body: bytes | None = None) -> bytes:
    if urlsplit(url).scheme not in ("http", "https"):
        raise PeerError(f"{url} is no http:// or https:// address")
    headers = {} if body is None else {"Content-Type": "application/json", REQUEST_HEADER: "1"}
    request = urllib.request.Request(url.rstrip("/") + path, data=body, headers=headers)  # noqa: S310 - checked above
    # A proxy from the environment is for the world outside, not for the gateway.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_S if body is None else _REPLAY_TIMEOUT_S) as answer:
            return bytes(answer.read(_MAX_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise PeerError(f"{url} answers {error.code}: {_reason(error.read(64 * 1024))}") from error
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        raise NotRunningError(f"no gateway answers at {url}: {why}") from error


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["reason"])
    except (ValueError, KeyError, TypeError):
        return shorten(body.decode(errors="replace"), 200)

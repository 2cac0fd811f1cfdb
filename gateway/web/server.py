"""The HTTP server: health, readiness, metrics and status for whoever watches; a few requests for the operator.

    GET  /                            the page: what is where
    GET  /healthz                     200, or 503 with the reasons
    GET  /readyz                      200, or 503 with the reasons
    GET  /metrics                     Prometheus
    GET  /api/v1/status               GatewayStatus as JSON
    POST /api/v1/deadletters/replay   ReplayRequest -> ReplayResult, from this machine only
    POST /api/v1/rules/reload         -> {"dropped": [...]}, or 422 with the problems; from this machine only
    POST /api/v1/rules/variables      {"away": true} -> {"set": [...]}, durable; from this machine only

Invariants:
- The server only renders what it is given: it owns no count and touches no disk.
- Every answer that a handler gives, errors included, carries the security headers, and every error is
  `{"error": {"status", "reason"}}`. A bug is told to the log, never to the client.
- Connections, headers, bodies and waiting times are bounded, so that clients cannot slow the gateway.
- Nothing is changed by a GET, and nothing by another machine or another site's page (`gateway.web.guard`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec
from aiohttp import web

from gateway.errors import ConfigError, StorageError
from gateway.observe import events
from gateway.observe.metrics import MetricsPage
from gateway.web import guard, page
from gateway.web.deadletters import REPLAY_PATH, Replay, ReplayRequest
from gateway.web.door import Doorkeeper

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.config.settings import HttpSettings
    from gateway.observe.status import GatewayStatus

RELOAD_PATH = "/api/v1/rules/reload"
VARIABLES_PATH = "/api/v1/rules/variables"
Variables = dict[
    Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")],
    bool | float | int | Annotated[str, msgspec.Meta(max_length=500)] | None,
]
"""Names of variables to their values."""
MAX_BODY_BYTES = 64 * 1024
MAX_HEADER_BYTES = 8 * 1024
"""One header, and the request line."""
MAX_HEADERS = 64
MAX_CONNECTIONS = 64
FIRST_REQUEST_S = 10.0
KEEPALIVE_S = 15.0
BODY_S = 10.0
SHUTDOWN_S = 2.0

_HEADERS = {
    "Content-Security-Policy": page.CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "gateway",
}


class Rulebook(Protocol):
    """The rules of the running gateway."""

    async def reload(self) -> list[str]:
        """Read them anew; one sentence for each whose state was dropped."""

    async def set_variables(self, values: dict[str, Any]) -> None:
        """Give variables values; durable when this returns."""


class WebServer:
    """Serves one gateway's status on one address."""

    def __init__(
        self,
        settings: HttpSettings,
        status: Callable[[], GatewayStatus],
        *,
        replay: Replay | None = None,
        rules: Rulebook | None = None,
        max_connections: int = MAX_CONNECTIONS,
        first_request_s: float = FIRST_REQUEST_S,
    ) -> None:
        """See the module.

        Args:
            settings: where to listen.
            status: asked once per request.
            replay: puts dead letters back; None answers 404.
            rules: reads the rules anew, and sets their variables; None answers 404.
            max_connections: at once.
            first_request_s: how long a connection may stay silent at its beginning.
        """
        self._settings = settings
        self._status = status
        self._replay = replay
        self._rules = rules
        self._max_connections = max_connections
        self._first_request_s = first_request_s
        self._metrics = MetricsPage(status)
        self._own_hosts = guard.own_hosts(settings.host, socket.gethostname())
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None
        self._door: Doorkeeper | None = None

    @property
    def port(self) -> int:
        """The port that is open; the system's choice if the settings said 0."""
        if self._listening is None or not self._listening.sockets:
            raise RuntimeError("the web server is not listening")
        return int(self._listening.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            OSError: the address cannot be bound.
        """
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            logger=_no_logger(),
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
            lingering_time=0.0,
            shutdown_timeout=SHUTDOWN_S,
        )
        await runner.setup()
        if runner.server is None:
            raise RuntimeError("aiohttp gave no server after its set-up")
        self._door = Doorkeeper(runner.server, most=self._max_connections, patience_s=self._first_request_s)
        loop = asyncio.get_running_loop()
        try:
            self._listening = await loop.create_server(self._door, self._settings.host, self._settings.port)
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        events.listening("http", f"{self._settings.host}:{self.port}")

    async def stop(self) -> None:
        """Close the port, let running requests finish for a moment, close the rest. Harmless if never started."""
        listening, self._listening = self._listening, None
        runner, self._runner = self._runner, None
        if listening is not None:
            listening.close()
        if runner is not None:
            await runner.cleanup()

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guarded])
        app.on_response_prepare.append(_add_headers)
        app.router.add_get("/", self._page)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/api/v1/status", self._status_json)
        app.router.add_post(REPLAY_PATH, self._replay_dead_letters)
        app.router.add_post(RELOAD_PATH, self._reload_rules)
        app.router.add_post(VARIABLES_PATH, self._set_variables)
        return app

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self._door is not None:
            self._door.arrived(request.transport)
        refusal = guard.judge_host(request.headers.get("Host"), self._own_hosts, _local_address(request))
        if refusal:
            return _error(refusal.status, refusal.reason)
        try:
            return await handler(request)
        except web.HTTPException as answer:
            return _error_from(answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client learns nothing of it and the log all
            events.request_failed(request.method, request.path, error)
            return _error(500, "an internal error; the gateway's log says more")

    async def _page(self, _request: web.Request) -> web.Response:
        status = self._status()
        return web.Response(text=page.render(status.gateway_id, status.version), content_type="text/html")

    async def _healthz(self, _request: web.Request) -> web.Response:
        status = self._status()
        body = {"healthy": status.healthy, "problems": status.problems}
        return _json(body, 200 if status.healthy else 503)

    async def _readyz(self, _request: web.Request) -> web.Response:
        status = self._status()
        return _json({"ready": status.ready, "problems": status.problems}, 200 if status.ready else 503)

    async def _metrics_page(self, request: web.Request) -> web.Response:
        content_type, body = self._metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _status_json(self, _request: web.Request) -> web.Response:
        return _json(self._status(), 200)

    async def _replay_dead_letters(self, request: web.Request) -> web.Response:
        if self._replay is None:
            return _error(404, "this gateway replays no dead letters")
        refusal = guard.judge_change(request.headers, request.content_type, request.remote)
        if refusal:
            return _error(refusal.status, refusal.reason)
        try:
            async with asyncio.timeout(BODY_S):
                body = await request.read()
            wanted = msgspec.json.decode(body, type=ReplayRequest)
        except TimeoutError:
            return _error(408, "the request's body did not arrive in time")
        except msgspec.DecodeError as error:
            return _error(400, str(error))
        try:
            result = await self._replay(wanted)
        except StorageError as error:
            return _error(503, str(error))
        events.dead_letters_replayed(events=len(result.replayed), by=request.remote or "")
        return _json(result, 200)

    async def _reload_rules(self, request: web.Request) -> web.Response:
        if self._rules is None:
            return _error(404, "this gateway has no rules to read anew")
        refusal = guard.judge_change(request.headers, request.content_type, request.remote)
        if refusal:
            return _error(refusal.status, refusal.reason)
        try:
            dropped = await self._rules.reload()
        except ConfigError as error:
            return _json({"error": {"status": 422, "reason": "nothing has changed"}, "problems": error.problems}, 422)
        except StorageError as error:
            return _error(503, str(error))
        return _json({"dropped": dropped}, 200)

    async def _set_variables(self, request: web.Request) -> web.Response:
        if self._rules is None:
            return _error(404, "this gateway has no rules")
        refusal = guard.judge_change(request.headers, request.content_type, request.remote)
        if refusal:
            return _error(refusal.status, refusal.reason)
        try:
            async with asyncio.timeout(BODY_S):
                values = msgspec.json.decode(await request.read(), type=Variables)
        except TimeoutError:
            return _error(408, "the request's body did not arrive in time")
        except msgspec.DecodeError as error:
            return _error(400, str(error))
        try:
            await self._rules.set_variables(values)
        except StorageError as error:
            return _error(503, str(error))
        return _json({"set": sorted(values)}, 200)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _local_address(request: web.Request) -> str:
    if request.transport is None:
        return ""
    return str((request.transport.get_extra_info("sockname") or ("",))[0])


def _json(value: Any, status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _error(status: int, reason: str) -> web.Response:
    return _json({"error": {"status": status, "reason": reason}}, status)


def _error_from(answer: web.HTTPException) -> web.Response:
    response = _error(answer.status, HTTPStatus(answer.status).phrase.lower())
    if "Allow" in answer.headers:
        response.headers["Allow"] = answer.headers["Allow"]
    return response


def _no_logger() -> logging.Logger:
    """Malformed requests are the peer's fault and no news; bugs in handlers are told by the middleware."""
    logger = logging.getLogger("gateway.web.discarded")
    logger.disabled = True
    return logger

"""A web server on a free port, a status to change, and a client that speaks plain sockets."""

import asyncio
import json
from dataclasses import dataclass, field

import pytest

from gateway.config.settings import HttpSettings
from gateway.observe.status import GatewayStatus, LogStatus, SinkStatus
from gateway.web.server import WebServer


def a_status(**changes) -> GatewayStatus:
    fields = {
        "gateway_id": "greenhouse-01",
        "version": "0.1.0",
        "started_wall_ns": 1_700_000_000_000_000_000,
        "uptime_s": 61.5,
        "ready": True,
        "healthy": True,
        "log": LogStatus(
            appended_seq=120, durable_seq=118, appended=120, events=100, bytes=4_096, max_bytes=65_536, segments=2
        ),
        "sinks": (SinkStatus(name="cloud", type="http", up=True, received=100, delivered=90, pending=10),),
    }
    return GatewayStatus(**(fields | changes))


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


@dataclass
class Site:
    """A running server and what it is made of."""

    status: GatewayStatus = field(default_factory=a_status)
    server: WebServer | None = None

    async def start(self, **options):
        self.server = WebServer(HttpSettings(port=0), lambda: self.status, **options)
        await self.server.start()

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.server.port)

    async def raw(self, request: bytes) -> Answer:
        """Send bytes, read until the server closes."""
        reader, writer = await self.connect()
        try:
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(first.split()[1]), headers, body)

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """One request on a connection of its own; header names with `_` for `-`, None to leave one out."""
        fields = {"Host": f"127.0.0.1:{self.server.port}", "Connection": "close"}
        if body:
            fields["Content-Length"] = str(len(body))
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
        return await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


@pytest.fixture
async def site():
    site = Site()
    yield site
    if site.server is not None:
        await site.server.stop()

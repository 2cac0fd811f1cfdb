"""The demo's upstream: an HTTP receiver and a broker that can be cut, and what they themselves have seen.

They count by what a real upstream would have: CloudEvents ids, and the devices' own sequence numbers. Nothing is taken
from the gateway's counters, so that the accounting at the end is checked by somebody else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from gateway.cli.demo_state import Witness
from gateway.config.settings import ListenSettings
from gateway.mqtt.listener import Listener

if TYPE_CHECKING:
    from gateway.model import Arrivals

_HOST = "127.0.0.1"
_MAX_BODY_BYTES = 16 * 1024 * 1024


class Count:
    """Distinct, duplicate and disordered events."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._last: dict[str, int] = {}
        self._duplicates = 0
        self._disordered = 0

    def see(self, key: str, topic: str, order: int) -> None:
        """One event; `order` grows along each topic."""
        if key in self._seen:
            self._duplicates += 1
            return
        self._seen.add(key)
        if order < self._last.get(topic, -1):
            self._disordered += 1
        else:
            self._last[topic] = order

    def witness(self) -> Witness:
        """What was seen so far."""
        return Witness(len(self._seen), self._duplicates, self._disordered)


class HttpUpstream:
    """Takes CloudEvents batches."""

    def __init__(self) -> None:
        self.count = Count()
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://{_HOST}:{self.port}/events"

    async def start(self) -> None:
        """Listen; again on the same port after a cut."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post("/events", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, _HOST, self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def cut(self) -> None:
        """Close the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        for event in msgspec.json.decode(await request.read()):
            if "sequence" in event:
                self.count.see(event["id"], event["subject"], int(event["sequence"]))
        return web.Response(status=204)


class BrokerUpstream:
    """A second listener in the part of the cloud's broker."""

    def __init__(self) -> None:
        self.count = Count()
        self.port = 0
        self._listener: Listener | None = None

    async def start(self) -> None:
        """Listen; again on the same port after a cut."""
        self._listener = Listener(ListenSettings(host=_HOST, port=self.port), self._take, time.monotonic)  # noqa: TID251
        await self._listener.start()
        self.port = self._listener.port

    async def cut(self) -> None:
        """Close the port and every connection."""
        if self._listener is not None:
            await self._listener.stop()
            self._listener = None

    def _take(self, arrivals: Arrivals) -> None:
        for topic, payload in zip(arrivals.topics, arrivals.payloads, strict=True):
            order = msgspec.json.decode(payload).get("seq", 0)
            self.count.see(f"{topic} {order}", topic, order)
        arrivals.settle()

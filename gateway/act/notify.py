"""Telling people: a log line always, and a webhook where one is configured.

Invariants:
- The caller never waits. A receiver that is slow or away delays nobody; its queue is bounded, and what does not fit is
  dropped and counted.
- A webhook counts as told on 2xx. Anything else is tried again with full jitter, a bounded number of times.
- No redirect is followed: where a message goes is the operator's decision alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

from gateway.mqtt.backoff import full_jitter_s
from gateway.observe import events

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from gateway.config.settings import WebhookSettings
    from gateway.model import Decision, Notify

QUEUE_MESSAGES = 100
TRIES = 6
_TIMEOUT_S = 10.0
_BASE_S = 1.0
_CAP_S = 60.0
_OK = range(200, 300)


class Notifier:
    """One bounded queue for all webhooks, worked off by one task."""

    def __init__(self, receivers: Sequence[WebhookSettings], rng: random.Random) -> None:
        self._urls = {receiver.name: receiver.url for receiver in receivers if receiver.url is not None}
        self._rng = rng
        self._queue: asyncio.Queue[tuple[str, dict[str, object]]] = asyncio.Queue(QUEUE_MESSAGES)
        self.told = 0
        self.dropped = 0
        """Found no room in the queue."""
        self.failed = 0
        """Given up after all tries."""

    def notify(self, decision: Decision, message: Notify) -> None:
        """Say it in the log, and queue it for the receiver's webhook if there is one."""
        events.notification(message.to, message.text, rule=decision.rule)
        url = self._urls.get(message.to)
        if url is None:
            return
        body: dict[str, object] = {
            "id": decision.id,
            "rule": decision.rule,
            "key": decision.key,
            "to": message.to,
            "text": message.text,
            "because": decision.because,
        }
        try:
            self._queue.put_nowait((url, body))
        except asyncio.QueueFull:
            self.dropped += 1
            events.queue_full("notify", dropped=self.dropped)

    async def run(self) -> None:
        """Post what is queued, in order, until cancelled."""
        if not self._urls:
            return
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                url, body = await self._queue.get()
                await self._post(session, url, body)

    async def _post(self, session: aiohttp.ClientSession, url: str, body: dict[str, object]) -> None:
        for attempt in range(TRIES):
            try:
                async with session.post(url, json=body, allow_redirects=False) as answer:
                    if answer.status in _OK:
                        self.told += 1
                        return
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            if attempt + 1 < TRIES:
                await asyncio.sleep(full_jitter_s(attempt, _BASE_S, _CAP_S, self._rng.random()))
        self.failed += 1

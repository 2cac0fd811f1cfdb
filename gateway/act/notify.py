"""Telling people: a log line always, and a webhook where one is configured.

Invariants:
- The caller never waits. A receiver that is slow or away delays nobody, the other receivers included: each has a queue
  and a task of its own. Queues are bounded, and what does not fit is dropped and counted.
- A webhook counts as told on 2xx. Anything else is tried again with full jitter, a bounded number of times, unless the
  receiver says that it will never take it.
- No redirect is followed, and no answer is read: where a message goes is the operator's decision alone.
- The address of a webhook is a secret: it stands in no log line and no error text.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
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
_REFUSED = frozenset(range(400, 500)) - {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}


class _Receiver:
    """Where one webhook stands."""

    __slots__ = ("name", "queue", "url")

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self.queue: asyncio.Queue[dict[str, object]] = asyncio.Queue(QUEUE_MESSAGES)


class Notifier:
    """One bounded queue and one task for each webhook."""

    def __init__(self, receivers: Sequence[WebhookSettings], rng: random.Random) -> None:
        """See the module.

        Args:
            receivers: by the name that rules use in `to`.
            rng: for the jitter of retries.
        """
        self._receivers = {each.name: _Receiver(each.name, each.url) for each in receivers if each.url is not None}
        self._rng = rng
        self.told = 0
        self.dropped = 0
        """Found no room in its queue, or was still waiting when the gateway stopped."""
        self.failed = 0
        """Given up: after all tries, or because the receiver refused it."""

    def notify(self, decision: Decision, message: Notify) -> None:
        """Say it in the log, and queue it for the receiver's webhook if there is one."""
        events.notification(message.to, message.text, rule=decision.rule)
        receiver = self._receivers.get(message.to)
        if receiver is None:
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
            receiver.queue.put_nowait(body)
        except asyncio.QueueFull:
            self.dropped += 1
            events.queue_full("notify", dropped=self.dropped)

    async def run(self) -> None:
        """Post what is queued, in order for each receiver, until cancelled."""
        if not self._receivers:
            return
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as tasks:
            for receiver in self._receivers.values():
                tasks.create_task(self._serve(session, receiver), name=f"gateway.notify.{receiver.name}")

    async def _serve(self, session: aiohttp.ClientSession, receiver: _Receiver) -> None:
        in_hand = 0
        try:
            while True:
                body = await receiver.queue.get()
                in_hand = 1
                await self._tell(session, receiver, body)
                in_hand = 0
        finally:
            untold = in_hand + receiver.queue.qsize()
            if untold:
                self.dropped += untold
                events.notification_failed(receiver.name, why=f"the gateway stops before {untold} could be told")

    async def _tell(self, session: aiohttp.ClientSession, receiver: _Receiver, body: dict[str, object]) -> None:
        why = ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(full_jitter_s(attempt - 1, _BASE_S, _CAP_S, self._rng.random()))
            try:
                async with session.post(receiver.url, json=body, allow_redirects=False) as answer:
                    status = answer.status
            except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
                why = type(error).__name__
                continue
            if status in _OK:
                self.told += 1
                return
            why = f"HTTP {status}"
            if status in _REFUSED:
                break
        self.failed += 1
        events.notification_failed(receiver.name, why=why)

"""Telling people: a log line always, and a webhook, an e-mail or an ntfy topic where one is configured.

`notify_grouping` says when something goes out and how much of it at once, `notify_wording` puts it into words, and one
module for each type of receiver delivers it. Here are the queues, the tasks and the tries.

Invariants:
- The caller never waits. A receiver that is slow or away delays nobody, the other receivers included: each has a queue
  and a task of its own. Queues are bounded, and what does not fit is dropped and counted.
- What is not delivered is tried again with full jitter, a bounded number of times, unless the receiver says that it
  will never take it.
- Nothing is lost in silence: what was dropped or given up is counted here, told in the log, and spoken of in the next
  message that the receiver gets. said = told + dropped + failed + waiting, at any time.
- Addresses, tokens and passwords stand in no log line and no error text.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from gateway.act.notify_channel import Channel, Refused, Told
from gateway.act.notify_grouping import KEPT_MESSAGES, Gathering, Parcel, message_of
from gateway.clock import Clock, SystemClock
from gateway.config.settings import EmailSettings, NtfySettings, ReceiverSettings, WebhookSettings
from gateway.mqtt.backoff import full_jitter_s
from gateway.observe import events

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from gateway.model import Decision, Notify

QUEUE_MESSAGES = KEPT_MESSAGES
TRIES = 6
_BASE_S = 1.0
_CAP_S = 60.0


class _Receiver:
    """Where one receiver stands."""

    __slots__ = ("channel", "gathering", "in_hand", "name", "quiet", "wake")

    def __init__(self, settings: ReceiverSettings, channel: Channel) -> None:
        self.name = settings.name
        self.channel = channel
        self.gathering = Gathering(settings.group_s, settings.every_s, settings.most)
        self.in_hand = 0
        """Messages of the parcel that is being delivered."""
        self.wake = asyncio.Event()
        """Set when there may be something to do before the next deadline."""
        self.quiet = asyncio.Event()
        """Set while there is nothing to deliver that the rate would let out."""
        self.quiet.set()


class Notifier:
    """One bounded queue and one task for each receiver."""

    def __init__(self, receivers: Sequence[ReceiverSettings], rng: random.Random, clock: Clock | None = None) -> None:
        """See the module.

        Args:
            receivers: by the name that rules use in `to`.
            rng: for the jitter of retries.
            clock: for groups, rates and the date of mails; None: the system's.
        """
        self._clock = clock or SystemClock()
        channels = ((settings, _channel(settings, self._clock)) for settings in receivers)
        self._receivers = {each.name: _Receiver(each, channel) for each, channel in channels if channel is not None}
        self._rng = rng
        self._is_urgent = False
        self.told = 0
        """Notifications that a receiver took, several in one message or not."""
        self.dropped = 0
        """Found no room in its queue, or was still waiting when the gateway stopped."""
        self.failed = 0
        """Given up: after all tries, or because the receiver refused it."""

    @property
    def waiting(self) -> int:
        """How many wait for their group, for the rate, or for an answer."""
        return sum(each.in_hand + each.gathering.waiting for each in self._receivers.values())

    def notify(self, decision: Decision, message: Notify) -> None:
        """Say it in the log, and let it wait for its receiver's turn if there is one."""
        events.notification(message.to, message.text, rule=decision.rule)
        receiver = self._receivers.get(message.to)
        if receiver is None:
            return
        if receiver.gathering.add(message_of(decision, message), self._clock.mono_ns()):
            receiver.quiet.clear()
            receiver.wake.set()
        else:
            self.dropped += 1
            events.queue_full("notify", dropped=self.dropped)

    async def run(self) -> None:
        """Deliver what waits, in order for each receiver, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for receiver in self._receivers.values():
                tasks.create_task(self._serve(receiver), name=f"gateway.notify.{receiver.name}")

    async def drain(self, within_s: float) -> None:
        """Wait for no group any more: deliver at once what the rates let out, for at most so long.

        What is said from now on goes out at once, too. `run` goes on until it is cancelled.
        """
        self._is_urgent = True
        for receiver in self._receivers.values():
            receiver.wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                for receiver in self._receivers.values():
                    await receiver.quiet.wait()

    async def _serve(self, receiver: _Receiver) -> None:
        try:
            await receiver.channel.open()
            while True:
                parcel = await self._next(receiver)
                receiver.in_hand = len(parcel.messages)
                await self._deliver(receiver, parcel)
                receiver.in_hand = 0
        finally:
            untold = receiver.in_hand + receiver.gathering.clear()
            receiver.in_hand = 0
            if untold:
                self.dropped += untold
                events.notification_failed(receiver.name, why=f"the gateway stops before {untold} could be told")
            await receiver.channel.close()

    async def _next(self, receiver: _Receiver) -> Parcel:
        """Wait until something goes out."""
        gathering = receiver.gathering
        while True:
            receiver.wake.clear()
            now_ns = self._clock.mono_ns()
            parcel = gathering.take(now_ns, is_urgent=self._is_urgent)
            if parcel is not None:
                return parcel
            if self._is_urgent or not gathering.waiting:
                receiver.quiet.set()
            due_ns = gathering.due_ns(is_urgent=self._is_urgent)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due_ns is None else (due_ns - now_ns) / 1e9):
                    await receiver.wake.wait()

    async def _deliver(self, receiver: _Receiver, parcel: Parcel) -> None:
        attempt = receiver.channel.prepare(parcel)
        why = ""
        for tries in range(TRIES):
            if tries:
                await asyncio.sleep(full_jitter_s(tries - 1, _BASE_S, _CAP_S, self._rng.random()))
            try:
                answer = await attempt()
            except Exception as error:  # noqa: BLE001 - a fault of a library in one message must not end the gateway
                answer = Refused(type(error).__name__)
            if isinstance(answer, Told):
                self.told += len(parcel.messages)
                if answer.but:
                    events.notification_failed(receiver.name, why=answer.but)
                return
            why = answer.why
            if isinstance(answer, Refused):
                break
        self.failed += len(parcel.messages)
        receiver.gathering.missed(parcel.total)
        events.notification_failed(receiver.name, why=why)


def _channel(settings: ReceiverSettings, clock: Clock) -> Channel | None:
    """How a receiver is reached; None: by the log alone. Libraries are loaded for what is configured."""
    if isinstance(settings, EmailSettings):
        from gateway.act.notify_email import Email  # noqa: PLC0415 - an extra, and only mail needs it

        return Email(settings, clock)
    if isinstance(settings, NtfySettings):
        from gateway.act.notify_ntfy import Ntfy  # noqa: PLC0415 - brings the HTTP client, 100 ms at the start

        return Ntfy(settings)
    if isinstance(settings, WebhookSettings) and settings.url is not None:
        from gateway.act.notify_webhook import Webhook  # noqa: PLC0415 - as above

        return Webhook(settings.name, settings.url)
    return None

"""The gateway as the client of a broker that is already there: connections come and go, this stays.

    broker ─▶ link (one connection) ─▶ gate (how much may be under way) ─▶ intake ─▶ disk ─▶ settle ─▶ link ─▶ broker
    act    ─▶ outbox (bounded, ages) ─▶ link ─▶ broker

What it promises: a message is acknowledged after its batch was settled and never before, on the connection that brought
it or not at all. The rest is the broker's: it keeps our session while we are away, and what it drops then (mosquitto
keeps 1,000 messages by default) nobody here can know.

Invariants:
- There is at most one link. It is MQTT 5 until a broker shows that it knows only 3.1.1; whichever was accepted last is
  tried first.
- The session is ours for good: clean start is never asked for, the client id never changes, and leaving is a DISCONNECT
  that keeps it.
- The broker's window is not trusted: the gate bounds what is in memory by not reading the socket.
- Must never: acknowledge by itself, store, decode, or block the loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.mqtt.client_filters import FilterMemory
from gateway.mqtt.client_gate import Gate
from gateway.mqtt.client_ladder import Cause, End, Ladder
from gateway.mqtt.client_link import Link, LinkPlan
from gateway.mqtt.client_outbox import Outbox, Outgoing
from gateway.mqtt.client_stats import ClientStats
from gateway.mqtt.packets import V5, V311
from gateway.mqtt.topics import filter_problem, topic_problem
from gateway.observe import events

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from gateway.config.settings import ConnectSettings
    from gateway.model import Arrivals
    from gateway.mqtt.will import Will

__all__ = ["BrokerClient", "ClientStats"]

PUBLISH_MAX_AGE_S = 60.0


class BrokerClient:
    """See the module. Everything here is called on the loop, and calls `intake` on it."""

    def __init__(
        self,
        settings: ConnectSettings,
        client_id: str,
        filters: Sequence[str],
        intake: Callable[[Arrivals], None],
        rng: random.Random,
        *,
        will: Will | None = None,
        remember: Path | None = None,
        publish_max_age_s: float = PUBLISH_MAX_AGE_S,
        mono_s: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Nothing happens before `start`.

        Args:
            settings: where the broker is, and how much may be under way.
            client_id: the name of our session there; the same for the life of the installation.
            filters: MQTT filters (`+`, `#`), subscribed at QoS 1.
            intake: takes a batch over. If it raises, the batch stays unacknowledged and is offered again.
            rng: draws the pauses between connections.
            will: what the broker is to say if we are gone without a word.
            remember: file that keeps the filters, so that those of an earlier configuration are unsubscribed. None:
                this is known only within the life of the process.
            publish_max_age_s: messages that waited for longer are not published any more.
            mono_s: a clock finer than milliseconds, to find the pace of a fast stream with. None: the loop's.
            sleep: waits between connections.

        Raises:
            ValueError: a filter is none, or there is no client id.
        """
        for name in filters:
            problem = filter_problem(name)
            if problem:
                raise ValueError(f"{name}: {problem}")
        if not client_id:
            raise ValueError("a session needs a client id")
        self._address = f"{settings.host}:{settings.port}"
        self._rng = rng
        self._sleep = sleep
        self._memory = FilterMemory(remember, self._address, client_id)
        self._remembered: frozenset[str] = frozenset()
        self._filters = tuple(dict.fromkeys(filters))
        self.stats = ClientStats()
        self._gate = Gate(intake, settings.max_unsettled_bytes, self.stats, rng, self._gate_changed)
        self._outbox = Outbox(publish_max_age_s)
        self._plan = LinkPlan(
            settings=settings,
            client_id=client_id,
            will=will,
            gate=self._gate,
            outbox=self._outbox,
            stats=self.stats,
            rng=rng,
            mono_s=mono_s or _loop_s,
            known={},
            on_up=self._link_up,
            on_unsubscribed=self._unsubscribed,
        )
        self._ladder = Ladder()
        self._version = V5
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._saving: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def start(self) -> None:
        """Begin to connect, and go on for ever. Returns at once."""
        assert self._task is None, "started twice"
        self._task = asyncio.create_task(self._run(), name="gateway.mqtt.client")
        self._task.add_done_callback(_report)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> int:
        """Send a message, now or as soon as there is a connection.

        Args:
            topic: a topic name without wildcards.
            payload: the message.
            qos: 0 or 1. A broker that offers less gets less.
            retain: the broker keeps it for those who subscribe later.

        Returns:
            1, or 0 if the queue is full and the message was dropped (and counted).

        Raises:
            ValueError: the topic or the QoS is not one.
        """
        problem = topic_problem(topic)
        if problem:
            raise ValueError(problem)
        if qos not in {0, 1}:
            raise ValueError(f"QoS {qos} is not offered")
        message = Outgoing(topic, payload, qos, retain, asyncio.get_running_loop().time())
        if not self._outbox.put(message):
            self.stats.publish_dropped += 1
            events.queue_full("mqtt.connect", dropped=1)
            return 0
        self.stats.publish_queued = len(self._outbox)
        if self._link is not None:
            self._link.may_write()
        return 1

    def pause(self) -> None:
        """Read no more from the broker, until `resume`. The connection is kept."""
        self._gate.ask(is_pause=True)

    def resume(self) -> None:
        """Take back `pause`."""
        self._gate.ask(is_pause=False)

    async def stop(self) -> None:
        """Send what was settled, say goodbye in a way that keeps the session, and be gone within seconds."""
        self._is_stopping = True
        if self._link is not None:
            await self._link.leave()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*self._saving, return_exceptions=True)
        self._gate.disconnected()

    async def _run(self) -> None:
        self._remembered = await asyncio.to_thread(self._memory.load)
        if not self._remembered.issuperset(self._filters):
            self._remembered |= set(self._filters)
            await self._save(self._remembered)
        is_told = False
        while not self._is_stopping:
            link = self._link = Link(self._plan, self._version)
            try:
                await link.open()
                end = await link.ended
            finally:
                link.over(End(Cause.LEFT, "abandoned"))
                self._link = None
            if end.cause is Cause.LEFT:
                return
            up_s = None if link.up_since_s is None else asyncio.get_running_loop().time() - link.up_since_s
            pause_s = self._ladder.pause_s(end.cause, up_s, self._rng.random())
            self._choose_version(link, end)
            if self._ladder.is_fight and end.cause is Cause.CLOSED:
                end = End(Cause.TAKEN_OVER, f"{end.detail}; does another client use our client id?")
            self.stats.last_error = end.detail
            if pause_s and (up_s is not None or not is_told):  # an outage is told once, not at every try
                is_told = True
                events.broker_lost(self._address, error=end.detail, retry_s=pause_s)
            await self._sleep(pause_s)

    def _choose_version(self, link: Link, end: End) -> None:
        """Speak the other MQTT next if this one was not understood."""
        was_never_up = link.up_since_s is None
        is_refused = end.cause is Cause.OTHER_VERSION or (end.cause is Cause.LOST and was_never_up)
        if is_refused or (end.cause is Cause.HUNG_UP and not self.stats.generation):
            self._version = V311 if link.version == V5 else V5

    def _link_up(self, link: Link) -> None:
        stats = self.stats
        is_first = stats.generation == 0
        stats.generation += 1
        stats.reconnects += not is_first
        stats.connected = True
        stats.session_present = link.session_present
        stats.protocol_version = link.version
        stats.last_error = ""
        if not link.session_present and not is_first:
            stats.sessions_lost += 1
            stats.last_error = "the broker had forgotten our session, and whatever it had queued for us"
        events.broker_connected(self._address, session_present=link.session_present)
        link.dialogue.subscribe(self._filters)
        stale = self._remembered.difference(self._filters)
        if stale and link.session_present:
            link.dialogue.unsubscribe(sorted(stale))
        elif stale:
            self._unsubscribed()

    def _unsubscribed(self) -> None:
        """The broker knows of no filter but ours."""
        self._remembered = frozenset(self._filters)
        saving = asyncio.create_task(self._save(self._remembered), name="gateway.mqtt.client.filters")
        self._saving.add(saving)
        saving.add_done_callback(self._saving.discard)

    async def _save(self, filters: frozenset[str]) -> None:
        try:
            await asyncio.to_thread(self._memory.save, filters)
        except OSError as error:
            self.stats.last_error = f"the list of subscriptions could not be saved: {error}"

    def _gate_changed(self) -> None:
        if self._link is not None:
            self._link.set_reading(is_wanted=self._gate.is_open)


def _loop_s() -> float:
    return asyncio.get_running_loop().time()


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        events.task_failed(task.get_name(), error)

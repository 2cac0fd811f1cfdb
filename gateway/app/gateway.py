"""The gateway as one object: every stage built, wired, started, and drained in a stated order.

Draining, within `DRAIN_S` on a disk that answers:

1. receivers stop reading; what they have brought is written, synced and acknowledged;
2. rules and act stop; actuators are sent their safe commands while their connections still stand;
3. rule state and the cursor of act are saved;
4. sinks end the send in flight and store their cursors;
5. connections, web and the log are closed.

Invariants:
- What leaves last for an actuator is its safe command, also when the disk is lost: it is sent when the disk fails, and
  again once nobody is left who could contradict it.
- A device that was away while its actuator was commanded hears the last command when it subscribes. The listener keeps
  it in memory, so that it never outlives the gateway that stands behind it.
- Neither rule state nor the cursor of act is saved before both have caught up with the log.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.act.dispatch import Dispatcher
from gateway.act.interlock import Interlock
from gateway.act.notify import Notifier
from gateway.act.outbox import Outbox
from gateway.act.stage import ActStage
from gateway.app.audit import AuditTrail
from gateway.app.clients import Clients
from gateway.app.journal import Journal, records_of
from gateway.app.presence import Presence, will_of
from gateway.app.refusals import Refusals
from gateway.app.report import Reporter, tell_recovery
from gateway.app.rulebook import Rulebook
from gateway.config.settings import (
    FileSinkSettings,
    HttpSinkSettings,
    InfluxSinkSettings,
    MqttSinkSettings,
    SinkSettings,
)
from gateway.errors import GatewayError, StorageError
from gateway.forward.runner import Runner
from gateway.forward.sinks.registry import build
from gateway.ingest import Ingest, values_of
from gateway.mqtt.listener import Listener
from gateway.observe import events
from gateway.observe.status import COMMAND_BOUNDS_S, LatencyRecorder
from gateway.ringlog import Store
from gateway.rules.engine import Engine
from gateway.rules.expressions.expression import compile_condition
from gateway.rules.stage import RulesStage

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from gateway.clock import Clock
    from gateway.config.settings import Settings
    from gateway.model import Value
    from gateway.mqtt.client import BrokerClient
    from gateway.observe.status import GatewayStatus
    from gateway.ringlog.storage import Storage
    from gateway.rules.compiled import RuleSet
    from gateway.web.mqtt_socket import MqttSocket
    from gateway.web.server import WebServer

DRAIN_S = 10.0
_STEP_S = DRAIN_S / 3
"""No step takes more, so that one that hangs leaves time for those behind it."""
_SINK_DRAIN_S = 3.0
_EXPIRE_EVERY_S = 3_600.0
_CLOSE_S = 1.0
"""What the log has at least to write its last, however late it is."""
_SINK_KINDS: dict[type[SinkSettings], str] = {
    MqttSinkSettings: "mqtt",
    HttpSinkSettings: "http",
    InfluxSinkSettings: "influxdb",
    FileSinkSettings: "file",
}


class Gateway:
    """One gateway. `start`, then `run` until told to stop, then `drain`."""

    def __init__(self, settings: Settings, rules: RuleSet, clock: Clock, storage: Storage | None = None) -> None:
        """Open the data directory and build every stage. Nothing runs yet.

        Args:
            settings: the whole configuration.
            rules: what is to be decided.
            clock: what time it is.
            storage: the disk; tests hand in a worse one.

        Raises:
            StorageError: the data directory cannot be used.
        """
        self.settings = settings
        self._clock = clock
        self._rng = random.Random()  # noqa: S311 - jitter, not secrets
        self.failed = asyncio.Event()
        """Set when the disk is lost or a task has ended that should have run on."""
        self.started_mono_ns = clock.mono_ns()
        self.ready = False
        self._caught_up = False

        self.store = Store(settings.data_dir, settings.gateway_id, settings.log, clock, self._disk_lost, storage)
        self.journal = Journal(self.store.events)
        self.ingest = Ingest(settings.topics, self.store.events, self.store.dead_letters, self.store.committer)
        self.clients = Clients(self.store)
        self.refusals = Refusals(self.store.events)
        self.listener = self._build_listener()
        self.broker = self._build_broker()
        self.presence = Presence(
            settings.gateway_id, [each for each in (self.listener, self.broker) if each is not None]
        )
        self.rules = RulesStage(
            Engine(rules), self.store, values_of=values_of, records_of=records_of, record=self.journal.record
        )
        self.notifier = Notifier(settings.notify, self._rng, clock)
        self.command_latency = LatencyRecorder(COMMAND_BOUNDS_S)
        self.dispatcher = Dispatcher(
            Interlock(rules.actuators, settings.act.max_age_s),
            Outbox(_Confirmations()),
            self._publish,
            self.notifier.notify,
            self.journal.record,
            self.command_latency.observe,
        )
        self.rulebook = Rulebook(settings, self.rules, self.dispatcher.interlock, self.journal, self.store)
        self.act = ActStage(self.dispatcher, self.store, settings.act.act_within_s)
        self.audit = AuditTrail(self.store)
        self.runners = self._build_runners()
        self._reporter = Reporter(self, clock)
        self.web = self._build_web()
        self.socket = self._build_socket()
        self._tasks: list[asyncio.Task[None]] = []
        self._stage_tasks: list[asyncio.Task[None]] = []

    def _build_listener(self) -> Listener | None:
        if self.settings.listen is None:
            return None
        return Listener(self.settings.listen, self.ingest.accept, self._mono_s, self.clients, self.refusals.note)

    def _build_broker(self) -> BrokerClient | None:
        if self.settings.connect is None:
            return None
        from gateway.mqtt.client import BrokerClient  # noqa: PLC0415 - paho is imported only when configured

        settings = self.settings
        assert settings.connect is not None, "asked above"
        client_id = settings.connect.client_id or f"gateway-{settings.gateway_id}"
        return BrokerClient(
            settings.connect,
            client_id,
            self.ingest.mqtt_filters(),
            self.ingest.accept,
            self._rng,
            will=will_of(settings.gateway_id),
            remember=settings.data_dir / "subscriptions.json",
            mono_s=self._mono_s,
        )

    def _build_runners(self) -> list[Runner]:
        settings = self.settings
        return [
            Runner(
                sink,
                build(sink, settings.gateway_id, settings.topics),
                self.store,
                clock=self._clock,
                rng=self._rng,
                kind=_SINK_KINDS[type(sink)],
            )
            for sink in settings.forward
        ]

    def _build_web(self) -> WebServer | None:
        if self.settings.http is None:
            return None
        from gateway.web.replay import Replayer  # noqa: PLC0415 - aiohttp is imported only when configured
        from gateway.web.server import WebServer  # noqa: PLC0415

        replay = Replayer(self.store, self.settings.data_dir, self.ingest)
        return WebServer(self.settings.http, self.status, replay=replay, rules=self.rulebook)

    def _build_socket(self) -> MqttSocket | None:
        listen = self.settings.listen
        if listen is None or listen.websocket is None or self.listener is None:
            return None
        from gateway.web.mqtt_socket import MqttSocket  # noqa: PLC0415 - aiohttp is imported only when configured

        return MqttSocket(listen.websocket, self.listener, max_connections=listen.max_connections)

    def status(self) -> GatewayStatus:
        """The whole gateway at this instant."""
        return self._reporter.status()

    def _mono_s(self) -> float:
        return self._clock.mono_ns() / 1e9

    def _publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
        reached = 0
        if self.listener is not None:
            # At the start no device is connected yet, and some are away at any time: on or off waits for them.
            keep = retain or self.rulebook.keeps_last(topic)
            reached += self.listener.publish(topic, payload, qos=qos, retain=keep)
        if self.broker is not None:
            reached += self.broker.publish(topic, payload, qos=qos, retain=retain)
        return reached

    # Starting.

    async def start(self) -> None:
        """Recover from the log, then let devices in.

        Raises:
            GatewayError: a port is taken, or the disk cannot be read.
        """
        tell_recovery(self.store, (self._clock.mono_ns() - self.started_mono_ns) / 1e9)
        self.rulebook.begin()
        try:
            if self.listener is not None:
                await self.clients.recover(self.listener)
            await self.act.recover()
            await self.rules.recover()
        except OSError as error:
            raise StorageError(f"cannot read the log in {self.settings.data_dir}: {error.strerror or error}") from error
        self._caught_up = True
        self._spawn(self.rules.run(), "rules", self._stage_tasks)
        self._spawn(self.rules.keep_snapshots(), "rules.snapshots", self._stage_tasks)
        self._spawn(self.rulebook.watch_clock(), "clock", self._stage_tasks)
        self._spawn(self.act.run(), "act", self._stage_tasks)
        self._spawn(self.act.keep_cursor(), "act.cursor", self._stage_tasks)
        self._spawn(self.audit.run(), "audit", self._stage_tasks)
        self._spawn(self.clients.run(), "clients", self._stage_tasks)
        self._spawn(self.refusals.run(), "refusals", self._tasks)
        self._spawn(self.notifier.run(), "notify", self._tasks)
        if (max_age_s := self.settings.log.max_age_s) is not None:
            self._spawn(self._expire(min(_EXPIRE_EVERY_S, max_age_s / 16)), "expire", self._tasks)
        for runner, sink in zip(self.runners, self.settings.forward, strict=True):
            self._spawn(runner.run(), f"forward.{sink.name}", self._tasks)
        if self.web is not None:
            try:
                await self.web.start()
            except OSError as error:
                http = self.settings.http
                assert http is not None, "there is a server only if it is configured"
                raise GatewayError(f"http: cannot listen on {http.host}:{http.port}: {error.strerror}") from error
        if self.listener is not None:
            await self.listener.start()
        if self.socket is not None:
            await self.socket.start()
        if self.broker is not None:
            await self.broker.start()
        self.presence.online()
        self.ready = True
        events.ready((self._clock.mono_ns() - self.started_mono_ns) / 1e9)

    async def _expire(self, every_s: float) -> None:
        """Give up what is older than `log.max_age`, every while."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.store.events.expire()
            except StorageError as error:
                if self.store.committer.failure is not None:
                    raise
                events.task_retried("expire", error=str(error), retry_s=every_s)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str, group: list[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"gateway.{name}")
        task.add_done_callback(self._task_ended)
        group.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            if error is not self.store.committer.failure:  # that one has been told
                events.task_failed(task.get_name(), error)
            self.failed.set()

    def _disk_lost(self, error: StorageError) -> None:
        """Nothing can be recorded any more: actuators go safe at once, and the process ends."""
        events.disk_failed("events", operation="write", error=str(error))
        self._make_safe("the disk is lost")
        self.failed.set()

    def _make_safe(self, cause: str) -> None:
        commands = self.rules.engine.safe_commands().values()
        self.dispatcher.make_safe(commands, self.store.events.elapsed_ns(), cause)
        self.presence.safe(cause)

    # Ending.

    async def drain(self) -> bool:
        """End in the order that the module states. Returns whether every step was done in time."""
        self.ready = False
        done = True
        loop = asyncio.get_running_loop()
        end_s = loop.time() + DRAIN_S
        for step in (
            self._stop_receiving,
            self._stop_acting,
            self._save,
            self._stop_forwarding,
            self._disconnect,
        ):
            try:
                async with asyncio.timeout_at(min(loop.time() + _STEP_S, end_s)):
                    await step()
            except (TimeoutError, GatewayError, OSError) as error:
                events.task_failed(f"drain.{step.__name__.lstrip('_')}", error)
                done = False
        try:
            async with asyncio.timeout_at(max(end_s, loop.time() + _CLOSE_S)):
                with suppress(StorageError):
                    await self.store.close()
        except TimeoutError as error:  # the disk stalls; what it has not taken, nobody was told it had
            events.task_failed("drain.close", error)
            done = False
        return done and self.store.committer.failure is None

    async def _stop_receiving(self) -> None:
        if self.listener is not None:
            self.listener.pause()
        if self.broker is not None:
            self.broker.pause()
        await self._flush()

    async def _flush(self) -> None:
        await self.store.committer.flush()
        await asyncio.sleep(0)  # acknowledgements leave in the turn after the sync

    async def _stop_acting(self) -> None:
        await _end(self._stage_tasks)
        self._make_safe("the gateway stops")
        await self._flush()

    async def _save(self) -> None:
        if not self._caught_up or self.store.committer.failure is not None:
            return
        self.refusals.flush()
        refused = None
        for save in (self.act.commit, self.audit.save, self.rules.save):  # the largest last: a full disk may refuse it
            try:
                await save()
            except StorageError as error:
                refused = error
        if refused is not None:
            raise refused

    async def _stop_forwarding(self) -> None:
        drains = [runner.drain(_SINK_DRAIN_S) for runner in self.runners]
        await asyncio.gather(*drains, self.notifier.drain(_SINK_DRAIN_S))

    async def _disconnect(self) -> None:
        await _end(self._tasks)
        self.presence.offline("the gateway stops")
        await asyncio.sleep(0)  # what was published is written in the next turn
        if self.listener is not None:
            await self.listener.stop()
        if self.socket is not None:
            await self.socket.stop()
        if self.broker is not None:
            await self.broker.stop()
        if self.web is not None:
            await self.web.stop()


class _Confirmations:
    """Whether a device's report confirms a command: the rules' expressions, lent to act."""

    def __init__(self) -> None:
        self._compiled: dict[str, Callable[[dict[str, Any], dict[str, str]], Any]] = {}

    def __call__(self, where: str, reported: Value, wanted: Value) -> bool | None:
        evaluate = self._compiled.get(where)
        if evaluate is None:
            evaluate = self._compiled[where] = compile_condition(where).evaluate
        fields = dict(reported) if isinstance(reported, dict) else {"value": reported}
        answer = evaluate({**fields, "wanted": wanted}, {})
        return answer if isinstance(answer, bool) else None


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()

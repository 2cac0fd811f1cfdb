"""The demo's run: a gateway, its devices, an upstream that is cut and restored, and somebody who watches."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from firmware_sim import Fleet
from gateway.app.gateway import Gateway
from gateway.app.process import new_loop
from gateway.cli.demo_state import DemoState, Device, GivenCommand, rates_per_s, verdict
from gateway.cli.demo_upstream import BrokerUpstream, HttpUpstream
from gateway.cli.demo_view import accounting, can_draw, plain_line, screen
from gateway.clock import SystemClock
from gateway.config.settings import (
    FileSinkSettings,
    HttpSettings,
    HttpSinkSettings,
    ListenSettings,
    LogSettings,
    MqttSinkSettings,
    RetrySettings,
    Settings,
    TopicSettings,
    WebhookSettings,
)
from gateway.model import Command, Decision, Notify, Outcome
from gateway.observe import log
from gateway.rules.reading.language import load_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmware_sim import DeviceState
    from gateway.observe.status import GatewayStatus

SPEED = 60.0
"""How much faster time passes for the devices: a room warms while you watch."""
_CUT_FROM, _CUT_FOR = 0.35, 1 / 3
_LOOKS_PER_S = 4
_DRAIN_S = 30.0
_RETRY = RetrySettings(base_s=0.2, max_s=2.0)
_HOST = "127.0.0.1"


def run_demo(total_s: float, devices: int, seed: int, data_dir: Path | None) -> int:
    """Run it. Returns the exit code: 0 only if every account balances and the upstream agrees."""
    console = Console()
    with ExitStack() as stack:
        home = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-demo-")))
        home.mkdir(parents=True, exist_ok=True)
        log.configure(stack.enter_context((home / "gateway.log").open("w", encoding="utf-8")))
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_Demo(console, total_s, devices, seed, home).run())


class _Demo:
    def __init__(self, console: Console, total_s: float, devices: int, seed: int, home: Path) -> None:
        self._console = console
        self._total_s = total_s
        self._cut_s = (total_s * _CUT_FROM, total_s * (_CUT_FROM + _CUT_FOR))
        self._devices = devices
        self._seed = seed
        self._home = home
        self._http = HttpUpstream()
        self._broker = BrokerUpstream()
        self._commands: deque[GivenCommand] = deque(maxlen=50)
        self._history: deque[float] = deque(maxlen=120)
        self._peak_pending = 0
        self._started_s = 0.0

    async def run(self) -> int:
        await self._http.start()
        await self._broker.start()
        gateway = Gateway(self._settings(), load_rules([Path(__file__).with_name("demo_rules.yaml")]), SystemClock())
        self._watch_commands(gateway)
        await gateway.start()
        assert gateway.listener is not None, "the demo listens"
        fleet = Fleet(f"mqtt://{_HOST}:{gateway.listener.port}", devices=self._devices, seed=self._seed, speed=SPEED)
        stop = asyncio.Event()
        with suppress(NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self._started_s = _now_s()
        async with asyncio.TaskGroup() as tasks:
            sim = tasks.create_task(fleet.run(stop), name="demo.fleet")
            cut = tasks.create_task(self._cut_and_restore(), name="demo.cut")
            await self._watch(gateway, fleet, stop)
            stop.set()
            await sim
            cut.cancel()
        await self._restore()
        await self._drain(gateway)
        wrong = self._conclude(gateway, fleet)
        await gateway.drain()
        await self._http.cut()
        await self._broker.cut()
        return 1 if wrong else 0

    def _settings(self) -> Settings:
        return Settings(
            gateway_id="demo",
            data_dir=self._home / "data",
            listen=ListenSettings(host=_HOST, port=0),
            topics=(
                TopicSettings(topic="devices/{device}/{type}"),
                TopicSettings(topic="devices/{device}/heater/state"),
            ),
            log=LogSettings(),
            notify=(WebhookSettings(name="operator"),),
            forward=(
                HttpSinkSettings(name="cloud-http", url=self._http.url, retry=_RETRY, timeout_s=5.0),
                MqttSinkSettings(
                    name="cloud-mqtt", host=_HOST, port=self._broker.port, topic="{topic}", retry=_RETRY, timeout_s=5.0
                ),
                FileSinkSettings(name="archive", path=self._home / "events.jsonl"),
            ),
            http=HttpSettings(host=_HOST, port=0),
        )

    def _watch_commands(self, gateway: Gateway) -> None:
        """See each command as it is recorded, for the list in the view."""
        record = gateway.journal.record
        given = self._commands

        def recorded(records: Sequence[Decision | Outcome]) -> None:
            record(records)
            at_s = _now_s() - self._started_s if self._started_s else 0.0
            given.extend(_commands(records, at_s))

        gateway.rules.record = recorded

    async def _cut_and_restore(self) -> None:
        from_s, to_s = self._cut_s
        await asyncio.sleep(from_s)
        await self._http.cut()
        await self._broker.cut()
        await asyncio.sleep(to_s - from_s)
        await self._restore()

    async def _restore(self) -> None:
        for upstream in (self._http, self._broker):
            await upstream.cut()
            await upstream.start()

    async def _watch(self, gateway: Gateway, fleet: Fleet, stop: asyncio.Event) -> None:
        console = self._console
        draw = can_draw(console)
        with ExitStack() as stack:
            live = stack.enter_context(Live(console=console, screen=True, auto_refresh=False)) if draw else None
            before = gateway.status()
            looks = 0
            while not stop.is_set() and (elapsed_s := _now_s() - self._started_s) < self._total_s:
                looks += 1
                state = self._state(gateway, fleet, elapsed_s, before)
                if live is not None:
                    live.update(screen(state, console.width, console.height), refresh=True)
                if looks % _LOOKS_PER_S == 0:
                    before = state.status
                    self._history.append(state.events_per_s)
                    if live is None:
                        console.print(plain_line(state), soft_wrap=True, highlight=False)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 1 / _LOOKS_PER_S)

    def _state(self, gateway: Gateway, fleet: Fleet, elapsed_s: float, before: GatewayStatus) -> DemoState:
        status = gateway.status()
        per_s, delivered_per_s = rates_per_s(before, status)
        self._peak_pending = max(self._peak_pending, *(sink.pending for sink in status.sinks))
        return DemoState(
            status=status,
            devices=tuple(map(_shown, fleet.devices)),
            elapsed_s=elapsed_s,
            total_s=self._total_s,
            cut_from_s=self._cut_s[0],
            cut_to_s=self._cut_s[1],
            events_per_s=per_s,
            history_per_s=tuple(self._history),
            delivered_per_s=delivered_per_s,
            peak_pending=self._peak_pending,
            commands=tuple(self._commands),
        )

    async def _drain(self, gateway: Gateway) -> None:
        """Until every sink has everything: the uplink is back, and devices have stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while any(sink.pending for sink in gateway.status().sinks):  # noqa: ASYNC110 - cursors are no event
                    await asyncio.sleep(0.05)

    def _conclude(self, gateway: Gateway, fleet: Fleet) -> list[str]:
        state = self._state(gateway, fleet, self._total_s, gateway.status())
        witnesses = {"cloud-http": self._http.count.witness(), "cloud-mqtt": self._broker.count.witness()}
        self._console.print(accounting(state, witnesses))
        wrong = verdict(state.status, witnesses)
        wrong += [f"{sink.name}: {sink.pending} still pending" for sink in state.status.sinks if sink.pending]
        acknowledged = sum(device.acked for device in fleet.devices)
        if acknowledged > state.status.ingest.received:
            received = state.status.ingest.received
            wrong.append(f"devices had {acknowledged} acknowledged, the gateway received {received}")
        for sentence in wrong:
            self._console.print(f"[red]✗[/] {sentence}", highlight=False)
        if not wrong:
            self._console.print("[green]✓[/] every event is accounted for, and upstream agrees", highlight=False)
        return wrong


def _commands(records: Sequence[Decision | Outcome], at_s: float) -> list[GivenCommand]:
    found = []
    for record in records:
        if not isinstance(record, Decision):
            continue
        action = record.action
        if isinstance(action, Command):
            part = action.topic.split("/")[-2]
            found.append(GivenCommand(at_s, record.rule, f"{part} {action.state or ''}".strip()))
        elif isinstance(action, Notify):
            found.append(GivenCommand(at_s, record.rule, action.text))
    return found


def _shown(device: DeviceState) -> Device:
    return Device(device.name, device.kind, _value(device.last), device.heater, device.connected)


def _value(last: dict[str, object]) -> str:
    match last:
        case {"temperature": float() | int() as degrees}:
            return f"{degrees:.1f} °C"
        case {"power_w": float() | int() as watts}:
            return f"{watts:.0f} W"
        case {"open": bool() as is_open}:
            return "open" if is_open else "closed"
    return ""


def _now_s() -> float:
    return time.monotonic()  # noqa: TID251 - a demo runs in real time

"""The shell: a world of devices in real time, each on its connection.

    async with Fleet("mqtt://127.0.0.1:1883", devices=10, seed=7, speed=60) as fleet:
        await fleet.connected()
        print(fleet.devices[0])

Invariants:
- Simulated time is `speed` times the loop's clock since the start. What devices say does not depend on how punctual the
  loop is; only commands, and what is said on connecting, take their place in the stream when they happen.
- At the end each device sends what it has queued and says goodbye; how long that may take is bounded by `drain_s`, and
  what is left is counted.
- Nothing here waits for a device: a connection that is away costs the others nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from firmware_sim.address import parse_broker
from firmware_sim.catalogue import SENSOR_INTERVAL_S, Habits
from firmware_sim.climate import ClimateSensor, Freezer
from firmware_sim.device import Hub
from firmware_sim.errors import OptionError
from firmware_sim.journal import Journal
from firmware_sim.link import Link, LinkSettings
from firmware_sim.message import PREFIX
from firmware_sim.room import ThermostatRoom
from firmware_sim.seeding import stream
from firmware_sim.summary import Summary
from firmware_sim.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from firmware_sim.account import Account
    from firmware_sim.address import BrokerAddress
    from firmware_sim.device import Device
    from firmware_sim.faults import Faults
    from firmware_sim.message import Fields, Message

_SHORTEST_TICK_S = 0.005
"""Messages that fall due within this are sent together."""
_LONGEST_TICK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """One device at this instant, for a live view."""

    name: str
    kind: str
    """`thermostat`, `climate`, `power` or `door`."""
    last: Fields
    """What it last measured: some of `temperature`, `humidity`, `pressure`, `power_w`, `energy_wh`, `open`."""
    true_temperature_c: float | None
    """Of the room itself; None for what has no temperature."""
    heater: bool | None
    """Whether its heater is on; None for what has no heater."""
    connected: bool
    sent: int
    acked: int
    dropped: int
    queued: int
    commands: int
    last_seq: int


class Fleet:
    """Simulated devices against a broker.

    Args:
        broker_url: `mqtt://host:port`.
        devices: how many.
        seed: everything random follows from it.
        speed: simulated seconds per real second, greater than 0.
        faults: what goes wrong; its times are simulated.
        sensor_interval_s: simulated seconds between readings.
        rate_per_s: messages per *real* second and device, in place of the sensor interval: load.
        pulse_timeout_s: simulated seconds after which a heater's relay drops by itself; None: never.
        start_ts_s: Unix time that devices believe it is at the start; None: now.
        connections: how many to share; None: one per device.
        link: how devices speak MQTT.
        journal: where to write what was sent and acknowledged.
        drain_s: how long the end may take.

    Raises:
        OptionError: if an argument makes no sense.
        OSError: if the journal cannot be written.
    """

    def __init__(
        self,
        broker_url: str,
        devices: int = 10,
        seed: int = 7,
        speed: float = 1.0,
        faults: Faults | None = None,
        *,
        sensor_interval_s: float = SENSOR_INTERVAL_S,
        rate_per_s: float | None = None,
        pulse_timeout_s: float | None = None,
        start_ts_s: float | None = None,
        connections: int | None = None,
        link: LinkSettings | None = None,
        journal: Path | None = None,
        drain_s: float = 5.0,
    ) -> None:
        broker = parse_broker(broker_url)
        habits = _habits(speed, sensor_interval_s, rate_per_s, pulse_timeout_s, start_ts_s)
        self._world = World(seed, devices, habits.sensor_interval_s, habits=habits, faults=faults)
        self._speed = speed
        self._began_s: float | None = None
        self._ended_s: float | None = None
        self._drain_s = drain_s
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._all_connected = asyncio.Event()
        self._stop = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._journal = None if journal is None else Journal(journal, lambda: self.elapsed_s)
        self._links = self._make_links(broker, connections, link or LinkSettings(), seed, habits.start_ts_s)
        self._link_of = {name: one for one in self._links for name in one.devices}

    @property
    def elapsed_s(self) -> float:
        """Real seconds since the start."""
        if self._began_s is None:
            return 0.0
        end_s = self._ended_s if self._ended_s is not None else asyncio.get_running_loop().time()
        return end_s - self._began_s

    @property
    def simulated_s(self) -> float:
        """Simulated seconds since the start."""
        return self.elapsed_s * self._speed

    @property
    def world(self) -> World:
        """The devices themselves, to look at; the fleet moves their time."""
        return self._world

    @property
    def devices(self) -> tuple[DeviceState, ...]:
        """Every device at this instant."""
        return tuple(self._state(device) for device in self._world.devices.values())

    @property
    def accounts(self) -> Mapping[str, Account]:
        """What became of each device's messages; hubs, if connections are shared, have one too."""
        return {name: account for one in self._links for name, account in one.accounts.items()}

    def summary(self) -> Summary:
        """Everything in figures."""
        return Summary.of(
            self.elapsed_s,
            self.accounts,
            self._world.fault_counts,
            connects=sum(one.connects for one in self._links),
            never_connected=[f"{one.name}: {one.last_error}" for one in self._links if not one.connects],
        )

    async def connected(self) -> None:
        """Wait until all connections have stood at the same time."""
        await self._all_connected.wait()

    async def run(self, stop: asyncio.Event) -> None:
        """Simulate until `stop` is set, then drain. Once only."""
        if self._began_s is not None:
            raise RuntimeError("a fleet runs once")
        self._began_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as tasks:
                runs = [tasks.create_task(one.run(), name=f"firmware_sim.link.{one.name}") for one in self._links]
                watcher = tasks.create_task(self._watch(stop), name="firmware_sim.fleet.stop")
                await self._live()
                watcher.cancel()
                await self._drain(runs)
        finally:
            self._ended_s = asyncio.get_running_loop().time()
            if self._journal is not None:
                self._journal.close()

    async def __aenter__(self) -> Self:
        """Start in the background."""
        self._runner = asyncio.create_task(self.run(self._stop), name="firmware_sim.fleet")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, drain, and raise what went wrong in the background."""
        self._stop.set()
        if self._runner is not None:
            await self._runner

    async def _watch(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._is_stopping = True
        self._wake.set()

    async def _live(self) -> None:
        while not self._is_stopping:
            self._advance()
            pause_s = (self._world.next_due_s - self.simulated_s) / self._speed
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(pause_s, _SHORTEST_TICK_S), _LONGEST_TICK_S)):
                    await self._wake.wait()

    async def _drain(self, runs: list[asyncio.Task[None]]) -> None:
        self._offer(self._world.flush())
        for one in self._links:
            one.close()
        await asyncio.wait(runs, timeout=self._drain_s)
        for one in self._links:
            one.abandon()

    def _advance(self) -> None:
        self._offer(self._world.advance_to(self.simulated_s))
        if self._journal is not None:
            self._journal.flush()

    def _offer(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._link_of[message.device].offer(message)

    def _greet(self, link: Link) -> None:
        """A connection stands: its devices say how they are."""
        self._advance()
        for name in link.devices:
            self._offer(self._world.hello(name))
        if all(one.connected for one in self._links):
            self._all_connected.set()

    def _command(self, topic: str, payload: bytes) -> None:
        """Hand a command to its device at this very instant of its life."""
        self._advance()
        name = topic.removeprefix(PREFIX).partition("/")[0]
        link = self._link_of.get(name)
        if link is None:
            return
        link.accounts[name].commands += 1
        if self._journal is not None:
            self._journal.note_command(name, topic, payload)
        self._offer(self._world.command(topic, payload))
        self._wake.set()

    def _make_links(
        self, broker: BrokerAddress, connections: int | None, settings: LinkSettings, seed: int, start_ts_s: float
    ) -> list[Link]:
        names = list(self._world.devices)
        if connections is None:
            groups: list[tuple[Device, list[str]]] = [(self._world.devices[name], [name]) for name in names]
        elif connections < 1:
            raise OptionError(f"{connections} connections are too few: at least 1 is needed")
        else:
            count = min(connections, len(names))
            groups = [
                (Hub(f"hub-{index + 1:02d}", stream(seed, "hub"), start_ts_s), names[index::count])
                for index in range(count)
            ]
        return [
            Link(
                broker,
                settings,
                presence,
                members,
                rng=stream(seed, "backoff", presence.name),
                now_s=lambda: self.simulated_s,
                on_connect=self._greet,
                on_command=self._command,
                journal=self._journal,
            )
            for presence, members in groups
        ]

    def _state(self, device: Device) -> DeviceState:
        link = self._link_of[device.name]
        account = link.accounts[device.name]
        return DeviceState(
            name=device.name,
            kind=device.kind,
            last=dict(device.values),
            true_temperature_c=_true_temperature_c(device, self._world.now_s),
            heater=device.heater_on if isinstance(device, ThermostatRoom) else None,
            connected=link.connected,
            sent=account.sent,
            acked=account.acked,
            dropped=account.dropped,
            queued=account.queued,
            commands=account.commands,
            last_seq=account.last_seq,
        )


def _true_temperature_c(device: Device, now_s: float) -> float | None:
    return device.temperature_at(now_s) if isinstance(device, ThermostatRoom | ClimateSensor | Freezer) else None


def _habits(
    speed: float,
    sensor_interval_s: float,
    rate_per_s: float | None,
    pulse_timeout_s: float | None,
    start_ts_s: float | None,
) -> Habits:
    """What the options mean in simulated time."""
    if not speed > 0:
        raise OptionError(f"a speed of {speed:g} is not greater than 0")
    start_ts_s = time.time() if start_ts_s is None else start_ts_s
    if rate_per_s is None:
        return Habits(sensor_interval_s=sensor_interval_s, pulse_timeout_s=pulse_timeout_s, start_ts_s=start_ts_s)
    if not rate_per_s > 0:
        raise OptionError(f"a rate of {rate_per_s:g} messages per second is not greater than 0")
    interval_s = speed / rate_per_s
    return Habits(
        sensor_interval_s=interval_s,
        door_closed_mean_s=interval_s,
        door_open_mean_s=interval_s,
        pulse_timeout_s=pulse_timeout_s,
        start_ts_s=start_ts_s,
    )

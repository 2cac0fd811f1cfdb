"""The process around a gateway: its loop, its signals, and what the service manager hears."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.app.gateway import Gateway
from gateway.clock import SystemClock
from gateway.errors import GatewayError
from gateway.observe import events
from gateway.observe.version import installed_version

if TYPE_CHECKING:
    from gateway.config.settings import Settings
    from gateway.rules.compiled import RuleSet

FINE, FOUND_WRONG = 0, 1
SWITCH_S = 0.000_5
"""How long the loop may go on while the writing thread waits for the interpreter; Python's 5 ms are many syncs."""
_ENDING = (signal.SIGTERM, signal.SIGINT)


def run_gateway(settings: Settings, rules: RuleSet) -> int:
    """Run until SIGTERM or SIGINT, then drain. SIGHUP reads the rules anew. Returns the process's exit code."""
    sys.setswitchinterval(SWITCH_S)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_live(settings, rules))
    finally:
        # What is left is to exit. One more signal would only take the exit code away.
        for number in (*_ENDING, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def new_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where it has a wheel: about a third less CPU where messages are small."""
    try:
        import uvloop  # noqa: PLC0415 - optional on platforms without a wheel
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _live(settings: Settings, rules: RuleSet) -> int:
    clock = SystemClock()
    events.started(settings.gateway_id, installed_version(), str(settings.path or ""))
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    cause = ["a task failed"]

    def on_signal(number: int, _frame: object) -> None:
        cause[0] = signal.Signals(number).name
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    for number in _ENDING:
        # Not the loop's own handlers: those go when it closes, and the default in their place would kill the process.
        signal.signal(number, on_signal)
    try:
        gateway = Gateway(settings, rules, clock)
    except GatewayError as error:
        print(f"gateway: {error}", file=sys.stderr)  # noqa: T201 - one line for whoever started it
        return FOUND_WRONG
    manager = ServiceManager()
    reloads = asyncio.Event()

    def on_hangup(_number: int, _frame: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(reloads.set)

    signal.signal(signal.SIGHUP, on_hangup)
    try:
        await gateway.start()
    except GatewayError as error:
        print(f"gateway: {error}", file=sys.stderr)  # noqa: T201 - one line for whoever started it
        await gateway.drain()
        return FOUND_WRONG
    manager.say("READY=1")
    async with asyncio.TaskGroup() as tasks:
        watchdog = tasks.create_task(manager.feed(gateway), name="gateway.watchdog")
        reloading = tasks.create_task(_reload_when(reloads, gateway), name="gateway.reload")
        ends = [tasks.create_task(each.wait()) for each in (stop, gateway.failed)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in (watchdog, reloading, *ends):
            task.cancel()
    manager.say("STOPPING=1")
    events.stopping(cause[0])
    drained = await gateway.drain()
    events.stopped((clock.mono_ns() - gateway.started_mono_ns) / 1e9, drained=drained)
    return FINE if drained and not gateway.failed.is_set() else FOUND_WRONG


async def _reload_when(asked: asyncio.Event, gateway: Gateway) -> None:
    """Read the rules anew each time it is asked for, until cancelled. Rules with a problem change nothing."""
    while True:
        await asked.wait()
        asked.clear()
        with suppress(GatewayError):  # it has been told
            await gateway.rulebook.reload()


class ServiceManager:
    """systemd's notification socket, if there is one (sd_notify(3))."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._interval_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6

    def say(self, message: str) -> None:
        """Send one datagram; nobody listening is fine."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(0.0)
            out.sendto(message.encode(), address)

    async def feed(self, gateway: Gateway) -> None:
        """Feed the watchdog while the gateway is well, until cancelled. A loop that hangs feeds nobody."""
        if not self._interval_s:
            return
        while True:
            if not gateway.failed.is_set():
                self.say("WATCHDOG=1")
            await asyncio.sleep(self._interval_s)

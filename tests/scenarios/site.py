"""Real processes on free ports: a gateway that can be killed, a broker, devices, an upstream that can be away."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
from aiohttp import web

ROOT = Path(__file__).resolve().parents[2]


_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, and that was not given to anybody here before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


async def until(condition, what: str, within_s: float = 60.0):
    """Wait for a condition; what it gave. A condition may be a coroutine function."""
    async with asyncio.timeout(within_s):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.02)
    raise AssertionError(what)


class Upstream:
    """An HTTP receiver of CloudEvents that notes every event before it answers, and can be away."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[str, int]] = []
        self.ids: list[str] = []
        self.port = free_port()
        self._runner: web.AppRunner | None = None

    async def up(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/events", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def down(self) -> None:
        """Close the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        for event in json.loads(await request.read()):
            if not event["subject"].startswith("devices/"):
                continue  # derived by a rule, or a gap
            self.ids.append(event["id"])
            self.arrivals.append((event["subject"], event["data"]["seq"]))
        return web.Response(status=204)


class GatewayProcess:
    """`gateway run` in a process of its own."""

    def __init__(
        self, home: Path, upstream: Upstream, broker_port: int | None, rules: str = f"{ROOT}/rules/*.yaml"
    ) -> None:
        self.home = home
        self.port = free_port()
        self.http_port = free_port()
        self.process: subprocess.Popen | None = None
        mqtt = f"connect: mqtt://127.0.0.1:{broker_port}" if broker_port else f"listen: mqtt://127.0.0.1:{self.port}"
        self.config = home / "gateway.yaml"
        self.config.write_text(f"""
gateway: {{id: scenario, data_dir: ./data}}
mqtt: {{{mqtt}}}
ingest:
  topics: [{{topic: "devices/{{device}}/{{type}}"}}, {{topic: "devices/{{device}}/heater/state"}}]
rules: ["{rules}"]
forward:
  - {{name: cloud, type: http, url: "http://127.0.0.1:{upstream.port}/events", retry: {{base: 100ms, max: 1s}}}}
http: {{listen: "127.0.0.1:{self.http_port}"}}
""")

    async def start(self) -> None:
        """Start, and return when it is ready."""
        with (self.home / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", "run", "-c", self.config], cwd=ROOT, stdout=log, stderr=log
            )
        await until(self.is_ready, "the gateway is ready")

    async def is_ready(self) -> bool:
        """Whether it says so itself."""
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "gateway.log").read_text()[-4_000:]
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self._url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def status(self) -> dict:
        """`/api/v1/status`."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._url}/api/v1/status") as answer:
            return await answer.json()

    async def is_drained(self) -> bool:
        """Whether nothing is pending for any sink."""
        return not any(sink["pending"] for sink in (await self.status())["sinks"])

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM. Returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def log_entries(self, event: str) -> list[dict]:
        """What it has logged under this name, over all its lives."""
        lines = (self.home / "gateway.log").read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == event]


class Devices:
    """`python -m firmware_sim` in a process of its own, with a journal."""

    def __init__(self, home: Path, port: int) -> None:
        self.journal = home / "devices.journal"
        self._home = home
        self._port = port
        self.process: subprocess.Popen | None = None

    def start(self, *, devices: int = 50, rate: float = 40.0, seed: int = 7) -> None:
        """Let them run until `stop`."""
        command = [sys.executable, "-m", "firmware_sim", "--broker", f"mqtt://127.0.0.1:{self._port}"]
        command += ["--devices", str(devices), "--rate", str(rate), "--seed", str(seed), "--journal", str(self.journal)]
        with (self._home / "devices.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def stop(self) -> None:
        """SIGTERM: they stop measuring and send what they still hold."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def start_mosquitto(home: Path, port: int) -> subprocess.Popen:
    """A broker that keeps everything for absent sessions, in memory."""
    config = home / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n"
    )
    binary = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
    assert binary, "mosquitto is missing: apt-get install mosquitto"
    with (home / "mosquitto.log").open("ab") as log:
        return subprocess.Popen([binary, "-c", config], stdout=log, stderr=log)


class Site:
    """Everything of one scenario."""

    def __init__(self, home: Path, *, behind_broker: bool) -> None:
        self.upstream = Upstream()
        self.broker_port = free_port() if behind_broker else None
        self._broker = start_mosquitto(home, self.broker_port) if self.broker_port else None
        self.gateway = GatewayProcess(home, self.upstream, self.broker_port)
        self.devices = Devices(home, self.broker_port or self.gateway.port)

    async def close(self) -> None:
        """Stop whatever still runs."""
        for process in (self.devices.process, self.gateway.process, self._broker):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(10)
        await self.upstream.down()

"""Durable events a second from device to sink, and where the CPU goes: direct, behind mosquitto, and mosquitto's own.

    python -m benches.end_to_end [--events 200000]

Everything runs on this machine: the load in a process of its own, the gateway in another, mosquitto in a third. A
PUBACK of the gateway comes after `fdatasync`; mosquitto's comes from memory. One rule evaluates every event, one file
sink takes every event and syncs it. `mosquitto + bridge` is its own whole path: a broker whose bridge hands every event
on, at QoS 1, to a second one, where a subscriber counts them; nothing is stored or synced there, and CPU is the first
one's. The gateway's CPU is its process's own, by stage, measured around whole batches:
`receive` is the loop less what is named (sockets, parsing, acknowledgements, the sink's encoding), `other` the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from gateway.app.gateway import Gateway
from gateway.app.process import SWITCH_S, new_loop
from gateway.clock import SystemClock
from gateway.config.settings import (
    ConnectSettings,
    FileSinkSettings,
    ListenSettings,
    LogSettings,
    Settings,
    TopicSettings,
)
from gateway.ingest import Ingest
from gateway.observe import log
from gateway.ringlog import RingLog
from gateway.rules.engine import Engine
from gateway.rules.reading.language import load_rules

SHAPES = ((8, 1_000), (64, 20), (64, 1))
STAGES = ("receive", "decode+append", "write+sync", "rules", "other")
RULE = """
rules:
  - id: hot
    on: devices/{device}/climate
    when: temperature > 30 and humidity < 20
    then: [{notify: {to: nobody, text: "{device}"}}]
"""


class Meter:
    """CPU seconds of the calling thread spent inside wrapped functions, called once per batch."""

    def __init__(self) -> None:
        self.spent_s = dict.fromkeys(STAGES, 0.0)

    def wrap(self, owner, name: str, stage: str) -> None:
        inner = getattr(owner, name)

        def timed(*args, **kwargs):
            started = time.thread_time()
            try:
                return inner(*args, **kwargs)
            finally:
                self.spent_s[stage] += time.thread_time() - started

        setattr(owner, name, timed)


def serve(pipe, home: Path, broker_port: int | None, expected: int) -> None:
    """The gateway's process: tells its port, then, asked, what it has spent."""
    log.configure((home / "gateway.log").open("w"))
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(pipe, home, broker_port, expected))


async def _serve(pipe, home: Path, broker_port: int | None, expected: int) -> None:
    (home / "rules.yaml").write_text(RULE)
    settings = Settings(
        gateway_id="bench",
        data_dir=home / "data",
        listen=None if broker_port else ListenSettings(port=0),
        connect=ConnectSettings(host="127.0.0.1", port=broker_port) if broker_port else None,
        topics=(TopicSettings(topic="devices/{device}/{type}"),),
        log=LogSettings(max_size_bytes=1 << 30),
        forward=(FileSinkSettings(name="file", path=home / "out.jsonl", batch_records=5_000, window_records=20_000),),
        http=None,
    )
    sys.setswitchinterval(SWITCH_S)
    meter = Meter()
    meter.wrap(Ingest, "accept", "decode+append")
    meter.wrap(RingLog, "write", "write+sync")
    meter.wrap(Engine, "run", "rules")
    gateway = Gateway(settings, load_rules([home / "rules.yaml"]), SystemClock())
    await gateway.start()
    while broker_port and not gateway.broker.stats.connected:
        await gateway.store.events.wait_until(gateway.store.events.elapsed_ns() + 10_000_000)
    pipe.send(gateway.listener.port if gateway.listener else 0)
    started_cpu, started_loop, started = time.process_time(), time.thread_time(), None
    ring = gateway.store.events
    while ring.durable.ordinal < expected:
        await ring.wait_until(ring.elapsed_ns() + 200_000_000)
        if started is None and ring.durable.ordinal:
            started = time.perf_counter()
    durable_s = time.perf_counter() - (started or 0.0)
    while gateway.runners[0].status().pending:  # noqa: ASYNC110 - a cursor is no event
        await asyncio.sleep(0.01)
    cpu_s, loop_s = time.process_time() - started_cpu, time.thread_time() - started_loop
    spent = meter.spent_s
    in_loop_s = spent["decode+append"] + spent["rules"]
    spent["other"] = cpu_s - loop_s - spent["write+sync"]
    spent["receive"] = loop_s - in_loop_s
    pipe.send({"cpu_s": cpu_s, "spent_s": spent, "durable_s": durable_s, "sink": _account(gateway)})
    await gateway.drain()


def _account(gateway: Gateway) -> dict[str, int]:
    sink = gateway.runners[0].status()
    return {"received": sink.received, "delivered": sink.delivered}


def _load(port: int, connections: int, window: int, events: int) -> float:
    command = [sys.executable, "-m", "benches.load", "--port", str(port), "--connections", str(connections)]
    command += ["--window", str(window), "--events", str(events)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _mosquitto(home: Path, more: str = "") -> tuple[subprocess.Popen, int]:
    port = _free_port()
    config = home / f"mosquitto-{port}.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n"
        f"set_tcp_nodelay true\n{more}"
    )
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    broker = subprocess.Popen([binary, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            threading.Event().wait(0.02)
        else:
            return broker, port
    raise SystemExit("mosquitto did not start")


def measure_gateway(connections: int, window: int, events: int, *, behind_broker: bool) -> dict:
    """One run of the whole path."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        home = Path(name)
        broker, broker_port = _mosquitto(home) if behind_broker else (None, None)
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, home, broker_port, events))
        process.start()
        try:
            port = pipe.recv() or broker_port
            rate = _load(port, connections, window, events)
            report = pipe.recv() if pipe.poll(300) else None
            if report is None:
                raise SystemExit("the gateway did not get everything")
            if behind_broker:
                rate = events / report["durable_s"]
            return {"rate": rate, **report}
        finally:
            process.join(20)
            process.kill()
            if broker is not None:
                broker.terminate()
                broker.wait(10)


def measure_mosquitto(connections: int, window: int, events: int) -> dict:
    """Mosquitto's own ingest: no subscriber, nothing stored."""
    with tempfile.TemporaryDirectory() as name:
        broker, port = _mosquitto(Path(name))
        try:
            before = _cpu_s(broker.pid)
            rate = _load(port, connections, window, events)
            return {"rate": rate, "cpu_s": _cpu_s(broker.pid) - before}
        finally:
            broker.terminate()
            broker.wait(10)


def measure_bridge(connections: int, window: int, events: int) -> dict:
    """Mosquitto's whole path: in, over its bridge, and counted behind the second broker. CPU is the first one's."""
    with tempfile.TemporaryDirectory() as name:
        upstream, upstream_port = _mosquitto(Path(name))
        bridge = f"connection up\naddress 127.0.0.1:{upstream_port}\ntopic # out 1\ncleansession false\n"
        edge, port = _mosquitto(Path(name), bridge)
        counting = [
            shutil.which("mosquitto_sub"),
            "-p",
            f"{upstream_port}",
            "-q",
            "1",
            "-t",
            "devices/#",
            "-i",
            "count",
        ]
        subprocess.run([*counting, "-c", "-E"], check=True)  # the subscription is there before the first event
        counter = subprocess.Popen([*counting, "-c", "-C", f"{events}"], stdout=subprocess.DEVNULL)
        try:
            before, began = _cpu_s(edge.pid), time.perf_counter()
            _load(port, connections, window, events)
            counter.wait(120)
            return {"rate": events / (time.perf_counter() - began), "cpu_s": _cpu_s(edge.pid) - before}
        finally:
            for each in (counter, edge, upstream):
                each.terminate()
                each.wait(10)


MEASURES = {
    "gateway": lambda *shape: measure_gateway(*shape, behind_broker=False),
    "behind mosquitto": lambda *shape: measure_gateway(*shape, behind_broker=True),
    "mosquitto alone": measure_mosquitto,
    "mosquitto + bridge": measure_bridge,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    events = parser.parse_args().events
    random.seed(7)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )
    print(
        f"{events} events of 110 bytes (a quarter of that for windows of 1); rates in durable, acknowledged events/s\n"
    )
    header = f"{'load':>12} {'what':>18} {'events/s':>10} {'us CPU':>7}  " + "  ".join(f"{s:>13}" for s in STAGES)
    print(header, flush=True)
    for connections, window in SHAPES:
        count = events if window > 1 else events // 4
        count -= count % connections
        for what, measure in MEASURES.items():
            found = measure(connections, window, count)
            cpu_us = found["cpu_s"] / count * 1e6
            row = f"{connections:>6} x {window:<4}{what:>18} {found['rate']:>10,.0f} {cpu_us:>7.2f}  "
            spent = found.get("spent_s")
            if spent:
                row += "  ".join(f"{spent[stage] / count * 1e6:>13.2f}" for stage in STAGES)
            print(row, flush=True)


if __name__ == "__main__":
    main()

"""The process as an operator meets it: how it ends, and how it refuses to begin."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest

from tests.app.peer import Peer
from tests.scenarios.site import ROOT, GatewayProcess, Upstream, free_port, until

DRAIN_S = 10.0
RULES = """
thermostats:
  - id: living-room
    mode: heat
    sensor: {topic: devices/living/climate, field: temperature}
    on_below: 20.5
    off_above: 21.5
    min_on: 1s
    min_off: 1s
    stale_after: 10m
    on_stale: "off"
    actuator:
      topic: devices/living/heater/set
      "on": {state: "ON"}
      "off": {state: "OFF"}
"""


@pytest.fixture
async def gateway(tmp_path):
    """A gateway of its own, with an upstream that starts out away."""
    upstream = Upstream()
    (tmp_path / "rules.yaml").write_text(RULES)
    found = GatewayProcess(tmp_path, upstream, None, rules="rules.yaml")
    found.upstream = upstream
    yield found
    if found.process is not None and found.process.poll() is None:
        found.kill()
    await upstream.down()


def run_cli(*arguments: str) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


async def test_a_second_gateway_on_the_directory_is_refused_in_one_line(gateway):
    """Law: one writer; the first is unharmed, and the operator is told where."""
    await gateway.start()
    config = gateway.home / "second.yaml"
    config.write_text(
        gateway.config.read_text()
        .replace(str(gateway.port), str(free_port()))
        .replace(f":{gateway.http_port}", f":{free_port()}")
    )
    found = await asyncio.to_thread(run_cli, "run", "-c", str(config))
    lines = [line for line in found.stderr.splitlines() if not line.startswith("{")]
    assert found.returncode == 1
    assert lines == [f"gateway: {gateway.home / 'data'} is in use by another gateway"]
    assert await gateway.is_ready()
    assert gateway.stop() == 0


async def test_a_port_that_is_taken_is_told_in_one_line(gateway):
    """Law: bad surroundings get one clear error, and nothing that was stored is lost."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", gateway.port))
        taken.listen()
        found = await asyncio.to_thread(run_cli, "run", "-c", str(gateway.config))
    lines = [line for line in found.stderr.splitlines() if not line.startswith("{")]
    assert found.returncode == 1
    (line,) = lines
    assert str(gateway.port) in line


async def test_a_configuration_error_ends_it_before_anything_starts(gateway):
    """Law: exit code 2, `path:line:column: message`, and no data directory."""
    gateway.config.write_text(gateway.config.read_text().replace("ingest:", "ingets:"))
    found = await asyncio.to_thread(run_cli, "run", "-c", str(gateway.config))
    assert found.returncode == 2
    assert "gateway.yaml:4:1: unknown key `ingets`; did you mean `ingest`?" in found.stderr
    assert not (gateway.home / "data").exists()


async def test_sigterm_makes_actuators_safe_acknowledges_and_leaves_nothing_behind(gateway):
    """Laws L1, L10: within ten seconds, although the sink's upstream takes connections and never answers."""
    with socket.socket() as black_hole:
        black_hole.bind(("127.0.0.1", gateway.upstream.port))
        black_hole.listen(50)
        await gateway.start()
        peer = await asyncio.to_thread(Peer, gateway.port, "devices/living/heater/set")
        mids = {peer.publish("devices/living/climate", {"temperature": 15.0 + n / 100, "seq": n}) for n in range(200)}
        await until(lambda: mids <= peer.acknowledged, "every publish is acknowledged")
        await until(lambda: ("devices/living/heater/set", b'{"state":"ON"}') in peer.messages, "the heater goes on")
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        code = await asyncio.to_thread(gateway.stop)
        took_s = loop.time() - started_s
    await until(lambda: peer.messages[-1] == ("devices/living/heater/set", b'{"state":"OFF"}'), "and off at the end")
    peer.close()
    assert code == 0
    assert took_s < DRAIN_S
    assert gateway.log_entries("stopped")[-1]["drained"] is True
    await gateway.upstream.up()
    await gateway.start()
    await until(gateway.is_drained, "after the restart everything is forwarded")
    assert [seq for topic, seq in gateway.upstream.arrivals if topic == "devices/living/climate"] == list(range(200))
    assert gateway.stop() == 0


async def test_what_was_delivered_before_a_clean_stop_is_not_sent_again(gateway):
    """Law L3: duplicates happen around a crash, not around a restart."""
    await gateway.upstream.up()
    await gateway.start()
    peer = await asyncio.to_thread(Peer, gateway.port)
    mids = {peer.publish("devices/a/climate", {"temperature": 20, "seq": n}) for n in range(100)}
    await until(lambda: mids <= peer.acknowledged, "every publish is acknowledged")
    await until(gateway.is_drained, "everything is forwarded")
    peer.close()
    assert gateway.stop() == 0
    await gateway.start()
    await until(gateway.is_drained, "nothing is pending")
    assert len(gateway.upstream.arrivals) == 100
    (sink,) = (await gateway.status())["sinks"]
    assert (sink["received"], sink["delivered"]) == (100, 100)
    assert gateway.stop() == 0


async def test_a_bad_payload_is_acknowledged_stored_whole_and_shown(gateway):
    """Law L7: a dead letter is an end like any other: counted, kept, and readable."""
    await gateway.upstream.up()
    await gateway.start()
    peer = await asyncio.to_thread(Peer, gateway.port)
    bad = peer.client.publish("devices/a/climate", b'{"temperature": NaN}', qos=1).mid
    good = peer.publish("devices/a/climate", {"temperature": 20, "seq": 1})
    await until(lambda: {bad, good} <= peer.acknowledged, "both are acknowledged")
    peer.close()
    status = await gateway.status()
    assert status["ingest"]["rejected"] == {"json": 1}
    assert status["ingest"]["received"] == 2
    found = await asyncio.to_thread(run_cli, "dlq", "list", str(gateway.home / "data"), "--json")
    assert found.returncode == 0, found.stderr
    assert "devices/a/climate" in found.stdout
    assert gateway.stop() == 0


async def test_readiness_and_the_end_are_told_to_the_service_manager(gateway, monkeypatch):
    """Law: systemd hears READY=1, is fed while all is well, and hears STOPPING=1."""
    address = str(gateway.home / "notify.socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        await gateway.start()
        heard = [await asyncio.to_thread(manager.recv, 100) for _ in range(3)]
        assert gateway.stop() == 0
        while heard[-1] != b"STOPPING=1":
            heard.append(await asyncio.to_thread(manager.recv, 100))
    assert heard[0] == b"READY=1"
    assert set(heard[1:-1]) == {b"WATCHDOG=1"}


async def test_a_second_sigterm_does_no_harm_and_an_upstream_that_refuses_delays_nothing(gateway):
    """Law L10: further signals change nothing: safe, saved, exit code 0, and all of it sent after the restart."""
    await gateway.start()  # nobody listens where the sink posts to
    peer = await asyncio.to_thread(Peer, gateway.port, "devices/living/heater/set")
    mids = {peer.publish("devices/living/climate", {"temperature": 25, "seq": n}) for n in range(100)}
    await until(lambda: mids <= peer.acknowledged, "every publish is acknowledged")
    heard = len(peer.messages)
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    gateway.process.terminate()
    await until(lambda: gateway.log_entries("stopping"), "it stops")
    while gateway.process.poll() is None:
        gateway.process.terminate()
        await asyncio.sleep(0.01)
    assert gateway.process.returncode == 0
    assert loop.time() - started_s < DRAIN_S
    assert gateway.log_entries("stopped")[-1]["drained"] is True
    await until(lambda: len(peer.messages) > heard, "the safe command came")
    assert peer.messages[-1] == ("devices/living/heater/set", b'{"state":"OFF"}')
    peer.close()
    await gateway.upstream.up()
    await gateway.start()
    await until(gateway.is_drained, "after the restart everything is forwarded")
    assert [seq for topic, seq in gateway.upstream.arrivals] == list(range(100))
    assert gateway.stop() == 0

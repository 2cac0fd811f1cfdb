"""Clients that other people wrote in C, Python and JavaScript, unmodified; and a mosquitto that bridges to us."""

import asyncio
import contextlib
import json
import shutil
import socket
from pathlib import Path

import gmqtt
import pytest
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

from gateway.config.settings import ListenSettings, WebSocketSettings
from gateway.mqtt.listener import Listener
from gateway.web.mqtt_socket import MqttSocket
from tests.scenarios.site import until

PATIENCE_S = 20
JAVASCRIPT = Path(__file__).parent / "javascript"
VERSIONS = ["311", "5"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def spawn(*command, stdin=None):
    return await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@contextlib.asynccontextmanager
async def running(*command, stdin=None):
    """A process that is ended with the test."""
    process = await spawn(*command, stdin=stdin)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE_S)


async def line_of(process):
    return (await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)).rstrip(b"\n")


# mosquitto as a bridge: a broker that is our client.


@pytest.mark.parametrize("version", ["mqttv311", "mqttv50"])
async def test_a_mosquitto_bridge_brings_and_takes_messages(bench, tmp_path, eventually, version):
    """Both ways at QoS 1 and 2, with the retained state that a bridge asks for first."""
    bench.listener.publish("down/kept", b"retained", retain=True)
    port = free_port()
    (tmp_path / "bridge.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\n"
        f"connection gateway\naddress 127.0.0.1:{bench.listener.port}\nbridge_protocol_version {version}\n"
        "cleansession false\nremote_clientid site\ntopic up/# out 2\ntopic down/# in 2\nrestart_timeout 1\n"
    )
    async with running(shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", tmp_path / "bridge.conf"):
        await eventually(lambda: any(info.client_id == "site" for info in bench.listener.clients()))
        await eventually(lambda: bench.listener.stats.subscriptions >= 1)
        async with running(
            "mosquitto_sub", "-h", "127.0.0.1", "-p", port, "-V", "5", "-q", 2, "-t", "down/#", "-v"
        ) as subscriber:
            assert await line_of(subscriber) == b"down/kept retained"
            bench.listener.publish("down/now", b"live", qos=2)
            assert await line_of(subscriber) == b"down/now live"
        for qos in (1, 2):
            process = await spawn(
                *("mosquitto_pub", "-h", "127.0.0.1", "-p", port, "-q", qos, "-t", f"up/{qos}", "-m", f"m{qos}")
            )
            assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
        await bench.desk.wait_for(2)
    ups = [(topic, payload) for topic, payload, _ in bench.desk.messages if topic.startswith("up/")]
    assert ups == [("up/1", b"m1"), ("up/2", b"m2")]


@pytest.mark.parametrize("version", ["mqttv311", "mqttv50"])
async def test_a_mosquitto_bridge_brings_what_came_while_we_were_away(open_listener, tmp_path, version):
    """It queues for us, comes back by itself, and every message is stored once."""
    first = await open_listener()
    port, ours = free_port(), first.listener.port
    (tmp_path / "bridge.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\n"
        f"connection gateway\naddress 127.0.0.1:{ours}\nbridge_protocol_version {version}\n"
        "try_private false\ncleansession false\nremote_clientid site\ntopic up/# out 2\nrestart_timeout 1\n"
    )

    def came(bench):
        return [payload for topic, payload, _ in bench.desk.messages if topic == "up/x"]

    async def say(number):
        command = ("mosquitto_pub", "-h", "127.0.0.1", "-p", port, "-q", 1 + number % 2, "-t", "up/x", "-m", number)
        process = await spawn(*command)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0

    async with running(shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", tmp_path / "bridge.conf"):
        await until(lambda: any(info.client_id == "site" for info in first.listener.clients()), "it connects")
        await say(0)
        await until(lambda: came(first) == [b"0"], "it brings")
        await first.listener.stop()
        for number in (1, 2, 3, 4):
            await say(number)
        second = await open_listener(port=ours)
        await until(lambda: len(came(second)) >= 4, "it is back")
        await say(5)
        await until(lambda: len(came(second)) >= 5, "it brings")
    assert came(first) + came(second) == [b"%d" % number for number in range(6)]


# paho C, as Debian packages it.


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("family", ["paho_c", "paho_cs"])
async def test_paho_c(bench, eventually, family, qos, version):
    """The asynchronous and the synchronous library: what one publishes the other end gets."""
    listen = ("-h", "127.0.0.1", "-p", bench.listener.port, "-V", version, "-q", qos)
    async with running(f"{family}_sub", *listen, "-i", "sub", "-t", "c/#") as subscriber:
        await eventually(lambda: bench.listener.stats.subscriptions == 1)
        process = await spawn(f"{family}_pub", *listen, "-i", "pub", "-t", "c/x", "-m", f"hello {qos}")
        _, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert process.returncode == 0, err
        lines = [await line_of(subscriber)]
        while lines[-1].startswith((b"URL is", b"Connecting", b"Subscribing")):  # what it says of itself
            lines.append(await line_of(subscriber))
        assert lines[-1].endswith(b"hello %d" % qos)
    assert [(topic, payload) for topic, payload, _ in bench.desk.messages] == [("c/x", b"hello %d" % qos)]


# gmqtt.


@pytest.mark.parametrize("version", [MQTTv311, MQTTv50])
async def test_gmqtt(bench, version):
    """Another asyncio client with a codec of its own: subscribes, publishes at each QoS, gets all of it once."""
    got, ready = asyncio.Queue(), asyncio.Event()
    client = gmqtt.Client("gm", clean_session=True)
    client.on_message = lambda _, topic, payload, qos, __: got.put_nowait((topic, bytes(payload), qos)) or 0
    client.on_subscribe = lambda *_: ready.set()
    await asyncio.wait_for(client.connect("127.0.0.1", bench.listener.port, version=version), PATIENCE_S)
    client.subscribe("g/#", qos=2)
    await asyncio.wait_for(ready.wait(), PATIENCE_S)
    for qos in (0, 1, 2):
        client.publish(f"g/{qos}", b"x" * 10_000 * (qos + 1), qos=qos)
    seen = [await asyncio.wait_for(got.get(), PATIENCE_S) for _ in range(3)]
    assert sorted((topic, len(payload), qos) for topic, payload, qos in seen) == [
        (f"g/{qos}", 10_000 * (qos + 1), qos) for qos in (0, 1, 2)
    ]
    await client.disconnect()


# mqtt.js, which is also what Node-RED's nodes are made of.


@pytest.fixture
async def both_ports():
    """A listener on TCP and on WebSocket: the URLs."""
    listen = ListenSettings(port=0)
    messages = []

    def take(arrivals):
        messages.extend(zip(arrivals.topics, arrivals.payloads, strict=True))
        arrivals.settle()

    listener = Listener(listen, take, asyncio.get_running_loop().time)
    place = WebSocketSettings(host="127.0.0.1", port=0, origins=frozenset({"https://dashboard.example"}))
    port = MqttSocket(place, listener, max_connections=10)
    await listener.start()
    await port.start()
    yield {"mqtt": f"mqtt://127.0.0.1:{listener.port}", "ws": f"ws://127.0.0.1:{port.port}/mqtt", "messages": messages}
    await listener.stop()
    await port.stop()


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("transport", ["mqtt", "ws"])
async def test_mqtt_js(both_ports, transport, version):
    """Over TCP and over WebSocket: every QoS, a payload of many frames, and user properties where there are any."""
    assert (JAVASCRIPT / "node_modules" / "mqtt").is_dir(), "mqtt.js is missing: make servers"
    process = await spawn("node", JAVASCRIPT / "exchange.js", both_ports[transport], version)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, err
    assert json.loads(out) == [
        {"topic": f"js/{n}", "size": size, "qos": min(n, 2), "n": str(n) if version == 5 else None}
        for n, size in enumerate([4, 3, 3, 200_000])
    ]
    assert [topic for topic, _ in both_ports["messages"]] == ["js/0", "js/1", "js/2", "js/3"]

"""Node-RED, unmodified: its runtime without a page, a flow file, and its mqtt nodes against the listener."""

import asyncio
import contextlib
import json
import os
import signal

import pytest

from tests.mqtt.conftest import both, publish, text
from tests.mqtt.test_other_clients import JAVASCRIPT
from tests.scenarios.site import until

START_WITHIN_S = 90
RED = JAVASCRIPT / "node_modules" / "node-red" / "red.js"
SETTINGS = """module.exports = {
    httpAdminRoot: false, httpNodeRoot: false, credentialSecret: false, mqttReconnectTime: 200,
    telemetry: {enabled: false, updateNotification: false},
    externalModules: {autoInstall: false, palette: {allowInstall: false}, modules: {allowInstall: false}},
};
"""
USER = b"\x26" + text("unit") + text("C")


def flow(port: int, *, v5: bool) -> list[dict]:
    """Whatever comes on `to/#` goes back on `from/#`; what has been delivered is told on `done/#`."""
    said = {"userProps": '{"unit":"C"}', "contentType": "text/plain"} if v5 else {}
    on_tab = {"z": "tab", "x": 1, "y": 1}
    out = on_tab | {"type": "mqtt out", "topic": "", "qos": "", "retain": "", "broker": "gateway", "wires": []}
    turn = "msg.topic = msg.topic.replace('to/', 'from/'); return msg;"
    tell = "return {topic: 'done/' + msg.topic, payload: 'x', qos: 0};"
    broker = {
        "id": "gateway",
        "type": "mqtt-broker",
        "broker": "127.0.0.1",
        "port": str(port),
        "clientid": "red",
        "autoConnect": True,
        "protocolVersion": "5" if v5 else "4",
        "keepalive": "60",
        "cleansession": False,
        "sessionExpiry": "3600",
    }
    for when, payload, qos in (("birth", "here", "1"), ("close", "bye", "1"), ("will", "gone", "2")):
        broker |= {f"{when}Topic": f"red/{when}", f"{when}Payload": payload, f"{when}Qos": qos, f"{when}Msg": said}
    return [
        {"id": "tab", "type": "tab", "label": "flow"},
        broker,
        on_tab
        | {"id": "in", "type": "mqtt in", "topic": "to/#", "qos": "2", "datatype": "buffer", "broker": "gateway"}
        | {"nl": False, "rap": True, "rh": 0, "inputs": 0, "wires": [["turn"]]},
        on_tab | {"id": "turn", "type": "function", "func": turn, "outputs": 1, "wires": [["out"]]},
        out | {"id": "out"},
        on_tab | {"id": "complete", "type": "complete", "scope": ["out"], "wires": [["tell"]]},
        on_tab | {"id": "tell", "type": "function", "func": tell, "outputs": 1, "wires": [["said"]]},
        out | {"id": "said"},
    ]


@pytest.fixture
def node_red(tmp_path):
    """`async with node_red(port, v5=...)`: a runtime with its flow, the process."""
    assert RED.is_file(), "Node-RED is missing: make servers"

    @contextlib.asynccontextmanager
    async def run(port, *, v5):
        (tmp_path / "settings.js").write_text(SETTINGS)
        (tmp_path / "flows.json").write_text(json.dumps(flow(port, v5=v5)))
        with (tmp_path / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *("node", RED, "--userDir", tmp_path, "--settings", tmp_path / "settings.js", "flows.json"),
                cwd=tmp_path,
                env=os.environ | {"HOME": str(tmp_path)},
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return run


async def ready(bench):
    """Its nodes are connected and have subscribed."""
    await until(lambda: bench.listener.stats.subscriptions >= 1, "it subscribes", START_WITHIN_S)
    await until(lambda: ("red/birth", b"here", 1) in heard(bench), "its birth message", START_WITHIN_S)


def heard(bench):
    return [(topic, payload, flags) for topic, payload, flags in bench.desk.messages if not topic.startswith("done/")]


def told(bench):
    return [topic for topic, _, _ in bench.desk.messages if topic.startswith("done/")]


async def echoes(bench, client, *, v5):
    """At each QoS, one that the gateway sends and one from a client with all that a message may carry."""
    said = b"\x03" + text("text/plain") + b"\x08" + text("a/b") + b"\x09" + text(b"\0\1") + USER if v5 else b""
    for qos in (0, 1, 2):
        client.send(publish(f"to/{qos}", b"\0\xff%d" % qos, qos=qos, mid=qos + 1, v5=v5, properties=said))
    found = {}
    while len(found) < 3:
        first, body = await client.packet()
        if first >> 4 == 3:
            size = int.from_bytes(body[:2], "big")
            found[body[2 : 2 + size].decode()] = (first >> 1 & 3, body[2 + size + (2 if first & 6 else 0) :])
            if first & 6 == 2:
                client.send(b"\x40\2" + body[2 + size : 4 + size])
            elif first & 6 == 4:
                client.send(b"\x50\2" + body[2 + size : 4 + size])
        elif first == 0x62:
            client.send(b"\x70\2" + body)
        elif first == 0x50:
            client.send(b"\x62\2" + body)
    for qos in (0, 1, 2):
        got_qos, rest = found[f"from/{qos}"]
        assert got_qos == qos
        assert rest.endswith(b"\0\xff%d" % qos)
        for each in (text("text/plain"), text("a/b"), text(b"\0\1"), USER) if v5 else ():
            assert each in rest


@both
async def test_its_nodes_take_and_bring_messages_at_every_qos(open_listener, node_red, v5):
    """There and back through a flow, properties and all; before the disk has it, nothing counts as delivered."""
    bench = await open_listener()
    client = await bench.client("other", v5=v5)
    await client.subscribe("from/#", options=2)
    async with node_red(bench.listener.port, v5=v5):
        await ready(bench)
        await echoes(bench, client, v5=v5)
        await until(lambda: len(told(bench)) == 3, "three are done", START_WITHIN_S)

        bench.desk.at_once = False
        held = len(bench.desk.arrivals)
        for wave in ((1, 2), (0,)):
            for qos in wave:
                bench.listener.publish(f"to/held/{qos}", b"x", qos=qos)
            came = {f"from/held/{qos}" for qos in wave}
            await until(lambda came=came: came <= {topic for topic, _, _ in heard(bench)}, "all came", START_WITHIN_S)
        await until(lambda: "done/from/held/0" in told(bench), "QoS 0 is done", START_WITHIN_S)
        assert told(bench)[3:] == ["done/from/held/0"], "those at QoS 1 and 2 were sent before it, and are not stored"
        bench.desk.at_once = True
        for arrivals in bench.desk.arrivals[held:]:
            arrivals.settle()
        await until(lambda: len(told(bench)) == 6, "all are done", START_WITHIN_S)
        assert {flags for topic, _, flags in heard(bench) if topic.endswith("/2")} == {2}


@both
async def test_its_nodes_come_back_to_a_gateway_that_was_gone(open_listener, node_red, v5):
    """A listener that stops and starts again: connected, subscribed and working, by itself; then it says goodbye."""
    first = await open_listener()
    async with node_red(first.listener.port, v5=v5) as process:
        await ready(first)
        await first.listener.stop()
        assert "red/will" not in {topic for topic, _, _ in heard(first)}
        second = await open_listener(port=first.listener.port)
        await ready(second)
        client = await second.client("other", v5=v5)
        await client.subscribe("from/#", options=2)
        await echoes(second, client, v5=v5)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), START_WITHIN_S)
    await until(
        lambda: not any(info.is_connected for info in second.listener.clients() if info.client_id == "red"),
        "it is gone",
        10,
    )
    assert ("red/close", b"bye", 1) in heard(second)
    assert "red/will" not in {topic for topic, _, _ in heard(second)}


@both
async def test_its_will_is_published_when_it_is_killed(open_listener, node_red, v5):
    """With the user properties that its config node gives to birth and will in 5.0; and its session waits for it."""
    bench = await open_listener()
    watcher = await bench.client("watcher", v5=v5)
    await watcher.subscribe("red/+", options=0)
    async with node_red(bench.listener.port, v5=v5) as process:
        birth = await asyncio.wait_for(watcher._packet(), START_WITHIN_S)
        await ready(bench)
        process.kill()
        will = await watcher.packet()
    for (_, body), topic, payload in ((birth, "red/birth", b"here"), (will, "red/will", b"gone")):
        assert body.startswith(text(topic))
        assert body.endswith(payload)
        assert not v5 or (USER in body and text("text/plain") in body)
    await until(lambda: any(not info.is_connected for info in bench.listener.clients()), "it is away", 10)
    assert bench.listener.publish("to/later", b"x") == 1, "its session is kept"

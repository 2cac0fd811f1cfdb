"""mosquitto_pub, mosquitto_sub, paho-mqtt and aiomqtt, unmodified, in both protocol versions."""

import asyncio
import queue
import threading

import aiomqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.config.settings import User

PATIENCE_S = 15
VERSIONS = ["311", "5"]


async def subscribed(bench, count):
    """Until so many subscriptions are there."""

    async def look():
        while bench.listener.stats.subscriptions < count:
            await asyncio.sleep(0)

    await asyncio.wait_for(look(), PATIENCE_S)


async def run(*command, stdin=None):
    """A command's exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=None if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), PATIENCE_S)
    return process.returncode, out, err


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1])
async def test_mosquitto_pub_and_sub(bench, version, qos):
    """A thousand lines in, the same lines out, in order."""
    port = str(bench.listener.port)
    sub = asyncio.create_task(
        run("mosquitto_sub", "-p", port, "-V", version, "-q", str(qos), "-t", "a/+", "-C", "1000", "-W", "10")
    )
    await subscribed(bench, 1)
    lines = b"".join(b"line %d\n" % number for number in range(1_000))
    code, _, err = await run("mosquitto_pub", "-p", port, "-V", version, "-q", str(qos), "-t", "a/b", "-l", stdin=lines)
    assert code == 0, err
    code, out, err = await sub
    assert (code, out) == (0, lines), err


@pytest.mark.parametrize("version", VERSIONS)
async def test_mosquitto_pub_and_sub_at_qos_2(bench, version, eventually):
    """The whole handshake, both ways, with a client that other people wrote in C."""
    port = str(bench.listener.port)
    reader = asyncio.create_task(
        run("mosquitto_sub", "-p", port, "-V", version, "-q", "2", "-t", "a", "-C", "3", "-W", "20", "-F", "%q %p")
    )
    await eventually(lambda: bench.listener.stats.subscriptions)
    for payload in ("x", "y", "z"):
        code, _, err = await run("mosquitto_pub", "-p", port, "-V", version, "-q", "2", "-t", "a", "-m", payload)
        assert code == 0, err
    assert await reader == (0, b"2 x\n2 y\n2 z\n", b"")
    assert len(bench.desk.messages) == 3


@pytest.mark.parametrize("version", VERSIONS)
async def test_mosquitto_sub_gets_retained_messages(bench, version):
    """`-r` on one side, the flag set on the other."""
    port = str(bench.listener.port)
    code, _, err = await run("mosquitto_pub", "-p", port, "-V", version, "-q", "1", "-r", "-t", "state", "-m", "kept")
    assert code == 0, err
    code, out, err = await run(
        "mosquitto_sub", "-p", port, "-V", version, "-t", "state", "-C", "1", "-W", "10", "-F", "%r %p"
    )
    assert (code, out) == (0, b"1 kept\n"), err


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_will_of_a_client_that_is_killed_reaches_another(bench, version):
    """`--will-*` and SIGKILL on one side, the message on the other; one that leaves properly has none."""
    port = str(bench.listener.port)
    will = ("--will-topic", "gone", "--will-payload", version, "--will-qos", "1")
    heir = asyncio.create_task(
        run("mosquitto_sub", "-p", port, "-V", version, "-q", "1", "-t", "gone", "-C", "1", "-W", "10", "-F", "%t %p")
    )
    await subscribed(bench, 1)
    code, _, err = await run("mosquitto_pub", "-p", port, "-V", version, "-t", "a", "-m", "x", *will)
    assert code == 0, err
    dying = await asyncio.create_subprocess_exec("mosquitto_sub", "-p", port, "-V", version, "-t", "a", *will)
    try:
        await subscribed(bench, 2)
        assert [topic for topic, _, _ in bench.desk.messages] == ["a"], "who left properly left no will"
    finally:
        dying.kill()
        await dying.wait()
    assert await heir == (0, f"gone {version}\n".encode(), b"")
    assert [topic for topic, _, _ in bench.desk.messages] == ["a", "gone"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_mosquitto_pub_is_told_that_it_may_not(open_listener, version):
    """A refusal is understood as one, not as a network failure."""
    bench = await open_listener(users=(User(username="u", password="p"),))
    port = str(bench.listener.port)
    code, _, err = await run("mosquitto_pub", "-p", port, "-V", version, "-t", "a", "-m", "x", "-u", "u", "-P", "no")
    assert code != 0
    assert b"uthor" in err or b"user name" in err.lower(), err
    code, _, err = await run("mosquitto_pub", "-p", port, "-V", version, "-t", "a", "-m", "x", "-u", "u", "-P", "p")
    assert code == 0, err


@pytest.mark.parametrize("protocol", [paho.MQTTv311, paho.MQTTv5])
async def test_paho(bench, protocol):
    """Subscribe, publish at both levels, get everything back, leave."""
    got: queue.Queue = queue.Queue()
    ready = threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="paho", protocol=protocol)
    client.on_connect = lambda c, *_: c.subscribe([("a/#", 1), ("b", 0)])
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _c, _u, message: got.put((message.topic, message.payload, message.qos))

    def scenario():
        client.connect("127.0.0.1", bench.listener.port, keepalive=30)
        client.loop_start()
        try:
            assert ready.wait(PATIENCE_S)
            infos = [client.publish(f"a/{number}", str(number), qos=number % 2) for number in range(200)]
            infos.append(client.publish("b", "last", qos=1))
            for info in infos:
                info.wait_for_publish(PATIENCE_S)
            return [got.get(timeout=PATIENCE_S) for _ in range(201)]
        finally:
            client.disconnect()
            client.loop_stop()

    received = await asyncio.to_thread(scenario)
    expected = [(f"a/{n}", b"%d" % n, n % 2) for n in range(200)]
    assert received.pop(received.index(("b", b"last", 0)))
    assert sorted(received) == sorted(expected)
    # Its QoS 0 messages overtake its own QoS 1 messages that wait for a PUBACK; each kind keeps its order.
    for qos in (0, 1):
        assert [row for row in received if row[2] == qos] == [row for row in expected if row[2] == qos]
    assert len(bench.desk.messages) == 201


async def test_paho_5_uses_properties_both_ways(bench):
    """User properties, content type and correlation data survive; the assigned id and the limits are understood."""
    got: queue.Queue = queue.Queue()
    connected: queue.Queue = queue.Queue()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="", protocol=paho.MQTTv5)
    client.on_connect = lambda c, _u, _f, _r, properties: (connected.put(properties), c.subscribe("a", 1))
    client.on_subscribe = lambda c, *_: c.publish("a", b"x", qos=1, properties=sent)
    client.on_message = lambda _c, _u, message: got.put(message.properties)
    sent = Properties(PacketTypes.PUBLISH)
    sent.UserProperty = [("b", "1"), ("a", "2")]
    sent.ContentType = "text/plain"
    sent.CorrelationData = b"\0\1"

    def scenario():
        client.connect("127.0.0.1", bench.listener.port)
        client.loop_start()
        try:
            return connected.get(timeout=PATIENCE_S), got.get(timeout=PATIENCE_S)
        finally:
            client.disconnect()
            client.loop_stop()

    granted, received = await asyncio.to_thread(scenario)
    assert granted.AssignedClientIdentifier.startswith("auto-")
    assert received.UserProperty == [("b", "1"), ("a", "2")]
    assert (received.ContentType, received.CorrelationData) == ("text/plain", b"\0\1")


@pytest.mark.parametrize("protocol", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5])
async def test_aiomqtt(bench, protocol):
    """The simulated devices' client: commands in, readings out, a will behind."""
    will = aiomqtt.Will("state/dev", b"offline", qos=1, retain=True)
    where = {"hostname": "127.0.0.1", "port": bench.listener.port, "protocol": protocol}
    async with asyncio.timeout(PATIENCE_S):
        async with aiomqtt.Client(identifier="dev", will=will, **where) as client:
            await client.subscribe("cmd/#", qos=1)
            for number in range(50):
                await client.publish("devices/dev/climate", str(number), qos=1)
            assert bench.listener.publish("cmd/heater", b"ON") == 1
            async for message in client.messages:
                assert (str(message.topic), message.payload) == ("cmd/heater", b"ON")
                break
    assert [payload for _, payload, _ in bench.desk.messages] == [b"%d" % number for number in range(50)]
    assert bench.listener.stats.retained == 0, "it left with DISCONNECT"


@pytest.mark.parametrize("protocol", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5])
async def test_aiomqtt_at_every_qos(bench, protocol):
    """There and back at 0, 1 and 2, in 5.0 with user properties in their order."""
    said = Properties(PacketTypes.PUBLISH) if protocol is aiomqtt.ProtocolVersion.V5 else None
    if said is not None:
        said.UserProperty = [("b", "1"), ("a", "2"), ("b", "3")]
    async with (
        asyncio.timeout(PATIENCE_S),
        aiomqtt.Client("127.0.0.1", bench.listener.port, identifier="dev", protocol=protocol) as client,
    ):
        await client.subscribe("t/#", qos=2)
        for qos in (0, 1, 2):
            await client.publish(f"t/{qos}", b"x" * 30_000, qos=qos, properties=said)
        got = []
        async for message in client.messages:
            got.append(message)
            if len(got) == 3:
                break
    assert sorted((str(each.topic), len(each.payload), each.qos) for each in got) == [
        (f"t/{qos}", 30_000, qos) for qos in (0, 1, 2)
    ]
    for each in got:
        assert said is None or each.properties.UserProperty == said.UserProperty


@pytest.mark.parametrize("protocol", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5])
async def test_aiomqtt_is_told_that_it_may_not(open_listener, protocol):
    """A wrong password is an error with a name."""
    bench = await open_listener(users=(User(username="u", password="p"),))
    client = aiomqtt.Client(
        "127.0.0.1", bench.listener.port, protocol=protocol, username="u", password="no", timeout=PATIENCE_S
    )
    with pytest.raises(aiomqtt.MqttError, match=r"(?i)author|user name"):
        async with client:
            pass

"""MQTT over WebSocket: the same listener, in binary frames, for pages that are listed and for programs."""

import asyncio

import paho.mqtt.client as paho
import pytest
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError
from paho.mqtt.enums import CallbackAPIVersion

from gateway.config.settings import ListenSettings, User, WebSocketSettings
from gateway.mqtt.listener import Listener
from gateway.web.mqtt_socket import MqttSocket

PATIENCE_S = 10.0
PAGE = "https://dashboard.example"
CONNECT = b"\x10\x0d\0\4MQTT\4\2\0\x3c\0\1c"


@pytest.fixture
async def open_socket():
    """`await open_socket(**settings)`: a listener with a WebSocket port; `.url`, `.messages`, `.listener`."""
    opened = []

    class Bench:
        def __init__(self, **settings):
            self.messages = []
            self.listener = Listener(ListenSettings(port=0, **settings), self.take, asyncio.get_running_loop().time)
            place = WebSocketSettings(host="127.0.0.1", port=0, origins=frozenset({PAGE}))
            self.socket = MqttSocket(place, self.listener, max_connections=20)

        def take(self, arrivals):
            self.messages += zip(arrivals.topics, arrivals.payloads, strict=True)
            arrivals.settle()

        @property
        def url(self):
            return f"http://127.0.0.1:{self.socket.port}/mqtt"

    async def build(**settings):
        bench = Bench(**settings)
        await bench.listener.start()
        await bench.socket.start()
        opened.append(bench)
        return bench

    yield build
    for bench in opened:
        await bench.listener.stop()
        await bench.socket.stop()


@pytest.fixture
async def browser():
    async with ClientSession() as session:

        async def connect(bench, *, origin=PAGE, protocols=("mqtt",)):
            headers = {} if origin is None else {"Origin": origin}
            return await session.ws_connect(bench.url, headers=headers, protocols=protocols)

        yield connect


async def read(page, size):
    got = b""
    while len(got) < size:
        message = await page.receive(PATIENCE_S)
        assert message.type is WSMsgType.BINARY, message
        got += message.data
    return got


async def test_packets_may_span_frames_and_share_them(open_socket, browser):
    """[MQTT-6.0.0-2]; the sub-protocol that is chosen is mqtt [MQTT-6.0.0-4]."""
    bench = await open_socket()
    page = await browser(bench)
    assert page.protocol == "mqtt"
    for byte in CONNECT:
        await page.send_bytes(bytes([byte]))
    assert await read(page, 4) == b"\x20\2\0\0"
    await page.send_bytes(b"\x32\6\0\1a\0\1x" * 3 + b"\xc0\0")
    answer = await read(page, 14)
    assert answer.count(b"\x40\2\0\1") == 3
    assert bench.messages == [("a", b"x")] * 3
    await page.close()


async def test_a_text_frame_ends_the_connection(open_socket, browser):
    """[MQTT-6.0.0-1]."""
    page = await browser(await open_socket())
    await page.send_str("hello")
    message = await page.receive(PATIENCE_S)
    assert (message.type, page.close_code) == (WSMsgType.CLOSE, 1003)


@pytest.mark.parametrize(
    ("origin", "protocols", "status"),
    [
        ("https://evil.example", ("mqtt",), 403),
        ("null", ("mqtt",), 403),
        ("https://dashboard.example.evil.example", ("mqtt",), 403),
        (PAGE, ("chat",), 400),
        (PAGE, (), 400),
    ],
)
async def test_a_page_that_is_not_listed_gets_nothing(open_socket, browser, origin, protocols, status):
    """A browser lets every page call every machine; here is where it ends. And without mqtt there is nothing to say
    [MQTT-6.0.0-3]."""
    bench = await open_socket()
    with pytest.raises(WSServerHandshakeError) as refused:
        await browser(bench, origin=origin, protocols=protocols)
    assert refused.value.status == status
    assert bench.listener.stats.connections_total == 0


async def test_the_end_of_a_connection_is_said_and_seen(open_socket, browser):
    """A violation closes with the reason in MQTT's own words; a page that leaves is gone."""
    bench = await open_socket()
    page = await browser(bench)
    await page.send_bytes(b"\x10\x0e\0\4MQTT\5\2\0\x3c\0\0\1c" + b"\x36\5\0\1a\0\1")
    connack_then_farewell = await read(page, 20)
    assert connack_then_farewell[0] == 0x20
    assert b"\xe0" in connack_then_farewell
    assert (await page.receive(PATIENCE_S)).type is WSMsgType.CLOSE
    leaver = await browser(bench)
    await leaver.send_bytes(CONNECT)
    await read(leaver, 4)
    await leaver.close()
    async with asyncio.timeout(PATIENCE_S):
        while bench.listener.stats.connections:
            await asyncio.sleep(0)


async def test_a_slow_page_is_waited_for_and_nothing_is_lost(open_socket, browser):
    """More than all buffers hold goes through, in order, to a page that begins to read late."""
    bench = await open_socket(max_queued_messages=100_000, max_queued_bytes=1 << 30)
    page = await browser(bench)
    await page.send_bytes(CONNECT + b"\x82\6\0\1\0\1a\1")
    await read(page, 9)
    for number in range(600):
        bench.listener.publish("a", number.to_bytes(4, "big") * 5_000)
    got = b""
    size = 1 + 3 + 2 + 1 + 2 + 20_000
    for number in range(600):
        while len(got) < size:
            got += (await page.receive(PATIENCE_S)).data
        packet, got = got[:size], got[size:]
        assert packet[-4:] == number.to_bytes(4, "big")
        await page.send_bytes(b"\x40\2" + packet[7:9])
    await page.close()


async def test_paho_over_websockets_with_a_password(open_socket):
    """A real client, publishing and subscribing, judged by the listener's users."""
    bench = await open_socket(users=(User(username="u", password="p"),))
    loop = asyncio.get_running_loop()
    got = asyncio.Queue()
    client = paho.Client(CallbackAPIVersion.VERSION2, transport="websockets", protocol=paho.MQTTv5)
    client.username_pw_set("u", "p")
    client.ws_set_options(path="/mqtt", headers=lambda headers: {k: v for k, v in headers.items() if k != "Origin"})
    client.on_connect = lambda *_: client.subscribe("t", 1)
    client.on_subscribe = lambda *_: client.publish("t", b"x" * 100_000, 1)
    client.on_message = lambda _, __, message: loop.call_soon_threadsafe(got.put_nowait, message.payload)
    await loop.run_in_executor(None, client.connect, "127.0.0.1", bench.socket.port)
    client.loop_start()
    try:
        assert await asyncio.wait_for(got.get(), PATIENCE_S) == b"x" * 100_000
    finally:
        client.disconnect()
        await loop.run_in_executor(None, client.loop_stop)

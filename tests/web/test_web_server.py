"""The HTTP server over real sockets: what it answers, to whom, and what it never lets happen."""

import asyncio
import contextlib
import io
import socket

import msgspec
import pytest

from gateway.config.settings import HttpSettings
from gateway.errors import StorageError
from gateway.observe import log
from gateway.observe.status import GatewayStatus
from gateway.web.deadletters import REPLAY_PATH, ReplayResult
from gateway.web.server import MAX_BODY_BYTES, WebServer

CHANGE = {"X_Gateway_Request": "1", "Content_Type": "application/json"}


def changed(status, **changes):
    return msgspec.structs.replace(status, **changes)


async def test_health_follows_the_process_and_its_disk(site):
    """503 says that a restart or an operator is needed, and why; an uplink that is away is no such reason."""
    await site.start()
    answer = await site.ask("GET", "/healthz")
    assert (answer.status, answer.json()) == (200, {"healthy": True, "problems": []})
    site.status = changed(site.status, healthy=False, problems=("the disk refuses writes: EIO",))
    answer = await site.ask("GET", "/healthz")
    assert (answer.status, answer.json()["problems"]) == (503, ["the disk refuses writes: EIO"])


async def test_readiness_is_apart_from_health(site):
    """While it recovers, the gateway is healthy and not ready."""
    await site.start()
    site.status = changed(site.status, ready=False, problems=("recovering the log",))
    assert (await site.ask("GET", "/readyz")).status == 503
    assert (await site.ask("GET", "/healthz")).status == 200
    site.status = changed(site.status, ready=True)
    assert (await site.ask("GET", "/readyz")).status == 200


async def test_the_status_is_the_status(site):
    """What is decoded on the other side is what the gateway knew."""
    await site.start()
    answer = await site.ask("GET", "/api/v1/status")
    assert answer.headers["content-type"].startswith("application/json")
    assert msgspec.json.decode(answer.body, type=GatewayStatus) == site.status


async def test_metrics_are_served(site):
    """Prometheus finds its page."""
    await site.start()
    answer = await site.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert b'gateway_sink_pending{sink="cloud"} 10.0' in answer.body


async def test_the_page_shows_hostile_names_as_text(site):
    """Markup in a name is shown, not run, and the policy forbids scripts anyway."""
    await site.start()
    site.status = changed(site.status, gateway_id="<script>alert(1)</script>")
    answer = await site.ask("GET", "/")
    assert answer.headers["content-type"].startswith("text/html")
    assert b"&lt;script&gt;alert" in answer.body
    assert b"<script" not in answer.body
    assert "http" not in answer.body.decode()


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/api/v1/status", "/nowhere"])
async def test_every_answer_carries_the_security_headers(site, path):
    """Errors included: nothing is cached, sniffed, framed or allowed to load anything."""
    await site.start()
    headers = (await site.ask("GET", path)).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"
    assert headers["server"] == "gateway"


async def test_what_is_not_there_is_404_as_json(site):
    """No path reaches a file, however it is spelt."""
    await site.start()
    for path in ("/nowhere", "/../etc/passwd", "/%2e%2e/etc/passwd", "/api/v1/status/%00", "/" + "a" * 4_000):
        answer = await site.ask("GET", path)
        assert (answer.status, answer.json()["error"]["status"]) == (404, 404)


async def test_a_wrong_method_is_405_and_says_which_is_right(site):
    """A client that guesses wrongly learns the right way."""
    await site.start()
    answer = await site.ask("DELETE", "/api/v1/status")
    assert (answer.status, answer.json()["error"]["status"]) == (405, 405)
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]", "[::1]:80", "localhost."])
async def test_the_machine_s_own_names_are_answered(site, host):
    """Whoever asks for this machine by a name that no foreign DNS server can give is served."""
    await site.start()
    assert (await site.ask("GET", "/healthz", Host=host)).status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1"])
async def test_other_host_names_are_refused(site, host):
    """A page that rebinds its name to this machine reads nothing."""
    await site.start()
    answer = await site.ask("GET", "/api/v1/status", Host=host)
    assert answer.status == 421
    assert b"greenhouse" not in answer.body


@pytest.mark.parametrize("host", [None, "", "[::1", "localhost:port", "a:1:2"])
async def test_a_request_without_a_valid_host_is_refused(site, host):
    """No Host, no answer."""
    await site.start()
    assert (await site.ask("GET", "/healthz", Host=host)).status == 400


async def test_a_bug_is_told_to_the_log_and_not_to_the_client(site):
    """The answer holds no traceback and no message of the exception."""
    log.configure(said := io.StringIO())
    await site.start()
    site.server._status = lambda: 1 / 0
    answer = await site.ask("GET", "/api/v1/status")
    assert answer.status == 500
    assert b"division" not in answer.body
    assert "ZeroDivisionError" in said.getvalue()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    ],
    ids=["long header", "long line", "many headers", "two lengths", "space before colon", "TLS"],
)
async def test_a_malformed_or_oversized_head_is_refused(site, request_bytes):
    """What is not plain HTTP is answered 4xx and closed, and the next client is served."""
    await site.start()
    assert (await site.raw(request_bytes)).status in (400, 414, 431)
    assert (await site.ask("GET", "/healthz")).status == 200


async def test_a_full_house_turns_away_and_opens_again(site):
    """Idle connections hold at most their number of places, and give them back."""
    await site.start(max_connections=3)
    held = [await site.connect() for _ in range(3)]
    await _until(lambda: site.server._door.connections == 3)
    answer = await site.ask("GET", "/healthz")
    assert (answer.status, answer.json()["error"]["reason"]) == (503, "connections full")
    for _, writer in held:
        writer.close()
    await _until(lambda: site.server._door.connections == 0)
    assert (await site.ask("GET", "/healthz")).status == 200


async def test_a_connection_that_asks_nothing_is_closed(site):
    """Slow or silent clients lose their place, so that they cannot lock the operator out."""
    await site.start(first_request_s=0.05)
    reader, writer = await site.connect()
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: local")
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    assert site.server._door.connections == 0
    writer.close()


async def test_a_connection_may_ask_again(site):
    """Keep-alive works behind the door, and the wait for the first request is over once it has come."""
    await site.start(first_request_s=0.05)
    reader, writer = await site.connect()
    ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(2):
        writer.write(ask)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 200")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        assert site.server._door._doors
        assert all(door._timer is None for door in site.server._door._doors.values())
    writer.close()


async def test_stop_closes_the_port_even_with_idle_clients(site):
    """A browser tab that is left open delays no shutdown."""
    await site.start()
    reader, writer = await site.connect()
    port = site.server.port
    await asyncio.wait_for(site.server.stop(), 10)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    await site.server.stop()


async def test_a_taken_port_is_an_os_error(site):
    """The composition root can tell the operator which address is in use."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = WebServer(HttpSettings(port=taken.getsockname()[1]), lambda: site.status)
        with pytest.raises(OSError):
            await server.start()
        await server.stop()


# Replaying dead letters.


@pytest.fixture
def replayed():
    return []


@pytest.fixture
async def replaying(site, replayed):
    async def replay(wanted):
        replayed.append(wanted)
        return ReplayResult(replayed=wanted.ids or ("g/1/1/7",), refused={})

    await site.start(replay=replay)
    return site


async def test_the_operator_replays_some_or_all(replaying, replayed):
    """From this machine, with the header and JSON, the request reaches the gateway as it was meant."""
    answer = await replaying.ask("POST", REPLAY_PATH, b'{"ids": ["g/1/1/4", "g/1/1/9"]}', **CHANGE)
    assert (answer.status, answer.json()) == (200, {"replayed": ["g/1/1/4", "g/1/1/9"], "refused": {}})
    answer = await replaying.ask("POST", REPLAY_PATH, b'{"all": true}', **CHANGE)
    assert answer.json()["replayed"] == ["g/1/1/7"]
    assert [(r.ids, r.all) for r in replayed] == [(("g/1/1/4", "g/1/1/9"), False), ((), True)]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"X_Gateway_Request": None}, 403),
        ({"X_Gateway_Request": "0"}, 403),
        ({"Content_Type": None}, 415),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Host": "evil.example"}, 421),
    ],
)
async def test_another_site_s_page_cannot_replay(replaying, replayed, changes, status):
    """Whatever a browser sends on a foreign page's behalf is refused before anything happens."""
    answer = await replaying.ask("POST", REPLAY_PATH, b'{"all": true}', **(CHANGE | changes))
    assert answer.status == status
    assert replayed == []


async def test_a_preflight_request_is_never_granted(replaying):
    """A foreign page cannot even get leave to send our header."""
    answer = await replaying.ask(
        "OPTIONS", REPLAY_PATH, Origin="https://evil.example", Access_Control_Request_Method="POST"
    )
    assert answer.status == 405
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b"{", b'{"ids": []}', b'{"ids": ["a"], "all": true}', b'{"ids": [1]}', b'{"al": true}', b"\xff"],
)
async def test_a_request_that_says_nothing_clear_is_refused(replaying, replayed, body):
    """Neither an empty request nor a misspelt one means `all`."""
    answer = await replaying.ask("POST", REPLAY_PATH, body, **CHANGE)
    assert (answer.status, answer.json()["error"]["status"]) == (400, 400)
    assert replayed == []


async def test_a_body_over_the_limit_is_refused(replaying, replayed):
    """What an operator has to say fits into 64 KiB."""
    body = b'{"ids": ["' + b"a" * MAX_BODY_BYTES + b'"]}'
    assert (await replaying.ask("POST", REPLAY_PATH, body, **CHANGE)).status == 413
    assert replayed == []


async def test_a_disk_that_refuses_is_503(site):
    """The operator learns that nothing was replayed, and can try again."""

    async def replay(_wanted):
        raise StorageError("no space left on device")

    await site.start(replay=replay)
    answer = await site.ask("POST", REPLAY_PATH, b'{"all": true}', **CHANGE)
    assert (answer.status, answer.json()["error"]["reason"]) == (503, "no space left on device")


async def test_without_a_replayer_there_is_nothing_to_post_to(site):
    """The demo's gateway changes nothing over HTTP."""
    await site.start()
    assert (await site.ask("POST", REPLAY_PATH, b'{"all": true}', **CHANGE)).status == 404


async def _until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)

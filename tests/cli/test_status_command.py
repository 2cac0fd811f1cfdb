"""`gateway status`: the running gateway's own words, for a person and for a script."""

import asyncio
import contextlib
import io
import json
import socket
import threading

import msgspec
import pytest
from rich.console import Console

from gateway.cli import client, status_view
from gateway.config.settings import HttpSettings
from gateway.observe.status import GatewayStatus
from gateway.web.server import WebServer


@pytest.fixture
def serving():
    """Serves a status over the real API; gives the address."""
    with contextlib.ExitStack() as stack:

        def serve(status: GatewayStatus) -> str:
            ready, ended = threading.Event(), threading.Event()
            found = []

            async def run():
                server = WebServer(HttpSettings(port=0), lambda: status)
                await server.start()
                found.append(f"http://127.0.0.1:{server.port}")
                ready.set()
                await asyncio.get_running_loop().run_in_executor(None, ended.wait)
                await server.stop()

            thread = threading.Thread(target=lambda: asyncio.run(run()))
            thread.start()
            stack.callback(thread.join, 20)
            stack.callback(ended.set)
            assert ready.wait(20)
            return found[0]

        yield serve


def test_status_as_json_is_the_gateway_s_own(gateway, serving, a_status):
    """A script reads the same structure that the API gives."""
    ran = gateway("status", "--url", serving(a_status()), "--json")
    assert ran.code == 0
    assert msgspec.json.decode(ran.out, type=GatewayStatus) == a_status()


def test_status_in_a_pipe_is_a_fact_a_line(gateway, serving, a_status):
    """Without a terminal there are no frames, and every line can be searched."""
    ran = gateway("status", "--url", serving(a_status()))
    assert ran.code == 0
    assert ran.lines[0] == "greenhouse-01: ready, up 1 h 2 min, 0.1.0"
    assert (
        "sink cloud (http): down, 12,345 received, 7,135 delivered, 0 dead-lettered, 0 evicted, 5,210 pending,"
        " connection refused" in ran.lines
    )
    assert "thermostat living-room: on, 12 firings" in ran.lines


@pytest.mark.parametrize(
    "changes", [{"healthy": False, "problems": ("the disk refuses writes: EIO",)}, {"ready": False}]
)
def test_an_unhealthy_gateway_is_exit_code_1(gateway, serving, a_status, changes):
    """A script needs no parser to know that something is wrong."""
    ran = gateway("status", "--url", serving(a_status(**changes)))
    assert ran.code == 1
    assert all(f"problem: {problem}" in ran.lines for problem in changes.get("problems", ()))


def test_a_gateway_that_does_not_run_is_one_line(gateway):
    """Exit code 1, and the address that was asked."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        ran = gateway("status", "--url", url)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"gateway: no gateway answers at {url}: ")
    assert len(ran.err.splitlines()) == 1


def test_what_is_no_gateway_is_told_apart(gateway, serving, a_status):
    """Another server at that address, or an address that is none."""
    url = serving(a_status())
    assert "answers 404" in gateway("status", "--url", f"{url}/elsewhere").err
    assert "no http" in gateway("status", "--url", "file:///etc").err


def test_a_proxy_in_the_environment_is_not_asked(gateway, serving, a_status, monkeypatch):
    """The gateway is on this machine; a proxy would not find it."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert gateway("status", "--url", serving(a_status())).code == 0


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("::1", "http://[::1]:8080"),
        ("box.local", "http://box.local:8080"),
    ],
)
def test_the_configured_address_is_where_this_machine_asks(host, url):
    """An address to bind is not always one to ask."""
    assert client.url_of(HttpSettings(host=host)) == url


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_shows_every_number_in_full(a_status, width):
    """On a terminal of usual width no figure is cut."""
    console = Console(width=width, file=io.StringIO())
    console.print(status_view.table(a_status()))
    text = console.file.getvalue()
    for shown in (
        "greenhouse-01",
        "ready",
        "12,345",
        "7,135",
        "5,210",
        "12,343",
        "living-room",
        "16.0 MiB",
        "11 confirmed",
    ):
        assert shown in text
    assert max(map(len, text.splitlines())) <= width


def test_an_account_that_does_not_balance_stands_out(a_status):
    """L7 is checked where people look."""
    status = a_status()
    wrong = msgspec.structs.replace(status.sinks[0], delivered=0)
    status = msgspec.structs.replace(status, sinks=(wrong,))
    assert any(line.startswith("does not balance: cloud: ") for line in status_view.lines(status))
    console = Console(width=100, file=io.StringIO())
    console.print(status_view.table(status))
    assert "does not balance" in console.file.getvalue()


def test_hostile_text_in_a_status_is_shown_as_text(a_status):
    """An upstream's error text moves no cursor and forges no line."""
    status = a_status()
    wrong = msgspec.structs.replace(status.sinks[0], last_error="x\n\x1b[2J[bold]y")
    status = msgspec.structs.replace(status, sinks=(wrong,), problems=("a\nb",))
    console = Console(width=200, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(status_view.table(status))
    for text in (console.file.getvalue(), "\n".join(status_view.lines(status))):
        assert r"x\n\x1b[2J[bold]y" in text
        assert r"a\nb" in text


def test_json_is_for_machines_even_when_something_is_wrong(gateway, serving, a_status):
    """The whole status goes to stdout, the verdict into the exit code."""
    ran = gateway("status", "--url", serving(a_status(healthy=False)), "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["healthy"] is False

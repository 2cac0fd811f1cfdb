"""Webhooks that are slow, refuse, or are away, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from gateway.act.notify import QUEUE_MESSAGES, TRIES, Notifier
from gateway.config.settings import WebhookSettings
from gateway.model import Decision, Notify


class NoPause(random.Random):
    """Draws no pause, so that a retry follows at once."""

    def random(self) -> float:
        return 0.0


class Hooks:
    """A server that answers each path as it was told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.answers: dict[str, int] = {}
        self.held = asyncio.Event()
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path.strip("/")
        self.heard.append((path, (await request.json())["text"]))
        if path == "slow":
            await self.held.wait()
        return web.Response(status=self.answers.get(path, 204))

    def notifier(self, *names: str) -> Notifier:
        urls = {name: f"http://127.0.0.1:{self.port}/{name}?token=hush" for name in names}
        return Notifier([WebhookSettings(name=name, url=url) for name, url in urls.items()], NoPause())


@pytest.fixture
async def hooks():
    found = Hooks()
    app = web.Application()
    app.router.add_post("/{tail:.*}", found.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    yield found
    found.held.set()
    await runner.cleanup()


@contextlib.asynccontextmanager
async def running(notifier: Notifier):
    """Let it work, and stop it as the gateway does."""
    task = asyncio.create_task(notifier.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


def say(notifier: Notifier, to: str, text: str) -> None:
    message = Notify(to, text)
    notifier.notify(Decision(f"r//0/{text}", "r", "", message, 0, None, "it is warm"), message)


async def test_a_receiver_that_does_not_answer_delays_nobody_else(hooks):
    """One webhook's outage is nobody else's."""
    notifier = hooks.notifier("slow", "quick")
    async with running(notifier):
        say(notifier, "slow", "1")
        await until(lambda: ("slow", "1") in hooks.heard)
        for number in range(5):
            say(notifier, "quick", str(number))
        await until(lambda: notifier.told == 5)
        assert [text for path, text in hooks.heard if path == "quick"] == ["0", "1", "2", "3", "4"]
        hooks.held.set()
        await until(lambda: notifier.told == 6)


@pytest.mark.parametrize(("status", "asked"), [(400, 1), (404, 1), (410, 1), (408, TRIES), (429, TRIES), (500, TRIES)])
async def test_what_will_never_be_taken_is_not_tried_again(hooks, status, asked):
    """A refusal is told at once; what may pass is tried a bounded number of times, and the next one gets its turn."""
    hooks.answers["oncall"] = status
    notifier = hooks.notifier("oncall")
    with capture_logs() as lines:
        async with running(notifier):
            say(notifier, "oncall", "a")
            await until(lambda: notifier.failed == 1)
            hooks.answers["oncall"] = 200
            say(notifier, "oncall", "b")
            await until(lambda: notifier.told == 1)
    assert hooks.heard == [("oncall", "a")] * asked + [("oncall", "b")]
    (line,) = [line for line in lines if line["event"] == "notification_failed"]
    assert (line["to"], line["why"]) == ("oncall", f"HTTP {status}")


async def test_a_receiver_that_is_away_is_told_of_in_the_log_without_its_address(hooks, unused_tcp_port):
    """Whoever knows the address of a webhook may use it."""
    url = f"http://127.0.0.1:{unused_tcp_port}/hook?token=hush"
    notifier = Notifier([WebhookSettings(name="oncall", url=url)], NoPause())
    with capture_logs() as lines:
        async with running(notifier):
            say(notifier, "oncall", "warm")
            await until(lambda: notifier.failed == 1)
    assert [line["event"] for line in lines] == ["notification", "notification_failed"]
    assert "hush" not in str(lines)
    assert str(unused_tcp_port) not in str(lines)


async def test_what_does_not_fit_is_dropped_and_counted_and_the_caller_never_waits(hooks):
    """The queue is bounded; the oldest stay."""
    notifier = hooks.notifier("oncall")
    for number in range(QUEUE_MESSAGES + 7):
        say(notifier, "oncall", str(number))
    assert notifier.dropped == 7
    async with running(notifier):
        await until(lambda: notifier.told == QUEUE_MESSAGES)
    assert hooks.heard[-1] == ("oncall", str(QUEUE_MESSAGES - 1))


async def test_what_still_waits_when_the_gateway_stops_is_counted_and_told(hooks):
    """Nothing ends without a trace."""
    notifier = hooks.notifier("slow")
    with capture_logs() as lines:
        async with running(notifier):
            for text in "abc":
                say(notifier, "slow", text)
            await until(lambda: hooks.heard == [("slow", "a")])
    assert notifier.dropped == 3
    assert lines[-1]["event"] == "notification_failed"


async def test_a_name_without_a_webhook_is_a_log_line(hooks):
    """`notify` works before anything is configured."""
    notifier = Notifier([WebhookSettings(name="oncall")], NoPause())
    with capture_logs() as lines:
        say(notifier, "oncall", "warm")
        say(notifier, "nobody", "cold")
        await notifier.run()
    assert [(line["to"], line["text"]) for line in lines] == [("oncall", "warm"), ("nobody", "cold")]


async def test_what_is_posted_names_the_decision():
    """A receiver can drop the second of two that a crash has made of one: the id is the same."""
    seen = []

    async def keep(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/", keep)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    notifier = Notifier([WebhookSettings(name="oncall", url=f"http://127.0.0.1:{runner.addresses[0][1]}/")], NoPause())
    async with running(notifier):
        say(notifier, "oncall", "warm")
        await until(lambda: notifier.told == 1)
    await runner.cleanup()
    assert seen == [
        {"id": "r//0/warm", "rule": "r", "key": "", "to": "oncall", "text": "warm", "because": "it is warm"}
    ]

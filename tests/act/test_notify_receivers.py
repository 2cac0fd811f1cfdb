"""Webhooks and phones that are slow, refuse, or are away, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from gateway.act.notify import QUEUE_MESSAGES, TRIES, Notifier
from gateway.act.notify_http import Poster
from gateway.config.settings import NtfySettings, WebhookSettings
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
        """Webhooks that may be told as often as there is something to say."""
        urls = {name: f"http://127.0.0.1:{self.port}/{name}?token=hush" for name in names}
        most = 10 * QUEUE_MESSAGES
        return Notifier([WebhookSettings(name=name, url=url, most=most) for name, url in urls.items()], NoPause())


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
    assert hooks.heard[:-1] == [("oncall", "a")] * asked
    assert hooks.heard[-1] == ("oncall", "2 messages\n\n- b\n\nand 1 more: see the gateway's log")
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
    assert [text for _, text in hooks.heard[:-1]] == [str(number) for number in range(QUEUE_MESSAGES - 1)]
    assert hooks.heard[-1] == ("oncall", f"8 messages\n\n- {QUEUE_MESSAGES - 1}\n\nand 7 more: see the gateway's log")


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


@pytest.fixture
async def phone():
    """A server that takes ntfy's JSON at its root; `heard` has what came, with the token that came with it."""
    heard: list[tuple[str, str | None, dict]] = []
    answers: list[web.Response] = []

    async def publish(request: web.Request) -> web.Response:
        heard.append((request.path, request.headers.get("Authorization"), await request.json()))
        return answers.pop(0) if answers else web.json_response({"id": "x"})

    app = web.Application()
    app.router.add_post("/{tail:.*}", publish)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/", heard, answers
    await runner.cleanup()


async def test_a_phone_is_told_over_its_topic_with_its_token(phone):
    """What waits for the server's good mood is tried again; no redirect takes topic and token elsewhere."""
    server, heard, answers = phone
    answers += [web.Response(status=429), web.Response(status=307, headers={"Location": "/elsewhere"})]
    settings = NtfySettings(name="phone", server=server, topic="gh-hush", token="hush", title="g: {rule}", group_s=0.0)
    notifier = Notifier([settings], NoPause())
    with capture_logs() as lines:
        async with running(notifier):
            say(notifier, "phone", "31.5 °C\r\nX-Evil: yes")
            await until(lambda: notifier.told == 1)
    body = {"topic": "gh-hush", "title": "g: r", "message": "31.5 °C\nX-Evil: yes", "priority": 3}
    assert heard == [("/", "Bearer hush", body)] * 3
    assert "hush" not in str(lines)
    assert "hush" not in repr(settings)


async def test_a_refused_token_is_told_once_without_it(phone):
    """403 is for good."""
    server, heard, answers = phone
    answers += [web.Response(status=403)]
    notifier = Notifier([NtfySettings(name="phone", server=server, topic="t", token="hush", group_s=0.0)], NoPause())
    with capture_logs() as lines:
        async with running(notifier):
            say(notifier, "phone", "a")
            await until(lambda: notifier.failed == 1)
    assert len(heard) == 1
    assert lines[-1]["why"] == "HTTP 403"
    assert "hush" not in str(lines)


def hook(hooks: Hooks, **changes) -> WebhookSettings:
    return WebhookSettings(name="oncall", url=f"http://127.0.0.1:{hooks.port}/oncall", **changes)


async def test_what_the_rate_holds_back_goes_out_as_one_when_it_allows(hooks, clock):
    """A storm of alarms is two messages, then one a minute later that has the rest; nothing is lost."""
    notifier = Notifier([hook(hooks, most=2, every_s=60.0)], NoPause(), clock)
    async with running(notifier):
        for text in "abc":
            say(notifier, "oncall", text)
        await until(lambda: notifier.told == 3)
        for text in "defg":
            say(notifier, "oncall", text)
        clock.advance(59)
        say(notifier, "oncall", "h")
        assert (notifier.told, notifier.waiting) == (3, 5)
        clock.advance(1)
        say(notifier, "oncall", "i")
        await until(lambda: notifier.told == 9)
    texts = [text for _, text in hooks.heard]
    assert texts[:2] == ["a", "2 messages\n\n- b\n- c"]
    assert texts[2:] == ["d", "5 messages\n\n- e\n- f\n- g\n- h\n- i"]


async def test_a_gateway_that_stops_tells_what_waits_for_its_group(hooks):
    """The last words of a gateway are its most important ones; `drain` waits for them, and for nothing else."""
    notifier = Notifier([hook(hooks, group_s=3_600.0), WebhookSettings(name="nobody")], NoPause())
    async with running(notifier):
        await notifier.drain(20)
        assert not hooks.heard
    notifier = Notifier([hook(hooks, group_s=3_600.0)], NoPause())
    async with running(notifier):
        say(notifier, "oncall", "a")
        say(notifier, "oncall", "b")
        await notifier.drain(20)
        assert [text for _, text in hooks.heard] == ["2 messages\n\n- a\n- b"]
        say(notifier, "oncall", "c")
        await notifier.drain(20)
        assert notifier.told == 3


async def test_draining_floods_nobody_and_ends_in_time(hooks, clock):
    """What the rate holds back is not worth waiting for, and a receiver that does not answer costs what was allowed."""
    notifier = Notifier([hook(hooks, most=1)], NoPause(), clock)
    async with running(notifier):
        say(notifier, "oncall", "a")
        await until(lambda: notifier.told == 1)
        say(notifier, "oncall", "b")
        await notifier.drain(20)
        assert (notifier.told, notifier.waiting) == (1, 1)
    assert notifier.dropped == 1
    slow = hooks.notifier("slow")
    async with running(slow):
        say(slow, "slow", "a")
        await slow.drain(0)
        assert slow.told == 0


async def test_every_notification_has_one_end(hooks, seed):
    """said = told + dropped + failed + waiting, at any time, whatever receivers do and whenever the gateway stops."""
    dice = random.Random(seed)
    for _ in range(5):
        names = ["one", "two", "three"]
        urls = {name: f"http://127.0.0.1:{hooks.port}/{name}" for name in names}
        notifier = Notifier([WebhookSettings(name=name, url=urls[name], most=500) for name in names], NoPause())
        said = 0
        with capture_logs():
            async with running(notifier):
                for _ in range(40):
                    hooks.answers[dice.choice(names)] = dice.choice([200, 200, 404, 503])
                    for _ in range(dice.choice([1, 1, 5, 150])):
                        say(notifier, dice.choice(names), str(said))
                        said += 1
                    assert said == notifier.told + notifier.dropped + notifier.failed + notifier.waiting
                    await asyncio.sleep(0)
        assert notifier.waiting == 0
        assert said == notifier.told + notifier.dropped + notifier.failed


async def test_a_fault_in_one_way_to_tell_ends_nothing_else(hooks, monkeypatch):
    """What a library raises in one message is that message's end, and no more."""

    async def stumble(self, body) -> None:
        if body["text"] == "a":
            raise RuntimeError("hush")
        return await post(self, body)

    post = Poster.post
    monkeypatch.setattr(Poster, "post", stumble)
    notifier = hooks.notifier("oncall", "other")
    with capture_logs() as lines:
        async with running(notifier):
            say(notifier, "oncall", "a")
            await until(lambda: notifier.failed == 1)
            say(notifier, "oncall", "b")
            say(notifier, "other", "c")
            await until(lambda: notifier.told == 2)
    assert [line["why"] for line in lines if line["event"] == "notification_failed"] == ["RuntimeError"]

"""The HTTP sink against a real HTTP server that behaves well, badly and worse."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from gateway.config.settings import HttpSinkSettings
from gateway.forward.parcel import Parcel
from gateway.forward.sinks import build
from gateway.forward.verdict import Delivered, NeedsOperator, Refused, Retry, TooLarge
from gateway.model import Gap, Position
from tests.forward.conftest import ORIGIN, batch_of, free_port, until


def parcel_of(count=3) -> Parcel:
    batch = batch_of([b'{"n":%d}' % n for n in range(count)])
    batch.origin = ORIGIN
    return Parcel([batch], Position(batch.end, batch.end_ordinal))


@pytest.fixture
async def upstream():
    """A server whose answer a test writes; `requests` holds what came."""

    class Upstream:
        def __init__(self) -> None:
            self.requests: list[tuple[dict, bytes]] = []
            self.answer = lambda request: web.Response(status=202)
            self.url = ""

        async def handle(self, request):
            self.requests.append((dict(request.headers), await request.read()))
            answer = self.answer(request)
            return await answer if asyncio.iscoroutine(answer) else answer

    server = Upstream()
    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    server.url = f"http://127.0.0.1:{port}/in"
    yield server
    await runner.cleanup()


@pytest.fixture
async def sink_to():
    """Opens sinks; closes them on the way out."""
    sinks = []

    async def make(url, **settings):
        settings.setdefault("timeout_s", 5.0)
        sink = build(HttpSinkSettings(name="cloud", url=url, **settings), "gw", ())
        await sink.open()
        sinks.append(sink)
        return sink

    yield make
    for sink in sinks:
        await sink.close()


async def test_a_batch_arrives_as_cloudevents_and_an_accepted_one_is_delivered(upstream, sink_to):
    """The whole parcel in one request, with the headers that were configured."""
    sink = await sink_to(upstream.url, headers=(("Authorization", "Bearer x"),))
    assert await sink.send(parcel_of()) == Delivered(3)
    headers, body = upstream.requests[0]
    assert headers["Content-Type"] == "application/cloudevents-batch+json"
    assert headers["Authorization"] == "Bearer x"
    assert [event["data"] for event in json.loads(body)] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert await sink.announce(Gap(1, 4, 3, "evicted"), 5) == Delivered(1)
    assert json.loads(upstream.requests[1][1])[0]["data"] == {"from": 1, "to": 4, "count": 3, "reason": "evicted"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Delivered(3)),
        (500, Retry),
        (503, Retry),
        (400, Refused),
        (413, TooLarge),
        (401, NeedsOperator),
        (404, NeedsOperator),
    ],
)
async def test_statuses_reach_the_table(upstream, sink_to, status, expected):
    """K3, over a real connection, with the server's own words for the operator."""
    upstream.answer = lambda request: web.Response(status=status, text="its own words")
    verdict = await (await sink_to(upstream.url)).send(parcel_of())
    if isinstance(expected, Delivered):
        assert verdict == expected
    else:
        assert type(verdict) is expected
        assert "its own words" in getattr(verdict, "reason", getattr(verdict, "detail", ""))


async def test_retry_after_is_passed_on(upstream, sink_to):
    """429 with a pause asked for."""
    upstream.answer = lambda request: web.Response(status=429, headers={"Retry-After": "17"})
    verdict = await (await sink_to(upstream.url)).send(parcel_of())
    assert verdict == Retry("HTTP 429", 17.0)


async def test_redirects_are_not_followed(upstream, sink_to):
    """§3.4: whatever stands in Location, nobody goes there."""
    upstream.answer = lambda request: web.Response(status=307, headers={"Location": upstream.url + "/elsewhere"})
    assert isinstance(await (await sink_to(upstream.url)).send(parcel_of()), Retry)
    assert len(upstream.requests) == 1


async def test_a_captive_portals_page_is_not_a_delivery(upstream, sink_to):
    """200 and HTML: somebody else answered."""
    upstream.answer = lambda request: web.Response(text="<html>pay here</html>", content_type="text/html")
    assert isinstance(await (await sink_to(upstream.url)).send(parcel_of()), Retry)


async def test_an_endless_answer_is_cut_off_and_not_a_delivery(upstream, sink_to):
    """§3.4: at most 64 KiB are read, even of a 200."""
    sent = 0

    async def endless(request):
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while sent < 1 << 30:
                await response.write(bytes(65_536))
                sent += 65_536
        except ConnectionError:
            pass
        return response

    upstream.answer = endless
    assert isinstance(await (await sink_to(upstream.url)).send(parcel_of()), Retry)
    assert sent < 64 << 20


async def test_an_answer_that_never_ends_is_a_timeout(upstream, sink_to):
    """A server that holds the line open: the sink comes back after its timeout."""

    async def hang(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.sleep(30)
        return response

    upstream.answer = hang
    verdict = await (await sink_to(upstream.url, timeout_s=0.3)).send(parcel_of())
    assert verdict == Retry("no answer within 0.3 s")


async def test_a_compressed_answer_is_not_unpacked(upstream, sink_to):
    """§3.4: invalid gzip is nobody's problem, and a bomb stays small."""
    upstream.answer = lambda request: web.Response(body=b"not gzip", headers={"Content-Encoding": "gzip"})
    assert await (await sink_to(upstream.url)).send(parcel_of()) == Delivered(3)


@pytest.mark.parametrize(
    "raw", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", b"HTTP/1.1 2"]
)
async def test_broken_answers_are_retried(sink_to, raw):
    """A connection cut before the answer is complete proves nothing."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert isinstance(await (await sink_to(f"http://127.0.0.1:{port}/")).send(parcel_of()), Retry)


async def test_nobody_there_is_retried_and_a_wrong_address_is_the_operators(sink_to):
    """Refused connections pass; an address that is none does not."""
    assert isinstance(await (await sink_to(f"http://127.0.0.1:{free_port()}/")).send(parcel_of()), Retry)
    assert isinstance(await (await sink_to("http://")).send(parcel_of()), NeedsOperator)


async def test_a_reply_lost_after_the_commit_costs_one_duplicate_with_the_same_id(
    upstream, sink_to, store, make_runner
):
    """K1: nothing is lost, and the receiver can recognise what came twice."""
    stored: list[str] = []
    losses = 5

    def commit_and_cut(request):
        nonlocal losses
        stored.extend(event["id"] for event in json.loads(upstream.requests[-1][1]))
        if losses:
            losses -= 1
            request.transport.abort()
        return web.Response(status=204)

    upstream.answer = commit_and_cut
    for _ in range(10):
        store.events.append(batch_of([b"1"] * 20))
    from gateway.config.settings import RetrySettings

    runner = make_runner(
        store, await sink_to(upstream.url), retry=RetrySettings(base_s=0.01, max_s=0.1), batch_records=50
    )
    task = asyncio.create_task(runner.run())
    await until(lambda: runner.pending == 0, 20)
    await runner.drain(1)
    await task
    assert len(set(stored)) == 200
    assert len(stored) - 200 == 5 * 50

"""The InfluxDB sink against VictoriaMetrics, and against servers that answer badly."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.config.settings import InfluxSinkSettings, TopicSettings
from gateway.forward.parcel import Parcel
from gateway.forward.sinks import build
from gateway.forward.verdict import Delivered, NeedsOperator, Refused, Retry, TooLarge
from gateway.model import Gap, Position
from tests.forward.conftest import ORIGIN, batch_of, fetch, free_port

TOPICS = (TopicSettings(topic="devices/{device}/{type}"),)


def parcel_of(payloads, topic="devices/7/climate", first=0) -> Parcel:
    batch = batch_of(payloads, topic=topic)
    batch.origin, batch.seq, batch.ordinal = ORIGIN, first, first
    return Parcel([batch], Position(batch.end, batch.end_ordinal))


@pytest.fixture
async def sink_to():
    sinks = []

    async def make(url, **settings):
        settings.setdefault("timeout_s", 10.0)
        sink = build(InfluxSinkSettings(name="history", url=url, bucket="sensors", **settings), "gw", TOPICS)
        await sink.open()
        sinks.append(sink)
        return sink

    yield make
    for sink in sinks:
        await sink.close()


async def export(port, match) -> list[dict]:
    """Every sample that the store holds for a series selector."""
    base = f"http://127.0.0.1:{port}"
    await asyncio.to_thread(fetch, f"{base}/internal/force_flush")
    text = await asyncio.to_thread(fetch, f"{base}/api/v1/export?match[]={match}&start=2020-01-01T00:00:00Z")
    return [json.loads(line) for line in text.splitlines()]


async def test_events_become_samples_with_their_tags(victoria, sink_to):
    """What was sent is what a query finds."""
    sink = await sink_to(f"http://127.0.0.1:{victoria.port}")
    verdict = await sink.send(parcel_of([b'{"temperature":21.5,"door":{"open":true}}', b'{"temperature":22}']))
    assert verdict == Delivered(2)
    [series] = await export(victoria.port, "climate_temperature")
    assert sorted(series["values"]) == [21.5, 22], "order within a millisecond is not the store's to keep"
    assert {key: series["metric"][key] for key in ("device", "type", "gateway", "topic")} == {
        "device": "7",
        "type": "climate",
        "gateway": "gw",
        "topic": "devices/7/climate",
    }
    [door] = await export(victoria.port, "climate_door_open")
    assert door["values"] == [1]
    assert await sink.announce(Gap(1, 4, 3, "evicted"), 1_700_000_000_000_000_000) == Delivered(1)
    [count] = await export(victoria.port, "gateway_gap_count")
    assert count["values"] == [3]


async def test_a_hundred_thousand_events_of_one_millisecond_are_a_hundred_thousand_points(victoria, sink_to):
    """§2.6: nothing collapses, neither between devices nor on one series, in a store that keeps milliseconds."""
    sink = await sink_to(f"http://127.0.0.1:{victoria.port}")
    for start in range(0, 100_000, 10_000):
        topics = [f"devices/{n % 1_000}/burst" for n in range(start, start + 10_000)]
        payloads = [b'{"n":%d}' % n for n in range(start, start + 10_000)]
        assert await sink.send(parcel_of(payloads, topics, first=start)) == Delivered(10_000)
    series = await export(victoria.port, "burst_n")
    assert len(series) == 1_000
    values = [value for each in series for value in each["values"]]
    assert len(values) == 100_000
    assert set(values) == set(range(100_000))


async def test_hostile_names_and_texts_break_no_line(victoria, sink_to):
    """The event after a hostile one arrives as well."""
    sink = await sink_to(f"http://127.0.0.1:{victoria.port}")
    payloads = [b'{"a b,c=\\"d\\\\":1,"s":"x\\ny z=1\\"","m":2}', b'{"m":3}']
    assert await sink.send(parcel_of(payloads, ["devices/x y,z=\\/odd", "devices/8/odd"])) == Delivered(2)
    series = {each["metric"]["device"]: each["values"] for each in await export(victoria.port, "odd_m")}
    assert series == {"x y,z=\\": [2], "8": [3]}


async def test_a_store_that_is_away_is_retried(sink_to):
    """Refused connections are nobody's fault for long."""
    sink = await sink_to(f"http://127.0.0.1:{free_port()}")
    assert isinstance(await sink.send(parcel_of([b"1"])), Retry)


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (204, {}, b"", Delivered),
        (200, {"Content-Type": "text/html"}, b"<html>", Retry),
        (200, {"Content-Type": "application/json"}, b"{}", Retry),
        (302, {"Location": "/page"}, b"", Retry),
        (400, {}, b'{"message":"partial write: points beyond retention dropped=1"}', Refused),
        (401, {}, b"", NeedsOperator),
        (404, {}, b'{"message":"bucket not found"}', NeedsOperator),
        (413, {}, b"", TooLarge),
        (429, {"Retry-After": "9"}, b"", Retry),
        (503, {}, b"\xff\xfe", Retry),
    ],
)
async def test_answers_reach_the_table(sink_to, status, headers, body, expected):
    """K3: only 204 is a delivery; no redirect is followed."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            requests.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if status != 204:
                self.wfile.write(body)

        def do_GET(self):
            requests.append(b"GET")
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            sink = await sink_to(f"http://127.0.0.1:{server.server_port}")
            verdict = await sink.send(parcel_of([b"1"]))
        finally:
            await asyncio.to_thread(server.shutdown)
            thread.join()
    assert type(verdict) is expected, verdict
    assert len(requests) == 1
    if status == 429:
        assert verdict.after_s == 9.0

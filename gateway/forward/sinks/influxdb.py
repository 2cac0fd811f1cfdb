"""`type: influxdb`: write points with influxdb-client, to InfluxDB 2 or to whatever speaks its write protocol.

Delivered means: the server's 204, as its documentation defines it. Sending a point again overwrites it with itself, so
a partly stored request may simply be repeated.

The client's own layers above its generated write call are passed by: they follow redirects (a captive portal's page
would count as success) and hide the status. What blocks runs in a thread of this sink's own.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService

from gateway.clock import SystemClock
from gateway.forward.line import LineProtocol
from gateway.forward.verdict import ANSWER_MAX_BYTES, Delivered, NeedsOperator, Retry, judge_http

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.clock import Clock
    from gateway.config.settings import InfluxSinkSettings, TopicSettings
    from gateway.forward.parcel import Parcel
    from gateway.forward.verdict import Verdict
    from gateway.model import Gap

_DETAIL_CHARACTERS = 200


class InfluxSink:
    """One bucket."""

    def __init__(
        self, settings: InfluxSinkSettings, gateway_id: str, topics: Sequence[TopicSettings], clock: Clock | None = None
    ) -> None:
        """Args: clock: only for `Retry-After` headers that are dates."""
        self._settings = settings
        self._clock = clock or SystemClock()
        self._points = LineProtocol(gateway_id, settings.measurement, topics)
        self._client: InfluxDBClient | None = None
        self._service: Any = WriteService  # the library's generated code has no annotations
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sink-{settings.name}")

    async def open(self) -> None:
        """Prepare the client; nothing is sent."""
        settings = self._settings
        self._client = InfluxDBClient(
            url=settings.url,
            token=settings.token,
            org=settings.org,
            timeout=int(settings.timeout_s * 1000),
            retries=urllib3.Retry(0, redirect=False, read=False, connect=False),
        )

    async def send(self, parcel: Parcel) -> Verdict:
        """One request for the whole parcel."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._send, parcel)

    async def announce(self, gap: Gap, wall_ns: int) -> Verdict:
        """One point that tells of the gap."""
        body = self._points.gap(gap, wall_ns).encode()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, body, 1)

    async def close(self) -> None:
        """Close the connection, after a request that is still going on."""
        client, self._client = self._client, None
        if client is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, client.close)
        self._thread.shutdown(wait=False)

    # In the thread.

    def _send(self, parcel: Parcel) -> Verdict:
        lines = [line for batch in parcel.batches for line in self._points.lines(batch)]
        return self._write("\n".join(lines).encode(), len(parcel))

    def _write(self, body: bytes, count: int) -> Verdict:
        client, settings = self._client, self._settings
        if client is None:
            return Retry("the sink is not open")
        try:
            response = self._service(client.api_client).post_write(
                org=settings.org,
                bucket=settings.bucket,
                body=body,
                precision=WritePrecision.NS,
                content_type="text/plain; charset=utf-8",
                _preload_content=False,
            )
        except ApiException as error:
            return self._judge(error, count)
        except (urllib3.exceptions.LocationValueError, urllib3.exceptions.LocationParseError) as error:
            return NeedsOperator(f"{type(error).__name__}: {error}")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return Retry(f"{type(error).__name__}: {error}")
        with contextlib.closing(response):
            return self._judge_answer(response, count)

    @staticmethod
    def _judge_answer(response: urllib3.BaseHTTPResponse, count: int) -> Verdict:
        """What an answer means that the client takes for a success."""
        try:
            answer = response.read(ANSWER_MAX_BYTES + 1, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return Retry(f"{type(error).__name__}: {error}")
        if len(answer) > ANSWER_MAX_BYTES:
            return Retry(f"HTTP {response.status} with an answer beyond {ANSWER_MAX_BYTES} bytes")
        response.release_conn()
        content_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        verdict = judge_http(response.status, count, content_type=content_type)
        if isinstance(verdict, Delivered) and response.status != HTTPStatus.NO_CONTENT:
            return Retry(f"HTTP {response.status} where only 204 means stored")
        return verdict

    def _judge(self, error: ApiException, count: int) -> Verdict:
        if not error.status:  # the client's way of reporting a TLS failure
            return NeedsOperator(str(error.reason))
        headers: Mapping[str, str] = error.headers or {}
        body = error.body if isinstance(error.body, str) else (error.body or b"").decode(errors="replace")
        return judge_http(
            error.status,
            count,
            retry_after=headers.get("Retry-After"),
            wall_s=self._clock.wall_ns() / 1e9,
            detail=" ".join(body.split())[:_DETAIL_CHARACTERS],
        )

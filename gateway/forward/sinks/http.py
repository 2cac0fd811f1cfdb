"""`type: http`: POST a CloudEvents 1.0 batch in JSON to one address.

Delivered means: a status that says so, and an answer that was read to its end. No redirect is followed, no compressed
answer is unpacked, and an answer that goes on beyond 64 KiB is none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

from gateway.clock import SystemClock
from gateway.forward.envelope import CLOUDEVENTS_BATCH, CloudEvents
from gateway.forward.verdict import ANSWER_MAX_BYTES, NeedsOperator, Retry, judge_http

if TYPE_CHECKING:
    from gateway.clock import Clock
    from gateway.config.settings import HttpSinkSettings
    from gateway.forward.parcel import Parcel
    from gateway.forward.verdict import Verdict
    from gateway.model import Gap

_DETAIL_CHARACTERS = 200


class HttpSink:
    """One address, one connection at a time."""

    def __init__(self, settings: HttpSinkSettings, gateway_id: str, clock: Clock | None = None) -> None:
        """Args: clock: only for `Retry-After` headers that are dates."""
        self._settings = settings
        self._clock = clock or SystemClock()
        self._events = CloudEvents(gateway_id)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Prepare the connection pool."""
        await self.close()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, enable_cleanup_closed=False),
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
            headers={**dict(self._settings.headers), "Content-Type": CLOUDEVENTS_BATCH, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def send(self, parcel: Parcel) -> Verdict:
        """One request for the whole parcel."""
        return await self._post(self._events.batch(parcel.batches), len(parcel))

    async def announce(self, gap: Gap, wall_ns: int) -> Verdict:
        """One request with one event of the gap's own type."""
        return await self._post(self._events.gap(gap, wall_ns), 1)

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, body: bytes, count: int) -> Verdict:
        if self._session is None:
            return Retry("the sink is not open")
        try:
            async with self._session.post(self._settings.url, data=body, allow_redirects=False) as response:
                answer = await _read_bounded(response)
                if answer is None:
                    response.close()
                    return Retry(f"HTTP {response.status} with an answer beyond {ANSWER_MAX_BYTES} bytes")
                return judge_http(
                    response.status,
                    count,
                    content_type=response.content_type,
                    retry_after=response.headers.get("Retry-After"),
                    wall_s=self._clock.wall_ns() / 1e9,
                    detail=_readable(answer),
                )
        except aiohttp.InvalidURL:
            return NeedsOperator("the configured url is not one")  # not repeated here: it may hold a password
        except aiohttp.ClientSSLError as error:
            return NeedsOperator(f"{type(error).__name__}: {error}")
        except TimeoutError:
            return Retry(f"no answer within {self._settings.timeout_s:g} s")
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            return Retry(f"{type(error).__name__}: {error}")


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes | None:
    """The whole answer, or None if it is longer than anyone would read."""
    pieces = []
    size_bytes = 0
    async for piece in response.content.iter_chunked(16 * 1024):
        size_bytes += len(piece)
        if size_bytes > ANSWER_MAX_BYTES:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def _readable(answer: bytes) -> str:
    """The beginning of an answer, for a person."""
    return " ".join(answer[: 4 * _DETAIL_CHARACTERS].decode(errors="replace").split())[:_DETAIL_CHARACTERS]

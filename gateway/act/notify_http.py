"""One POST of JSON to whoever wants to be told, and what its answer means.

Invariants:
- Told means 2xx. No redirect is followed, and no answer is read: where a message goes is the operator's decision alone.
- What is told of a failure is a status or the name of an error, never an address: addresses are secrets.
"""

from __future__ import annotations

from http import HTTPStatus

import aiohttp

from gateway.act.notify_channel import Answer, Later, Refused, Told

_TIMEOUT_S = 10.0
_OK = range(200, 300)
_REFUSED = frozenset(range(400, 500)) - {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}


class Poster:
    """A client for one address."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        """See the module.

        Args:
            url: where to.
            headers: what goes with each request, in addition to what HTTP asks for.
        """
        self._url = url
        self._headers = headers or {}
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session; connects nowhere yet."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), headers=self._headers, cookie_jar=aiohttp.DummyCookieJar()
        )

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    async def post(self, body: dict[str, object]) -> Answer:
        """Try once."""
        assert self._session is not None, "open() comes first"
        try:
            async with self._session.post(self._url, json=body, allow_redirects=False) as answer:
                status = answer.status
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            return Later(type(error).__name__)
        if status in _OK:
            return Told()
        return Refused(f"HTTP {status}") if status in _REFUSED else Later(f"HTTP {status}")

"""`type: email`: a mail over SMTP.

Invariants:
- With `starttls` nothing is said in the clear: a server that does not offer it is refused. Certificates are always
  checked, against the system's trust anchors or the configured ones.
- Each address is told once: what one server took for some of them is tried again for the others alone.
- A mail counts as taken once the server said so; what happens to the connection afterwards does not matter.
- What is told of a failure is a code or the name of an error: what a server says may quote what it was told.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

import aiosmtplib

from gateway.act.notify_channel import Answer, Later, Refused, Told
from gateway.act.notify_mail import domain_of, mail

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.act.notify_grouping import Parcel
    from gateway.clock import Clock
    from gateway.config.settings import EmailSettings

_TIMEOUT_S = 30.0
"""For one try, from the connection to the server's word."""
_QUIT_TIMEOUT_S = 2.0
_PERMANENT = range(500, 600)


class Email:
    """A `Channel` to some addresses over one server."""

    def __init__(self, settings: EmailSettings, clock: Clock) -> None:
        """See the module.

        Args:
            settings: the server and the addresses.
            clock: for the date of a mail.
        """
        self._settings = settings
        self._clock = clock

    async def open(self) -> None:
        """Nothing is kept between mails."""

    async def close(self) -> None:
        """Nothing is kept between mails."""

    def prepare(self, parcel: Parcel) -> Callable[[], Awaitable[Answer]]:
        """See `Channel`."""
        wall_ns = self._clock.wall_ns() if self._clock.synced() else None
        return _Delivery(self._settings, mail(self._settings, parcel, wall_ns)).attempt


class _Delivery:
    """One mail, and who still waits for it."""

    def __init__(self, settings: EmailSettings, data: bytes) -> None:
        self._settings = settings
        self._data = data
        self._waiting = list(settings.recipients)
        self._refused: list[int] = []
        """The codes with which addresses were refused for good."""

    async def attempt(self) -> Answer:
        """Try once, for everyone who still waits."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                refusals = await self._send()
        except aiosmtplib.SMTPResponseException as error:
            why = f"SMTP {error.code}"
            return Refused(why) if error.code in _PERMANENT else Later(why)
        except aiosmtplib.SMTPNotSupported as error:
            return Refused(type(error).__name__)
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:  # TimeoutError is an OSError
            return Later(type(error.__cause__ or error).__name__)
        return self._settle(refusals)

    async def _send(self) -> dict[str, int]:
        """One mail transaction. Returns who was refused, with the code."""
        settings = self._settings
        credentials = settings.credentials
        tls = None
        if (
            settings.security != "none"
        ):  # off the loop: there may be hundreds of anchors, and each mail sees renewed ones
            tls = await asyncio.to_thread(ssl.create_default_context, cafile=settings.ca)
        client = aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port,
            local_hostname=domain_of(settings),
            timeout=None,  # ours, around it all: with one of its own, being cancelled while it connects may go unheard
            use_tls=settings.security == "tls",
            start_tls=settings.security == "starttls",
            tls_context=tls,
            username=credentials.username if credentials is not None else None,
            password=credentials.password if credentials is not None else None,
        )
        try:
            await client.connect()
            try:
                refused, _ = await client.sendmail(settings.sender, self._waiting, self._data)
            except aiosmtplib.SMTPRecipientsRefused as error:
                return {each.recipient: each.code for each in error.recipients}
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                async with asyncio.timeout(_QUIT_TIMEOUT_S):
                    await client.quit()
            return {address: response[0] for address, response in refused.items()}
        finally:
            client.close()

    def _settle(self, refusals: dict[str, int]) -> Answer:
        self._refused += [code for code in refusals.values() if code in _PERMANENT]
        self._waiting = [address for address, code in refusals.items() if code not in _PERMANENT]
        total = len(self._settings.recipients)
        if self._waiting:
            return Later(f"{len(self._waiting)} of {total} addresses: SMTP {refusals[self._waiting[0]]}")
        if not self._refused:
            return Told()
        why = f"{len(self._refused)} of {total} addresses: SMTP {self._refused[0]}"
        return Refused(why) if len(self._refused) == total else Told(but=why)

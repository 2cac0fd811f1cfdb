"""`type: ntfy`: a notification on a phone, over a topic of an ntfy server.

It is published as JSON to the server's root: so no text of a rule ever stands in a header. It is plain text, never
markdown, and short enough that the server does not make an attachment of it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gateway.act.notify_http import Poster
from gateway.act.notify_wording import body, title

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.act.notify_channel import Answer
    from gateway.act.notify_grouping import Parcel
    from gateway.config.settings import NtfySettings

MESSAGE_BYTES = 4_000
"""A server's limit is 4,096 unless its operator chose another."""


class Ntfy:
    """A `Channel` to one topic."""

    def __init__(self, settings: NtfySettings) -> None:
        self._settings = settings
        token = settings.token
        self._poster = Poster(settings.server, {"Authorization": f"Bearer {token}"} if token else None)
        self.open = self._poster.open
        self.close = self._poster.close

    def prepare(self, parcel: Parcel) -> Callable[[], Awaitable[Answer]]:
        """See `Channel`."""
        return partial(self._poster.post, payload(self._settings, parcel))


def payload(settings: NtfySettings, parcel: Parcel) -> dict[str, object]:
    """What is published, as JSON would say it."""
    return {
        "topic": settings.topic,
        "title": title(settings.title, parcel),
        "message": body(parcel, MESSAGE_BYTES),
        "priority": settings.priority,
    }

"""`type: webhook`: JSON for a program.

One thing said is one object: `id`, `rule`, `key`, `to`, `text`, `because`. Of several, `messages` holds each of them,
and `text` lists them in words for receivers that show nothing else. `more` says how many were said before and are not
told here; it is there only if there are any, and `text` then says so as well.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gateway.act.notify_http import Poster
from gateway.act.notify_wording import body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.act.notify_channel import Answer
    from gateway.act.notify_grouping import Parcel

_TEXT_BYTES = 16 * 1024


class Webhook:
    """A `Channel` to one webhook."""

    def __init__(self, name: str, url: str) -> None:
        """See the module.

        Args:
            name: the receiver's, told as `to`.
            url: where to post.
        """
        self._name = name
        self._poster = Poster(url)
        self.open = self._poster.open
        self.close = self._poster.close

    def prepare(self, parcel: Parcel) -> Callable[[], Awaitable[Answer]]:
        """See `Channel`."""
        return partial(self._poster.post, payload(self._name, parcel))


def payload(name: str, parcel: Parcel) -> dict[str, object]:
    """What is posted, as JSON would say it."""
    text = parcel.messages[0].text if parcel.total == 1 else body(parcel, _TEXT_BYTES)
    found: dict[str, object] = {"to": name, "text": text}
    if len(parcel.messages) > 1:
        found["messages"] = [message._asdict() for message in parcel.messages]
    else:
        found = {**parcel.messages[0]._asdict(), **found}
    return {**found, "more": parcel.more} if parcel.more else found

"""What `notify` needs to know of a way to reach people, and what may come of a try. Pure: names and values only."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.act.notify_grouping import Parcel


class Told(NamedTuple):
    """The receiver took it."""

    but: str = ""
    """Whom it did not reach, for the log; empty: it reached everyone."""


class Refused(NamedTuple):
    """The receiver will never take it."""

    why: str
    """Fit for a log: no address, no secret, nothing that the receiver chose."""


class Later(NamedTuple):
    """It may take it at another try."""

    why: str
    """As in `Refused`."""


Answer: TypeAlias = Told | Refused | Later


class Channel(Protocol):
    """One way to reach one receiver."""

    async def open(self) -> None:
        """Get ready. Reaches for nothing outside of this machine."""

    async def close(self) -> None:
        """Let go of everything."""

    def prepare(self, parcel: Parcel) -> Callable[[], Awaitable[Answer]]:
        """Put a parcel into words, once; each call of what comes back is one try to deliver it.

        A try ends within a bounded time and raises nothing: whatever goes wrong is an answer.
        """

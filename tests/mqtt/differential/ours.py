"""The listener in a process of its own, so that a blocking player sees it as it sees mosquitto. Prints its port.

Sessions are kept as in a gateway, on a disk that is at once done; so what waits for the disk takes its way, too.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from gateway.config.settings import ListenSettings
from gateway.mqtt.listener import Listener
from gateway.observe import log

if TYPE_CHECKING:
    from collections.abc import Callable


class QuickKeeper:
    """Everything is on disk as soon as it is said."""

    def append(self, entries: list) -> None:
        pass

    def when_durable(self, done: Callable[[], None]) -> None:
        done()

    def place(self) -> tuple[int, int]:
        return 1, 0


async def serve() -> None:
    log.configure(level="error")  # to stderr, where the player looks for bugs
    listener = Listener(ListenSettings(port=0), lambda arrivals: arrivals.settle(), time.monotonic, QuickKeeper())
    await listener.start()
    print(listener.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())

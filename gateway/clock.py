"""What time it is: the one module that asks the operating system.

Three clocks, because no single one is right on a Pi without a battery clock:

- *wall* (UTC, ns): for people and upstream; may jump by decades when NTP answers.
- *mono* (ns since boot, running on through suspend): for every duration. Restarts at a reboot.
- *elapsed* (ns, kept by the ring log): mono, carried across restarts so that it never goes back. Rules count in it.

Invariants:
- Nothing here sleeps. Shells wait on the event loop; pure modules are handed a number.
- `synced` is the kernel's own word (adjtimex), not a guess from the year.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Protocol

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 256  # larger than struct timex on every Linux


class Clock(Protocol):
    """What shells ask for the time. Tests pass a clock that they move by hand."""

    def wall_ns(self) -> int:
        """UTC, nanoseconds since 1970."""

    def mono_ns(self) -> int:
        """Nanoseconds since an origin that holds for this boot."""

    def boot_id(self) -> bytes:
        """Sixteen bytes that name this boot of the machine."""

    def synced(self) -> bool:
        """Whether the wall clock is disciplined by a time source."""


class SystemClock:
    """The operating system's clocks."""

    def __init__(self) -> None:
        self._boot_id = _read_boot_id()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._synced_until_ns = 0
        self._synced = False

    def wall_ns(self) -> int:
        """UTC, nanoseconds since 1970."""
        return time.time_ns()

    def mono_ns(self) -> int:
        """Nanoseconds since boot, including suspend."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def boot_id(self) -> bytes:
        """The kernel's random id of this boot; zeros where the kernel offers none."""
        return self._boot_id

    def synced(self) -> bool:
        """The kernel's word on clock synchronisation, asked at most once a second."""
        mono_ns = self.mono_ns()
        if mono_ns >= self._synced_until_ns:
            self._synced_until_ns = mono_ns + 1_000_000_000
            self._synced = self._ask_kernel()
        return self._synced

    def _ask_kernel(self) -> bool:
        timex = ctypes.create_string_buffer(_TIMEX_BYTES)
        state: int = self._libc.adjtimex(timex)
        return 0 <= state < _TIME_ERROR


def _read_boot_id() -> bytes:
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return bytes.fromhex(text.strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)

"""What every room's tests share: a clock that only moves when told to, and batches from a few words."""

from __future__ import annotations

import os
import random

import pytest

from gateway.model import Batch, Format, Kind, Stamp


class HandClock:
    """A clock that tests move by hand. Same shape as `gateway.clock.SystemClock`."""

    def __init__(self, wall_ns: int = 1_700_000_000_000_000_000, mono_ns: int = 5_000_000_000) -> None:
        self.wall = wall_ns
        self.mono = mono_ns
        self.boot = bytes(range(16))
        self.is_synced = True

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.wall += int(seconds * 1e9)
        self.mono += int(seconds * 1e9)

    def reboot(self, *, wall_ns: int | None = None) -> None:
        """A new boot: the monotonic clock starts again."""
        self.boot = bytes(b ^ 0xFF for b in self.boot)
        self.mono = 1_000_000_000
        if wall_ns is not None:
            self.wall = wall_ns

    def wall_ns(self) -> int:
        return self.wall

    def mono_ns(self) -> int:
        return self.mono

    def boot_id(self) -> bytes:
        return self.boot

    def synced(self) -> bool:
        return self.is_synced


@pytest.fixture
def clock() -> HandClock:
    """A clock that stands still."""
    return HandClock()


@pytest.fixture
def seed() -> int:
    """A fresh seed, printed, or the one in TEST_SEED."""
    value = int(os.environ.get("TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"TEST_SEED={value}")
    return value


@pytest.fixture
def make_batch():
    """Builds a batch of kind EVENTS (or another) from payloads."""

    def build(
        payloads: list[bytes], *, topic: str = "devices/a/climate", kind: Kind = Kind.EVENTS, stamp: Stamp | None = None
    ) -> Batch:
        count = len(payloads)
        return Batch(
            kind=kind,
            stamp=stamp or Stamp(1_700_000_000_000_000_000, 5_000_000_000, 0, bytes(16), True),
            topics=[topic] * count,
            formats=[Format.JSON] * count,
            flags=[1] * count,
            payloads=payloads,
        )

    return build

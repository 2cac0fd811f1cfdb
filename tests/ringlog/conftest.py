"""An open store in a directory of its own, and a disk that fails where it is told to."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from gateway.config.settings import LogSettings
from gateway.ringlog import Store
from tests.faults import FaultyStorage


@pytest.fixture
def faulty() -> FaultyStorage:
    """A disk that works until told otherwise."""
    return FaultyStorage()


@pytest.fixture
def small() -> LogSettings:
    """A ring of eight segments of 16 KiB, uncompressed, with a tip that holds next to nothing."""
    return LogSettings(
        max_size_bytes=128 * 1024,
        segment_size_bytes=16 * 1024,
        tip_bytes=4_096,
        dead_letters_max_size_bytes=128 * 1024,
        compress=False,
    )


@pytest.fixture
async def open_store(tmp_path, clock, small):
    """Opens stores on one directory; closes on the way out what the test has left open."""
    stores: list[Store] = []

    def build(settings: LogSettings = small, storage=None, on_failure=None, data_dir: Path | None = None) -> Store:
        store = Store(data_dir or tmp_path / "data", "gw", settings, clock, on_failure or (lambda error: None), storage)
        stores.append(store)
        return store

    yield build
    for store in stores:
        if store.committer._thread.is_alive():
            await store.close()


@pytest.fixture
def full_error() -> int:
    return errno.ENOSPC

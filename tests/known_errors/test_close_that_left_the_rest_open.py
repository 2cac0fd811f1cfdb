"""A log that could not be sealed kept the other logs, and its own file, from being closed."""

from __future__ import annotations

import asyncio
import errno

import pytest

from gateway.config.settings import LogSettings
from gateway.errors import StorageError
from gateway.ringlog import Store
from tests.faults import FaultyStorage
from tests.oracle import Baseline, leaks_in


async def test_a_seal_that_the_disk_refuses_closes_all_the_rest(tmp_path, clock, make_batch):
    """Law L5: what was durable stays so, and nothing stays open behind the error."""
    await asyncio.to_thread(int)  # the loop's own executor is no leak
    before, faulty = Baseline.here(), FaultyStorage()
    store = Store(tmp_path / "data", "gw", LogSettings(compress=False), clock, lambda error: None, faulty)
    for ring in store.rings:
        ring.append(make_batch([b"21.5"]))
    await store.committer.flush()
    for call in ("truncate", "sync"):
        faulty.fail(call, 1, errno.EIO, times=100)
    with pytest.raises(StorageError, match="cannot seal"):
        await store.close()
    assert leaks_in(tmp_path / "data", before) == []
    faulty.heal()
    again = Store(tmp_path / "data", "gw", LogSettings(compress=False), clock, lambda error: None)
    assert [ring.appended.seq for ring in again.rings] == [1] * len(again.rings)
    await again.close()

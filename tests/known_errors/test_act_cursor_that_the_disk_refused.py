"""One failed write of act's cursor ended its task, and the gateway with it."""

from __future__ import annotations

import asyncio
import errno

import pytest

from gateway.act import stage as act_stage
from gateway.errors import StorageError
from gateway.model import Publish
from gateway.observe import events
from tests.act.test_stage_over_the_real_log import Site
from tests.faults import FaultyStorage


class CursorRefused(FaultyStorage):
    """Everything can be written but one consumer's cursor; counts how often that was tried."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.refusals_left = times
        self.enough = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def note(self, call: str, name: str) -> None:
        super().note(call, name)
        if name == "act.cursor" and call in ("create", "write") and self.refusals_left:
            self.refusals_left -= 1
            raise OSError(errno.EIO, "the cursor's block is bad")
        if name == "act.cursor" and call == "sync":
            self._loop.call_soon_threadsafe(self.enough.set)


@pytest.fixture
def told(monkeypatch) -> list[tuple[str, str]]:
    """What the log says of it."""
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(events, "task_retried", lambda task, **what: found.append(("task_retried", task)))
    monkeypatch.setattr(events, "disk_recovered", lambda log, **what: found.append(("disk_recovered", log)))
    return found


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """How long it waited each time; nobody really does."""
    found: list[float] = []
    really_sleep = asyncio.sleep

    async def sleep(delay: float) -> None:
        found.append(delay)
        await really_sleep(0)

    monkeypatch.setattr(act_stage.asyncio, "sleep", sleep)
    return found


async def test_a_cursor_that_cannot_be_stored_is_told_once_and_tried_until_it_can(tmp_path, clock, told, pauses):
    """Law L5: the former cursor stands, a restart only reads more. Nobody ends for it, and nobody is told twice."""
    bad = CursorRefused(times=9)
    site = Site(tmp_path, clock, storage=bad)
    await site.stage.recover()
    site.decide(Publish("t", b"done"))
    await site.until_carried_out(1)
    pauses.clear()
    keeping = asyncio.create_task(site.stage.keep_cursor())
    try:
        await asyncio.wait_for(bad.enough.wait(), 20)
        async with asyncio.timeout(20):
            while len(told) < 2:
                await asyncio.wait({keeping}, timeout=0.01)
                assert not keeping.done()
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert told == [("task_retried", "act.cursor"), ("disk_recovered", "act.cursor")]
    assert pauses[:10] == [act_stage._COMMIT_AFTER_S, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    await site.store.close()
    second = Site(tmp_path, clock)
    await second.stage.recover()
    assert second.published == []
    await second.store.close()


async def test_a_start_does_not_depend_on_the_cursor(tmp_path, clock):
    """Law L5: the gateway always starts; what is decided without any cursor on disk is taken up all the same."""
    first = Site(tmp_path, clock, storage=CursorRefused(times=1_000))
    await first.stage.recover()
    with pytest.raises(StorageError):
        await first.stage.commit()
    first.decide(Publish("t", b"not yet done"))
    await first.store.close()
    second = Site(tmp_path, clock)
    await second.stage.recover()
    assert [what for what, _ in second.published] == ["not yet done"]
    await second.store.close()


async def test_the_end_of_the_log_still_ends_the_process(tmp_path, clock, told, pauses):
    """A disk that takes nothing any more is no matter of patience: whoever keeps the cursor says so and ends."""
    bad = FaultyStorage()
    site = Site(tmp_path, clock, storage=bad)
    await site.stage.recover()
    site.decide(Publish("t", b"done"))
    bad.fail("write", 1, errno.EIO, times=1_000)
    with pytest.raises(StorageError):
        await asyncio.wait_for(site.stage.keep_cursor(), 20)
    assert told == []
    bad.heal()
    await site.store.close()

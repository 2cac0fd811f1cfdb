"""On a stalled disk act waited `act_within` for each batch of outcomes that it had itself recorded.

A command behind them waited that much longer, once for each, and they were counted as decisions that had gone ahead of
their record.
"""

from __future__ import annotations

import asyncio

from gateway.model import Command, Publish
from gateway.observe import events
from tests.act.test_stage_over_the_real_log import TOPIC, Site
from tests.faults import StallingStorage
from tests.scenarios.site import until


async def test_a_command_waits_once_for_a_stalled_disk_whatever_else_was_recorded(tmp_path, clock, monkeypatch):
    """Law L1: `act_within` is the longest that a stalled disk delays a command."""
    waits = []
    monkeypatch.setattr(events, "command_ahead_of_record", lambda topic, **what: waits.append(topic))
    slow = StallingStorage()
    site = Site(tmp_path, clock, storage=slow)
    await site.stage.recover()
    await site.stage.commit()
    slow.go.clear()
    stage = asyncio.create_task(site.stage.run())

    async def until_carried_out(count: int) -> None:
        def is_done_as_time_passes() -> bool:
            clock.advance(0.05)
            return len(site.published) == count

        await until(is_done_as_time_passes, "it goes out ahead of its record", 20)

    try:
        site.decide(Publish("t", b"1"))
        await until_carried_out(1)
        site.decide(Command(TOPIC, b"ON", "on"))
        await until_carried_out(2)
        assert waits == ["$gateway/decisions/r"] * 2
        assert site.stage.ahead_of_record == 2
    finally:
        stage.cancel()
        await asyncio.gather(stage, return_exceptions=True)
        slow.go.set()
        await site.store.close()

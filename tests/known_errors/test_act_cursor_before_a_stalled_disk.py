"""The cursor of act could pass a decision that still waited for a stalled disk; a crash then lost the decision.

The reader already held it, so that its position lay behind it, and a cursor stored meanwhile (every second, and at the
end) came to disk together with the decision that nobody had carried out.
"""

from __future__ import annotations

import asyncio

from gateway.model import Command
from tests.act.test_stage_over_the_real_log import TOPIC, Site
from tests.faults import StallingStorage


async def test_a_decision_that_waits_for_the_disk_is_not_passed_by_the_cursor(tmp_path, clock):
    """Laws L1, L12: what was recorded and not carried out is carried out after the crash."""
    slow = StallingStorage()
    first = Site(tmp_path, clock, storage=slow)
    await first.stage.recover()
    await first.stage.commit()
    slow.go.clear()
    stage = asyncio.create_task(first.stage.run())
    try:
        first.decide(Command(TOPIC, b"ON", "on"))
        async with asyncio.timeout(20):
            while first.stage._reader.position.seq == 0:
                await asyncio.sleep(0)
        cursor = asyncio.create_task(first.stage.commit())
        await asyncio.sleep(0)
        stage.cancel()  # the crash, before act hears that the disk has taken the decision
        await asyncio.gather(stage, return_exceptions=True)
        slow.go.set()
        await asyncio.wait_for(cursor, 20)
        assert first.published == []
    finally:
        slow.go.set()
        await first.store.close()
    second = Site(tmp_path, clock)
    await second.stage.recover()
    assert [what for what, _ in second.published] == ["ON"]
    await second.store.close()

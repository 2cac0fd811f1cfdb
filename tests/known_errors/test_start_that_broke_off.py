"""A start that broke off half way through the log saved its place there: what it had found so far was never done."""

from __future__ import annotations

import pytest

from gateway.errors import StorageError
from tests.app.lives import Lives
from tests.app.test_rules_survive_a_kill import FAN, ON, WARM
from tests.scenarios.site import until


def turned_on(life: Lives) -> list:
    """The decisions to turn the fan on, without what is said again at a start."""
    return [each for each in life.decisions("warm") if each.action.topic == FAN and "/start-" not in each.id]


async def test_a_start_that_broke_off_leaves_the_next_one_everything_to_do(tmp_path, clock, monkeypatch):
    """Law L12: neither rule state nor a cursor is saved before the log has been read to its end."""
    life = Lives(tmp_path, clock, WARM)
    try:
        gateway = await life.begin()
        (act,) = [task for task in gateway._stage_tasks if task.get_name() == "gateway.act"]
        act.cancel()
        peer = await life.peer()
        for _ in range(2):
            await life.say(peer, "devices/a/climate", temperature=31)
            clock.advance(4)
        await until(lambda: turned_on(life), "there is something to do", 10)
        await life.drop()
        life.gateway = gateway = life.build()
        read = gateway.act._reader.read
        reads = []

        async def break_off(limit):
            reads.append(limit)
            if gateway.act._reader.position.seq + 1 >= gateway.store.events.appended.seq:
                raise OSError(5, "Input/output error")
            return await read(1)

        monkeypatch.setattr(gateway.act._reader, "read", break_off)
        with pytest.raises(StorageError, match="cannot read the log"):
            await gateway.start()
        assert len(reads) > 1
        await gateway.drain()
        life.gateway = None
        await life.begin()
        peer = await life.peer(FAN)
        await until(lambda: peer.heard(FAN)[-1:] == [ON], "the fan is turned on", 10)
        await life.gateway.store.committer.flush()
        (given,) = turned_on(life)
        assert life.ends_of(given) == ["sent"]
    finally:
        await life.close()

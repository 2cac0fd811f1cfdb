"""A rule snapshot for which a full disk had no room ended its task, and the gateway with it, without a word."""

from __future__ import annotations

import errno

from gateway.observe import events
from tests.app.lives import Lives
from tests.faults import FaultyStorage
from tests.scenarios.site import until


async def test_a_snapshot_that_finds_no_room_is_told_and_tried_again(tmp_path, clock, monkeypatch):
    """Law L6: a full disk is a normal condition. The former snapshot stands, and the next start takes longer."""
    told = []
    monkeypatch.setattr(events, "disk_failed", lambda log, **what: told.append((log, what["operation"])))
    faulty = FaultyStorage()
    life = Lives(tmp_path, clock)
    try:
        gateway = await life.begin(faulty)
        peer = await life.peer()
        await life.say(peer, "devices/a/climate", temperature=20)
        faulty.fail("create", 1, errno.ENOSPC)
        gateway.rules._much_unsaved.set()
        await until(lambda: ("create", "rules.snapshot.tmp") in faulty.calls, "it was tried", 10)
        await until(lambda: told == [("rules", "snapshot")], "it is told", 10)
        assert not gateway.failed.is_set()
        assert gateway.rules._unsaved_records == 1
        gateway.rules._much_unsaved.set()
        await until((tmp_path / "data" / "rules.snapshot").exists, "it is tried again", 10)
        assert not gateway.failed.is_set()
    finally:
        await life.close()

"""A cursor of act that the disk refused at the stop left the audit trail and the rules unsaved as well."""

from __future__ import annotations

from gateway.errors import StorageError
from tests.app.lives import Lives
from tests.scenarios.site import until


async def test_what_cannot_be_saved_at_the_stop_keeps_nothing_else_from_it(tmp_path, clock, monkeypatch):
    """Law L12: each is saved by itself; that one was not is told."""
    life = Lives(tmp_path, clock)
    gateway = await life.begin()
    peer = await life.peer()
    await life.say(peer, "devices/a/climate", temperature=20)
    await until(lambda: gateway.rules._unsaved_records == 1, "the rules have seen it", 10)

    async def refuse() -> None:
        raise StorageError("no room")

    monkeypatch.setattr(gateway.act, "commit", refuse)
    assert not await gateway.drain()
    life.gateway = None
    await life.close()
    assert (tmp_path / "data" / "rules.snapshot").exists()
    assert (tmp_path / "data" / "cursors" / "audit.cursor").exists()

"""The act stage over a real store: recorded before done, taken up after a crash, told to people."""

from __future__ import annotations

import asyncio
import random

from aiohttp import web

from gateway.act.dispatch import Dispatcher
from gateway.act.interlock import Interlock
from gateway.act.notify import Notifier
from gateway.act.outbox import Outbox
from gateway.act.records import decode_records, encode_records
from gateway.act.stage import ActStage
from gateway.config.settings import LogSettings, WebhookSettings
from gateway.model import ActuatorLimits, Command, Decision, Expect, Kind, Notify, Outcome, Position, Publish
from gateway.ringlog import Store

TOPIC = "devices/a/heater/set"
PLAIN = LogSettings(compress=False)


class Site:
    """One life of the stage on a data directory."""

    def __init__(self, data_dir, clock, limits=None, storage=None, settings=PLAIN) -> None:
        self.store = Store(data_dir, "gw", settings, clock, lambda error: None, storage)
        self.published: list[tuple[str, int]] = []
        self.dispatcher = Dispatcher(
            Interlock(limits or {}, max_age_s=60),
            Outbox(lambda where, value, wanted: value == wanted),
            self._publish,
            lambda decision, message: self.published.append((message.text, self.store.events.durable.seq)),
            self.record,
            lambda seconds: None,
        )
        self.stage = ActStage(self.dispatcher, self.store, act_within_s=0.25)

    def _publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
        self.published.append((payload.decode(), self.store.events.durable.seq))
        return 1

    def record(self, records) -> None:
        self.store.events.append(encode_records(records, self.store.events.stamp()))

    def decide(self, *actions) -> None:
        """Record one decision for each action."""
        now_ns = self.store.events.elapsed_ns()
        self.record(
            [Decision(f"r//{now_ns}/{n}", "r", "", action, now_ns, None, "") for n, action in enumerate(actions)]
        )

    async def until_carried_out(self, count: int) -> None:
        """Run the stage until so many things went out, and their outcomes are on disk."""
        task = asyncio.create_task(self.stage.run())
        async with asyncio.timeout(20):
            while len(self.published) < count:
                await asyncio.sleep(0)
        await self.store.committer.flush()
        task.cancel()

    async def go_by(self, batches) -> None:
        """Let telemetry go by while the stage runs, and its cursor be stored whenever the stage wants that."""
        task = asyncio.create_task(self.stage.run())
        async with asyncio.timeout(60):
            for batch in batches:
                self.store.events.append(batch)
                await self.store.committer.flush()
                while self.stage.position.seq < self.store.events.appended.seq:
                    await asyncio.sleep(0)
                if self.stage._uncommitted:
                    await self.stage.commit()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def outcomes(self) -> list[str]:
        """State of every outcome in the log, in order."""
        reader = self.store.reader(Position(0, 0), durable_only=True)
        found = []
        while reader.position.seq < self.store.events.durable.seq:
            batch = await reader.read(100)
            assert batch.kind is Kind.DECISIONS
            found += [record.state for _, record in decode_records(batch) if isinstance(record, Outcome)]
        return found


async def test_a_decision_is_on_disk_before_it_is_carried_out(tmp_path, clock):
    """Law L1: nothing acts on a decision that a power cut could still take back."""
    site = Site(tmp_path, clock)
    site.decide(Publish("t", b"one"), Command(TOPIC, b"two", "on"), Notify("oncall", "three"))
    await site.until_carried_out(3)
    assert [what for what, _ in site.published] == ["one", "two", "three"]
    assert all(durable >= 3 for _, durable in site.published)
    assert await site.outcomes() == ["sent", "sent", "sent"]
    await site.store.close()


async def test_a_restart_takes_up_what_has_no_end_and_nothing_else(tmp_path, clock):
    """Law L12: a decision is neither lost nor repeated; one that is too old is recorded as expired."""
    first = Site(tmp_path, clock)
    await first.stage.recover()
    first.decide(Publish("t", b"done"))
    await first.until_carried_out(1)
    first.decide(Command(TOPIC, b"not yet done", "on"))
    await first.store.close()  # the stage never saw it
    clock.advance(5)
    second = Site(tmp_path, clock)
    await second.stage.recover()
    await second.store.committer.flush()
    assert [what for what, _ in second.published] == ["not yet done"]
    assert await second.outcomes() == ["sent", "sent"]
    await second.store.close()


async def test_a_command_that_waits_for_its_confirmation_is_taken_up_after_a_restart(tmp_path, clock):
    """Law: the cursor never passes a command that has no end yet."""
    first = Site(tmp_path, clock)
    await first.stage.commit()
    first.decide(Command(TOPIC, b'"ON"', "on", Expect("devices/a/heater/state", "value == wanted", 5.0, 3)))
    await first.until_carried_out(1)
    await first.stage.commit()
    assert await first.outcomes() == []
    await first.store.close()
    clock.advance(2)
    second = Site(tmp_path, clock)
    await second.stage.recover()
    assert [what for what, _ in second.published] == ['"ON"']
    assert second.dispatcher.oldest_open_seq == 0
    await second.store.close()
    clock.advance(3_600)
    third = Site(tmp_path, clock)
    await third.stage.recover()
    await third.store.committer.flush()
    assert third.published == []
    assert await third.outcomes() == ["expired"]
    await third.store.close()


OFF = Command(TOPIC, b"OFF", "off")
CAPPED = {TOPIC: ActuatorLimits(min_off_s=180, max_on_s=3_600, off=OFF)}


async def test_the_cap_counts_through_a_restart(tmp_path, clock):
    """Laws L10, L12: what the interlock counts from is read back, however much else was logged and done meanwhile."""
    first = Site(tmp_path, clock, CAPPED)
    await first.stage.recover()
    first.decide(Command(TOPIC, b"ON", "on"), Publish("t", b"something else"))
    await first.until_carried_out(2)
    await first.stage.commit()
    await first.store.close()
    clock.advance(3_600 - 1)
    second = Site(tmp_path, clock, CAPPED)
    await second.stage.recover()
    assert second.dispatcher.deadline_ns == second.store.events.elapsed_ns() + 10**9
    clock.advance(1)
    await second.until_carried_out(1)
    assert [what for what, _ in second.published] == ["OFF"]
    await second.store.close()


async def test_a_cursor_that_is_lost_costs_a_longer_start_and_nothing_else(tmp_path, clock):
    """Law L5: without a cursor the whole log is read; what has no end is taken up, what rests goes on resting."""
    first = Site(tmp_path, clock, CAPPED)
    await first.stage.recover()
    first.decide(OFF, Publish("t", b"done"))
    await first.until_carried_out(2)
    await first.stage.commit()
    first.decide(Publish("t", b"not yet done"))
    await first.store.close()
    (tmp_path / "cursors" / "act.cursor").unlink()
    clock.advance(60)
    second = Site(tmp_path, clock, CAPPED)
    await second.stage.recover()
    assert [what for what, _ in second.published] == ["not yet done"]
    second.decide(Command(TOPIC, b"ON", "on"), Publish("t", b"and on"))
    await second.until_carried_out(2)
    assert [what for what, _ in second.published[1:]] == ["and on"]
    assert (await second.outcomes())[-2:] == ["denied", "sent"]
    await second.store.close()


class ImpatientRandom(random.Random):
    """Draws no pause, so that a retry follows at once."""

    def random(self) -> float:
        return 0.0


async def test_a_webhook_is_tried_again_and_no_redirect_is_followed():
    """Law: told means 2xx; where a message goes is the operator's decision alone."""
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, (await request.json())["text"]))
        if len(asked) == 1:
            return web.Response(status=503)
        if len(asked) == 2:
            return web.Response(status=302, headers={"Location": "/elsewhere"})
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    notifier = Notifier([WebhookSettings(name="oncall", url=f"http://127.0.0.1:{port}/hook")], ImpatientRandom())
    notifier.notify(Decision("r//0/0", "r", "", Notify("oncall", "warm"), 0, None, ""), Notify("oncall", "warm"))
    task = asyncio.create_task(notifier.run())
    async with asyncio.timeout(20):
        while not notifier.told:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await runner.cleanup()
    assert asked == [("/hook", "warm")] * 3

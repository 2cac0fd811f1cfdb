"""When the disk was lost, a decision that was waiting for it could still go out after the actuator's safe command."""

from __future__ import annotations

import asyncio
import errno

from tests.app.lives import Lives
from tests.app.test_rules_survive_a_kill import HEATER, OFF, ON, THERMOSTAT
from tests.faults import StallingStorage
from tests.scenarios.site import until


async def test_the_last_word_to_an_actuator_is_its_safe_command(tmp_path, clock):
    """Law L10: nothing that was under way when the disk was lost stands behind it."""
    slow = StallingStorage()
    life = Lives(tmp_path, clock, THERMOSTAT)
    try:
        gateway = await life.begin(slow)
        peer = await life.peer(HEATER)
        await life.say(peer, "devices/living/climate", temperature=19)
        clock.advance(2)
        slow.go.clear()
        peer.publish("devices/living/climate", {"temperature": 19})
        await until(lambda: gateway.ingest.received == 2, "a command waits for the disk", 10)
        slow.fail("sync", 1, errno.EIO, times=1_000_000)
        slow.go.set()
        await asyncio.wait_for(gateway.failed.wait(), 10)

        def denied_once_act_within_is_over() -> bool:
            clock.advance(0.05)
            return gateway.dispatcher.commands.get("denied") == 1

        await until(denied_once_act_within_is_over, "it is refused", 10)
        assert not await gateway.drain()
        life.gateway = None
        await until(lambda: len(peer.heard(HEATER)) >= 3, "the safe one, twice", 10)
        assert ON not in peer.heard(HEATER)
        assert peer.heard(HEATER)[-1] == OFF
    finally:
        slow.go.set()
        await life.close()

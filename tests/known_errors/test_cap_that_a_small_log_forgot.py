"""Once the log had evicted the record of an `on`, a restart began its `max_on` anew, or forgot the actuator."""

from __future__ import annotations

import pytest

from gateway.config.settings import LogSettings
from gateway.model import ActuatorLimits, Command
from gateway.rules.actuators import Actuators
from tests.act.test_stage_over_the_real_log import Site

KIB = 1024
SMALL = LogSettings(compress=False, max_size_bytes=256 * KIB, segment_size_bytes=64 * KIB, tip_bytes=16 * KIB)
TOPIC = "devices/a/fan/set"
ON, OFF = Command(TOPIC, b"ON", "on"), Command(TOPIC, b"OFF", "off")
CAPPED = ActuatorLimits(max_on_s=3_600, safe=OFF, off=OFF)


class OnlyByPattern(Actuators):
    """Names no actuator, and knows this one when it is asked."""

    def __init__(self, limits: ActuatorLimits) -> None:
        super().__init__({TOPIC: limits})

    def __iter__(self):
        return iter(())


async def lives(tmp_path, clock, make_batch, actuators, away_s: float) -> Site:
    """One life that switches on and sees telemetry evict that; and the next one."""
    first = Site(tmp_path, clock, actuators, settings=SMALL)
    await first.stage.recover()
    first.decide(ON)
    await first.until_carried_out(1)
    batches = []
    for _ in range(40):
        batches.append(make_batch([bytes(1_000)] * 20))
    await first.go_by(batches)
    assert first.store.events.floor.seq > 2, "what switched on is gone"
    assert first.store.events.appended.seq < 1_000, "what is known was not said anew every time"
    await first.store.close()
    clock.advance(away_s)
    second = Site(tmp_path, clock, actuators, settings=SMALL)
    await second.stage.recover()
    return second


@pytest.mark.parametrize("actuators", [{TOPIC: CAPPED}, OnlyByPattern(CAPPED)], ids=["named", "by a pattern"])
async def test_the_cap_counts_from_the_switching_on_that_is_no_longer_in_the_log(
    tmp_path, clock, make_batch, actuators
):
    """Laws L10, L12: a full ring and a restart give no heater another `max_on`."""
    second = await lives(tmp_path, clock, make_batch, actuators, away_s=3_599)
    assert second.dispatcher.deadline_ns == 3_600 * 10**9
    clock.advance(1)
    await second.until_carried_out(1)
    assert second.published[0][0] == "OFF"
    await second.store.close()


async def test_an_actuator_without_limits_is_still_made_safe(tmp_path, clock, make_batch):
    """Law L10: nobody names it, and it was switched on in a former life."""
    actuators = OnlyByPattern(ActuatorLimits(safe=OFF, off=OFF))
    second = await lives(tmp_path, clock, make_batch, actuators, away_s=5)
    second.dispatcher.make_safe([], second.store.events.elapsed_ns(), "the gateway stops")
    assert [what for what, _ in second.published] == ["OFF"]
    await second.store.close()

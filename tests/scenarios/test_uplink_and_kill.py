"""The promise, end to end, on real processes: an uplink that is away, and a gateway that is killed."""

from __future__ import annotations

import asyncio
import random

from tests.oracle import Judgement, count_acknowledged, identity_errors, judge, read_device_journal
from tests.scenarios.site import Site, until

EVENTS = 20_000
AWAY_S = 10.0
KILLS = 10
SINK_WINDOW = 2_000
DEVICE_WINDOW = 50 * 20
"""Fifty devices, each with at most twenty publishes under way."""


async def settle(site: Site) -> None:
    """Stop the devices, and wait until upstream has everything that the gateway holds."""
    await asyncio.to_thread(site.devices.stop)
    await site.upstream.down()
    await site.upstream.up()
    seen = -1
    while seen != len(site.upstream.arrivals):  # behind a broker the last ones may still be on their way in
        seen = len(site.upstream.arrivals)
        await until(site.gateway.is_drained, "everything is forwarded")
        await asyncio.sleep(0.5)


def hold_against(site: Site) -> Judgement:
    """What upstream has seen, against what the devices know."""
    return judge(*read_device_journal(site.devices.journal), site.upstream.arrivals)


async def test_an_uplink_that_is_away_for_ten_seconds_loses_and_reorders_nothing(site):
    """Laws L1, L3, L4, L7: 20,000 events arrive meanwhile; all come, once each but for one window, in order."""
    await site.upstream.up()
    await site.gateway.start()
    site.devices.start()
    await until(lambda: site.upstream.arrivals, "events flow")
    before = count_acknowledged(site.devices.journal)
    away_until_s = asyncio.get_running_loop().time() + AWAY_S
    await site.upstream.down()
    await until(
        lambda: (
            count_acknowledged(site.devices.journal) - before >= EVENTS
            and asyncio.get_running_loop().time() >= away_until_s
        ),
        "20,000 events arrive while the uplink is away",
        within_s=180,
    )
    await settle(site)
    found = hold_against(site)
    print(found)
    assert found.acknowledged >= EVENTS
    assert (found.lost, found.phantom, found.disordered) == ([], [], []), str(found)
    assert found.repeats <= SINK_WINDOW, str(found)
    status = await site.gateway.status()
    (sink,) = status["sinks"]
    assert sink["received"] == sink["delivered"] == len(set(site.upstream.ids))
    assert identity_errors({**sink, "dead_lettered": sum(sink["dead_lettered"].values())}) == []
    assert site.gateway.stop() == 0


async def test_ten_kills_lose_nothing_that_was_acknowledged(site, seed):
    """Laws L2, L3, L4: kill -9 at random moments, the uplink away for half of them; ready again within two seconds."""
    rng = random.Random(seed)
    await site.upstream.up()
    await site.gateway.start()
    site.devices.start(rate=20.0)
    await until(lambda: site.upstream.arrivals, "events flow")
    for kill in range(KILLS):
        if kill % 2:
            await site.upstream.down()
        acknowledged = count_acknowledged(site.devices.journal)
        more = rng.randrange(50, 1_500)
        await until(
            lambda wanted=acknowledged + more: count_acknowledged(site.devices.journal) >= wanted, "events flow again"
        )
        site.gateway.kill()
        await site.gateway.start()
        if kill % 2:
            await site.upstream.up()
    await settle(site)
    found = hold_against(site)
    startups_s = [entry["startup_s"] for entry in site.gateway.log_entries("ready")]
    print(found, "start-ups:", startups_s)
    assert len(startups_s) == KILLS + 1
    assert max(startups_s) <= 2.0
    assert (found.lost, found.phantom, found.disordered) == ([], [], []), str(found)
    assert found.repeats <= KILLS * (SINK_WINDOW + DEVICE_WINDOW), str(found)
    assert site.gateway.stop() == 0

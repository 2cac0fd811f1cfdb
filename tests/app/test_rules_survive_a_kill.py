"""Rules and commands over a kill, in virtual time: the real gateway, dropped and begun again on one directory."""

from __future__ import annotations

import pytest

from gateway.model import Emit
from tests.scenarios.site import until

WARM = """
rules:
  - id: warm
    on: devices/{device}/climate
    when: temperature > 30
    for: 4s
    stale_after: 10m
    on_stale: off
    then:
      - emit: {topic: "alerts/{device}", payload: {warm: true}}
      - command: {topic: devices/fan/fan/set, payload: {state: "ON"}, state: "on"}
    finally:
      - command: {topic: devices/fan/fan/set, payload: {state: "OFF"}, state: "off"}
"""
THERMOSTAT = """
thermostats:
  - id: room
    mode: heat
    sensor: {topic: devices/living/climate, field: temperature}
    on_below: 20.5
    off_above: 21.5
    stale_after: 10m
    on_stale: "off"
    actuator: {topic: devices/living/heater/set, "on": {state: "ON"}, "off": {state: "OFF"}}
"""
FOR_NS = 4_000_000_000
FAN, HEATER = "devices/fan/fan/set", "devices/living/heater/set"
ON, OFF = {"state": "ON"}, {"state": "OFF"}


def fired(life) -> list[int]:
    """When `warm` emitted its event, on the log's clock: what it says again at each start is no firing."""
    return [decision.elapsed_ns for decision in life.decisions("warm") if isinstance(decision.action, Emit)]


async def until_heating(life, clock, peer) -> None:
    """Its first decision is off, whatever it reads; a second later it may heat."""
    await life.say(peer, "devices/living/climate", temperature=19)
    clock.advance(2)
    await life.say(peer, "devices/living/climate", temperature=19)
    await until(lambda: peer.heard(HEATER)[-1:] == [ON], "the heater goes on", 6)


@pytest.mark.parametrize("away_s", [0, 1, 3.5, 4, 60])
async def test_a_rule_that_was_pending_at_the_kill_fires_once_and_at_its_own_time(lives, clock, away_s):
    """Law L12: `for: 4s` ends four seconds after its event, whoever was away meanwhile; not early, and not twice."""
    life = lives(WARM)
    gateway = await life.begin()
    peer = await life.peer()
    clock.advance(1)
    due_ns = gateway.store.events.elapsed_ns() + FOR_NS
    await life.say(peer, "devices/a/climate", temperature=31)
    await life.drop()
    clock.advance(away_s)
    await life.begin()
    peer = await life.peer()
    if away_s < 4:
        clock.advance(4 - away_s - 0.001)
        await life.say(peer, "devices/b/climate", temperature=5)
        assert fired(life) == []
        clock.advance(0.001)
    await life.say(peer, "devices/b/climate", temperature=5)
    await until(lambda: fired(life) == [due_ns], "it fires once, at its time", 6)
    for _ in range(2):
        await life.drop()
        clock.advance(10)
        await life.begin()
        peer = await life.peer()
        await life.say(peer, "devices/b/climate", temperature=5)
    assert fired(life) == [due_ns]


async def test_what_a_restart_takes_up_is_what_running_on_would_have_left(lives, clock, tmp_path):
    """Law L12: the same events, with and without kills between them, give the same decisions."""
    decided = []
    for kills in (False, True):
        life = lives(WARM)
        life.home = tmp_path / f"kills-{kills}"
        await life.begin()
        peer = await life.peer()
        for temperature in (31, 32, 20, 31, 31, 31, 31, 20):
            clock.advance(1.5)
            await life.say(peer, "devices/a/climate", temperature=temperature)
            if kills:
                await life.drop()
                await life.begin()
                peer = await life.peer()
        clock.advance(1)
        await life.say(peer, "devices/b/climate", temperature=0)
        await life.gateway.store.committer.flush()
        decided.append([(each.elapsed_ns, each.action) for each in life.decisions("warm") if "/start-" not in each.id])
        await life.drop()
    running_on, killed = decided
    assert len(running_on) == 3
    assert killed == running_on


async def test_a_decision_that_was_recorded_and_not_carried_out_is_carried_out_after_the_restart(lives, clock):
    """Law L12: neither lost nor repeated."""
    life = lives(WARM)
    gateway = await life.begin()
    (act,) = [task for task in gateway._stage_tasks if task.get_name() == "gateway.act"]
    act.cancel()
    peer = await life.peer()
    await life.say(peer, "devices/a/climate", temperature=31)
    clock.advance(4)
    await life.say(peer, "devices/a/climate", temperature=31)
    await until(lambda: fired(life), "it is recorded", 6)
    (decision,) = [each for each in life.decisions("warm") if getattr(each.action, "state", None) == "on"]
    assert life.ends_of(decision) == []
    await life.drop()
    for _ in range(2):
        clock.advance(2)
        await life.begin()
        peer = await life.peer(FAN)
        await until(lambda heard=peer: ON in heard.heard(FAN), "the fan is turned on", 6)
        await life.gateway.store.committer.flush()
        assert life.ends_of(decision) == ["sent"]
        await life.drop()


async def test_a_thermostat_asserts_what_it_wants_after_a_restart(lives, clock):
    """Law L10: whoever subscribes afterwards hears it, since no device is back yet when the gateway begins."""
    life = lives(THERMOSTAT)
    await life.begin()
    peer = await life.peer(HEATER)
    await until_heating(life, clock, peer)
    await life.drop()
    clock.advance(5)
    await life.begin()
    heater = await life.peer(HEATER)
    await until(lambda: heater.heard(HEATER)[-1:] == [ON], "it is told again", 6)
    await life.drop()
    clock.advance(3_600)
    await life.begin()
    heater = await life.peer(HEATER)
    await until(lambda: heater.heard(HEATER)[-1:] == [OFF], "off, since nothing was heard of the room for an hour", 5)


async def test_a_clean_stop_leaves_the_heater_off_and_the_next_start_turns_it_on_again(lives, clock):
    """Law L10: safe while nobody watches, as wanted when somebody does."""
    life = lives(THERMOSTAT)
    gateway = await life.begin()
    peer = await life.peer(HEATER)
    await until_heating(life, clock, peer)
    assert await gateway.drain()
    life.gateway = None
    await until(lambda: peer.heard(HEATER)[-1:] == [OFF], "and off at the end", 6)
    clock.advance(5)
    await life.begin()
    heater = await life.peer(HEATER)
    await until(lambda: heater.heard(HEATER)[-1:] == [ON], "and on again", 6)

"""A rule on trial, in the running gateway: it decides, it is recorded, and nothing leaves."""

from __future__ import annotations

from tests.app.test_rules_survive_a_kill import FAN, WARM
from tests.scenarios.site import until

TRIAL = (
    WARM
    + """    shadow: true
  - id: witness
    on: devices/{device}/climate
    when: temperature > 30
    for: 4s
    then: [{publish: {topic: "displays/{device}", payload: {warm: true}}}]
"""
)


async def test_a_rule_on_trial_is_recorded_and_moves_nothing(lives, clock):
    """The derived event is not appended, the command is not sent, and a restart does neither."""
    life = lives(TRIAL)
    gateway = await life.begin()
    peer = await life.peer(FAN, "displays/a")
    for _ in range(2):
        await life.say(peer, "devices/a/climate", temperature=31)
        clock.advance(5)
    await until(lambda: peer.heard("displays/a"), "the other rule has fired", 10)
    await gateway.store.committer.flush()
    tried = life.decisions("warm")
    assert [decision.shadow for decision in tried] == [True, True]
    assert gateway.journal.derived == 0
    await life.drop()
    await life.begin()
    peer = await life.peer(FAN)
    await life.say(peer, "devices/b/climate", temperature=1)
    assert peer.heard(FAN) == []
    assert [end for decision in tried for end in life.ends_of(decision)] == []

"""Rules are read anew while the gateway runs: all or nothing, and what stays the same goes on undisturbed."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.error
import urllib.request

import msgspec

from gateway.model import Kind, Marker
from gateway.ringlog import inspect
from tests.app import test_process_ends_and_refusals
from tests.app.test_rules_survive_a_kill import FAN, OFF, ON, WARM, fired
from tests.scenarios.site import until

CLIMATE = "devices/a/climate"
gateway = test_process_ends_and_refusals.gateway
"""A process of its own."""
OTHER = """
  - id: other
    on: devices/{device}/power
    when: watts > 10
    then: [{notify: {to: x, text: y}}]
"""


def rewrite(life, text: str) -> None:
    """Edit the rules of a gateway that runs."""
    life._rules.write_text(text)


def ask(life, what: str = "reload", body: bytes = b"{}") -> tuple[int, dict]:
    """POST to the running gateway."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{life.gateway.web.port}/api/v1/rules/{what}",
        data=body,
        headers={"Content-Type": "application/json", "X-Gateway-Request": "1"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


async def begin(life):
    """A life whose settings name its rule file."""
    return await life.begin(rules=(life._rules,))


async def test_a_rule_that_stays_the_same_keeps_its_timer(lives, clock):
    """Law L12, R11: `for: 4s` that began before the reload ends four seconds after its event."""
    life = lives(WARM)
    gateway = await begin(life)
    peer = await life.peer()
    began_ns = gateway.store.events.elapsed_ns()
    await life.say(peer, CLIMATE, temperature=31)
    clock.advance(2)
    rewrite(life, WARM + OTHER)
    assert await gateway.rulebook.reload() == []
    assert [rule.id for rule in gateway.rulebook.rules.rules] == ["warm", "other"]
    clock.advance(3)
    await life.say(peer, CLIMATE, temperature=31)
    await until(lambda: fired(life), "it fires", 10)
    assert fired(life) == [began_ns + 4_000_000_000]


async def test_a_rule_that_goes_switches_off_what_it_had_switched_on(lives, clock):
    """Law L10: nobody is left who would."""
    life = lives(WARM)
    gateway = await begin(life)
    peer = await life.peer(FAN)
    await life.say(peer, CLIMATE, temperature=31)
    clock.advance(5)
    await life.say(peer, CLIMATE, temperature=31)
    await until(lambda: peer.heard(FAN)[-1:] == [ON], "the fan is on", 10)
    rewrite(life, "rules:" + OTHER)
    dropped = await gateway.rulebook.reload()
    assert dropped == ["warm: its state is dropped, there is no such rule any more"]
    await until(lambda: peer.heard(FAN)[-1:] == [OFF], "the fan is off", 10)


async def test_one_problem_changes_nothing(lives, clock):
    """R11: all or nothing; the caller is told every problem with its place."""
    life = lives(WARM)
    gateway = await begin(life)
    before = gateway.rules.engine
    rewrite(life, WARM + OTHER.replace("when:", "wen:"))
    code, answer = await asyncio.to_thread(ask, life)
    assert code == 422
    assert "unknown key `wen`" in answer["problems"][0]
    assert gateway.rules.engine is before
    rewrite(life, WARM + OTHER)
    assert await asyncio.to_thread(ask, life) == (200, {"dropped": []})
    assert len(gateway.rulebook.rules.rules) == 2


async def test_the_log_says_which_rules_decided_from_where_on(lives, tmp_path):
    """Law L12: a replay knows what a life knew."""
    life = lives(WARM)
    gateway = await begin(life)
    rewrite(life, WARM + OTHER)
    await gateway.rulebook.reload()
    await gateway.store.committer.flush()
    payloads = [
        payload
        for batch in inspect.scan_log(tmp_path / "data", "events")
        if getattr(batch, "kind", None) is Kind.DECISIONS
        for topic, payload in zip(batch.topics, batch.payloads, strict=True)
        if topic == "$gateway/markers"
    ]
    markers = [msgspec.json.decode(payload, type=Marker) for payload in payloads]
    assert [(marker.what, sorted(marker.rules)) for marker in markers] == [
        ("started", ["warm"]),
        ("reloaded", ["other", "warm"]),
    ]


async def test_a_hangup_reads_the_rules_anew(gateway):
    """The signal that operators and systemd know."""
    await gateway.start()
    rules = gateway.home / "rules.yaml"
    rules.write_text(rules.read_text() + "rules:" + OTHER)
    gateway.process.send_signal(signal.SIGHUP)

    await until(lambda: gateway.log_entries("rules_reloaded"), "it says so", 20)
    (told,) = gateway.log_entries("rules_reloaded")
    assert (told["rules"], told["dropped"]) == (2, [])
    rules.write_text("rules: [}")
    gateway.process.send_signal(signal.SIGHUP)
    await until(lambda: gateway.log_entries("rules_refused"), "it says so", 20)
    assert gateway.stop() == 0


async def test_an_operator_sets_a_variable_by_way_of_the_log(lives, clock):
    """Law L12: what was set by hand survives a kill, and rules see it with the next look."""
    life = lives("""
rules:
  - id: party
    on: devices/{device}/climate
    when: default(var("party"), false) and temperature > 20
    then: [{publish: {topic: "displays/{device}", payload: {party: true}}}]
""")
    await begin(life)
    for body, code in ((b'{"party": true}', 200), (b'{"no spaces": 1}', 400), (b"[]", 400)):
        assert (await asyncio.to_thread(ask, life, "variables", body))[0] == code
    await life.drop()
    await begin(life)
    peer = await life.peer("displays/a")
    await life.say(peer, CLIMATE, temperature=21)
    await until(lambda: peer.heard("displays/a") == [{"party": True}], "the rule has seen it", 10)

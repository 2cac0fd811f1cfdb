"""Actuators that only a pattern names: each is held to its limits and made safe, in this life and in the next ones."""

from __future__ import annotations

import random

import pytest

from gateway.act.interlock import Allow, Interlock
from gateway.act.records import decode_all, encode_standings
from gateway.model import ActuatorLimits, Command, Expect
from tests.act.house import S, rules_from, stamp_at
from tests.act.lives import Lives
from tests.crash.figures import keep, share

FANS = """
rules:
  - id: fans
    on: devices/{device}/climate
    when: humidity > 70
    stale_after: 10m
    on_stale: "off"
    then: [{command: {topic: "devices/{device}/fan/set", payload: '"ON"', state: "on"LIMITS}}]
    finally: [{command: {topic: "devices/{device}/fan/set", payload: '"OFF"', state: "off"EXPECT}}]
"""
MAX_ON_S, MIN_OFF_S = 600, 30
EXPECT = ', expect: {topic: "devices/{device}/fan/state", where: value == wanted, within: 5s, retries: 3}'
LIMITS = f", max_on: {MAX_ON_S}s, min_off: {MIN_OFF_S}s"


def fan(device: str, state: str, *, answers: bool = True) -> Command:
    """What a rule sends to one fan."""
    expect = Expect(f"devices/{device}/fan/state", "value == wanted", 5.0, 3) if answers else None
    return Command(f"devices/{device}/fan/set", f'"{state}"'.encode(), state.lower(), expect)


@pytest.fixture
def begin(tmp_path):
    """`begin(limits, expect)` gives a first life under the rule above."""

    def build(limits: str = "", expect: str = "") -> Lives:
        source = FANS.replace("LIMITS", limits).replace("EXPECT", expect)
        return Lives(rules_from(tmp_path, source).actuators)

    return build


def restart(life: Lives) -> None:
    """A kill, and another life on what the cursor holds and the log has not evicted."""
    life.commit()
    life.floor = life.cursor
    life.now_s += 5
    life.begin()


@pytest.mark.parametrize("says_anew", [False, True])
@pytest.mark.parametrize("limits", ["", LIMITS], ids=["no limits", "limits"])
def test_a_later_life_makes_safe_what_a_former_one_switched_on(begin, limits, says_anew):
    """Law L10: nobody names these topics but the log; what was switched off and said so is not asked for."""
    life = begin(limits)
    life.decide(fan("a", "ON"))
    life.decide(fan("b", "ON"))
    life.decide(fan("c", "ON"))
    life.report("ON", "devices/a/fan/state")
    life.advance(MIN_OFF_S)
    life.decide(fan("b", "OFF"))
    life.report("OFF", "devices/b/fan/state")
    life.decide(fan("c", "OFF"))  # and no answer
    life.advance(25)
    for _ in range(3):
        if says_anew:
            life.say_anew()
        restart(life)
    before = len(life.topics)
    life.dispatcher.make_safe([], life.now_ns, "the gateway stops")
    told = set(life.topics[before:])
    assert {"devices/a/fan/set", "devices/c/fan/set"} <= told <= {f"devices/{name}/fan/set" for name in "abc"}
    assert {state for _, state in life.sent[before:]} == {"off"}


def test_the_rule_files_payload_is_what_makes_safe(begin):
    """It is rendered from the levels of the topic, without any event."""
    life = begin()
    life.decide(fan("a", "ON"))
    assert life.interlock.safe_commands() == [fan("a", "OFF", answers=False)]


def test_what_was_said_anew_tells_the_same_as_the_records_in_its_place(begin):
    """Law L12: written out and read back, a standing gives another interlock the same answers."""
    life = begin(LIMITS, EXPECT)
    life.decide(fan("a", "ON"))
    life.decide(fan("d", "ON"))
    life.advance(100)
    life.decide(fan("b", "ON"))
    life.decide(fan("b", "OFF"))
    life.report("OFF", "devices/b/fan/state")
    life.decide(fan("c", "ON"))
    life.advance(MAX_ON_S - 70)  # the cap has told `a` and `d` to go off, and nobody has answered
    life.decide(fan("b", "ON"))
    life.decide(fan("b", "OFF"))  # nor has anybody yet
    life.decide(fan("d", "OFF"))
    life.report("OFF", "devices/d/fan/state")
    (batch,) = encode_standings(life.interlock.standings(), stamp_at(life.now_ns))
    batch.seq = 1_000
    other = Interlock(life.limits, max_age_s=60)
    for seq, standing in decode_all(batch):
        other.adopt(standing, seq)
    assert other.states() == life.interlock.states()
    assert other.safe_commands() == life.interlock.safe_commands()
    assert other.oldest_seq(life.now_ns) == 1_000
    told = []
    for second in range(0, 1_000, 7):
        now_ns = life.now_ns + second * S
        commands = life.interlock.tick(now_ns)
        assert other.tick(now_ns) == commands
        told += [command.topic.split("/")[1] for command in commands]
        for device in "abcd":
            on = fan(device, "ON")
            assert other.judge(on, now_ns, now_ns) == life.interlock.judge(on, now_ns, now_ns)
        if second == 21:
            for gate in (other, life.interlock):
                gate.doubt(fan("b", "OFF"))
    assert set(told) == {"a", "b", "c"}


def test_the_cursor_follows_what_was_said_anew(begin):
    """However long something has been on, a restart reads from the latest standing."""
    life = begin(LIMITS)
    life.decide(fan("a", "ON", answers=False))
    life.commit()
    assert life.cursor == 0
    life.say_anew()
    life.commit()
    assert life.cursor == len(life.log) - 1
    life.decide(fan("a", "OFF", answers=False))
    life.advance(3_600)
    life.decide(fan("a", "OFF", answers=False))
    life.commit()
    assert life.cursor > 0


def test_what_was_switched_on_while_a_standing_was_not_yet_durable_rests_upon_its_own_record(begin):
    """Law L12: the standing does not know of it."""
    life = begin(LIMITS)
    life.decide(fan("a", "ON", answers=False))
    life.decide(fan("b", "ON", answers=False))
    life.decide(fan("b", "OFF", answers=False))
    life.say_anew()
    life.advance(MIN_OFF_S)
    again = life.decide(fan("b", "ON", answers=False))
    restart(life)
    life.advance(MAX_ON_S - MIN_OFF_S - 5)
    assert (life.topics[-1], life.sent[-1]) == ("devices/a/fan/set", (MAX_ON_S, "off"))
    life.advance(MIN_OFF_S)
    assert (life.topics[-1], life.sent[-1][1]) == ("devices/b/fan/set", "off")
    assert life.now_ns - again.elapsed_ns == MAX_ON_S * S


class TestWhenThereAreVeryMany:
    """Topics come from devices: whoever invents names must not fill the memory, and nothing that counts is lost."""

    LIMITS = ActuatorLimits(min_off_s=30, max_on_s=600, safe=Command("?", b"OFF", "off"))

    def gate(self, named=()) -> Interlock:
        """Knows ten actuators, or more where they count."""

        class Everything(dict):
            def __missing__(self, topic):
                return TestWhenThereAreVeryMany.LIMITS

            def get(self, topic, default=None):
                return self[topic]

        return Interlock(Everything(dict.fromkeys(named, self.LIMITS)), max_age_s=60, most_known=10)

    def test_those_at_rest_are_forgotten(self):
        """Off, rested, and left alone for a minute."""
        gate = self.gate()
        for number in range(1_000):
            gate.note(Command(f"fan/{number}", b"ON", "on"), number * 10 * S, number)
            gate.note(Command(f"fan/{number}", b"OFF", "off"), number * 10 * S + S, number)
        assert len(gate.states()) <= 10
        assert gate.states()["fan/999"] == "off"

    def test_those_that_are_on_are_kept_however_many(self):
        """Their caps and their safe commands count."""
        gate = self.gate()
        for number in range(1_000):
            gate.note(Command(f"fan/{number}", b"ON", "on"), number * S // 10, number)
        assert len(gate.states()) == 1_000
        assert len(gate.safe_commands()) == 1_000
        assert len(gate.tick(600 * S)) == 1, "each at its own time"
        assert len(gate.tick(650 * S)) == 500

    def test_those_that_are_named_are_kept(self):
        """The rules say that there are so many."""
        named = [f"heater/{number}" for number in range(20)]
        gate = self.gate(named)
        gate.tick(0)
        for number in range(100):
            gate.note(Command(f"fan/{number}", b"OFF", "off"), number * 100 * S, number)
        assert set(named) <= set(gate.states())


def test_random_lives_of_many_fans_keep_every_limit(begin, seed):
    """R3: whatever rules say and whatever crashes, no fan that obeys is on past its cap nor starts before its rest."""
    rng = random.Random(seed)
    crashes, lives = 0, share(20, 500)
    for _ in range(lives):
        life = begin(LIMITS)
        relays = dict.fromkeys("abcde", ("off", -1000000000.0))
        heard = 0
        for _ in range(200):
            life.advance(rng.choice([1, 5, 30]))
            device = rng.choice("abcde")
            life.decide(fan(device, rng.choice(["ON", "ON", "ON", "OFF"]), answers=rng.random() < 0.7))
            chance = rng.random()
            if chance < 0.15:
                life.say_anew()
            elif chance < 0.4:
                life.commit()
                life.floor = rng.choice([life.floor, life.cursor])
            elif chance < 0.5:
                life.crash(rng)
                crashes += 1
                life.now_s += rng.choice([0, 1, 20, 700])
                life.begin()
                life.advance(1)
            for topic, (at_s, state) in zip(life.topics[heard:], life.sent[heard:], strict=True):
                name = topic.split("/")[1]
                was, since_s = relays[name]
                if state != was:
                    assert state == "off" or at_s - since_s >= MIN_OFF_S, f"started after {at_s - since_s:g} s"
                    relays[name] = state, at_s
            heard = len(life.sent)
            for name, (state, since_s) in relays.items():
                assert state == "off" or life.now_s - since_s <= MAX_ON_S, f"on for {life.now_s - since_s:g} s"
                if rng.random() < 0.3:
                    life.report(state.upper(), f"devices/{name}/fan/state")
    done = f"{lives:,} lives of 5 fans, {crashes:,} crashes"
    keep("R3", "fans that a pattern names, killed at random", done, "0 s past max_on, 0 starts early", seed=seed)


def test_a_stranger_passes_the_gate(begin):
    """What no rule names and no pattern matches is held to age and rate alone."""
    life = begin(LIMITS)
    assert life.interlock.judge(Command("lamp/set", b"ON", "on"), 0, 0) == Allow()

"""What the interlock knows survives a restart: rebuilt from the log, from no further back than it has to."""

from __future__ import annotations

import random

import pytest

from gateway.act.dispatch import SAFE
from gateway.act.interlock import REPEAT_S
from gateway.model import ActuatorLimits, Command, Decision
from tests.act.lives import HEATER, TELL, Lives, command
from tests.crash.figures import keep, share

MAX_ON_S, MIN_OFF_S = 3_600, 180
LIMITS = ActuatorLimits(min_off_s=MIN_OFF_S, max_on_s=MAX_ON_S, safe=command("OFF"), off=command("OFF"))
ON, OFF = command("ON"), command("OFF")


@pytest.fixture
def life() -> Lives:
    """A heater with a cap and a rest."""
    return Lives(LIMITS)


def restart(life: Lives, away_s: float = 5.0) -> None:
    """A kill, a while, and another life."""
    life.commit()
    life.crash()
    life.now_s += away_s
    life.begin()


def obey(life: Lives, wanted) -> Decision:
    """Decide, and let the device confirm it."""
    decision = life.decide(wanted)
    life.report(wanted.payload.decode().strip('"'))
    return decision


def test_the_cap_counts_through_a_restart(life):
    """Laws L10, L12: a heater is on for `max_on` at most, however often the gateway begins anew meanwhile."""
    obey(life, ON)
    for _ in range(5):
        life.advance(600)
        restart(life, away_s=60)
        life.decide(ON)  # what every rule says again at the start
        life.report("ON")
    life.advance(MAX_ON_S - life.now_s - 1)
    assert life.sent[-1][1] == "on"
    life.advance(1)
    assert life.sent[-1] == (MAX_ON_S, "off")


def test_what_was_past_its_cap_while_nobody_was_there_is_switched_off_at_once(life):
    """Law L10: time without a gateway counts as well."""
    obey(life, ON)
    life.advance(60)
    restart(life, away_s=10 * MAX_ON_S)
    assert life.sent[-1][1] == "on"
    life.advance(1)
    assert life.sent[-1] == (life.now_s, "off")


@pytest.mark.parametrize("away_s", [1, 100, MIN_OFF_S - 1])
def test_what_has_not_rested_is_not_started_by_a_restart(life, away_s):
    """Law L12: `min_off` protects a compressor from a gateway that restarts as from one that does not."""
    obey(life, ON)
    life.advance(10)
    obey(life, OFF)
    off_s = life.now_s
    restart(life, away_s)
    early = life.decide(ON)
    assert (life.end_of(early), life.sent[-1]) == (["denied"], (off_s, "off"))
    life.advance(off_s + MIN_OFF_S - life.now_s)
    life.decide(ON)
    assert life.sent[-1] == (off_s + MIN_OFF_S, "on")


def test_the_rest_counts_from_the_safe_command_of_a_clean_stop(life):
    """Law L12: what makes safe is in the log, with its end; the next life neither repeats nor forgets it."""
    obey(life, ON)
    life.advance(10)
    life.dispatcher.make_safe([], life.now_ns, "the gateway stops")
    (safe,) = [record for record, _, _ in life.log if isinstance(record, Decision) and record.rule == SAFE]
    assert life.end_of(safe) == ["sent"]
    restart(life, away_s=5)
    assert [state for _, state in life.sent] == ["on", "off"]
    assert life.end_of(life.decide(ON)) == ["denied"]


def test_a_safe_command_that_nobody_confirmed_leaves_the_cap_running(life):
    """Never optimistic: the device may have been away when the gateway stopped."""
    obey(life, ON)
    life.advance(100)
    life.dispatcher.make_safe([], life.now_ns, "the gateway stops")
    restart(life)
    life.decide(OFF)
    life.advance(20)  # no answer
    life.advance(MAX_ON_S - life.now_s - 1)
    tries = len(life.sent)
    life.advance(1)
    assert len(life.sent) == tries + 1


def test_a_safe_command_that_the_running_stage_reads_back_is_not_sent_twice(life):
    """When the disk is lost the stage still runs, and reads what was recorded beside the safe command."""
    life.decide(ON)
    life.dispatcher.make_safe([], life.now_ns, "the disk is lost")
    life.read()
    assert [state for _, state in life.sent] == ["on", "off"]


def test_after_the_safe_command_nothing_is_switched_on(life):
    """Law L10: neither a new `on` nor another try of an old one; `off` still passes."""
    life.dispatcher.make_safe([], life.now_ns, "the gateway stops")
    late = life.decide(ON)
    life.advance(60)
    off = obey(life, OFF)
    assert [state for _, state in life.sent] == ["off", "off"]
    assert (life.end_of(late), life.end_of(off)) == (["denied"], ["confirmed"])


def test_nothing_else_has_to_stand_in_the_way_of_an_on_after_the_safe_command():
    """Law L10: neither a rest nor a rate, and whatever its state is called: the gate is closed."""
    life = Lives(ActuatorLimits(safe=OFF))
    life.dispatcher.make_safe([], life.now_ns, "the disk is lost")
    life.advance(120)
    refused = [life.decide(ON), life.decide(Command(HEATER, b"70 %"))]
    assert [life.end_of(each) for each in refused] == [["denied"], ["denied"]]
    assert [state for _, state in life.sent] == ["off"]
    said = [record.detail for record, _, _ in life.log if getattr(record, "state", "") == "denied"]
    assert said == ["actuators have been made safe: the disk is lost"] * 2


def test_what_has_no_safe_state_is_at_least_not_told_again_to_go_on():
    """Law L10: `on_stale: hold` leaves it as it is; saying `on` again would not."""
    life = Lives(ActuatorLimits(max_on_s=MAX_ON_S, off=OFF))
    life.decide(ON)
    life.dispatcher.make_safe([], life.now_ns, "the disk is lost")
    life.advance(60)
    assert [state for _, state in life.sent] == ["on"]


@pytest.mark.parametrize("was_read_again", [False, True])
def test_an_on_that_no_life_recorded_as_ended_counts_as_on(life, was_read_again):
    """Never optimistic: it may have been sent before the crash; the later life only says that it is too old by now."""
    life.decide(ON)
    for _ in range(2 if was_read_again else 1):
        restart(life, away_s=120)
    assert [state for _, state in life.sent] == ["on"], "expired: it is not said again"
    life.advance(MAX_ON_S - life.now_s - 1)
    assert len(life.sent) == 1
    life.advance(1)
    assert life.sent[-1] == (MAX_ON_S, "off")


def test_an_off_that_no_life_recorded_as_ended_is_not_trusted(life):
    """Never optimistic: the heater may not have heard it."""
    obey(life, ON)
    life.advance(100)
    life.decide(OFF)
    restart(life, away_s=120)
    tries = len(life.sent)
    life.advance(MAX_ON_S - life.now_s)
    assert life.sent[tries:] == [(MAX_ON_S, "off")]


def test_the_rest_counts_from_the_life_that_said_off_again(life):
    """What was told to go off by two lives may have heard the second: its rest is not counted from the first."""
    obey(life, ON)
    life.advance(10)
    life.decide(OFF)
    restart(life, away_s=50)
    again_s = life.now_s
    life.report("OFF")
    restart(life, away_s=MIN_OFF_S - 10)
    assert life.end_of(life.decide(ON)) == ["denied"]
    life.advance(again_s + MIN_OFF_S - life.now_s)
    life.decide(ON)
    assert life.sent[-1] == (again_s + MIN_OFF_S, "on")


def test_the_rest_counts_from_the_last_moment_at_which_a_life_without_a_trace_may_have_said_off(life):
    """A life that ended before it could record anything may have sent what was young enough."""
    obey(life, ON)
    life.advance(10)
    life.decide(OFF)
    said_s = life.now_s
    for _ in range(2):  # the second crash leaves nothing of what the life between had done
        restart(life, away_s=50)
    assert life.sent[-1] == (said_s + 50, "off")
    life.advance(said_s + 60 + MIN_OFF_S - 1 - life.now_s)
    assert life.end_of(life.decide(ON)) == ["denied"]
    life.advance(1)
    life.decide(ON)
    assert life.sent[-1][1] == "on"


def test_an_actuator_that_never_answered_is_past_its_cap_a_restart_later_too(life):
    """Never optimistic: what nobody knows of counts as on from the first look, and a restart is no new first look."""
    life.advance(1)
    life.decide(OFF)
    life.advance(100)
    restart(life)
    life.advance(MAX_ON_S - life.now_s)
    tries = len(life.sent)
    life.advance(1)
    assert life.sent[tries:] == [(MAX_ON_S + 1, "off")]


def test_an_on_that_was_held_back_before_the_crash_does_not_pass_as_said_again(life):
    """What the gate denied was never sent, also if the crash came before the denial was on disk."""
    obey(life, OFF)
    early = life.decide(ON)
    life.log = [each for each in life.log if getattr(each[0], "decision_id", "") != early.id]
    life.now_s += 1
    life.begin()
    assert life.end_of(early) == ["denied"]
    assert [state for _, state in life.sent] == ["off"]


@pytest.mark.parametrize(("first", "last"), [(ON, OFF), (OFF, ON)])
def test_a_restart_repeats_the_last_word_and_not_the_whole_conversation(first, last):
    """No relay clicks because nobody had recorded yet that the former word was overtaken."""
    life = Lives(ActuatorLimits(min_off_s=1, max_on_s=MAX_ON_S, off=OFF))
    overtaken = life.decide(first)
    life.advance(2)
    open_still = life.decide(last)
    life.log = [each for each in life.log if isinstance(each[0], Decision)]
    before = len(life.sent)
    life.begin()
    assert [state for _, state in life.sent[before:]] == [last.state]
    assert (life.end_of(overtaken), life.end_of(open_still)) == (["superseded"], [])


def test_an_off_is_said_again_if_the_on_after_it_does_not_pass(life):
    """The last word that was allowed counts."""
    obey(life, ON)
    off, on = life.decide(OFF), life.decide(ON)
    life.log = [each for each in life.log if isinstance(each[0], Decision)]
    before = len(life.sent)
    life.begin()
    assert [state for _, state in life.sent[before:]] == ["off"]
    assert (life.end_of(off), life.end_of(on)) == ([], ["denied"])


def test_people_are_told_once_of_a_heater_that_ignores_everything_and_not_once_in_each_life(life):
    """Nobody is woken by a restart for what they know."""
    obey(life, ON)
    life.advance(MAX_ON_S + 25)
    assert life.told == [TELL.text]
    for _ in range(3):
        restart(life, away_s=10)
        tries = len(life.sent)
        life.advance(2 * REPEAT_S + 30)
        assert len(life.sent) > tries + 4, "and told it is, again and again"
    assert life.told == [TELL.text]


def test_an_off_that_a_newer_on_overtook_may_never_have_been_heard():
    """Never optimistic: without a confirmed `off` between them, two times on are one."""
    life = Lives(ActuatorLimits(min_off_s=1, max_on_s=MAX_ON_S, off=OFF))
    obey(life, ON)
    life.advance(1_000)
    life.decide(OFF)
    life.advance(2)
    obey(life, ON)
    life.advance(MAX_ON_S - life.now_s)
    assert life.sent[-1] == (MAX_ON_S, "off")


class TestHowFarBackARestartReads:
    """The cursor holds back what the interlock counts from, and nothing else."""

    def test_it_reads_from_the_switching_on_of_what_is_on(self, life):
        """And no further."""
        obey(life, OFF)
        life.advance(MIN_OFF_S)
        on = obey(life, ON)
        life.decide(ON)
        life.commit()
        assert life.log[life.cursor][0] == on

    def test_it_reads_from_the_switching_off_of_what_has_not_rested(self, life):
        """However often it has been told since."""
        obey(life, ON)
        off = obey(life, OFF)
        life.advance(MIN_OFF_S - 2)
        obey(life, OFF)
        life.commit()
        assert life.log[life.cursor][0] == off

    def test_it_reads_from_the_latest_telling_of_what_was_off_and_rested_by_then(self, life):
        """So that an idle house restarts at once, and still knows that it has rested."""
        obey(life, ON)
        for _ in range(20):
            latest = obey(life, OFF)
            life.advance(600)
        life.commit()
        assert life.log[life.cursor][0] == latest
        obey(life, OFF)
        restart(life)
        obey(life, OFF)
        assert life.end_of(life.decide(ON)) == []
        assert life.sent[-1][1] == "on"

    def test_it_reads_little_for_a_heater_that_has_ignored_everything_for_days(self, life):
        """Past the cap, the last telling says it all: the log of days is not read for it."""
        obey(life, ON)
        life.advance(3 * MAX_ON_S)
        life.commit()
        assert len(life.log) - life.cursor < 20, "four tellings, and what became of them"
        restart(life)
        tries = len(life.sent)
        life.advance(REPEAT_S + 1)
        assert "off" in [state for _, state in life.sent[tries:]]

    def test_it_reads_nothing_for_actuators_without_limits(self):
        """Rate and age need no memory beyond a minute."""
        life = Lives(ActuatorLimits())
        obey(life, ON)
        life.commit()
        assert life.cursor == len(life.log)


def test_lives_that_are_cut_off_at_random_keep_every_limit(seed):
    """Law L12: a relay that obeys is never on past its cap nor starts before its rest, whatever crashes between."""
    rng = random.Random(seed)
    crashes, houses = 0, share(60, 2_000)
    for _ in range(houses):
        rest_s, cap_s = rng.choice([30, 180]), rng.choice([300, 600])
        life = Lives(ActuatorLimits(min_off_s=rest_s, max_on_s=cap_s, safe=OFF, off=OFF))
        relay, since_s, heard = "off", -1e9, 0
        for _ in range(150):
            life.advance(rng.choice([1, 2, 10, 30]))
            if rng.random() < 0.4:
                life.decide(rng.choice([ON, ON, OFF, command("ON", answers=False), command("OFF", answers=False)]))
            if rng.random() < 0.1:
                life.say_anew()
            if rng.random() < 0.3:
                life.commit()
                life.floor = rng.choice([life.floor, life.cursor])
            if rng.random() < 0.15:
                if rng.random() < 0.3:
                    life.dispatcher.make_safe([], life.now_ns, "the gateway stops")
                    life.commit()
                life.crash(rng)
                crashes += 1
                life.now_s += rng.choice([0, 1, 20, 100, 1_000])
                life.begin()
                life.advance(1)
            for at_s, state in life.sent[heard:]:
                if state != relay:
                    assert state == "off" or at_s - since_s >= rest_s, f"started after {at_s - since_s:g} s of rest"
                    relay, since_s = state, at_s
            heard = len(life.sent)
            if rng.random() < 0.5:
                life.report(relay.upper())
            assert relay == "off" or life.now_s - since_s <= cap_s, f"on for {life.now_s - since_s:g} s"
    done = f"{houses:,} houses, {crashes:,} crashes"
    keep("R3", "act killed at random instants", done, "0 s past max_on, 0 starts before min_off", seed=seed)


def test_with_restarts_the_same_goes_out_as_without(seed):
    """Law L12: the same wishes, spoken with and without kills between them, meet the same answers of the gate."""
    rng = random.Random(seed)
    for _ in range(share(40, 1_000)):
        script = [
            (rng.choice([10, 60, 200, 500]), rng.choice([ON, ON, OFF]), rng.random() < 0.3)
            for _ in range(rng.randint(5, 25))
        ]
        answers = []
        for kills in (False, True):
            life = Lives(LIMITS)
            obey(life, OFF)
            ends = []
            for pause_s, wish, is_killed in script:
                life.advance(pause_s, step_s=10)
                for state in {"on": ("ON",), "off": ("OFF",)}[life.sent[-1][1]]:
                    life.report(state)
                if kills and is_killed:
                    restart(life, away_s=0)
                decision = obey(life, wish)
                ends.append((round(life.now_s), life.end_of(decision)))
            answers.append((ends, life.sent, life.interlock.states()[HEATER]))
        assert answers[0] == answers[1]

"""The thermostat's one function, situation by situation. `test_thermostat_against_a_model` lets it live at random."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from gateway.rules.machines.thermostat import RETRY_NS, News, State, Window, begin, decide, refuse
from gateway.rules.thermostat_rule import COOL, HEAT, OFF, Contact, Fall, Limits, Setpoints

S = 1_000_000_000

HEATING = Limits(
    stale_after_ns=60 * S,
    on_stale=OFF,
    base=Setpoints(20.0, 22.0),
    min_on_ns=10 * S,
    min_off_ns=10 * S,
    max_on_ns=50 * S,
    reassert_ns=1_000 * S,
)
COOLING = HEATING._replace(base=Setpoints(None, None, 26.0, 24.0))
BOTH = HEATING._replace(base=Setpoints(20.0, 22.0, 26.0, 24.0))

TABLE = [
    # what, limits, (running, since_s, reading, read_s), reading now, now_s, command
    ("the first call is off, even when cold", HEATING, (None, 0, None, 0), 5.0, 0, OFF),
    ("the first call is off without a reading", HEATING, (None, 0, None, 0), None, 0, OFF),
    ("cold and rested: heat", HEATING, (OFF, 0, 21.0, 0), 19.9, 10, HEAT),
    ("cold, not rested: wait", HEATING, (OFF, 0, 21.0, 0), 19.9, 9.9, None),
    ("the wait is over: heat without a new reading", HEATING, (OFF, 0, 19.9, 5), None, 10, HEAT),
    ("exactly at the threshold: nothing", HEATING, (OFF, 0, 21.0, 0), 20.0, 20, None),
    ("between the thresholds, off stays off", HEATING, (OFF, 0, 19.0, 0), 21.0, 20, None),
    ("between the thresholds, on stays on", HEATING, (HEAT, 0, 19.0, 0), 21.0, 20, None),
    ("warm, run long enough: off", HEATING, (HEAT, 0, 19.0, 0), 22.1, 10, OFF),
    ("warm, not run long enough: wait", HEATING, (HEAT, 0, 19.0, 0), 22.1, 9, None),
    ("silent: off", HEATING, (HEAT, 30, 19.0, 0), None, 60, OFF),
    ("silent within min_on: off all the same", HEATING, (HEAT, 55, 19.0, 0), None, 60, OFF),
    ("almost silent: stay", HEATING, (HEAT, 30, 19.0, 0), None, 59.9, None),
    ("max_on, though cold: off", HEATING, (HEAT, 0, 19.0, 45), 15.0, 50, OFF),
    ("max_on within min_on: off", HEATING._replace(min_on_ns=99 * S), (HEAT, 0, 19.0, 45), 15.0, 50, OFF),
    ("silent, told to hold: stay", HEATING._replace(on_stale="hold"), (HEAT, 30, 19.0, 0), None, 61, None),
    ("silent, told to hold, max_on: off", HEATING._replace(on_stale="hold"), (HEAT, 0, 19.0, 0), None, 61, OFF),
    ("silent, told on: heat", HEATING._replace(on_stale="on"), (OFF, 0, 21.0, 0), None, 60, HEAT),
    ("silent, told on, not rested: wait", HEATING._replace(on_stale="on"), (OFF, 55, 21.0, 0), None, 60, None),
    ("silent, told on, cooling: cool", COOLING._replace(on_stale="on"), (OFF, 0, 21.0, 0), None, 60, COOL),
    ("hot: cool", COOLING, (OFF, 0, 25.0, 0), 26.1, 20, COOL),
    ("cooled: off", COOLING, (COOL, 0, 27.0, 0), 23.9, 20, OFF),
    ("from heat to cool by way of off", BOTH, (HEAT, 0, 19.0, 0), 30.0, 20, OFF),
    ("and then, rested, cool", BOTH, (OFF, 20, 30.0, 20), None, 30, COOL),
    ("from cool to heat by way of off", BOTH, (COOL, 0, 30.0, 0), 10.0, 20, OFF),
    ("both, comfortable: nothing", BOTH, (OFF, 0, 23.0, 0), 23.0, 20, None),
    ("said again after reassert", HEATING._replace(reassert_ns=20 * S), (OFF, 0, 21.0, 0), None, 20, OFF),
]


@pytest.mark.parametrize(
    ("what", "limits", "before", "reading", "now_s", "command"), TABLE, ids=[row[0] for row in TABLE]
)
def test_thermostat(what, limits, before, reading, now_s, command):
    """Each row: one situation and what it calls for."""
    running, since_s, last, read_s = before
    state = State(running, since_s * S, since_s * S, last, read_s * S)
    verdict = decide(limits, state, News(reading), round(now_s * S))
    assert verdict.command == command
    assert verdict.deadline_ns > now_s * S
    assert bool(verdict.because) == (command is not None)


def _random_limits(rng):
    limits = rng.choice([HEATING, COOLING, BOTH])
    stale = ["off", "hold"] if limits is BOTH else ["off", "hold", "on"]
    return limits._replace(
        stale_after_ns=rng.randrange(1, 20) * S,
        on_stale=rng.choice(stale),
        min_on_ns=rng.randrange(10) * S,
        min_off_ns=rng.randrange(1, 10) * S,
        max_on_ns=rng.choice([None, rng.randrange(1, 30) * S]),
        reassert_ns=rng.choice([7, 25, 1_000]) * S,
    )


def _random_sequence(rng, seconds):
    """Readings by second: drifting, jumping, silent, doubled, not a number."""
    value, second = rng.uniform(15, 30), 0
    while second < seconds:
        value = rng.uniform(10, 35) if rng.random() < 0.2 else value + rng.uniform(-2, 2)
        yield second, None if rng.random() < 0.1 else value
        second += rng.choice([0, 1, 1, 2, 3, 5, rng.randrange(40)])


def test_safety_holds_for_every_random_life(seed):
    """Never on longer than max_on (R3), never on a silent sensor (R2), never faster than min_on and min_off (R1)."""
    rng = random.Random(seed)
    for _ in range(1_000):
        limits = _random_limits(rng)._replace(reassert_ns=10**15)
        state, due_ns, heard, switches = State(), 10**30, None, []
        for at, reading in [*_random_sequence(rng, 120), (10_000, None)]:
            looks = []
            while due_ns <= at * S:
                verdict = decide(limits, state, News(), due_ns)
                looks.append((due_ns, verdict))
                state, due_ns = verdict.state, verdict.deadline_ns
            verdict = decide(limits, state, News(reading), at * S)
            looks.append((at * S, verdict))
            state, due_ns = verdict.state, verdict.deadline_ns
            for now_ns, look in looks:
                fresh = at * S if reading is not None and look is verdict else heard
                if look.command in {HEAT, COOL} and limits.on_stale != "on":
                    assert fresh is not None
                    assert now_ns - fresh < limits.stale_after_ns
                if look.command:
                    switches.append((now_ns, look.command, look.because))
            heard = at * S if reading is not None else heard
        for (began, one, _), (ended, other, why) in pairwise(switches):
            if one == OFF:
                assert ended - began >= limits.min_off_ns
            else:
                assert other == OFF
                assert limits.max_on_ns is None or ended - began <= limits.max_on_ns
                assert ended - began >= limits.min_on_ns or "max_on" in why or "silent" in why
        if limits.on_stale == OFF:
            assert state.running == OFF, "ten thousand seconds of silence"


def test_no_bad_reading_breaks_a_silence():
    """L9: a sensor that only sends NaN is a silent sensor: `decide` is called without a reading."""
    state = decide(HEATING, State(OFF, 0, 0, 19.0, 50 * S), News(), 20 * S).state
    assert state.read_ns == 50 * S


CONTACT = Contact("window", for_ns=30 * S, resume_after_ns=120 * S)
AIRED = HEATING._replace(
    contacts=(CONTACT,), stale_after_ns=10_000 * S, max_on_ns=None, min_on_ns=0, reassert_ns=10**15
)


class Hours:
    """Calls `decide` with news, and at every deadline before it. Keeps what was switched when, and the notes."""

    def __init__(self, limits, running=HEAT, reading=19.0):
        self.limits, self.switched, self.notes = limits, [], []
        self.state = begin(limits)._replace(running=running, reading=reading)
        self.due_ns, self.setpoints = 1, None

    def at(self, second, setpoints=None, **news):
        while self.due_ns < second * S:
            self._look(News(setpoints=self.setpoints), self.due_ns)
        self.setpoints = setpoints
        self._look(News(**news, setpoints=setpoints), round(second * S))
        return self

    def refused(self, second, outcome, *, was_on, is_first=True):
        self.at(second)
        verdict = refuse(self.limits, self.state, outcome, was_on=was_on, is_first=is_first, now_ns=round(second * S))
        self._take(verdict, round(second * S))
        return self

    def _look(self, news, now_ns):
        self._take(decide(self.limits, self.state, news, now_ns), now_ns)

    def _take(self, verdict, now_ns):
        assert verdict.deadline_ns > now_ns
        assert bool(verdict.command) == bool(verdict.because)
        self.state, self.due_ns = verdict.state, verdict.deadline_ns
        self.notes += [(now_ns / S, what) for what, _ in verdict.notes]
        if verdict.command:
            self.switched.append((now_ns / S, verdict.command))


def test_a_window_stops_the_heating_once_it_has_been_open_for_long_enough():
    """`for`: a door held open for a moment is nothing; `resume_after`: nor is one held shut for a moment."""
    hours = Hours(AIRED)
    hours.at(10, window=(0, True)).at(39, window=(0, False)).at(50, window=(0, True)).at(500)
    assert hours.switched == [(80, OFF)]
    hours.at(600, window=(0, False)).at(719, window=(0, True)).at(730, window=(0, False)).at(2_000)
    assert hours.switched == [(80, OFF), (850, HEAT)]


def test_an_open_window_waits_for_min_on():
    """An open window is comfort, and comfort never wears a compressor out."""
    hours = Hours(AIRED._replace(min_on_ns=300 * S)).at(10, window=(0, True)).at(1_000)
    assert hours.switched == [(300, OFF)]
    assert (40, "held") in hours.notes


def test_a_silent_sensor_has_the_word_before_an_open_window_unless_it_holds():
    """L10: `off` and `on` are safe states, `hold` only knows nothing better."""
    limits = AIRED._replace(stale_after_ns=60 * S)
    for on_stale, min_on_s, switched in (
        ("on", 0, [(40, OFF), (60, HEAT)]),
        ("hold", 0, [(40, OFF)]),
        ("hold", 500, [(500, OFF)]),
        ("off", 500, [(60, OFF)]),
    ):
        hours = Hours(limits._replace(on_stale=on_stale, min_on_ns=min_on_s * S)).at(10, window=(0, True)).at(900)
        assert hours.switched == switched


def test_a_silent_window_is_a_closed_one():
    """Unknown counts as closed: a dead battery in a contact leaves nobody in the cold for ever."""
    limits = AIRED._replace(contacts=(CONTACT._replace(stale_after_ns=200 * S),))
    hours = Hours(limits).at(10, window=(0, True)).at(100, window=(0, True)).at(1_000)
    assert hours.switched == [(40, OFF), (100 + 200 + 120, HEAT)]


def test_one_open_window_of_two_is_enough():
    """The last one to be closed lets the heating go on."""
    hours = Hours(AIRED._replace(contacts=(CONTACT, CONTACT._replace(name="other"))))
    hours.at(10, window=(0, True)).at(20, window=(1, True)).at(100, window=(0, False)).at(400, window=(1, False)).at(
        900
    )
    assert hours.switched == [(40, OFF), (520, HEAT)]


FALLING = AIRED._replace(contacts=(), fall=Fall(1.5, within_ns=300 * S, pause_ns=1_200 * S))


def test_a_fast_fall_is_an_open_window():
    """1.5 within five minutes; a further fall begins the pause anew."""
    hours = Hours(FALLING, reading=20.0)
    for second, reading in ((100, 19.9), (200, 19.5), (300, 18.9), (400, 18.4)):
        hours.at(second, reading=reading)
    hours.at(700, reading=16.9).at(3_000)
    assert hours.switched == [(400, OFF), (700 + 1_200, HEAT)]


def test_a_slow_fall_is_the_weather():
    """The highest reading of the last five minutes is what counts, not the highest of all."""
    hours = Hours(FALLING, reading=20.0)
    for minute in range(200):
        hours.at(minute * 60, reading=20 - 0.25 * minute)
    assert hours.switched == []


def test_what_is_remembered_of_a_fall_is_bounded(seed):
    """A sensor may speak a thousand times a second."""
    rng = random.Random(seed)
    state, most = begin(FALLING)._replace(running=HEAT, reading=20.0), 0
    for step in range(20_000):
        reading = 20 - step * 1e-5 + rng.uniform(-1e-5, 1e-5)
        state = decide(FALLING, state, News(reading), step * S // 20).state
        most = max(most, len(state.highs))
    assert 50 <= most <= 62


def test_away_has_its_own_set_points_and_comes_before_the_timetable():
    """Whoever has left is not at home at half past six either."""
    limits = AIRED._replace(away=Setpoints(16, 17, name="away"))
    morning = Setpoints(23, 25, name="06:30")
    hours = Hours(limits, running=OFF, reading=21.0)
    hours.at(100).at(200, morning).at(300, morning, is_away=True).at(400, morning, is_away=False).at(500)
    assert hours.switched == [(200, HEAT), (300, OFF), (400, HEAT)]
    told = [note for note in hours.notes if note[1] in {"away", "schedule"}]
    assert told == [(200, "schedule"), (300, "away"), (400, "away"), (500, "schedule")]


def test_a_denied_start_is_not_believed_and_tried_again_with_growing_patience():
    """30 s, 60 s, ... up to `reassert`; the rest counts from the true switching off, not from the refusals."""
    hours = Hours(AIRED._replace(reassert_ns=100 * S, min_off_ns=5 * S), running=OFF).at(6)
    assert hours.switched == [(5, HEAT)]
    assert hours.state.rested_ns == 0
    for on_s, again_s in ((5, 37), (37, 99), (99, 201), (201, 303)):
        hours.refused(on_s + 2, "denied", was_on=True)
        assert (hours.state.running, hours.state.since_ns) == (OFF, 0)
        hours.at(again_s)
        assert [entry for entry in hours.switched if entry[1] == HEAT][-1] == (again_s, HEAT)
    hours.at(1_000, reading=25.0).at(2_000, reading=15.0).refused(2_001, "denied", was_on=True).at(2_031)
    assert hours.switched[-1] == (2_031, HEAT), "a start that succeeded makes it forget"


def test_a_repetition_that_was_denied_ends_in_off_for_safety():
    """Nobody knows then whether it is on: off is sent, and the rest begins now."""
    hours = Hours(AIRED._replace(min_on_ns=500 * S)).refused(100, "denied", was_on=True, is_first=False)
    assert hours.switched == [(100, OFF)]
    assert hours.state.since_ns == 100 * S


def test_what_nobody_confirmed_is_said_again_sooner_than_usual():
    """30 s, then double, up to `reassert`: an `off` that was not heard is not left at that."""
    hours = Hours(AIRED._replace(reassert_ns=100 * S), running=OFF, reading=21.0)
    for said_s, again_s in ((0, 50), (50, 130), (130, 230), (230, 330)):
        hours.refused(said_s + 20, "unconfirmed", was_on=False).at(again_s)
        assert hours.switched[-1] == (again_s, OFF)
    assert all(command == OFF for _, command in hours.switched)


def test_an_off_that_came_too_late_is_said_at_once():
    """It has never left, so that the rest begins now."""
    hours = Hours(AIRED).at(10, reading=25.0).refused(70, "expired", was_on=False)
    assert hours.switched == [(10, OFF), (70, OFF)]
    assert hours.state.since_ns == 70 * S


def test_near_misses_are_told_once():
    """A wish that has to wait is told when it begins to wait, not with every reading."""
    hours = Hours(AIRED._replace(min_off_ns=100 * S), running=OFF, reading=21.0)
    for second in range(10, 90, 10):
        hours.at(second, reading=19.0)
    assert hours.notes == [(10, "cooling")]
    assert hours.at(200).notes == [(10, "cooling"), (100, "fired")]


def test_the_first_call_knows_no_window():
    """As many windows as contacts, all as closed."""
    assert begin(AIRED).windows == (Window(is_open=False, pauses=False),)
    assert RETRY_NS == 30 * S

"""Thermostats from YAML, in an engine: timetable, windows, away, ends of commands, and what the trace is told."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from gateway.model import Batch, Command, Kind, Stamp
from gateway.rules.engine import Engine
from gateway.rules.schedules.schedule import EVERY_DAY, At
from gateway.rules.thermostat_rule import Setpoints, Timetable

S = 1_000_000_000
DAY = 86_400 * S
MONDAY = 19_723 * DAY
"""1 January 2024, 00:00 UTC."""

LIVING = """
    thermostats:
      - id: living
        mode: heat
        sensor: {topic: living/climate, field: t}
        on_below: 19
        off_above: 20
        stale_after: 2h
        on_stale: "off"
        schedule:
          - {at: "06:30", on_below: 20.5, off_above: 21.5}
          - {at: "22:00", on_below: 17, off_above: 18}
        window:
          - {topic: living/window, open: state == "open", for: 30s, resume_after: 2m}
          - {drop: 1.5, within: 5m, pause: 20m}
        away: {topic: home/mode, when: mode == "away", on_below: 15, off_above: 16}
        actuator: {topic: living/heater/set, "on": "ON", "off": "OFF"}
"""


def daily(hour, minute=0):
    return At(hour, minute, 0, EVERY_DAY, ZoneInfo("UTC"))


class House:
    """An engine on a log whose clock begins at a given time of day on a Monday."""

    def __init__(self, ruleset, *, hour=0.0, synced=True):
        self.ruleset, self.synced = ruleset, synced
        self.traces, self.said, self.seq = [], [], 0
        self.engine = Engine(ruleset, trace=self.traces.append)
        self.offset_ns = MONDAY + round(hour * 3_600) * S

    def event(self, second, topic, value, flags=1):
        now_ns = round(second * S)
        stamp = Stamp(now_ns + self.offset_ns, 0, now_ns, bytes(16), self.synced)
        batch = Batch(Kind.EVENTS, stamp, [topic], [1], [flags], [b""], values=[value], seq=self.seq)
        self.seq += 1
        return self._keep(self.engine.run(batch))

    def climate(self, second, temperature):
        return self.event(second, "living/climate", {"t": temperature})

    def tick(self, second):
        return self._keep(self.engine.tick(round(second * S)))

    def refused(self, decision, outcome, second):
        return self._keep(self.engine.refused(decision.id, outcome, round(second * S)))

    def restart(self):
        snapshot = self.engine.snapshot()
        self.engine = Engine(self.ruleset, trace=self.traces.append)
        assert self.engine.restore(snapshot) == []
        assert self.engine.snapshot() == snapshot

    def _keep(self, decisions):
        commands = [decision for decision in decisions if isinstance(decision.action, Command)]
        self.said += [(d.elapsed_ns / S, d.action.payload.decode(), d.because) for d in commands]
        return commands

    @property
    def switched(self):
        return [(at, payload) for at, payload, because in self.said if not because.startswith("still")]

    def told(self, *what):
        return [(trace.elapsed_ns / S, trace.what) for trace in self.traces if trace.what in what]


@pytest.fixture
def house(load):
    """`house(yaml, hour=, synced=)` gives one."""
    return lambda source=LIVING, **clocks: House(load(source), **clocks)


def test_the_timetable_turns_at_its_own_time_without_a_reading(house):
    """L12: the entry in force is the latest that has passed; the turn is decided at its own instant."""
    line = house(hour=6)
    line.climate(0, 20.0)
    line.climate(1_799, 20.0)
    line.tick(3_000)
    assert line.switched == [(0, "OFF"), (1_800, "ON")]
    assert [because for at, _, because in line.said if at == 1_800] == ["20 is below 20.5 (06:30)"]


def test_after_midnight_last_evening_still_holds(house):
    """The latest entry that has passed may be yesterday's."""
    line = house(hour=1)
    for second in range(0, 7_000, 1_000):
        line.climate(second, 17.5)
    assert line.switched == [(0, "OFF")]


def test_before_the_time_is_known_its_own_set_points_hold(house):
    """L11: no record with a synchronised clock, no timetable; once there is one, it holds from the next instant."""
    line = house(hour=12, synced=False)
    line.climate(0, 20.0)
    line.climate(100, 20.0)
    assert line.switched == [(0, "OFF")]
    line.synced = True
    line.event(200, "elsewhere", {})
    line.tick(300)
    assert line.switched == [(0, "OFF"), (200.000000001, "ON")]


def test_a_jump_of_the_wall_clock_moves_the_timetable_and_no_duration(house):
    """L11: other set-points at once, and `min_off` and silence as before."""
    line = house(LIVING.replace('on_stale: "off"', 'on_stale: "off"\n        min_off: 10m'), hour=23)
    line.climate(0, 20.0)
    line.offset_ns += DAY // 2
    line.climate(60, 20.0)
    line.tick(1_000)
    assert line.switched == [(0, "OFF"), (600, "ON")]
    line.offset_ns -= 400 * DAY
    line.event(5_000, "elsewhere", {})
    line.tick(10_000)
    assert line.switched[-1] == (60 + 7_200, "OFF"), "silent for two hours of the log's own clock"


def test_a_wall_clock_that_is_put_right_by_a_little_loses_no_turn(house):
    """Less than a second is no jump; the turn comes when the wall clock says so, as far as is known."""
    line = house(hour=6)
    line.climate(0, 20.0)
    line.offset_ns -= S // 2
    line.event(1_000, "elsewhere", {})
    line.tick(3_000)
    assert line.switched == [(0, "OFF"), (1_800.5, "ON")]


def test_windows_pause_and_resume(house):
    """Contact and fall; and a retained message of a window says nothing (L9)."""
    line = house(hour=12)
    line.climate(0, 19.0)
    line.tick(10)
    line.event(20, "living/window", {"state": "open"}, flags=1 | 4)
    line.tick(90)
    assert line.switched == [(0, "OFF"), (1, "ON")]
    line.event(100, "living/window", {"state": "open"})
    line.event(200, "living/window", {"state": 5})
    line.event(300, "living/window", {"state": "closed"})
    line.tick(1_000)
    assert line.switched[2:] == [(130, "OFF"), (420, "ON")]
    line.climate(1_100, 19.5)
    line.climate(1_200, 18.0)
    line.climate(2_000, 18.0)
    line.tick(3_000)
    assert line.switched[4:] == [(1_200, "OFF"), (2_400, "ON")]
    assert line.told("window") == [(130, "window"), (1_200, "window")]


def test_away_by_topic(house):
    """What is neither true nor false changes nothing."""
    line = house(hour=12)
    line.climate(0, 18.0)
    line.event(10, "home/mode", {"mode": "away"})
    line.event(20, "home/mode", {"mode": None})
    line.event(30, "home/mode", {"mode": "home"})
    assert line.switched == [(0, "OFF"), (1, "ON"), (10, "OFF"), (30, "ON")]
    assert line.told("away") == [(10, "away"), (30, "away")]


def test_away_by_variable(house):
    """A variable is looked at whenever the thermostat looks at anything."""
    source = (
        LIVING.replace('topic: home/mode, when: mode == "away"', """when: 'var("mode") == "away"'""")
        + """
    rules:
      - id: switch
        on: home/button
        then: [{set: {mode: "{mode}"}}]
"""
    )
    line = house(source, hour=12)
    line.climate(0, 18.0)
    line.tick(5)
    line.event(10, "home/button", {"mode": "away"})
    line.restart()
    line.climate(20, 18.0)
    assert line.switched == [(0, "OFF"), (1, "ON"), (20, "OFF")]


def test_a_denied_start_is_tried_again_and_shows_in_the_trace(house):
    """R5: never assume; the engine tells the thermostat what became of its command."""
    line = house(hour=12)
    line.climate(0, 18.0)
    (on,) = line.tick(10)
    line.refused(on, "denied", 11)
    assert line.engine.status(11 * S)[0].phase == "off"
    line.restart()
    line.tick(100)
    assert line.switched == [(0, "OFF"), (1, "ON"), (11, "OFF"), (41, "ON")]
    assert line.told("refused", "fired") == [(1, "fired"), (11, "refused"), (41, "fired")]


def test_outcomes_of_what_has_been_overtaken_change_nothing(house):
    """Only the latest command's end is news."""
    line = house(hour=12)
    line.climate(0, 18.0)
    (on,) = line.tick(10)
    line.climate(20, 25.0)
    line.tick(22)
    before = line.engine.snapshot()
    assert line.refused(on, "denied", 22) == []
    assert line.engine.snapshot() == before


def test_what_was_said_again_at_the_start_may_be_refused_as_well(house):
    """After a restart every actuator is told what is wanted; whoever is denied then is not on."""
    line = house(hour=12)
    line.climate(0, 18.0)
    line.tick(10)
    line.restart()
    (again,) = line.engine.start(20 * S)
    assert again.action.payload == b"ON"
    (off,) = line.refused(again, "denied", 21)
    assert off.action.payload == b"OFF"
    line.tick(100)
    assert line.switched == [(0, "OFF"), (1, "ON"), (21, "OFF"), (51, "ON")]


def test_an_off_at_the_start_that_nobody_confirmed_is_said_again(house):
    """L10: even if the sensor never speaks."""
    line = house()
    (off,) = line.engine.start(0)
    line.refused(off, "unconfirmed", 20)
    assert line.switched == [(20, "OFF")]


def test_status_shows_what_keeps_it_off(house):
    """Open windows and the set-points in force stand beside the reading."""
    line = house(hour=12)
    line.climate(0, 18.0)
    line.event(5, "living/window", {"state": "open"})
    assert line.engine.status(6 * S)[0].readings == "t = 18, living/window open, 06:30"
    assert line.engine.status(9_000 * S)[0].readings == "t = 18 (stale), living/window open, 06:30"


def test_it_is_described_with_all_that_was_written_down(load):
    """The status page shows the timetable, the windows and away."""
    (told,) = load(LIVING).describe()
    assert told["on"] == "living/climate, living/window, home/mode"
    assert (told["heat_on_below"], told["stale_after_s"]) == (19, 7_200)
    assert told["schedule"][1] == {"at": "22:00", "heat_on_below": 17, "heat_off_above": 18}
    assert told["away"] == {"heat_on_below": 15, "heat_off_above": 16}


@pytest.mark.parametrize(("wall_h", "name"), [(6.49, "b"), (6.5, "c"), (21.9, "c"), (22, "b")])
def test_of_two_entries_at_one_time_the_lower_one_holds(wall_h, name):
    """And the timetable is a function of the wall clock."""
    entries = [(daily(22), "a"), (daily(22), "b"), (daily(6, 30), "c")]
    table = Timetable(tuple((at, Setpoints(1, 2, name=name)) for at, name in entries))
    stretch = table.at(round(wall_h * 3_600) * S)
    assert stretch.setpoints is not None
    assert stretch.setpoints.name == name
    assert stretch.holds(round(wall_h * 3_600) * S)


def test_an_entry_that_never_comes_is_never_in_force():
    """A timetable of days that do not exist leaves the thermostat to its own set-points."""

    class Never:
        def next_after(self, wall_ns):
            return None

        def describe(self):
            return "never"

    stretch = Timetable(((Never(), Setpoints(1, 2)),)).at(MONDAY)
    assert stretch.setpoints is None
    assert stretch.holds(MONDAY + 10_000 * DAY)

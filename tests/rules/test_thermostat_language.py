"""What can be wrong in a thermostat's timetable, windows and away: each at its place, with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAT = """
thermostats:
  - id: living
    mode: heat
    sensor: {topic: living/climate, field: t}
    on_below: 19
    off_above: 20
    stale_after: 2h
    on_stale: "off"
    timezone: Europe/Berlin
    schedule:
      - {at: "06:30", on_below: 20.5, off_above: 21.5}
    window:
      - {topic: living/window, open: state == "open", for: 30s, resume_after: 2m, stale_after: 1d}
      - {drop: 1.5, within: 5m, pause: 20m}
    away: {topic: home/mode, when: mode == "away", on_below: 15, off_above: 16}
    actuator: {topic: living/heater/set, "on": "ON", "off": "OFF"}
"""
BOTH = """
thermostats:
  - id: office
    mode: heat_cool
    sensor: {topic: office/climate, field: t}
    on_below: 19
    off_above: 20
    on_above: 26
    off_below: 24
    stale_after: 2h
    on_stale: "off"
    window: {topic: office/window, open: open}
    away: {when: 'var("mode") == "away"', on_below: 15, off_above: 16, on_above: 30, off_below: 28}
    heater: {topic: office/heater/set, "on": "ON", "off": "OFF"}
    cooler: {topic: office/cooler/set, "on": "ON", "off": "OFF"}
"""


def test_both_samples_are_right(problems):
    """What the rows below break is whole before they do."""
    assert problems(HEAT) == []
    assert problems(BOTH) == []


@pytest.mark.parametrize(
    ("sample", "old", "new", "place", "words"),
    [
        (HEAT, '{at: "06:30", ', "{", "12:9", '`at` is missing: a time of day, such as "06:30"'),
        (HEAT, "20.5, off_above: 21.5", "22.5, off_above: 21.5", "12:33", "are they swapped?"),
        (HEAT, ", off_above: 21.5", "", "12:9", "`off_above` is missing"),
        (HEAT, "on_below: 20.5", "below: 20.5", "12:23", "unknown key `below`"),
        (HEAT, "Europe/Berlin", "Europe/Berlim", "10:15", "did you mean `Europe/Berlin`"),
        (HEAT, "living/window", "+/window", "14:17", "no wildcards and no captures"),
        (HEAT, "topic: living/window", 'topic: "{room}/window"', "14:17", "no wildcards and no captures"),
        (HEAT, ', open: state == "open"', "", "14:9", "`open` is missing"),
        (HEAT, 'state == "open"', "state ==", "14:38", "of `state ==`"),
        (HEAT, 'state == "open"', """'device("x").open'""", "14:38", "reads the event on its own `topic`"),
        (HEAT, "for: 30s", "for: 30", "14:60", "a duration needs a unit"),
        (HEAT, "drop: 1.5", "drop: 0", "15:16", "more than zero"),
        (HEAT, ", within: 5m", "", "15:9", "`within` is missing"),
        (HEAT, ", pause: 20m", ", pauses: 20m", "15:33", "did you mean `pause`"),
        (
            HEAT,
            "topic: living/window, open: state",
            "drop: 2, within: 5m, pause: 1m, open: state",
            "15:16",
            "one `drop`",
        ),
        (HEAT, "topic: home/mode", "topic: home/#", "16:19", "no wildcards and no captures"),
        (HEAT, ', when: mode == "away"', "", "16:11", "`when` is missing"),
        (HEAT, "topic: home/mode, ", "", "16:18", "without a `topic`, `when` reads variables and nothing else"),
        (HEAT, "on_below: 15, off_above: 16", "on_below: 16, off_above: 16", "16:62", "are they swapped?"),
        (HEAT, "on_below: 19", "on: 19", "6:5", "unknown key `on`"),
        (
            BOTH,
            "off_above: 16, on_above: 30, off_below: 28",
            "off_above: 16, on_above: 30, off_below: 15",
            "13:68",
            "they would fight",
        ),
        (BOTH, "off_above: 16, on_above: 30, off_below: 28", "off_above: 16", "13:11", "`on_above` is missing"),
        (
            BOTH,
            "window: {topic: office/window, open: open}",
            "window: {drop: 1, within: 1m, pause: 1m}",
            "12:20",
            "`drop` is for mode heat",
        ),
        (BOTH, "stale_after: 2h", "stale_after: 2h\n    schedule: []", "11:15", "`schedule` has no entries"),
        (BOTH, "stale_after: 2h", "stale_after: 2h\n    timezone: UTC", "11:15", "there is none"),
    ],
)
def test_a_problem_is_told_at_its_place(problems, sample, old, new, place, words):
    """Each row: one fault put into a good file."""
    assert sample.count(old) == 1, "the row changes one thing"
    found = problems(sample.replace(old, new))
    assert any(line.startswith(f"{place}: ") and words in line for line in found), found


def test_the_timetable_lies_in_the_thermostats_own_zone(load):
    """`timezone` overrides the gateway's."""
    (thermostat,) = load(HEAT).thermostats
    ((schedule, setpoints),) = thermostat.timetable.entries
    assert schedule.zone.key == "Europe/Berlin"
    assert setpoints == (20.5, 21.5, None, None, "06:30")
    (thermostat,) = load(HEAT.replace("    timezone: Europe/Berlin\n", "")).thermostats
    assert thermostat.timetable.entries[0][0].zone.key == "UTC"
    assert thermostat.reads_wall


def test_without_a_timetable_the_wall_clock_does_not_concern_it(load):
    """L11: nothing to be planned anew."""
    assert not load(BOTH).thermostats[0].reads_wall


def test_one_window_needs_no_list(load):
    """A single item counts as a list of one; all its times are optional."""
    (thermostat,) = load(BOTH).thermostats
    assert thermostat.limits.contacts == (("office/window", 0, 0, None),)
    assert [source.text for source in thermostat.sources] == ["office/climate", "office/window"]


def test_two_entries_at_one_hour_of_different_days_have_different_names(load):
    """The trace tells them apart."""
    entry = '{at: "06:30", on_below: 20.5, off_above: 21.5}'
    days = [entry.replace("on_below", f"days: {days}, on_below") for days in ("weekdays", "weekend")]
    (thermostat,) = load(HEAT.replace(f"- {entry}", f"- {days[0]}\n      - {days[1]}")).thermostats
    names = [setpoints.name for _, setpoints in thermostat.timetable.entries]
    assert names == ["06:30 on mon, tue, wed, thu, fri", "06:30 on sat, sun"]


def test_every_example_of_the_documentation_loads(load):
    """What the manual shows can be copied."""
    page = (ROOT / "docs" / "thermostats.md").read_text(encoding="utf-8")
    examples = [block.split("```")[0] for block in page.split("```yaml\n")[1:]]
    assert len(examples) >= 4
    for example in examples:
        assert load(example).warnings == ()


def test_the_manual_names_every_key():
    """A key that nobody can read about is not there."""
    page = (ROOT / "docs" / "thermostats.md").read_text(encoding="utf-8")
    keys = "min_on min_off max_on reassert stale_after on_stale timezone schedule days"
    windows = "window open for resume_after drop within pause away when"
    for key in f"{keys} {windows}".split():
        assert f"{key}:" in page, key


def test_the_example_that_ships_heats_by_the_clock(load):
    """`rules/heating.yaml` says what it does."""
    bedroom, bath = load((ROOT / "rules" / "heating.yaml").read_text(encoding="utf-8")).thermostats
    assert [setpoints.name for _, setpoints in bedroom.timetable.entries] == [
        "06:30 on mon, tue, wed, thu, fri",
        "08:30 on sat, sun",
        "22:00",
    ]
    assert bath.limits.fall == (1.5, 300 * 10**9, 1_200 * 10**9)

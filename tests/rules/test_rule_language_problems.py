"""Rule files that are wrong: every problem at once, at its place, with the way out."""

from __future__ import annotations

import pytest

from gateway.rules.reading.language import load_rules

RULE = """
rules:
  - id: fan
    on: devices/{device}/climate
    when: humidity > 70
    for: 1m
    until: humidity < 60
    stale_after: 10m
    then: [{command: {topic: "devices/{device}/fan/set", payload: "ON", state: "on"}}]
    finally: [{command: {topic: "devices/{device}/fan/set", payload: "OFF", state: "off"}}]
    on_stale: off
"""
THERMOSTAT = """
thermostats:
  - id: living
    mode: heat
    sensor: {topic: devices/living/climate, field: temperature}
    on_below: 20.5
    off_above: 21.5
    min_on: 3m
    min_off: 3m
    max_on: 4h
    stale_after: 10m
    on_stale: "off"
    actuator: {topic: devices/living/heater/set, "on": {state: "ON"}, "off": {state: "OFF"}}
"""


def test_both_samples_are_right(problems):
    """What the rows below break is whole before they do."""
    assert problems(RULE) == []
    assert problems(THERMOSTAT) == []


ROWS = [
    # what is written instead, line:column, words
    (RULE, "when: humidity > 70", "wen: humidity > 70", "5:5", "unknown key `wen`; did you mean `when`?"),
    (RULE, "on: devices/{device}/climate", "on: devices/{device/climate", "4:9", "{device"),
    (RULE, "on: devices/{device}/climate", "on: a/#/b", "4:9", "`#`"),
    (RULE, "    on: devices/{device}/climate\n", "", "3:5", "`on` is missing"),
    (RULE, "id: fan", "id: a/b", "3:9", "must match"),
    (RULE, "id: fan", "id: 5", "3:9", "quote it"),
    (RULE, "humidity > 70", "humidity >> 70", "5:11", "character 1 of `humidity >> 70`"),
    (RULE, "humidity > 70", "humidity = 70", "5:11", "character 10 of `humidity = 70`: `=` assigns"),
    (RULE, "humidity > 70", "1 > 0", "5:11", "the same for every event"),
    (RULE, "humidity > 70", "yes", "5:11", None),
    (RULE, "humidity > 70", "true", "5:11", "quote it"),
    (RULE, "for: 1m", "for: 60", "6:10", "60"),
    (RULE, "for: 1m", "for: -1m", "6:10", "-1m"),
    (RULE, "stale_after: 10m", "stale_after: 0s", "8:18", "longer than zero"),
    (RULE, "    stale_after: 10m\n", "", "3:5", "`fan` commands an actuator: say with `stale_after`"),
    (RULE, "    when: humidity > 70\n", "", "5:10", "`for` needs a `when`"),
    (RULE, 'payload: "OFF", state: "off"', 'payload: "OFF"', "9:11", "`finally` needs a command with `state: off`"),
    (
        RULE,
        'payload: "OFF", state: "off"',
        'payload: "OFF", state: "on"',
        "10:14",
        "also runs when the sensor falls silent",
    ),
    (RULE, 'state: "on"', "state: on_", "9:80", "`state` is one of on, off"),
    (RULE, "then: [{command:", "then: [{comand:", "9:13", "did you mean `command`?"),
    (RULE, "then: [{command", "then: [{notify: {to: x, text: y}, command", "9:12", "a dash of its own"),
    (
        RULE,
        '"devices/{device}/fan/set", payload: "ON"',
        '"devices/{room}/fan/set", payload: "ON"',
        "9:30",
        "captured levels only",
    ),
    (RULE, 'payload: "ON"', 'payload: "{x +}"', "9:67", "not an expression"),
    (RULE, 'payload: "ON", ', "", "9:22", "`payload` is missing"),
    (RULE, "devices/{device}/climate", "devices/{device}/{type}/set", "3:9", "which it listens to itself"),
    (
        RULE,
        "then: [{command",
        "then: [{emit: {topic: devices/x/climate, payload: {}}}, {command",
        "3:9",
        "listens to itself",
    ),
    (RULE, 'state: "on"}', 'state: "on", expect: {topic: a, where: "x =", within: 0s}}', "9:112", "`=` assigns"),
    (RULE, 'state: "on"}', 'state: "on", otherwise: [{notify: {to: x, text: y}}]}', "9:97", "needs an `expect`"),
    (RULE, "finally: [{command", "finally: [{notify: {to: x, text: '{'}}, {command", "10:38", "never closed"),
    (RULE, "finally:", "then:", "10:5", "stands twice"),
    (THERMOSTAT, "on_below: 20.5", "on_below: 21.5", "6:15", "are they swapped?"),
    (THERMOSTAT, "on_below: 20.5", "on_below: .nan", "6:15", "finite"),
    (THERMOSTAT, "on_below: 20.5", "on_above: 20.5", "3:5", "`on_below` is missing"),
    (THERMOSTAT, "    stale_after: 10m\n", "", "3:5", "`stale_after` is missing"),
    (THERMOSTAT, '    on_stale: "off"\n', "", "3:5", "`on_stale` is missing"),
    (THERMOSTAT, 'on_stale: "off"', "on_stale: of", "12:15", "did you mean `off`?"),
    (THERMOSTAT, "mode: heat", "mode: heet", "4:11", "did you mean `heat`?"),
    (THERMOSTAT, "max_on: 4h", "max_on: 1m", "10:13", "max_on is shorter than min_on"),
    (THERMOSTAT, "    min_off: 3m\n", "", "9:13", "needs a min_off"),
    (THERMOSTAT, "min_off: 3m", "min_off: 10ms", "9:14", "at least 1s"),
    (THERMOSTAT, "devices/living/climate", "devices/+/climate", "5:21", "one sensor"),
    (THERMOSTAT, "field: temperature", "field: temp erature", "5:52", "not an expression"),
    (THERMOSTAT, '"off": {state: "OFF"}', '"of": {state: "OFF"}', "13:71", "unknown key `of`"),
    (THERMOSTAT, '"off": {state: "OFF"}', '"off": {state: "{x}"}', "13:15", "is fixed"),
    (THERMOSTAT, "mode: heat", "mode: heat_cool", "3:5", "`heater` is missing"),
]


@pytest.mark.parametrize(
    ("sample", "old", "new", "place", "words"), ROWS, ids=[f"{row[1]} -> {row[2]}" for row in ROWS]
)
def test_a_problem_is_told_at_its_place(problems, sample, old, new, place, words):
    """Each row: one fault put into a good file."""
    assert sample.count(old) == 1, "the row changes one thing"
    found = problems(sample.replace(old, new))
    if words is None:
        assert found == []
        return
    assert any(line.startswith(f"{place}: ") and words in line for line in found), found


def test_every_problem_of_every_file_is_told_at_once(tmp_path):
    """Two files, four faults, one run."""
    (tmp_path / "a.yaml").write_text(RULE.replace("for: 1m", "for: 1").replace("> 70", "> > 70"))
    (tmp_path / "b.yaml").write_text(THERMOSTAT.replace("20.5", "x").replace("mode: heat", "mode: hot"))
    with pytest.raises(Exception, match=r"a\.yaml") as caught:
        load_rules([tmp_path / "a.yaml", tmp_path / "b.yaml"])
    assert len(caught.value.problems) == 4


def test_an_id_stands_once_across_files_and_kinds(tmp_path):
    """The second one is told where the first is."""
    (tmp_path / "a.yaml").write_text(RULE)
    (tmp_path / "b.yaml").write_text(THERMOSTAT.replace("id: living", "id: fan"))
    with pytest.raises(Exception, match=r"b.yaml:3:9: `fan` is the id of another rule, at .*a.yaml:3:9"):
        load_rules([tmp_path / "a.yaml", tmp_path / "b.yaml"])


@pytest.mark.parametrize(
    "source", ["[]", "5", "rules: 5", "rules: [5]", "rules: [{}]", "thermostats: [x]", "ruls: []", ""]
)
def test_what_is_no_rule_file_is_a_problem_not_a_crash(problems, source):
    """Any YAML at all ends in problems."""
    assert problems(source)


def test_an_empty_list_of_rules_is_a_rule_set(load):
    """Nothing to do is fine."""
    assert load("rules: []").rules == ()
    assert load_rules([]).everyone == ()


def _emitter(name, on, to):
    return f"  - {{id: {name}, on: '{on}', then: [{{emit: {{topic: '{to}', payload: {{}}}}}}]}}\n"


def test_a_loop_that_is_allowed_is_none(problems):
    """The operator has said so; three derived events in a row are still the end."""
    chain = _emitter("a", "x/{n}", "y/{n}") + _emitter("b", "y/{n}", "x/{n}")
    assert any("for ever" in line for line in problems("rules:\n" + chain))
    assert problems("rules:\n" + chain.replace("{id: a,", "{id: a, allow_loop: true,")) == []


def test_rules_that_drive_an_actuator_in_opposite_ways_are_told_with_both_names(load):
    """One switches on what the other switches off: both places, and which is which."""
    other = RULE.replace("id: fan", "id: calm").replace("70", "80").replace("rules:\n", "")
    on, off = 'payload: "ON", state: "on"', 'payload: "OFF", state: "off"'
    other = other.replace(on, off).replace(
        f'    finally: [{{command: {{topic: "devices/{{device}}/fan/set", {off}}}}}]\n', ""
    )
    (warning,) = [line for line in load(RULE + other).warnings if "opposite" in line]
    assert "`fan` turns `devices/+/fan/set` on and `calm`" in warning


def test_an_actuator_on_one_threshold_is_a_warning(load):
    """A value on the edge would switch it with every reading."""
    bare = RULE.replace("    until: humidity < 60\n", "").replace("    for: 1m\n", "")
    assert any("`until` some way off" in line for line in load(bare).warnings)
    assert load(RULE).warnings == ()


def test_rules_that_trigger_each_other_for_ever_are_refused(problems):
    """The chain is named; a chain that ends is fine."""
    chain = _emitter("a", "x/{n}", "y/{n}") + _emitter("b", "y/+", "z") + _emitter("c", "z", "w")
    assert problems("rules:\n" + chain) == []
    (problem,) = problems("rules:\n" + chain + _emitter("d", "w", "x/1"))
    assert (
        problem
        == "2:10: these rules trigger each other for ever: `a` → `b` → `c` → `d` → `a`; `allow_loop: true` lets them"
    )


def test_two_rules_that_command_one_actuator_are_a_warning_with_both_names(load):
    """Told, not refused: the later word wins."""
    other = RULE.replace("id: fan", "id: other").replace("rules:\n", "").replace("{device}", "a")
    (warning,) = load(RULE + other).warnings
    assert "`other` and `fan` both command `devices/a/fan/set`" in warning


def test_one_state_for_many_devices_is_a_warning(load):
    """`+` without a name mixes devices."""
    ruleset = load("rules: [{id: a, on: d/+/t, when: t > 1, then: [{notify: {to: x, text: hi}}]}]")
    assert "keeps one state for everything" in ruleset.warnings[0]


def test_the_interlock_learns_limits_and_safe_commands(load):
    """Fixed topics only; the safe command is off, or what on_stale says."""
    limits = load(THERMOSTAT).actuators["devices/living/heater/set"]
    assert (limits.min_on_s, limits.min_off_s, limits.max_on_s, limits.safe.state) == (180, 180, 14_400, "off")
    assert (
        load(THERMOSTAT.replace('on_stale: "off"', "on_stale: hold")).actuators["devices/living/heater/set"].safe
        is None
    )
    kept_cold = load(THERMOSTAT.replace('on_stale: "off"', "on_stale: on")).actuators["devices/living/heater/set"].safe
    assert kept_cold.state == "on"
    assert load(RULE).actuators == {}
    assert load(RULE.replace("{device}", "a")).actuators["devices/a/fan/set"].safe.payload == b"OFF"


def test_recipients_are_known_with_a_place(load):
    """So that `check` can compare them with the configuration."""
    ruleset = load(
        RULE.replace(
            'state: "on"}', 'state: "on", expect: {topic: a, where: x}, otherwise: {notify: {to: me, text: y}}}'
        )
    )
    assert list(ruleset.recipients) == ["me"]
    assert ruleset.recipients["me"].endswith("rules.yaml:3:5")


def test_a_description_is_fit_for_json(load):
    """The status page shows what was written."""
    (rule,) = load(RULE).describe()
    assert (rule["on"], rule["when"], rule["for_s"]) == ("devices/{device}/climate", "humidity > 70", 60.0)
    assert rule["then"] == ["command devices/{device}/fan/set on"]
    (thermostat,) = load(THERMOSTAT).describe()
    assert (thermostat["heat_on_below"], thermostat["max_on_s"]) == (20.5, 14_400)

"""Rules that wait for what nobody would ever bring, or read what no payload holds: `check` says so of them alone."""

from __future__ import annotations

import textwrap

import pytest

from gateway.mqtt.topics import compile_filter
from gateway.rules.reading.language import load_rules
from gateway.rules.reading.trigger_reader import Site

STORED = ("devices/{device}/{type}",)


@pytest.fixture
def warnings(tmp_path):
    """`warnings(yaml)` gives what is said of the rules where only `STORED` is stored."""

    def read(source: str, stored=STORED, fields=()) -> list[str]:
        path = tmp_path / "rules.yaml"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        site = Site(topics=tuple(compile_filter(each) for each in stored), fields=fields or ((),) * len(stored))
        ruleset = load_rules([path], site)
        return [warning.removeprefix(f"{path}:") for warning in ruleset.warnings]

    return read


RULE = 'rules: [{{id: r, on: "{}", then: [{{notify: {{to: x, text: a}}}}]}}]'


@pytest.mark.parametrize("topic", ["devices/{d}/climate", "devices/a/b", "+/+/x", "#", "devices/#", "devices/+/+"])
def test_what_may_come_is_left_alone(warnings, topic):
    """A pattern that shares one topic with what is stored may be fulfilled."""
    assert warnings(RULE.format(topic)) == []


@pytest.mark.parametrize("topic", ["device/{d}/climate", "devices/a", "devices/a/b/c", "site/#", "+/+"])
def test_what_nobody_stores_is_named(warnings, topic):
    """With the place, the rule and the filter: a typing error in a topic is the most common reason for silence."""
    (said,) = warnings(RULE.format(topic))
    assert said.startswith("1:")
    assert "`r` listens to `" in said
    assert "nothing will ever come" in said


def test_what_a_rule_emits_comes(warnings):
    """A chain of derived events needs no entry in `ingest.topics`."""
    chain = """
        rules:
          - {id: a, on: "devices/{d}/door", then: [{emit: {topic: "alerts/{d}/door", payload: {x: 1}}}]}
          - {id: b, on: "alerts/+/door", then: [{emit: {topic: orders, payload: {x: 1}}}]}
          - {id: c, on: orders, then: [{notify: {to: x, text: a}}]}
          - {id: d, on: "order/#", then: [{notify: {to: x, text: a}}]}
          - {id: e, on: "+", then: [{notify: {to: x, text: a}}]}
    """
    (said,) = warnings(chain)
    assert "`d` listens to `order/#`" in said


def test_what_is_looked_at_and_what_confirms_must_come_too(warnings):
    """`latest`, `after` and `expect` wait for events like any other."""
    said = warnings("""
        rules:
          - id: r
            on: devices/{d}/climate
            after: {on: "doors/{d}"}
            within: 5m
            when: t > 3 and latest("windows/{d}").open
            until: t < 1
            stale_after: 5m
            on_stale: "off"
            then: [{command: {topic: "fans/{d}/set", payload: "ON", state: "on",
                              expect: {topic: "fans/{d}/state", where: value == wanted, within: 5s, retries: 1}}}]
            finally: [{command: {topic: "fans/{d}/set", payload: "OFF", state: "off"}}]
    """)
    assert [line.split("`")[2:4] for line in said] == [
        [" listens to ", "doors/+"],
        [" looks at the latest of ", "windows/+"],
        [" waits for a confirmation on ", "fans/+/state"],
    ]


def test_a_thermostat_whose_sensor_is_not_stored_is_named(warnings):
    """It would stay in its safe state for ever."""
    said = warnings("""
        thermostats:
          - id: t
            mode: heat
            sensor: {topic: climate/living, field: temperature}
            on_below: 20
            off_above: 21
            min_off: 3m
            stale_after: 10m
            on_stale: "off"
            actuator:
              {topic: h/set, "on": "ON", "off": "OFF",
               expect: {topic: h/state, where: value == wanted, within: 5s, retries: 1}}
    """)
    assert ["climate/living" in said[0], "h/state" in said[1], len(said)] == [True, True, 2]


def test_without_a_configuration_nothing_is_said(warnings):
    """`rules test` reads rules by themselves."""
    assert warnings(RULE.format("anything"), stored=()) == []


CLIMATE = ("devices/{device}/climate", "devices/{device}/{type}")
HOLDS = (("temperature", "humidity"), ())
READS = """
    rules:
      - {id: r, on: "%s", when: "%s", then: [{notify: {to: x, text: "{temperature} {device} {topic}"}}]}
"""


def test_a_field_that_no_payload_holds_is_named_with_the_nearest_that_does(warnings):
    """A typing error in a field makes a condition unknown for ever, which looks like a rule that waits."""
    where = "devices/{device}/climate"
    stored, fields = CLIMATE[:1], HOLDS[:1]
    (said,) = warnings(READS % (where, "temprature > 3 and humidity < 60"), stored, fields)
    assert "`r` reads `temprature`, and by its `fields` no payload on `devices/+/climate` holds that" in said
    assert "did you mean `temperature`?" in said
    assert warnings(READS % (where, "avg(humidity, 5m) > 3 and device == 'a'"), stored, fields) == []


@pytest.mark.parametrize(
    ("on", "stored", "fields"),
    [
        ("devices/{device}/climate", CLIMATE, HOLDS),
        ("devices/{device}/{type}", CLIMATE[:1], ((),)),
        ("alerts/{device}", ("alerts/{device}",), (("level",),)),
    ],
)
def test_where_it_is_not_said_what_comes_nothing_is_doubted(warnings, on, stored, fields):
    """Another entry of the configuration or another rule may bring what one entry does not hold."""
    emits = """
      - {id: e, on: "devices/{d}/door", then: [{emit: {topic: "alerts/{d}", payload: {anything: 1}}}]}
"""
    stored, fields = (*stored, "devices/{d}/door"), (*fields, ())
    assert warnings(READS % (on, "anything > 3") + emits, stored, fields) == []


def test_what_is_looked_at_elsewhere_is_compared_with_the_fields_there(warnings):
    """`latest`, `after` and a thermostat's sensor read from topics of their own."""
    said = warnings(
        """
        rules:
          - id: r
            on: devices/{device}/climate
            after: {on: "devices/{device}/door", when: opened}
            within: 5m
            when: temperature > 3 and latest("devices/{device}/door", 5m).shut
            then: [{notify: {to: x, text: a}}]
        thermostats:
          - id: t
            mode: heat
            sensor: {topic: devices/a/climate, field: temp}
            on_below: 20
            off_above: 21
            min_off: 3m
            stale_after: 10m
            on_stale: "off"
            actuator: {topic: h/set, "on": "ON", "off": "OFF"}
        """,
        ("devices/{device}/climate", "devices/{device}/door"),
        (("temperature",), ("open",)),
    )
    assert [line.split("`")[1:4:2] for line in said] == [["r", "opened"], ["r", "shut"], ["t", "temp"]]

"""The rule files that ship: they load together without a warning, and do what their comments say."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.mqtt.topics import compile_filter
from gateway.rules.engine import Engine
from gateway.rules.expressions.nodes import FUNCTIONS
from gateway.rules.reading.language import load_rules

SHIPPED = Path(__file__).parents[2] / "rules"
FILES = sorted(path for path in SHIPPED.glob("*.yaml") if not path.name.endswith(".test.yaml"))


@pytest.fixture
def line(run):
    """A timeline over all shipped rules."""
    timeline = run("rules: []")
    timeline.engine = Engine(load_rules(FILES))
    return timeline


def test_they_load_together_without_a_warning():
    """The examples that people start from are clean."""
    assert len(FILES) >= 3
    assert load_rules(FILES).warnings == ()


def test_each_loads_alone():
    """None leans on another."""
    for path in FILES:
        assert load_rules([path]).everyone


def test_they_listen_to_what_the_shipped_configuration_stores_or_another_rule_emits():
    """A rule on a topic that nobody stores would never fire."""
    stored = [compile_filter("devices/{device}/{type}"), compile_filter("devices/{device}/heater/state")]
    stored.append(compile_filter("devices/{device}/pump/state"))
    for rule in load_rules(FILES).everyone:
        for source in rule.sources:
            topic = source.mqtt.replace("+", "x")
            assert any(f.matches(topic) for f in stored) or topic.startswith(("site/meter/", "shop/")), rule.id


def test_a_warm_freezer_is_told_and_a_warm_room_is_not(line, texts):
    """`starts_with(device, ...)` keeps one rule to some devices."""
    for minute in range(12):
        line.event(minute * 60, "devices/freezer-1/climate", {"temperature": -10.0, "humidity": 50})
        line.event(minute * 60, "devices/hall/climate", {"temperature": 20.0, "humidity": 50})
    told = [d for d in line.decisions if d.rule == "freezer-warm"]
    assert texts(told)[0] == "freezer-1 is at -10.0 °C"
    assert told[1].action.payload == b'{"temperature":-10.0}'
    assert (
        texts(line.event(800, "devices/freezer-1/climate", {"temperature": -18}))[-1]
        == "freezer-1 is cold again (-18.0 °C)"
    )


def test_the_bathroom_fan_stops_when_its_sensor_dies(line):
    """On after a minute of damp, off ten minutes after the last word."""
    for second in (0, 30, 61):
        line.event(second, "devices/bathroom/climate", {"temperature": 15, "humidity": 80})
    line.tick(10_000)
    fan = [(d.action.state, d.elapsed_ns // 10**9) for d in line.decisions if d.rule == "bathroom-fan"]
    assert fan == [("on", 60), ("off", 661)]


def test_a_peak_is_an_event_that_another_rule_acts_on(line):
    """The classic chain: meter → derived event → command."""
    for second in range(0, 130, 10):
        line.event(second, "devices/meter/power", {"power_w": 4000.4})
    (peak,) = [d.action for d in line.decisions if d.rule == "power-peak"]
    assert (peak.topic, peak.payload, peak.hops) == ("site/meter/peak", b'{"active":true,"power_w":4000}', 1)
    boiler = line.event(131, peak.topic, {"active": True, "power_w": 4000}, 0x50)
    assert boiler[0].action.payload == b'{"mode":"eco"}'


def test_the_greenhouse_never_heats_and_cools_at_once(line):
    """Each switch tells both actuators."""
    temperatures = [5, 5, 12, 30, 30, 30, 24, 5]
    for step, temperature in enumerate(temperatures):
        line.event(step * 400, "devices/greenhouse/climate", {"temperature": temperature})
    heater = vent = "off"
    for decision in (d for d in line.decisions if d.rule == "greenhouse"):
        if "heater" in decision.action.topic:
            heater = decision.action.state
        else:
            vent = decision.action.state
        assert (heater, vent) != ("on", "on")
    assert {d.action.topic for d in line.decisions if d.rule == "greenhouse" and d.action.state == "on"} == {
        "devices/greenhouse/heater/set",
        "devices/greenhouse/vent/set",
    }


def test_every_example_of_the_documentation_loads(load):
    """What the manual shows can be copied."""
    page = (SHIPPED.parent / "docs" / "rules.md").read_text(encoding="utf-8")
    examples = [block.split("```")[0] for block in page.split("```yaml\n")[1:]]
    assert len(examples) >= 3
    for example in examples:
        assert load(example).warnings == ()


def test_the_documentation_names_every_function():
    """A function that nobody can read about is not there."""
    page = (SHIPPED.parent / "docs" / "rules.md").read_text(encoding="utf-8")
    for name in FUNCTIONS:
        assert name in page

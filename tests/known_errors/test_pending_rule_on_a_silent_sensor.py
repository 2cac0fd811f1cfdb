"""A rule that looks beyond its events began anew on a reading that had gone stale, and stopped the engine's time."""

from __future__ import annotations

from gateway.rules.engine import Engine
from gateway.rules.reading.language import load_rules
from tests.rules.conftest import Timeline

RULE = """
rules:
  - id: pump
    on: devices/sump/level
    when: level_cm > 80 and default(var("dry"), false) == false
    for: 10s
    stale_after: 30s
    evaluate_every: 1s
    then: [{notify: {to: x, text: high}}]
"""


def test_an_unknown_reading_is_not_replaced_by_the_one_before_it_and_time_goes_on(tmp_path):
    """Laws L9, L13: what is stale is not looked at again, and a tick costs what is due."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULE)
    line = Timeline(Engine(load_rules([path])))
    line.event(0, "devices/sump/level", {"level_cm": 10})
    line.event(25, "devices/sump/level", {"level_cm": 85})
    line.tick(30)
    line.event(31, "devices/sump/level", {"level_cm": "?"})
    assert line.tick(10_000) == []
    assert line.engine.deadline_ns is None

"""An `off` that nobody confirmed was never said again: a relay that was away at that minute stayed on for good."""

from __future__ import annotations

import random

from tests.act.house import House, S, rules_from

FAN = "devices/a/fan/set"
RULE = """
rules:
  - id: fan
    on: devices/{device}/climate
    when: temperature < 20
    until: temperature > 22
    stale_after: 12h
    on_stale: "off"
    then:
      - command:
          topic: devices/{device}/fan/set
          payload: "ON"
          state: "on"
          expect: {topic: "devices/{device}/fan/state", where: value == wanted, within: 1s, retries: 2}
    finally:
      - command:
          topic: devices/{device}/fan/set
          payload: "OFF"
          state: "off"
          expect: {topic: "devices/{device}/fan/state", where: value == wanted, within: 1s, retries: 2}
"""


def test_what_is_to_go_off_is_told_until_it_says_so(tmp_path):
    """Law L10: thirty seconds later, and then ever more seldom; once it has said so there is nothing more to say."""
    house = House(rules_from(tmp_path, RULE), random.Random(1))
    house.event("devices/a/climate", {"temperature": 15})
    house.until(10 * S)
    assert house.relays[FAN] == "ON"
    house._loss = 1.0
    house.event("devices/a/climate", {"temperature": 23})
    house.until(70 * S)
    assert house.relays[FAN] == "ON"
    house._loss = 0.0
    house.until(200 * S)
    assert house.relays[FAN] == "OFF"
    said = len(house.log)
    house.until(4 * 3_600 * S)
    assert len(house.log) == said

"""After a restart the gateway said what each actuator should do before any device was back: nobody heard it.

A heater that had been left on by a kill then stayed on until the thermostat's next word, and one driven by a rule for
as long as its sensor stayed normal.
"""

from __future__ import annotations

import pytest

from tests.app.lives import Lives
from tests.scenarios.site import until

RULES = """
rules:
  - id: frost
    on: devices/{device}/climate
    when: temperature < 3
    stale_after: 10m
    on_stale: off
    then: [{command: {topic: devices/hall/heater/set, payload: {state: "ON"}, state: "on"}}]
    finally: [{command: {topic: devices/hall/heater/set, payload: {state: "OFF"}, state: "off"}}]
"""
HEATER = "devices/hall/heater/set"


@pytest.mark.parametrize(("temperature", "said"), [(1, {"state": "ON"}), (9, {"state": "OFF"})])
async def test_a_device_that_comes_back_hears_what_its_actuator_should_do(tmp_path, clock, temperature, said):
    """Law L10: whoever was away while the actuator was commanded is told as soon as it subscribes."""
    life = Lives(tmp_path, clock, RULES)
    try:
        await life.begin()
        sensor = await life.peer()
        await life.say(sensor, "devices/a/climate", temperature=temperature)
        await life.drop()
        clock.advance(1)
        await life.begin()
        heater = await life.peer(HEATER)
        await until(lambda: heater.heard(HEATER)[-1:] == [said], "it is told", 10)
    finally:
        await life.close()

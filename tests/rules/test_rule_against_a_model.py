"""A generic rule against a model that is looked at every second and knows no deadlines."""

from __future__ import annotations

import math
import random

import pytest

from gateway.rules.engine import Engine

RULE = """
    rules:
      - id: r
        on: t
        when: v > 20
        for: {hold}s
        {until}
        {on_stale}
        stale_after: {stale}s
        most_per_minute: 100000
        then: [{action_on}]
        finally: [{action_off}]
"""
COMMANDS = (
    '{command: {topic: pump, payload: "ON", state: "on"}}',
    '{command: {topic: pump, payload: "OFF", state: "off"}}',
)
NOTES = ("{notify: {to: x, text: begin}}", "{notify: {to: x, text: end}}")


class Model:
    """The rule in its plainest form. Time is whole seconds."""

    def __init__(self, hold, stale, until, drives):
        self.hold, self.stale, self.until, self.drives = hold, stale, until, drives
        self.active, self.true_since, self.heard, self.sure = False, None, -math.inf, False

    def second(self, now):
        """What the passing of time alone does."""
        if now - self.heard >= self.stale:
            self.sure, self.true_since = False, None
            if self.active and self.drives:
                self.active = False
                return ["end"]
        return self._complete(now)

    def reading(self, now, value):
        """What a reading does."""
        if not isinstance(value, float) or math.isnan(value):
            self.sure = False
            return []
        self.heard, self.sure = now, True
        if self.active:
            if value < 15 if self.until else not value > 20:
                self.active, self.true_since = False, None
                return ["end"]
            return []
        if not value > 20:
            self.true_since = None
            return []
        self.true_since = now if self.true_since is None else self.true_since
        return self._complete(now)

    def _complete(self, now):
        if not self.active and self.sure and self.true_since is not None and now - self.true_since >= self.hold:
            self.active = True
            return ["begin"]
        return []


@pytest.mark.parametrize("drives", [True, False], ids=["commands", "notifies"])
def test_random_lives_agree_with_the_model(load, run, seed, drives):
    """1,000 lives of readings, rubbish and silences, for random durations; every decision at the same second."""
    rng = random.Random(seed)
    then, finally_ = COMMANDS if drives else NOTES
    for _ in range(50):
        hold, stale, until = rng.randrange(6), rng.randrange(1, 8), rng.random() < 0.5
        source = RULE.replace("{hold}", str(hold)).replace("{stale}", str(stale))
        source = source.replace("{until}", "until: v < 15" if until else "")
        source = source.replace("{on_stale}", "on_stale: off" if drives else "")
        ruleset = load(source.replace("{action_on}", then).replace("{action_off}", finally_))
        for _ in range(20):
            line, model, expected = run("rules: []"), Model(hold, stale, until, drives), []
            line.engine = Engine(ruleset)
            for now in range(80):
                expected += [(now, what) for what in model.second(now)]
                for _ in range(rng.choice([0, 0, 1, 1, 2])):
                    value = rng.choice([25.0, 25.0, 17.0, 10.0, math.nan, None, "x"])
                    expected += [(now, what) for what in model.reading(now, value)]
                    line.event(now, "t", {"v": value})
                if rng.random() < 0.3:
                    line.tick(now)
            line.tick(79)
            said = [(d.elapsed_ns // 10**9, _word(d.action)) for d in line.decisions]
            assert said == expected, (hold, stale, until)


def _word(action):
    return {"on": "begin", "off": "end"}[action.state] if hasattr(action, "state") else action.text

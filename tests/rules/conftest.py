"""What the tests of rules share: rules from a few lines of YAML, and a timeline to run them on."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.model import Batch, Decision, Kind, Notify, Stamp
from gateway.rules.engine import Engine
from gateway.rules.reading.language import load_rules

SECOND_NS = 1_000_000_000


@dataclass
class Timeline:
    """An engine and the seconds that pass for it. Collects every decision."""

    engine: Engine
    seq: int = 0
    decisions: list[Decision] = field(default_factory=list)

    def event(self, at_s: float, topic: str, value: Any, flags: int = 1) -> list[Decision]:
        """One record at a time."""
        return self.batch(at_s, [(topic, value, flags)])

    def batch(self, at_s: float, records: list[tuple[str, Any, int]]) -> list[Decision]:
        """Several records that came at once."""
        batch = Batch(
            kind=Kind.EVENTS,
            stamp=Stamp(0, 0, round(at_s * SECOND_NS), bytes(16), True),
            topics=[topic for topic, _, _ in records],
            formats=[1] * len(records),
            flags=[flags for _, _, flags in records],
            payloads=[b""] * len(records),
            values=[value for _, value, _ in records],
            seq=self.seq,
        )
        self.seq += len(records)
        return self._keep(self.engine.run(batch))

    def tick(self, at_s: float) -> list[Decision]:
        """Time passes."""
        return self._keep(self.engine.tick(round(at_s * SECOND_NS)))

    def _keep(self, decisions: list[Decision]) -> list[Decision]:
        self.decisions += decisions
        return decisions


@pytest.fixture
def load(tmp_path):
    """`load(yaml)` gives the rule set."""

    def build(source: str):
        path = tmp_path / "rules.yaml"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return load_rules([path])

    return build


@pytest.fixture
def problems(load, tmp_path):
    """`problems(yaml)` gives what is wrong with it, each as `line:column: message`."""

    def find(source: str) -> list[str]:
        try:
            load(source)
        except ConfigError as error:
            return [problem.removeprefix(f"{tmp_path}/rules.yaml:") for problem in error.problems]
        return []

    return find


@pytest.fixture
def run(load):
    """`run(yaml)` gives a timeline."""

    def build(source: str, **limits: int) -> Timeline:
        return Timeline(Engine(load(source), **limits))

    return build


@pytest.fixture
def texts():
    """`texts(decisions)` gives what a person would be told, and every other action as it is."""

    def told(decisions: list[Decision]) -> list[Any]:
        return [d.action.text if isinstance(d.action, Notify) else d.action for d in decisions]

    return told

"""What must be true after any fault, decided from the two ends alone: what devices were told, what upstream has seen.

lost        acknowledged to a device and never seen upstream            must be empty
phantom     seen upstream and never sent by a device                    must be empty
disordered  first occurrences of one topic that go back                 must be empty
repeats     occurrences after the first                                 bounded: one window a fault
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Judgement:
    """See the module. Messages are named `(topic, seq)`."""

    acknowledged: int
    lost: list[tuple[str, int]]
    phantom: list[tuple[str, int]]
    disordered: list[tuple[str, int]]
    repeats: int

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged: {len(self.lost)} lost {self.lost[:5]}, {len(self.phantom)} phantom "
            f"{self.phantom[:5]}, {len(self.disordered)} out of order {self.disordered[:5]}, {self.repeats} repeats"
        )


def read_journal(path: Path) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
    """`(sent, acknowledged)` from the journal of the simulated devices."""
    sent: set[tuple[str, int]] = set()
    acknowledged: set[tuple[str, int]] = set()
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] in {"sent", "resent"}:
            sent.add((entry["topic"], entry["seq"]))
        elif entry["event"] == "acked":
            acknowledged.add((entry["topic"], entry["seq"]))
    return sent, acknowledged


def count_acknowledged(path: Path) -> int:
    """How many PUBACKs the devices have had so far."""
    return path.read_text().count('"event":"acked"') if path.exists() else 0


def judge(journal: Path, arrivals: list[tuple[str, int]]) -> Judgement:
    """Hold what arrived, in its order, against what the devices know."""
    sent, acknowledged = read_journal(journal)
    seen = Counter(arrivals)
    highest: dict[str, int] = {}
    disordered = []
    for topic, seq in dict.fromkeys(arrivals):
        if seq < highest.get(topic, -1):
            disordered.append((topic, seq))
        highest[topic] = max(seq, highest.get(topic, -1))
    return Judgement(
        acknowledged=len(acknowledged),
        lost=sorted(acknowledged - seen.keys()),
        phantom=sorted(seen.keys() - sent),
        disordered=disordered,
        repeats=sum(seen.values()) - len(seen),
    )

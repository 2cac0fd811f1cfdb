"""How much is proven, and where the figures go.

`make test` runs each proof's fast share. `make reliability` sets `RELIABILITY=full`, which runs the full counts of the
plan, and `RELIABILITY_FIGURES`, a directory where every proof leaves what it did and what it saw; `tests.crash.report`
makes the table of RELIABILITY.md of them.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path

FULL = os.environ.get("RELIABILITY") == "full"


def share(fast: int, full: int) -> int:
    """How many cases to run."""
    return full if FULL else fast


@functools.cache
def commit() -> str:
    """What is proven."""
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "none"  # a copy that bugs are planted in


def keep(proof: str, fault: str, done: str, seen: str, *, seed: int | None = None) -> None:
    """Leave one line of the table, and print it.

    Args:
        proof: its number in the plan, such as `S2`; several lines may share one.
        fault: what was done to the log, in a few words: the same in every run.
        done: the counts of what was done, such as `1,240 kill points`.
        seen: the counts of what came of it, such as `0 lost, 0 phantom, 38 repeats`.
        seed: of a random proof.
    """
    line = {"proof": proof, "fault": fault, "done": done, "seen": seen, "seed": seed, "commit": commit()}
    print("figures:", json.dumps(line))
    if place := os.environ.get("RELIABILITY_FIGURES"):
        with (Path(place) / "figures.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")

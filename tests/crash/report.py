"""Write the table of RELIABILITY.md from the figures that the proofs left: `python -m tests.crash.report FIGURES`.

One line per proof, fault and run, in the order of the plan. Nothing is rounded, left out or filled in here; a proof
that left no figures is named as missing, and the command fails.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path("RELIABILITY.md")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PLAN = tuple(f"S{number}" for number in range(1, 19))


def read(place: Path) -> list[dict]:
    """Every line that a proof left, in the order of the plan."""
    lines = [json.loads(line) for line in (place / "figures.jsonl").read_text().splitlines()]
    return sorted(lines, key=lambda line: (int(line["proof"][1:]), line["fault"]))


def table(lines: list[dict]) -> str:
    """The table, in Markdown."""
    rows = ["| | Fault | Done | Seen | Seed |", "|---|---|---|---|---|"]
    for line in lines:
        seed = "" if line["seed"] is None else str(line["seed"])
        rows.append(f"| {line['proof']} | {line['fault']} | {line['done']} | {line['seen']} | {seed} |")
    return "\n".join(rows)


def machine() -> str:
    """What it ran on, without a name."""
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    system = Path("/etc/os-release").read_text().split('PRETTY_NAME="')[1].split('"')[0]
    return (
        f"{os.cpu_count()} cores, {memory_kb / 2**20:.0f} GiB of memory, {platform.machine()}, {system}, "
        f"kernel {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )


def main(place: Path) -> int:
    lines = read(place)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    head = f"{datetime.now(UTC):%Y-%m-%d}, commit {commit.stdout.strip()}. {machine()}."
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{head}\n\n{table(lines)}\n{END}{after}")
    missing = [proof for proof in PLAN if proof not in {line["proof"] for line in lines}]
    if missing:
        print(f"no figures of {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

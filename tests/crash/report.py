"""Write the tables of RELIABILITY.md from the figures that the proofs left: `python -m tests.crash.report FIGURES`.

One line per proof, fault and run, in the order of the plan. Nothing is rounded, left out or filled in here; a proof
that left no figures is named as missing, and the command fails. There is a table for the log (S) and one for what
clients were told (M); with a letter behind FIGURES only that one is written, and the other stays as it is, with its own
date and commit.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path("RELIABILITY.md")
PLAN = {"S": tuple(f"S{number}" for number in range(1, 19)), "M": ("M20", "M21")}
"""Proofs by table."""


def read(place: Path, letter: str) -> list[dict]:
    """Every line that a proof of one table left, in the order of the plan."""
    lines = [json.loads(line) for line in (place / "figures.jsonl").read_text().splitlines()]
    own = [line for line in lines if line["proof"].startswith(letter)]
    return sorted(own, key=lambda line: (int(line["proof"][1:]), line["fault"]))


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


def replaced(page: str, letter: str, lines: list[dict], head: str) -> str:
    """The page with another table."""
    begin, end = f"<!-- figures {letter}: begin -->", f"<!-- figures {letter}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{head}\n\n{table(lines)}\n{end}{after}"


def main(place: Path, letters: list[str]) -> int:
    missing: list[str] = []
    for letter in letters or list(PLAN):
        lines = read(place, letter)
        commits = " and ".join(dict.fromkeys(line["commit"] for line in lines))
        head = f"{datetime.now(UTC):%Y-%m-%d}, commit {commits}. {machine()}."
        PAGE.write_text(replaced(PAGE.read_text(), letter, lines, head))
        missing += [proof for proof in PLAN[letter] if proof not in {line["proof"] for line in lines}]
    if missing:
        print(f"no figures of {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))

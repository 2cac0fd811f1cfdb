"""Tests of the tests: plant a bug in a copy of the source and see the suite fail. `python -m tests.mutants [NAME]`

Each planted bug is one of those that lose data in the field, or goes against a clause of MQTT. The copy is made from
what git knows, so that the source itself is never touched; the named tests must pass without the bug and fail with it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.clauses import BREACHES
from tests.mutants.plan import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]


def copy_tree(to: Path) -> None:
    """Everything that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes((ROOT / name).read_bytes())


def run(tree: Path, tests: tuple[str, ...]) -> tuple[bool, str]:
    """Whether the tests pass, and the line that says what failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run {tests}:\n{done.stdout}{done.stderr}")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 0, failed[0].split(" - ")[0] if failed else ""


def try_mutant(tree: Path, mutant: Mutant) -> tuple[bool, str]:
    """Whether the bug is caught, and by which test."""
    path = tree / mutant.file
    sound = path.read_text()
    assert sound.count(mutant.old) == 1, f"{mutant.name}: its place in {mutant.file} has changed"
    path.write_text(sound.replace(mutant.old, mutant.new))
    try:
        passed, by = run(tree, mutant.tests)
    finally:
        path.write_text(sound)
    return not passed, by


def main(names: list[str]) -> int:
    mutants = [mutant for mutant in (*MUTANTS, *BREACHES) if not names or mutant.name in names]
    survived = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as home:
        tree = Path(home)
        copy_tree(tree)
        tests = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
        passed, by = run(tree, tests)
        if not passed:
            print(f"without any planted bug the tests fail already: {by}")
            return 1
        for mutant in mutants:
            began_s = time.monotonic()
            caught, by = try_mutant(tree, mutant)
            took_s = time.monotonic() - began_s
            print(f"{'caught  ' if caught else 'SURVIVED'} {mutant.name:<40} {took_s:5.1f} s  {by}", flush=True)
            if not caught:
                survived.append(mutant.name)
    print(f"{len(mutants) - len(survived)} of {len(mutants)} planted bugs are caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

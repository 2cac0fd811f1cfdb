"""S18: the kernel kills the process because its control group is out of memory, wherever it stands just then.

Needs root and the memory controller of control groups, in either version. The life grows with every batch until its
group's limit is reached; the kill then strikes in whichever thread and call wants the next page.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.cases import Case, Seen, name_of, repeats
from tests.crash.figures import FULL, keep, share
from tests.crash.processes import Lane, Lanes, open_lanes
from tests.oracle import read_journal

GROUPS = Path("/sys/fs/cgroup")
MIB = 1024 * 1024


class MemoryGroup:
    """A control group with a limit, for as long as it is used."""

    def __init__(self, name: str) -> None:
        unified = not (GROUPS / "memory").is_dir()
        self.path = (GROUPS if unified else GROUPS / "memory") / name
        self._limit = "memory.max" if unified else "memory.limit_in_bytes"
        self._kills = "memory.events" if unified else "memory.oom_control"
        self.path.mkdir()
        if not (self.path / self._limit).exists():
            self.path.rmdir()
            raise AssertionError("no memory controller: enable it in cgroup.subtree_control of the root group")

    def limit(self, size_bytes: int) -> None:
        """Let it have no more than this."""
        (self.path / self._limit).write_text(str(size_bytes))

    def kills(self) -> int:
        """How many processes the kernel has killed in it."""
        lines = (line.split() for line in (self.path / self._kills).read_text().splitlines())
        return next(int(value) for name, value in lines if name == "oom_kill")

    def close(self) -> None:
        self.path.rmdir()


@pytest.fixture
def groups(root) -> Iterator[list[MemoryGroup]]:
    """One for each lane."""
    made = [MemoryGroup(f"egw-{os.getpid()}-{number}") for number in range(2)]
    yield made
    for group in made:
        group.close()


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    with open_lanes() as lanes:
        yield lanes


@pytest.mark.timeout(3_600 if FULL else 180)
def test_the_kernel_may_kill_it_for_want_of_memory_and_nothing_is_lost(groups, lanes: Lanes, tmp_path, seed):
    """Laws L2, L3, L5: at whatever moment the memory runs out; the next start is told nothing."""
    free = list(groups)

    def one(lane: Lane, number: int) -> tuple[Seen, int]:
        rng = random.Random(seed + number)
        case = Case(tmp_path / name_of(number))
        case.home.mkdir()
        group = free.pop()
        group.limit(rng.randint(16, 32) * MIB)
        before = group.kills()
        growth = ("--rate", 1_000.0, "--balloon-kib", rng.choice((24, 64, 256, 1_024)), "--seed", rng.randrange(2**32))
        life = ("flood", case.data, case.journal, *growth)
        lane.start("workload", *life, output=case.output, groups=[group.path])
        code = lane.wait()
        assert code == -signal.SIGKILL, f"{case.home} ended with {code}: {case.output.read_text()[-3_000:]}"
        assert group.kills() > before, f"{case.home} was killed, but not for want of memory"
        free.append(group)
        acknowledged = len(read_journal(case.journal)[1])
        seen = case.judge(lane, "flood")
        case.clear()
        return seen, acknowledged

    found = lanes.each(one, range(share(6, 100)))
    acknowledged = sorted(count for _, count in found)
    keep(
        "S18",
        "killed by the kernel for want of memory, in a control group of 16 to 32 MiB",
        f"{len(found)} kills, after {acknowledged[0]:,} to {acknowledged[-1]:,} records acknowledged",
        repeats([seen for seen, _ in found], 1),
        seed=seed,
    )

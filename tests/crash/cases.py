"""A life at a time, each with a directory of its own: laid out, put an end to, and judged.

`Script` knows the scripted lives (`tests.crash.workload`) call by call: it has each of them lived once under strace,
and names every call that changes the data directory as a `Point` where a fault can strike. What a case has left behind
is deleted once it has been judged sound; else it stays for whoever wants to look, and the failure says where.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.crash.processes import Lane
from tests.crash.strace import HARMLESS, Aim, Call, Tracer, aims, was_interrupted
from tests.crash.workload import GATES, IN_FLIGHT, WINDOW

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 256 * 1024 * 1024
LIVES = (1, 2)


class Seen(NamedTuple):
    """What `tests.crash.verdict` says of a directory that it found sound."""

    acknowledged: int
    log_repeats: int
    sink_repeats: int
    ready_ms: float


def repeats(found: Sequence[Seen], faults: int) -> str:
    """The figures of cases that saw so many faults each."""
    log, sink = max(each.log_repeats for each in found), max(each.sink_repeats for each in found)
    return (
        f"0 lost, 0 phantom, 0 disordered; repeats at most {log} in the log (bound {faults * IN_FLIGHT}), "
        f"{sink} at the sink (bound {faults * (WINDOW + IN_FLIGHT)})"
    )


@dataclass(frozen=True)
class Case:
    """A data directory, the account of what happened to it, and what its processes said."""

    home: Path

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def journal(self) -> Path:
        return self.home / "journal"

    @property
    def output(self) -> Path:
        return self.home / "output"

    @property
    def trace(self) -> Path:
        return self.home / "trace"

    def copy(self, home: Path) -> Case:
        """The same, elsewhere."""
        shutil.copytree(self.home, home)
        return Case(home)

    def judge(self, lane: Lane, kind: str = "script", *, faults: int = 1) -> Seen:
        """Start again after the fault; fail unless everything is as it must be."""
        code = lane.run("verdict", kind, self.data, self.journal, "--faults", faults, output=self.output)
        said = self.output.read_text()
        assert code == 0, f"{self.home}: exit code {code} of the start after the fault\n{said[-3_000:]}"
        return Seen(**json.loads(said.splitlines()[-1]))

    def clear(self) -> None:
        """It was sound."""
        shutil.rmtree(self.home)


@contextlib.contextmanager
def workspace(beside: Path) -> Iterator[Path]:
    """Where cases lie: in memory if there is enough, since a kill does not ask for the medium and a sync then is free.

    Args:
        beside: on disk, to be used if there is not.
    """
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ENOUGH_BYTES
    home = Path(tempfile.mkdtemp(prefix="egw-kill-", dir=_MEMORY if roomy else beside))
    yield home
    shutil.rmtree(home / "script", ignore_errors=True)
    with contextlib.suppress(OSError):  # cases that failed are still in it
        home.rmdir()


class Point(NamedTuple):
    """A call of a scripted life at which a fault can strike."""

    life: int
    phase: str
    aim: Aim
    position: int
    """How many calls that change the directory this phase has made by then, this one included."""
    kind: str
    """What it does to which kind of file."""

    def __str__(self) -> str:
        return f"life {self.life}, {self.phase}, {self.aim.name} {self.aim.nth}"


class Lived(NamedTuple):
    """A life that strace has meddled with."""

    case: Case
    pid: int
    """Also the number of its main thread."""
    code: int
    """Exit code; negative for the signal that killed it."""
    calls: list[Call]


class Script:
    """The two scripted lives, call by call."""

    def __init__(self, lane: Lane, home: Path) -> None:
        """Have them lived, once for each phase.

        Args:
            lane: who lives them.
            home: where to keep what the first life leaves to the second, and the recordings.
        """
        self.points: list[Point] = []
        self.unseen: set[str] = set()
        """Names of calls on the directory of which it is not known whether they change it."""
        self.unreachable: list[Call] = []
        self._before: dict[int, Case] = {}
        """What each life finds."""
        empty = Case(home / "before-1")
        empty.home.mkdir(parents=True)
        self._before[1] = empty
        for life in LIVES:
            changes_by_phase = {phase: self._record(lane, home, life, phase) for phase in GATES}
            for phase, following in zip(GATES, (*GATES[1:], None), strict=True):
                changes, reachable = changes_by_phase[phase]
                later = len(changes_by_phase[following][0]) if following is not None else 0
                own = changes[: len(changes) - later]
                for position, (index, call) in enumerate(own, 1):
                    if index in reachable:
                        kind = f"{phase} {call.name} {_kind_of(call)}"
                        self.points.append(Point(life, phase, reachable[index], position, kind))
                    else:
                        self.unreachable.append(call)
        self.finished = Case(home / f"lived-{LIVES[-1]}-open")

    def _record(self, lane: Lane, home: Path, life: int, phase: str) -> tuple[list[tuple[int, Call]], dict[int, Aim]]:
        """What a life does from a gate to its end: the calls that change the directory, and how to strike each."""
        while True:
            case = self.begin(life, home / f"lived-{life}-{phase}")
            lane.start("workload", *self.arguments(case, life, phase), output=case.output)
            tracer = Tracer(lane.pid, case.trace, everything=True)
            lane.go_on()
            assert lane.wait() == 0, case.output.read_text()
            calls = tracer.calls()
            if not was_interrupted(calls, case.data):
                break
            case.clear()
        touching = {call.name for call in calls if call.touches(case.data) and not call.changes(case.data)}
        self.unseen |= touching - HARMLESS
        self._before.setdefault(life + 1, case)
        changes = [(index, call) for index, call in enumerate(calls) if call.changes(case.data)]
        return changes, {aim.index: aim for aim in aims(calls, case.data)}

    def sample(self, rng: random.Random, count: int) -> list[Point]:
        """One point of each kind, and others up to a count."""
        points = rng.sample(self.points, len(self.points))
        one_each = {point.kind: point for point in points}
        rest = [point for point in points if one_each[point.kind] is not point]
        return [*one_each.values(), *rest[: max(0, count - len(one_each))]]

    def begin(self, life: int, home: Path) -> Case:
        """A directory as this life finds it."""
        return self._before[life].copy(home)

    @staticmethod
    def arguments(case: Case, life: int, phase: str) -> tuple[object, ...]:
        """How to live it up to a gate."""
        return "script", case.data, case.journal, "--life", life, "--gate", phase

    def live(self, lane: Lane, point: Point, home: Path, *injections: str) -> Lived:
        """Live the life of a point under strace, which injects something."""
        case = self.begin(point.life, home)
        lane.start("workload", *self.arguments(case, point.life, point.phase), output=case.output)
        pid = lane.pid
        tracer = Tracer(pid, case.trace, inject=injections)
        lane.go_on()
        return Lived(case, pid, lane.wait(), tracer.calls())


def _kind_of(call: Call) -> str:
    """The paths of a call, less what differs from one case and one segment to the next."""
    return " ".join(re.sub(r"^.*/data\b|\d+", "", path) for path in call.paths if path)


def name_of(number: int) -> str:
    """Of the directory of a case."""
    return f"case-{number:05d}-{os.getpid()}"

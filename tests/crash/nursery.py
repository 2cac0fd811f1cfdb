"""Processes that fork the lives of `tests.crash.fused`: one starts in milliseconds, with everything imported."""

from __future__ import annotations

import queue
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tests.crash.fused import Places

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = 2

Case = TypeVar("Case")
Answer = TypeVar("Answer")


class Nursery:
    """As many processes as work at once, each of which forks one life at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.crash.fused"]
        self._servers = [
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(AT_ONCE)
        ]
        self._idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        for each in self._servers:
            self._idle.put(each)

    def live(self, place: Path, what: str = "script", *, at: int = 0, variant: bool = False) -> int:
        """One life; how it ended, as `os.waitstatus_to_exitcode` says it. The arguments are those of `fused.run`."""
        server = self._idle.get()
        try:
            server.stdin.write(f"{place} {what} {at} {variant}\n")
            server.stdin.flush()
            answer = server.stdout.readline()
            assert answer, "the nursery is gone"
            return int(answer)
        finally:
            self._idle.put(server)

    def calls_of(self, place: Path, what: str = "script") -> int:
        """How many calls a life makes that nobody ends."""
        place.mkdir()
        assert self.live(place, what) == 0
        return int(Places(place).count.read_text())

    def each(self, judge: Callable[[Case], Answer], cases: Iterable[Case]) -> list[Answer]:
        """Judge every case, as many at once as there are processes."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(judge, cases))

    def close(self) -> None:
        for each in self._servers:
            with each as server:
                server.stdin.close()

"""Cheap processes to kill: a server that has imported everything and opened nothing forks one for each request.

A life under test costs a few milliseconds that way instead of the quarter second that the interpreter takes to start.
The fork is an ordinary process: it has no thread, no file of ours and no event loop before its own `main` begins.

The server (`python -m tests.crash.processes`) takes one JSON object a line on stdin, `{"module", "arguments", "output",
"groups"}`, and answers with lines: `pid N`, then `stopped` if the life stops at a gate, then `exit N`, negative for the
signal that killed it. It serves one life at a time; several run beside each other by several servers.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).parents[2]
PATIENCE_S = 60.0
"""A life that takes longer hangs, and fails its test."""
_PR_SET_PTRACER = 0x59616D61
_ANY = ctypes.c_ulong(-1)
_MODULES = ("tests.crash.workload", "tests.crash.verdict")

Case = TypeVar("Case")
Result = TypeVar("Result")


class Lane:
    """A server, and the life that it has at present. Used by one thread at a time."""

    def __init__(self, *modules: str) -> None:
        """Args: modules: of `tests.crash`, to have imported before a life begins; none: those of the log's proofs."""
        command = [sys.executable, "-m", "tests.crash.processes", *(f"tests.crash.{name}" for name in modules)]
        self._server = subprocess.Popen(command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._answers: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, name="tests.crash.lane")
        self._listener.start()
        self.pid = 0

    def start(self, module: str, *arguments: object, output: Path, groups: Iterable[Path] = ()) -> None:
        """Begin a life; with `--gate` among its arguments, return when it has stopped there.

        Args:
            module: of `tests.crash`, whose `main` it runs.
            arguments: for that.
            output: where it prints to.
            groups: control groups to join first.
        """
        request = {
            "module": f"tests.crash.{module}",
            "arguments": list(map(str, arguments)),
            "output": str(output),
            "groups": list(map(str, groups)),
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        self.pid = int(self._expect("pid"))
        if "--gate" in arguments:
            self._expect("stopped")

    def go_on(self) -> None:
        """Let it pass its gate."""
        os.kill(self.pid, signal.SIGCONT)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """How it ended.

        Raises:
            TimeoutError: if it has not.
        """
        return int(self._expect("exit", timeout_s))

    def kill(self) -> int:
        """End it now. How it ended: it may have been faster."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def run(self, module: str, *arguments: object, output: Path) -> int:
        """A whole life. How it ended."""
        self.start(module, *arguments, output=output)
        return self.wait()

    def close(self) -> None:
        """End the server, and the life that it has if there is one."""
        assert self._server.stdin is not None
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._server.stdin.close()
        self._server.wait(PATIENCE_S)
        self._listener.join()
        assert self._server.stdout is not None
        self._server.stdout.close()

    def _listen(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            self._answers.put(line.decode().split())
        self._answers.put(["gone"])

    def _expect(self, kind: str, timeout_s: float = PATIENCE_S) -> str:
        """The next answer of this kind. A life that a tracer holds may be reported as stopped at any time."""
        while True:
            try:
                found, *words = self._answers.get(timeout=timeout_s)
            except queue.Empty:
                raise TimeoutError(f"no {kind!r} of process {self.pid}") from None
            if found == "exit":
                self.pid = 0
            if found == kind:
                return words[0] if words else ""
            assert found == "stopped", f"{found} {words} instead of {kind}"


class Lanes:
    """Several servers, for cases that run beside each other."""

    def __init__(self, count: int = 2) -> None:
        self._lanes = [Lane() for _ in range(count)]

    def each(self, judge: Callable[[Lane, Case], Result], cases: Sequence[Case]) -> list[Result]:
        """`judge` for every case, in any order; the results in that of the cases. The first failure ends it."""
        free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for lane in self._lanes:
            free.put(lane)

        def one(case: Case) -> Result:
            lane = free.get()
            try:
                return judge(lane, case)
            finally:
                free.put(lane)

        with ThreadPoolExecutor(len(self._lanes)) as pool:
            futures = [pool.submit(one, case) for case in cases]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    @property
    def first(self) -> Lane:
        """For what comes alone."""
        return self._lanes[0]

    def close(self) -> None:
        for lane in self._lanes:
            lane.close()


@contextlib.contextmanager
def open_lanes(count: int = 2) -> Iterator[Lanes]:
    """Servers for as long as they are wanted."""
    lanes = Lanes(count)
    try:
        yield lanes
    finally:
        lanes.close()


def serve() -> None:
    """Fork a life for each line on stdin. See the module."""
    for name in sys.argv[1:] or _MODULES:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            live(request)
        say(f"pid {pid}")
        while True:
            _, status = os.waitpid(pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            say("stopped")
        say(f"exit {os.waitstatus_to_exitcode(status)}")


def live(request: dict) -> None:
    """In the fork: become what was asked for, and never return."""
    status = 1
    try:
        for group in request["groups"]:
            Path(group, "cgroup.procs").write_text(str(os.getpid()))
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for fd, source in ((0, nothing), (1, output), (2, output)):
            os.dup2(source, fd)
        os.close(output)
        os.close(nothing)
        # A tracer that is not an ancestor needs leave where the kernel's Yama module says so.
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)
        status = importlib.import_module(request["module"]).main(request["arguments"])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def say(answer: str) -> None:
    """One line to whoever asked."""
    os.write(1, answer.encode() + b"\n")


if __name__ == "__main__":
    serve()

"""Following a process with strace, and letting chosen system calls of it fail or be its last.

strace counts the calls of an injection by thread and by name: `fsync` when=3 strikes in whichever thread is the first
to make its own third `fsync` since strace attached. So a life stops at a gate before each of its phases (see
`tests.crash.workload`), strace attaches there, and counting begins with the phase; within one, all calls of a name that
change the disk come from one thread. `aims` works out which call such an injection strikes, from a recording of an
undisturbed life, and names every call that none would strike.

A kill comes before the call is carried out. A line is `PID name(arguments) = result`; with `-y` a descriptor is shown
as `5</path>`.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SYNCS = ("fdatasync", "fsync")
CHANGES = (
    *("pwrite64", "write", "writev", "pwritev", "pwritev2", *SYNCS, "ftruncate", "truncate", "fallocate"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "link", "linkat"),
    *("symlink", "symlinkat", "copy_file_range", "sendfile", "fchmod", "fchmodat", "chmod", "creat"),
)
"""Calls that change what a directory tree holds, or how much of that is on the medium; and `openat` that creates."""
HARMLESS = frozenset(
    (
        *("open", "openat", "close", "dup", "dup2", "dup3", "read", "pread64", "preadv", "lseek", "mmap"),
        *("stat", "fstat", "lstat", "newfstatat", "statx", "statfs", "fstatfs", "access", "faccessat", "faccessat2"),
        *("getdents64", "readlink", "readlinkat", "getcwd", "fcntl", "flock", "ioctl", "fadvise64"),
    )
)
"""Calls that only look; `openat` as long as it does not create."""
_WATCHED = ("openat", "open", "close", *CHANGES)
_INTERRUPTED = frozenset(("EINTR", "ERESTARTSYS", "ERESTARTNOINTR", "ERESTARTNOHAND"))
_LINE = re.compile(r"^(?P<tid>\d+) +(?P<name>\w+)\((?P<rest>.*)$")
_RESUMED = re.compile(r"^(?P<tid>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
_RESULT = re.compile(r"\) += (?P<value>\S+)(?: (?P<error>E[A-Z]+))?.*$")
_FD = re.compile(r"^(?P<fd>\d+)<(?P<path>[^>]*)>")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


class Call(NamedTuple):
    """One system call of one thread."""

    tid: int
    name: str
    arguments: str
    paths: tuple[str, ...]
    """Every path in its arguments, that of its descriptor first."""
    fd: int | None
    """The descriptor that it works on."""
    error: str | None
    """Such as `EIO`."""
    value: str
    """What it returned; `?` if the process was killed first."""

    def changes(self, tree: Path) -> bool:
        """Whether it changes something in this directory tree."""
        creates = self.name in {"openat", "open"} and "O_CREAT" in self.arguments
        return (self.name in CHANGES or creates) and self.touches(tree)

    def touches(self, tree: Path) -> bool:
        """Whether it names something in this directory tree."""
        return any(Path(path).is_relative_to(tree) for path in self.paths)


class Aim(NamedTuple):
    """An injection, and the call that it strikes."""

    name: str
    nth: int
    """Since strace attached, among the calls of this name by that thread."""
    index: int
    """Of the call, in the recording."""


class Tracer:
    """strace on a process that stands at a gate."""

    def __init__(
        self,
        pid: int,
        output: Path,
        *,
        inject: Sequence[str] = (),
        everything: bool = False,
        also: Sequence[str] = (),
        alone: bool = False,
    ) -> None:
        """Attach. When this returns, no call goes by unseen.

        Args:
            pid: of the process; all its threads are followed, and those that it starts.
            output: where the calls are written.
            inject: each such as `fdatasync:error=EIO:when=3+`.
            everything: write down all calls on files, not only those that matter.
            also: names of calls to be written down besides.
            alone: follow only the thread whose number `pid` is.
        """
        watched = "%file,%desc" if everything else ",".join(f"?{name}" for name in (*_WATCHED, *also))
        follow = [] if alone else ["-f"]
        command = ["strace", *follow, "-y", "-s", "0", "-e", "signal=none", "-e", f"trace={watched}", "-o", str(output)]
        for each in inject:
            command += ["-e", f"inject={each}"]
        self._output = output
        self._prefix = f"{pid} " if alone else ""
        self._process = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        if "attached" not in said:
            said += self._process.communicate()[1]
            raise AssertionError(f"strace cannot trace process {pid}: {said}")

    def calls(self) -> list[Call]:
        """Everything it saw, once the process has ended."""
        _, said = self._process.communicate(timeout=60)
        assert self._process.returncode in {0, -9, 137, 3, 4, 1}, said
        lines = self._output.read_text().splitlines()
        return parse("\n".join(self._prefix + line for line in lines))


def parse(text: str) -> list[Call]:
    """The calls in strace's output, in the order in which they were begun."""
    begun: list[tuple[int, str, str]] = []
    ends: dict[int, str] = {}
    waiting: dict[int, int] = {}
    for line in text.splitlines():
        if match := _LINE.match(line):
            tid, rest = int(match["tid"]), match["rest"]
            begun.append((tid, match["name"], rest))
            if rest.endswith("<unfinished ...>"):
                waiting[tid] = len(begun) - 1
            else:
                ends[len(begun) - 1] = rest
        elif match := _RESUMED.match(line):
            index = waiting.pop(int(match["tid"]))
            ends[index] = begun[index][2].removesuffix("<unfinished ...>") + match["rest"]
    return [_call(tid, name, ends.get(index, rest)) for index, (tid, name, rest) in enumerate(begun)]


def _call(tid: int, name: str, rest: str) -> Call:
    result = _RESULT.search(rest)
    arguments = rest[: result.start()] if result else rest
    descriptor = _FD.match(arguments)
    paths = ([descriptor["path"]] if descriptor else []) + _QUOTED.findall(arguments)
    fd = int(descriptor["fd"]) if descriptor else None
    return Call(
        tid, name, arguments, tuple(paths), fd, result["error"] if result else None, result["value"] if result else "?"
    )


def aims(calls: Sequence[Call], tree: Path) -> list[Aim]:
    """How to strike each call that changes a tree; one that no injection would strike first is left out.

    Args:
        calls: of an undisturbed life, from the moment at which strace attached.
        tree: the data directory.
    """
    counts: Counter[tuple[int, str]] = Counter()
    struck: dict[tuple[str, int], int] = {}
    for index, call in enumerate(calls):
        counts[call.tid, call.name] += 1
        struck.setdefault((call.name, counts[call.tid, call.name]), index)
    found = [Aim(name, nth, index) for (name, nth), index in struck.items() if calls[index].changes(tree)]
    return sorted(found, key=lambda aim: aim.index)


def was_interrupted(calls: Sequence[Call], tree: Path) -> bool:
    """Whether a change had to be asked for twice: `fallocate` gives up at any wake-up, and Python asks again.

    Such a call shifts all counts behind it. strace's own attaching can cause one.
    """
    return any(call.error in _INTERRUPTED for call in calls if call.changes(tree))


def asked_again(calls: Sequence[Call]) -> list[Call]:
    """Syncs and writes on a descriptor after a sync on it had failed, and before it was closed."""
    spoilt: set[int] = set()
    wrong = []
    for call in calls:
        if call.fd is None:
            continue
        if call.name == "close":
            spoilt.discard(call.fd)
        elif call.fd in spoilt and (call.name in SYNCS or "write" in call.name):
            wrong.append(call)
        if call.name in SYNCS and call.error is not None:
            spoilt.add(call.fd)
    return wrong

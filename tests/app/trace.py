"""Reads a trace of system calls: what was on the medium when something was said to a device.

`strace -f -yy -xx` writes one line per call, two where another thread came between:

    7  pwrite64(9</data/events/1.seg>, "\\x00...", 4096, 8192) = 4096
    7  fdatasync(9</data/events/1.seg> <unfinished ...>
    8  write(12<TCP:[127.0.0.1:1883->127.0.0.1:40001]>, "\\x40\\x02\\x00\\x01", 4) = 4
    7  <... fdatasync resumed>) = 0
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

CALLS = "trace=fdatasync,pwrite64,write,writev,sendto,sendmsg"
_LINE = re.compile(r"^(\d+)\s+(.*)$")
_FILE = re.compile(r"^(fdatasync|pwrite64)\(\d+<([^>]*)>")
_PLACE = re.compile(r", (\d+), (\d+)\)?(?: <unfinished|\s+=|$)")
_SEND = re.compile(r"^(?:write|writev|sendto|sendmsg)\(\d+<TCP:\[[^\]]*->[^\]]*:(\d+)\]>(.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Verdict:
    """What a trace showed."""

    acknowledged: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """By port of the device: packet ids, in the order in which their PUBACKs left."""
    early: list[tuple[int, int]] = field(default_factory=list)
    """PUBACKs that left before a sync which covers their event had begun after its write and had returned."""
    syncs: int = 0


def judge(trace: str, places: dict[tuple[int, int], tuple[str, int, int]]) -> Verdict:
    """Follow a trace.

    Args:
        trace: as above.
        places: by port and packet id, where the event lies: file, first byte, and the byte after the last.
    """
    verdict = Verdict()
    under_way: dict[str, tuple[str, str, object]] = {}
    written: dict[str, list[tuple[int, int]]] = defaultdict(list)
    durable: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def finish(pid: str) -> None:
        call, path, what = under_way.pop(pid)
        if call == "pwrite64":
            written[path].append(what)
        else:
            durable[path] += what
            verdict.syncs += 1

    for line in trace.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        pid, rest = match.groups()
        if rest.startswith("<... "):
            if pid in under_way:
                finish(pid)
            continue
        if found := _FILE.match(rest):
            call, path = found[1], _plain(found[2])
            if call == "pwrite64":
                size, offset = map(int, _PLACE.search(rest).groups())
                under_way[pid] = (call, path, (offset, offset + size))
            else:  # it covers what had been written when it began
                under_way[pid] = (call, path, written.pop(path, []))
            if "<unfinished" not in rest:
                finish(pid)
        elif found := _SEND.match(rest):
            port = int(found[1])
            data = b"".join(bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(found[2]))
            for mid in _pubacks(data):
                verdict.acknowledged[port].append(mid)
                path, start, end = places.get((port, mid), ("", 0, 0))
                if not any(low <= start and end <= high for low, high in durable[path]):
                    verdict.early.append((port, mid))
    return verdict


def _plain(path: str) -> str:
    return bytes.fromhex(path.replace("\\x", "")).decode() if path.startswith("\\x") else path


def _pubacks(data: bytes) -> list[int]:
    mids, at = [], 0
    while at < len(data):
        if data[at] == 0x40:
            mids.append(int.from_bytes(data[at + 2 : at + 4], "big"))
        at += 2 + data[at + 1]
    return mids

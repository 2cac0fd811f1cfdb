"""Replacing a log's directory as a whole: a crash leaves the old one, the new one, or what the next start finishes.

    events/             the log
    events.repaired/    its replacement while it is being built; complete once its `meta` can be read
    events.damaged-1/   what events/ was before a repair; nobody touches it again

    1  discard what is left of an earlier try, build events.repaired/, sync it, check it; its meta comes last
    2  rename events -> events.damaged-N, sync the data directory
    3  rename events.repaired -> events, sync the data directory

Invariants:
- While `events/` is there, it is the log, and a replacement beside it is half-done and worth nothing.
- If it is missing, the log is what stands beside it: the complete replacement, else the newest that was moved aside. An
  empty log is begun only where there is neither.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gateway.ringlog.slots import SlotFile

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.ringlog.storage import Storage

META = "meta"
_REPAIRED = ".repaired"
_DAMAGED = ".damaged-"


def settle(storage: Storage, data_dir: Path, log: str) -> str | None:
    """Before a log is opened: if its directory is missing and another one stands for it, put that in its place.

    Returns:
        The name of the directory that is now the log; None if there was nothing to do.

    Raises:
        OSError: if the disk refuses. Call it again.
    """
    found = stand_in(storage, data_dir, log)
    if found is not None:
        storage.rename(data_dir / found, data_dir / log)
        storage.sync_dir(data_dir)
    return found


def stand_in(storage: Storage, data_dir: Path, log: str) -> str | None:
    """The name of the directory that is the log, although its name says otherwise; None if there is no such case."""
    names = set(storage.names(data_dir))
    repaired = log + _REPAIRED
    if log in names:
        return None
    if repaired in names and _is_complete(storage, data_dir / repaired):
        return repaired
    numbers = _numbers(names, log)
    if numbers:
        return f"{log}{_DAMAGED}{numbers[-1]}"
    # Half a copy, and no original: somebody has moved that away. Half is better than nothing.
    return repaired if repaired in names else None


def begin(storage: Storage, data_dir: Path, log: str) -> Path:
    """An empty directory for the replacement.

    Raises:
        OSError: if the disk refuses.
    """
    discard(storage, data_dir, log)
    path = data_dir / (log + _REPAIRED)
    storage.make_dir(path)
    return path


def discard(storage: Storage, data_dir: Path, log: str) -> bool:
    """Remove what is left of a replacement. False if there is none. Only while the log itself is there.

    Raises:
        OSError: if the disk refuses.
    """
    names = storage.names(data_dir)
    assert log in names, "what may be the only copy is never removed"
    if log + _REPAIRED not in names:
        return False
    path = data_dir / (log + _REPAIRED)
    # Its claim to be complete goes first, and for good.
    storage.remove(path / META)
    storage.sync_dir(path)
    for name in storage.names(path):
        storage.remove(path / name)
    path.rmdir()
    storage.sync_dir(data_dir)
    return True


def replace(storage: Storage, data_dir: Path, log: str) -> Path:
    """Put the replacement in the log's place.

    Returns:
        Where the former one lies.

    Raises:
        OSError: if the disk refuses. `settle` then finishes it.
    """
    assert _is_complete(storage, data_dir / (log + _REPAIRED)), "only a complete replacement takes a log's place"
    aside = data_dir / f"{log}{_DAMAGED}{max(_numbers(set(storage.names(data_dir)), log), default=0) + 1}"
    storage.rename(data_dir / log, aside)
    storage.sync_dir(data_dir)
    storage.rename(data_dir / (log + _REPAIRED), data_dir / log)
    storage.sync_dir(data_dir)
    return aside


def give_to_owner(copy: Path, original: Path) -> None:
    """What root has built must still belong to the user as whom the gateway runs.

    Raises:
        OSError: if the disk refuses.
    """
    owner = original.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in (*copy.iterdir(), copy):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fchown(fd, owner.st_uid, owner.st_gid)
                os.fsync(fd)
            finally:
                os.close(fd)


def _is_complete(storage: Storage, path: Path) -> bool:
    return SlotFile(storage, path / META).load() is not None


def _numbers(names: set[str], log: str) -> list[int]:
    numbers = (name.removeprefix(log + _DAMAGED) for name in names if name.startswith(log + _DAMAGED))
    return sorted(int(number) for number in numbers if number.isdecimal())

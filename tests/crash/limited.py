"""A writer that runs against a limit of its own process: `python -m tests.crash.limited DIRECTORY LIMIT LEFT`.

Keeps `journal` and a store in `data` in the directory. Prints what it saw as one line of JSON, the last one.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
from dataclasses import replace
from pathlib import Path

from tests.conftest import HandClock
from tests.crash.writer import KIB, SMALL, Witness, is_dead, open_store, settled

SETTINGS = replace(SMALL, max_size_bytes=16_384 * KIB, segment_size_bytes=256 * KIB)
"""A segment is larger than any limit on the size of files that the tests set, and a journal is smaller."""
WAIT_S = 20.0


async def run_into_limit(directory: Path, limit: str, left: int) -> dict[str, object]:
    """Send, lower a limit of this process, be held, raise it again, send on, close."""
    witness = Witness(directory / "journal", random.Random(left))
    store = open_store(directory / "data", HandClock(), SETTINGS)
    for _ in range(5):
        witness.send(store, 10, size_bytes=1_000)
        await store.committer.flush()
    free = os.dup(0)  # the lowest number that the next descriptor can have
    os.close(free)
    which, lowered = {
        "descriptors": (resource.RLIMIT_NOFILE, max(0, free + left)),
        "file size": (resource.RLIMIT_FSIZE, left),
    }[limit]
    before = resource.getrlimit(which)
    resource.setrlimit(which, (lowered, before[1]))
    try:
        while not is_dead(store):
            witness.send(store, 10, size_bytes=1_000)
            await settled(store)
        held, told = dict(store.committer.held), witness.told
        witness.send(store, 10)
        await asyncio.sleep(0)
        told = witness.told - told
    finally:
        resource.setrlimit(which, before)
    async with asyncio.timeout(WAIT_S):
        await store.committer.flush()
    witness.send(store, 10)
    failure = store.committer.failure
    await store.close()
    return {"held": held, "acknowledged_while_held": told, "failure": failure and str(failure)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run_into_limit(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))))

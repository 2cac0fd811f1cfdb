"""A fresh process that opens a gateway on a data directory and says what that took: `python -m tests.crash.opening`.

Prints one line of JSON: seconds from the beginning of the process's own work to the open log and to the open port, and
the most memory it ever held.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from gateway.app.gateway import Gateway
from gateway.clock import SystemClock
from gateway.config.settings import (
    FileSinkSettings,
    HttpSettings,
    ListenSettings,
    LogSettings,
    Settings,
    TopicSettings,
)
from gateway.rules.reading.language import load_rules


def settings(data_dir: Path, log: LogSettings, sinks: list[str]) -> Settings:
    """A gateway with so many file sinks."""
    return Settings(
        gateway_id="gw",
        data_dir=data_dir,
        listen=ListenSettings(port=0),
        topics=(TopicSettings(topic="devices/{device}/{type}"),),
        log=log,
        http=HttpSettings(port=0),
        forward=tuple(FileSinkSettings(name=name, path=data_dir.parent / f"{name}.jsonl") for name in sinks),
    )


async def main(data_dir: Path, max_size_bytes: int, sinks: list[str]) -> None:
    """Open, start, tell, end."""
    begun_s = time.perf_counter()
    log = LogSettings(max_size_bytes=max_size_bytes, compress=False)
    gateway = Gateway(settings(data_dir, log, sinks), load_rules([]), SystemClock())
    open_s = time.perf_counter() - begun_s
    await gateway.start()
    ready_s = time.perf_counter() - begun_s
    events = gateway.store.events
    found = {
        "open_s": open_s,
        "ready_s": ready_s,
        "peak_mib": _peak_mib(),
        "events": events.appended.ordinal - events.floor.ordinal,
        "pending": [runner.pending for runner in gateway.runners],
    }
    await gateway.drain()
    print(json.dumps(found))


def _peak_mib() -> float:
    """Of this program: what getrusage tells begins with the memory of whoever started it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))

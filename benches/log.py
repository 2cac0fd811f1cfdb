"""Durable events a second into the log, beside what else could hold them and beside the limit, in one run.

    python -m benches.log [--rounds 9] [--folder .]

Input: 150-byte JSON telemetry of 20 devices from a fixed seed, in batches of 1, 10, 100 and 500. A batch is durable
before the next begins. All stores are open at once, each in a folder of its own, and take turns of 20 batches, in an
order that is drawn anew each time, so that a disk that others use too is equally slow for all of them; five turns of
each are a round, and figures are medians of rounds. CPU is of all threads, user and system. `written` is what was
handed to the kernel per byte of payload, `pages` what that came to in whole pages on their way to the disk
(/proc/self/io). The file system's own journal is in neither.

    log            what the writer thread does for a batch (`SegmentChain`), in the calling thread as all the others
    by the loop    the product's whole path: loop, writer thread, loop
    8 under way    the same, with eight batches on their way: those that wait share a sync
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import platform
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benches.log_stores import PLACES, RAW, Chunk, Place

SEED = 20_261_123
DEVICES = 20
SIZES = (1, 10, 100, 500)
BATCHES_A_TURN = 20
TURNS_A_ROUND = 5
EVENT_BY_EVENT = "persist-queue"
"""Has no batches: its turns are kept short."""


class Figures(NamedTuple):
    """Of one store and batch size, in one round."""

    rate: float
    """Events a second."""
    of_limit: float
    """The same, as a share of what the raw limit did in this round."""
    cpu_us: float
    """Per event."""
    written: float
    """Bytes handed to the kernel, per byte of payload."""
    pages: float
    """Bytes of pages made dirty, per byte of payload."""


def telemetry(count: int) -> Chunk:
    """Readings that drift as rooms do, from devices that take turns as they like."""
    rng = random.Random(SEED)
    rooms = [
        [rng.uniform(16, 26), rng.uniform(35, 65), rng.uniform(1_005, 1_020), rng.uniform(2.9, 3.3), 0]
        for _ in range(DEVICES)
    ]
    topics, payloads = [], []
    now_ms = 1_795_449_600_000
    for _ in range(count):
        number = rng.randrange(DEVICES)
        room = rooms[number]
        room[0] += rng.gauss(0, 0.05)
        room[1] += rng.gauss(0, 0.2)
        room[2] += rng.gauss(0, 0.02)
        room[3] -= rng.random() * 1e-5
        room[4] += 1
        now_ms += rng.randrange(1, 20)
        topics.append(f"devices/climate-{number:02}/telemetry")
        payloads.append(
            b'{"device":"climate-%02d","seq":%d,"ts":%d,"temperature":%.2f,"humidity":%.1f,"pressure":%.2f,'
            b'"battery_v":%.3f,"rssi":%d,"state":"ok"}'
            % (number, 40_000 + room[4], now_ms, *room[:4], -rng.randrange(58, 83))
        )
    return Chunk(topics, payloads)


def io_bytes() -> tuple[int, int]:
    """Bytes handed to the kernel so far, and bytes of pages made dirty."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"]), int(fields["write_bytes"])


class Totals:
    """What one store took, over the turns of one round."""

    def __init__(self) -> None:
        self.events = self.payload_bytes = self.written = self.pages = 0
        self.wall_s = self.cpu_s = 0.0

    def take_turn(self, place: Place, chunks: list[Chunk]) -> None:
        """Let the store take these batches, and add what that cost."""
        ready = [place.ready(chunk) for chunk in chunks]
        written, pages = io_bytes()
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        place.run(ready)
        self.wall_s += time.perf_counter() - wall_s
        self.cpu_s += time.process_time() - cpu_s
        now_written, now_pages = io_bytes()
        self.written += now_written - written
        self.pages += now_pages - pages
        self.events += sum(len(chunk.topics) for chunk in chunks)
        self.payload_bytes += sum(sum(map(len, chunk.payloads)) for chunk in chunks)

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.wall_s

    def figures(self, limit: float) -> Figures:
        """The same per event and per byte, beside the limit's rate in this round."""
        return Figures(
            self.rate,
            self.rate / limit,
            self.cpu_s / self.events * 1e6,
            self.written / self.payload_bytes,
            self.pages / self.payload_bytes,
        )


def compare(size: int, rounds: int, folder: Path) -> dict[str, Figures]:
    """Every store's medians for one size of batches."""
    a_turn = size * BATCHES_A_TURN
    source = telemetry(a_turn * (TURNS_A_ROUND * rounds + 1))
    order = random.Random(SEED)
    found: dict[str, list[Figures]] = {name: [] for name in PLACES}
    with contextlib.ExitStack() as stack:
        places: dict[str, Place] = {}
        for name, make in PLACES.items():
            own = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
            places[name] = make(own)
            stack.callback(places[name].close)
        gc.collect()
        gc.freeze()
        turns = iter(range(0, len(source.topics), a_turn))
        _round(places, source, size, [next(turns)], order)  # to warm up
        for _ in range(rounds):
            totals = _round(places, source, size, [next(turns) for _ in range(TURNS_A_ROUND)], order)
            for name, each in totals.items():
                found[name].append(each.figures(totals[RAW].rate))
    return {name: Figures(*map(statistics.median, zip(*each, strict=True))) for name, each in found.items()}


def _round(
    places: dict[str, Place], source: Chunk, size: int, turns: list[int], order: random.Random
) -> dict[str, Totals]:
    totals = {name: Totals() for name in places}
    for start in turns:
        chunks = [
            Chunk(source.topics[at : at + size], source.payloads[at : at + size])
            for at in range(start, start + size * BATCHES_A_TURN, size)
        ]
        for name in order.sample(list(places), len(places)):
            totals[name].take_turn(places[name], chunks[:1] if name == EVENT_BY_EVENT and size > 1 else chunks)
    return totals


def show(size: int, found: dict[str, Figures]) -> None:
    """One table, in Markdown, so that it can go where it is cited."""
    print(f"\n| batches of {size} | events/s | of the limit | µs CPU per event | written | pages |")
    print("|---|---|---|---|---|---|")
    for name, each in found.items():
        print(
            f"| {name} | {each.rate:,.0f} | {each.of_limit:.0%} | {each.cpu_us:.2f} "
            f"| {each.written:.2f} | {each.pages:.2f} |"
        )


def file_system(folder: Path) -> str:
    """The kind of file system a folder lies on."""
    found = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to be measured")
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=SIZES)
    words = parser.parse_args()
    kind = file_system(words.folder)
    if kind in {"tmpfs", "ramfs"}:
        parser.error(f"{words.folder} is on {kind}: a sync costs nothing there. Name a folder on a disk")
    mean_bytes = statistics.mean(map(len, telemetry(10_000).payloads))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, {kind}, "
        f"Python {platform.python_version()}; payloads of {mean_bytes:.0f} bytes, median of {words.rounds} rounds"
    )
    for size in words.sizes:
        show(size, compare(size, words.rounds, words.folder))


if __name__ == "__main__":
    main()

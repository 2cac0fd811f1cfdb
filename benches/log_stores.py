"""Places to put events durably, all of one shape: this log, what a limit would be, and what else one could take.

Each is durable in the same sense: when `run` has passed a batch, the medium has it (fdatasync or fsync). What a store
is given is made ready beforehand, in the shape that suits it best; what it does with it is what is measured.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import struct
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import lmdb
import persistqueue
import uvloop
import zstandard

from gateway.clock import SystemClock
from gateway.config.settings import LogSettings
from gateway.model import Batch, Format, Kind, Origin, Stamp
from gateway.ringlog import Store as RingStore
from gateway.ringlog.chain import RingSettings, SegmentChain
from gateway.ringlog.recovery import Recovered
from gateway.ringlog.room import Reserve, ReservedRoom
from gateway.ringlog.storage import DiskStorage

MIB = 1024 * 1024
RAW_BYTES = 256 * MIB
SEGMENT_BYTES = LogSettings().segment_size_bytes
STAMP = Stamp(1_700_000_000_123_456_789, 5_000_000_000, 1, bytes(range(16)), True)


class Chunk(NamedTuple):
    """What arrived together and is to be durable together."""

    topics: list[str]
    payloads: list[bytes]


class Place(Protocol):
    """Somewhere to put events. Made with an empty folder of its own."""

    def ready(self, chunk: Chunk) -> Any:
        """The same events as this store likes them."""

    def run(self, chunks: Iterable[Any]) -> None:
        """Store one after the other; each is durable before the next begins, unless the name says otherwise."""

    def close(self) -> None:
        """Give everything back."""


def batch_of(chunk: Chunk) -> Batch:
    """As ingest would hand it on."""
    count = len(chunk.topics)
    return Batch(Kind.EVENTS, STAMP, chunk.topics, [int(Format.JSON)] * count, [1] * count, chunk.payloads)


class Raw:
    """The limit: payloads joined, one CRC over them, one pwrite, one fdatasync, into space allocated before.

    It could not be read back: it keeps neither topics nor lengths.
    """

    def __init__(self, folder: Path, *, compress: bool) -> None:
        self._fd = os.open(folder / "raw", os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(self._fd, 0, RAW_BYTES)
        os.fsync(self._fd)
        self._offset = 0
        self._compressor = zstandard.ZstdCompressor(level=1) if compress else None

    def ready(self, chunk: Chunk) -> list[bytes]:
        return chunk.payloads

    def run(self, chunks: Iterable[list[bytes]]) -> None:
        for payloads in chunks:
            body = b"".join(payloads)
            if self._compressor is not None:
                body = self._compressor.compress(body)
            data = crc32(body).to_bytes(4, "little") + body
            os.pwrite(self._fd, data, self._offset)
            os.fdatasync(self._fd)
            self._offset += len(data)

    def close(self) -> None:
        os.close(self._fd)


class Chain:
    """What the writer thread does for a batch: frame, write, sync, and begin a new segment when one is full."""

    def __init__(self, folder: Path, *, compress: bool) -> None:
        storage = DiskStorage()
        settings = RingSettings(64 * SEGMENT_BYTES, SEGMENT_BYTES, 0, compress)
        room = ReservedRoom(Reserve(storage, folder / "reserve", 0))
        self._chain = SegmentChain(storage, folder, settings, (0x1122334455667788, 1), Recovered(), room)
        self._origin = Origin("bench", "1122334455667788", 1)
        self._seq = 0

    def ready(self, chunk: Chunk) -> Batch:
        return batch_of(chunk)

    def run(self, chunks: Iterable[Batch]) -> None:
        for batch in chunks:
            batch.origin, batch.seq, batch.ordinal = self._origin, self._seq, self._seq
            self._seq = batch.end
            assert self._chain.write([batch], sync=True) is None, "held"

    def close(self) -> None:
        self._chain.seal()


class Whole:
    """The product's own path: appended on the loop, synced by the writer thread, and told to the loop."""

    def __init__(self, folder: Path, *, compress: bool, under_way: int = 1) -> None:
        """Args: under_way: batches that may be appended and not yet durable; those that wait share the next sync."""
        self._loop = uvloop.new_event_loop()
        self._under_way = under_way
        self._store = self._loop.run_until_complete(self._open(folder, LogSettings(compress=compress)))

    async def _open(self, folder: Path, settings: LogSettings) -> RingStore:
        def fail(error: Exception) -> None:
            raise error

        return RingStore(folder, "bench", settings, SystemClock(), fail)

    def ready(self, chunk: Chunk) -> Batch:
        return batch_of(chunk)

    def run(self, chunks: Iterable[Batch]) -> None:
        self._loop.run_until_complete(self._append(chunks))

    async def _append(self, chunks: Iterable[Batch]) -> None:
        events, committer = self._store.events, self._store.committer
        waiting: deque[asyncio.Future[None]] = deque()
        for batch in chunks:
            while len(waiting) >= self._under_way:
                await waiting.popleft()
            events.append(batch)
            durable = self._loop.create_future()
            committer.when_durable(lambda durable=durable: durable.set_result(None))
            waiting.append(durable)
        for durable in waiting:
            await durable

    def close(self) -> None:
        self._loop.run_until_complete(self._store.close())
        self._loop.close()


class Sqlite:
    """A table, one row per event, one commit per batch; WAL, `synchronous=FULL`."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / "events.db", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, topic TEXT, payload BLOB)")

    def ready(self, chunk: Chunk) -> list[tuple[str, bytes]]:
        return list(zip(chunk.topics, chunk.payloads, strict=True))

    def run(self, chunks: Iterable[list[tuple[str, bytes]]]) -> None:
        db = self._db
        for rows in chunks:
            db.execute("BEGIN")
            db.executemany("INSERT INTO events (topic, payload) VALUES (?, ?)", rows)
            db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()


class Lmdb:
    """One entry per event under its number, appended in order, one transaction per batch, each synced."""

    _KEY = struct.Struct(">Q")

    def __init__(self, folder: Path) -> None:
        self._env = lmdb.open(str(folder), map_size=1024 * MIB)
        self._seq = 0

    def ready(self, chunk: Chunk) -> list[bytes]:
        return [b"%s\0%s" % (topic.encode(), payload) for topic, payload in zip(*chunk, strict=True)]

    def run(self, chunks: Iterable[list[bytes]]) -> None:
        key = self._KEY.pack
        for values in chunks:
            seq, self._seq = self._seq, self._seq + len(values)
            with self._env.begin(write=True) as transaction, transaction.cursor() as cursor:
                cursor.putmulti(zip(map(key, range(seq, self._seq)), values, strict=True), append=True)

    def close(self) -> None:
        self._env.close()


class PersistQueue:
    """Its SQLite queue, which commits every put; it has no put of many. (Its file queue does not sync a put.)"""

    def __init__(self, folder: Path) -> None:
        self._queue = persistqueue.SQLiteQueue(str(folder), auto_commit=True)

    def ready(self, chunk: Chunk) -> list[tuple[str, bytes]]:
        return list(zip(chunk.topics, chunk.payloads, strict=True))

    def run(self, chunks: Iterable[list[tuple[str, bytes]]]) -> None:
        for rows in chunks:
            for row in rows:
                self._queue.put(row)

    def close(self) -> None:
        self._queue.close()


RAW = "raw limit"
PLACES: dict[str, Callable[[Path], Place]] = {
    RAW: lambda folder: Raw(folder, compress=False),
    "raw limit, zstd": lambda folder: Raw(folder, compress=True),
    "log, zstd": lambda folder: Chain(folder, compress=True),
    "log, plain": lambda folder: Chain(folder, compress=False),
    "log, zstd, by the loop": lambda folder: Whole(folder, compress=True),
    "log, plain, by the loop": lambda folder: Whole(folder, compress=False),
    "log, zstd, 8 under way": lambda folder: Whole(folder, compress=True, under_way=8),
    "SQLite WAL FULL": Sqlite,
    "LMDB": Lmdb,
    "persist-queue": PersistQueue,
}

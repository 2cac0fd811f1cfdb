"""The file sink on a real file system."""

from __future__ import annotations

import errno
import json
import os

import pytest

from gateway.config.settings import FileSinkSettings
from gateway.forward.parcel import Parcel
from gateway.forward.sinks import build
from gateway.forward.sinks import file as module
from gateway.forward.verdict import Delivered, NeedsOperator, Retry
from gateway.model import Gap, Position
from tests.forward.conftest import ORIGIN, batch_of


def parcel_of(first, count) -> Parcel:
    batch = batch_of([b'{"n":%d}' % n for n in range(first, first + count)])
    batch.origin, batch.seq, batch.ordinal = ORIGIN, first, first
    return Parcel([batch], Position(batch.end, batch.end_ordinal))


def numbers(path) -> list[int]:
    return [json.loads(line)["data"]["n"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
async def sink(tmp_path):
    made = build(FileSinkSettings(name="disk", path=tmp_path / "out" / "events.jsonl"), "gw", ())
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "events.jsonl"


async def test_lines_are_appended_with_id_topic_time_and_data(sink, path):
    """One line per event; the directory is made if need be; gaps are lines of their own."""
    assert await sink.send(parcel_of(0, 2)) == Delivered(2)
    assert await sink.send(parcel_of(2, 1)) == Delivered(1)
    assert await sink.announce(Gap(1, 4, 3, "evicted"), 5) == Delivered(1)
    *events, gap = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [event["data"]["n"] for event in events] == [0, 1, 2]
    assert events[0]["id"] == "gw/0123456789abcdef/1/0"
    assert events[0]["topic"] == "devices/a/climate"
    assert events[0]["time"] == "2023-11-14T22:13:20.123456789Z"
    assert gap["gap"] == {"from": 1, "to": 4, "count": 3, "reason": "evicted"}


@pytest.mark.parametrize("torn", [b'{"half":', b"x" * 200_000, b"\n{", b"\0" * 5_000])
async def test_half_a_line_left_by_a_crash_is_cut(sink, path, torn):
    """The file holds whole lines only, from the first parcel on."""
    path.parent.mkdir()
    path.write_bytes(b'{"data":{"n":-1}}\n' + torn)
    assert await sink.send(parcel_of(0, 2)) == Delivered(2)
    kept = [line for line in path.read_bytes().split(b"\n") if line]
    assert [json.loads(line)["data"]["n"] for line in kept] == [-1, 0, 1]


async def test_a_file_that_is_only_half_a_line_becomes_empty_first(sink, path):
    """No line end at all: nothing in it was ever delivered."""
    path.parent.mkdir()
    path.write_bytes(b"x" * 100_000)
    assert await sink.send(parcel_of(0, 1)) == Delivered(1)
    assert numbers(path) == [0]


@pytest.mark.parametrize("removed", [True, False])
async def test_a_rotated_or_removed_file_is_begun_anew(sink, path, removed):
    """logrotate needs to tell nobody."""
    await sink.send(parcel_of(0, 2))
    old = path.with_suffix(".1")
    path.unlink() if removed else path.rename(old)
    await sink.send(parcel_of(2, 2))
    assert numbers(path) == [2, 3]
    if not removed:
        assert numbers(old) == [0, 1]


@pytest.mark.parametrize("call", ["write", "fdatasync"])
async def test_a_failed_write_or_sync_is_taken_back_and_repeated_whole(sink, path, monkeypatch, call):
    """No half parcel, no line twice, and no second sync of the same bytes."""
    await sink.send(parcel_of(0, 3))
    real_write, real_sync = os.write, os.fdatasync

    def short_write(fd, data):
        real_write(fd, bytes(data)[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    def failed_sync(fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module.os, call, short_write if call == "write" else failed_sync)
    verdict = await sink.send(parcel_of(3, 3))
    assert isinstance(verdict, Retry)
    assert numbers(path) == [0, 1, 2]
    monkeypatch.setattr(module.os, "write", real_write)
    monkeypatch.setattr(module.os, "fdatasync", real_sync)
    assert await sink.send(parcel_of(3, 3)) == Delivered(3)
    assert numbers(path) == [0, 1, 2, 3, 4, 5]


async def test_a_directory_in_the_way_is_the_operators(sink, path):
    """It will not go away by itself; nothing is lost meanwhile."""
    path.mkdir(parents=True)
    assert isinstance(await sink.send(parcel_of(0, 1)), NeedsOperator)
    path.rmdir()
    assert await sink.send(parcel_of(0, 1)) == Delivered(1)

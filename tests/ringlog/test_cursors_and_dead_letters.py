"""Cursors, dead letters and snapshots: small things that must survive."""

from __future__ import annotations

import errno

import pytest

from gateway.errors import StorageError
from gateway.model import Cursor, DeadLetter
from gateway.ringlog import letters_of
from gateway.ringlog.inspect import scan_log


async def test_a_cursor_outlives_the_process(open_store):
    """Law: a consumer goes on where it was, with its account."""
    store = open_store()
    cursor = Cursor(10, 9, 1, 5, 2, 1)
    await store.cursors.store("cloud", cursor)
    await store.close()
    assert open_store().cursors.load("cloud") == cursor


async def test_a_cursor_into_another_log_is_not_used(open_store, tmp_path):
    """Law: a cursor never points into a log that it was not made for; the consumer starts afresh and it is counted."""
    store = open_store()
    await store.cursors.store("cloud", Cursor(10, 10))
    await store.close()
    other = open_store(data_dir=tmp_path / "other")
    (tmp_path / "other/cursors/cloud.cursor").write_bytes((tmp_path / "data/cursors/cloud.cursor").read_bytes())
    assert other.cursors.load("cloud") is None
    assert other.cursors.unusable == ["cloud"]


async def test_a_disk_that_refuses_a_cursor_says_so_and_leaves_a_whole_one(open_store, faulty):
    """Law: a failed cursor costs duplicates, not records, and does not take the log with it."""
    store = open_store(storage=faulty)
    await store.cursors.store("cloud", Cursor(1, 1))
    faulty.fail("write", 1, errno.EIO)
    with pytest.raises(StorageError, match="Input/output"):
        await store.cursors.store("cloud", Cursor(2, 2))
    assert store.cursors.load("cloud") in (Cursor(1, 1), Cursor(2, 2))
    assert store.committer.failure is None
    await store.cursors.store("cloud", Cursor(3, 3))
    assert store.cursors.load("cloud") == Cursor(3, 3)


async def test_a_dead_letter_is_on_disk_when_store_returns_and_has_an_id(open_store, tmp_path):
    """Law: what cannot be processed is kept whole."""
    store = open_store()
    letter = DeadLetter("", "devices/a/climate", b"\xff{", 1, "ingest", "utf8", "not UTF-8", 1, 5, 5)
    await store.dead_letters.store([letter, letter])
    (batch,) = scan_log(tmp_path / "data", "deadletters")
    first, second = letters_of(batch)
    assert first.payload == b"\xff{"
    assert first.id != second.id
    assert first.id.endswith("/0")
    assert store.dead_letters.appended_by_code == {("ingest", "utf8"): 2}


async def test_a_snapshot_is_whole_or_absent(open_store, tmp_path):
    """Law: rule state is replaced as a whole; damage is as if there were none."""
    store = open_store()
    assert store.load_rules() is None
    await store.store_rules(b"state" * 10_000)
    assert store.load_rules() == b"state" * 10_000
    path = tmp_path / "data/rules.snapshot"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert store.load_rules() is None
    assert not list((tmp_path / "data").glob("*.tmp"))


async def test_a_cursor_whose_slots_are_both_damaged_is_told_apart_from_none(open_store, tmp_path):
    """Law L3: a consumer that had a cursor must not start at `now` because the card has lost it."""
    store = open_store()
    await store.cursors.store("cloud", Cursor(10, 10))
    await store.close()
    (tmp_path / "data/cursors/cloud.cursor").write_bytes(bytes(8_192))
    store = open_store()
    assert store.cursors.load("cloud") is None
    assert store.cursors.load("fresh") is None
    assert store.cursors.unusable == ["cloud"]

"""A start built on a slot, or on the name of a slot file, that a killed process had left in the page cache alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.ringlog.slots import SlotFile
from tests.crash.ordering import Aftermath, KilledError, Recorder

PATH = Path("cursors/cloud.cursor")


def store(disk: Recorder, value: bytes, *, ops: int | None = None) -> None:
    """A process that stores one value, and is killed after so many operations."""
    disk.ops_left = ops
    try:
        SlotFile(disk, PATH).store(value)
    except KilledError:
        assert ops is not None
    finally:
        disk.ops_left = None


def after_every_cut(disk: Recorder, *, begun: int) -> set[bytes | None]:
    """What the next start may load if the power fails after any operation from `begun` on."""
    aftermath, found = Aftermath(), set()
    for number, op in enumerate(disk.ops, 1):
        aftermath.advance(op)
        if number >= begun:
            found |= {SlotFile(aftermath.after(loss), PATH).load() for loss in aftermath.losses()}
    return found


@pytest.mark.parametrize("ops", range(5))
def test_a_stored_value_survives_although_its_file_was_made_by_a_process_that_was_killed(ops):
    """Law L2: a value is durable when `store` returns, whoever made the file, and whether he lived to sync its name."""
    disk = Recorder()
    store(disk, b"one", ops=ops)
    store(disk, b"two")
    assert after_every_cut(disk, begun=len(disk.ops)) == {b"two"}


def test_a_cut_in_the_first_store_after_a_kill_gives_back_a_value_that_was_durable_or_a_later_one():
    """Laws L2, L3: the good slot is not overwritten before the other one is on the medium."""
    disk = Recorder()
    store(disk, b"one")
    store(disk, b"two")
    durable = len(disk.ops)
    store(disk, b"three", ops=1)
    store(disk, b"four")
    assert after_every_cut(disk, begun=durable) <= {b"two", b"three", b"four"}

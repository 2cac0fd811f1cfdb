"""Two slots: a small value that any crash leaves either old or new."""

from __future__ import annotations

import errno

import pytest

from gateway.ringlog.slots import MAX_VALUE_BYTES, SLOT_BYTES, SlotFile
from gateway.ringlog.storage import DiskStorage


def load(path):
    return SlotFile(DiskStorage(), path).load()


def test_the_newest_value_is_read_back(tmp_path):
    """Law: what `store` returned for is what `load` gives, in this life or the next."""
    slot = SlotFile(DiskStorage(), tmp_path / "c")
    assert slot.load() is None
    for value in (b"one", b"two", b"", b"x" * MAX_VALUE_BYTES):
        slot.store(value)
        assert slot.load() == value
        assert load(tmp_path / "c") == value
    slot.close()


def test_any_truncation_or_bit_flip_costs_one_generation_at_most(tmp_path):
    """Law: damage falls back to the other slot, and never stops a start."""
    path = tmp_path / "c"
    slot = SlotFile(DiskStorage(), path)
    slot.store(b"older")
    slot.store(b"newer")
    slot.close()
    good = path.read_bytes()
    assert len(good) == 2 * SLOT_BYTES
    for bit in [*range(64 * 8), *range(SLOT_BYTES * 8, (SLOT_BYTES + 64) * 8)]:
        data = bytearray(good)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        assert load(path) in (b"older", b"newer")
    for length in range(0, len(good), 61):
        path.write_bytes(good[:length])
        assert load(path) in (b"older", b"newer", None)


def test_after_a_failed_store_one_of_the_two_values_stands_and_the_next_store_spares_the_good_slot(tmp_path, faulty):
    """Law: after an error the slot that is known to be good is the last to be overwritten."""
    slot = SlotFile(faulty, tmp_path / "c")
    slot.store(b"one")
    slot.store(b"two")
    for _ in range(3):
        faulty.fail("write", 1, errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            slot.store(b"lost")
        assert load(tmp_path / "c") in (b"two", b"lost")
        data = bytearray((tmp_path / "c").read_bytes())
        data[SLOT_BYTES:] = bytes(SLOT_BYTES)  # the slot of "one", of every failed try and of "three"
        assert data[20:23] == b"two"
    slot.store(b"three")
    slot.close()
    assert load(tmp_path / "c") == b"three"

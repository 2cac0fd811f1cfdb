"""Found by refusing every sync: a new cursor file whose first sync failed was synced again, on the same descriptor."""

import errno

import pytest

from gateway.ringlog.slots import SlotFile
from tests.faults import FaultyStorage


@pytest.mark.parametrize("call", ["sync", "sync_dir"])
def test_a_file_whose_beginning_was_refused_is_begun_anew(tmp_path, call):
    """Laws L1, L3: a sync that failed is not asked again; the name of what takes its place is synced as well."""
    storage = FaultyStorage()
    slot = SlotFile(storage, tmp_path / "cloud.cursor")
    storage.fail(call, 1, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        slot.store(b"1")
    storage.calls.clear()
    slot.store(b"2")
    slot.close()
    assert [kind for kind, _ in storage.calls] == ["create", "allocate", "sync", "sync_dir", "write", "sync"]
    assert SlotFile(storage, tmp_path / "cloud.cursor").load() == b"2"

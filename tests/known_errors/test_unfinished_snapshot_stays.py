"""Found by killing at every call: a kill in the middle of a snapshot left its temporary file there for good."""

from gateway.ringlog import snapshot
from gateway.ringlog.storage import DiskStorage


def test_what_a_crash_left_of_a_snapshot_is_removed_at_the_next_start(tmp_path):
    """Law L6: a crash leaves nothing behind that nobody owns; the former snapshot stands."""
    path = tmp_path / "rules.snapshot"
    snapshot.store(DiskStorage(), path, b"former")
    (tmp_path / "rules.snapshot.tmp").write_bytes(b"half of the n")
    assert snapshot.load(DiskStorage(), path) == b"former"
    assert [entry.name for entry in tmp_path.iterdir()] == ["rules.snapshot"]

"""Found by the weak-ordering model: a cursor stored by an opening that had not loaded it counted from generation 0.

Its slot then had a lower generation than the one that was there, and the next start took the older cursor.
"""

from gateway.ringlog.slots import SlotFile
from gateway.ringlog.storage import DiskStorage


def test_a_value_that_is_stored_without_a_look_at_the_old_one_counts(tmp_path):
    """Law L3: what was stored last is what the next start finds."""
    for number in range(5):
        slot = SlotFile(DiskStorage(), tmp_path / "cloud.cursor")
        slot.store(b"%d" % number)
        slot.close()
        assert SlotFile(DiskStorage(), tmp_path / "cloud.cursor").load() == b"%d" % number

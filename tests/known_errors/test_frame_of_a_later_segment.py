"""A block of a later segment that a card wrote into an earlier one hid every whole record behind it from readers."""

from __future__ import annotations

from gateway.config.settings import LogSettings
from gateway.model import Gap, Position
from gateway.ringlog import Store
from gateway.ringlog.segment import HEAD_BYTES


async def test_a_frame_of_a_later_segment_costs_what_it_lies_upon_and_nothing_behind_it(tmp_path, clock, make_batch):
    """Law L5: damage costs only the damaged records."""
    settings = LogSettings(compress=False, tip_bytes=1)
    for first in (0, 20):  # each opening begins a segment
        store = Store(tmp_path, "gw", settings, clock, lambda error: None)
        for seq in range(first, first + 20):
            store.events.append(make_batch([b"%08d" % seq], stamp=store.events.stamp()))
            await store.committer.flush()
        await store.close()
    older, newer = sorted((tmp_path / "events").glob("*.seg"))
    data = bytearray(older.read_bytes())
    frame_bytes = (len(data) - HEAD_BYTES) // 20
    at = HEAD_BYTES + 5 * frame_bytes
    data[at : at + frame_bytes] = newer.read_bytes()[HEAD_BYTES : HEAD_BYTES + frame_bytes]
    older.write_bytes(data)
    store = Store(tmp_path, "gw", settings, clock, lambda error: None)
    try:
        reader = store.reader(Position(0, 0), durable_only=True)
        found, gaps = [], []
        while reader.position.seq < 40:
            item = await reader.read(100)
            if isinstance(item, Gap):
                gaps.append(item)
            else:
                found += range(item.seq, item.end)
    finally:
        await store.close()
    assert found == [*range(5), *range(6, 40)]
    assert gaps == [Gap(5, 6, 1, "damaged")]

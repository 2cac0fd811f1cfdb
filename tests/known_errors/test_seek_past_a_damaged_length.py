"""A reader that seeks hops from header to header. One whose length was damaged sent it past records that were whole."""

from __future__ import annotations

import struct

import pytest

from gateway.config.settings import LogSettings
from gateway.model import Batch, Gap, Position
from gateway.ringlog import Store
from gateway.ringlog.inspect import scan_log
from gateway.ringlog.segment import HEAD_BYTES

_STORED_BYTES_AT = 80
_FRAMES = 20


@pytest.mark.parametrize("frames_too_long", [0.01, 2, 10.5, 10_000])
async def test_a_damaged_length_costs_its_own_frame_alone_wherever_a_reader_starts(
    tmp_path, clock, make_batch, frames_too_long
):
    """Law L5: the records behind it are found from every starting place, not only from the oldest."""
    settings = LogSettings(compress=False, tip_bytes=1)
    store = Store(tmp_path, "gw", settings, clock, lambda error: None)
    for seq in range(_FRAMES):
        store.events.append(make_batch([b"%08d" % seq], stamp=store.events.stamp()))
        await store.committer.flush()
    await store.close()
    (path,) = (tmp_path / "events").glob("*.seg")
    data = bytearray(path.read_bytes())
    frame_bytes = (len(data) - HEAD_BYTES) // _FRAMES
    at = HEAD_BYTES + 3 * frame_bytes + _STORED_BYTES_AT
    (stored_bytes,) = struct.unpack_from("<I", data, at)
    struct.pack_into("<I", data, at, stored_bytes + int(frames_too_long * frame_bytes) + 1)
    path.write_bytes(data)
    for start in range(4, _FRAMES):
        found = [item.seq for item in scan_log(tmp_path, from_seq=start) if isinstance(item, Batch)]
        assert found == list(range(start, _FRAMES))
    store = Store(tmp_path, "gw", settings, clock, lambda error: None)
    try:
        for start in range(4, _FRAMES):
            item = await store.reader(Position(start, start), durable_only=True).read(100)
            assert not isinstance(item, Gap), f"records from {start} on are there"
            assert item.seq == start
    finally:
        await store.close()

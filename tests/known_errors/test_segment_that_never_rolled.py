"""A job that began on an empty segment wrote all of it into that one segment, however large."""

from __future__ import annotations

from gateway.config.settings import LogSettings
from gateway.ringlog import Store


async def test_one_large_job_is_spread_over_segments(tmp_path, clock, make_batch):
    """Law L6: disk use stays within the configured size plus one segment, even if all of it comes at once."""
    settings = LogSettings(max_size_bytes=256 * 1024, segment_size_bytes=64 * 1024, compress=False)
    store = Store(tmp_path, "gw", settings, clock, lambda error: None)
    for _ in range(40):
        store.events.append(make_batch([b"x" * 1_000] * 50))
    await store.committer.flush()
    sizes = [segment.size_bytes for segment in store.events.layout.segments]
    assert max(sizes) <= 64 * 1024
    assert sum(sizes) <= 256 * 1024 + 64 * 1024
    await store.close()

"""Between two looks at the writer, a segment that was just being sealed was in neither: readers saw a false gap."""

from __future__ import annotations

from itertools import pairwise

from gateway.config.settings import LogSettings
from gateway.ringlog import Store
from gateway.ringlog.storage import DiskFile, DiskStorage


class WatchingFile(DiskFile):
    """A file that looks around before each call that changes something."""

    look = staticmethod(lambda: None)

    def truncate(self, size_bytes: int) -> None:
        self.look()
        super().truncate(size_bytes)
        self.look()

    def sync(self) -> None:
        self.look()
        super().sync()
        self.look()

    def close(self) -> None:
        super().close()
        self.look()


class WatchingStorage(DiskStorage):
    """The real disk, with files that look around."""

    def create(self, path):
        return WatchingFile(super().create(path)._fd)


async def test_a_segment_that_has_appeared_leaves_at_the_front_or_not_at_all(tmp_path, clock, make_batch):
    """Law L5: whoever looks, at whatever moment, sees every segment once, in order, without a hole."""
    settings = LogSettings(max_size_bytes=256 * 1024, segment_size_bytes=64 * 1024, compress=False)
    store = Store(tmp_path, "gw", settings, clock, lambda error: None, WatchingStorage())
    seen: list[tuple[str, ...]] = []
    WatchingFile.look = staticmethod(
        lambda: seen.append(tuple(segment.name for segment in store.events.layout.segments))
    )
    for _ in range(60):
        store.events.append(make_batch([b"x" * 1_000] * 20))
        await store.committer.flush()
    await store.close()
    assert len(seen) > 100
    for before, after in pairwise(seen):
        assert list(after) == sorted(set(after))
        assert [name for name in before if name >= (after[0] if after else "")] == [n for n in after if n in before]

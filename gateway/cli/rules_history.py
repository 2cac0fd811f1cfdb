"""The stretch of a log that rules are replayed over: where it lies, how it is told, what is missing from it.

Invariants:
- Nothing is locked and nothing is written: a gateway may be running on the directory.
- What lies before the stretch is read for as long as rules need to warm up, and behind it for a minute, since a
  decision is recorded a little after it was taken, and has its end some time later.
- Whatever could not be read is told.
"""

from __future__ import annotations

import re
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import typer

from gateway.cli.log_view import damage_line, evicted_line
from gateway.config.scalars import Wrong, duration_s
from gateway.ringlog.by_time import Timed, Window
from gateway.ringlog.contents import Loss
from gateway.ringlog.inspect import info
from gateway.ringlog.store import EVENTS_DIR
from gateway.rules.trying.replay import Dates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import tzinfo
    from pathlib import Path

    from gateway.config.settings import Settings
    from gateway.model import Batch

_BEHIND_NS = 60_000_000_000
_TIME_OF_DAY = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Site(NamedTuple):
    """Whose log it is."""

    data_dir: Path
    settings: Settings | None
    """None: only the data directory was told."""
    zone: tzinfo | None
    """In which times are told; None: this machine's."""


class Begin(NamedTuple):
    """From here on it counts. On the log's clock."""

    at_ns: int


class Mark(NamedTuple):
    """The instant that was asked for. On the log's clock."""

    at_ns: int


class End(NamedTuple):
    """Up to here. What follows are records of what was decided before."""

    at_ns: int


class History:
    """A stretch of the events log."""

    def __init__(
        self, data_dir: Path, from_ns: int, to_ns: int, warm_up_ns: int = 0, mark_ns: int | None = None
    ) -> None:
        """Find out what to read.

        Args:
            data_dir: of the gateway.
            from_ns: the beginning, by the wall clock, ns since 1970.
            to_ns: the end, exclusive.
            warm_up_ns: how much is read before the beginning.
            mark_ns: an instant within it at which the reader wants to look.

        Raises:
            StorageError: there is no log, or it cannot be read.
        """
        self.from_ns, self.to_ns, self.mark_ns = from_ns, to_ns, mark_ns
        self._passes: list[tuple[int, type[Begin | Mark | End]]] = [(from_ns, Begin), (to_ns, End)]
        if mark_ns is not None:
            self._passes.insert(1, (mark_ns, Mark))
        self.dates = Dates()
        self.wanted_warm_up_ns = warm_up_ns
        self.missing: list[str] = []
        """One sentence for each part that is no longer there, or damaged."""
        self.events = 0
        """Read so far, warm-up included."""
        self.log = info(data_dir)
        self._window = Window(data_dir, EVENTS_DIR, from_ns - warm_up_ns, to_ns + _BEHIND_NS)
        self.size_bytes = self._window.size_bytes
        self.warmed_ns = warm_up_ns
        """How much of the warm-up the log still holds."""
        oldest_ns = self.log.oldest_wall_ns
        if oldest_ns is not None and oldest_ns > from_ns - warm_up_ns:
            self.warmed_ns = max(from_ns - oldest_ns, 0)

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest record that the log holds happened."""
        return self.log.oldest_wall_ns

    def read(self, progress: Callable[[int], None] | None = None) -> Iterator[Batch | Begin | Mark | End]:
        """Every batch; `Begin`, `Mark` and `End` once each, before the first batch that lies behind them.

        Raises:
            StorageError: if a segment cannot be opened.
        """
        last: Timed | None = None
        ahead = deque(self._passes)
        for item in self._window.read(progress=progress):
            if not isinstance(item, Timed):
                self.missing.append(damage_line(item) if isinstance(item, Loss) else evicted_line(item))
                continue
            while ahead and item.wall_ns >= ahead[0][0]:
                wall_ns, passed = ahead.popleft()
                yield passed(_crossing_ns(wall_ns, last, item))
            self.dates.note(item.batch.stamp.elapsed_ns, item.wall_ns)
            self.events += item.batch.end_ordinal - item.batch.ordinal
            yield item.batch
            last = item
        for wall_ns, passed in ahead:
            yield passed(0 if last is None else self._reached_ns(wall_ns, last))

    def _reached_ns(self, wall_ns: int, last: Timed) -> int:
        """Behind the last record read: that time, if the log goes on behind it, so that nothing came in between."""
        newest_ns = self.log.newest_wall_ns
        goes_on = newest_ns is not None and newest_ns >= wall_ns
        return last.batch.stamp.elapsed_ns + (max(wall_ns - last.wall_ns, 0) if goes_on else 0)


def _crossing_ns(wall_ns: int, last: Timed | None, item: Timed) -> int:
    """When the wall clock passed a time between two records, on the log's clock."""
    at_ns = item.batch.stamp.elapsed_ns
    before_ns = 0 if last is None else last.batch.stamp.elapsed_ns
    return max(at_ns - (item.wall_ns - wall_ns), min(before_ns, at_ns))


def find_site(config: Path | None, data_dir: Path | None) -> Site:
    """What the operator means by `--config` and `--data`.

    Raises:
        ConfigError: the configuration cannot be read.
        typer.BadParameter: neither was told, or it is no directory.
    """
    from gateway.cli.places import load_settings

    if config is None and data_dir is None:
        raise typer.BadParameter("give --config FILE, or --data DIR, or both")
    settings = None if config is None else load_settings(config)
    place = data_dir or (settings.data_dir if settings is not None else None)
    if place is None or not place.is_dir():
        raise typer.BadParameter(f"{place} is not a directory")
    return Site(place, settings, None if settings is None else ZoneInfo(settings.timezone))


def time_ns(option: str, text: str, zone: tzinfo | None, now_ns: int) -> int:
    """A time as an operator writes it, ns since 1970.

    Args:
        option: under which it was written.
        text: `7d` (so long ago), `06:10` (the last time it was that late), or ISO 8601, local without an offset.
        zone: of the gateway.
        now_ns: the wall clock.

    Raises:
        typer.BadParameter: it is none of these.
    """
    ago_s = duration_s(text) if not text[:1].isspace() else Wrong("")
    if not isinstance(ago_s, Wrong) and text.count(":") != 2:
        return now_ns - int(ago_s * 1e9)
    try:
        clock = _TIME_OF_DAY.fullmatch(text)
        if clock is not None:
            return _last_ns(int(clock[1]), int(clock[2]), int(clock[3] or 0), zone, now_ns)
        when = datetime.fromisoformat(text)
        when = when.replace(tzinfo=zone) if when.tzinfo is None and zone is not None else when.astimezone(UTC)
        return _since_1970_ns(when)
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"{option}: write 7d for so long ago, 06:10, or a time as 2026-05-04T06:10 or 2026-05-04T06:10:00Z"
        ) from None


def _last_ns(hour: int, minute: int, second: int, zone: tzinfo | None, now_ns: int) -> int:
    today = local(now_ns, zone)
    at = today.replace(hour=hour, minute=minute, second=second, microsecond=0, fold=0)
    if zone is None:
        at = at.replace(tzinfo=None).astimezone()
    if _since_1970_ns(at) > now_ns:
        at = at - timedelta(days=1)
    return _since_1970_ns(at)


def _since_1970_ns(when: datetime) -> int:
    since = when.astimezone(UTC) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000


def local(wall_ns: int, zone: tzinfo | None) -> datetime:
    """A wall time in a zone; None: this machine's. To the microsecond."""
    when = _EPOCH + timedelta(microseconds=wall_ns // 1_000)
    return when.astimezone(zone)

"""Structured logging, configured once at start: one line per event, JSON for machines, coloured for a person.

What may be said stands in `gateway.observe.events`; how it is written stands here. Each record passes, in this order:
level, rate limit, time, traceback as a list of lines, escaping, rendering.

Invariants:
- One record is one line, whatever bytes a device put into a topic, an id or an error text (`gateway.observe.text`).
- An event that may repeat (`events.REPEATING`) is written at most once per interval and subject; the next line that is
  written carries `suppressed`, how many were not.
- No local variables in tracebacks: they may hold passwords.
- What libraries say over `logging` comes out the same way, limited per logger.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import traceback
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from gateway.clock import SystemClock
from gateway.observe import events
from gateway.observe.text import escape

if TYPE_CHECKING:
    from collections.abc import Hashable

    from structlog.typing import EventDict, Processor, WrappedLogger

    from gateway.clock import Clock

INTERVAL_S = 10.0
"""A repeating event is written once in this time."""
MOST_SUBJECTS = 1_000
"""Subjects whose last line is remembered; the longest silent one is forgotten first."""


def configure(
    stream: TextIO | None = None, *, level: str = "info", pretty: bool | None = None, clock: Clock | None = None
) -> None:
    """Set up logging for this process. A second call replaces the first.

    Args:
        stream: where lines go; None is stderr, so that stdout stays a command's own output.
        level: `debug`, `info`, `warning` or `error`.
        pretty: coloured and aligned instead of JSON; None asks whether `stream` is a terminal.
        clock: for the timestamps and the rate limit; None is the system's.
    """
    stream = stream or sys.stderr
    clock = clock or SystemClock()
    pretty = stream.isatty() if pretty is None else pretty
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            Limiter(clock),
            _Timestamp(clock, pretty=pretty),
            _traceback_lines,
            _escape_values,
            _pretty_renderer() if pretty else _render_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(stream),
        # Loggers live in module globals; caching would keep them on the stream of an earlier call.
        cache_logger_on_first_use=False,
    )
    _adopt_library_logging()


class _Lines:
    """Where structlog's last step ends. A stream that is gone (a closed pipe, a full disk) never stops the gateway."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = write


class RateLimit:
    """Lets one of many through: the first, then one per interval and subject. Pure but for what it remembers."""

    def __init__(self, interval_s: float = INTERVAL_S, most_subjects: int = MOST_SUBJECTS) -> None:
        self._interval_s = interval_s
        self._most_subjects = most_subjects
        self._last: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def admit(self, subject: Hashable, now_s: float) -> int | None:
        """Whether to speak now.

        Args:
            subject: what repeats.
            now_s: monotonic seconds.

        Returns:
            How many were held back since the last one that was let through, or None: hold this one back too.
        """
        last_s, suppressed = self._last.get(subject, (-self._interval_s, 0))
        if subject in self._last and now_s - last_s < self._interval_s:
            self._last[subject] = (last_s, suppressed + 1)
            return None
        self._last[subject] = (now_s, 0)
        self._last.move_to_end(subject)
        if len(self._last) > self._most_subjects:
            self._last.popitem(last=False)
        return suppressed


class Limiter:
    """The processor that applies `RateLimit` to the events that may repeat."""

    def __init__(self, clock: Clock, interval_s: float = INTERVAL_S) -> None:
        self._clock = clock
        self._limit = RateLimit(interval_s)

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Pass the event on, with how many before it were not; or drop it."""
        keys = events.REPEATING.get(event["event"])
        if keys is None:
            return event
        subject = (event["event"], *(str(event.get(key)) for key in keys))
        suppressed = self._limit.admit(subject, self._clock.mono_ns() / 1e9)
        if suppressed is None:
            raise structlog.DropEvent
        if suppressed:
            event["suppressed"] = suppressed
        return event


class _Timestamp:
    """Adds the time: UTC to the microsecond for machines, the local time of day for a person."""

    def __init__(self, clock: Clock, *, pretty: bool) -> None:
        self._clock = clock
        self._pretty = pretty

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        when = datetime.fromtimestamp(self._clock.wall_ns() / 1e9, tz=UTC)
        event["timestamp"] = (
            f"{when.astimezone():%H:%M:%S}.{when.microsecond // 1000:03d}"
            if self._pretty
            else when.isoformat(timespec="microseconds").replace("+00:00", "Z")
        )
        return event


def _traceback_lines(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["traceback"] = "".join(traceback.format_exception(error)).splitlines()
    return event


def _escape_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {escape(key): _escaped(value) for key, value in event.items()}


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return escape(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case bool() | int() | None:
            return value
        case bytes():
            return escape(value.decode(errors="backslashreplace"))
        case dict():
            return {escape(str(key)): _escaped(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_escaped(inner) for inner in value]
        case _:
            return escape(str(value))


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    head = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return json.dumps({**head, **event}, ensure_ascii=False)


def _pretty_renderer() -> Processor:
    render = structlog.dev.ConsoleRenderer(colors=True, pad_event_to=22, sort_keys=False)

    def with_traceback_below(logger: WrappedLogger, method: str, event: EventDict) -> str:
        lines = event.pop("traceback", [])
        return "\n    ".join([str(render(logger, method, event)), *lines])

    return with_traceback_below


class _LibraryHandler(logging.Handler):
    """Turns a library's warning into an event of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            events.library_warned(record.name, record.getMessage(), record.exc_info[1] if record.exc_info else None)
        except Exception:  # noqa: BLE001 - logging's own contract: a handler never raises
            self.handleError(record)


def _adopt_library_logging() -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(_LibraryHandler(level=logging.WARNING))

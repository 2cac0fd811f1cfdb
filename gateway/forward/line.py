r"""How an event is written in InfluxDB's line protocol. Pure.

    climate,device=7,gateway=greenhouse-01,topic=devices/7/climate temperature=21.5,humidity=40 1700000000123001042
    └ measurement └ tags: captures, gateway, topic                 └ fields                     └ nanoseconds

Invariants:
- One event is one line, whatever it holds: what has no scalar value at all becomes the field `present=true`.
- Every number is written as a float, so that 21 and 21.5 never fight over a field's type.
- The time is that of the event's batch, cut to the millisecond; the nanoseconds below it are the sequence number modulo
  a million. So no two events with the same tags write to the same nanosecond unless a million of them come within one
  millisecond, and the same event always writes the same point.
- A line has no line end but its last character, and never begins with `#` (a comment).
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

import msgspec

from gateway.forward.captures import Captures, fill
from gateway.model import Format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gateway.config.settings import TopicSettings
    from gateway.model import Batch, Gap, Value

FALLBACK_MEASUREMENT = "event"
GAP_MEASUREMENT = "gateway_gap"
_MILLISECOND_NS = 1_000_000
_MOST_TOPICS = 10_000
_MOST_NAMES = 10_000
_MOST_FIELDS = 512
_MOST_TEXT = 4_096
"""Characters of a string field; InfluxDB takes 64 KiB, and a metrics store is no place for documents."""

_KEY = str.maketrans({"\\": "\\\\", ",": "\\,", "=": "\\=", " ": "\\ ", "\n": "\\\\n", "\r": "\\\\r"})
_FIELD = _KEY | {ord('"'): "_"}  # VictoriaMetrics takes a quotation mark there for the start of a string
_MEASUREMENT = str.maketrans({"\\": "\\\\", ",": "\\,", " ": "\\ ", "\n": "\\\\n", "\r": "\\\\r", "#": "_"})
_TEXT = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\\\n", "\r": "\\\\r"})
_RESERVED = frozenset({"time"})
_decode = msgspec.json.Decoder().decode


class LineProtocol:
    """Writes the events of one gateway as points."""

    def __init__(self, gateway_id: str, measurement: str, topics: Sequence[TopicSettings]) -> None:
        """Args: measurement: a template over the captures of `topics`."""
        self._gateway = gateway_id
        self._measurement = measurement
        self._captures = Captures(topics)
        self._heads: dict[str, str] = {}

    def lines(self, batch: Batch) -> list[str]:
        """One line per record, without line ends."""
        base_ns = batch.stamp.wall_ns // _MILLISECOND_NS * _MILLISECOND_NS
        values = batch.values
        heads = self._heads
        written = []
        for index, topic in enumerate(batch.topics):
            value = values[index] if values is not None else value_of(batch.payloads[index], batch.formats[index])
            head = heads.get(topic) or self._head(topic)
            written.append(f"{head} {fields(value)} {base_ns + (batch.seq + index) % _MILLISECOND_NS}")
        return written

    def gap(self, gap: Gap, wall_ns: int) -> str:
        """A point that tells of records which will never come."""
        tags = f"gateway={self._gateway.translate(_KEY)},reason={gap.reason.translate(_KEY)}"
        counts = f"count={gap.events}.0,from={gap.from_seq}.0,to={gap.to_seq}.0"
        return f"{GAP_MEASUREMENT},{tags} {counts} {wall_ns}"

    def _head(self, topic: str) -> str:
        captures = self._captures.of(topic)
        wanted = fill(self._measurement, captures, "")
        measurement = (wanted or FALLBACK_MEASUREMENT).translate(_MEASUREMENT)
        tags = {_name(name): text for name, text in captures.items() if text}
        tags |= {"gateway": self._gateway, "topic": topic}
        # Sorted by key, as InfluxDB recommends for speed.
        written = ",".join(f"{key.translate(_KEY)}={tags[key].translate(_KEY)}" for key in sorted(tags))
        if len(self._heads) >= _MOST_TOPICS:
            self._heads.clear()
        head = self._heads[topic] = f"{measurement},{written}"
        return head


def value_of(payload: bytes, format_: int) -> Value:
    """The decoded payload of a record that ingest has accepted; what cannot be decoded after all is None."""
    try:
        if format_ == Format.JSON:
            return _decode(payload) if payload else None
        if format_ == Format.NUMBER:
            return float(payload) if payload else None
        if format_ == Format.TEXT:
            return payload.decode()
    except ValueError:  # msgspec.DecodeError and UnicodeDecodeError are such
        return None
    return None


def fields(value: Value) -> str:
    """The field set of one event."""
    if type(value) is dict:
        names = _NAMES
        written: dict[str, str] = {}
        for key, item in value.items():
            if type(item) is float:
                written.setdefault(names[key], repr(item))
            else:
                _flatten(names[key], item, written)
        if written:
            return ",".join([f"{key}={text}" for key, text in written.items()])
        return "present=true"
    written = {}
    _flatten("value", value, written)
    return ",".join([f"{key}={text}" for key, text in written.items()]) or "present=true"


def _flatten(key: str, value: Value, written: dict[str, str]) -> None:
    """Add `value` under `key`; members of a mapping or list under `key_member`. The first of two equal keys stays."""
    if isinstance(value, dict | list):
        members: Iterator[tuple[str, Value]] = iter(value.items()) if isinstance(value, dict) else _numbered(value)
        for name, item in members:
            _flatten(f"{key}_{_KEYS[name]}", item, written)
    elif len(written) < _MOST_FIELDS and (text := _scalar(value)) is not None:
        written.setdefault(key, text)


def _scalar(value: Value) -> str | None:
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        text = value[:_MOST_TEXT]
        if '"' in text or "\\" in text or "\n" in text or "\r" in text:
            text = text.translate(_TEXT)
        return f'"{text}"'
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return None
        return repr(number) if isfinite(number) else None
    return None


def _numbered(items: list[Value]) -> Iterator[tuple[str, Value]]:
    return ((str(index), item) for index, item in enumerate(items))


def _name(name: str) -> str:
    """A name that the store does not take for its own."""
    return f"{name}_" if name in _RESERVED else name


class _Cache(dict[str, str]):
    """Written forms of names, made once each. Devices choose names, so it forgets all when it grows too large."""

    def __init__(self, write: Callable[[str], str]) -> None:
        super().__init__()
        self._write = write

    def __missing__(self, name: str) -> str:
        if len(self) >= _MOST_NAMES:
            self.clear()
        written = self[name] = self._write(name)
        return written


_KEYS = _Cache(lambda name: name.translate(_FIELD) or "_")
"""A part of a field's name."""
_NAMES = _Cache(lambda name: _KEYS[_name(name)])
"""A field's whole name."""

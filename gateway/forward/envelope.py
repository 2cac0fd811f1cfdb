r"""How an event is written for others: CloudEvents 1.0 in JSON, and one line of JSON for files. Pure.

An event is pieces of bytes around its payload, none of which is made for it alone. A batch is one `join` of them:

    ┌ per thousand: time, source, id ┐┌ table ┐┌ per thousand ┐┌ table ┐┌ per topic, format, flags ┐┌ payload ┐
    {…,"time":"…","id":"green-01/…/3/1 042      ","sequence":"…1 042      ","subject":"…","data":     {"t":21.5} }

Invariants:
- A JSON payload is embedded as it came: ingest has validated it, and numbers keep every digit. Only line ends are taken
  out, and only where a line is a record.
- Every output is valid JSON in UTF-8, whatever bytes a payload of another format holds: what is not text travels as
  base64.
- The same record always gives the same bytes, so that a second try is recognisable.
"""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import UTC, datetime
from itertools import chain, repeat
from math import isfinite
from typing import TYPE_CHECKING

import msgspec

from gateway.model import DERIVED, DUPLICATE, REPLAYED, RETAINED, Format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gateway.model import Batch, Gap

CLOUDEVENTS_BATCH = "application/cloudevents-batch+json"
EVENT_TYPE = "edge.gateway.event.v1"
GAP_TYPE = "edge.gateway.gap.v1"
GAP_TOPIC = "_gateway/gap"
"""A gap record's topic where a target knows only topics. Not under `$`: those no client may publish to."""

_MOST_TOPICS = 10_000
"""Prepared pieces kept; beyond it all are dropped and made again."""
_JSON_NUMBER = re.compile(rb"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_FLAG_NAMES = ((RETAINED, b"retained"), (DUPLICATE, b"duplicate"), (DERIVED, b"derived"), (REPLAYED, b"replayed"))
_SPOKEN_FLAGS = RETAINED | DUPLICATE | DERIVED | REPLAYED
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_WALL_S = 253_402_300_799  # the last second of year 9999
_LINE_FEED, _CARRIAGE_RETURN = b"\n\r"
_ALL_DIGITS = [b"%d" % number for number in range(1_000)]
_THREE_DIGITS = [b"%03d" % number for number in range(1_000)]
_quote = msgspec.json.encode


def rfc3339(wall_ns: int) -> str:
    """UTC with nine decimals; clamped to the years that RFC 3339 can write."""
    seconds, nanoseconds = divmod(wall_ns, 1_000_000_000)
    seconds = min(max(seconds, 0), _MAX_WALL_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


class CloudEvents:
    """Writes the events of one gateway as CloudEvents 1.0, JSON format."""

    def __init__(self, gateway_id: str) -> None:
        self._gateway = gateway_id
        self._source = f"/gateways/{gateway_id}"
        self._pieces = _Pieces(_cloudevent_piece)

    def batch(self, batches: Iterable[Batch]) -> bytes:
        """The body of one request in the JSON batch format."""
        return b"[" + b"".join(map(self._events, batches))[:-1] + b"]"

    def _events(self, batch: Batch) -> bytes:
        """One CloudEvent per record, each with a comma behind it."""
        stamp = batch.stamp
        head = _quote(
            {
                "specversion": "1.0",
                "source": self._source,
                "type": EVENT_TYPE,
                "time": rfc3339(stamp.wall_ns),
                "gateway": self._gateway,
                "timesynced": stamp.synced,
                "id": batch.origin.prefix(),
            }
        )[:-2]  # up to and into the id, which the sequence number completes
        names, bodies = _columns(batch, self._pieces)
        return _write(batch.seq, head, b'","sequence":"', names, bodies, b"},", is_padded=True)

    def gap(self, gap: Gap, wall_ns: int) -> bytes:
        """The body of one request that tells of records which will never come. `wall_ns`: when it was noticed."""
        event = {
            "specversion": "1.0",
            "source": self._source,
            "type": GAP_TYPE,
            "time": rfc3339(wall_ns),
            "gateway": self._gateway,
            "id": f"{self._gateway}/gap/{gap.from_seq}/{gap.to_seq}/{wall_ns}",
            "datacontenttype": "application/json",
            "data": gap_value(gap),
        }
        return b"[" + _quote(event) + b"]"


class JsonLines:
    """Writes the events of one gateway as lines: `{"time":…,"id":…,"seq":…,"topic":…,"data":…}`."""

    def __init__(self) -> None:
        self._pieces = _Pieces(_line_piece)

    def text(self, batch: Batch) -> bytes:
        """One line per record, each with its line end."""
        stamp = batch.stamp
        head = _quote({"time": rfc3339(stamp.wall_ns), "synced": stamp.synced, "id": batch.origin.prefix()})[:-2]
        names, bodies = _columns(batch, self._pieces)
        return _write(batch.seq, head, b'","seq":', names, _on_one_line(bodies), b"}\n", is_padded=False)

    def gap(self, gap: Gap, wall_ns: int) -> bytes:
        """A line that tells of records which will never come."""
        return _quote({"time": rfc3339(wall_ns), "gap": gap_value(gap)}) + b"\n"


def gap_value(gap: Gap) -> dict[str, int | str]:
    """A gap as others see it: records `[from, to)`, of which `count` were events."""
    return {"from": gap.from_seq, "to": gap.to_seq, "count": gap.events, "reason": gap.reason}


def embeddable(payload: bytes, format_: int) -> bytes | None:
    """The payload as a JSON value, or None if only base64 can carry it."""
    if format_ == Format.JSON:
        return payload or b"null"
    if format_ == Format.NUMBER:
        return _json_number(payload)
    if format_ == Format.TEXT:
        try:
            return _quote(payload.decode())
        except UnicodeDecodeError:
            return None
    return None


def _json_number(payload: bytes) -> bytes | None:
    text = payload.strip()
    if not text:
        return b"null"
    if _JSON_NUMBER.fullmatch(text):
        return text
    try:
        value = float(text)
    except ValueError:
        return None
    return repr(value).encode() if isfinite(value) else None


class _Pieces(dict[tuple[str, int, int, bool], bytes]):
    """What stands between the sequence number and the payload, made once per topic, format, flags and encoding."""

    def __init__(self, make: Callable[[str, int, int, bool], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: tuple[str, int, int, bool]) -> bytes:
        if len(self) >= _MOST_TOPICS:
            self.clear()
        piece = self[key] = self._make(*key)
        return piece


def _columns(batch: Batch, pieces: _Pieces) -> tuple[list[bytes], list[bytes]]:
    """What stands before each payload, and each payload as a JSON value."""
    json, payloads = int(Format.JSON), batch.payloads
    spoken = {flags & _SPOKEN_FLAGS for flags in set(batch.flags)}
    if len(spoken) == 1 and batch.formats.count(json) == len(batch) and all(payloads):  # nearly always
        (flags,) = spoken
        by_topic = {topic: pieces[topic, json, flags, False] for topic in set(batch.topics)}
        return [by_topic[topic] for topic in batch.topics], payloads
    names: list[bytes] = []
    bodies: list[bytes] = []
    for topic, format_, flags, payload in zip(batch.topics, batch.formats, batch.flags, payloads, strict=True):
        value = embeddable(payload, format_)
        names.append(pieces[topic, format_, flags & _SPOKEN_FLAGS, value is None])
        bodies.append(b'"%b"' % b64encode(payload) if value is None else value)
    return names, bodies


def _on_one_line(bodies: list[bytes]) -> list[bytes]:
    text = b"".join(bodies)
    if _LINE_FEED not in text and _CARRIAGE_RETURN not in text:
        return bodies
    return [msgspec.json.format(body, indent=-1) if b"\n" in body or b"\r" in body else body for body in bodies]


def _write(
    seq: int, head: bytes, between: bytes, names: list[bytes], bodies: list[bytes], end: bytes, *, is_padded: bool
) -> bytes:
    """`head` seq `between` seq name body `end`, for each record.

    Args:
        seq: of the first.
        head: what each begins with.
        between: stands before the second number.
        names: what stands behind it.
        bodies: the payloads.
        end: what each ends with.
        is_padded: the second number has 20 digits.
    """
    parts: list[bytes] = []
    at, count = 0, len(bodies)
    while at < count:
        thousand, first = divmod(seq + at, 1_000)
        stop = min(count, at + 1_000 - first)
        last = first + stop - at
        ids, numbers = _digits(thousand, first, last), _digits(thousand, first, last, is_padded=is_padded)
        openings, middles = repeat(head + ids[0]), repeat(between + numbers[0])
        rows = zip(openings, ids[1], middles, numbers[1], names[at:stop], bodies[at:stop], repeat(end), strict=False)
        parts += chain.from_iterable(rows)
        at = stop
    return b"".join(parts)


def _digits(thousand: int, first: int, last: int, *, is_padded: bool = False) -> tuple[bytes, list[bytes]]:
    """The numbers from `1000 * thousand + first` on: what they all begin with, and how each of them ends."""
    if is_padded:
        return b"%017d" % thousand, _THREE_DIGITS[first:last]
    return (b"%d" % thousand, _THREE_DIGITS[first:last]) if thousand else (b"", _ALL_DIGITS[first:last])


def _flags(flags: int) -> Iterator[bytes]:
    return (b',"%b":true' % name for bit, name in _FLAG_NAMES if flags & bit)


def _content_type(format_: int, *, is_base64: bool) -> bytes:
    if is_base64:
        return b"text/plain" if format_ == Format.TEXT else b"application/octet-stream"
    return b"text/plain" if format_ == Format.TEXT else b"application/json"


def _cloudevent_piece(topic: str, format_: int, flags: int, is_base64: bool) -> bytes:  # noqa: FBT001 - a cache key
    return b'","subject":%b,"datacontenttype":"%b"%b,"%b":' % (
        _quote(topic),
        _content_type(format_, is_base64=is_base64),
        b"".join(_flags(flags)),
        b"data_base64" if is_base64 else b"data",
    )


def _line_piece(topic: str, _format: int, flags: int, is_base64: bool) -> bytes:  # noqa: FBT001 - a cache key
    return b',"topic":%b%b,"%b":' % (_quote(topic), b"".join(_flags(flags)), b"data_base64" if is_base64 else b"data")

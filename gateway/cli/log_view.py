"""What the logs hold, as lines for a person and as JSON for a machine. Pure."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.cli.words import count, moment, size, utc
from gateway.model import DERIVED, DUPLICATE, REPLAYED, RETAINED, Format, Kind
from gateway.observe.text import escape, preview

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Batch, Event
    from gateway.ringlog.inspect import LogInfo, VerifyReport
    from gateway.ringlog.segment import Damage

_MARKS = ((RETAINED, "retained"), (DUPLICATE, "duplicate"), (DERIVED, "derived"), (REPLAYED, "replayed"))


def selection(topic: str, *, decisions: bool) -> Callable[[Batch], list[Event]]:
    """What picks the wanted records out of a batch.

    Args:
        topic: an MQTT filter; `{name}` stands for one level, as in the configuration.
        decisions: whether records of kind DECISIONS are wanted at all.

    Raises:
        ValueError: the filter is none.
    """
    if topic == "#":
        return lambda batch: list(batch.events()) if decisions or batch.kind is Kind.EVENTS else []

    from gateway.mqtt.topics import compile_filter

    matches = compile_filter(topic).matches

    def pick(batch: Batch) -> list[Event]:
        if not decisions and batch.kind is not Kind.EVENTS:
            return []
        return [batch.event(index) for index, name in enumerate(batch.topics) if matches(name)]

    return pick


def event_line(batch: Batch, event: Event) -> str:
    """One record on one line: when, number, topic, payload, and what is odd about it."""
    marks = marks_of(event.flags)
    tail = f"  [{', '.join(marks)}]" if marks else ""
    kind = "" if batch.kind is Kind.EVENTS else f"{batch.kind.name.lower()} "
    return f"{moment(event.stamp.wall_ns)}  {event.seq}  {kind}{escape(event.topic)}  {preview(event.payload)}{tail}"


def event_json(batch: Batch, event: Event) -> str:
    """One record as one line of JSON. `value` where the payload can be JSON, else `payload_base64`."""
    fields: dict[str, Any] = {
        "seq": event.seq,
        "time": utc(event.stamp.wall_ns),
        "time_synced": event.stamp.synced,
        "kind": batch.kind.name.lower(),
        "topic": event.topic,
        "qos": event.flags & 3,
        "marks": marks_of(event.flags),
        **payload_fields(event.payload, batch.formats[event.seq - batch.seq]),
    }
    return msgspec.json.encode(fields).decode()


def payload_fields(payload: bytes, form: int) -> dict[str, Any]:
    """A payload as JSON fields: `value` if its format gives one, else `payload_base64`."""
    try:
        if form in (Format.JSON, Format.NUMBER):
            return {"value": msgspec.json.decode(payload) if payload else None}
        if form == Format.TEXT:
            return {"value": payload.decode()}
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    return {"payload_base64": base64.b64encode(payload).decode()}


def marks_of(flags: int) -> list[str]:
    """What a record's flags say beside its QoS."""
    return [name for bit, name in _MARKS if flags & bit]


def damage_line(damage: Damage) -> str:
    """One damaged range."""
    return f"damaged: {escape(damage.segment)}:{damage.offset}: {damage.length_bytes} bytes, {escape(damage.why)}"


def info_lines(name: str, info: LogInfo) -> list[str]:
    """A log in a few lines."""
    held = f"{count(info.records)} records ({count(info.events)} events), {size(info.size_bytes)}"
    found = [f"{name}: {held} in {len(info.segments)} segments, log {info.log_id or '-'} epoch {info.epoch}"]
    if info.records:
        found.append(f"  numbers {info.first_seq} to {info.end_seq - 1}")
        found.append(f"  from {moment(info.oldest_wall_ns)} to {moment(info.newest_wall_ns)}")
    found += [f"  {s.name}  {count(s.records):>10} records  {size(s.size_bytes):>10}" for s in info.segments]
    return found + [f"  {damage_line(damage)}" for damage in info.damaged]


def verify_lines(name: str, report: VerifyReport) -> list[str]:
    """The outcome of a verification, the verdict first."""
    verdict = "sound" if report.sound else "DAMAGED"
    read = f"{count(report.records)} records in {count(report.frames)} frames, {size(report.size_bytes)}"
    found = [f"{name}: {verdict}, {read}"]
    found += [f"  {damage_line(damage)}" for damage in report.damaged]
    if report.missing_records:
        found.append(f"  {count(report.missing_records)} records are missing between the first and the last")
    if report.torn_tail is not None:
        tail = report.torn_tail
        found.append(
            f"  unfinished write at the end ({escape(tail.segment)}:{tail.offset}): never acknowledged,"
            " cut off at the next start"
        )
    return found

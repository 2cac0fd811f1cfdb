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
    from gateway.ringlog.contents import Loss, Range
    from gateway.ringlog.inspect import LogInfo, VerifyReport
    from gateway.ringlog.repair import LogRepair
    from gateway.ringlog.segment import Damage

_MARKS = ((RETAINED, "retained"), (DUPLICATE, "duplicate"), (DERIVED, "derived"), (REPLAYED, "replayed"))


def selection(topic: str, *, decisions: bool, log: str = "events") -> Callable[[Batch], list[Event]]:
    """What picks the wanted records out of a batch.

    Args:
        topic: an MQTT filter; `{name}` stands for one level, as in the configuration.
        decisions: whether records of kind DECISIONS are wanted, too.
        log: of the other logs, which hold nothing but one kind, all records are wanted.

    Raises:
        ValueError: the filter is none.
    """
    from gateway.cli.log_export import chosen

    pick = chosen(topic, kinds=kinds_of(log, decisions=decisions))
    return lambda batch: [batch.event(index) for index in pick(batch)]


def kinds_of(log: str, *, decisions: bool) -> frozenset[Kind]:
    """Which kinds of records are shown of a log."""
    return frozenset(Kind) if decisions or log != "events" else frozenset({Kind.EVENTS})


def event_line(batch: Batch, event: Event, wall_ns: int) -> str:
    """One record on one line: when, number, topic, payload, and what is odd about it."""
    marks = marks_of(event.flags)
    tail = f"  [{', '.join(marks)}]" if marks else ""
    kind = "decisions " if batch.kind is Kind.DECISIONS else ""
    return f"{moment(wall_ns)}  {event.seq}  {kind}{escape(event.topic)}  {preview(event.payload)}{tail}"


def event_json(batch: Batch, event: Event, wall_ns: int) -> str:
    """One record as one line of JSON. `value` where the payload can be JSON, else `payload_base64`."""
    fields: dict[str, Any] = {
        "seq": event.seq,
        "time": utc(wall_ns),
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


def damage_line(damage: Damage | Loss) -> str:
    """One damaged range, and what it cost where that is known."""
    what = f"{count(damage.length_bytes)} bytes, " if damage.length_bytes else ""
    return f"damaged: {escape(damage.segment)}:{damage.offset}: {what}{escape(damage.why)}{_cost(damage)}"


def _cost(damage: Damage | Loss) -> str:
    begin, end = getattr(damage, "from_seq", 0), getattr(damage, "to_seq", 0)
    return f"; lost: {numbers(begin, end)}" if end > begin else ""


def numbers(from_seq: int, to_seq: int) -> str:
    """`10 records, 20 to 29`; the end does not belong to it."""
    if to_seq - from_seq == 1:
        return f"1 record, {from_seq}"
    return f"{count(to_seq - from_seq)} records, {from_seq} to {to_seq - 1}"


def evicted_line(gone: Range) -> str:
    """What a running gateway gave up while its log was read."""
    return f"evicted before it was read: {numbers(gone.from_seq, gone.to_seq)}"


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
        found.append(f"  {count(report.missing_records)} records are lost")
    if report.written_off_records:
        found.append(f"  {count(report.written_off_records)} records were lost before, and written off by a repair")
    if report.leftovers:
        found.append(f"  {count(report.leftovers)} frames are copies or leftovers that nobody reads")
    if report.torn_tail is not None:
        tail = report.torn_tail
        found.append(
            f"  unfinished write at the end ({escape(tail.segment)}:{tail.offset}): never acknowledged,"
            " cut off at the next start"
        )
    return found


def repair_lines(done: LogRepair) -> list[str]:
    """What was found in one log and what was done."""
    kept = f"{count(done.records)} records in {count(done.frames)} frames, {done.segments} segments"
    found = [f"{done.log}: {'DAMAGED' if done.outcome == 'damaged' else done.outcome}, {kept}"]
    if done.resumed is not None:
        found.append(f"  {done.resumed} was left by a repair that broke off: that is the log now")
    found += [f"  {damage_line(loss)}" for loss in done.damaged]
    lost = sum(gone.records for gone in done.lost)
    if lost:
        found.append(f"  lost in all: {count(lost)} records")
    if done.brought_back_records:
        found.append(f"  brought back: {count(done.brought_back_records)} records that had been put aside")
    if done.original is not None:
        found.append(f"  the log as it was lies in {done.original}, {size(done.quarantined_bytes)} of it nowhere else;")
        found.append("  remove it when you want it no longer")
    return found

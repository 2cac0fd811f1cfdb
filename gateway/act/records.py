"""Decisions and outcomes as records of the log: tagged JSON, so that a person can read them there too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.model import Batch, Decision, Format, Kind, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.model import Stamp

DECISION_TOPIC = "$gateway/decisions/{rule}"
OUTCOME_TOPIC = "$gateway/outcomes/{rule}"
_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Decision | Outcome] = msgspec.json.Decoder(Decision | Outcome)


def encode_records(records: Sequence[Decision | Outcome], stamp: Stamp) -> Batch:
    """One batch of kind DECISIONS, to be appended to the event log."""
    return Batch(
        kind=Kind.DECISIONS,
        stamp=stamp,
        topics=[_topic(record) for record in records],
        formats=[Format.JSON] * len(records),
        flags=[0] * len(records),
        payloads=[_encode(record) for record in records],
    )


def decode_records(batch: Batch) -> Iterator[tuple[int, Decision | Outcome]]:
    """Sequence number and record, for each one that still decodes."""
    for seq, payload in enumerate(batch.payloads, batch.seq):
        try:
            yield seq, _decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue


def _topic(record: Decision | Outcome) -> str:
    if isinstance(record, Decision):
        return DECISION_TOPIC.format(rule=record.rule)
    return OUTCOME_TOPIC.format(rule=record.decision_id.split("/", 1)[0])

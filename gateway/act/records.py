"""What act reads and writes in the log: decisions, outcomes, and what is known of actuators.

Tagged JSON, so that a person can read them there too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.act.actuator import Standing
from gateway.model import Batch, Decision, Format, Kind, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.model import Stamp

DECISION_TOPIC = "$gateway/decisions/{rule}"
OUTCOME_TOPIC = "$gateway/outcomes/{rule}"
STANDING_TOPIC = "$gateway/actuators"
_RECORDS_PER_BATCH = 10_000
_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Decision | Outcome | Standing] = msgspec.json.Decoder(Decision | Outcome | Standing)


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


def encode_standings(standings: Sequence[Standing], stamp: Stamp) -> Iterator[Batch]:
    """Batches of kind DECISIONS, to be appended to the event log one behind the other."""
    for start in range(0, len(standings), _RECORDS_PER_BATCH):
        part = standings[start : start + _RECORDS_PER_BATCH]
        yield Batch(
            kind=Kind.DECISIONS,
            stamp=stamp,
            topics=[STANDING_TOPIC] * len(part),
            formats=[Format.JSON] * len(part),
            flags=[0] * len(part),
            payloads=[_encode(standing) for standing in part],
        )


def decode_records(batch: Batch) -> Iterator[tuple[int, Decision | Outcome]]:
    """Sequence number and record of every decision and outcome that still decodes."""
    for seq, record in decode_all(batch):
        if not isinstance(record, Standing):
            yield seq, record


def decode_all(batch: Batch) -> Iterator[tuple[int, Decision | Outcome | Standing]]:
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

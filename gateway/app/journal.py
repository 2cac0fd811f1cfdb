"""How decisions get into the log: the one place that appends what rules and act have to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.act.records import decode_records, encode_records
from gateway.model import DERIVED, HOPS_SHIFT, MAX_HOPS, Batch, Decision, Emit, Format, Kind, Marker, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.ringlog import RingLog


MARKER_TOPIC = "$gateway/markers"


class Journal:
    """Appends decisions and outcomes, and the events that decisions derive."""

    def __init__(self, log: RingLog) -> None:
        self._log = log
        self.derived = 0
        """Events appended that rules had made."""

    def record(self, records: Sequence[Decision | Outcome]) -> None:
        """Append in memory; both batches go to disk with the next sync.

        A derived event goes ahead of its decision: a crash between the two repeats it rather than losing it.
        """
        stamp = self._log.stamp()
        emits = [
            record.action
            for record in records
            if isinstance(record, Decision) and isinstance(record.action, Emit) and not record.shadow
        ]
        if emits:
            self.derived += len(emits)
            self._log.append(
                Batch(
                    kind=Kind.EVENTS,
                    stamp=stamp,
                    topics=[emit.topic for emit in emits],
                    formats=[Format.JSON] * len(emits),
                    flags=[DERIVED | min(emit.hops, MAX_HOPS) << HOPS_SHIFT for emit in emits],
                    payloads=[emit.payload for emit in emits],
                    values=[msgspec.json.decode(emit.payload) for emit in emits],
                )
            )
        self._log.append(encode_records(records, stamp))

    def mark(self, what: str, rules: dict[str, str]) -> None:
        """Append a marker: see `gateway.model.Marker`."""
        payload = msgspec.json.encode(Marker(what, rules))
        self._log.append(
            Batch(
                kind=Kind.DECISIONS,
                stamp=self._log.stamp(),
                topics=[MARKER_TOPIC],
                formats=[Format.JSON],
                flags=[0],
                payloads=[payload],
            )
        )


def records_of(batch: Batch) -> Iterator[Decision | Outcome]:
    """What a batch of kind DECISIONS holds."""
    for _, record in decode_records(batch):
        yield record

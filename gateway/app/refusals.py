"""The record of what clients were refused: who, from where, what, and why.

Written to the event log, from which the audit trail copies it. The first of a kind is written at once; repetitions are
counted and written once a minute, so that each one is accounted for and a flood of them pushes nothing else out.

Invariants:
- Every refusal is in exactly one record, alone or in its count; what was being counted when the gateway was killed is
  lost.
- At most `MAX_KINDS` kinds are told apart within a minute; the rest of them share one record.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from gateway.model import Batch, Format, Kind, Refused
from gateway.observe import events

if TYPE_CHECKING:
    from gateway.mqtt.access import Refusal
    from gateway.ringlog import RingLog

TOPIC = "$gateway/refusals"
MAX_KINDS = 100
GATHER_S = 60.0
_SHOWN_CHARACTERS = 200


class Refusals:
    """Writes refusals to a log."""

    def __init__(self, log: RingLog) -> None:
        self._log = log
        self._repeated: dict[Refused, int] = {}
        """Kinds of this minute, and how often each came after it was written."""

    def note(self, refusal: Refusal) -> None:
        """Something was refused."""
        kind = Refused(
            action=refusal.action,
            host=refusal.peer.rpartition(":")[0],
            client_id=refusal.client_id[:_SHOWN_CHARACTERS],
            user=refusal.user[:_SHOWN_CHARACTERS],
            subject=refusal.subject[:_SHOWN_CHARACTERS],
            code=refusal.reason,
            detail=refusal.detail,
        )
        if kind not in self._repeated and len(self._repeated) >= MAX_KINDS:
            kind = Refused(action=refusal.action, host="", detail="others, of which there were too many to tell apart")
        if kind in self._repeated:
            self._repeated[kind] += 1
            return
        self._repeated[kind] = 0
        events.refused(
            refusal.action,
            peer=refusal.peer,
            client_id=kind.client_id,
            user=kind.user,
            subject=kind.subject,
            code=f"0x{kind.code:02x}",
            detail=kind.detail,
        )
        self._write([kind])

    def flush(self) -> None:
        """Write what was counted, and begin to count anew."""
        counted, self._repeated = self._repeated, {}
        self._write([msgspec.structs.replace(kind, count=count) for kind, count in counted.items() if count])

    async def run(self) -> None:
        """Write what was counted, once a minute, until cancelled."""
        while True:
            await asyncio.sleep(GATHER_S)
            self.flush()

    def _write(self, records: list[Refused]) -> None:
        if not records:
            return
        self._log.append(
            Batch(
                kind=Kind.DECISIONS,
                stamp=self._log.stamp(),
                topics=[TOPIC] * len(records),
                formats=[Format.JSON] * len(records),
                flags=[0] * len(records),
                payloads=[msgspec.json.encode(record) for record in records],
            )
        )

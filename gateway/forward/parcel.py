"""What is sent at once: records of one or several log frames, in log order. Pure.

Invariants:
- Every batch is of kind EVENTS and not empty; sequence numbers ascend.
- `position(k)` is where a cursor stands once the first `k` records are settled. With all of them settled that is the
  reader's own position, beyond any decisions that lay behind the last event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.model import DeadLetter, Position

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.forward.verdict import Refusal
    from gateway.model import Batch


@dataclass(frozen=True, slots=True)
class Parcel:
    """Consecutive events. `end` is the position behind the last of them."""

    batches: Sequence[Batch]
    end: Position

    def __len__(self) -> int:
        return sum(map(len, self.batches))

    def locate(self, index: int) -> tuple[Batch, int]:
        """The batch that holds record `index`, and the record's index there."""
        for batch in self.batches:
            if index < len(batch):
                return batch, index
            index -= len(batch)
        raise IndexError(index)

    def position(self, count: int) -> Position:
        """Where a cursor stands when the first `count` records are settled."""
        if count >= len(self):
            return self.end
        batch, index = self.locate(count)
        return Position(batch.seq + index, batch.ordinal + index)

    def slice(self, start: int, stop: int) -> Parcel:
        """The records from `start` up to `stop`."""
        if start == 0 and stop >= len(self):
            return self
        chosen = []
        first = 0
        for batch in self.batches:
            low, high = max(start - first, 0), min(stop - first, len(batch))
            if low < high:
                chosen.append(batch.slice(low, high) if high - low < len(batch) else batch)
            first += len(batch)
        return Parcel(chosen, self.position(stop))

    def letter(self, refusal: Refusal, sink: str, tries: int, first_wall_ns: int, last_wall_ns: int) -> DeadLetter:
        """The dead letter of a record that a sink has refused.

        Args:
            refusal: which record, and why.
            sink: who refused it.
            tries: how often it was sent.
            first_wall_ns: when that began.
            last_wall_ns: when it ended.
        """
        batch, index = self.locate(refusal.index)
        return DeadLetter(
            id=f"{batch.origin.prefix()}{batch.seq + index}",
            topic=batch.topics[index],
            payload=batch.payloads[index],
            flags=batch.flags[index],
            stage=sink,
            code=refusal.code,
            detail=refusal.detail,
            attempts=tries,
            first_wall_ns=first_wall_ns,
            last_wall_ns=last_wall_ns,
        )

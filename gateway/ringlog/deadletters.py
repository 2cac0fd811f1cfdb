"""The dead-letter log: what could not be processed, whole, in a ring of its own so that telemetry cannot evict it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.model import Batch, DeadLetter, Format, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.ringlog.committer import Committer
    from gateway.ringlog.ring import RingLog

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(DeadLetter)


class DeadLetters:
    """Appends letters to a ring whose records are `DeadLetter` as JSON under the letter's own topic."""

    def __init__(self, ring: RingLog, committer: Committer) -> None:
        self.ring = ring
        self._committer = committer
        self.appended_by_code: dict[tuple[str, str], int] = {}
        """Since start, by stage and code."""

    def append(self, letters: Sequence[DeadLetter]) -> None:
        """Append in memory. A letter without an id gets the one of its own record."""
        prefix, seq = self.ring.origin.prefix(), self.ring.appended.seq
        named = [
            letter if letter.id else msgspec.structs.replace(letter, id=f"{prefix}{seq + index}")
            for index, letter in enumerate(letters)
        ]
        for letter in named:
            key = (letter.stage, letter.code)
            self.appended_by_code[key] = self.appended_by_code.get(key, 0) + 1
        self.ring.append(
            Batch(
                kind=Kind.DEAD_LETTERS,
                stamp=self.ring.stamp(),
                topics=[letter.topic for letter in named],
                formats=[Format.JSON] * len(named),
                flags=[letter.flags for letter in named],
                payloads=[_encode(letter) for letter in named],
            )
        )

    async def store(self, letters: Sequence[DeadLetter]) -> None:
        """Append, and return once they are on disk.

        Raises:
            StorageError: if the disk refuses.
        """
        self.append(letters)
        await self._committer.run(_nothing, after=(self.ring,))


def letters_of(batch: Batch) -> list[DeadLetter]:
    """The letters of a batch of the dead-letter log. One that no longer decodes is left out."""
    letters = []
    for payload in batch.payloads:
        try:
            letters.append(_decoder.decode(payload))
        except msgspec.MsgspecError:
            continue
    return letters


def _nothing() -> None:
    """A task that is done when everything before it is on disk."""

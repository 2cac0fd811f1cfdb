"""Putting dead letters back: what `POST /api/v1/deadletters/replay` takes and gives, and how it is decided. Pure.

A dead letter that is put back becomes a new event at the end of the log, marked REPLAYED: every sink sees it, no
actuator ever moves because of it. The dead-letter log is only ever appended to, so that an event was put back is noted
there by a further letter of stage `operator`, code `replayed`, with the same id and no payload.

Invariants:
- A letter that has been put back is not put back again; neither is the same event twice because two sinks refused it.
- What no longer exists whole (an oversized payload, of which only the beginning was kept) is refused, never faked.
- The note follows the event: a crash between the two repeats a replay, and never loses one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from gateway.model import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Iterable

REPLAY_PATH = "/api/v1/deadletters/replay"
OPERATOR = "operator"
REPLAYED_CODE = "replayed"
TRUNCATED_CODE = "too_large"


class ReplayRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead letters to put back: either some by id, or all that have not been."""

    ids: tuple[str, ...] = ()
    all: bool = False

    def __post_init__(self) -> None:
        if self.all == bool(self.ids):
            raise ValueError("give either ids or all, and not both")


class ReplayResult(msgspec.Struct, frozen=True):
    """What became of a replay. Replayed events are durable when this is answered."""

    replayed: tuple[str, ...] = ()
    """Ids of the letters put back."""
    refused: dict[str, str] = {}
    """Ids of those that were not, each with a sentence why."""


Replay: TypeAlias = Callable[[ReplayRequest], Awaitable[ReplayResult]]
"""Given to the server by the composition root; it raises `StorageError` if the log does not take the events."""


class Ledger:
    """The dead-letter log, read: its letters in order, and which of them have been put back."""

    def __init__(self, letters: Iterable[DeadLetter]) -> None:
        self.letters: list[DeadLetter] = []
        self.replayed: set[str] = set()
        for letter in letters:
            if letter.stage == OPERATOR and letter.code == REPLAYED_CODE:
                self.replayed.add(letter.id)
            else:
                # The event was refused anew under its old id: it stands again.
                self.replayed.discard(letter.id)
                self.letters.append(letter)

    def waiting(self) -> list[DeadLetter]:
        """Letters that have not been put back."""
        return [letter for letter in self.letters if letter.id not in self.replayed]

    def choose(self, request: ReplayRequest) -> tuple[list[DeadLetter], dict[str, str]]:
        """Which letters to put back, one per event, and why not the others that were asked for."""
        chosen: dict[str, DeadLetter] = {}
        refused: dict[str, str] = {}
        asked = None if request.all else set(request.ids)
        known = set()
        for letter in self.letters:
            if asked is not None and letter.id not in asked:
                continue
            known.add(letter.id)
            if letter.id in self.replayed:
                if asked is not None:
                    refused[letter.id] = "it has been put back already"
            elif letter.code == TRUNCATED_CODE and letter.stage == "ingest":
                refused[letter.id] = "it was too large to be kept whole"
            else:
                chosen.setdefault(letter.id, letter)
        refused |= dict.fromkeys(sorted((asked or set()) - known), "the dead-letter log does not hold it")
        return list(chosen.values()), refused


def replay_note(letter: DeadLetter, now_wall_ns: int) -> DeadLetter:
    """The letter that says that this one has been put back."""
    return DeadLetter(
        id=letter.id,
        topic=letter.topic,
        payload=b"",
        flags=letter.flags,
        stage=OPERATOR,
        code=REPLAYED_CODE,
        detail="put back into the log",
        attempts=0,
        first_wall_ns=now_wall_ns,
        last_wall_ns=now_wall_ns,
    )

"""Putting dead letters back into an open log: for the running gateway's API, and for `gateway dlq replay` beside none.

What devices sent goes through ingest once more, so that today's configuration decides what becomes of it; what rules
had derived goes straight into the log. The order, so that a crash at any point loses nothing: events appended and
durable, then the notes that they have been put back, then the answer. Which letters are meant is decided in
`gateway.web.deadletters`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.model import DERIVED, REPLAYED, Arrivals, Batch, DeadLetter, Format, Kind
from gateway.observe.text import escape
from gateway.ringlog import inspect, letters_of
from gateway.web.deadletters import Ledger, ReplayRequest, ReplayResult, replay_note

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.ingest import Ingest
    from gateway.ringlog import Store

_AT_ONCE = 200
"""Letters between two looks at the rest of the gateway."""


class Replayer:
    """Puts dead letters of one open store back. Called on the store's loop."""

    def __init__(self, store: Store, data_dir: Path, ingest: Ingest) -> None:
        self._store = store
        self._data_dir = data_dir
        self._ingest = ingest
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, request: ReplayRequest) -> ReplayResult:
        """Put back what is asked for; durable when this returns.

        Raises:
            StorageError: the disk refuses. What had been put back by then is not noted and may be put back again.
        """
        async with self._one_at_a_time:
            await self._durable()
            ledger = Ledger(await asyncio.to_thread(read_letters, self._data_dir))
            chosen, refused = ledger.choose(request)
            done: list[DeadLetter] = []
            replayed: list[str] = []
            for number, letter in enumerate(chosen):
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
                why_not, settled = self._put_back(letter)
                if why_not:
                    refused[letter.id] = why_not
                else:
                    replayed.append(letter.id)
                if settled:
                    done.append(letter)
            if done:
                await self._durable()
                now_wall_ns = self._store.events.stamp().wall_ns
                await self._store.dead_letters.store([replay_note(letter, now_wall_ns) for letter in done])
            return ReplayResult(replayed=tuple(replayed), refused=refused)

    def _put_back(self, letter: DeadLetter) -> tuple[str, bool]:
        """Why it was not put back (empty: it was), and whether the old letter has had its day."""
        flags = letter.flags | REPLAYED
        if letter.flags & DERIVED:
            log = self._store.events
            log.append(Batch(Kind.EVENTS, log.stamp(), [letter.topic], [Format.JSON], [flags], [letter.payload]))
            return "", True
        ingest = self._ingest
        stored, not_stored = ingest.stored, ingest.not_stored
        ingest.accept(Arrivals([letter.topic], [flags], [letter.payload], _nothing))
        if ingest.stored > stored:
            return "", True
        if ingest.not_stored > not_stored:
            return f"nothing under ingest.topics stores {escape(letter.topic)}", False
        return "it was refused again; a new dead letter says why", True

    async def _durable(self) -> None:
        await self._store.committer.run(_nothing)


def read_letters(data_dir: Path) -> list[DeadLetter]:
    """Every letter of a data directory, oldest first. Damaged stretches are passed over.

    Raises:
        StorageError: there is no dead-letter log, or it cannot be read.
    """
    letters: list[DeadLetter] = []
    for item in inspect.scan_log(data_dir, "deadletters"):
        if isinstance(item, Batch):
            letters += letters_of(item)
    return letters


def _nothing() -> None:
    """A task that is done when everything before it is on disk."""

"""What has changed and is to be kept, and what may be said only once it is kept.

Sessions and the exchange write into it while a turn of the loop is handled; at its end `gathering` has the entries
written, and says what waits for them once they are on disk.

Invariants:
- What is *noted* is on disk before anything that is *staged* in the same turn or later is said.
- What is noted *late* only says that something is over; it goes along with the next that must be written, or with the
  clock's next second. If it is lost, something is done twice that may be done twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.mqtt.ledger import Entry
    from gateway.mqtt.session import Hearer


class Notes:
    """See the module."""

    __slots__ = ("_answers", "_entries", "on_change")

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._answers: list[tuple[Hearer, bytes]] = []
        self.on_change: Callable[[], None] = lambda: None
        """Called with every entry that must be written: the turn is to be ended, even if it brought no message."""

    def note(self, entry: Entry) -> None:
        """Have an entry written before anything is said that is staged."""
        self._entries.append(entry)
        self.on_change()

    def note_late(self, entry: Entry) -> None:
        """Have an entry written some time, in its place among the others."""
        self._entries.append(entry)

    def stage(self, hearer: Hearer, data: bytes) -> None:
        """Say something once all that has been noted is on disk."""
        self._answers.append((hearer, data))
        self.on_change()

    @property
    def is_waiting(self) -> bool:
        """Whether something waits to be written along."""
        return bool(self._entries)

    def take(self) -> tuple[list[Entry], list[tuple[Hearer, bytes]]]:
        """The entries in the order in which they are to be written, and what to say then."""
        entries, answers = self._entries, self._answers
        self._entries, self._answers = [], []
        return entries, answers

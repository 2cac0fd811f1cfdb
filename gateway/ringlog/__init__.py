"""The event store: an ordered, bounded log that survives crashes, and the cursors of those who read it."""

from gateway.ringlog.chain import RingSettings
from gateway.ringlog.cursor import CursorStore
from gateway.ringlog.deadletters import DeadLetters, letters_of
from gateway.ringlog.reader import Reader
from gateway.ringlog.ring import RingLog
from gateway.ringlog.store import Store

__all__ = ["CursorStore", "DeadLetters", "Reader", "RingLog", "RingSettings", "Store", "letters_of"]

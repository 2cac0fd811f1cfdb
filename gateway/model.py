"""The vocabulary that every stage speaks: frozen values, no behaviour beyond naming their own parts.

Events travel in **batches of columns**, not one object each: what one turn of the loop received, what one frame of the
log holds, and what one reader hands on are the same shape. That is where the speed comes from (`docs/performance.md`),
and it is the one thing to understand before reading anything else here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Value: TypeAlias = Any
"""A decoded payload: None, bool, int, float, str, bytes, list or dict of the same."""

# Flags of one record, one byte in the log. Bits 0-1 hold the QoS with which it came.
QOS_MASK = 0x03
RETAINED = 0x04
"""Delivered because it was retained, not because it has just happened."""
DUPLICATE = 0x08
"""The sender marked it as a second try (MQTT DUP)."""
DERIVED = 0x10
"""Made by a rule, not by a device."""
REPLAYED = 0x20
"""Put back from the dead letters by an operator."""
HOPS_SHIFT = 6
"""Bits 6-7: how many rules stand between this derived event and a device, 0 to 3. What would pass 3 is a loop."""
MAX_HOPS = 3
NOT_FRESH = RETAINED | DUPLICATE | REPLAYED
"""Any of these: the record is stored and forwarded, and never moves an actuator."""


class Format(IntEnum):
    """How a payload is decoded. Numbers are part of the log format and never change their meaning."""

    RAW = 0
    JSON = 1
    TEXT = 2
    NUMBER = 3


class Kind(IntEnum):
    """What a log frame holds. Numbers are part of the log format and never change their meaning."""

    EVENTS = 0
    """From devices, or derived by rules. Sinks forward them; rules see them."""
    DECISIONS = 1
    """What rules decided and what became of it. Only act, `rules why` and the web read them."""
    DEAD_LETTERS = 2
    """In the dead-letter log only."""
    CLIENTS = 3
    """What the listener keeps of its clients. In a log of their own."""


class Stamp(NamedTuple):
    """One reading of all clocks. See `gateway.clock`."""

    wall_ns: int
    mono_ns: int
    elapsed_ns: int
    boot_id: bytes
    synced: bool


class Origin(NamedTuple):
    """Whose sequence numbers these are: with `seq`, the stable id of a record."""

    gateway: str
    log_id: str
    """Sixteen hex digits, drawn when the log was created."""
    epoch: int
    """Counts openings of the log, so that a number lost in a power cut never names a second event."""

    def prefix(self) -> str:
        """Everything of an event id but the sequence number."""
        return f"{self.gateway}/{self.log_id}/{self.epoch}/"


@dataclass(frozen=True, slots=True)
class Event:
    """One record, materialised for those who want one at a time (a rule's trace, the CLI, the web)."""

    id: str
    seq: int
    topic: str
    payload: bytes
    value: Value
    flags: int
    stamp: Stamp


@dataclass(slots=True)
class Batch:
    """Consecutive records of one log, column by column. All columns have the same length.

    `values` holds decoded payloads where the batch has just come through ingest; it is None after a read from disk,
    and `gateway.ingest.decode.values_of` fills it in.
    `seq` numbers every record of the log. `ordinal` numbers only records of kind EVENTS, so that
    *pending = ordinal at the end - ordinal at the cursor* counts exactly what a sink still has to see.
    """

    kind: Kind
    stamp: Stamp
    topics: list[str]
    formats: list[int]
    flags: list[int]
    payloads: list[bytes]
    values: list[Value] | None = None
    origin: Origin = field(default=Origin("", "", 0))
    seq: int = 0
    ordinal: int = 0

    def __len__(self) -> int:
        return len(self.topics)

    @property
    def end(self) -> int:
        """Sequence number after the last record."""
        return self.seq + len(self.topics)

    @property
    def end_ordinal(self) -> int:
        """Ordinal after the last record."""
        return self.ordinal + (len(self.topics) if self.kind is Kind.EVENTS else 0)

    def event(self, index: int) -> Event:
        """The record at `index`, as one object."""
        seq = self.seq + index
        return Event(
            id=f"{self.origin.prefix()}{seq}",
            seq=seq,
            topic=self.topics[index],
            payload=self.payloads[index],
            value=self.values[index] if self.values is not None else None,
            flags=self.flags[index],
            stamp=self.stamp,
        )

    def events(self) -> Iterator[Event]:
        """Every record, one object each."""
        return map(self.event, range(len(self.topics)))

    def slice(self, start: int, stop: int) -> Batch:
        """The records from index `start` up to `stop`, as a batch of their own."""
        return Batch(
            kind=self.kind,
            stamp=self.stamp,
            topics=self.topics[start:stop],
            formats=self.formats[start:stop],
            flags=self.flags[start:stop],
            payloads=self.payloads[start:stop],
            values=None if self.values is None else self.values[start:stop],
            origin=self.origin,
            seq=self.seq + start,
            ordinal=self.ordinal + (start if self.kind is Kind.EVENTS else 0),
        )


@dataclass(slots=True)
class Arrivals:
    """What one turn of a receiver brought, from all its connections. Columns of equal length.

    The receiver gives it to ingest and forgets it until `settle` is called on the loop, which says: everything in here
    is on disk (or was not to be stored); acknowledge it. If storing failed, `settle` is never called and the sender
    will offer the messages again. `settle` is bound to the connections that brought the messages: if one of them is
    gone, its share is dropped, never sent on a successor (a packet id means something else there).
    """

    topics: list[str]
    flags: list[int]
    payloads: list[bytes]
    settle: Callable[[], None]


class Rejection(NamedTuple):
    """Why a payload was not accepted. A value, since bad device data is expected."""

    code: str
    """Bounded vocabulary, fit for a metric label: `json`, `utf8`, `too_large`, `duplicate_key`, `depth` ..."""
    detail: str
    """One sentence for a person."""


class Gap(NamedTuple):
    """Records that a reader will never see: `[from_seq, to_seq)`."""

    from_seq: int
    to_seq: int
    events: int
    """How many of them were of kind EVENTS."""
    reason: str
    """`evicted` or `damaged`."""


class Position(NamedTuple):
    """Where a reader stands: the next record it wants, in both numberings."""

    seq: int
    ordinal: int


class Cursor(msgspec.Struct, frozen=True):
    """A consumer's durable place in the log, with what became of everything before it (L7).

    Invariant: `ordinal - start_ordinal = delivered + dead_lettered + evicted`.
    """

    seq: int
    ordinal: int
    start_ordinal: int = 0
    """Where the consumer began."""
    delivered: int = 0
    dead_lettered: int = 0
    evicted: int = 0


class DeadLetter(msgspec.Struct, frozen=True):
    """An event that could not be processed, whole, with the reason. Stored as JSON in the dead-letter log."""

    id: str
    """The event's own id; for what ingest refused, an id in the dead-letter log's numbering."""
    topic: str
    payload: bytes
    """The original bytes; for an oversized payload its first KiB."""
    flags: int
    stage: str
    """`ingest`, or the name of the sink that refused it."""
    code: str
    """Bounded vocabulary, fit for a metric label."""
    detail: str
    attempts: int
    first_wall_ns: int
    last_wall_ns: int


# What rules decide. These are stored in the log as JSON (kind DECISIONS), so field names are part of the log format.


class Publish(msgspec.Struct, frozen=True, tag="publish"):
    """Send a message to whoever subscribes. Not for actuators: those are driven by `Command`."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


class Notify(msgspec.Struct, frozen=True, tag="notify"):
    """Tell a person."""

    to: str
    text: str


class Emit(msgspec.Struct, frozen=True, tag="emit"):
    """Append a derived event, which other rules and all sinks see. `payload` is JSON."""

    topic: str
    payload: bytes
    hops: int = 1


OPERATOR = "operator"
"""Stands in the place of a rule's id where a person has set a variable."""


class Set(msgspec.Struct, frozen=True, tag="set"):
    """Give a variable of the rules a value. Done by being decided; an operator's is done when the engine reads it."""

    name: str
    value: Value


class Expect(msgspec.Struct, frozen=True):
    """What a device must report for a command to count as done."""

    topic: str
    where: str
    """Expression over the reported value, in which `wanted` is the command's own value."""
    within_s: float
    retries: int
    """Further tries after the first."""


class Command(msgspec.Struct, frozen=True, tag="command"):
    """Drive an actuator. Passes the interlock, is confirmed if `expect` says how, and is compensated by `otherwise`."""

    topic: str
    payload: bytes
    state: str | None = None
    """`on`, `off`, or None for an actuator that has no such two states. `off` is the safe direction: always allowed."""
    expect: Expect | None = None
    otherwise: tuple[Publish | Notify | Emit, ...] = ()


Action: TypeAlias = Publish | Command | Emit | Notify | Set


class Decision(msgspec.Struct, frozen=True, tag="decision"):
    """One thing that a rule wants done, and why. Logged before anybody acts on it."""

    id: str
    """`{rule}/{key}/{elapsed_ns}/{n}`: the same log gives the same ids, so that a replay repeats nothing."""
    rule: str
    key: str
    """Captured topic levels, joined by `,`; empty for a rule without captures."""
    action: Action
    elapsed_ns: int
    """When it was decided, on the log's own clock: the event's time, or the deadline's."""
    cause_seq: int | None
    """The record that led to it; None if the passing of time did."""
    because: str
    """One sentence for a person, with the values at the time."""
    shadow: bool = False
    """From a rule on trial: recorded, and nobody acts on it."""

    @property
    def leaves(self) -> bool:
        """Whether somebody has to carry it out: it is not on trial, and was not done by having been recorded."""
        return not self.shadow and isinstance(self.action, Publish | Command | Notify)


class Outcome(msgspec.Struct, frozen=True, tag="outcome"):
    """What became of a decision. Logged as it happens."""

    decision_id: str
    state: str
    """`sent`, `confirmed`, `unconfirmed` (all tries used), `superseded` (by a newer command to the same actuator),
    `denied` (interlock), `expired` (too old to act on)."""
    detail: str
    elapsed_ns: int


class Marker(msgspec.Struct, frozen=True, tag="marker"):
    """Something that happened to the gateway itself and bears on its rules. Its stamp tells the clocks at that time."""

    what: str
    """`started`, `reloaded` (with other rules), `clock` (the wall clock has become known, or has jumped)."""
    rules: dict[str, str]
    """Rule id to fingerprint: what decides from here on."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """Something that a client of the listener wanted and was not given."""

    action: str
    """`connect`, `publish` or `subscribe`."""
    host: str
    client_id: str = ""
    user: str = ""
    subject: str = ""
    """The topic or filter."""
    code: int = 0
    """The reason code of MQTT 5.0."""
    detail: str
    count: int = 1
    """How often, since the record before this one."""


class ActuatorLimits(NamedTuple):
    """What the interlock holds an actuator to, whatever rules say. Durations in seconds; None: no such limit."""

    min_on_s: float = 0.0
    min_off_s: float = 0.0
    max_on_s: float | None = None
    safe: Command | None = None
    """What to send at shutdown or when the engine or the disk is lost; None: leave it as it is."""
    off: Command | None = None
    """What to send when `max_on_s` is over, whatever the safe state is; None: `safe`, if that is off."""

"""What the listener must not forget when it is killed: sessions, subscriptions, retained messages, messages under way.

Changes are *entries*, appended to a log of their own before what they stand for is said to anybody. The state is what
the entries add up to, so that a restart finds what was there (L12): `Ledger` does the adding up, from a snapshot and
the entries behind it. While the gateway runs nobody needs a ledger; `exchange` holds the living state, writes the
entries, and gives the snapshots.

What a message brings about lies in two logs: the event in one, and in the other for whom it is and by which packet id
its repetition will be recognised. Both must be on disk or neither. The entries are synced first, behind a *bound* that
says how far the event log will then reach. If it does not reach there, the event never was: its sender has not been
answered and will send it again, and the entries behind the bound count for nothing.

Invariants:
- Times are on the log's own clock, which no jump of the wall clock moves (L11) and which goes on across restarts.
- Entries name sessions by client id and messages by a number that is given once per session.
- An entry about something that is no longer there changes nothing: entries that only say that something is over may be
  written late, and lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from gateway.mqtt.packets import Subscription, Will  # noqa: TC001 - the decoder reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 1
_NS = 1_000_000_000


class KeptMessage(msgspec.Struct, array_like=True, frozen=True):
    """A message as it is passed on."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict[int, Any]
    expires_ns: int | None
    """On the log's clock."""


class Taker(msgspec.Struct, array_like=True, frozen=True):
    """One session that is to get a message."""

    client_id: str
    number: int
    """Of the message, within that session."""
    qos: int
    retain: bool
    identifiers: tuple[int, ...]


class _Arrival(msgspec.Struct, array_like=True, frozen=True):
    """What a client says of itself when it connects."""

    client_id: str
    version: int
    expiry_s: float
    will: Will | None
    keepalive_s: int
    owner: str = ""
    """The name under which it proved itself."""


class Began(_Arrival, frozen=True, tag=1):
    """A client is here with a new session; one that it had before is gone."""


class Came(_Arrival, frozen=True, tag=2):
    """A client is here again."""


class Left(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """A client has gone; its session stays."""

    client_id: str
    expiry_s: float
    will_in_s: float | None
    """When its will is to be published; None: it has none, or it is out already."""


class Ended(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """A session is over."""

    client_id: str


class Subscribed(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """A subscription was made or changed."""

    client_id: str
    filter: str
    subscription: Subscription


class Unsubscribed(msgspec.Struct, array_like=True, frozen=True, tag=6):
    """A subscription is gone."""

    client_id: str
    filter: str


class Retained(msgspec.Struct, array_like=True, frozen=True, tag=7):
    """A topic's last message; with an empty payload, there is none any more."""

    message: KeptMessage


class Queued(msgspec.Struct, array_like=True, frozen=True, tag=8):
    """A message is to reach these sessions."""

    message: KeptMessage
    takers: tuple[Taker, ...]


class Sent(msgspec.Struct, array_like=True, frozen=True, tag=9):
    """A message is under way with this packet id."""

    client_id: str
    number: int
    mid: int


class Received(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """The client has a QoS 2 message (PUBREC); what remains is to release its packet id."""

    client_id: str
    number: int


class Done(msgspec.Struct, array_like=True, frozen=True, tag=11):
    """A message needs nothing more: it was acknowledged, or given up."""

    client_id: str
    number: int


class Taken(msgspec.Struct, array_like=True, frozen=True, tag=12):
    """QoS 2 messages from a client were stored under these packet ids."""

    client_id: str
    mids: tuple[int, ...]


class Released(msgspec.Struct, array_like=True, frozen=True, tag=13):
    """A packet id of `Taken` may mean another message now (PUBREL)."""

    client_id: str
    mid: int


class WillGone(msgspec.Struct, array_like=True, frozen=True, tag=14):
    """A client's will has been published."""

    client_id: str


class Bound(msgspec.Struct, array_like=True, frozen=True, tag=15):
    """What stands behind this, among the entries that were written together, holds only if the event log got so far."""

    epoch: int
    """Of the event log."""
    end_seq: int
    """The number after its last record."""


Entry: TypeAlias = (
    Began
    | Came
    | Left
    | Ended
    | Subscribed
    | Unsubscribed
    | Retained
    | Queued
    | Sent
    | Received
    | Done
    | Taken
    | Released
    | WillGone
    | Bound
)


class Item(msgspec.Struct, array_like=True):
    """A message of one session that is not done."""

    message: KeptMessage
    qos: int
    retain: bool
    identifiers: tuple[int, ...]
    mid: int = 0
    """0: it waits."""
    is_received: bool = False


class KeptSession(msgspec.Struct, array_like=True):
    """One session."""

    version: int
    expiry_s: float
    keepalive_s: int
    will: Will | None = None
    left_ns: int | None = None
    """When its client went; None: it was connected."""
    will_due_ns: int | None = None
    subscriptions: dict[str, Subscription] = {}
    items: dict[int, Item] = {}
    """By number, in the order in which they came."""
    taken: dict[int, None] = {}
    """Packet ids of QoS 2 messages from the client that were stored and not released, in their order."""
    next_number: int = 1
    owner: str = ""


class State(msgspec.Struct, array_like=True):
    """Everything, as a snapshot holds it."""

    version: int = VERSION
    sessions: dict[str, KeptSession] = {}
    retained: dict[str, KeptMessage] = {}


_ENTRIES = msgspec.msgpack.Decoder(list[Entry])
_STATE = msgspec.msgpack.Decoder(State)


def encode_entries(entries: list[Entry]) -> bytes:
    """Entries that are to be on disk together."""
    return msgspec.msgpack.encode(entries)


def encode_state(state: State) -> bytes:
    """A snapshot."""
    return msgspec.msgpack.encode(state)


class Ledger:
    """Adds up what was kept."""

    def __init__(self, snapshot: bytes | None = None, *, reached: Callable[[int], int] | None = None) -> None:
        """Begin with a snapshot, or with nothing.

        Args:
            snapshot: what `encode_state` gave.
            reached: how far the event log had got when an epoch ended; None: as far as it was to.

        Raises:
            ValueError: the snapshot is of another version, or cannot be read.
        """
        self._reached = reached
        try:
            self.state = State() if snapshot is None else _STATE.decode(snapshot)
        except msgspec.MsgspecError as error:
            raise ValueError(f"what was kept of the clients cannot be read ({error})") from error
        if self.state.version != VERSION:
            raise ValueError(f"what was kept of the clients has version {self.state.version}, not {VERSION}")

    def add(self, payload: bytes, at_ns: int) -> None:
        """Take in what `encode_entries` gave.

        Args:
            payload: the entries.
            at_ns: when they were written, on the log's clock.

        Raises:
            ValueError: they cannot be read. Nothing of them counts then.
        """
        try:
            entries = _ENTRIES.decode(payload)
        except msgspec.MsgspecError as error:
            raise ValueError(f"an entry about the clients cannot be read ({error})") from error
        for entry in entries:
            if isinstance(entry, Bound) and self._reached is not None and entry.end_seq > self._reached(entry.epoch):
                return
            self._add(entry, at_ns)

    def _add(self, entry: Entry, at_ns: int) -> None:
        sessions = self.state.sessions
        match entry:
            case Retained(message):
                self._retain(message)
            case Queued(message, takers):
                for taker in takers:
                    if (session := sessions.get(taker.client_id)) is not None:
                        session.items[taker.number] = Item(message, taker.qos, taker.retain, taker.identifiers)
                        session.next_number = max(session.next_number, taker.number + 1)
            case Began(client_id, version, expiry_s, will, keepalive_s, owner):
                sessions[client_id] = KeptSession(version, expiry_s, keepalive_s, will, owner=owner)
            case Ended(client_id):
                sessions.pop(client_id, None)
            case Bound():
                pass
            case _:
                if (session := sessions.get(entry.client_id)) is not None:
                    _change(session, entry, at_ns)

    def _retain(self, message: KeptMessage) -> None:
        self.state.retained.pop(message.topic, None)
        if message.payload:
            self.state.retained[message.topic] = message


def _change(session: KeptSession, entry: Entry, at_ns: int) -> None:
    """What an entry changes in one session."""
    match entry:
        case Came(_, version, expiry_s, will, keepalive_s):  # its owner stays
            session.version, session.expiry_s, session.keepalive_s = version, expiry_s, keepalive_s
            session.will, session.left_ns, session.will_due_ns = will, None, None
        case Left(_, expiry_s, will_in_s):
            session.expiry_s, session.left_ns = expiry_s, at_ns
            session.will_due_ns = None if will_in_s is None else at_ns + round(will_in_s * _NS)
            session.will = None if will_in_s is None else session.will
        case Subscribed(_, mqtt_filter, subscription):
            session.subscriptions[mqtt_filter] = subscription
        case Unsubscribed(_, mqtt_filter):
            session.subscriptions.pop(mqtt_filter, None)
        case Sent(_, number, mid):
            if (item := session.items.get(number)) is not None:
                item.mid = mid
        case Received(_, number):
            if (item := session.items.get(number)) is not None:
                item.is_received = True
        case Done(_, number):
            session.items.pop(number, None)
        case Taken(_, mids):
            session.taken.update(dict.fromkeys(mids))
        case Released(_, mid):
            session.taken.pop(mid, None)
        case WillGone():
            session.will = session.will_due_ns = None

"""Between the living exchange and what is kept of it: a snapshot of the one, and the one from a snapshot.

A gateway that was killed has closed all its connections. So every client that was connected counts as one that has just
gone, and gets time to come back before its last will is published: one and a half keep-alive intervals, in which a
client that lives notices, and at least `PATIENCE_S`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.mqtt.ledger import Item, KeptMessage, KeptSession, State
from gateway.mqtt.session import Held, Message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.mqtt.exchange import Exchange
    from gateway.mqtt.session import Session

PATIENCE_S = 60.0
_NS = 1e9


def dump(exchange: Exchange) -> State:
    """Everything that is to outlive the gateway."""
    sessions = {
        session.client_id: _kept_session(exchange, session) for session in exchange.sessions.values() if session.is_kept
    }
    retained = {message.topic: exchange.kept(message) for message in exchange.kept_retained()}
    return State(sessions=sessions, retained=retained)


def restore(exchange: Exchange, state: State, now_s: float) -> None:
    """Take up what was kept. The exchange is new; `log_offset_ns` has been set.

    Args:
        exchange: to be filled.
        state: what was kept.
        now_s: monotonic.
    """
    for message in state.retained.values():
        revived = _message(exchange, message)
        if revived.expires_s is None or revived.expires_s > now_s:
            exchange.retain(revived)
    for client_id, kept in state.sessions.items():
        if kept.left_ns is None and kept.expiry_s <= 0:
            continue  # its end was to be that of its connection
        session = exchange.new_session(client_id)
        _fill(exchange, session, kept, now_s)
        exchange.adopt(session, kept.subscriptions)


def _fill(exchange: Exchange, session: Session, kept: KeptSession, now_s: float) -> None:
    session.version, session.expiry_s, session.keepalive_s = kept.version, kept.expiry_s, kept.keepalive_s
    session.is_kept, session.owner = True, kept.owner
    session.next_number = kept.next_number
    session.receiving = {mid.to_bytes(2, "big") for mid in kept.taken}
    left_s = now_s if kept.left_ns is None else (kept.left_ns - exchange.log_offset_ns) / _NS
    session.ends_s = left_s + kept.expiry_s
    session.will = kept.will
    if kept.will is not None and kept.left_ns is None:
        wait_s = max(PATIENCE_S, 1.5 * kept.keepalive_s, kept.will.delay_s)
        session.will_due_s = now_s + min(wait_s, kept.expiry_s)
    elif kept.will_due_ns is not None:
        session.will_due_s = (kept.will_due_ns - exchange.log_offset_ns) / _NS
    released: list[tuple[int, int]] = []
    for number, item in kept.items.items():
        held = Held(_message(exchange, item.message), item.qos, item.retain, item.identifiers, number)
        if item.is_received:
            released.append((item.mid, number))
        elif item.mid:
            session.in_flight[item.mid] = held
        else:
            session.enqueue(held)
    session.released = dict(released)
    session.in_flight.update(dict.fromkeys(session.released))


def _kept_session(exchange: Exchange, session: Session) -> KeptSession:
    offset_ns = exchange.log_offset_ns
    left_ns = None
    if session.ends_s is not None:
        left_ns = round((session.ends_s - session.expiry_s) * _NS) + offset_ns
    due_s = session.will_due_s
    return KeptSession(
        session.version,
        session.expiry_s,
        session.keepalive_s,
        session.will,
        left_ns,
        None if due_s is None else round(due_s * _NS) + offset_ns,
        dict(session.subscriptions),
        dict(_items(exchange, session)),
        dict.fromkeys(int.from_bytes(mid, "big") for mid in session.receiving),
        session.next_number,
        session.owner,
    )


def _items(exchange: Exchange, session: Session) -> Iterator[tuple[int, Item]]:
    """What is not done, by number: in flight, waiting, and on its way to the disk."""
    for mid, held in session.in_flight.items():
        if held is None and mid in session.released:
            yield session.released[mid], Item(_NOTHING, 2, retain=False, identifiers=(), mid=mid, is_received=True)
        elif held is not None and held.number:
            yield held.number, _item(exchange, held, mid)
    for waiting in (session.queue, session.planned.values()):
        for held in waiting:
            if held.number:
                yield held.number, _item(exchange, held, 0)


_NOTHING = KeptMessage("", b"", 2, retain=False, properties={}, expires_ns=None)


def _item(exchange: Exchange, held: Held, mid: int) -> Item:
    return Item(exchange.kept(held.message), held.qos, held.retain, held.identifiers, mid)


def _message(exchange: Exchange, kept: KeptMessage) -> Message:
    expires_ns = kept.expires_ns
    expires_s = None if expires_ns is None else (expires_ns - exchange.log_offset_ns) / _NS
    return Message(kept.topic, kept.payload, kept.qos, kept.retain, kept.properties, expires_s)

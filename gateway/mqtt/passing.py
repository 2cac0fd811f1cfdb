"""Who gets a message, and what they get of it."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from gateway.model import QOS_MASK
from gateway.mqtt.packets import NO_PROPERTIES, Properties, Subscription
from gateway.mqtt.properties import Property
from gateway.mqtt.session import Message, Session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.mqtt.turn import Turn

_TO_SUBSCRIBERS = (
    Property.PAYLOAD_FORMAT,
    Property.CONTENT_TYPE,
    Property.RESPONSE_TOPIC,
    Property.CORRELATION_DATA,
    Property.USER,
)


class Route(NamedTuple):
    """One session that gets the messages of a topic."""

    session: Session
    qos: int
    as_published: bool
    no_local: bool
    """Some of its matching subscriptions refuse its own messages."""
    identifiers: tuple[int, ...]
    own: Route | None = None
    """What remains of it for its own messages where some refuse them; None: nothing."""

    @property
    def holder(self) -> Session:
        """By what a message that takes this way is known."""
        return self.session

    def choose(self) -> Route | None:
        """Who is to get the next message: always the same."""
        return self

    def for_sender(self, sender: Session | None) -> Route | None:
        """The way for a message of this sender; None: there is none [MQTT-3.8.3-3]."""
        return self.own if self.no_local and self.session is sender else self


def routes_among(matches: Iterable[tuple[Session, Subscription]]) -> tuple[Route, ...]:
    """Every session once, however many of its filters match [MQTT-3.3.4-2, -3]."""
    by_session: dict[Session, list[Subscription]] = {}
    for session, subscription in matches:
        by_session.setdefault(session, []).append(subscription)
    return tuple(_route(session, matching) for session, matching in by_session.items())


def _route(session: Session, matching: list[Subscription]) -> Route:
    takes_own = [one for one in matching if not one.no_local]
    has_no_local = len(takes_own) < len(matching)
    return Route(
        session,
        max(one.qos for one in matching),
        any(one.as_published for one in matching),
        has_no_local,
        tuple(one.identifier for one in matching if one.identifier),
        _route(session, takes_own) if has_no_local and takes_own else None,
    )


def message_of(topic: str, payload: bytes, qos: int, properties: Properties, now_s: float, *, retain: bool) -> Message:
    """What subscribers get of a message: without what concerned only its sender's connection."""
    if not properties:
        return Message(topic, payload, qos, retain)
    expiry_s = properties.get(Property.MESSAGE_EXPIRY)
    passed_on: Properties = {name: properties[name] for name in _TO_SUBSCRIBERS if name in properties}
    return Message(
        topic, payload, qos, retain, passed_on or NO_PROPERTIES, None if expiry_s is None else now_s + expiry_s
    )


def sender_of(turn: Turn, index: int) -> Session | None:
    """Whose message it is; None: the gateway's own."""
    sender = turn.senders[bisect_right(turn.senders, index, key=_start) - 1][1]
    return None if sender is None else sender.session


def _start(span: tuple[int, object]) -> int:
    return span[0]


def message_at(turn: Turn, index: int, *, retain: bool) -> Message:
    """What subscribers get of a turn's message."""
    properties = turn.properties.get(index, NO_PROPERTIES)
    qos = turn.flags[index] & QOS_MASK
    return message_of(turn.topics[index], turn.payloads[index], qos, properties, turn.at_s, retain=retain)

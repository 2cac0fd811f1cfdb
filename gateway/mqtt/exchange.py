"""Where sessions meet: who is here, who subscribes to what, what is retained, and who gets a message.

Pure: bytes go into the sessions' outlets, wills that fall due are handed out by `take_wills`, time is an argument.

Invariants:
- One session per client id, at most one connection per session: a second one cuts the first [MQTT-3.1.4-2, -3].
- A message reaches a session at most once, however many of its filters match, with the highest QoS among them and the
  identifiers of them all [MQTT-3.3.4-2, -3].
- Routing costs one dictionary look-up per message whose topic nobody subscribes to (L13). The answers are remembered
  until any subscription changes.
- Every store is bounded: sessions, subscriptions per session, retained messages, remembered answers.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from gateway.mqtt.packets import NO_PROPERTIES, Properties, Reason, Subscription, Will
from gateway.mqtt.properties import Property
from gateway.mqtt.routing import RetainedTree, SubscriptionTree
from gateway.mqtt.session import DEFAULT_WINDOW, Message, Outlet, Session, Tally
from gateway.mqtt.topics import MAX_FILTER_LEVELS, SHARED_PREFIX, filter_problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.mqtt.turn import Turn

MAX_REMEMBERED_ROUTES = 16_384
_TO_SUBSCRIBERS = (
    Property.PAYLOAD_FORMAT,
    Property.CONTENT_TYPE,
    Property.RESPONSE_TOPIC,
    Property.CORRELATION_DATA,
    Property.USER,
)


class Limits(NamedTuple):
    """What the exchange holds at most."""

    sessions: int = 20_000
    """Connected or not."""
    subscriptions: int = 1_000
    """Per session."""
    queued: int = 1_000
    """Messages per session."""
    retained: int = 100_000
    retained_bytes: int = 64 * 1024 * 1024
    """Topics and payloads."""


class _Route(NamedTuple):
    """One session that gets the messages of a topic."""

    session: Session
    qos: int
    as_published: bool
    no_local: bool
    """All of its matching subscriptions refuse its own messages."""
    identifiers: tuple[int, ...]


class Exchange:
    """All sessions of one listener."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.tally = Tally()
        self.sessions: dict[str, Session] = {}
        self._away: dict[str, Session] = {}
        self._tree: SubscriptionTree[Session] = SubscriptionTree()
        self._retained: RetainedTree[Message] = RetainedTree()
        self._retained_bytes = 0
        self._routes: dict[str, tuple[_Route, ...]] = {}
        self._wills: list[Will] = []

    @property
    def retained(self) -> int:
        """How many topics have a retained message."""
        return self._retained.count

    @property
    def subscriptions(self) -> int:
        """How many there are, over all sessions."""
        return self._tree.count

    # Sessions.

    def is_full_for(self, client_id: str) -> bool:
        """Whether there is no room for this client's session."""
        return client_id not in self.sessions and len(self.sessions) >= self.limits.sessions

    def attach(
        self,
        client_id: str,
        outlet: Outlet,
        *,
        clean: bool,
        expiry_s: float,
        will: Will | None,
        window: int = DEFAULT_WINDOW,
        max_packet_bytes: int | None = None,
    ) -> tuple[Session, bool]:
        """Give a client its session, and take it from whoever else is connected under this id.

        Args:
            client_id: not empty.
            outlet: where its messages go.
            clean: forget what was there.
            expiry_s: how long the session outlives the connection.
            will: replaces any earlier one.
            window: how many messages above QoS 0 it takes at a time.
            max_packet_bytes: the largest packet it takes; None: any.

        Returns:
            The session, and whether it was there before.
        """
        rival = self.sessions.get(client_id)
        if rival is not None and rival.outlet is not None:
            rival.outlet.cut(Reason.TAKEN_OVER)
        session = self.sessions.get(client_id)  # a session without expiry ended with that connection
        if session is not None and clean:
            self._end(session)
            session = None
        is_present = session is not None
        if session is None:
            session = self.sessions[client_id] = Session(client_id, self.limits.queued, self.tally)
        self._away.pop(client_id, None)
        session.expiry_s = expiry_s
        # A will that was only waiting for its delay is not sent if the client is back in time [MQTT-3.1.3-9].
        session.will, session.will_due_s = will, None
        session.attach(outlet, window=window, max_packet_bytes=max_packet_bytes)
        return session, is_present

    def detach(self, session: Session, outlet: Outlet, now_s: float, *, with_will: bool) -> None:
        """A connection is gone. Does nothing if the session already belongs to another one."""
        if session.outlet is not outlet:
            return
        session.outlet = None
        if not with_will:
            session.will = None
        if session.will is not None:
            session.will_due_s = now_s + min(session.will.delay_s, session.expiry_s)
            if session.will_due_s <= now_s:
                self._trigger(session)
        if session.expiry_s <= 0:
            self._end(session)
            return
        session.ends_s = now_s + session.expiry_s
        self._away[session.client_id] = session

    def tick(self, now_s: float) -> None:
        """Publish wills whose delay is over, end sessions whose time is up."""
        for session in list(self._away.values()):
            if session.will_due_s is not None and session.will_due_s <= now_s:
                self._trigger(session)
            if session.ends_s is not None and session.ends_s <= now_s:
                self._end(session)

    @property
    def has_wills(self) -> bool:
        """Whether `take_wills` has any."""
        return bool(self._wills)

    def take_wills(self) -> list[Will]:
        """Wills to be published now; each is handed out once."""
        wills, self._wills = self._wills, []
        return wills

    def _trigger(self, session: Session) -> None:
        if session.will is not None:
            self._wills.append(session.will)
        session.will = session.will_due_s = None

    def _end(self, session: Session) -> None:
        if session.will_due_s is not None:
            self._trigger(session)  # the session's end cuts the delay short [MQTT-3.1.2-8]
        for mqtt_filter in session.subscriptions:
            self._tree.remove(mqtt_filter, session)
        if session.subscriptions:
            self._routes.clear()
        self.sessions.pop(session.client_id, None)
        self._away.pop(session.client_id, None)

    # Subscriptions.

    def subscribe(self, session: Session, mqtt_filter: str, wanted: Subscription) -> tuple[int, bool]:
        """Add or replace one subscription.

        Returns:
            The reason code for SUBACK (the granted QoS, or 0x80 and above), and whether it wants retained messages now.
        """
        if filter_problem(mqtt_filter):
            return Reason.BAD_FILTER, False
        if mqtt_filter.startswith(SHARED_PREFIX):
            return Reason.SHARED_NOT_SUPPORTED, False
        if mqtt_filter not in session.subscriptions and len(session.subscriptions) >= self.limits.subscriptions:
            return Reason.QUOTA_EXCEEDED, False
        is_new = self._tree.add(mqtt_filter, session, wanted)
        session.subscriptions[mqtt_filter] = wanted
        self._routes.clear()
        return wanted.qos, wanted.retain_handling == 0 or (wanted.retain_handling == 1 and is_new)

    def unsubscribe(self, session: Session, mqtt_filter: str) -> int:
        """Remove one subscription. Returns the reason code for UNSUBACK."""
        if session.subscriptions.pop(mqtt_filter, None) is None:
            return Reason.NO_SUBSCRIPTION_EXISTED
        self._tree.remove(mqtt_filter, session)
        self._routes.clear()
        return Reason.SUCCESS

    def send_retained(self, session: Session, mqtt_filter: str, now_s: float) -> None:
        """Send what is retained on the topics that a new subscription matches."""
        subscription = session.subscriptions[mqtt_filter]
        identifiers = (subscription.identifier,) if subscription.identifier else ()
        for message in self._retained.match(mqtt_filter):
            if message.expires_s is not None and message.expires_s <= now_s:
                self._forget(message.topic)
            else:
                session.deliver(message, min(message.qos, subscription.qos), identifiers, now_s, retain=True)

    # Messages.

    def route(self, turn: Turn, now_s: float) -> None:
        """Hand every message of a turn to its subscribers, and retain those that ask for it, in order."""
        if not self._tree.count and not turn.retained:
            return
        routes_of = self._routes.get
        retained = set(turn.retained)
        starts = [start for start, _ in turn.senders]
        for index, topic in enumerate(turn.topics):
            routes = routes_of(topic)
            if routes is None:
                routes = self._find_routes(topic)
            if not routes and index not in retained:
                continue
            sender = turn.senders[bisect_right(starts, index) - 1][1]
            message = _message(turn, index, now_s, retain=index in retained)
            self._hand_out(message, routes, None if sender is None else sender.session, now_s)
            if message.retain:
                self.retain(message)

    def publish(self, message: Message, now_s: float) -> int:
        """Hand out one message of the gateway's own. Returns how many sessions it was sent to or queued for."""
        if message.retain:
            self.retain(message)
        routes = self._routes.get(message.topic)
        return self._hand_out(message, self._find_routes(message.topic) if routes is None else routes, None, now_s)

    def retain(self, message: Message) -> None:
        """Keep a message as its topic's last; an empty payload removes what is kept [MQTT-3.3.1-6, -7]."""
        topic = message.topic
        self._forget(topic)
        if not message.payload:
            return
        size_bytes = len(topic) + len(message.payload)
        if (
            self._retained.count >= self.limits.retained
            or self._retained_bytes + size_bytes > self.limits.retained_bytes
            or topic.count("/") >= MAX_FILTER_LEVELS
        ):
            self.tally.drop("retained_full")
            return
        self._retained.put(topic, message)
        self._retained_bytes += size_bytes

    def _forget(self, topic: str) -> None:
        kept = self._retained.get(topic)
        if kept is not None:
            self._retained_bytes -= len(topic) + len(kept.payload)
            self._retained.remove(topic)

    def _hand_out(self, message: Message, routes: Iterable[_Route], sender: Session | None, now_s: float) -> int:
        reached = 0
        for route in routes:
            if route.no_local and route.session is sender:
                continue
            reached += route.session.deliver(
                message,
                min(message.qos, route.qos),
                route.identifiers,
                now_s,
                retain=message.retain and route.as_published,
            )
        return reached

    def _find_routes(self, topic: str) -> tuple[_Route, ...]:
        by_session: dict[Session, list[Subscription]] = {}
        for session, subscription in self._tree.match(topic):
            by_session.setdefault(session, []).append(subscription)
        routes = tuple(
            _Route(
                session,
                max(one.qos for one in matching),
                any(one.as_published for one in matching),
                all(one.no_local for one in matching),
                tuple(one.identifier for one in matching if one.identifier),
            )
            for session, matching in by_session.items()
        )
        if len(self._routes) >= MAX_REMEMBERED_ROUTES:
            self._routes.clear()
        self._routes[topic] = routes
        return routes


def message_of(topic: str, payload: bytes, qos: int, properties: Properties, now_s: float, *, retain: bool) -> Message:
    """What subscribers get of a message: without what concerned only its sender's connection."""
    if not properties:
        return Message(topic, payload, qos, retain)
    expiry_s = properties.get(Property.MESSAGE_EXPIRY)
    passed_on: Properties = {name: properties[name] for name in _TO_SUBSCRIBERS if name in properties}
    return Message(
        topic, payload, qos, retain, passed_on or NO_PROPERTIES, None if expiry_s is None else now_s + expiry_s
    )


def _message(turn: Turn, index: int, now_s: float, *, retain: bool) -> Message:
    properties = turn.properties.get(index, NO_PROPERTIES)
    return message_of(turn.topics[index], turn.payloads[index], turn.flags[index] & 3, properties, now_s, retain=retain)

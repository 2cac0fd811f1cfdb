"""Where sessions meet: who is here, who subscribes to what, what is retained, and who gets a message.

Pure: bytes go into the sessions' outlets, wills that fall due are handed out by `take_wills`, what is to outlive the
gateway is noted in `notes`, time is an argument.

Invariants:
- One session per client id, at most one connection per session: a second one cuts the first [MQTT-3.1.4-3].
- A message for a session that is to outlive the gateway is noted before its publisher hears that it was taken; what
  the gateway itself says is not kept, since it says it anew when it starts.
- Every store is bounded: sessions, subscriptions per session, retained messages, remembered answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.model import QOS_MASK
from gateway.mqtt.ledger import (
    Began,
    Came,
    Ended,
    KeptMessage,
    Left,
    Queued,
    Retained,
    Subscribed,
    Taker,
    Unsubscribed,
    WillGone,
)
from gateway.mqtt.notes import Notes
from gateway.mqtt.packets import Reason, Subscription, Will
from gateway.mqtt.passing import Route, message_at, sender_of
from gateway.mqtt.retained import RetainedStore
from gateway.mqtt.session import DEFAULT_WINDOW, Message, Outlet, Session, Tally
from gateway.mqtt.shared import Group, split_shared
from gateway.mqtt.subscriptions import Subscriptions, Way
from gateway.mqtt.topics import SHARED_PREFIX, filter_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.mqtt.ledger import Entry
    from gateway.mqtt.turn import Turn


class Limits(NamedTuple):
    """What the exchange holds at most."""

    sessions: int = 20_000
    """Connected or not."""
    subscriptions: int = 1_000
    """Per session."""
    queued: int = 1_000
    """Messages per session."""
    queued_bytes: int = 16 * 1024 * 1024
    """The same, of topics and payloads."""
    retained: int = 100_000
    retained_bytes: int = 64 * 1024 * 1024
    """Topics and payloads."""


class Exchange:
    """All sessions of one listener."""

    def __init__(self, limits: Limits, *, keeps: bool = False) -> None:
        """See the module.

        Args:
            limits: what it holds at most.
            keeps: note what is to outlive the gateway.
        """
        self.limits = limits
        self.keeps = keeps
        self.notes = Notes()
        self.log_offset_ns = 0
        """What to add to monotonic time for the log's own, in nanoseconds."""
        self.tally = Tally()
        self.sessions: dict[str, Session] = {}
        self._away: dict[str, Session] = {}
        self._kept = 0
        """Sessions that are to outlive the gateway: without any, a turn need not be looked through for them."""
        self._subscriptions = Subscriptions()
        self._retained = RetainedStore(limits.retained, limits.retained_bytes, self.tally)
        self._wills: list[Will] = []

    @property
    def retained(self) -> int:
        """How many topics have a retained message."""
        return self._retained.count

    @property
    def subscriptions(self) -> int:
        """How many there are, over all sessions."""
        return self._subscriptions.count

    # Sessions.

    def is_full_for(self, client_id: str) -> bool:
        """Whether there is no room for this client's session."""
        return client_id not in self.sessions and len(self.sessions) >= self.limits.sessions

    def owner_of(self, client_id: str) -> str | None:
        """The name to which this client's session belongs, empty for nobody's; None: there is no session."""
        session = self.sessions.get(client_id)
        return None if session is None else session.owner

    def new_session(self, client_id: str) -> Session:
        """One within the limits, that nobody knows yet."""
        limits = self.limits
        return Session(client_id, limits.queued, self.tally, self.notes, max_queued_bytes=limits.queued_bytes)

    def attach(
        self,
        client_id: str,
        outlet: Outlet,
        *,
        clean: bool,
        expiry_s: float,
        will: Will | None,
        keepalive_s: int = 0,
        window: int = DEFAULT_WINDOW,
        max_packet_bytes: int | None = None,
        max_aliases: int = 0,
        owner: str = "",
    ) -> tuple[Session, bool]:
        """Give a client its session, and take it from whoever else is connected under this id.

        Args:
            client_id: not empty.
            outlet: where its messages go.
            clean: forget what was there.
            expiry_s: how long the session outlives the connection.
            will: replaces any earlier one.
            keepalive_s: the longest it may be silent.
            window: how many messages above QoS 0 it takes at a time.
            max_packet_bytes: the largest packet it takes; None: any.
            max_aliases: how many topics it takes a number for.
            owner: the name under which it has proved itself.

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
            session = self.sessions[client_id] = self.new_session(client_id)
            session.owner = owner
            session.is_kept = self.keeps and expiry_s > 0
            self._kept += session.is_kept
        self._away.pop(client_id, None)
        session.expiry_s = expiry_s
        # A will that was only waiting for its delay is not sent if the client is back in time [MQTT-3.1.3-9].
        session.will, session.will_due_s = will, None
        session.keepalive_s = keepalive_s
        session.attach(outlet, window=window, max_packet_bytes=max_packet_bytes, max_aliases=max_aliases)
        if session.is_kept:
            entry = Came if is_present else Began
            self.notes.note(entry(client_id, outlet.version, expiry_s, will, keepalive_s, owner))
        return session, is_present

    def detach(self, session: Session, outlet: Outlet, now_s: float, *, with_will: bool | None) -> None:
        """A connection is gone, or the gateway goes (None). Nothing if the session already belongs to another one."""
        if session.outlet is not outlet:
            return
        session.outlet = None
        if with_will is None and session.is_kept:
            return  # as a kill would leave it: with a will that waits whether its client comes back [MQTT-3.1.2-8]
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
        if session.is_kept:
            due_s = session.will_due_s
            self.notes.note(Left(session.client_id, session.expiry_s, None if due_s is None else due_s - now_s))

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
            if session.is_kept:
                self.notes.note(WillGone(session.client_id))
        session.will = session.will_due_s = None

    def _end(self, session: Session) -> None:
        if session.will_due_s is not None:
            self._trigger(session)  # the session's end cuts the delay short [MQTT-3.1.2-8]
        for mqtt_filter in session.subscriptions:
            self._subscriptions.remove(session, mqtt_filter)
        self.sessions.pop(session.client_id, None)
        self._away.pop(session.client_id, None)
        session.planned.clear()
        if session.is_kept:
            session.is_kept = False
            self._kept -= 1
            self.notes.note(Ended(session.client_id))

    def adopt(self, session: Session, subscriptions: dict[str, Subscription]) -> None:
        """Take in a session that was kept; its client is away."""
        self.sessions[session.client_id] = self._away[session.client_id] = session
        self._kept += 1
        for mqtt_filter, subscription in subscriptions.items():
            self._subscriptions.add(session, mqtt_filter, subscription)
            session.subscriptions[mqtt_filter] = subscription

    # Subscriptions.

    def subscribe(self, session: Session, mqtt_filter: str, wanted: Subscription) -> tuple[int, bool]:
        """Add or replace one subscription.

        Returns:
            The reason code for SUBACK (the granted QoS, or 0x80 and above), and whether it wants retained messages now.
        """
        is_shared = mqtt_filter.startswith(SHARED_PREFIX)
        if filter_problem(mqtt_filter) or (is_shared and split_shared(mqtt_filter) is None):
            return Reason.BAD_FILTER, False
        is_new = mqtt_filter not in session.subscriptions
        if is_new and len(session.subscriptions) >= self.limits.subscriptions:
            return Reason.QUOTA_EXCEEDED, False
        self._subscriptions.add(session, mqtt_filter, wanted)
        session.subscriptions[mqtt_filter] = wanted
        if session.is_kept:
            self.notes.note(Subscribed(session.client_id, mqtt_filter, wanted))
        wants = wanted.retain_handling == 0 or (wanted.retain_handling == 1 and is_new)
        return wanted.qos, wants and not is_shared

    def unsubscribe(self, session: Session, mqtt_filter: str) -> int:
        """Remove one subscription. Returns the reason code for UNSUBACK."""
        if session.subscriptions.pop(mqtt_filter, None) is None:
            return Reason.NO_SUBSCRIPTION_EXISTED
        self._subscriptions.remove(session, mqtt_filter)
        if session.is_kept:
            self.notes.note(Unsubscribed(session.client_id, mqtt_filter))
        return Reason.SUCCESS

    def send_retained(self, session: Session, mqtt_filter: str, subscription: Subscription, now_s: float) -> None:
        """Send what is retained on the topics that a new subscription matches, as that subscription wants it."""
        identifiers = (subscription.identifier,) if subscription.identifier else ()
        for message in self._retained.match(mqtt_filter, now_s):
            qos = min(message.qos, subscription.qos)
            if session.is_kept and qos:
                number = session.plan(message, qos, identifiers, retain=True)
                self.notes.note(
                    Queued(self.kept(message), (Taker(session.client_id, number, qos, True, identifiers),))  # noqa: FBT003 - as a struct's field
                )
                session.deliver_planned(number, now_s)
            else:
                session.deliver(message, qos, identifiers, now_s, retain=True)

    # Messages.

    def plan(self, turn: Turn, now_s: float) -> list[Entry]:
        """What must be on disk of a turn before any of it is acknowledged: for whom its messages are."""
        turn.at_s = now_s
        if not self.keeps:
            return []
        entries: list[Entry] = []
        retained = set(turn.retained)
        indexes = range(len(turn.topics)) if self._kept and self._subscriptions else turn.retained
        for index in indexes:
            ways = self._subscriptions.ways(turn.topics[index])
            is_for_kept = turn.flags[index] & QOS_MASK and any(
                isinstance(way, Group) or way.session.is_kept for way in ways
            )
            if not is_for_kept and index not in retained:
                continue
            message = message_at(turn, index, retain=index in retained)
            kept = self.kept(message)
            if message.retain:
                entries.append(Retained(kept))
                self._retained.expect(message)
            if is_for_kept:
                takers, planned = self._takers(message, ways, sender_of(turn, index))
                turn.planned[index] = planned
                if takers:
                    entries.append(Queued(kept, takers))
        return entries

    def _takers(
        self, message: Message, ways: Iterable[Way], sender: Session | None
    ) -> tuple[tuple[Taker, ...], dict[Session | Group, tuple[Route, int]]]:
        """Who is to get a message and is kept; and what has been decided of its ways, with its number there."""
        takers: list[Taker] = []
        planned: dict[Session | Group, tuple[Route, int]] = {}
        for way in ways:
            if (chosen := way.choose()) is None or (route := chosen.for_sender(sender)) is None:
                continue
            session, qos = route.session, min(message.qos, route.qos)
            if session.is_kept and qos:
                retain = message.retain and route.as_published
                number = session.plan(message, qos, route.identifiers, retain=retain)
                planned[way.holder] = (route, number)
                takers.append(Taker(session.client_id, number, qos, retain, route.identifiers))
            elif isinstance(way, Group):
                planned[way] = (route, 0)  # its turn has come, whether it is kept or not
        return tuple(takers), planned

    def kept(self, message: Message) -> KeptMessage:
        """A message as the ledger has it."""
        expires_s = message.expires_s
        expires_ns = None if expires_s is None else round(expires_s * 1e9) + self.log_offset_ns
        return KeptMessage(message.topic, message.payload, message.qos, message.retain, message.properties, expires_ns)

    def route(self, turn: Turn, now_s: float) -> None:
        """Hand every message of a turn to its subscribers, and retain those that ask for it, in order."""
        if not self._subscriptions and not turn.retained and not turn.planned:
            return
        retained = set(turn.retained)
        for index, topic in enumerate(turn.topics):
            ways = self._subscriptions.ways(topic)
            planned = turn.planned.get(index)
            if planned is None and not ways and index not in retained:
                continue
            sender = sender_of(turn, index)
            message = message_at(turn, index, retain=index in retained)
            if planned:
                for route, number in planned.values():
                    route.session.deliver_planned(number, now_s)
                ways = tuple(self._left_over(ways, planned))
            self._hand_out(message, ways, sender, now_s)
            if message.retain:
                self.retain(message)
                self._retained.arrived(topic)

    def _left_over(self, ways: Iterable[Way], planned: dict[Session | Group, tuple[Route, int]]) -> Iterator[Way]:
        """The ways that a message which has gone to those who are kept has still to take."""
        for way in ways:
            route, number = planned.get(way.holder, (None, 0))
            if route is None or (not number and self.sessions.get(route.session.client_id) is not route.session):
                yield way
            elif not number:
                yield route

    def publish(self, message: Message, now_s: float) -> int:
        """Hand out one message of the gateway's own. Returns how many sessions it was sent to or queued for."""
        if message.retain and self._retained.put_own(message) and self.keeps:
            # What a client had retained there must not come back when the gateway does.
            self.notes.note_late(Retained(self.kept(message._replace(payload=b""))))
        return self._hand_out(message, self._subscriptions.ways(message.topic), None, now_s)

    def kept_retained(self) -> Iterator[Message]:
        """Retained messages that a restart is to find."""
        return self._retained.kept()

    def retain(self, message: Message) -> None:
        """Keep a message as its topic's last; an empty payload removes what is kept."""
        self._retained.put(message)

    def unplan(self, turn: Turn) -> None:
        """A turn was not taken in: its senders will offer it again."""
        for planned in turn.planned.values():
            for route, number in planned.values():
                route.session.planned.pop(number, None)
        for index in turn.retained:
            self._retained.arrived(turn.topics[index])

    def _hand_out(self, message: Message, ways: Iterable[Way], sender: Session | None, now_s: float) -> int:
        reached = 0
        for way in ways:
            if (chosen := way.choose()) is None or (route := chosen.for_sender(sender)) is None:
                continue
            reached += route.session.deliver(
                message,
                min(message.qos, route.qos),
                route.identifiers,
                now_s,
                retain=message.retain and route.as_published,
            )
        return reached

"""Conversations at QoS 1 and 2 that can be interrupted anywhere and gone on with, and what must be true at their end.

A `Scene` is a list of steps, each of which can be begun anew: what was confirmed is not asked for again, all else is,
as a client does that has lost its connection. `converse` goes through them, and lets whoever called it bring the
gateway back whenever that has gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.crash.account import CLEARED, NEVER, Journal, Message
from tests.crash.mqtt_witness import V5, V311, Client, GoneError, wait

Step = Callable[[], None]
STORED = "stored/"
"""Topics that the gateway stores; all else is only passed on."""


@dataclass
class Interval:
    """While a subscription stood, in steps: from its SUBACK to its UNSUBSCRIBE."""

    client: Client
    filter: str
    qos: int
    asked: int
    since: int = NEVER
    ending: int = NEVER
    until: int = NEVER
    asks: int = 0
    """How often SUBSCRIBE was sent: each brings what is retained."""

    def covers(self, message: Message) -> bool:
        """Whether it stood from before a message was sent until after it was stored."""
        return self.since < message.offered and message.stored < self.ending and matches(self.filter, message.topic)

    def touches(self, message: Message) -> bool:
        """Whether it may have stood at some time while a message was on its way."""
        return self.asked <= message.stored and message.offered <= self.until and matches(self.filter, message.topic)


@dataclass
class Cast:
    """The clients of a conversation, and the steps that they can take."""

    version: int
    journal: Journal = field(default_factory=Journal)
    port: int = 0
    clients: list[Client] = field(default_factory=list)
    present: set[Client] = field(default_factory=set)
    """Those that are to be connected."""
    intervals: list[Interval] = field(default_factory=list)
    wills: list[Message] = field(default_factory=list)
    losses: int = 0
    """How often a connection was lost or dropped; each may bring one repetition of what was under way."""

    def client(self, name: str, **options: object) -> Client:
        """One that is not there yet."""
        made = Client(self.journal, name, self.version, **options)
        self.clients.append(made)
        return made

    def return_all(self) -> None:
        """Everybody who should be connected and is not, connects."""
        for client in self.clients:
            if client in self.present and not client.is_connected:
                client.connect(self.port)

    def lose_all(self) -> None:
        """The gateway is gone."""
        self.losses += 1
        for client in self.clients:
            client.lose()

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Let everybody take in what comes until something is so."""
        wait(self.clients, condition, what)

    # Steps.

    def come(self, *clients: Client, clean: bool = False) -> Step:
        """Connect."""
        begun: set[Client] = set()

        def run() -> None:
            for client in clients:
                if client not in begun:
                    begun.add(client)
                    self.present.add(client)
                    if clean and client.is_connected:
                        client.lose()
                    client.starts_clean |= clean
                if clean and client.starts_clean:
                    self._end_subscriptions(client)
                if not client.is_connected:
                    client.connect(self.port)

        return run

    def _end_subscriptions(self, client: Client) -> None:
        for each in self.intervals:
            if each.client is client and each.until == NEVER:
                each.ending = min(each.ending, self.journal.step)
                each.until = self.journal.step

    def leave(self, client: Client) -> Step:
        """Disconnect; the session stays if it is kept."""

        def run() -> None:
            self.present.discard(client)
            if client.is_connected:
                client.disconnect()

        return run

    def drop(self, *clients: Client) -> Step:
        """Close without a word, as a client that has lost its network."""

        def run() -> None:
            for client in clients:
                self.present.discard(client)
                client.lose()
            self.losses += 1

        return run

    def subscribe(self, client: Client, wanted: dict[str, int]) -> Step:
        """Subscribe: QoS by filter."""
        begun: list[Interval] = []

        def run() -> None:
            step = self.journal.step
            if not begun:
                for each in self.intervals:  # one that is replaced
                    if each.client is client and each.filter in wanted and each.until == NEVER:
                        each.ending = step
                begun.extend(Interval(client, name, qos, step) for name, qos in wanted.items())
                self.intervals.extend(begun)
            for each in begun:
                each.asks += 1
            client.subscribe(wanted)
            for each in begun:
                each.since = step

        return run

    def unsubscribe(self, client: Client, *filters: str) -> Step:
        """Unsubscribe."""

        def run() -> None:
            ended = [each for each in self.intervals if each.client is client and each.filter in filters]
            for each in ended:
                each.ending = min(each.ending, self.journal.step)
            client.unsubscribe(*filters)
            for each in ended:
                each.until = min(each.until, self.journal.step)

        return run

    def send(self, *messages: tuple[Client, Message], until: str = "done") -> Step:
        """Publish all at once.

        Args:
            messages: by whom.
            until: `done`, `stored` (PUBREC is there, PUBREL is held back), or `sent`.
        """

        def run() -> None:
            for client, message in messages:
                if until == "stored":
                    client.holds.add("PUBREL")
                client.offer(message)
            if until != "sent":
                self.until(lambda: all(message.stored < NEVER for _, message in messages), "all is stored")
            if until == "done":
                self.until(lambda: not any(client.outgoing for client, _ in messages), "all is done")

        return run

    def publish(self, client: Client, topic: str, qos: int, count: int = 1, **options: object) -> Step:
        """Publish new messages, all at once. `retain` and `until` are options."""
        retain = bool(options.get("retain"))
        made = [self.journal.message(topic, qos, client.name, retain=retain) for _ in range(count)]
        return self.send(*((client, message) for message in made), until=str(options.get("until", "done")))

    def clear(self, client: Client, topic: str, qos: int) -> Step:
        """Take back what is retained."""
        name = CLEARED + topic.encode()
        return self.send((client, self.journal.message(topic, qos, client.name, name, retain=True)))

    def hold(self, client: Client, *packets: str) -> Step:
        """Do not send these for the present."""
        return lambda: client.holds.update(packets)

    def answer(self, client: Client) -> Step:
        """Send all that was held back, and finish what is under way."""

        def run() -> None:
            client.answer_all()
            self.until(lambda: not client.outgoing and not client.incoming, f"{client.name} has finished")

        return run

    def see(self, client: Client, count: int) -> Step:
        """Wait until so many different messages have reached a client, in all."""

        def run() -> None:
            self.until(lambda: len(self.seen_by(client)) >= count, f"{client.name} has {count} messages")

        return run

    def seen_by(self, client: Client) -> set[bytes]:
        """Which messages have reached a client."""
        return {each.payload for each in self.journal.deliveries if each.client == client.name}

    def die_with_will(self, client: Client, watcher: Client) -> Step:
        """The connection breaks off, and the last will is published."""
        will = client.will
        assert isinstance(will, Message)

        def run() -> None:
            self.present.discard(client)
            if client.is_connected:
                will.offered, self.wills = self.journal.step, [will]
                client.lose()
            self.until(lambda: will.payload in self.seen_by(watcher), "the will is published")
            will.stored = self.journal.step

        return run


class Scene(NamedTuple):
    """A conversation."""

    name: str
    steps: Callable[[Cast], list[Step]]
    versions: tuple[int, ...] = (V311, V5)


def converse(cast: Cast, steps: Iterable[Step], revive: Callable[[], None]) -> None:
    """Go through the steps, beginning one anew whenever the gateway was gone in the middle of it.

    Args:
        cast: who takes part.
        steps: as above.
        revive: make sure that the gateway was to be gone, and bring it back.
    """
    for step in steps:
        cast.journal.step += 1
        while True:
            try:
                cast.return_all()
                step()
                break
            except GoneError:
                cast.journal.note("gone")
                cast.lose_all()
                revive()


def finish(cast: Cast) -> list[Step]:
    """Everybody whose session is kept comes back, gets all that waits, and every packet id is used once more."""
    kept = [client for client in cast.clients if client.is_kept and client not in {_ghost(cast, w) for w in cast.wills}]
    speaker = cast.client("speaker", is_kept=False)
    steps = [cast.come(*kept), cast.come(speaker), *(cast.answer(client) for client in kept)]
    steps += [cast.subscribe(client, {f"fence/{client.name}": 2}) for client in kept]
    for client in kept:
        again = [cast.journal.message(f"{STORED}{client.name}/again", 2, client.name) for _ in range(4)]
        steps.append(cast.send(*((client, message) for message in again)))
    for client in kept:
        fence = cast.journal.message(f"fence/{client.name}", 2, speaker.name)
        steps += [cast.send((speaker, fence)), _behind(cast, client, fence)]
    return steps


def _ghost(cast: Cast, will: Message) -> Client:
    return next(client for client in cast.clients if client.will is will)


def _behind(cast: Cast, client: Client, fence: Message) -> Step:
    """What was sent before a fence has come when the fence has."""

    def run() -> None:
        cast.until(lambda: fence.payload in cast.seen_by(client) and not client.incoming, f"{client.name}'s fence")
        client.ping()

    return run


def matches(mqtt_filter: str, topic: str) -> bool:
    """Whether a filter, shared or not, matches a topic."""
    levels, wanted = topic.split("/"), mqtt_filter.split("/")
    if wanted[0] == "$share":
        wanted = wanted[2:]
    for number, each in enumerate(wanted):
        if each == "#":
            return True
        if number >= len(levels) or each not in {"+", levels[number]}:
            return False
    return len(levels) == len(wanted)

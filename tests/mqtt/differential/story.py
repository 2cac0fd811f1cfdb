"""What a script has led to so far, as far as explanations need it: who subscribes to what, what was not released.

A model of its own, simple and slow; it follows what the specification says, not what either broker did.
"""

from __future__ import annotations

import dataclasses

from tests.mqtt.differential.said import (
    CONNECT,
    DISCONNECT,
    PUBLISH,
    PUBREL,
    SHARE,
    SUBSCRIBE,
    UNSUBSCRIBE,
    Said,
    take_apart,
)
from tests.mqtt.differential.scripts import Step
from tests.mqtt.differential.witness import Reply

EXPIRY, IDENTIFIER, ALIAS, DELAY, RECEIVE_MAXIMUM, MAXIMUM_PACKET_SIZE = 0x11, 0x0B, 0x23, 0x18, 0x21, 0x27
KEPT = 0x0C
"""Options: no local, retain as published."""


def matches(wanted: bytes, topic: bytes) -> bool:
    """Whether a filter, not a shared one, covers a topic."""
    levels, names = wanted.split(b"/"), topic.split(b"/")
    if topic[:1] == b"$" and levels[0] in {b"#", b"+"}:
        return False
    for at, level in enumerate(levels):
        if level == b"#":
            return True
        if at >= len(names) or level not in {b"+", names[at]}:
            return False
    return len(levels) == len(names)


@dataclasses.dataclass
class Client:
    """One client of a script, with its session."""

    v5: bool = False
    is_here: bool = False
    acks: bool = True
    releases: bool = True
    expiry_s: int = 0
    """Of its session; 3.1.1 and not clean: 1."""
    will: Said | None = None
    left: Said | None = None
    """The will of the connection that is replaced at this step."""
    left_v5: bool = False
    """That connection's version."""
    is_twice: bool = False
    """It has sent a second CONNECT on a connection."""
    reused: Said | None = None
    """Its QoS 2 message of this step, under a packet id that stands for another one."""
    most_bytes: int = 1 << 28
    window: int = 65_535
    halves: list[bytes] = dataclasses.field(default_factory=list)
    """Filters before what was wrong in a SUBSCRIBE that was refused as a whole."""
    subscriptions: dict[bytes, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """By filter: options, identifier."""
    first: dict[bytes, int] = dataclasses.field(default_factory=dict)
    """By filter: the options with which it was first subscribed to."""
    unreleased: dict[int, Said] = dataclasses.field(default_factory=dict)
    """QoS 2 messages of its own, from PUBLISH to PUBREL, by packet id."""
    aliases: dict[int, bytes] = dataclasses.field(default_factory=dict)

    def plain(self, topic: bytes) -> list[tuple[int, int]]:
        """Its own subscriptions, not shared, that cover a topic."""
        return [row for name, row in self.subscriptions.items() if not name.startswith(SHARE) and matches(name, topic)]

    def half_renewed(self, topic: bytes) -> list[tuple[int, int]]:
        """The same, as mosquitto has them: no local and retain as published stay as they were at first."""
        return [
            (options & ~KEPT | self.first[name] & KEPT, identifier)
            for name, (options, identifier) in self.subscriptions.items()
            if not name.startswith(SHARE) and matches(name, topic)
        ]


class Story:
    """Of one script."""

    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}
        self.withheld: dict[bytes, str] = {}
        """Payloads of messages that mosquitto does not publish, or not yet: `unreleased`, `taken over`."""
        self.published: dict[bytes, tuple[Said, str]] = {}
        """By payload like no other: messages and wills, and which client's they are; a will is nobody's."""
        self.delayed: dict[bytes, tuple[Client, Said]] = {}
        """By payload: wills with a delay, and whose they are."""
        self.wills: dict[bytes, str] = {}
        """By payload: whose will it is."""
        self.due: list[tuple[Client, Said]] = []
        """Those whose session has ended."""
        self.topics_withheld: set[tuple[bytes, str]] = set()
        """Topics on which one of these is retained, and why mosquitto does not have it."""

    def client(self, name: str) -> Client:
        return self.clients.setdefault(name.removesuffix(" before"), Client())

    def said(self, step: Step) -> Said | None:
        """What a step says; None if it says nothing. A topic alias is put in its place."""
        if not step.data:
            return None
        client = self.client(step.client)
        said = take_apart(step.data, v5=client.v5)
        if said.kind == PUBLISH and not said.topic:
            said.topic = client.aliases.get(said.value(ALIAS), b"")
        return said

    def before(self, step: Step, said: Said | None) -> None:
        """Note what the step does before its replies are looked at."""
        client = self.client(step.client)
        if step.opens and self.ends(client, step):
            self.ended(client)
        if said is not None and said.kind == PUBLISH and said.payload:
            self.published.setdefault(said.payload, (said, step.client))
        if said is not None and said.will is not None:
            self.published[said.will.payload] = (said.will, "")
            self.wills[said.will.payload] = step.client
            if said.will.value(DELAY):
                self.delayed[said.will.payload] = (client, said.will)
        client.left, client.left_v5 = client.will if step.opens and client.is_here else None, client.v5
        if said is not None and said.kind == CONNECT and not step.opens and client.will is not None:
            self.withhold(client.will, "second CONNECT")
        if said is not None and said.kind == DISCONNECT and said.reason not in {0, 4} and client.will is not None:
            self.withhold(client.will, "DISCONNECT")
        if said is not None and said.kind == PUBLISH and said.qos == 2:
            before = client.unreleased.get(said.mid)
            client.reused = said if before is not None and before.payload != said.payload else None
        if step.opens and said is not None and said.kind == CONNECT:
            if client.is_here and client.will is not None:
                goes_on = not said.clean and client.expiry_s > 0
                if goes_on and not client.will.value(DELAY):
                    self.withhold(client.will, "taken over")
            client.unreleased = {} if said.clean else client.unreleased
        elif said is not None and said.kind == PUBLISH and said.qos == 2 and said.mid not in client.unreleased:
            client.unreleased[said.mid] = said
            if not client.releases:
                self.withhold(said, "unreleased")

    def ends(self, client: Client, step: Step) -> bool:
        """Whether a client's session has ended with its connection, or does so by this step."""
        begins = step.opens and self.client(step.client) is client
        return not client.expiry_s or (begins and take_apart(step.data, v5=True).clean)

    def ended(self, client: Client) -> None:
        """A client's session has ended: its delayed will is due."""
        self.due += [(owner, will) for owner, will in self.delayed.values() if owner is client]

    def withhold(self, message: Said, why: str) -> None:
        self.withheld[message.payload] = why
        if message.retain:
            self.topics_withheld.add((message.topic, why))

    def after(self, step: Step, said: Said | None, got: list[Reply]) -> None:
        """Note what came of it, by the replies that the acting client got."""
        client = self.client(step.client)
        is_over = step.drops or any(one.kind == "closed" for one in got)
        if is_over and step.opens:
            return  # it was not let in
        client.is_twice |= said is not None and said.kind == CONNECT and not step.opens
        if is_over and said is not None and said.kind == SUBSCRIBE:
            client.halves += [name for name, _ in said.filters]
        if said is not None and said.kind == CONNECT and step.opens:
            self._connected(client, step, said, got)
        elif said is not None and not is_over:
            self._went_on(client, said, got)
        if is_over:
            client.is_here = False
            if said is not None and said.kind == DISCONNECT:
                client.expiry_s = said.value(EXPIRY, client.expiry_s)
            if not client.expiry_s:
                self.ended(client)
                client.subscriptions, client.first, client.unreleased = {}, {}, {}

    def _connected(self, client: Client, step: Step, said: Said, got: list[Reply]) -> None:
        if not got or got[0].kind != "CONNACK" or got[0].detail[1]:
            return
        if not got[0].detail[0]:
            client.subscriptions, client.first, client.halves = {}, {}, []
        client.v5, client.is_here, client.acks, client.releases = said.v5, True, step.acks, step.releases
        client.expiry_s = said.value(EXPIRY) if said.v5 else int(not said.clean)
        client.will, client.aliases, client.is_twice = said.will, {}, False
        client.most_bytes = said.value(MAXIMUM_PACKET_SIZE, 1 << 28)
        client.window = said.value(RECEIVE_MAXIMUM, 65_535)

    def _went_on(self, client: Client, said: Said, got: list[Reply]) -> None:
        if said.kind == SUBSCRIBE:
            codes = next((one.detail[1] for one in got if one.kind == "SUBACK"), ())
            for (name, options), code in zip(said.filters, codes, strict=False):
                if code < 0x80:
                    client.subscriptions[name] = (options, said.value(IDENTIFIER))
                    client.first.setdefault(name, options)
        elif said.kind == UNSUBSCRIBE:
            for name, _ in said.filters:
                client.subscriptions.pop(name, None)
                client.first.pop(name, None)
        elif said.kind == PUBLISH:
            if said.value(ALIAS) and said.topic:
                client.aliases[said.value(ALIAS)] = said.topic
            if said.qos == 2 and any(one.kind == "PUBCOMP" and one.detail[0] == said.mid for one in got):
                client.unreleased.pop(said.mid, None)
        elif said.kind == PUBREL:
            client.unreleased.pop(said.mid, None)

"""Differences in who gets which message, and when. See `explanation`."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.mqtt.differential.compare import AT_THE_END, Heard, Moment, in_order
from tests.mqtt.differential.explanation import releases, without_releases
from tests.mqtt.differential.said import PUBLISH, SHARE, SUBSCRIBE, Said
from tests.mqtt.differential.story import Client, matches
from tests.mqtt.differential.witness import CLOSED, Reply

IDENTIFIER, USER = 0x0B, 0x26
FEW = 100
"""A Receive Maximum below this may be reached in a script."""


@dataclasses.dataclass
class _Delivery:
    """One message on its way to one client that has one or more plain subscriptions to its topic."""

    moment: Moment
    some: Reply
    """One of the copies."""

    @property
    def published(self) -> tuple[Said, str] | None:
        """What was published, and by whom; None if it cannot be told."""
        payload, said = self.some.detail[1], self.moment.said
        if payload:
            return self.moment.story.published.get(payload)
        return (said, self.moment.step.client) if said is not None and said.kind == PUBLISH else None

    def heard_by(self, rows: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Those subscriptions that are not closed to it."""
        own = self.published is not None and self.published[1] == self.moment.client
        return [row for row in rows if not (own and row[0] & 4)]

    def each(self, rows: list[tuple[int, int]], qos: int) -> Counter[Reply]:
        """A copy for each subscription."""
        return Counter(
            self.copy(min(qos, options & 3), options >> 3 & 1, [one] if one else []) for options, one in rows
        )

    def merged(self, rows: list[tuple[int, int]], qos: int) -> Counter[Reply]:
        """One copy for all of them."""
        if not rows:
            return Counter()
        most, kept = max(options & 3 for options, _ in rows), max(options >> 3 & 1 for options, _ in rows)
        return Counter([self.copy(min(qos, most), kept, sorted(one for _, one in rows if one))])

    def copy(self, qos: int, kept: int, identifiers: list[int]) -> Reply:
        topic, payload, _, _, dup, pairs = self.some.detail
        retain = kept and self.published is not None and self.published[0].retain
        others = [pair for pair in pairs if pair[0] not in {IDENTIFIER, USER}]
        v5 = self.moment.story.client(self.moment.client).v5
        listed = sorted(others + [(IDENTIFIER, one) for one in identifiers if v5])
        return Reply(
            "PUBLISH", (topic, payload, qos, int(retain), dup, (*listed, *(pair for pair in pairs if pair[0] == USER)))
        )


Rows = Callable[[_Delivery], tuple[list[tuple[int, int]], list[tuple[int, int]]]]
"""The subscriptions that the listener goes by, and those that mosquitto goes by."""


def as_many(delivery: _Delivery) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    rows = delivery.heard_by(delivery.moment.story.client(delivery.moment.client).plain(delivery.some.detail[0]))
    return (rows, rows) if len(rows) > 1 else ([], [])


def _as_at_first(delivery: _Delivery) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    client, topic = delivery.moment.story.client(delivery.moment.client), delivery.some.detail[0]
    renewed, half = client.plain(topic), client.half_renewed(topic)
    return (delivery.heard_by(renewed), delivery.heard_by(half)) if renewed != half else ([], [])


def _as_own(delivery: _Delivery) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """A client's own will: for mosquitto a message of that client like any other."""
    name, (topic, payload, *_) = delivery.moment.client, delivery.some.detail
    if delivery.moment.story.wills.get(payload) != name.removesuffix(" before"):
        return [], []
    client = delivery.moment.story.client(name)
    return client.plain(topic), [row for row in client.half_renewed(topic) if not row[0] & 4]


def delivered(rows_of: Rows) -> Callable[[Moment], Heard | None]:
    """Mosquitto sends a copy for each of its subscriptions; the listener one for all of its own."""

    def rewrite(moment: Moment) -> Heard | None:
        ours, theirs = Counter(moment.ours.messages), Counter(moment.theirs.messages)
        found, spare, missing = theirs.copy(), Counter[bytes](), Counter[bytes]()
        for name in sorted({one.detail[:2] for one in (theirs - ours) + (ours - theirs)}):
            here, wanted = (_about(name, one) for one in (theirs, ours))
            delivery = _Delivery(moment, next(iter(here or wanted)))
            if delivery.published is None:
                continue
            rows, their_rows = rows_of(delivery)
            qos = delivery.published[0].qos
            each, merged = delivery.each(their_rows, qos), delivery.merged(rows, qos)
            client = moment.story.client(moment.client)
            if here <= each and wanted in (Counter(), merged) and client.window < FEW and not client.acks:
                each, merged = here, wanted  # what is missing waits until there is room for it
            for copies in (here, *_flipped(client, here)):
                if each <= copies and copies - each + merged == wanted:
                    found = found - here + wanted
                    spare += releases(moment, each) - releases(moment, merged)
                    missing += releases(moment, merged) - releases(moment, each)
                    break
        if found == theirs:
            return None
        return Heard(in_order(found.elements(), moment.theirs.messages), without_releases(moment, spare, missing))

    return rewrite


def _flipped(client: Client, messages: Counter[Reply]) -> Iterator[Counter[Reply]]:
    """With RETAIN of one message the other way: of a shared subscription made anew with another retain as published."""
    renewed = [
        name.split(b"/", 2)[2]
        for name, (options, _) in client.subscriptions.items()
        if name.startswith(SHARE) and (options ^ client.first[name]) & 8
    ]
    for one in messages:
        topic, payload, qos, retain, *rest = one.detail
        if any(matches(each, topic) for each in renewed):
            yield messages - Counter([one]) + Counter([Reply(one.kind, (topic, payload, qos, 1 - retain, *rest))])


def _about(name: tuple[object, ...], messages: Counter[Reply]) -> Counter[Reply]:
    return Counter({one: count for one, count in messages.items() if one.detail[:2] == name})


def no_local_will(moment: Moment) -> Heard | None:
    """A client's own will does not come to what it subscribed to with no local."""
    return delivered(_as_own)(moment)


def made_anew(moment: Moment) -> Heard | None:
    """Subscribed to anew, with another no local or retain as published: mosquitto keeps to the first."""
    found = delivered(_as_at_first)(moment)
    if found is not None:
        return found
    theirs = Counter(moment.theirs.messages)
    for flipped in _flipped(moment.story.client(moment.client), theirs):
        if flipped == Counter(moment.ours.messages):
            return replace(moment.theirs, messages=moment.ours.messages)
    return None


def retained_to_shared(moment: Moment) -> Heard | None:
    """Mosquitto sends what is retained to a new shared subscription."""
    said = moment.said
    if not moment.is_acting or said is None or said.kind != SUBSCRIBE:
        return None
    extra = Counter(moment.theirs.messages) - Counter(moment.ours.messages)
    inner = [name.split(b"/", 2)[2] for name, _ in said.shared if name.count(b"/") >= 2]
    if not extra or not all(one.detail[3] and any(matches(each, one.detail[0]) for each in inner) for one in extra):
        return None
    left = Counter(moment.theirs.messages) - extra
    return Heard(in_order(left.elements(), moment.theirs.messages), without_releases(moment, releases(moment, extra)))


def _members(moment: Moment, topic: bytes) -> bool:
    """Whether this client shares a filter that covers a topic with somebody else."""
    for name in moment.story.client(moment.client).subscriptions:
        others = [one for one in moment.story.clients.values() if name in one.subscriptions]
        if name.startswith(SHARE) and len(others) > 1 and matches(name.split(b"/", 2)[2], topic):
            return True
    return False


def another_member(moment: Moment) -> Heard | None:
    """A message of a shared subscription went to somebody else of the group."""
    ours, theirs = Counter(moment.ours.messages), Counter(moment.theirs.messages)
    differing = (ours - theirs) + (theirs - ours)
    if not differing or not all(_members(moment, one.detail[0]) for one in differing):
        return None
    kinds = {"PUBREL", "PUBREC", "PUBCOMP", "PUBACK"}
    if not {one.kind for one in moment.ours.answers + moment.theirs.answers} <= kinds:
        return None
    return moment.ours


def _as_ours(moment: Moment, is_meant: Callable[[Reply], bool]) -> Heard | None:
    """Mosquitto's with the listener's share of these messages, and of their PUBRELs, in place of its own."""
    ours, theirs = Counter(moment.ours.messages), Counter(moment.theirs.messages)
    extra = Counter(one for one in (theirs - ours).elements() if is_meant(one))
    missing = Counter(one for one in (ours - theirs).elements() if is_meant(one))
    if not extra and not missing:
        return None
    about = {one.detail[1] for one in extra + missing}
    answers = [one for one in moment.theirs.answers if one.kind != "PUBREL" or one.detail[0] not in about]
    answers += [one for one in moment.ours.answers if one.kind == "PUBREL" and one.detail[0] in about]
    messages = in_order((theirs - extra + missing).elements(), moment.ours.messages)
    return Heard(messages, Heard.of(answers).answers)


def withheld(why: str) -> Callable[[Moment], Heard | None]:
    """Messages that mosquitto does not publish, or not yet, or not here; and what they have replaced as retained."""

    def rewrite(moment: Moment) -> Heard | None:
        story = moment.story

        def is_meant(one: Reply) -> bool:
            topic, payload, _, retain, *_ = one.detail
            return story.withheld.get(payload) == why or (retain and (topic, why) in story.topics_withheld)

        return _as_ours(moment, is_meant)

    return rewrite


def delayed(moment: Moment) -> Heard | None:
    """Mosquitto forgets a delayed will if its session ends; it should be sent then."""
    story = moment.story
    now = [each for each in story.delayed.values() if moment.client == AT_THE_END or story.ends(each[0], moment.step)]
    due = [will for _, will in story.due + now]
    payloads, topics = {will.payload for will in due}, {will.topic for will in due if will.retain}
    return _as_ours(moment, lambda one: one.detail[1] in payloads or (one.detail[3] and one.detail[0] in topics))


def own_will(moment: Moment) -> Heard | None:
    """Mosquitto sends a client its own will before it closes the connection that was replaced."""
    will = moment.story.client(moment.client).left
    if not moment.client.endswith(" before") or will is None:
        return None
    kept = tuple(one for one in moment.theirs.messages if one.detail[:2] != (will.topic, will.payload))
    return replace(moment.theirs, messages=kept)


def sys_topics(moment: Moment) -> Heard | None:
    """Mosquitto keeps `$SYS` to itself: a client's message there goes nowhere, and is refused in 5.0."""
    said = moment.said
    extra = Counter(moment.ours.messages) - Counter(moment.theirs.messages)
    if not all(one.detail[0].startswith(b"$SYS") for one in extra):
        return None
    messages = in_order((Counter(moment.theirs.messages) + extra).elements(), moment.ours.messages)
    answers = list(without_releases(moment, Counter(), releases(moment, extra)))
    if moment.is_acting and said is not None and said.kind == PUBLISH and said.topic.startswith(b"$SYS"):
        refused = {1: Reply("PUBACK", (said.mid, 0x87, ())), 2: Reply("PUBREC", (said.mid, 0x87, ()))}.get(said.qos)
        if refused in answers:
            answers[answers.index(refused)] = Reply(refused.kind, (said.mid, 0, ()))
    return Heard(messages, tuple(answers))


def reused(moment: Moment) -> Heard | None:
    """Mosquitto takes a packet id that was not released for another message, if topic or payload differ."""
    said = next((one.reused for one in moment.story.clients.values() if one.reused is moment.said), None)
    if said is None:
        return None
    kept = tuple(one for one in moment.theirs.messages if one.detail[:2] != (said.topic, said.payload))
    return Heard(kept, without_releases(moment, Counter({said.payload: 9}))) if kept != moment.theirs.messages else None


def choked(moment: Moment) -> Heard | None:
    """In mosquitto, a message that the client does not take for its size keeps its place in flight."""
    client, story = moment.story.client(moment.client), moment.story
    missing = Counter(moment.ours.messages) - Counter(moment.theirs.messages)
    if (
        not missing
        or not all(one.detail[2] for one in missing)
        or Counter(moment.theirs.messages) - Counter(moment.ours.messages)
    ):
        return None
    large = [
        said
        for said, _ in story.published.values()
        if said.qos
        and len(said.topic) + len(said.payload) > client.most_bytes - 20
        and any(
            matches(name.split(b"/", 2)[-1] if name.startswith(SHARE) else name, said.topic)
            for name in client.subscriptions
        )
    ]
    return moment.ours if len(large) >= client.window else None


def halves(moment: Moment) -> Heard | None:
    """Mosquitto has made the subscriptions that stood before what was wrong in a packet."""
    halves = moment.story.client(moment.client).halves
    extra = Counter(moment.theirs.messages) - Counter(moment.ours.messages)
    if not extra or not all(any(matches(name, one.detail[0]) for name in halves) for one in extra):
        return None
    left = Counter(moment.theirs.messages) - extra
    spare = Counter(one.detail[1] for one in extra.elements())
    return Heard(in_order(left.elements(), moment.theirs.messages), without_releases(moment, spare))


def beyond(fault: str) -> Callable[[Moment], Heard | None]:
    """Mosquitto sends what the client said it does not take, by size or by number; the player has seen it."""
    fault_reply = Reply(fault)

    def rewrite(moment: Moment) -> Heard | None:
        faults = moment.theirs.answers.count(fault_reply)
        extra = Counter(moment.theirs.messages) - Counter(moment.ours.messages)
        subacks = Counter(
            one for one in moment.theirs.answers if one.kind == "SUBACK" and one not in moment.ours.answers
        )
        if not faults or extra.total() + subacks.total() > faults:
            return None
        spare = Counter(one.detail[1] for one in extra.elements())
        kept = tuple(one for one in without_releases(moment, spare) if one != fault_reply and one not in subacks)
        left = Counter(moment.theirs.messages) - extra
        if subacks:  # the listener closes, since a part of the answer would be a lie
            kept = (*kept, Reply("DISCONNECT", (0x95,)), CLOSED)
        return Heard(in_order(left.elements(), moment.theirs.messages), kept)

    return rewrite

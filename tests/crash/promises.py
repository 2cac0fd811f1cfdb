"""Whether a gateway has kept what it told the clients of a conversation (`tests.crash.exchanges`).

`verdict` holds what the clients were told against what they were sent and against what the event log holds:

lost        acknowledged (PUBACK, PUBREC) and not in the log, or not at a subscriber whose SUBACK came before
twice       at QoS 2: in the log, or at a subscriber
phantom     delivered or stored and never sent; delivered under a subscription that an UNSUBACK, or a new session, had
            ended before it was sent
disordered  first occurrences of one publisher and topic that go back
repeats     at QoS 1: bounded by the number of times that a connection was lost
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from tests.crash.account import CLEARED, NEVER, Message
from tests.crash.exchanges import STORED, Cast, matches
from tests.crash.mqtt_witness import Client


class Tally(NamedTuple):
    """What a conversation amounted to."""

    exchanges: int
    stored: int
    delivered: int
    log_repeats: int
    delivery_repeats: int


def verdict(cast: Cast, log: list[tuple[str, bytes]]) -> tuple[list[str], Tally]:
    """What is wrong, in words; and the counts.

    Args:
        cast: after `finish`.
        log: topic and payload of every event in the log, in order.
    """
    wrong = list(cast.journal.wrong)
    log_repeats = _judge_log(cast, log, wrong)
    repeats = sum(_judge_client(cast, client, wrong) for client in cast.clients)
    _judge_groups(cast, wrong)
    deliveries = len(cast.journal.deliveries)
    return wrong, Tally(cast.journal.exchanges, len(log), deliveries, log_repeats, repeats)


def _judge_log(cast: Cast, log: list[tuple[str, bytes]], wrong: list[str]) -> int:
    times = Counter(payload for _, payload in log)
    sent = {m.payload: m for m in cast.journal.messages.values() if m.topic.startswith(STORED) and m.offered < NEVER}
    for topic, payload in log:
        if payload not in sent or sent[payload].topic != topic:
            wrong.append(f"phantom: {payload!r} on {topic} in the log")
    for payload, message in sent.items():
        if message.stored < NEVER and not times[payload]:
            wrong.append(f"lost: {payload!r} was acknowledged and is not in the log")
        most = 1 if message.qos == 2 or message in cast.wills else max(1, message.times)
        if times[payload] > most:
            wrong.append(f"twice: {payload!r} is {times[payload]} times in the log, not {most}")
    _judge_order(cast, "the log", [payload for _, payload in log], wrong)
    return sum(times.values()) - len(times)


def _judge_order(cast: Cast, where: str, payloads: Iterable[bytes], wrong: list[str]) -> None:
    numbers = {payload: number for number, payload in enumerate(cast.journal.messages)}
    last: dict[tuple[str, str, int], int] = defaultdict(int)
    for payload in dict.fromkeys(payloads):
        if (message := cast.journal.messages.get(payload)) is not None:
            stream = message.by, message.topic, message.qos
            if numbers[payload] < last[stream]:
                wrong.append(f"disordered: {payload!r} in {where}")
            last[stream] = numbers[payload]


def _judge_client(cast: Cast, client: Client, wrong: list[str]) -> int:
    """Every message against every subscription of a client. How many came twice."""
    own = [each for each in cast.intervals if each.client is client]
    got = [each for each in cast.journal.deliveries if each.client == client.name]
    live = Counter(each.payload for each in got if not each.retain)
    kept = Counter(each.payload for each in got if each.retain)
    for each in got:
        message = cast.journal.messages[each.payload]
        if message.stored < client.since <= each.step < NEVER and not each.retain:
            wrong.append(f"phantom: {client.name} gets {each.payload!r}, which its former session waited for")
    for payload, message in cast.journal.messages.items():
        if message.offered == NEVER:
            continue
        plain = [each for each in own if not each.filter.startswith("$share/")]
        covering = [each for each in plain if each.covers(message)]
        touching = [each for each in own if each.touches(message)]
        if covering and not live[payload]:
            ended = any(each.until < NEVER for each in covering) and client.since > message.stored
            if not ended:
                wrong.append(f"lost: {payload!r} never came to {client.name}")
        if live[payload] and not touching:
            wrong.append(f"phantom: {client.name} gets {payload!r} without a subscription")
        qos = {min(message.qos, each.qos) for each in touching}
        most = 1 if qos == {2} else message.times + cast.losses
        if live[payload] > most:
            wrong.append(f"twice: {payload!r} came {live[payload]} times to {client.name}, not {most}")
        _judge_retained(cast, client, message, kept[payload], wrong)
    _judge_order(cast, client.name, (each.payload for each in got if not each.retain), wrong)
    return sum(count - 1 for count in live.values())


def _judge_retained(cast: Cast, client: Client, message: Message, times: int, wrong: list[str]) -> None:
    """What was retained when a subscription was made comes once with each SUBSCRIBE; what was cleared does not."""
    after = [
        each
        for each in cast.journal.messages.values()
        if each.retain and each.topic == message.topic and message.stored < each.offered
    ]
    replaced = min((each.stored for each in after), default=NEVER)
    replacing = min((each.offered for each in after), default=NEVER)
    is_one = message.retain and not message.payload.startswith(CLEARED)
    asking = [each for each in cast.intervals if each.client is client and matches(each.filter, message.topic)]
    due = [each for each in asking if message.stored < each.asked and each.since < replacing]
    may = [each for each in asking if message.offered <= each.since and each.asked <= replaced]
    if is_one and due and not times:
        wrong.append(f"lost: the retained {message.payload!r} never came to {client.name}")
    most = sum(each.asks for each in may) * (1 if message.qos == 2 else 1 + cast.losses) if is_one else 0
    if times > most:
        wrong.append(f"phantom: {client.name} gets the retained {message.payload!r} {times} times, not {most}")


def _judge_groups(cast: Cast, wrong: list[str]) -> None:
    """A message to a shared subscription goes to one of its members."""
    groups = {each.filter for each in cast.intervals if each.filter.startswith("$share/")}
    for group in groups:
        members = [each for each in cast.intervals if each.filter == group]
        names = {each.client.name for each in members}
        for payload, message in cast.journal.messages.items():
            got = [each for each in cast.journal.deliveries if each.payload == payload and each.client in names]
            if any(each.covers(message) for each in members) and not got:
                wrong.append(f"lost: {payload!r} never came to {group}")
            if len({each.client for each in got}) > 1:
                wrong.append(f"twice: {payload!r} came to several of {group}")

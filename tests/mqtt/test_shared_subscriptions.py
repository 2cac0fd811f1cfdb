"""Shared subscriptions: a message goes to one of those who share it, and stays with that one (MQTT 5.0, 4.8.2)."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from gateway.mqtt.exchange import Exchange, Limits
from gateway.mqtt.keeping import dump, restore
from gateway.mqtt.packets import Subscription
from gateway.mqtt.session import Message
from gateway.mqtt.shared import Shared, split_shared
from gateway.mqtt.turn import Turn
from tests.mqtt.test_session import Outlet, join


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("$share/g/a/+/#", Shared("g", "a/+/#")),
        ("$share/g//", Shared("g", "/")),
        ("$share/g/$share/x/y", Shared("g", "$share/x/y")),
        ("$share//a", None),
        ("$share/g", None),
        ("$share/g/", None),
        ("$share/+/a", None),
        ("$share/g#/a", None),
        ("$share/g/a/#/b", None),
    ],
)
def test_a_shared_subscription_has_a_name_and_a_filter(text, parts):
    """[MQTT-4.8.2-1, -2]."""
    assert split_shared(text) == parts


@pytest.fixture
def exchange():
    """One that keeps."""
    return Exchange(Limits(), keeps=True)


def _members(exchange, *names, text="$share/g/t", expiry_s=0.0):
    found = {}
    for name in names:
        session, outlet, _ = join(exchange, name, clean=False, expiry_s=expiry_s)
        exchange.subscribe(session, text, Subscription(1))
        found[name] = (session, outlet)
    return found


def _say(exchange, count=1):
    for number in range(count):
        exchange.publish(Message("t", b"%d" % number, 1, retain=False), 0.0)


def test_each_message_goes_to_one_member_by_turns(exchange):
    """Whoever shares divides the work evenly."""
    members = _members(exchange, "a", "b", "c")
    _say(exchange, 9)
    assert [len(outlet.sent) for _, outlet in members.values()] == [3, 3, 3]


def test_two_groups_and_a_plain_subscription_get_one_each(exchange):
    """Groups know nothing of each other; a member that also subscribes plainly gets both."""
    members = _members(exchange, "a", "b")
    others = _members(exchange, "x", text="$share/h/+")
    exchange.subscribe(members["a"][0], "t", Subscription(1))
    _say(exchange, 4)
    counts = {name: len(outlet.sent) for name, (_, outlet) in (members | others).items()}
    assert counts == {"a": 4 + 2, "b": 2, "x": 4}


def test_one_that_is_slow_or_away_is_passed_over(exchange):
    """Connected and reading first, then connected, then whoever's session waits."""
    members = _members(exchange, "slow", "quick", "away", expiry_s=60)
    members["slow"][1].is_writable = False
    exchange.detach(*members["away"], 0.0, with_will=False)
    _say(exchange, 3)
    assert len(members["quick"][1].sent) == 3
    exchange.detach(*members["quick"], 0.0, with_will=False)
    _say(exchange, 1)
    assert len(members["slow"][0].queue) == 1
    exchange.detach(*members["slow"], 0.0, with_will=False)
    _say(exchange, 6)
    assert sum(len(session.queue) for session, _ in members.values()) == 7


def test_a_message_under_way_stays_with_its_member(exchange):
    """[MQTT-4.8.2-4, -5]: nobody else gets it, whether its member comes back or not."""
    members = _members(exchange, "a", "b", expiry_s=60)
    exchange.publish(Message("t", b"x", 1, retain=False), 0.0)
    (taker,) = [name for name, (_, outlet) in members.items() if outlet.sent]
    (other,) = set(members) - {taker}
    exchange.detach(*members[taker], 0.0, with_will=False)
    exchange.tick(61.0)
    assert not members[other][1].sent


def test_a_group_ends_with_its_last_member(exchange):
    """Nothing of it is left: no branch, no way."""
    members = _members(exchange, "a", "b")
    assert exchange.subscriptions == 2
    assert exchange.unsubscribe(members["a"][0], "$share/g/t") == 0
    exchange.detach(*members["b"], 0.0, with_will=False)
    assert exchange.subscriptions == 0
    assert exchange.publish(Message("t", b"x", 1, retain=False), 0.0) == 0
    assert not exchange._subscriptions._tree._root.below


def test_retained_messages_are_not_sent_to_those_who_share(exchange):
    """Section 3.8.3.1: they would come once for each member."""
    exchange.retain(Message("t", b"kept", 1, retain=True))
    session, _, _ = join(exchange, "a")
    assert exchange.subscribe(session, "$share/g/t", Subscription(1)) == (1, False)


def test_a_group_comes_back_with_its_members(exchange):
    """Shared subscriptions outlive the gateway like any other."""
    _members(exchange, "a", "b", expiry_s=60)
    again = Exchange(Limits(), keeps=True)
    restore(again, dump(exchange), 0.0)
    outlets = {}
    for name in ("a", "b"):
        outlets[name] = Outlet()
        again.attach(name, outlets[name], clean=False, expiry_s=60, will=None)
    _say(again, 4)
    assert [len(outlet.sent) for outlet in outlets.values()] == [2, 2]


@pytest.mark.parametrize("kept", [(), ("b",), ("a", "b", "c")])
def test_the_turns_are_even_whoever_of_them_is_kept(exchange, kept):
    """Planning a message and handing it out are one turn, not two."""
    members = {}
    for name in ("a", "b", "c"):
        members |= _members(exchange, name, expiry_s=60 if name in kept else 0.0)
    for number in range(30):
        turn = Turn()
        turn.senders.append((0, None))
        turn.add("t", b"%d" % number, qos=1, properties={})
        exchange.plan(turn, 0.0)
        if number == 20 and "a" not in kept:
            exchange.detach(*members["a"], 0.0, with_will=False)  # its turn may be planned: another one gets it
        exchange.route(turn, 0.0)
    counts = [len(outlet.sent) for _, outlet in members.values()]
    assert sum(counts) == 30
    assert "a" not in kept or counts == [10, 10, 10]


async def test_over_the_wire_each_message_is_worked_on_once(bench, wire):
    """3.1.1 and 5.0 members of one group; what one gets no other gets."""
    readers = [await bench.client(f"r{number}", v5=number > 0) for number in range(3)]
    for reader in readers:
        assert await reader.subscribe("$share/workers/jobs/#") == b"\1"
    writer = await bench.client("w")
    writer.send(*(wire.publish("jobs/x", b"%d" % number, qos=1, mid=number + 1) for number in range(30)))
    for _ in range(30):
        await writer.packet()
    got = await asyncio.gather(*(_drain(reader, 10) for reader in readers))
    assert Counter(payload for each in got for payload in each) == {b"%d" % number: 1 for number in range(30)}


async def _drain(reader, count):
    return [(await reader.message()).payload for _ in range(count)]


async def test_no_local_and_shared_do_not_go_together(bench):
    """[MQTT-3.8.3-4]: a protocol error."""
    client = await bench.client("dev", v5=True)
    client.send(b"\x82\x10\x00\x07\x00\x00\x0a$share/g/t\x05")
    farewell = await client.closed()
    assert (farewell[0], farewell[2]) == (0xE0, 0x82)

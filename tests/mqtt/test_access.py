"""Who gets in: by certificate, by password, by hash; and how long a wrong password takes."""

import asyncio

import pytest
from argon2 import PasswordHasher

from gateway.config.settings import Permission, User
from gateway.mqtt.access import Access, Peer
from gateway.mqtt.packets import Reason
from gateway.mqtt.passwords import Passwords, hash_password

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PATIENCE_S = 10.0
PEER = Peer("10.0.0.1:1234")


class Later:
    """A loop whose timers fire when told to."""

    def __init__(self):
        self.calls = []

    def call_later(self, wait_s, call, *arguments):
        self.calls.append((wait_s, lambda: call(*arguments)))


def judged(access, username, password, peer=PEER, now_s=0.0):
    return access.admit(peer, username, password, now_s, lambda _: None)


def test_a_certificate_is_enough_and_its_name_counts():
    """Whatever user name is given beside it."""
    access = Access([User(username="a", password="x")])
    verdict = judged(access, "a", b"wrong", Peer("h:1", "device-7"))
    assert (verdict.reason, verdict.device) == (Reason.SUCCESS, "device-7")


def test_the_sixth_wrong_password_is_looked_at_a_second_later():
    """And the right one is let in after that second, too."""
    access, later, told = Access([User(username="a", password="x")]), Later(), []
    access.bind(later)
    for _ in range(5):
        assert judged(access, "a", b"wrong").reason == Reason.BAD_CREDENTIALS
    assert access.admit(PEER, "a", b"x", 0.0, told.append) is None
    (wait_s, check), *_ = later.calls
    assert (wait_s, told) == (1.0, [])
    check()
    assert [verdict.device for verdict in told] == ["a"]
    assert judged(access, "a", b"x", now_s=2.0).reason == Reason.SUCCESS


def test_names_that_are_no_users_count_as_one():
    """A stranger who tries many names waits after five, and fills no table."""
    access = Access([User(username="a", password="x")])
    access.bind(Later())
    found = [judged(access, f"name-{number}", b"y") for number in range(20)]
    assert [verdict.reason for verdict in found[:5]] == [Reason.BAD_CREDENTIALS] * 5
    assert found[5:15] == [None] * 10
    assert {verdict.reason for verdict in found[15:]} == {Reason.RATE_EXCEEDED}


@pytest.fixture
def passwords():
    found = Passwords([User(username="a", password_hash=QUICK.hash("geheim"))])
    yield found
    found.close()


@pytest.mark.parametrize(
    ("username", "password", "is_right"),
    [("a", b"geheim", True), ("a", b"Geheim", False), ("nobody", b"geheim", False), ("a", b"\xff\xfe", False)],
)
async def test_a_hash_is_checked_on_a_thread(passwords, username, password, is_right):
    """An unknown user is checked against somebody's hash, and is wrong even with that one's password."""
    assert passwords.check(username, password) is None
    checked = passwords.check_hash(username, password, asyncio.get_running_loop())
    assert await asyncio.wait_for(checked, PATIENCE_S) is is_right


async def test_a_password_that_was_right_is_right_at_once_from_then_on(passwords):
    """And a wrong one still takes its time."""
    await asyncio.wait_for(passwords.check_hash("a", b"geheim", asyncio.get_running_loop()), PATIENCE_S)
    await asyncio.sleep(0)
    assert passwords.check("a", b"geheim") is True
    assert passwords.check("a", b"gehein") is None
    assert b"geheim" not in b"".join(passwords._remembered.values())


def test_a_hash_that_we_make_is_one_that_we_accept():
    """`gateway password` and the configuration agree."""
    made = hash_password("geheim")
    assert made.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert PasswordHasher().verify(made, "geheim")


# On the wire.

HASHED = User(username="a", password_hash=QUICK.hash("geheim"))


async def test_what_is_sent_behind_connect_waits_for_the_hash(open_listener, wire):
    """The protocol lets a client send on before CONNACK; nothing of it is looked at before the login was right."""
    bench = await open_listener(users=(HASHED,))
    client = await bench.socket()
    client.send(wire.connect("dev", username="a", password="geheim") + wire.publish("t", b"1", qos=1, mid=1))
    client.send(wire.publish("t", b"2", qos=1, mid=2))
    assert [await client.packet() for _ in range(3)] == [(0x20, b"\0\0"), (0x40, b"\0\1"), (0x40, b"\0\2")]
    assert [payload for _, payload, _ in bench.desk.messages] == [b"1", b"2"]
    wrong = await bench.socket()
    wrong.send(wire.connect("dev", username="a", password="falsch") + wire.publish("t", b"3", qos=1, mid=1))
    assert await wrong.packet() == (0x20, b"\0\4")
    assert await wrong.closed() == b""
    assert len(bench.desk.messages) == 2


async def test_who_leaves_during_the_check_leaves_nothing_behind(open_listener, wire, eventually):
    """The answer comes when nobody is there to hear it."""
    bench = await open_listener(users=(HASHED,))
    for _ in range(10):
        client = await bench.socket()
        client.send(wire.connect("dev", username="a", password="geheim"))
        client.writer.transport.abort()
    stays = await bench.client("other", username="a", password="geheim")
    await stays.silence()
    # A socket that was aborted may be told of later than a new one.
    await eventually(lambda: [one.client_id for one in bench.listener.clients() if one.is_connected] == ["other"])


MINE = Permission(publish=("d/{device}/#",), subscribe=("d/{device}/#",))
USERS = (User(username="a", password="x"), User(username="b", password="y"))
BARE = b"\x17\0"
"""Request Problem Information 0: codes without sentences."""


async def test_a_topic_that_is_not_permitted_is_refused_in_order(open_listener, wire):
    """5.0: 0x87 in its place among the answers, QoS 1 and 2, and nothing is stored [MQTT-4.6.0-2]."""
    bench = await open_listener(users=USERS, permissions=(MINE,))
    client = await bench.client("c", v5=True, username="a", password="x", properties=BARE)
    topics = ["d/a/t", "d/b/t", "d/a/t", "d/b/t", "d/a/t"]
    client.send(*(wire.publish(topic, b"%d" % mid, qos=1, mid=mid, v5=True) for mid, topic in enumerate(topics, 1)))
    client.send(wire.publish("d/b/t", b"6", qos=2, mid=6, v5=True), wire.publish("d/b/t", b"7", v5=True))
    answers = [await client.packet() for _ in range(6)]
    assert answers[:5] == [(0x40, b"\0\1"), (0x40, b"\0\2\x87"), (0x40, b"\0\3"), (0x40, b"\0\4\x87"), (0x40, b"\0\5")]
    assert answers[5] == (0x50, b"\0\6\x87")
    await client.silence()
    assert [payload for _, payload, _ in bench.desk.messages] == [b"1", b"3", b"5"]
    assert bench.listener.stats.refused_total == {"publish": 4}


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_in_3_1_1_what_cannot_be_said_closes(open_listener, wire, qos):
    """What cannot be answered truly ends the connection [MQTT-3.3.5-2 of 3.1.1]; QoS 0 is only counted."""
    bench = await open_listener(users=USERS, permissions=(MINE,))
    client = await bench.client("c", username="a", password="x")
    client.send(wire.publish("d/b/t", b"1", qos=qos, mid=1 if qos else 0))
    if qos:
        assert await client.closed() == b""
    else:
        await client.silence()
    assert bench.desk.messages == []
    assert bench.listener.stats.refused_total == {"publish": 1}


async def test_what_one_client_may_publish_the_fast_path_takes_from_no_other(open_listener, wire):
    """Topics that the hot path knows are known for the client that may use them."""
    bench = await open_listener(users=USERS, permissions=(MINE,))
    first = await bench.client("c1", v5=True, username="a", password="x")
    second = await bench.client("c2", v5=True, username="b", password="y", properties=BARE)
    for _ in range(3):
        first.send(wire.publish("d/a/t", b"1", qos=1, mid=1, v5=True))
        second.send(wire.publish("d/a/t", b"1", qos=1, mid=1, v5=True))
        assert await first.packet() == (0x40, b"\0\1")
        assert await second.packet() == (0x40, b"\0\1\x87")


async def test_subscriptions_and_wills_are_judged_too(open_listener, wire):
    """0x87 for a filter, and for a CONNECT whose will is for another's topic."""
    bench = await open_listener(users=USERS, permissions=(MINE,))
    client = await bench.client("c", v5=True, username="a", password="x")
    assert await client.subscribe("d/a/#", "d/+/x", "#", "$share/g/d/b/x") == b"\x01\x87\x87\x87"
    old = await bench.client("c2", username="a", password="x")
    assert await old.subscribe("d/a/#", "d/b/#") == b"\x01\x80"
    bad = await bench.client("c3", username="a", password="x", will=("d/b/gone", b"", 0, False))
    assert bad.connack[1] == b"\0\5"
    assert bench.listener.stats.refused_total == {"subscribe": 4, "connect": 1}


async def test_a_session_is_nobody_elses(open_listener):
    """Another user does not get at what waits by using the same client id."""
    bench = await open_listener(users=USERS)
    mine = await bench.client("c", clean=False, username="a", password="x")
    assert await mine.subscribe("t") == b"\x01"
    thief = await bench.client("c", clean=False, username="b", password="y")
    assert thief.connack[1] == b"\0\2"
    await mine.silence()
    again = await bench.client("c", clean=False, username="a", password="x")
    assert again.connack[1] == b"\1\0"


async def test_too_fast_is_read_more_slowly_and_nothing_is_lost(open_listener, wire):
    """Two limits: of messages, which the peer waits for, and of what is unanswered, which 5.0 announces."""
    bench = await open_listener(max_messages_per_s=100)
    client = await bench.client("c")
    client.send(*(wire.publish("t", b"x", qos=1, mid=mid) for mid in range(1, 111)))
    answers = [await client.packet() for _ in range(110)]
    assert answers[-1] == (0x40, b"\0\x6e")
    assert bench.listener.stats.throttled_total == 1
    client.send(wire.publish("t", b"y", qos=1, mid=1))
    assert await client.packet() == (0x40, b"\0\1")


async def test_more_unanswered_than_granted(open_listener, wire):
    """5.0 knows its limit and is told [MQTT-3.3.4-7]; 3.1.1 cannot be, and is read when it has been answered."""
    bench = await open_listener(at_once=False, max_in_flight=4)
    new = await bench.client("new", v5=True)
    assert b"\x21\0\4" in new.connack[1]
    new.send(*(wire.publish("t", b"x", qos=1, mid=mid, v5=True) for mid in range(1, 6)))
    farewell = await new.closed()
    assert (farewell[0], farewell[2]) == (0xE0, 0x93)
    old = await bench.client("old")
    old.send(*(wire.publish("t", b"y", qos=1, mid=mid) for mid in range(1, 6)))
    await bench.desk.wait_for(10)
    old.send(wire.publish("t", b"z", qos=1, mid=6))
    for arrivals in bench.desk.arrivals:
        arrivals.settle()
    bench.desk.at_once = True
    assert [await old.packet() for _ in range(6)] == [(0x40, bytes([0, mid])) for mid in range(1, 7)]

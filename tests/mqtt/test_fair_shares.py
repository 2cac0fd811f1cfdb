"""Who sends much does not keep those waiting who send little; many who send little share a turn."""

import asyncio

from gateway.mqtt import connection
from gateway.mqtt.gathering import (
    FLEET_MESSAGES,
    FLEET_RATE_PER_S,
    FLEET_S,
    LEAST_SHARE_BYTES,
    MOST_SHARE_BYTES,
    PERIOD_S,
    SHARE_BYTES_PER_S,
    Gathering,
)


async def test_a_flood_is_taken_in_shares_beside_a_light_sender(open_listener, wire, monkeypatch):
    """The light one's message lies between the flood's, not behind all of them; and nothing of the flood is lost."""
    bench = await open_listener()
    light, heavy = await bench.client("light"), await bench.client("heavy")
    light.send(wire.publish("l", b"0", qos=1, mid=1))
    await light.packet()
    shares = []
    take = connection.Connection._take
    monkeypatch.setattr(
        connection.Connection, "_take", lambda self, data: (shares.append(len(data)), take(self, data))[1]
    )
    count = 2_000
    heavy.send(*(wire.publish("h", b"%06d" % mid, qos=1, mid=mid) for mid in range(1, count + 1)))
    for mid in range(1, count + 1):
        assert await heavy.packet() == (0x40, mid.to_bytes(2, "big"))
    assert [payload for topic, payload, _ in bench.desk.messages if topic == "h"] == [
        b"%06d" % mid for mid in range(1, count + 1)
    ]
    assert max(shares) <= 2 * LEAST_SHARE_BYTES, "this disk is quick"


async def test_no_more_of_one_client_is_under_way_than_its_share(open_listener, wire):
    """Beside a light sender, a flood stops being read until what was read is on disk."""
    bench = await open_listener(at_once=False)
    light, heavy = await bench.client("light"), await bench.client("heavy")
    light.send(wire.publish("l", b"0", qos=1, mid=1))
    await bench.desk.wait_for(1)
    count = 4_000
    heavy.send(*(wire.publish("h", bytes(100), qos=1, mid=mid) for mid in range(1, count + 1)))
    await bench.desk.wait_for(2)
    for _ in range(50):  # all that the loop would still read
        await asyncio.sleep(0)
    assert bench.listener.stats.unsettled_bytes < 4 * bench.listener.gathering.share_bytes
    bench.desk.at_once = True
    for arrivals in list(bench.desk.arrivals):
        arrivals.settle()
    for mid in range(1, count + 1):
        assert await heavy.packet() == (0x40, mid.to_bytes(2, "big"))


def test_a_share_grows_with_the_time_that_the_disk_takes():
    """A flood may have what others do not notice: little while a sync takes tenths of a millisecond, more on a card."""
    bench = Bench()
    for sync_s, wanted_bytes in [
        (0.0001, LEAST_SHARE_BYTES),
        (0.005, 0.005 * SHARE_BYTES_PER_S),
        (1, MOST_SHARE_BYTES),
    ]:
        for _ in range(60):
            bench.message(None)
            bench.gathering.end_turn()
            bench.now_s += sync_s
            bench.turns[-1].settle()
        assert abs(bench.gathering.share_bytes - wanted_bytes) < 0.02 * wanted_bytes


class Loop:
    """Keeps what it was asked to call."""

    def __init__(self):
        self.soon, self.later = [], []

    def call_soon(self, call):
        self.soon.append(call)

    def call_later(self, wait_s, call):
        self.later.append((wait_s, call))
        return self

    def cancel(self):
        self.later.clear()


class Bench:
    """A gathering without sockets."""

    def __init__(self):
        self.now_s, self.loop, self.turns = 100.0, Loop(), []
        exchange = type("Exchange", (), {})()
        exchange.notes = type("Notes", (), {"take": lambda _: ([], []), "on_change": None})()
        exchange.take_wills = list
        exchange.plan = lambda turn, now_s: setattr(turn, "at_s", now_s) or []
        exchange.route = lambda *_: None
        self.gathering = Gathering(exchange, self.turns.append, lambda: self.now_s, 1 << 30, lambda: None)
        self.gathering.bind(self.loop)

    def message(self, sender):
        self.gathering.turn.add("t", b"", qos=0, properties={})
        self.gathering.gathered(10, sender)

    def run(self, *, senders, each_s, seconds):
        """Let messages come in one by one; returns how many turns they became."""
        devices = [type("Sender", (), {"period": 0})() for _ in range(senders)]
        before, due_s = len(self.turns), None
        for number in range(round(seconds / each_s)):
            self.now_s += each_s
            self.message(devices[number % senders])
            if self.loop.later and due_s is None:
                due_s = self.now_s + self.loop.later[0][0]
            if self.loop.soon or (due_s is not None and due_s <= self.now_s):
                self.loop.soon.clear()
                self.gathering.end_turn()
                due_s = None
        return len(self.turns) - before


def test_a_lone_device_never_waits():
    """However fast it sends: a turn is ended with the loop's."""
    bench = Bench()
    assert bench.run(senders=1, each_s=0.0001, seconds=1.0) == 10_000


def test_a_few_messages_of_many_devices_do_not_wait_either():
    """Where there is little to share, waiting would gain nothing."""
    bench = Bench()
    assert bench.run(senders=500, each_s=2.0 / FLEET_RATE_PER_S, seconds=1.0) == 2_000


def test_a_fleet_shares_turns():
    """Many devices, many messages: turns come every few milliseconds, or when enough is there."""
    bench = Bench()
    bench.run(senders=1_000, each_s=0.0001, seconds=3 * PERIOD_S)
    assert bench.run(senders=1_000, each_s=0.0001, seconds=1.0) <= 1.1 * max(1 / FLEET_S, 10_000 / FLEET_MESSAGES)
    assert sum(len(turn.topics) for turn in bench.turns) + len(bench.gathering.turn.topics) == 13_000


def test_a_fleet_that_falls_silent_is_one_no_longer():
    """The next lone message does not wait."""
    bench = Bench()
    bench.run(senders=1_000, each_s=0.0001, seconds=3 * PERIOD_S)
    bench.gathering.end_turn()
    bench.run(senders=1, each_s=0.05, seconds=0.5)
    assert bench.run(senders=1, each_s=0.05, seconds=0.5) == 10

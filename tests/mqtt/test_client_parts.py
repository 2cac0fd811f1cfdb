"""The parts of the client that need no broker: pauses, the outbox, the list of filters, the gate."""

from __future__ import annotations

import asyncio
import collections
import random
import socket
import ssl

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from gateway.config.settings import ConnectSettings
from gateway.model import Arrivals
from gateway.mqtt.backoff import full_jitter_s, slow_pause_s
from gateway.mqtt.client import BrokerClient
from gateway.mqtt.client_filters import FilterMemory
from gateway.mqtt.client_gate import Gate
from gateway.mqtt.client_ladder import CAP_S, STABLE_S, Cause, Ladder
from gateway.mqtt.client_outbox import MAX_BYTES, Outbox, Outgoing
from gateway.mqtt.client_refusal import open_end
from gateway.mqtt.client_socket import BrokerContext
from gateway.mqtt.client_stats import ClientStats


@pytest.mark.parametrize(
    ("attempt", "draw", "pause_s"),
    [(0, 0.0, 0.0), (0, 0.5, 0.5), (3, 0.5, 4.0), (7, 0.5, 60.0), (8, 1.0, 120.0), (10_000, 1.0, 120.0)],
)
def test_a_pause_is_drawn_from_a_ceiling_that_doubles_up_to_the_cap(attempt, draw, pause_s):
    """Full jitter, and no overflow however long the broker stays away."""
    assert full_jitter_s(attempt, 1.0, 120.0, draw) == pause_s


def test_the_slow_pause_lies_between_half_the_cap_and_the_cap():
    """What an operator must mend is asked for about once in a minute and a half."""
    assert (slow_pause_s(120.0, 0.0), slow_pause_s(120.0, 1.0)) == (60.0, 120.0)


def test_five_hundred_gateways_do_not_come_back_at_one_moment(seed):
    """M6 in virtual time: once the ladders stand at their cap, no ten seconds see more than twice the mean."""
    rng = random.Random(seed)
    tries = collections.Counter()
    for _ in range(500):
        ladder, now_s = Ladder(), rng.random()
        while now_s < 3_600.0:
            now_s += ladder.pause_s(Cause.UNREACHABLE, None, rng.random())
            if now_s >= 300.0:
                tries[int(now_s) // 10] += 1
    mean = sum(tries.values()) / len(tries)
    assert max(tries.values()) <= 2 * mean


def test_only_a_connection_that_stood_for_a_minute_resets_the_ladder():
    """M5 and M6: neither a CONNACK nor a short life does."""
    ladder = Ladder()
    for attempt in range(7):
        assert ladder.pause_s(Cause.UNREACHABLE, None, 0.5) == 0.5 * 2.0**attempt
    assert ladder.pause_s(Cause.LOST, STABLE_S - 1.0, 0.5) == CAP_S / 2
    assert ladder.pause_s(Cause.LOST, STABLE_S, 0.5) == 0.5


def test_two_gateways_with_one_id_meet_at_most_twice_a_minute_each(seed):
    """M5: both are accepted whenever they come, which throws the other out."""
    rng = random.Random(seed)
    ladders = [Ladder(), Ladder()]
    arrivals: list[list[float]] = [[], []]
    holder, since_s, other_comes_s = 0, 0.0, 0.0
    while other_comes_s < 3_600.0:
        other = 1 - holder
        arrivals[other].append(other_comes_s)
        up_s = other_comes_s - since_s
        holder, since_s = other, other_comes_s
        other_comes_s += ladders[1 - other].pause_s(
            Cause.TAKEN_OVER if rng.random() < 0.5 else Cause.CLOSED, up_s, rng.random()
        )
    for times in arrivals:
        for first, third in zip(times, times[2:], strict=False):
            assert third - first >= 30.0


def test_a_broker_that_restarts_twice_is_not_taken_for_a_fight():
    """A failure to connect in between shows that it was away."""
    ladder = Ladder()
    ladder.pause_s(Cause.CLOSED, 5.0, 0.0)
    ladder.pause_s(Cause.UNREACHABLE, None, 0.0)
    ladder.pause_s(Cause.CLOSED, 5.0, 0.0)
    assert not ladder.is_fight
    ladder.pause_s(Cause.CLOSED, 5.0, 0.0)
    assert ladder.is_fight


def test_a_certificate_from_the_future_is_retried_soon():
    """M17 at a start in 1970: time will answer it, so the ladder applies and the detail points at the clock."""
    error = ssl.SSLCertVerificationError(1, "certificate is not yet valid")
    error.verify_code = 9
    end = open_end(error)
    assert end.cause is Cause.UNREACHABLE
    assert "clock" in end.detail


def test_paho_takes_its_socket_from_the_context_that_it_was_given():
    """Guards the one thing that the client asks of paho beyond MQTT; everything used is public, but not promised."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(CallbackAPIVersion.VERSION2, client_id="guard", manual_ack=True)
        context = BrokerContext(None)
        client.tls_set_context(context)
        client.connect(*server.getsockname())
        assert client.socket() is context.sock
        assert context.sock.unsent_bytes > 0, "the CONNECT is in our buffer"
        assert not client.want_write(), "and paho takes it for sent"
        assert client.loop_read() == MQTTErrorCode.MQTT_ERR_SUCCESS, "nothing fed is nothing to read, no error"
        context.sock.release()


def outgoing(name: str, queued_s: float = 0.0, payload: bytes = b"x") -> Outgoing:
    return Outgoing(name, payload, 1, False, queued_s)


def test_the_outbox_sends_again_what_was_under_way_before_what_waits():
    """Order of commands holds across a lost connection."""
    outbox = Outbox(max_age_s=10.0)
    for name in "abcd":
        assert outbox.put(outgoing(name))
    for mid in (1, 2, 3):
        outbox.sent(mid, outbox.take(0.0))
    assert outbox.acknowledged(2)
    assert not outbox.acknowledged(2)
    outbox.disconnected()
    taken = []
    while (message := outbox.take(0.0)) is not None:
        taken.append(message.topic)
        outbox.done(message)
    assert taken == ["a", "c", "d"]
    assert len(outbox) == 0


def test_the_outbox_drops_what_is_too_old_and_frees_its_room():
    """A message's age counts from when it was queued, however often it was sent."""
    outbox = Outbox(max_age_s=10.0)
    assert outbox.put(outgoing("old", 0.0, bytes(MAX_BYTES)))
    assert not outbox.put(outgoing("no room", 0.0))
    outbox.sent(1, outbox.take(5.0))
    outbox.disconnected()
    assert outbox.take(11.0) is None
    assert outbox.expired == 1
    assert outbox.put(outgoing("room again", 11.0, bytes(MAX_BYTES)))


def test_the_list_of_filters_belongs_to_one_session_of_one_broker(tmp_path):
    """What was asked of another broker, or under another id, says nothing about this session."""
    path = tmp_path / "filters.json"
    FilterMemory(path, "a:1883", "gw").save(frozenset({"t/#", "u/+"}))
    assert FilterMemory(path, "a:1883", "gw").load() == {"t/#", "u/+"}
    assert FilterMemory(path, "b:1883", "gw").load() == frozenset()
    assert FilterMemory(path, "a:1883", "other").load() == frozenset()
    assert [entry.name for entry in tmp_path.iterdir()] == ["filters.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"broker": 1}', b"\xff\xfe", bytes(100)])
def test_a_list_of_filters_that_cannot_be_read_counts_as_empty(tmp_path, content):
    """Damage on disk never keeps the gateway from starting (L5)."""
    path = tmp_path / "filters.json"
    path.write_bytes(content)
    assert FilterMemory(path, "a:1883", "gw").load() == frozenset()


class Recorder:
    """Counts openings and shuttings."""

    def __init__(self) -> None:
        self.changes = 0

    def __call__(self) -> None:
        self.changes += 1


async def test_the_gate_shuts_at_the_budget_and_opens_at_half():
    """No flutter: one change on the way up, one on the way down."""
    stats, changed = ClientStats(), Recorder()
    gate = Gate(lambda _arrivals: None, 100, stats, random.Random(1), changed)
    arrivals = Arrivals(["t"], [1], [b""], lambda: None)
    gate.offer(arrivals, 60)
    assert gate.is_open
    gate.offer(arrivals, 60)
    assert not gate.is_open
    gate.settled(60)
    assert not gate.is_open
    gate.settled(60)
    assert gate.is_open
    assert (changed.changes, stats.unsettled_bytes) == (2, 0)


async def test_a_refused_batch_is_forgotten_with_its_connection():
    """The broker will offer it again: kept here too, it would be stored twice."""
    stats, offered = ClientStats(), []

    def intake(arrivals) -> None:
        offered.append(arrivals)
        raise RuntimeError("full")

    gate = Gate(intake, 100, stats, random.Random(1), lambda: None)
    gate.offer(Arrivals(["t"], [1], [b""], lambda: None), 60)
    assert not gate.is_open
    gate.disconnected()
    assert gate.is_open
    assert stats.unsettled_bytes == 0
    await asyncio.sleep(0)
    assert len(offered) == 1


@pytest.mark.parametrize("name", ["", "a/#/b", "a+", "a\0b"])
def test_a_filter_that_is_none_is_refused_before_anything_starts(name):
    """A mistake in a filter is found at once, not by a broker."""
    with pytest.raises(ValueError, match=r"must|not empty|holds"):
        BrokerClient(ConnectSettings(host="h", port=1), "gw", [name], lambda _arrivals: None, random.Random(1))


async def test_a_command_to_a_topic_that_is_none_is_refused():
    """Wildcards and empty names are the caller's mistake."""
    client = BrokerClient(ConnectSettings(host="h", port=1), "gw", ["t/#"], lambda _arrivals: None, random.Random(1))
    for topic in ("", "a/+", "a/#", "a\0"):
        with pytest.raises(ValueError, match="topic name"):
            client.publish(topic, b"x")
    with pytest.raises(ValueError, match="QoS"):
        client.publish("a", b"x", qos=2)

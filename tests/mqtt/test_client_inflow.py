"""The stream from a broker, sorted without a socket: what becomes columns, and what is left to paho."""

from __future__ import annotations

import random

import pytest

from gateway.errors import ProtocolError
from gateway.model import DUPLICATE, RETAINED
from gateway.mqtt import client_inflow
from gateway.mqtt.client_inflow import Inflow
from tests.mqtt.broker_process import PINGRESP, publish_packet, string

LIMIT_BYTES = 100_000
USER_PROPERTY = b"\x26" + string("k") + string("v")


class Stream:
    """An inflow whose paho only listens."""

    def __init__(self, *, v5: bool = True, is_up: bool = True, limit_bytes: int = LIMIT_BYTES) -> None:
        self.to_paho: list[bytes] = []
        self.inflow = Inflow(limit_bytes, {}, self.to_paho.append, v5=v5)
        self.inflow.is_up = is_up

    def rows(self, *chunks: bytes) -> list[tuple[str, int, bytes]]:
        """What comes of it: topic, flags, payload."""
        for chunk in chunks:
            self.inflow.receive(chunk)
        harvest = self.inflow.harvest()
        if harvest is None:
            return []
        self.mids = [int.from_bytes(mid, "big") for mid in harvest.mids]
        return list(zip(harvest.topics, harvest.flags, harvest.payloads, strict=True))


def first_byte(packet: bytes, bits: int) -> bytes:
    return bytes([packet[0] | bits]) + packet[1:]


ORDINARY = [
    publish_packet("t/a", b"seen first", 1),
    publish_packet("t/a", b"seen again", 2),
    publish_packet("t/a", b"a copy", 3, dup=True),
    publish_packet("t/b", b"once", qos=0),
    publish_packet("t/b", b"with properties", 4, properties=USER_PROPERTY),
    publish_packet("t/b", b"with many", 5, properties=USER_PROPERTY * 40),
    publish_packet("t/ä€🙂", b"", 6),
    publish_packet("t/a", b"long" * 10_000, 7),
    publish_packet("t/a", b"QoS 0, with properties", qos=0, properties=b"\x01\x01" + USER_PROPERTY),
]
EXPECTED = [
    ("t/a", 1, b"seen first"),
    ("t/a", 1, b"seen again"),
    ("t/a", 1 | DUPLICATE, b"a copy"),
    ("t/b", 0, b"once"),
    ("t/b", 1, b"with properties"),
    ("t/b", 1, b"with many"),
    ("t/ä€🙂", 1, b""),
    ("t/a", 1, b"long" * 10_000),
    ("t/a", 0, b"QoS 0, with properties"),
]


def test_every_message_of_qos_0_and_1_becomes_a_row_without_paho():
    """The fallback is for QoS 2 and for what is no message."""
    stream = Stream()
    assert stream.rows(b"".join(ORDINARY)) == EXPECTED
    assert stream.mids == [1, 2, 3, 4, 5, 6, 7]
    assert stream.to_paho == []


def test_the_same_bytes_mean_the_same_wherever_the_network_cuts_them(seed):
    """Packets are found in pieces of any size."""
    rng = random.Random(seed)
    data = b"".join(ORDINARY)
    for _ in range(200):
        cuts = sorted(rng.sample(range(1, len(data)), rng.randrange(20)))
        stream = Stream()
        chunks = [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert stream.rows(*chunks) == EXPECTED
        assert stream.mids == [1, 2, 3, 4, 5, 6, 7]


def test_what_lies_between_messages_goes_to_paho_whole_and_in_order():
    """CONNACK, SUBACK, PUBACK, PINGRESP, DISCONNECT, QoS 2: paho has the dialogue."""
    suback, puback, goodbye = b"\x90\x04\0\1\0\1", b"\x40\x02\0\1", b"\xe0\0"
    twice = publish_packet("t/a", b"exactly once", 8, qos=2)
    stream = Stream()
    rows = stream.rows(suback + ORDINARY[0] + puback + twice[:5], twice[5:] + PINGRESP, ORDINARY[1] + goodbye)
    assert rows == EXPECTED[:2]
    assert stream.to_paho == [suback, puback, twice, PINGRESP, goodbye]


def test_a_message_before_the_connack_is_for_paho_to_judge():
    """Nothing is handed on from a broker that has not let us in [MQTT-3.2.0-1]."""
    stream = Stream(is_up=False)
    assert stream.rows(ORDINARY[0]) == []
    assert stream.to_paho == [ORDINARY[0]]


@pytest.mark.parametrize("properties", [b"", USER_PROPERTY])
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("times", [1, 2])
def test_retain_from_a_broker_marks_what_is_not_of_now(qos, properties, times):
    """L9, M13: on a known topic or a new one, with properties or without [MQTT-3.3.1-8]."""
    kept = first_byte(publish_packet("t/a", b"old", 1, qos=qos, properties=properties), 1)
    live = publish_packet("t/a", b"new", 2, qos=qos, properties=properties)
    rows = Stream().rows((kept + live) * times)
    assert rows == [("t/a", qos | RETAINED, b"old"), ("t/a", qos, b"new")] * times


@pytest.mark.parametrize("topic", [b"t/\xff", b"t/a\0b", b"t/+", b"#", b""])
@pytest.mark.parametrize("properties", [b"", USER_PROPERTY])
def test_a_topic_that_is_none_is_counted_acknowledged_and_not_handed_on(topic, properties):
    """A broker would offer it for ever."""
    stream = Stream()
    rows = stream.rows(publish_packet(topic, b"?", 1, properties=properties) + ORDINARY[1])
    assert rows == EXPECTED[1:2]
    assert stream.mids == [1, 2]
    assert stream.inflow.invalid_topics == 1


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(publish_packet("t/a", b"x", 0), id="packet id 0"),
        pytest.param(b"\x32\x04\x00\x03t/", id="the topic is longer than the packet"),
        pytest.param(b"\x32\x06\x00\x03t/a\x01", id="half a packet id"),
        pytest.param(b"\x32\x07\x00\x03t/a\x00\x01", id="no property length"),
        pytest.param(b"\x32\x09\x00\x03t/a\x00\x01\x7fx", id="properties longer than the packet"),
        pytest.param(b"\x32\x0c\x00\x03t/a\x00\x01\xff\xff\xff\xff\x01", id="a property length that has no end"),
        pytest.param(b"\x30\x00", id="nothing at all"),
        pytest.param(b"\x32\xff\xff\xff\xff\x01", id="a remaining length that has no end"),
    ],
)
def test_lengths_that_do_not_add_up_end_the_connection(packet):
    """After them nobody knows where the next packet begins, or what this one says."""
    with pytest.raises(ProtocolError):
        Stream().rows(ORDINARY[0] + packet + ORDINARY[1])


@pytest.mark.parametrize("v5", [False, True])
def test_a_message_larger_than_the_limit_is_passed_over_and_acknowledged_in_its_turn(v5):
    """It is never gathered: only its packet id is read."""
    stream = Stream(v5=v5, limit_bytes=1_000)
    before, large, after = (
        publish_packet("t/a", payload, mid, v5=v5) for mid, payload in ((1, b"a"), (2, b"z" * 5_000), (3, b"b"))
    )
    data = before + large + after
    rows = stream.rows(*(data[start : start + 100] for start in range(0, len(data), 100)))
    assert rows == [("t/a", 1, b"a"), ("t/a", 1, b"b")]
    assert stream.mids == [1, 2, 3]
    assert stream.inflow.oversized == 1


def test_messages_in_bulk_and_one_by_one_come_to_the_same(seed, monkeypatch):
    """The two scans take a part of what the general way takes, and understand it alike, on 5,000 bent streams."""
    rng = random.Random(seed)
    honest = b"".join([*ORDINARY[:7], ORDINARY[8]]) * 2 + first_byte(ORDINARY[4], 1) + first_byte(ORDINARY[1], 1)
    streams = []
    for _ in range(5_000):
        bent = bytearray(honest)
        for _ in range(rng.randint(0, 3)):
            bent[rng.randrange(len(bent))] = rng.randrange(256)
        streams.append((bytes(bent), rng.random() < 0.8))

    def outcome(data: bytes, *, v5: bool) -> tuple:
        stream = Stream(v5=v5)
        try:
            rows = stream.rows(data)
        except ProtocolError:
            return ("broken",)
        return rows, getattr(stream, "mids", []), stream.to_paho, stream.inflow.invalid_topics, stream.inflow.oversized

    in_bulk = [outcome(data, v5=v5) for data, v5 in streams]
    for name in ("scan", "scan_past_properties"):
        monkeypatch.setattr(client_inflow, name, lambda _data, position, *_rest, **_how: position)
    one_by_one = [outcome(data, v5=v5) for data, v5 in streams]
    assert in_bulk == one_by_one
    assert 0 < sum(found == ("broken",) for found in in_bulk) < 4_000


def test_bent_streams_raise_nothing_but_a_protocol_error(seed):
    """M18: 20,000 mutated streams; what is handed on has a topic that is one, and columns of one length."""
    rng = random.Random(seed)
    honest = b"".join(ORDINARY[:7]) + PINGRESP + publish_packet("t/a", b"two", 9, qos=2)
    for _ in range(20_000):
        bent = bytearray(honest)
        for _ in range(rng.randint(1, 4)):
            bent[rng.randrange(len(bent))] = rng.randrange(256)
        stream = Stream(v5=rng.random() < 0.8)
        cut = rng.randrange(len(bent))
        try:
            rows = stream.rows(bytes(bent[:cut]), bytes(bent[cut:]))
        except ProtocolError:
            continue
        assert all(topic and not set(topic) & {"+", "#", "\0"} for topic, _, _ in rows)

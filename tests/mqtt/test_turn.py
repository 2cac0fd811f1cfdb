"""The tight loop against the general decoder: it may take less, never something else."""

import random

import pytest

from gateway.errors import ProtocolError
from gateway.model import DUPLICATE
from gateway.mqtt.codec import decode
from gateway.mqtt.packets import V5, V311
from gateway.mqtt.properties import Property
from gateway.mqtt.turn import (
    MAX_KNOWN_TOPIC_BYTES,
    MAX_KNOWN_TOPICS,
    MAX_SPOKEN,
    Turn,
    learn,
    learn_properties,
    scan,
)
from gateway.mqtt.wire import Body, NeedMore, frame_at

MIB = 1 << 20


def known(*topics):
    found = {}
    for topic in topics:
        learn(found, topic)
    return found


def test_plain_messages_become_columns_in_order(wire):
    """Topic, flags, payload and packet id, each in its column."""
    data = (
        wire.publish("a", b"1")
        + wire.publish("b/c", b"2" * 200, qos=1, mid=258)
        + wire.publish("a", b"", qos=1, mid=7, dup=True)
        + wire.publish("a", b"4", retain=True)
    )
    turn, mids = Turn(), []
    assert scan(data, 0, MIB, known("a", "b/c"), turn, mids, v5=False) == len(data)
    assert turn.topics == ["a", "b/c", "a", "a"]
    assert turn.payloads == [b"1", b"2" * 200, b"", b"4"]
    assert turn.flags == [0, 1, 1 | DUPLICATE, 0]
    assert mids == [b"\1\2", b"\0\7"]
    assert turn.retained == [3], "RETAIN asks for a copy; the event itself is fresh"


def test_topics_are_shared_strings(wire):
    """One string per topic, however many messages: memory and comparison are cheap."""
    data = wire.publish("devices/a/climate") * 3
    turn = Turn()
    scan(data, 0, MIB, known("devices/a/climate"), turn, [], v5=False)
    assert turn.topics[0] is turn.topics[1] is turn.topics[2]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xc0\x00\x00\x00\x00\x00", "another packet"),
        (b"\x34\x06\x00\x01a\x00\x01x", "QoS 2"),
        (b"\x30\x03\x00\x01z", "unknown topic"),
        (b"\x30\x04\x00\x01a", "incomplete"),
        (b"\x30", "one byte"),
        (b"\x32\x05\x00\x01a\x00\x00", "packet id 0"),
        (b"\x32\x03\x00\x01a\x00\x01\x00", "packet id beyond the end"),
        (b"\x30\x01\x00\x01a\x00", "topic beyond the end"),
        (b"\x30\x00\x00\x01a", "no topic at all"),
        (b"\x30\x80\x80\x01" + bytes(16_384), "long"),
    ],
)
def test_it_stops_in_front_of_whatever_is_not_plain(data, why):
    """Judging is the codec's business."""
    turn, mids = Turn(), []
    assert scan(data, 0, MIB, known("a"), turn, mids, v5=False) == 0, why
    assert not turn.topics
    assert not mids


def test_it_stops_in_front_of_a_packet_that_is_too_large(wire):
    """The limit holds in the tight loop too, where it can be broken."""
    data = wire.publish("a", bytes(300))
    assert scan(data, 0, 300, known("a"), Turn(), [], v5=False) == 0
    assert scan(data, 0, len(data), known("a"), Turn(), [], v5=False) == len(data)


def test_strangers_fill_only_so_much_of_the_topic_cache():
    """Bounded in number and in length."""
    found = {}
    for number in range(MAX_KNOWN_TOPICS + 10):
        learn(found, f"t/{number}")
    assert len(found) <= MAX_KNOWN_TOPICS
    found.clear()
    learn(found, "x" * (MAX_KNOWN_TOPIC_BYTES + 1))
    assert not found


def _random_packet(rng, wire, version):
    v5 = version == V5
    qos = rng.choice((0, 0, 1, 1, 2))
    data = bytearray(
        wire.publish(
            rng.choice(["a", "b/c", "ü", "", "a/#"]),
            rng.randbytes(rng.choice((0, 1, 5, 130))),
            qos=qos,
            mid=rng.choice((0, 1, 65_535)),
            v5=v5,
            retain=rng.random() < 0.2,
            dup=bool(qos) and rng.random() < 0.2,
            properties=rng.choice(SPOKEN) if v5 and rng.random() < 0.4 else b"",
        )
    )
    if rng.random() < 0.3:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("version", [V311, V5])
def test_what_the_tight_loop_takes_the_general_decoder_takes_the_same_way(seed, wire, version):
    """Random packets, some of them damaged: no difference in what was understood."""
    rng = random.Random(seed)
    topics, heard = known("a", "b/c", "ü"), spoken(wire, *SPOKEN)
    taken = with_properties = 0
    for _ in range(20_000):
        data = _random_packet(rng, wire, version) + rng.randbytes(rng.randint(0, 3))
        turn, mids = Turn(), []
        stopped = scan(data, 0, MIB, topics, turn, mids, v5=version == V5, spoken=heard)
        position = 0
        for index, topic in enumerate(turn.topics):
            frame = frame_at(data, position, MIB)
            packet = decode(frame.first, Body(data, frame.start, frame.stop), version)
            assert (packet.topic, packet.payload) == (topic, turn.payloads[index])
            assert turn.flags[index] == packet.qos | (DUPLICATE if packet.dup else 0)
            assert packet.retain == (index in turn.retained)
            assert turn.properties.get(index, {}) == packet.properties
            with_properties += bool(packet.properties)
            if packet.qos:
                assert packet.mid == mids.pop(0)
            position = frame.stop
            taken += 1
        assert position == stopped
        if stopped < len(data):
            try:
                frame = frame_at(data, stopped, MIB)
                if not isinstance(frame, NeedMore):
                    decode(frame.first, Body(data, frame.start, frame.stop), version)
            except ProtocolError:
                pass
    assert taken > 4_000
    assert with_properties >= 500 * (version == V5)


SPOKEN = [b"\1\1", b"\x03\0\4json\x26\0\1k\0\1v", b"\2\0\0\0\x3c"]
"""Property lists: payload format, content type and a user property, message expiry."""


def spoken(wire, *lists):
    """What is known once messages with these properties have gone the general way."""
    found = {}
    for listed in lists:
        data = wire.publish("a", qos=1, v5=True, properties=listed)
        frame = frame_at(data, 0, MIB)
        packet = decode(frame.first, Body(data, frame.start, frame.stop), V5)
        learn_properties(found, data, frame.start, packet)
    return found


@pytest.mark.parametrize("qos", [0, 1])
def test_properties_that_were_heard_before_go_with_their_messages(wire, qos):
    """What a 5.0 device says of all its messages costs one look, and every message has its own."""
    data = b"".join(
        wire.publish("a", b"%d" % n, qos=qos, mid=n + 1, v5=True, properties=(*SPOKEN, b"")[n % 4]) for n in range(12)
    )
    turn, mids = Turn(), []
    assert scan(data, 0, MIB, known("a"), turn, mids, v5=True, spoken=spoken(wire, *SPOKEN)) == len(data)
    assert turn.payloads == [b"%d" % n for n in range(12)]
    assert len(mids) == 12 * qos
    assert turn.properties[0] == turn.properties[8] == {Property.PAYLOAD_FORMAT: 1}
    assert turn.properties[1] == {Property.CONTENT_TYPE: "json", Property.USER: [("k", "v")]}
    assert turn.properties[2] == {Property.MESSAGE_EXPIRY: 60}
    assert sorted(turn.properties) == [n for n in range(12) if n % 4 != 3]


def test_new_properties_aliases_and_long_lists_go_the_general_way(wire):
    """The quick way knows only what the codec has judged, and a topic alias is no property of a message alone."""
    found = spoken(wire, b"\1\1", b"\x23\0\1", b"\x03\0\xc8" + b"t" * 200)
    assert list(found) == [b"\1\1"]
    for listed in (b"\1\0", b"\x23\0\1", b"\x03\0\xc8" + b"t" * 200):
        turn = Turn()
        assert (
            scan(wire.publish("a", v5=True, properties=listed), 0, MIB, known("a"), turn, [], v5=True, spoken=found)
            == 0
        )
        assert not turn.properties


def test_a_list_that_reaches_beyond_its_packet_is_not_taken(wire):
    """Neither into the next packet nor beyond the end of what was read."""
    found = {b"\1\1": {Property.PAYLOAD_FORMAT: 1}}
    for data in (b"\x30\5\0\1a\2\1\1xx", b"\x30\5\0\1a\2\1", b"\x30\4\0\1a\2\1\1"):
        assert scan(data, 0, MIB, known("a"), Turn(), [], v5=True, spoken=found) == 0


def test_strangers_fill_only_so_much_of_the_memory_for_properties(wire):
    """Bounded in number and in length."""
    found = {}
    for number in range(MAX_SPOKEN + 10):
        found |= spoken(wire, b"\2" + number.to_bytes(4, "big")) if len(found) < MAX_SPOKEN else {}
    data = wire.publish("a", v5=True, properties=b"\1\1")
    packet = decode(data[0], Body(data, 2, len(data)), V5)
    learn_properties(found, data, 2, packet)
    assert len(found) == 1


def one_by_one(data, topics, *, v5):
    """What `scan` makes of packets that it is shown one at a time, so that it never sees a run."""
    turn, mids, position = Turn(), [], 0
    while position < len(data):
        frame = frame_at(data, position, MIB)
        if (
            isinstance(frame, NeedMore)
            or scan(data[: frame.stop], position, MIB, topics, turn, mids, v5=v5) == position
        ):
            break
        position = frame.stop
    return position, turn, mids


def same(first, second):
    """Whether two scans came to the same place with the same columns."""
    (at, one, mids), (also_at, other, others) = first, second
    columns = [(turn.topics, turn.flags, turn.payloads, turn.retained) for turn in (one, other)]
    return at == also_at and mids == others and columns[0] == columns[1]


@pytest.mark.parametrize("v5", [False, True])
@pytest.mark.parametrize("qos", [0, 1])
def test_a_run_on_one_topic_is_cut_into_the_packets_that_it_is_made_of(wire, qos, v5):
    """The usual load of a busy device: hundreds of packets in one read, of lengths about those of its numbers."""
    data = b"".join(wire.publish("d/climate", b'{"t": %d}' % n, qos=qos, mid=n, v5=v5) for n in range(995, 1_500))
    turn, mids = Turn(), []
    assert scan(data, 0, MIB, known("d/climate"), turn, mids, v5=v5) == len(data)
    assert turn.payloads == [b'{"t": %d}' % n for n in range(995, 1_500)]
    assert turn.topics == ["d/climate"] * 505
    assert turn.flags == [qos] * 505
    assert mids == [n.to_bytes(2, "big") for n in range(995, 1_500)][: 505 * qos]


@pytest.mark.parametrize("hostility", [0.0, 0.02, 0.3])
def test_a_run_is_never_read_otherwise_than_its_packets_one_by_one(seed, wire, hostility):
    """Topics within payloads, other packets between, lengths about 128, cut and bent bytes: no difference."""
    rng = random.Random(seed)
    runs = 0
    for _ in range(1_500):
        topic, v5, qos = rng.choice(["t", "a/b", "devices/d1/climate"]), rng.random() < 0.4, rng.choice([0, 1, 1])
        name = len(topic).to_bytes(2, "big") + topic.encode()
        nasty = [name, name * 3, b"\x32\5" + name, b"", bytes(1_100)]
        packets = []
        for mid in range(1, rng.randrange(20, 90)):
            is_odd = rng.random() < hostility
            packets.append(
                wire.publish(
                    rng.choice(["t", "u"]) if is_odd else topic,
                    rng.choice(nasty) if rng.random() < hostility else rng.randbytes(rng.randrange(90, 130)),
                    qos=rng.randrange(3) if is_odd else qos,
                    mid=0 if rng.random() < hostility / 4 else mid,
                    v5=v5,
                    retain=is_odd,
                    properties=b"\1\1" if is_odd and v5 else b"",
                )
            )
        data = bytearray(b"".join(packets)[: None if rng.random() < 0.5 else -rng.randrange(1, 60)])
        if rng.random() < hostility:
            data[rng.randrange(len(data))] = rng.choice([0, 1, 0x30, 0x32, 0x7F, 0x80, 0xFF])
        topics = known("t", "a/b", "devices/d1/climate", "u")
        turn, mids = Turn(), []
        at = scan(bytes(data), 0, MIB, topics, turn, mids, v5=v5)
        assert same((at, turn, mids), one_by_one(bytes(data), topics, v5=v5))
        runs += len(turn.topics) > 10
    assert runs > (50 if hostility == 0.3 else 300), "most of it must be what the quick way is made for"

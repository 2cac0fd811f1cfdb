"""Packets and bytes. Vectors are written out by hand from the specification, not by the encoder under test."""

import random

import pytest

from gateway.errors import ProtocolError
from gateway.mqtt.codec import (
    decode,
    encode_connack,
    encode_disconnect,
    encode_pubacks,
    encode_pubcomp,
    encode_publish,
    encode_pubrecs,
    encode_suback,
    encode_unsuback,
)
from gateway.mqtt.packets import V5, V311, Ack, Connect, Disconnect, Ping, Publish, Subscribe, Unsubscribe
from gateway.mqtt.properties import Property, encode_properties
from gateway.mqtt.wire import Body, NeedMore, encode_varint, frame_at

MIB = 1 << 20


def read(data: bytes, version=V311):
    frame = frame_at(data, 0, MIB)
    assert frame.stop == len(data), frame
    return decode(frame.first, Body(data, frame.start, frame.stop), version)


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


def test_a_connect_of_3_1_1_is_read_whole():
    """Will, user name and password come in the order of 3.1.3."""
    body = b"\0\4MQTT\4\xf6\0\x3c" + b"\0\3dev" + b"\0\1w" + b"\0\4gone" + b"\0\1u" + b"\0\2\xff\0"
    packet = read(b"\x10" + bytes([len(body)]) + body)
    assert isinstance(packet, Connect)
    assert packet[:6] == (V311, "dev", True, 60, "u", b"\xff\0")
    assert packet.will[:4] == ("w", b"gone", 2, True)


def test_a_connect_of_5_0_is_read_with_its_properties():
    """Properties of the connection and of the will are apart."""
    body = hexed("00044d51545405 06 0000 0a 11 00000e10 21 0014 26 000161 000162".replace("0a", "0f"))
    body += b"\0\0" + hexed("05 18 00000005") + b"\0\1w" + b"\0\0"
    packet = read(b"\x10" + bytes([len(body)]) + body)
    assert packet.properties == {
        Property.SESSION_EXPIRY: 3600,
        Property.RECEIVE_MAXIMUM: 20,
        Property.USER: [("a", "b")],
    }
    assert (packet.will.delay_s, packet.will.properties) == (5, {})


SERVER_READS = [
    # bytes, version, packet
    ("30 05 0001 61 6869", V311, Publish("a", b"hi", 0, False, False, b"", {})),
    ("3b 06 0001 61 0102 21", V311, Publish("a", b"!", 1, True, True, b"\1\2", {})),
    ("34 05 0001 61 0007", V311, Publish("a", b"", 2, False, False, b"\0\7", {})),
    ("32 06 0001 61 0001 00", V5, Publish("a", b"", 1, False, False, b"\0\1", {})),
    ("30 06 0000 03 230005", V5, Publish("", b"", 0, False, False, b"", {Property.TOPIC_ALIAS: 5})),
    ("40 02 0102", V311, Ack(258, 0)),
    ("40 02 0102", V5, Ack(258, 0)),
    ("40 03 0102 10", V5, Ack(258, 0x10)),
    ("40 07 0102 80 03 1f 0000", V5, Ack(258, 0x80)),
    ("62 02 0007", V311, Ack(7, 0)),
    ("82 06 0001 0001 61 01", V311, Subscribe(1, [("a", (1, False, False, 0, 0))])),
    ("82 09 0001 02 0b 07 0001 61 2d", V5, Subscribe(1, [("a", (1, True, True, 2, 7))])),
    ("a2 05 0001 0001 61", V311, Unsubscribe(1, ["a"])),
    ("a2 06 0001 00 0001 61", V5, Unsubscribe(1, ["a"])),
    ("c0 00", V311, Ping()),
    ("e0 00", V311, Disconnect(0, {})),
    ("e0 00", V5, Disconnect(0, {})),
    ("e0 01 04", V5, Disconnect(4, {})),
    ("e0 07 00 05 11 00000000", V5, Disconnect(0, {Property.SESSION_EXPIRY: 0})),
]


@pytest.mark.parametrize(("data", "version", "expected"), SERVER_READS)
def test_what_clients_send_is_read(data, version, expected):
    """One vector per shape of packet."""
    assert read(hexed(data), version) == expected


SERVER_WRITES = [
    (encode_connack(V311, 0, session_present=True, properties={}), "20 02 01 00"),
    (encode_connack(V311, 0x86, properties={}), "20 02 00 04"),
    (encode_connack(V311, 0x87, properties={}), "20 02 00 05"),
    (encode_connack(V311, 0x85, properties={}), "20 02 00 02"),
    (encode_connack(V311, 0x84, properties={}), "20 02 00 01"),
    (encode_connack(V311, 0x97, properties={}), "20 02 00 03"),
    (encode_connack(V5, 0x86, properties={}), "20 03 00 86 00"),
    (encode_connack(V5, 0, properties={Property.MAXIMUM_QOS: 1}), "20 05 00 00 02 24 01"),
    (encode_publish("a", b"hi", version=V311, qos=0, retain=False), "30 05 0001 61 6869"),
    (encode_publish("a", b"hi", version=V311, qos=1, retain=True, mid=258, dup=True), "3b 07 0001 61 0102 6869"),
    (encode_publish("a", b"", version=V5, qos=0, retain=False, content=b"\x01\x01"), "30 06 0001 61 02 0101"),
    (encode_pubacks([b"\0\1", b"\0\2"]), "40 02 0001 40 02 0002"),
    (encode_pubrecs([b"\0\1"]), "50 02 0001"),
    (encode_pubcomp(V311, 7, 0x92), "70 02 0007"),
    (encode_pubcomp(V5, 7, 0x92), "70 03 0007 92"),
    (encode_suback(V311, 7, [1, 0, 0x8F]), "90 05 0007 01 00 80"),
    (encode_suback(V5, 7, [1, 0x9E]), "90 05 0007 00 01 9e"),
    (encode_unsuback(V311, 7, [0]), "b0 02 0007"),
    (encode_unsuback(V5, 7, [0, 0x11]), "b0 05 0007 00 00 11"),
    (encode_disconnect(0x8B), "e0 01 8b"),
]


@pytest.mark.parametrize(("written", "expected"), SERVER_WRITES)
def test_what_the_server_sends_is_as_specified(written, expected):
    """One vector per packet and version."""
    assert written == hexed(expected)


MALFORMED = [
    # bytes, version, reason code
    ("10 06 00044d515454", V311, 0x81),  # CONNECT ends after the name
    ("10 0c 00044d515455 04 02 003c 0000", V311, 0x84),  # another protocol
    ("10 0c 00044d515454 03 02 003c 0000", V311, 0x84),  # level 3
    ("10 0e 00064d514973647 0 03 02 003c 0000".replace("7 0", "70"), V311, 0x84),  # MQTT 3.1
    ("10 0c 00044d515454 04 03 003c 0000", V311, 0x81),  # reserved connect flag [MQTT-3.1.2-3]
    ("10 0c 00044d515454 04 1e 003c 0000", V311, 0x81),  # will QoS 3
    ("10 0c 00044d515454 04 20 003c 0000", V311, 0x81),  # will retain without a will
    ("10 0c 00044d515454 04 42 003c 0000", V311, 0x81),  # password without user name
    ("10 0e 00044d515454 04 82 003c 0000 ffff", V311, 0x81),  # user name longer than the packet
    ("10 0d 00044d515454 04 02 003c 0000 00", V311, 0x81),  # a byte too many
    ("11 0c 00044d515454 04 02 003c 0000", V311, 0x81),  # reserved flags of CONNECT
    ("10 10 00044d515454 05 02 0000 03 210000 0000", V5, 0x82),  # Receive Maximum 0
    ("10 12 00044d515454 05 02 0000 05 2700000000 0000", V5, 0x82),  # Maximum Packet Size 0
    ("10 11 00044d515454 05 02 0000 04 17001700 0000", V5, 0x82),  # a property twice
    ("10 0f 00044d515454 05 02 0000 02 1702 0000", V5, 0x82),  # a flag that is 2
    ("10 0f 00044d515454 05 02 0000 02 2401 0000", V5, 0x82),  # Maximum QoS from a client
    ("10 0f 00044d515454 05 02 0000 02 7f01 0000", V5, 0x81),  # unknown property
    ("20 02 0000", V311, 0x82),  # CONNACK from a client
    ("36 07 0001 61 0001 6869", V311, 0x81),  # QoS 3 [MQTT-3.3.1-4]
    ("38 05 0001 61 6869", V311, 0x81),  # DUP at QoS 0 [MQTT-3.3.1-2]
    ("32 05 0001 61 0000", V311, 0x82),  # packet id 0 [MQTT-2.2.1-3]
    ("32 03 0001 61", V311, 0x81),  # no packet id
    ("30 04 0005 6161", V311, 0x81),  # topic longer than the packet
    ("30 02 0000", V311, 0x82),  # empty topic
    ("30 03 0000 00", V5, 0x82),  # empty topic, no alias
    ("30 05 0003 61 2f 23", V311, 0x90),  # `#` in a topic name [MQTT-3.3.2-2]
    ("30 03 0001 2b", V311, 0x90),  # `+`
    ("30 04 0002 c328", V311, 0x81),  # not UTF-8
    ("30 05 0003 eda080", V311, 0x81),  # surrogate [MQTT-1.5.4-1]
    ("30 03 0001 00", V311, 0x81),  # U+0000 [MQTT-1.5.4-2]
    ("30 06 0001 61 02 0b01", V5, 0x82),  # subscription id from a client [MQTT-3.3.4-6]
    ("30 08 0001 61 04 080001 2b", V5, 0x82),  # response topic with a wildcard [MQTT-3.3.2-14]
    ("30 05 0001 61 05 01", V5, 0x81),  # properties longer than the packet
    ("30 08 0001 61 8080808001", V5, 0x81),  # property length of five bytes
    ("30 05 0001 61 8000", V5, 0x81),  # property length not in its shortest form [MQTT-1.5.5-1]
    ("40 01 01", V311, 0x81),  # half a packet id
    ("40 02 0000", V311, 0x82),
    ("41 02 0001", V311, 0x81),  # reserved flags
    ("60 02 0001", V311, 0x81),  # PUBREL must have 0010 [MQTT-3.6.1-1]
    ("80 06 0001 0001 61 01", V311, 0x81),  # SUBSCRIBE must have 0010 [MQTT-3.8.1-1]
    ("82 02 0001", V311, 0x82),  # no filter [MQTT-3.8.3-2]
    ("82 06 0000 0001 61 01", V311, 0x82),
    ("82 06 0001 0001 61 03", V311, 0x81),  # QoS 3
    ("82 06 0001 0001 61 05", V311, 0x81),  # reserved bit in 3.1.1
    ("82 07 0001 00 0001 61 41", V5, 0x81),  # reserved bits in 5.0
    ("82 07 0001 00 0001 61 31", V5, 0x82),  # retain handling 3
    ("82 09 0001 02 0b00 0001 61 01", V5, 0x82),  # subscription id 0
    ("82 05 0001 0001 61", V311, 0x81),  # no options
    ("a2 02 0001", V311, 0x82),  # no filter [MQTT-3.10.3-2]
    ("c0 01 00", V311, 0x81),  # PINGREQ with a body
    ("e0 01 00", V311, 0x81),  # DISCONNECT with a body in 3.1.1
    ("e1 00", V311, 0x81),
    ("f0 00", V311, 0x82),  # AUTH in 3.1.1
    ("00 00", V5, 0x82),  # type 0 (2.1.2)
    ("d0 00", V311, 0x82),  # PINGRESP from a client
]


@pytest.mark.parametrize(("data", "version", "reason"), MALFORMED)
def test_malformed_packets_are_refused_with_their_reason(data, version, reason):
    """Strict where the specification is, and with the reason code that it names."""
    with pytest.raises(ProtocolError) as refused:
        read(hexed(data), version)
    assert refused.value.reason_code == reason, str(refused.value)


def test_a_frame_is_found_whole_or_the_missing_bytes_are_named():
    """Every prefix of a packet asks for more, and never for more than the packet has."""
    for size in (0, 1, 127, 128, 16_383, 16_384):
        data = b"\x30" + encode_varint(size) + bytes(size)
        assert frame_at(data, 0, MIB) == (0x30, len(data) - size, len(data))
        for cut in (1, 2, 3, len(data) - 1):
            if cut < len(data):
                found = frame_at(data[:cut], 0, MIB)
                assert isinstance(found, NeedMore)
                assert cut < found.wanted_bytes <= len(data)


def test_a_length_beyond_the_limit_is_refused_before_its_bytes_have_come():
    """A header of five bytes must not make anyone wait for 256 MiB."""
    assert isinstance(frame_at(b"\x30\xff\x07", 0, 1026), NeedMore)
    for header, limit in ((b"\x30\xff\x07", 1025), (b"\x30\xff\xff\xff\x7f", MIB)):
        with pytest.raises(ProtocolError) as refused:
            frame_at(header, 0, limit)
        assert refused.value.reason_code == 0x95
    with pytest.raises(ProtocolError):
        frame_at(b"\x30\xff\xff\xff\xff\x01", 0, MIB)


def test_a_padded_remaining_length_is_understood():
    """Small devices reserve two bytes for the length and patch them in."""
    assert frame_at(b"\x30\x83\x00\x00\x01a", 0, MIB) == (0x30, 3, 6)


def test_every_property_survives_the_way_through_bytes():
    """What is passed on to subscribers is what came in, order of user properties included."""
    properties = {
        Property.PAYLOAD_FORMAT: 1,
        Property.CONTENT_TYPE: "application/json",
        Property.RESPONSE_TOPIC: "answers/here",
        Property.CORRELATION_DATA: b"\0\1\2",
        Property.USER: [("b", "1"), ("a", "2"), ("b", "3")],
    }
    encoded = b"\0\1a" + encode_properties(properties)
    found = read(b"\x30" + encode_varint(len(encoded)) + encoded, V5)
    assert found.properties == properties


def test_no_mutation_of_a_packet_raises_anything_but_a_protocol_error(seed):
    """M18: whatever strangers send, the decoder has exactly one kind of complaint."""
    rng = random.Random(seed)
    vectors = [hexed(data) for data, _, _ in SERVER_READS] + [hexed(data) for data, _, _ in MALFORMED]
    vectors.append(read_me_whole())
    reasons = []
    for _ in range(100_000):
        data = bytearray(rng.choice(vectors))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 2:
                data.insert(at, rng.randrange(256))
            elif len(data) > 1:
                del data[at]
        raw = bytes(data)
        try:
            frame = frame_at(raw, 0, MIB)
            if not isinstance(frame, NeedMore):
                decode(frame.first, Body(raw, frame.start, frame.stop), rng.choice((V311, V5)))
        except ProtocolError as error:
            reasons.append(error.reason_code)
    assert len(reasons) > 10_000
    assert all(0x80 <= reason <= 0xFF for reason in reasons)


def read_me_whole() -> bytes:
    """A CONNECT with everything in it."""
    body = hexed("00044d51545405 f6 003c 05 1100000e10") + b"\0\3dev" + b"\5\x18\0\0\0\5" + b"\0\1w\0\1p\0\1u\0\1p"
    return b"\x10" + bytes([len(body)]) + body

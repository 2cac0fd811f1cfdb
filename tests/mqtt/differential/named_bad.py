"""Packets that are not as they should be, each in a conversation of its own."""

from __future__ import annotations

from collections.abc import Callable

from tests.mqtt.conftest import connect, packet, publish, text
from tests.mqtt.differential.pen import Pen, Steps, raw
from tests.mqtt.differential.scripts import Step


def malformed(data: bytes) -> Callable[[Pen], Steps]:
    """A packet that closes a connection, whose will says so to the other client."""

    def steps(pen: Pen) -> Steps:
        hello = pen.hello("a", will=("gone", b"1"), will_flags=0x08)
        return [pen.hello("b"), pen.subscribes("b", ("#", 1)), hello, raw("a", data), pen.says("b", "t", b"2")]

    return steps


def never_connected(data: bytes) -> Callable[[Pen], Steps]:
    """A first packet that is no CONNECT, or not a good one."""
    return lambda _: [Step("a", data, opens=True)]


BAD = {
    "PUBLISH at QoS 3": b"\x36\6\0\1t\0\1x",
    "PUBLISH with DUP at QoS 0": b"\x38\5\0\1t\0x",
    "PUBLISH with packet id 0": publish("t", qos=1, mid=0),
    "PUBLISH to a wildcard": publish("t/+"),
    "PUBLISH to nothing": publish(""),
    "PUBLISH to U+0000": publish("t\0"),
    "PUBLISH to a character that is none": publish("\ufdd0"),
    "PUBLISH to what is not UTF-8": packet(0x30, text(b"\xff") + b"\0x"),
    "PUBLISH to a surrogate": packet(0x30, text(b"\xed\xa0\x80") + b"\0x"),
    "PUBLISH that ends too early": packet(0x32, b"\0\1t\0"),
    "PUBACK with flags": b"\x42\2\0\1",
    "PUBACK without packet id": b"\x40\1\0",
    "PUBREC with flags": b"\x51\2\0\1",
    "PUBREL without its flags": b"\x60\2\0\1",
    "PUBREL without packet id": b"\x62\0",
    "PUBCOMP with flags": b"\x72\2\0\1",
    "SUBSCRIBE without its flags": packet(0x80, b"\0\1\0\0\1t\0"),
    "UNSUBSCRIBE without its flags": packet(0xA0, b"\0\1\0\0\1t"),
    "PINGREQ with content": b"\xc0\1x",
    "PINGREQ with flags": b"\xc1\0",
    "DISCONNECT with flags": b"\xe1\0",
    "a second CONNECT": connect("a"),
    "CONNACK from a client": b"\x20\2\0\0",
    "SUBACK from a client": b"\x90\4\0\1\0\0",
    "UNSUBACK from a client": b"\xb0\2\0\1",
    "PINGRESP from a client": b"\xd0\0",
    "type 0": b"\0\0",
}
BAD_FIRST = {
    "PINGREQ before CONNECT": b"\xc0\0",
    "another protocol": packet(0x10, text("MQTX") + b"\4\2\0\x3c" + text("a")),
    "MQTT 3.1": packet(0x10, text("MQIsdp") + b"\3\2\0\x3c" + text("a")),
    "level 6": packet(0x10, text("MQTT") + b"\6\2\0\x3c\0" + text("a")),
    "level 0x84": packet(0x10, text("MQTT") + b"\x84\2\0\x3c" + text("a")),
    "reserved connect flag": packet(0x10, text("MQTT") + b"\4\3\0\x3c" + text("a")),
    "will at QoS 3": packet(0x10, text("MQTT") + b"\4\x1e\0\x3c" + text("a") + text("t") + text("x")),
    "will flags without will": packet(0x10, text("MQTT") + b"\4\x22\0\x3c" + text("a")),
    "a password without a user name": packet(0x10, text("MQTT") + b"\4\x42\0\x3c" + text("a") + text("x")),
    "no client id and a session to be kept": connect("", clean=False),
    "no client id, and a will on nothing": connect("", clean=False, will=("", b"x")),
    "a client id with a control character": connect("a\1"),
    "CONNECT that is too long": packet(0x10, connect("a")[2:] + b"x"),
    "CONNECT that is too short": packet(0x10, connect("abc")[2:-1]),
    "enhanced authentication": connect("a", v5=True, properties=b"\x15" + text("SCRAM")),
    "Receive Maximum 0": connect("a", v5=True, properties=b"\x21\0\0"),
    "Maximum Packet Size 0": connect("a", v5=True, properties=b"\x27\0\0\0\0"),
    "an unknown property": connect("a", v5=True, properties=b"\x7f\0"),
    "a property that has no place in CONNECT": connect("a", v5=True, properties=b"\x23\0\1"),
    "a property that stands twice": connect("a", v5=True, properties=b"\x21\0\1\x21\0\1"),
    "an own client id": connect("", v5=True),
}
BAD_V5 = {
    "shared and no local": packet(0x82, b"\0\1\0" + text("$share/g/t") + b"\5"),
    "retain handling 3": packet(0x82, b"\0\1\0" + text("t") + b"\x30"),
    "reserved options": packet(0x82, b"\0\1\0" + text("t") + b"\x40"),
    "QoS 3": packet(0x82, b"\0\1\0" + text("t") + b"\3"),
    "no filter": packet(0x82, b"\0\1\0"),
    "subscribe to a bad filter": packet(0x82, b"\0\1\0" + text("t") + b"\0" + text("t/#/a") + b"\0"),
    "unsubscribe nothing": packet(0xA2, b"\0\1\0"),
    "unsubscribe a bad filter": packet(0xA2, b"\0\1\0" + text("t#")),
    "subscribe with packet id 0": packet(0x82, b"\0\0\0" + text("t") + b"\0"),
    "AUTH": b"\xf0\0",
    "AUTH with flags": b"\xf1\0",
    "payload format 2": publish("t", v5=True, properties=b"\x01\2"),
    "response topic with a wildcard": publish("t", v5=True, properties=b"\x08" + text("a/+")),
    "an identifier from a client": publish("t", v5=True, properties=b"\x0b\1"),
    "an alias that was never defined": publish("", v5=True, properties=b"\x23\0\3"),
    "properties longer than the packet": packet(0x30, text("t") + b"\x20x"),
    "a DISCONNECT with properties cut short": b"\xe0\3\0\5\x11",
    "a PUBACK with an unknown property": packet(0x40, b"\0\1\0\2\x7f\0"),
}
BAD_V311 = {
    "AUTH in 3.1.1": b"\xf0\0",
    "options of 5.0 in 3.1.1": packet(0x82, b"\0\1" + text("t") + b"\4"),
    "no filter in 3.1.1": packet(0x82, b"\0\1"),
    "a bad filter in 3.1.1": packet(0x82, b"\0\1" + text("t") + b"\0" + text("#a") + b"\0"),
    "a DISCONNECT with content in 3.1.1": b"\xe0\1\0",
    "a PUBREL with content in 3.1.1": b"\x62\3\0\1\0",
}

"""Conversations written by hand, each about one thing that only 5.0 has."""

from __future__ import annotations

from tests.mqtt.conftest import connect, packet, text
from tests.mqtt.differential.pen import Pen, Steps, drops, raw
from tests.mqtt.differential.scripts import Step


def retain_handling(pen: Pen) -> Steps:
    steps = [pen.hello("a"), pen.says("a", "t", b"1", retain=True)]
    steps += [pen.subscribes("a", ("t", how << 4)) for how in (2, 0, 1, 2, 0)]
    return [*steps, pen.leaves("a", "t"), *[pen.subscribes("a", ("t", how << 4)) for how in (1, 1)]]


def retain_as_published(pen: Pen) -> Steps:
    return [
        pen.hello("a"),
        pen.hello("b"),
        pen.subscribes("a", ("t", 1)),
        pen.subscribes("b", ("t", 0x09)),
        pen.says("a", "t", b"1", retain=True),
        pen.says("a", "t", b"2"),
    ]


def no_local(pen: Pen) -> Steps:
    return [
        pen.hello("a"),
        pen.hello("b"),
        pen.subscribes("a", ("t/#", 0x06), properties=b"\x0b\1"),
        pen.says("a", "t/a", b"1", qos=1),
        pen.says("b", "t/a", b"2", qos=1),
        pen.subscribes("a", ("+/a", 0), properties=b"\x0b\2"),
        pen.says("a", "t/a", b"3", qos=2),
        pen.says("b", "t/a", b"4", qos=2),
    ]


def own_will_and_no_local(pen: Pen) -> Steps:
    hello = pen.hello("a", kept=True, will=("gone", b"1"), will_flags=0x08)
    return [hello, pen.subscribes("a", ("gone", 0x05)), drops("a"), pen.hello("a", kept=True)]


def made_anew(pen: Pen) -> Steps:
    return [
        pen.hello("a"),
        pen.subscribes("a", ("t", 0x06), properties=b"\x0b\1"),
        pen.subscribes("a", ("t", 0x09), properties=b"\x0b\2"),
        pen.says("a", "t", b"1", qos=1, retain=True),
    ]


def identifiers(pen: Pen) -> Steps:
    return [
        pen.hello("a"),
        pen.says("a", "t/a", b"kept", retain=True),
        pen.subscribes("a", ("t/#", 1), properties=b"\x0b\1"),
        pen.says("a", "t/a", b"1", qos=1),
        pen.subscribes("a", ("t/a", 1), properties=b"\x0b\xff\xff\xff\x7f"),
        pen.says("a", "t/a", b"2", qos=1),
        pen.subscribes("a", ("t/a", 1)),
        pen.says("a", "t/a", b"3", qos=1),
        pen.subscribes("a", ("u", 1), properties=b"\x0b\0"),
    ]


def aliases(pen: Pen) -> Steps:
    return [
        pen.hello("b", properties=b"\x22\0\2"),
        pen.subscribes("b", ("#", 1)),
        pen.hello("a"),
        pen.says("a", "first/topic", b"1", properties=b"\x23\0\1"),
        pen.says("a", "", b"2", properties=b"\x23\0\1"),
        pen.says("a", "second/topic", b"3", qos=1, properties=b"\x23\0\x20"),
        pen.says("a", "", b"4", qos=2, properties=b"\x23\0\x20"),
        pen.says("a", "third/topic", b"5", properties=b"\x23\0\1"),
        pen.says("a", "", b"6", properties=b"\x23\0\1"),
        pen.says("a", "first/topic", b"7"),
        pen.hello("a"),
        pen.says("a", "", b"8", properties=b"\x23\0\1"),
        pen.hello("a"),
        pen.says("a", "t", b"9", properties=b"\x23\0\0"),
        pen.hello("a"),
        pen.says("a", "t", b"10", properties=b"\x23\0\x21"),
    ]


def receive_maximum(pen: Pen) -> Steps:
    steps = [
        pen.hello("a", kept=True, acks=False, properties=b"\x21\0\2"),
        pen.subscribes("a", ("t", 2)),
        pen.hello("b"),
    ]
    steps += [pen.says("b", "t", b"%d" % at, qos=1 + at % 2, mid=at + 1) for at in range(6)]
    steps += [Step("a", late=0)] * 4
    steps += [pen.says("b", "t", b"at 0", qos=0)]
    return [*steps, drops("a"), pen.hello("a", kept=True, properties=b"\x21\0\1")]


def maximum_packet_size(pen: Pen) -> Steps:
    steps = [pen.hello("a", properties=b"\x27\0\0\0\x64"), pen.subscribes("a", ("t", 1)), pen.hello("b")]
    for at, size in enumerate((10, 90, 92, 94, 96, 200)):
        steps.append(pen.says("b", "t", b"%d" % at + b"x" * size, qos=at % 2))
    return [*steps, pen.says("b", "t", b"after", qos=1)]


def place_of_a_large_message(pen: Pen) -> Steps:
    hello = pen.hello("a", properties=b"\x27\0\0\0\x64\x21\0\1")
    steps = [hello, pen.subscribes("a", ("t", 1)), pen.hello("b"), pen.says("b", "t", b"x" * 200, qos=1)]
    return [*steps, pen.says("b", "t", b"small", qos=1)]


def tight(pen: Pen) -> Steps:
    return [Step("a", connect("", v5=True, properties=b"\x27\0\0\0\x32"), opens=True)]


def tighter(pen: Pen) -> Steps:
    return [Step("a", connect("", v5=True, properties=b"\x27\0\0\0\x14"), opens=True)]


def many_in_a_tight_client(pen: Pen) -> Steps:
    """A SUBACK that the client does not take."""
    hello = pen.hello("a", properties=b"\x27\0\0\0\x1e")
    return [hello, pen.subscribes("a", *[(f"t{at}", 0) for at in range(40)]), pen.says("a", "t1", b"1")]


def what_is_passed_on(pen: Pen) -> Steps:
    listed = (
        b"\x01\1" + b"\x02\0\0\3\xe8" + b"\x03" + text("text/plain") + b"\x08" + text("re/ply") + b"\x09" + text("c")
    )
    listed += b"\x26" + text("k") + text("1") + b"\x26" + text("a") + text("2") + b"\x26" + text("k") + text("1")
    return [
        pen.hello("a", will=("gone", b"will"), will_properties=listed, will_flags=0x20),
        pen.hello("b"),
        pen.subscribes("b", ("#", 2)),
        pen.says("a", "t", b"1", qos=2, retain=True, properties=listed),
        drops("a"),
        pen.hello("c"),
        pen.subscribes("c", ("#", 1)),
        Pen(v5=False).hello("d"),
        Pen(v5=False).subscribes("d", ("#", 1)),
    ]


def will_with_delay(pen: Pen) -> Steps:
    """Not sent if the client comes back in time; sent when the session ends."""
    delay = b"\x18\0\0\x03\xe8"
    return [
        pen.hello("b"),
        pen.subscribes("b", ("#", 1)),
        pen.hello("a", kept=True, will=("gone", b"1"), will_properties=delay),
        drops("a"),
        pen.hello("a", kept=True),
        pen.hello("a", kept=True, will=("gone", b"2"), will_properties=delay),
        drops("a"),
        pen.hello("a"),
        pen.hello("a", will=("gone", b"3"), will_properties=delay),
        drops("a"),
    ]


def goodbyes(pen: Pen) -> Steps:
    steps = [pen.hello("b"), pen.subscribes("b", ("#", 1))]
    for at, data in enumerate((b"\xe0\0", b"\xe0\1\0", b"\xe0\1\4", b"\xe0\2\0\0", b"\xe0\2\4\0")):
        steps += [pen.hello("a", will=("gone", b"%d" % at)), raw("a", data)]
    return steps


def goodbye_with_a_trouble(pen: Pen) -> Steps:
    steps = [pen.hello("b"), pen.subscribes("b", ("#", 1))]
    return [*steps, pen.hello("a", will=("gone", b"1")), raw("a", b"\xe0\1\x80")]


def expiry_at_the_end(pen: Pen) -> Steps:
    """DISCONNECT may change when a session ends, but not begin one."""
    return [
        pen.hello("a", kept=True),
        raw("a", packet(0xE0, b"\0\5\x11\0\0\0\0")),
        pen.hello("a", kept=True),
        raw("a", packet(0xE0, b"\0\5\x11\0\0\0\x3c")),
        pen.hello("a", kept=True),
        pen.hello("a"),
        raw("a", packet(0xE0, b"\0\5\x11\0\0\0\x3c")),
    ]


def session_after_a_second_connect(pen: Pen) -> Steps:
    return [pen.hello("a", kept=True), raw("a", connect("a", v5=True)), pen.hello("a", kept=True)]


def will_after_a_second_connect(pen: Pen) -> Steps:
    steps = [pen.hello("b"), pen.subscribes("b", ("#", 1)), pen.hello("a", kept=True, will=("gone", b"1"))]
    return [*steps, raw("a", connect("a", v5=True))]


def half_a_subscribe(pen: Pen) -> Steps:
    steps = [pen.hello("a", kept=True), raw("a", packet(0x82, b"\0\1\0" + text("t") + b"\1" + text("u")))]
    return [*steps, pen.hello("b"), pen.says("b", "t", b"1", qos=1), pen.hello("a", kept=True)]


def versions_in_one_session(pen: Pen) -> Steps:
    """A session goes on whichever version the client speaks."""
    old = Pen(v5=False)
    return [
        pen.hello("a", kept=True),
        pen.subscribes("a", ("t", 0x09), properties=b"\x0b\5"),
        raw("a", b"\xe0\0"),
        pen.hello("b"),
        pen.says("b", "t", b"1", qos=1, retain=True, properties=b"\x03" + text("text/plain")),
        old.hello("a", kept=True),
        pen.says("b", "t", b"2", qos=1, mid=2),
        raw("a", b"\xe0\0"),
        pen.hello("a", kept=True),
        pen.says("b", "t", b"3", qos=1, mid=3),
    ]


def requests(pen: Pen) -> Steps:
    """Request and response, with the problem and response information asked for."""
    ask = b"\x08" + text("answers/a") + b"\x09" + text("7")
    return [
        pen.hello("a", properties=b"\x19\1\x17\1"),
        pen.subscribes("a", ("answers/a", 1)),
        pen.hello("b", properties=b"\x17\0"),
        pen.subscribes("b", ("ask", 1)),
        pen.says("a", "ask", b"?", qos=1, properties=ask),
        pen.says("b", "answers/a", b"!", qos=1, properties=b"\x09" + text("7")),
    ]


V5 = {
    one.__name__: one
    for one in (
        retain_handling, retain_as_published, no_local, own_will_and_no_local, made_anew, identifiers, aliases,
        receive_maximum, maximum_packet_size, place_of_a_large_message, tight, tighter,
        many_in_a_tight_client, what_is_passed_on,
        will_with_delay, goodbyes, goodbye_with_a_trouble, expiry_at_the_end, session_after_a_second_connect,
        will_after_a_second_connect, half_a_subscribe, versions_in_one_session, requests,
    )
}  # fmt: skip

"""Conversations written by hand, each about one thing, in 3.1.1, in 5.0, or in both."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.mqtt.differential.named_bad import BAD, BAD_FIRST, BAD_V5, BAD_V311, malformed, never_connected
from tests.mqtt.differential.named_v5 import V5
from tests.mqtt.differential.pen import Pen, Steps, answers, drops, raw
from tests.mqtt.differential.scripts import Script, Step


def qos_in_all_pairs(pen: Pen) -> Steps:
    steps = [pen.hello("a"), pen.hello("b")]
    for wanted in range(3):
        steps.append(pen.subscribes("b", ("t", wanted)))
        steps += [
            pen.says("a", "t", b"%d to %d" % (sent, wanted), qos=sent, mid=10 * wanted + sent) for sent in range(3)
        ]
    return steps


def wildcards(pen: Pen) -> Steps:
    filters = ["#", "+", "+/+", "/+", "t/#", "t/+/b", "+/b/#", "/", "t//b", "\u00e9/+"]
    topics = ["t", "/t", "t/a", "t/a/b", "t//b", "/", "//", "u/b", "u/b/c", "\u00e9/\U0001f600"]
    steps = [pen.hello("a"), pen.hello("b")]
    for at, one in enumerate(filters):
        steps.append(pen.subscribes("b", (one, 1)))
        steps += [pen.says("a", topic, b"%d %d" % (at, place)) for place, topic in enumerate(topics)]
        steps.append(pen.leaves("b", one))
    return steps


def retained(pen: Pen) -> Steps:
    return [
        pen.hello("a"),
        pen.says("a", "t/a", b"1", retain=True),
        pen.says("a", "t/b", b"2", retain=True, qos=1),
        pen.says("a", "u", b"3", retain=True, qos=2),
        pen.hello("b"),
        pen.subscribes("b", ("t/+", 2)),
        pen.subscribes("b", ("#", 0)),
        pen.subscribes("b", ("#", 1)),
        pen.says("a", "t/a", b"4", retain=True, qos=2, mid=5),
        pen.says("a", "t/b", b"", retain=True),
        pen.says("a", "never", b"", retain=True),
        pen.subscribes("b", ("t/#", 1)),
        pen.subscribes("b", ("+/+", 1), ("u", 2)),
    ]


def will(pen: Pen) -> Steps:
    steps = [pen.hello("b"), pen.subscribes("b", ("#", 2))]
    for qos in range(3):
        steps += [pen.hello("a", will=("gone", b"%d" % qos), will_flags=qos << 3), drops("a")]
        steps += [pen.hello("a", will=("gone", b"never %d" % qos), will_flags=qos << 3), raw("a", b"\xe0\0")]
    steps += [pen.hello("a", will=("gone", b"kept"), will_flags=0x28), drops("a")]
    steps += [pen.hello("c"), pen.subscribes("c", ("gone", 1))]
    steps += [pen.hello("a", will=("gone", b"broken"), will_flags=0x08), raw("a", b"\x36\6\0\1t\0\1x")]
    return steps


def take_over(pen: Pen) -> Steps:
    return [
        pen.hello("b"),
        pen.subscribes("b", ("#", 1)),
        pen.hello("a", will=("gone", b"1"), will_flags=0x08),
        pen.hello("a", will=("gone", b"2"), will_flags=0x08),
        pen.subscribes("a", ("t", 1)),
        pen.hello("a", kept=True),
        pen.says("b", "t", b"3", qos=1),
        pen.subscribes("a", ("t", 1)),
        pen.hello("a", kept=True),
        pen.says("b", "t", b"4", qos=1),
    ]


def will_at_a_take_over(pen: Pen) -> Steps:
    return [
        pen.hello("b"),
        pen.subscribes("b", ("#", 1)),
        pen.hello("a", kept=True, will=("gone", b"1"), will_flags=0x08),
        pen.hello("a", kept=True),
    ]


def own_will_at_a_take_over(pen: Pen) -> Steps:
    return [
        pen.hello("a", will=("gone", b"1"), will_flags=0x08),
        pen.subscribes("a", ("gone", 0)),
        pen.hello("a", kept=True),
        pen.says("a", "gone", b"2"),
    ]


def session_resumed(pen: Pen) -> Steps:
    """What came while the client was away, in order; QoS 0 is not kept."""
    return [
        pen.hello("a", kept=True),
        pen.subscribes("a", ("t/#", 2)),
        raw("a", b"\xe0\0"),
        pen.hello("b"),
        *[pen.says("b", "t/a", b"%d" % at, qos=at % 3, mid=at + 1) for at in range(9)],
        pen.hello("a", kept=True),
        pen.says("b", "t/a", b"now", qos=1, mid=20),
        raw("a", b"\xe0\0"),
        pen.hello("a"),
        pen.says("b", "t/a", b"forgotten", qos=1, mid=21),
    ]


def sent_again(pen: Pen) -> Steps:
    """What was not acknowledged, with DUP; after PUBREC only PUBREL."""
    return [
        pen.hello("a", kept=True, acks=False),
        pen.subscribes("a", ("t", 2)),
        pen.hello("b"),
        pen.says("b", "t", b"1", qos=1),
        pen.says("b", "t", b"2", qos=2, mid=2),
        pen.says("b", "t", b"3", qos=2, mid=3),
        Step("a", late=2),  # PUBREC for the last
        drops("a"),
        pen.hello("a", kept=True, acks=False),
        Step("a", late=0),
        drops("a"),
        pen.hello("a", kept=True),
        pen.says("b", "t", b"4", qos=1, mid=4),
    ]


def twice(pen: Pen) -> Steps:
    """A QoS 1 message that is repeated is delivered again, a QoS 2 message is not."""
    return [
        pen.hello("a", releases=False),
        pen.hello("b"),
        pen.subscribes("b", ("#", 2)),
        pen.says("a", "t", b"1", qos=1, mid=7),
        pen.says("a", "t", b"1", qos=1, mid=7, dup=True),
        pen.hello("a"),
        pen.says("a", "t", b"2", qos=2, mid=7),
        pen.says("a", "t", b"2", qos=2, mid=7, dup=True),
        answers("a", 0x62, 7),
        answers("a", 0x62, 7),
    ]


def released_by_hand(pen: Pen) -> Steps:
    return [
        pen.hello("a", releases=False),
        pen.hello("b"),
        pen.subscribes("b", ("t", 2)),
        pen.says("a", "t", b"2", qos=2, mid=7),
    ]


def packet_id_not_released(pen: Pen) -> Steps:
    """A new message under a packet id that still stands for another one; nobody listened to the first."""
    return [
        pen.hello("a", kept=True, releases=False),
        pen.says("a", "t", b"1", qos=2, mid=1),
        pen.hello("a", kept=True),
        pen.subscribes("a", ("t", 0)),
        pen.says("a", "t", b"2", qos=2, mid=1),
    ]


def unknown_ids(pen: Pen) -> Steps:
    rests = [b"", b"\0", b"\0\0", b"\x80"] if pen.v5 else [b""]
    return [pen.hello("a"), *[answers("a", first, 77, rest) for first in (0x40, 0x50, 0x62, 0x70) for rest in rests]]


def unsubscribed(pen: Pen) -> Steps:
    return [
        pen.hello("a"),
        pen.subscribes("a", ("t", 1), ("t/+", 2), ("u", 0)),
        pen.leaves("a", "t", "never", "t/+", "$never/#"),
        *[pen.says("a", topic, topic.encode(), qos=1) for topic in ("t", "t/a", "u")],
        pen.leaves("a", "u", "u"),
        pen.says("a", "u", b"2", qos=1),
    ]


def overlapping(pen: Pen) -> Steps:
    return [
        pen.hello("a"),
        pen.subscribes("a", ("t/#", 0)),
        pen.subscribes("a", ("t/+", 2), ("+/a", 1)),
        pen.hello("b"),
        *[pen.says("b", "t/a", b"%d" % qos, qos=qos, mid=qos + 1) for qos in range(3)],
    ]


def shared(pen: Pen) -> Steps:
    """One member of a group after the other; with a subscription of its own a message comes twice."""
    return [
        pen.hello("a"),
        pen.hello("b"),
        pen.hello("c"),
        pen.subscribes("a", ("$share/g/t/#", 1)),
        *[pen.says("c", topic, b"1 " + topic.encode(), qos=1) for topic in ("t", "t/a", "u")],
        pen.subscribes("a", ("t/a", 0)),
        pen.says("c", "t/a", b"2", qos=1),
        pen.subscribes("b", ("$share/h/t/a", 2)),
        pen.says("c", "t/a", b"3", qos=2),
        pen.leaves("b", "$share/h/t/a"),
        pen.leaves("a", "$share/g/t/#", "$share/g/t/#"),
        pen.says("c", "t/a", b"4", qos=1),
    ]


def shared_by_turns(pen: Pen) -> Steps:
    members = [pen.hello("a"), pen.hello("b"), *[pen.subscribes(one, ("$share/g/t", 1)) for one in "ab"]]
    return [*members, drops("b"), *[pen.says("a", "t", b"%d" % at, qos=1) for at in range(5)]]


def shared_and_retained(pen: Pen) -> Steps:
    return [pen.hello("a"), pen.says("a", "t/a", b"1", retain=True, qos=2), pen.subscribes("a", ("$share/g/t/#", 2))]


def a_share_that_is_none(pen: Pen) -> Steps:
    return [pen.hello("a"), pen.subscribes("a", ("t", 1), ("$share//t", 1), ("$share/g/", 1), ("$share/g", 1))]


def a_group_that_went_away(pen: Pen) -> Steps:
    """More members than one, and messages that differ by member: which of them is each broker's choice."""
    steps = [pen.hello("a"), pen.hello("b", kept=True), pen.hello("c"), pen.subscribes("a", ("$share/g/t", 1))]
    steps += [pen.subscribes("b", ("$share/g/t", 1)), raw("b", b"\xe0\0")]
    return steps + [pen.says("c", "t", b"%d" % at, qos=1) for at in range(4)]


def dollar(pen: Pen) -> Steps:
    """What begins with `$` is not seen by wildcards."""
    return [
        pen.hello("a"),
        pen.subscribes("a", ("#", 1), ("+/t", 1)),
        pen.says("a", "$x/t", b"1", qos=1),
        pen.subscribes("a", ("$x/#", 1)),
        pen.says("a", "$x/t", b"2", qos=1),
    ]


def sys_topics(pen: Pen) -> Steps:
    subscribed = [pen.hello("a"), pen.subscribes("a", ("$SYS/t", 1))]
    return [*subscribed, pen.hello("b"), pen.says("b", "$SYS/t", b"1", qos=1), pen.says("a", "$SYS/t", b"2", qos=2)]


BOTH: dict[str, Callable[[Pen], Steps]] = {
    one.__name__: one
    for one in (
        qos_in_all_pairs, wildcards, retained, will, take_over, will_at_a_take_over, own_will_at_a_take_over,
        session_resumed, sent_again, twice, released_by_hand, packet_id_not_released, unknown_ids, unsubscribed,
        overlapping, shared, shared_by_turns, shared_and_retained, a_share_that_is_none, a_group_that_went_away, dollar,
        sys_topics,
    )
}  # fmt: skip


def scripts() -> Iterator[Script]:
    """All of them."""
    both = BOTH | {name: malformed(data) for name, data in BAD.items()}
    for version, pen, rows in (
        ("3.1.1", Pen(v5=False), both | {name: malformed(data) for name, data in BAD_V311.items()}),
        ("5.0", Pen(v5=True), both | V5 | {name: malformed(data) for name, data in BAD_V5.items()}),
    ):
        for name, write in rows.items():
            yield _script(f"{name}, {version}", write(pen))
    for name, data in BAD_FIRST.items():
        yield _script(name, never_connected(data)(Pen(v5=True)))


def _script(name: str, steps: Steps) -> Script:
    return Script(name, tuple(dict.fromkeys(step.client for step in steps)), tuple(steps))

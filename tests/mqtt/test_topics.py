"""Topic names and filters, with the specification's own cases (4.7)."""

import pytest

from gateway.mqtt.topics import compile_filter, filter_problem, topic_problem

MATCHES = [
    # filter, topic, whether it matches
    ("sport/tennis/player1/#", "sport/tennis/player1", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
    ("sport/#", "sport", True),
    ("#", "anything/at/all", True),
    ("sport/tennis/+", "sport/tennis/player1", True),
    ("sport/tennis/+", "sport/tennis/player1/ranking", False),
    ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    ("#", "$SYS/broker", False),
    ("+/monitor/Clients", "$SYS/monitor/Clients", False),
    ("$SYS/#", "$SYS/monitor/Clients", True),
    ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
    ("{any}/x", "$SYS/x", False),
    ("Accounts", "ACCOUNTS", False),
    ("a/b", "a/b/", False),
    ("a//b", "a//b", True),
    ("a/+/b", "a//b", True),
    ("a.c", "abc", False),
    ("a/[b]", "a/b", False),
    ("a/+", "a/line\nbreak", True),
]


@pytest.mark.parametrize(("mqtt_filter", "topic", "expected"), MATCHES)
def test_a_filter_matches_as_the_specification_says(mqtt_filter, topic, expected):
    """Matching is by whole levels, and wildcards in front do not see `$` topics."""
    assert (compile_filter(mqtt_filter).match(topic) is not None) is expected


def test_captures_tell_what_stood_at_their_levels():
    """`{name}` is `+` with a memory."""
    found = compile_filter("devices/{device}/+/{type}/#")
    assert (found.mqtt, found.names) == ("devices/+/+/+/#", ("device", "type"))
    assert found.match("devices/a.1/x/climate/raw/0") == {"device": "a.1", "type": "climate"}
    assert found.match("devices/a.1/x") is None


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "a/#/b",
        "a#",
        "a/b+",
        "+a/b",
        "##",
        "a\0b",
        "x" * 65_536,
        "/".join("a" * 129),
        "a/{b}c",
        "{a}/{a}",
        "{",
        "{1}",
    ],
)
def test_what_is_no_filter_is_refused_with_a_sentence(bad):
    """The operator learns what is wrong before anything is subscribed [MQTT-4.7.1-1, -2, 4.7.3-1 to -3]."""
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        compile_filter(bad)


@pytest.mark.parametrize("bad", ["", "a/+", "#", "a\0", "é" * 40_000, "\ud800"])
def test_what_is_no_topic_name_is_told(bad):
    """Nothing is ever published to a wildcard, to nothing, or to what is not UTF-8 [MQTT-3.3.2-2, 4.7.3-1]."""
    assert topic_problem(bad)


@pytest.mark.parametrize("good", ["/", "a", "$SYS/x", " ", "a//", "/".join("a" * 200), "ä/日本", "\ufeffx"])
def test_odd_topic_names_are_still_topic_names(good):
    """Empty levels, spaces, any script: the specification allows them."""
    assert not topic_problem(good)


@pytest.mark.parametrize("good", ["+", "#", "/", "+/#", "/+/", "a/+/#", "$share/group/a"])
def test_odd_filters_are_still_filters(good):
    """Wildcards are fine as levels of their own."""
    assert not filter_problem(good)

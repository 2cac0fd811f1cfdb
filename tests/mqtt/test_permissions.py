"""Who may publish where, and subscribe to what: nobody gets at another's topics, however it is called."""

import random

import pytest

from gateway.config.settings import Permission
from gateway.mqtt.permissions import Permissions, _covers
from gateway.mqtt.topics import levels_match

OWN = Permission(publish=("devices/{device}/#",), subscribe=("devices/{device}/set", "public/#"))
BY_ID = Permission(publish=("clients/{client_id}/+",))
ADMIN = Permission(users=("admin", "ops-*"), publish=("#", "$SYS/#"), subscribe=("#",))


def of(device, client_id="c1", entries=(OWN, BY_ID, ADMIN)):
    return Permissions(entries).grant(device, client_id)


@pytest.mark.parametrize(
    ("device", "topic", "may"),
    [
        ("d1", "devices/d1/climate", True),
        ("d1", "devices/d1", True),
        ("d1", "devices/d2/climate", False),
        ("d1", "devices/d10", False),
        ("d1", "clients/c1/x", True),
        ("d1", "clients/c2/x", False),
        ("d1", "clients/c1/x/y", False),
        ("", "devices//climate", False),
        ("+", "devices/d2/climate", False),
        ("#", "devices/d2/climate", False),
        ("d1/x", "devices/d1/x/y", False),
        ("admin", "anything/at/all", True),
        ("ops-7", "anything", True),
        ("ops", "anything", False),
        ("admin", "$SYS/x", True),
        ("d1", "$SYS/x", False),
        ("*", "anything", False),
    ],
)
def test_a_device_publishes_where_a_pattern_says_and_nowhere_else(device, topic, may):
    """`{device}` is one level, the name under which the client has proved itself."""
    assert of(device).may_publish(topic) is may


@pytest.mark.parametrize(
    ("device", "mqtt_filter", "may"),
    [
        ("d1", "devices/d1/set", True),
        ("d1", "devices/+/set", False),
        ("d1", "devices/d1/#", False),
        ("d1", "devices/#", False),
        ("d1", "#", False),
        ("d1", "public", True),
        ("d1", "public/#", True),
        ("d1", "public/+/x", True),
        ("d1", "+/x", False),
        ("d1", "$share/g/public/x", True),
        ("d1", "$share/g/devices/+/set", False),
        ("d1", "$share/+/public/x", False),
        ("+", "devices/+/set", False),
        ("admin", "#", True),
        ("admin", "+/+", True),
        ("admin", "$SYS/#", False),
    ],
)
def test_a_filter_is_permitted_if_one_pattern_covers_all_of_it(device, mqtt_filter, may):
    """Also a shared one, and one that begins with a dollar sign."""
    assert of(device).may_subscribe(mqtt_filter) is may


def test_without_a_fitting_entry_nothing_is_permitted():
    """An empty list is not the same as none."""
    nobody = of("d1", entries=())
    assert not nobody.may_publish("a")
    assert not nobody.may_subscribe("a")


def test_covering_agrees_with_matching():
    """Against brute force: a pattern covers a filter only if it matches every topic that the filter matches."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    words = ["a", "b", "", "$x"]
    topics = [[x] for x in words] + [[x, y] for x in words for y in words]
    topics += [[x, y, z] for x in words for y in words for z in words]
    covered = 0
    for _ in range(20_000):
        pattern, mqtt_filter = (
            [rng.choice([*words, "+"]) for _ in range(rng.randint(1, 3))] + rng.choice([[], ["#"]]) for _ in range(2)
        )
        if _covers(tuple(pattern), mqtt_filter):
            covered += 1
            for topic in topics:
                assert not levels_match(mqtt_filter, topic) or levels_match(pattern, topic), (
                    seed,
                    pattern,
                    mqtt_filter,
                )
    assert covered > 100

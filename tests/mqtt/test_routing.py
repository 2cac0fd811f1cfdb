"""The trees of subscriptions and of retained messages, against the plain matcher."""

import functools
import random

from gateway.mqtt.packets import Subscription
from gateway.mqtt.routing import RetainedTree, SubscriptionTree
from gateway.mqtt.topics import compile_filter

LEVELS = ["a", "b", "", "$x"]


def _topic(rng):
    return "/".join(rng.choice(LEVELS) for _ in range(rng.randint(1, 4))) or "/"


def _filter(rng):
    levels = [rng.choice([*LEVELS, "+"]) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.3:
        levels[-1] = "#"
    return "/".join(levels) or "/"


_compiled = functools.cache(compile_filter)


def _matches(mqtt_filter, topic):
    return _compiled(mqtt_filter).match(topic) is not None


def test_the_tree_finds_what_asking_every_filter_finds(seed):
    """Random subscribing, leaving and publishing: the tree and the plain matcher agree."""
    rng = random.Random(seed)
    tree, naive = SubscriptionTree(), {}
    for _ in range(2_000):
        holder, mqtt_filter = rng.randint(1, 5), _filter(rng)
        if (holder, mqtt_filter) in naive and rng.random() < 0.8:
            assert tree.remove(mqtt_filter, holder)
            del naive[holder, mqtt_filter]
        else:
            is_new = tree.add(mqtt_filter, holder, Subscription(qos=1, identifier=holder))
            assert is_new == ((holder, mqtt_filter) not in naive)
            naive[holder, mqtt_filter] = True
        topic = _topic(rng)
        found = sorted(holder for holder, _ in tree.match(topic))
        assert found == sorted(holder for holder, one in naive if _matches(one, topic)), topic
    assert tree.count == len(naive)


def test_a_tree_that_was_emptied_keeps_nothing():
    """Memory follows what is subscribed, not what ever was."""
    tree = SubscriptionTree()
    filters = ["a/b/c", "a/+/c", "a/#", "#", "a/b"]
    for one in filters:
        tree.add(one, "client", Subscription())
    assert not tree.remove("a/b/x", "client")
    assert not tree.remove("a", "client")
    for one in filters:
        assert tree.remove(one, "client")
    assert not tree._root.below


def test_retained_messages_are_found_by_filter(seed):
    """Random retaining, clearing and subscribing: again the plain matcher is right."""
    rng = random.Random(seed)
    tree, naive = RetainedTree(), {}
    for number in range(2_000):
        topic = _topic(rng)
        if rng.random() < 0.4:
            tree.remove(topic)
            naive.pop(topic, None)
        else:
            tree.put(topic, number)
            naive[topic] = number
        mqtt_filter = _filter(rng)
        expected = sorted(value for one, value in naive.items() if _matches(mqtt_filter, one))
        assert sorted(tree.match(mqtt_filter)) == expected, mqtt_filter
        assert tree.get(topic) == naive.get(topic)
    assert tree.count == len(naive)
    assert sorted(tree) == sorted(naive.values())
    for topic in naive:
        tree.remove(topic)
    assert not tree._root.below


def test_a_topic_of_thousands_of_levels_is_only_slow():
    """Depth costs time, never the stack."""
    tree, deep = SubscriptionTree(), "/".join("a" * 30_000)
    tree.add("a/#", "one", Subscription())
    tree.add("+/a/+", "two", Subscription())
    assert [holder for holder, _ in tree.match(deep)] == ["one"]
    retained = RetainedTree()
    retained.put(deep, 1)
    assert retained.match("#") == [1]
    retained.remove(deep)
    assert not retained._root.below

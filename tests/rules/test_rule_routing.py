"""Which rules a topic concerns: the tree gives what asking every filter would."""

from __future__ import annotations

import random

import pytest

from gateway.mqtt.topics import compile_filter
from gateway.rules.routing import Routes, overlap

_WORDS = ["a", "b", "", "$x"]


def _random_filter(rng):
    levels = [rng.choice([*_WORDS, "+", f"{{n{i}}}"]) for i in range(rng.randrange(1, 5))]
    if rng.random() < 0.3:
        levels[-1] = "#"
    return "/".join(levels) or "a"


def test_the_tree_finds_what_asking_every_filter_finds(seed):
    """Random filters with wildcards and captures against every topic of up to four levels."""
    rng = random.Random(seed)
    filters = [compile_filter(text) for text in (_random_filter(rng) for _ in range(300))]
    routes = Routes(list(zip(filters, range(300), strict=True)))
    for _ in range(1_000):
        topic = "/".join(rng.choice(_WORDS) for _ in range(rng.randrange(1, 6))) or "a"
        expected = [(i, captured) for i, f in enumerate(filters) if (captured := f.match(topic)) is not None]
        assert routes.match(topic) == expected


OVERLAPS = [
    ("a/b", "a/b", True),
    ("a/b", "a/c", False),
    ("a/+", "+/b", True),
    ("a/+", "a/b/c", False),
    ("a/#", "a", True),
    ("a/#", "a/b/c", True),
    ("a", "a/#", True),
    ("a", "a/+", False),
    ("#", "x/y", True),
    ("+/+/#", "a", False),
    ("+/+/#", "a/b", True),
    ("a/b/#", "a/+/c/d", True),
]


@pytest.mark.parametrize(("one", "other", "expected"), OVERLAPS)
def test_two_filters_overlap_if_some_topic_matches_both(one, other, expected):
    """Each row, both ways round."""
    assert overlap(one, other) is expected
    assert overlap(other, one) is expected

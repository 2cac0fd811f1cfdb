"""What a client got from each broker at one step, side by side."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tests.mqtt.differential.witness import CLOSED, Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.mqtt.differential.said import Said
    from tests.mqtt.differential.scripts import Step
    from tests.mqtt.differential.story import Story

AT_THE_END = "what is retained at the end"
"""Stands for a client: what the two have kept when a script is over and its sessions are gone."""


@dataclasses.dataclass(frozen=True)
class Heard:
    """Replies in the order that the specification asks for and no other.

    Messages keep their order within a topic and QoS [MQTT-4.6.0-5], answers keep theirs; a message and an answer may
    come either way round. PUBRELs follow the order of messages on many topics, and so have none of their own here.
    """

    messages: tuple[Reply, ...] = ()
    answers: tuple[Reply, ...] = ()

    @staticmethod
    def of(replies: Iterable[Reply]) -> Heard:
        replies = list(replies)
        releases = sorted(one for one in replies if one.kind == "PUBREL")
        others = [one for one in replies if not one.is_message and one.kind != "PUBREL"]
        at = -1 if others and others[-1] == CLOSED else len(others)
        return Heard(in_order(one for one in replies if one.is_message), (*others[:at], *releases, *others[at:]))

    @property
    def is_closed(self) -> bool:
        return bool(self.answers) and self.answers[-1] == CLOSED

    def __str__(self) -> str:
        return ", ".join(f"{one.kind}{one.detail or ''}" for one in self.messages + self.answers) or "nothing"


def in_order(messages: Iterable[Reply], like: Iterable[Reply] = ()) -> tuple[Reply, ...]:
    """By topic and QoS; within these as they came, or as they came in `like`. Copies of one message have no order."""
    messages = list(messages)
    rank = {payload: at for at, payload in enumerate(dict.fromkeys(one.detail[1] for one in (*like, *messages)))}
    return tuple(sorted(messages, key=lambda one: (one.detail[0], one.detail[2], rank[one.detail[1]], one.detail)))


@dataclasses.dataclass(frozen=True)
class Moment:
    """One client at one step."""

    step: Step
    said: Said | None
    """What the acting client said; None if it said nothing."""
    client: str
    """Whose replies these are: the acting client's, another's, or, ending in ` before`, a replaced connection's."""
    is_acting: bool
    ours: Heard
    theirs: Heard
    story: Story

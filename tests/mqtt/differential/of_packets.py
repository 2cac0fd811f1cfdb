"""Packets that one of the two takes and the other refuses. See `explanation`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from tests.mqtt.differential.compare import Heard, Moment
from tests.mqtt.differential.said import (
    CONNACK,
    FLAGS,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SHARE,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    Said,
)
from tests.mqtt.differential.witness import CLOSED, Reply

RESPONSE_TOPIC, PAYLOAD_FORMAT, IDENTIFIER = 0x08, 0x01, 0x0B


# What the listener refuses and mosquitto takes.


def takes(flaw: Callable[[Said], bool], *reasons: int) -> Callable[[Moment], Heard | None]:
    """A packet that has this flaw closes the connection at the listener, with one of these reasons in 5.0."""

    def rewrite(moment: Moment) -> Heard | None:
        said = moment.said
        if not moment.is_acting or said is None or moment.theirs.is_closed or not flaw(said):
            return None
        v5 = moment.story.client(moment.client).v5
        for reason in reasons:
            expected = (Reply("DISCONNECT", (reason,)), CLOSED) if v5 else (CLOSED,)
            if moment.ours == Heard((), expected):
                return moment.ours
        return None

    return rewrite


def is_dup_at_0(said: Said) -> bool:
    return said.kind == PUBLISH and said.flags & 0xE == 8


def has_reserved_flags(said: Said) -> bool:
    return said.kind in FLAGS and said.flags != FLAGS[said.kind]


def is_a_servers(said: Said) -> bool:
    return said.kind in {CONNACK, SUBACK, UNSUBACK, PINGRESP}


def is_long(said: Said) -> bool:
    return bool(said.rest) and not said.is_cut


REASONS = {
    PUBREL: {0, 0x92},
    PUBCOMP: {0, 0x92},
    PUBACK: {0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    PUBREC: {0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
}


def has_odd_reason(said: Said) -> bool:
    return said.v5 and said.kind in REASONS and said.reason not in REASONS[said.kind]


def is_odd_format(said: Said) -> bool:
    return said.value(PAYLOAD_FORMAT) > 1 or (said.will is not None and said.will.value(PAYLOAD_FORMAT) > 1)


def has_odd_answer(said: Said) -> bool:
    answers = [
        value for one in (said, said.will) if one for number, value in one.properties if number == RESPONSE_TOPIC
    ]
    return any(b"+" in one or b"#" in one for one in answers if isinstance(one, bytes))


def has_identifier(said: Said) -> bool:
    return said.kind == PUBLISH and any(number == IDENTIFIER for number, _ in said.properties)


def is_shared_and_not_local(said: Said) -> bool:
    return said.v5 and said.kind == SUBSCRIBE and any(options & 4 for _, options in said.shared)


# What mosquitto refuses and the listener takes.

_ODD = re.compile("[\x01-\x1f\x7f-\x9f\ufdd0-\ufdef]|[\ufffe\uffff]")


def _is_odd(raw: bytes) -> bool:
    text = raw.decode(errors="replace")
    return _ODD.search(text) is not None or any(ord(one) & 0xFFFE == 0xFFFE for one in text)


def odd_characters(moment: Moment) -> Heard | None:
    if not moment.is_acting or moment.said is None or not moment.theirs.is_closed or moment.ours.is_closed:
        return None
    return moment.ours if any(map(_is_odd, moment.said.texts)) else None


def _is_no_filter(name: bytes) -> bool:
    levels = name.split(b"/")
    return (
        not name
        or any((b"#" in one and one != b"#") or (b"+" in one and one != b"+") for one in levels)
        or b"#" in levels[:-1]
    )


def bad_filter(moment: Moment) -> Heard | None:
    """Mosquitto closes; the listener says so in the answer, for that filter alone."""
    said = moment.said
    if not moment.is_acting or said is None or not moment.theirs.is_closed or said.kind not in {SUBSCRIBE, UNSUBSCRIBE}:
        return None
    bad = [_is_no_filter(name) or _bad_share(name) for name, _ in said.filters]
    answer = moment.ours.answers[:1]
    if not any(bad) or not answer or answer[0].kind not in {"SUBACK", "UNSUBACK"}:
        return None
    if said.kind == SUBSCRIBE:
        failure = 0x8F if said.v5 else 0x80
        if any((code == failure) != is_bad for code, is_bad in zip(answer[0].detail[1], bad, strict=True)):
            return None
    return moment.ours


def _bad_share(name: bytes) -> bool:
    if not name.startswith(SHARE):
        return False
    parts = name.split(b"/", 2)
    is_whole = len(parts) == 3 and parts[1] and parts[2]
    return not is_whole or b"+" in parts[1] or b"#" in parts[1]


def share_that_is_none(moment: Moment) -> Heard | None:
    """Mosquitto grants shared subscriptions without a name, or without a filter."""
    said = moment.said
    if not moment.is_acting or said is None or said.kind != SUBSCRIBE or not moment.theirs.answers:
        return None
    bad = [_bad_share(name) for name, _ in said.filters]
    first = moment.theirs.answers[0]
    if first.kind != "SUBACK" or not any(bad) or len(bad) != len(first.detail[1]):
        return None
    failure = 0x8F if said.v5 else 0x80
    codes = tuple(failure if is_bad else code for is_bad, code in zip(bad, first.detail[1], strict=True))
    first = replace(first, detail=(first.detail[0], codes, first.detail[2]))
    return replace(moment.theirs, answers=(first, *moment.theirs.answers[1:]))

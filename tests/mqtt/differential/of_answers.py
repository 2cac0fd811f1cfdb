"""Differences in what is answered, and in whether a reason is given. See `explanation`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.mqtt.differential.compare import Heard, Moment
from tests.mqtt.differential.explanation import BAD_ALIAS, BAD_TOPIC, MALFORMED, PROTOCOL_ERROR, UNSUPPORTED_VERSION
from tests.mqtt.differential.said import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    Said,
)
from tests.mqtt.differential.witness import CLOSED, Reply, protocol_level

ALIAS, MOST_ALIASES, MAXIMUM_PACKET_SIZE = 0x23, 32, 0x27
TOO_LARGE, TIGHT_BYTES = 0x95, 64
"""Mosquitto's longest CONNACK is shorter."""


def _answer(moment: Moment, theirs: Reply, ours: Reply) -> Heard | None:
    """Put ours where theirs stands, once."""
    answers = list(moment.theirs.answers)
    if theirs not in answers:
        return None
    answers[answers.index(theirs)] = ours
    return replace(moment.theirs, answers=tuple(answers))


def taken_over(moment: Moment) -> Heard | None:
    """Mosquitto closes the older connection without a word."""
    if not moment.client.endswith(" before") or not moment.step.opens or not moment.story.client(moment.client).left_v5:
        return None
    return _answer(moment, CLOSED, CLOSED) and replace(
        moment.theirs, answers=(*moment.theirs.answers[:-1], Reply("DISCONNECT", (0x8E,)), CLOSED)
    )


def no_subscribers(moment: Moment) -> Heard | None:
    said = moment.said
    if not moment.is_acting or said is None or said.kind != PUBLISH or said.qos != 1 or not said.v5:
        return None
    return _answer(moment, Reply("PUBACK", (said.mid, 0x10, ())), Reply("PUBACK", (said.mid, 0, ())))


def unknown_id(moment: Moment) -> Heard | None:
    said = moment.said
    if not moment.is_acting or said is None or not said.v5 or moment.step.late is not None:
        return None
    if said.kind == PUBREC:
        return _answer(moment, Reply("PUBREL", (said.mid, 0, ())), Reply("PUBREL", (said.mid, 0x92, ())))
    if said.kind == PUBREL and said.mid not in moment.story.client(moment.client).unreleased:
        return _answer(moment, Reply("PUBCOMP", (said.mid, 0, ())), Reply("PUBCOMP", (said.mid, 0x92, ())))
    return None


def never_subscribed(moment: Moment) -> Heard | None:
    """Mosquitto confirms the end of a subscription to `$` topics that there never was."""
    said = moment.said
    if not moment.is_acting or said is None or said.kind != UNSUBSCRIBE or not said.v5:
        return None
    if not moment.theirs.answers or moment.theirs.answers[0].kind != "UNSUBACK":
        return None
    mid, codes, pairs = moment.theirs.answers[0].detail
    held = set(moment.story.client(moment.client).subscriptions)
    codes = list(codes)
    for at, (name, _) in enumerate(said.filters[: len(codes)]):
        if name[:1] == b"$" and name not in held:
            codes[at] = 0x11
        held.discard(name)
    return replace(moment.theirs, answers=(Reply("UNSUBACK", (mid, tuple(codes), pairs)), *moment.theirs.answers[1:]))


def session_lost(moment: Moment) -> Heard | None:
    """Mosquitto forgets the session of a client that sent CONNECT twice."""
    if not moment.is_acting or not moment.step.opens or not moment.story.client(moment.client).is_twice:
        return None
    ours, theirs = moment.ours.answers[:1], moment.theirs.answers[:1]
    if [one.detail[:2] for one in ours + theirs if one.kind == "CONNACK"] != [(1, 0), (0, 0)]:
        return None
    return moment.ours


# Closing.


SILENT = {
    CONNECT: {MALFORMED, PROTOCOL_ERROR, UNSUPPORTED_VERSION},
    CONNACK: {PROTOCOL_ERROR},
    PUBLISH: {MALFORMED, PROTOCOL_ERROR},
    PUBACK: {MALFORMED, PROTOCOL_ERROR},
    PUBREC: {MALFORMED, PROTOCOL_ERROR},
    PUBREL: {MALFORMED, PROTOCOL_ERROR},
    PUBCOMP: {MALFORMED, PROTOCOL_ERROR},
    SUBACK: {PROTOCOL_ERROR},
    UNSUBACK: {PROTOCOL_ERROR},
    DISCONNECT: {MALFORMED, PROTOCOL_ERROR},
    AUTH: {MALFORMED, PROTOCOL_ERROR},
}
"""By packet type: for what mosquitto closes without a word."""


def closed_silently(moment: Moment) -> Heard | None:
    """Both close; only the listener says why."""
    ours, theirs, said = moment.ours.answers, moment.theirs.answers, moment.said
    if not moment.is_acting or said is None or theirs != (CLOSED,) or len(ours) != 2 or ours[-1] != CLOSED:
        return None
    if ours[0].kind != "DISCONNECT" or ours[0].detail[0] not in SILENT.get(said.kind, ()):
        return None
    return replace(moment.theirs, answers=(ours[0], CLOSED))


def _has_bad_alias(said: Said) -> bool:
    return any(number == ALIAS and not 0 < value <= MOST_ALIASES for number, value in said.properties)  # type: ignore[operator]


OTHERS: dict[tuple[int, int], Callable[[Said], bool]] = {
    (PUBLISH, BAD_ALIAS): _has_bad_alias,
    (PUBLISH, BAD_TOPIC): lambda said: b"+" in said.topic or b"#" in said.topic,
    (PUBLISH, PROTOCOL_ERROR): lambda _: True,
    (PUBLISH, MALFORMED): lambda _: True,
    (SUBSCRIBE, PROTOCOL_ERROR): lambda _: True,
    (UNSUBSCRIBE, PROTOCOL_ERROR): lambda _: True,
}
"""By packet type and the listener's reason: what must be wrong for it."""


def other_reason(moment: Moment) -> Heard | None:
    """Both close and say why: mosquitto in general terms."""
    ours, theirs, said = moment.ours.answers, moment.theirs.answers, moment.said
    if not moment.is_acting or said is None or [one.kind for one in theirs] != ["DISCONNECT", "closed"]:
        return None
    if [one.kind for one in ours] != ["DISCONNECT", "closed"] or theirs[0].detail[0] not in {MALFORMED, PROTOCOL_ERROR}:
        return None
    is_so = OTHERS.get((said.kind, ours[0].detail[0]), lambda _: False)
    return replace(moment.theirs, answers=ours) if is_so(said) else None


# CONNECT.


def protocol(moment: Moment) -> Heard | None:
    """The listener tells whoever speaks another protocol so, in the oldest form; mosquitto closes."""
    said = moment.said
    if not moment.is_acting or said is None or said.kind != CONNECT or not moment.step.opens:
        return None
    if protocol_level(moment.step.data) in {4, 5}:
        return None
    told, untold = Heard((), (Reply("CONNACK", (0, 1, ())), CLOSED)), Heard((), (CLOSED,))
    if moment.theirs == told and said.flags:
        return untold  # for the listener it is no CONNECT
    return told if moment.theirs == untold else None


def bridge(moment: Moment) -> Heard | None:
    """Mosquitto takes protocol level 0x84: its own bridges say so."""
    if not moment.is_acting or not moment.step.opens or protocol_level(moment.step.data) not in {0x83, 0x84}:
        return None
    return moment.ours if moment.ours == Heard((), (Reply("CONNACK", (0, 1, ())), CLOSED)) else None


def mqtt_31(moment: Moment) -> Heard | None:
    """Mosquitto speaks MQTT 3.1 as well."""
    if not moment.is_acting or not moment.step.opens or b"\0\6MQIsdp\3" not in moment.step.data[:12]:
        return None
    return moment.ours if moment.ours == Heard((), (Reply("CONNACK", (0, 1, ())), CLOSED)) else None


def refused_in_words(moment: Moment) -> Heard | None:
    """A CONNECT of 5.0 in which something is wrong: the listener says what in CONNACK, mosquitto closes."""
    said, ours = moment.said, moment.ours
    if not moment.is_acting or said is None or said.kind != CONNECT or not moment.step.opens or not said.v5:
        return None
    if moment.theirs != Heard((), (CLOSED,)) or [one.kind for one in ours.answers] != ["CONNACK", "closed"]:
        return None
    present, reason, _ = ours.answers[0].detail
    return ours if not present and reason in {MALFORMED, PROTOCOL_ERROR, BAD_TOPIC} else None


def two_mistakes(moment: Moment) -> Heard | None:
    """A CONNECT of 3.1.1 for a session to be kept without a client id, and something else is wrong with it."""
    said = moment.said
    if not moment.is_acting or said is None or said.kind != CONNECT or not moment.step.opens:
        return None
    if said.v5 or said.clean or said.client_id or moment.ours != Heard((), (CLOSED,)):
        return None
    return (
        replace(moment.theirs, answers=(CLOSED,))
        if moment.theirs.answers[:1] == (Reply("CONNACK", (0, 2, ())),)
        else None
    )


def tight(moment: Moment) -> Heard | None:
    """Mosquitto's CONNACK does not fit into what the client takes, and it closes; the listener's fits."""
    said = moment.said
    if not moment.is_acting or said is None or said.kind != CONNECT or not moment.step.opens:
        return None
    if not said.value(MAXIMUM_PACKET_SIZE, TIGHT_BYTES) < TIGHT_BYTES or moment.theirs != Heard((), (CLOSED,)):
        return None
    answer = moment.ours.answers[:1]
    return moment.ours if answer and answer[0].kind == "CONNACK" and answer[0].detail[1] in {0, TOO_LARGE} else None

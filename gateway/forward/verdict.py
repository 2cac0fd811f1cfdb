"""What a sink's answer means: verdicts as values, and the tables that turn answers into them. Pure.

Invariants:
- Only an answer that this module knows to mean "stored" is `Delivered`. Whatever is unknown is `Retry`: it costs a
  duplicate at worst, never an event.
- Only an answer that blames the *content* is `Refused`. What an operator can put right (credentials, address, rights)
  is `NeedsOperator` and never costs an event either.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TypeAlias

RETRY_AFTER_MAX_S = 3600.0
"""A server may ask for an hour of quiet, not for more."""
ANSWER_MAX_BYTES = 64 * 1024
"""As much of an answer as is ever read."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One record that a sink will never take."""

    index: int
    """Which one, counted from the start of what was sent."""
    code: str
    """Bounded vocabulary, fit for a metric label: `http_400`, `mqtt_0x90`, `too_large` ..."""
    detail: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """The first `count` records are settled: stored by the sink, except for those that it refused one by one."""

    count: int
    refused: tuple[Refusal, ...] = ()
    """Ascending; every index below `count`."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not stored, or nobody knows: send it again later."""

    reason: str
    after_s: float | None = None
    """How long the sink asked to be left alone."""


@dataclass(frozen=True, slots=True)
class NeedsOperator:
    """Nothing will be stored until a person changes something. The data waits; the status is red."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The sink took offence at the content, and stored nothing (or what it stored may safely be sent again)."""

    code: str
    detail: str
    index: int | None = None
    """The record to blame, if the sink said so: a hint that spares the search, never a proof."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """More bytes than the sink takes at once. Fewer records may do; a single one is refused."""

    detail: str


Verdict: TypeAlias = Delivered | Retry | NeedsOperator | Refused | TooLarge

_HTTP_DELIVERED = frozenset({200, 201, 202, 204})
_HTTP_RETRY = frozenset({408, 425, 429})
_HTTP_TOO_LARGE = frozenset({413})
_HTTP_REFUSED = frozenset({400, 409, 422})
_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml"})

_PUBACK_RETRY = frozenset({0x91, 0x97})  # packet identifier in use, quota exceeded
_PUBACK_OPERATOR = frozenset({0x87})  # not authorised
_CONNACK_OPERATOR = frozenset({0x85, 0x86, 0x87, 0x8A, 0x8C, 0x9D})
PROTOCOL_NOT_SPOKEN = 0x84
"""The CONNACK code by which a broker says that it does not speak this version of MQTT."""


def judge_http(
    status: int,
    count: int,
    *,
    content_type: str = "",
    retry_after: str | None = None,
    wall_s: float = 0.0,
    detail: str = "",
) -> Verdict:
    """What an HTTP answer to `count` records means.

    Args:
        status: HTTP status code.
        count: records in the request.
        content_type: media type of the answer, without parameters. A page where none is due is a captive portal.
        retry_after: the header as it came, if it came.
        wall_s: seconds since 1970, for a `Retry-After` that is a date.
        detail: the beginning of the body, for a person.

    Returns:
        The verdict. Statuses not in any table are the operator's (4xx) or worth another try (all others).
    """
    told = f"HTTP {status}: {detail}" if detail else f"HTTP {status}"
    if status in _HTTP_DELIVERED:
        if content_type.lower() in _PAGE_TYPES:
            return Retry(f"HTTP {status} with a page in place of an answer (a captive portal?)")
        return Delivered(count)
    if status in _HTTP_REFUSED:
        return Refused(f"http_{status}", told)
    if status in _HTTP_TOO_LARGE:
        return TooLarge(told)
    if status in _HTTP_RETRY or not 400 <= status < 500:
        return Retry(told, retry_after_s(retry_after, wall_s))
    return NeedsOperator(told)


def retry_after_s(header: str | None, wall_s: float) -> float | None:
    """The pause that a `Retry-After` header asks for, in seconds, at most an hour; None if it asks for nothing sane."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        # Longer than any sane number: int() of it could be costly, and an hour is the most that is granted anyway.
        asked_s = RETRY_AFTER_MAX_S if len(text) > 9 else float(int(text))
    else:
        try:
            when = parsedate_to_datetime(text)
        except ValueError:
            return None
        asked_s = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - wall_s
    return min(asked_s, RETRY_AFTER_MAX_S) if asked_s > 0 else None


def judge_puback(reason: int, index: int) -> Refusal | Retry | NeedsOperator | None:
    """What a PUBACK reason code means for the record at `index`; None: the broker has it."""
    if reason < 0x80:
        return None  # 0x10, no matching subscribers, included: the broker took it
    told = f"PUBACK reason 0x{reason:02x}"
    if reason in _PUBACK_RETRY:
        return Retry(told)
    if reason in _PUBACK_OPERATOR:
        return NeedsOperator(told)
    return Refusal(index, f"mqtt_0x{reason:02x}", told)


def judge_connack(reason: int, name: str) -> Retry | NeedsOperator:
    """What a CONNACK that refuses the connection means.

    Args:
        reason: MQTT 5 reason code; those of 3.1.1 are translated before they come here.
        name: the same in words.
    """
    told = f"the broker refused the connection: {name} (0x{reason:02x})"
    return NeedsOperator(told) if reason in _CONNACK_OPERATOR else Retry(told)

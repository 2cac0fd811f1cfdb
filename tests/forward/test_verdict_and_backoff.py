"""What answers mean, and how long pauses last."""

from __future__ import annotations

import random
from email.utils import formatdate

import pytest

from gateway.config.settings import RetrySettings
from gateway.forward.backoff import Backoff, asked_pause_s
from gateway.forward.verdict import (
    Delivered,
    NeedsOperator,
    Refusal,
    Refused,
    Retry,
    TooLarge,
    judge_connack,
    judge_http,
    judge_puback,
    retry_after_s,
)

TABLE = {
    Delivered: (200, 201, 202, 204),
    Refused: (400, 409, 422),
    TooLarge: (413,),
    NeedsOperator: (401, 402, 403, 404, 405, 406, 407, 410, 411, 415, 421, 426, 431, 451, 499),
    Retry: (
        100,
        203,
        205,
        206,
        207,
        226,
        301,
        302,
        303,
        304,
        307,
        308,
        408,
        425,
        429,
        500,
        501,
        502,
        503,
        504,
        599,
        999,
    ),
}


@pytest.mark.parametrize(("kind", "status"), [(kind, status) for kind, row in TABLE.items() for status in row])
def test_every_http_status_has_its_class(kind, status):
    """K3: only a known success is delivered; only blame for the content is refused."""
    verdict = judge_http(status, 7, content_type="application/json", detail="why")
    assert type(verdict) is kind
    if kind is Delivered:
        assert verdict.count == 7
    if kind is Refused:
        assert verdict.code == f"http_{status}"


@pytest.mark.parametrize("content_type", ["text/html", "TEXT/HTML", "application/xhtml+xml"])
def test_a_page_in_place_of_an_answer_is_never_delivered(content_type):
    """A captive portal answers 200 to everything."""
    assert isinstance(judge_http(200, 1, content_type=content_type), Retry)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("120", 120.0),
        (" 5 ", 5.0),
        ("0", None),
        ("-3", None),
        ("1e9", None),
        ("1000000000", 3600.0),
        ("9" * 5_000, 3600.0),
        ("٣", None),
        ("soon", None),
        ("", None),
        (None, None),
        (formatdate(1_700_000_060, usegmt=True), 60.0),
        (formatdate(1_700_900_000, usegmt=True), 3600.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_retry_after_is_taken_within_reason(header, expected):
    """Seconds or a date, at most an hour; nonsense and the past are ignored."""
    assert retry_after_s(header, 1_700_000_000.0) == expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (0x00, None),
        (0x10, None),
        (0x80, Refusal),
        (0x83, Refusal),
        (0x87, NeedsOperator),
        (0x90, Refusal),
        (0x91, Retry),
        (0x97, Retry),
        (0x99, Refusal),
    ],
)
def test_every_puback_reason_has_its_class(reason, expected):
    """Below 0x80 the broker has it, with or without subscribers."""
    verdict = judge_puback(reason, 3)
    assert verdict is None if expected is None else type(verdict) is expected


@pytest.mark.parametrize(
    ("reason", "kind"), [(0x86, NeedsOperator), (0x87, NeedsOperator), (0x88, Retry), (0x89, Retry)]
)
def test_a_refused_connection_is_the_operators_only_if_credentials_or_rights_are_wrong(reason, kind):
    """M15: bad credentials are tried slowly, a busy broker soon."""
    assert type(judge_connack(reason, "why")) is kind


def test_pauses_are_drawn_from_zero_to_a_ceiling_that_doubles_up_to_the_maximum(seed):
    """Full jitter, and no overflow however long the outage."""
    rng = random.Random(seed)
    backoff = Backoff(RetrySettings(base_s=0.5, max_s=120.0))
    ceilings = []
    for _ in range(5_000):
        ceilings.append(backoff.ceiling_s)
        assert 0 <= backoff.failed(rng.random()) <= ceilings[-1]
    assert ceilings[:9] == [0.5, 1, 2, 4, 8, 16, 32, 64, 120]
    assert set(ceilings[9:]) == {120.0}


def test_the_ladder_is_forgotten_only_after_lasting_success():
    """The first success takes back half of it; being well for as long as the last pause could last, all of it."""
    backoff = Backoff(RetrySettings(base_s=1.0, max_s=120.0))
    for _ in range(6):
        backoff.failed(0.5)
    backoff.succeeded(100.0)
    assert backoff.ceiling_s == 8.0
    backoff.succeeded(107.0)
    assert backoff.ceiling_s == 8.0
    backoff.succeeded(108.0)
    assert backoff.ceiling_s == 1.0


def test_a_thousand_gateways_do_not_return_in_one_second(seed):
    """M6: the busiest second of a mass reconnect sees at most twice the mean of its neighbourhood."""
    rng = random.Random(seed)
    returns = [0] * 120
    for _ in range(12_000):
        backoff = Backoff(RetrySettings(base_s=0.5, max_s=120.0))
        for _ in range(12):
            pause_s = backoff.failed(rng.random())
        returns[int(pause_s)] += 1
    assert max(returns) <= 2 * sum(returns) / len(returns)


def test_a_pause_that_a_sink_asked_for_is_bounded():
    """What was asked for, and a tenth."""
    assert (asked_pause_s(30.0, 0.0), asked_pause_s(30.0, 1.0)) == (30.0, 33.0)

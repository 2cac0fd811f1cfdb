"""The status is a value: it accounts exactly, survives JSON, and its latencies say what was observed."""

import random

import msgspec
import pytest

from gateway.observe.status import (
    GatewayStatus,
    IngestStatus,
    LatencyRecorder,
    SinkStatus,
    balances,
    imbalances,
    sink_balance,
)


def test_an_account_that_adds_up_balances(status):
    """L7: received = delivered + dead-lettered + evicted + pending, for ingest and for every sink."""
    assert imbalances(status) == []
    assert [balance.account for balance in balances(status)] == ["ingest", "cloud"]


@pytest.mark.parametrize("field", ["received", "delivered", "evicted", "pending"])
def test_one_event_astray_in_any_column_is_named(status, field):
    """L7: an account that is off by a single event is reported with all its numbers."""
    sink = msgspec.structs.replace(status.sinks[0], **{field: getattr(status.sinks[0], field) + 1})
    (sentence,) = imbalances(msgspec.structs.replace(status, sinks=(sink,)))
    assert sentence.startswith("cloud: ")
    assert "≠" in sentence
    assert abs(sink_balance(sink).missing) == 1


def test_an_event_that_ingest_lost_is_named(status):
    """L7: ingest accounts for every message that a receiver handed in."""
    lossy = IngestStatus(received=10, stored=7, not_stored=1, rejected={"json": 1})
    (sentence,) = imbalances(msgspec.structs.replace(status, ingest=lossy))
    assert sentence.startswith("ingest: 10 received ≠ 8 delivered + 1 dead-lettered")


def test_random_accounts_balance_exactly_when_the_sum_is_right(seed):
    """L7: the check is the equation and nothing else."""
    rng = random.Random(seed)
    for _ in range(200):
        delivered, dead, evicted, pending, error = (rng.randrange(1000) for _ in range(5))
        error = rng.choice([0, 0, error, -error])
        sink = SinkStatus(
            name="x",
            type="file",
            up=True,
            received=delivered + dead + evicted + pending + error,
            delivered=delivered,
            dead_lettered={"a": dead // 2, "b": dead - dead // 2},
            evicted=evicted,
            pending=pending,
        )
        assert sink_balance(sink).missing == error


def test_a_status_survives_json(status):
    """What `/api/v1/status` sends is what `gateway status` reads."""
    assert msgspec.json.decode(msgspec.json.encode(status), type=GatewayStatus) == status


def test_a_status_from_a_newer_gateway_is_still_read(status):
    """Fields are added to: an older command ignores what it does not know."""
    newer = msgspec.to_builtins(status) | {"novelty": {"x": 1}}
    assert msgspec.convert(newer, GatewayStatus) == status


def test_each_duration_lands_in_the_bucket_that_ends_at_or_above_it():
    """A bucket's bound belongs to the bucket, as Prometheus has it."""
    recorder = LatencyRecorder((0.001, 0.01))
    for duration_s in (0.0, 0.001, 0.0011, 0.01, 7.0):
        recorder.observe(duration_s)
    latency = recorder.snapshot()
    assert latency.counts == (2, 2, 1)
    assert latency.count == 5
    assert latency.sum_s == pytest.approx(7.0121)
    assert (latency.last_s, latency.max_s) == (7.0, 7.0)


def test_quantiles_are_upper_bounds_never_above_the_maximum():
    """A quantile read from buckets errs upwards, by at most its bucket, and never past what was seen."""
    recorder = LatencyRecorder((0.001, 0.01, 0.1))
    assert recorder.snapshot().quantile_s(0.5) == 0
    for duration_s in [0.004] * 98 + [0.02, 3.0]:
        recorder.observe(duration_s)
    latency = recorder.snapshot()
    assert latency.quantile_s(0.5) == 0.01
    assert latency.quantile_s(0.99) == 0.1
    assert latency.quantile_s(1.0) == 3.0
    one = LatencyRecorder((0.001, 0.01))
    one.observe(0.002)
    assert one.snapshot().quantile_s(0.5) == 0.002


def test_a_snapshot_does_not_change_when_more_is_recorded():
    """A status owns its data: it can be kept while the gateway goes on."""
    recorder = LatencyRecorder()
    before = recorder.snapshot()
    recorder.observe(1.0)
    assert before.count == 0
    assert recorder.snapshot().count == 1

"""Metrics are a rendering of the status under exactly the promised names."""

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from gateway.observe.metrics import MOST_LABELS, MetricsPage

# As the design promises them to users, with their labels.
PROMISED = {
    "gateway_events_received_total": set(),
    "gateway_events_rejected_total": {"reason"},
    "gateway_mqtt_connections": set(),
    "gateway_mqtt_refused_total": {"action"},
    "gateway_mqtt_dropped_total": {"cause"},
    "gateway_mqtt_throttled_total": set(),
    "gateway_log_appended_total": set(),
    "gateway_log_bytes": set(),
    "gateway_log_written_bytes_total": set(),
    "gateway_log_evicted_total": {"reason"},
    "gateway_log_sync_seconds": set(),
    "gateway_sink_delivered_total": {"sink"},
    "gateway_sink_dead_lettered_total": {"sink", "reason"},
    "gateway_sink_evicted_total": {"sink"},
    "gateway_sink_pending": {"sink"},
    "gateway_sink_up": {"sink"},
    "gateway_rule_firings_total": {"rule"},
    "gateway_commands_total": {"outcome"},
    "gateway_notifications_total": {"outcome"},
    "gateway_notifications_waiting": set(),
    "gateway_event_to_command_seconds": set(),
}


def scrape(status, accept=""):
    _, body = MetricsPage(lambda: status).render(accept)
    families = list(text_string_to_metric_families(body.decode()))
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }
    return families, samples


def test_exactly_the_promised_names_are_exposed(status):
    """Dashboards hang on these names: none is missing, none is there by accident."""
    families, samples = scrape(status)
    exposed = {
        name if not name.endswith(("_bucket", "_count", "_sum")) else name.rpartition("_")[0] for name, *_ in samples
    }
    assert exposed == set(PROMISED)
    for family in families:
        for sample in family.samples:
            name = sample.name if sample.name in PROMISED else sample.name.rpartition("_")[0]
            assert set(sample.labels) - {"le"} == PROMISED[name]


def test_every_value_is_the_status_s_own(status):
    """`/metrics` and the status page never disagree."""
    _, samples = scrape(status)
    assert samples["gateway_events_received_total",] == 107
    assert samples["gateway_events_rejected_total", ("reason", "json")] == 3
    assert samples["gateway_mqtt_connections",] == 20
    assert samples["gateway_mqtt_refused_total", ("action", "publish")] == 5
    assert samples["gateway_mqtt_dropped_total", ("cause", "slow")] == 6
    assert samples["gateway_mqtt_throttled_total",] == 7
    assert samples["gateway_log_appended_total",] == 120
    assert samples["gateway_log_bytes",] == 4_096
    assert samples["gateway_log_written_bytes_total",] == 9_000
    assert samples["gateway_log_evicted_total", ("reason", "size")] == 7
    assert samples["gateway_sink_delivered_total", ("sink", "cloud")] == 80
    assert samples["gateway_sink_dead_lettered_total", ("reason", "too_large"), ("sink", "cloud")] == 1
    assert samples["gateway_sink_evicted_total", ("sink", "cloud")] == 7
    assert samples["gateway_sink_pending", ("sink", "cloud")] == 10
    assert samples["gateway_sink_up", ("sink", "cloud")] == 0
    assert samples["gateway_rule_firings_total", ("rule", "freezer-warm")] == 3
    assert samples["gateway_commands_total", ("outcome", "denied")] == 1
    assert samples["gateway_notifications_total", ("outcome", "failed")] == 2
    assert samples["gateway_notifications_waiting",] == 4


def test_histograms_are_cumulative_and_end_at_their_count(status):
    """Prometheus wants cumulative buckets; the last one holds everything."""
    _, samples = scrape(status)
    name = "gateway_log_sync_seconds"
    assert samples[f"{name}_bucket", ("le", "0.0005")] == 1
    assert samples[f"{name}_bucket", ("le", "0.0025")] == 3
    assert samples[f"{name}_bucket", ("le", "10.0")] == 3
    assert samples[f"{name}_bucket", ("le", "+Inf")] == samples[f"{name}_count",] == 4
    assert samples[f"{name}_sum",] == sum((0.0004, 0.002, 0.002, 20.0))


def test_the_scraper_chooses_the_format(status):
    """OpenMetrics is spoken to those who ask for it."""
    content_type, body = MetricsPage(lambda: status).render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    content_type, _ = MetricsPage(lambda: status).render()
    assert content_type.startswith("text/plain")


def test_labels_stay_bounded_and_nothing_is_lost_over_it(status):
    """A vocabulary that grows without bound costs detail, never memory and never a count."""
    flood = {f"code{n:05}": 1 for n in range(1_000)}
    changed = msgspec.structs.replace(status, ingest=msgspec.structs.replace(status.ingest, rejected=flood))
    _, samples = scrape(changed)
    counts = {key: value for key, value in samples.items() if key[0] == "gateway_events_rejected_total"}
    assert len(counts) == MOST_LABELS + 1
    assert counts["gateway_events_rejected_total", ("reason", "other")] == 1_000 - MOST_LABELS
    assert sum(counts.values()) == 1_000


def test_hostile_label_values_stay_on_their_line(status):
    """A name with quotes and newlines cannot forge a sample."""
    evil = 'x"} 1\ngateway_forged_total 9\\'
    sink = msgspec.structs.replace(status.sinks[0], name=evil)
    _, samples = scrape(msgspec.structs.replace(status, sinks=(sink,)))
    assert ("gateway_sink_up", ("sink", evil)) in samples
    assert not any(name.startswith("gateway_forged") for name, *_ in samples)


def test_two_gateways_in_one_process_do_not_share_metrics(status):
    """There is no process-wide registry: tests and the demo run several gateways at once."""
    other = msgspec.structs.replace(status, ingest=msgspec.structs.replace(status.ingest, received=1))
    first, second = MetricsPage(lambda: status), MetricsPage(lambda: other)
    assert b"gateway_events_received_total 107.0" in first.render()[1]
    assert b"gateway_events_received_total 1.0" in second.render()[1]

"""Prometheus metrics, made from a `GatewayStatus` when somebody scrapes: the one module that knows prometheus_client.

Invariants:
- No stage ever calls a metric: counts are plain integers where things happen, so a metric costs nothing per event.
- The names and labels below are the promise of the documentation; there are no others and no process-wide registry.
- Labels come from the configuration or from bounded vocabularies. Should a vocabulary ever fail to be bounded, what
  exceeds `MOST_LABELS` is summed up under `other` rather than lost.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from gateway.observe.status import GatewayStatus, IngestStatus, Latency, ListenerStatus, LogStatus, SinkStatus

MOST_LABELS = 64


class StatusCollector(Collector):
    """Turns the present status into metric families."""

    def __init__(self, status: Callable[[], GatewayStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Every family of one scrape, all from one status."""
        status = self._status()
        yield from _ingest(status.ingest)
        if status.listener is not None:
            yield from _listener(status.listener)
        yield from _log(status.log)
        yield from _sinks(status.sinks)
        yield _counter("gateway_rule_firings", "Firings of a rule.", "rule", {r.id: r.firings for r in status.rules})
        yield _counter("gateway_commands", "Commands to actuators, by what became of them.", "outcome", status.commands)
        yield _counter(
            "gateway_notifications", "Notifications, by what became of them.", "outcome", status.notifications
        )
        waiting = status.notifications_waiting
        yield GaugeMetricFamily("gateway_notifications_waiting", "Notifications that are still to be told.", waiting)
        yield _histogram(
            "gateway_event_to_command_seconds",
            "From an event's arrival to the command that it caused leaving the gateway.",
            status.event_to_command,
        )


class MetricsPage:
    """`/metrics`: renders a scrape in the format that the scraper asks for."""

    def __init__(self, status: Callable[[], GatewayStatus]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StatusCollector(status))

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """One scrape.

        Args:
            accept: the request's Accept header; empty gives the classic text format.

        Returns:
            Content type and body.
        """
        encode, content_type = choose_encoder(accept)
        body: bytes = encode(self._registry)
        return content_type, body


def _ingest(ingest: IngestStatus) -> Iterator[Metric]:
    yield CounterMetricFamily("gateway_events_received", "Messages handed to ingest.", value=ingest.received)
    yield _counter("gateway_events_rejected", "Messages made dead letters by ingest.", "reason", ingest.rejected)


def _listener(listener: ListenerStatus) -> Iterator[Metric]:
    yield GaugeMetricFamily("gateway_mqtt_connections", "Devices that are connected.", value=listener.connections)
    yield _counter("gateway_mqtt_refused", "What devices wanted and were not given.", "action", listener.refused)
    yield _counter("gateway_mqtt_dropped", "Messages that subscribers did not get.", "cause", listener.dropped)
    yield CounterMetricFamily(
        "gateway_mqtt_throttled", "How often a device sent faster than it may.", value=listener.throttled
    )


def _log(log: LogStatus) -> Iterator[Metric]:
    yield CounterMetricFamily("gateway_log_appended", "Records appended to the ring log.", value=log.appended)
    yield GaugeMetricFamily("gateway_log_bytes", "Size of the ring log on disk.", value=log.bytes)
    yield CounterMetricFamily("gateway_log_written_bytes", "Bytes written to the ring log.", value=log.written_bytes)
    yield _counter("gateway_log_evicted", "Events given up by the ring log.", "reason", log.evicted)
    yield _histogram("gateway_log_sync_seconds", "How long syncing a batch to disk took.", log.sync)


def _sinks(sinks: Iterable[SinkStatus]) -> Iterator[Metric]:
    sinks = tuple(sinks)
    delivered = {sink.name: sink.delivered for sink in sinks}
    yield _counter("gateway_sink_delivered", "Events that a sink has accepted.", "sink", delivered)
    family = CounterMetricFamily(
        "gateway_sink_dead_lettered", "Events that a sink will never accept.", labels=("sink", "reason")
    )
    for sink in sinks:
        for reason, count in _bounded(sink.dead_lettered):
            family.add_metric((sink.name, reason), count)
    yield family
    evicted = {sink.name: sink.evicted for sink in sinks}
    yield _counter("gateway_sink_evicted", "Events evicted before a sink saw them.", "sink", evicted)
    pending = GaugeMetricFamily("gateway_sink_pending", "Events that a sink has still to see.", labels=("sink",))
    up = GaugeMetricFamily("gateway_sink_up", "1 if the last try to reach a sink succeeded.", labels=("sink",))
    for sink in sinks:
        pending.add_metric((sink.name,), sink.pending)
        up.add_metric((sink.name,), float(sink.up))
    yield pending
    yield up


def _counter(name: str, help_: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_, labels=(label,))
    for value, count in _bounded(counts):
        family.add_metric((value,), count)
    return family


def _histogram(name: str, help_: str, latency: Latency) -> Metric:
    bounds = [*(repr(bound_s) for bound_s in latency.bounds_s), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(latency.counts)), strict=True))
    return HistogramMetricFamily(name, help_, buckets=buckets, sum_value=latency.sum_s)


def _bounded(counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    ordered = sorted(counts.items())
    yield from ordered[:MOST_LABELS]
    if len(ordered) > MOST_LABELS:
        yield "other", sum(count for _, count in ordered[MOST_LABELS:])

"""The gateway at one instant, as plain values: the one place from which everything that shows it is made.

The composition root fills a `GatewayStatus` when somebody asks. `/metrics`, `/api/v1/status`, `gateway status` and the
demo's live view only render one, so that no two of them can disagree, and no stage counts anything twice.

Invariants:
- Values in here are immutable and own their data: a status may be kept, sent or compared long after it was taken.
- Field names are the JSON of `/api/v1/status`: they are added to, never renamed.
- Nothing here asks a clock, a disk or a socket; nothing here names a telemetry library.
- Label-like strings (`code`, `reason`, `outcome`, names of rules and sinks) come from bounded vocabularies, never from
  topics or payloads.
- Law L7 is checked here: `balances` says for every account whether what came in equals where it went.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

import msgspec

SYNC_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From a good NVMe drive's sync to an SD card that has gone away to think."""
COMMAND_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From an event's arrival to the command that it caused leaving the gateway."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in buckets: `counts[i]` holds those of at most `bounds_s[i]`, the last one the rest."""

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float = 0.0
    last_s: float = 0.0
    max_s: float = 0.0

    @property
    def count(self) -> int:
        """How many durations were seen."""
        return sum(self.counts)

    def quantile_s(self, share: float) -> float:
        """A duration that `share` of all did not exceed: their bucket's upper bound, or the maximum if that is less.

        Args:
            share: 0 to 1; 0.5 is the median.

        Returns:
            Seconds; 0 if nothing was seen.
        """
        wanted = share * self.count
        for bound_s, below in zip(self.bounds_s, accumulate(self.counts), strict=False):
            if below and below >= wanted:
                return min(bound_s, self.max_s)
        return self.max_s


class LatencyRecorder:
    """Gathers durations for a `Latency`. One call per batch or command, never per event."""

    __slots__ = ("_bounds_s", "_counts", "_last_s", "_max_s", "_sum_s")

    def __init__(self, bounds_s: tuple[float, ...] = SYNC_BOUNDS_S) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = self._last_s = self._max_s = 0.0

    def observe(self, duration_s: float) -> None:
        """Count one duration, in seconds."""
        self._counts[bisect_left(self._bounds_s, duration_s)] += 1
        self._sum_s += duration_s
        self._last_s = duration_s
        self._max_s = max(self._max_s, duration_s)

    def snapshot(self) -> Latency:
        """What was seen so far."""
        return Latency(
            bounds_s=self._bounds_s,
            counts=tuple(self._counts),
            sum_s=self._sum_s,
            last_s=self._last_s,
            max_s=self._max_s,
        )


NO_SYNCS = LatencyRecorder(SYNC_BOUNDS_S).snapshot()
NO_COMMANDS = LatencyRecorder(COMMAND_BOUNDS_S).snapshot()


class LogStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The ring log."""

    appended_seq: int
    """Sequence number after the last record appended."""
    durable_seq: int
    """Sequence number after the last record that a power cut cannot take."""
    appended: int
    """Records appended since the start, of every kind."""
    events: int
    """Records of kind EVENTS that the log holds now."""
    bytes: int
    max_bytes: int
    segments: int
    pending_bytes: int = 0
    """Appended and not yet durable."""
    written_bytes: int = 0
    """Bytes written to the disk since the start, headers included."""
    syncs: int = 0
    sync: Latency = NO_SYNCS
    evicted: dict[str, int] = {}
    """Events given up, by reason, since the start."""
    damaged: int = 0
    """Damaged places found since the start."""


class IngestStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What receivers handed in: `received = stored + not_stored + rejected`, counted as each is decided on."""

    received: int = 0
    stored: int = 0
    not_stored: int = 0
    """Matched no entry of `ingest.topics`: only routed to subscribers."""
    rejected: dict[str, int] = {}
    """Made dead letters, by code."""


class ListenerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's own MQTT listener."""

    address: str
    """`host:port` as bound."""
    connections: int = 0
    sessions: int = 0
    """With those whose device is away."""
    subscriptions: int = 0
    retained: int = 0
    received: int = 0
    """Messages published to the listener."""
    sent: int = 0
    """Messages sent to subscribers."""
    dropped: dict[str, int] = {}
    """Messages that subscribers did not get, by cause: `queue_full`, `slow`, `too_large`, `expired`, ..."""
    refused: dict[str, int] = {}
    """What devices wanted and were not given, by what that was: `connect`, `publish`, `subscribe`."""
    throttled: int = 0
    """How often a device sent faster than it may, and was not read for a while."""
    unsettled_bytes: int = 0
    """Received and not yet acknowledged."""


class BrokerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The connection to a broker that was already there."""

    address: str
    connected: bool
    reconnects: int = 0
    received: int = 0
    unsettled_bytes: int = 0
    last_error: str = ""


class RuleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One rule or thermostat."""

    id: str
    kind: str
    """`rule` or `thermostat`."""
    state: str
    """One word; for a rule with captures, that of the key that changed last."""
    firings: int = 0
    last_fired_wall_ns: int | None = None
    detail: str = ""
    """One sentence for a person."""


class SinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One sink with its account (L7). Counts go on over restarts: they lie in the sink's cursor."""

    name: str
    type: str
    up: bool
    received: int
    """Events that the log has held for this sink since it began."""
    delivered: int
    pending: int
    dead_lettered: dict[str, int] = {}
    """By reason."""
    evicted: int = 0
    last_error: str = ""
    """Empty when the last try succeeded."""
    next_try_s: float | None = None
    """None: not waiting for a retry."""


class DeadLetterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The dead-letter log."""

    records: int = 0
    bytes: int = 0
    max_bytes: int = 0


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The whole gateway at one instant."""

    gateway_id: str
    version: str
    started_wall_ns: int
    uptime_s: float
    ready: bool
    """Recovered, bound and consuming: devices may connect."""
    healthy: bool
    """The process works and the disk takes what it is given. An uplink that is away does not make it unhealthy."""
    problems: tuple[str, ...] = ()
    """What is wrong, in sentences. Empty when ready and healthy."""
    log: LogStatus
    ingest: IngestStatus = IngestStatus()
    listener: ListenerStatus | None = None
    broker: BrokerStatus | None = None
    rules: tuple[RuleStatus, ...] = ()
    commands: dict[str, int] = {}
    """By outcome."""
    event_to_command: Latency = NO_COMMANDS
    notifications: dict[str, int] = {}
    """By what became of them: `told`, `failed` (given up), `dropped` (no room, or the gateway stopped)."""
    notifications_waiting: int = 0
    sinks: tuple[SinkStatus, ...] = ()
    dead_letters: DeadLetterStatus = DeadLetterStatus()


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """One account: what came in, and where it went. It balances when `missing` is 0."""

    account: str
    received: int
    delivered: int
    dead_lettered: int
    evicted: int = 0
    pending: int = 0

    @property
    def missing(self) -> int:
        """What came in and went nowhere; below zero: what went somewhere and never came in."""
        return self.received - self.delivered - self.dead_lettered - self.evicted - self.pending

    @property
    def sentence(self) -> str:
        """The account as an equation, for a person."""
        sign = "=" if not self.missing else "≠"
        return (
            f"{self.account}: {self.received:,} received {sign} {self.delivered:,} delivered"
            f" + {self.dead_lettered:,} dead-lettered + {self.evicted:,} evicted + {self.pending:,} pending"
        )


def sink_balance(sink: SinkStatus) -> Balance:
    """The account of one sink."""
    return Balance(
        account=sink.name,
        received=sink.received,
        delivered=sink.delivered,
        dead_lettered=sum(sink.dead_lettered.values()),
        evicted=sink.evicted,
        pending=sink.pending,
    )


def ingest_balance(ingest: IngestStatus) -> Balance:
    """The account of ingest; what was stored or only routed counts as delivered."""
    return Balance(
        account="ingest",
        received=ingest.received,
        delivered=ingest.stored + ingest.not_stored,
        dead_lettered=sum(ingest.rejected.values()),
    )


def balances(status: GatewayStatus) -> tuple[Balance, ...]:
    """Every account of L7: ingest first, then each sink in the order of the configuration."""
    return (ingest_balance(status.ingest), *map(sink_balance, status.sinks))


def imbalances(status: GatewayStatus) -> list[str]:
    """A sentence for every account that does not balance. Empty: the law holds."""
    return [balance.sentence for balance in balances(status) if balance.missing]

"""Fills in the status: reads every stage's plain counters when somebody asks, and nothing in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.observe import events
from gateway.observe.status import (
    BrokerStatus,
    DeadLetterStatus,
    GatewayStatus,
    IngestStatus,
    ListenerStatus,
    LogStatus,
    RuleStatus,
)
from gateway.observe.version import installed_version

if TYPE_CHECKING:
    from gateway.app.gateway import Gateway
    from gateway.clock import Clock
    from gateway.ringlog import Store
    from gateway.rules.machines.machine import Status

_STALL_S = 5.0
"""A write that takes longer makes the gateway unhealthy: the disk does not take what it is given."""


class Reporter:
    """Looks at a gateway."""

    def __init__(self, gateway: Gateway, clock: Clock) -> None:
        self._gateway = gateway
        self._clock = clock
        self._started_wall_ns = clock.wall_ns()
        self._appended_at_start = gateway.store.events.appended.seq

    def status(self) -> GatewayStatus:
        """The whole gateway at this instant."""
        gateway = self._gateway
        problems = tuple(self._problems())
        return GatewayStatus(
            gateway_id=gateway.settings.gateway_id,
            version=installed_version(),
            started_wall_ns=self._started_wall_ns,
            uptime_s=(self._clock.mono_ns() - gateway.started_mono_ns) / 1e9,
            ready=gateway.ready,
            healthy=not problems,
            problems=problems,
            log=self._log(),
            ingest=self._ingest(),
            listener=self._listener(),
            broker=self._broker(),
            rules=self._rules(),
            commands=dict(gateway.dispatcher.commands),
            event_to_command=gateway.command_latency.snapshot(),
            notifications=self._notifications(),
            notifications_waiting=gateway.notifier.waiting,
            sinks=tuple(runner.status() for runner in gateway.runners),
            dead_letters=self._dead_letters(),
        )

    def _problems(self) -> list[str]:
        store = self._gateway.store
        found = []
        if store.committer.failure is not None:
            found.append(f"the disk is lost: {store.committer.failure}")
        elif held := store.committer.held:
            what = ", ".join(f"{log}: {why}" for log, why in held.items())
            found.append(f"no room to store, nothing is acknowledged until there is ({what})")
        elif (stalled_s := store.committer.stalled_s()) > _STALL_S:
            found.append(f"the disk has not taken a write for {stalled_s:.0f} s")
        if self._gateway.failed.is_set() and not found:
            found.append("a task has ended that should have run on; the gateway is stopping")
        return found

    def _log(self) -> LogStatus:
        store = self._gateway.store
        ring = store.events
        return LogStatus(
            appended_seq=ring.appended.seq,
            durable_seq=ring.durable.seq,
            appended=ring.appended.seq - self._appended_at_start,
            events=ring.appended.ordinal - ring.floor.ordinal,
            bytes=ring.layout.size_bytes,
            max_bytes=self._gateway.settings.log.max_size_bytes,
            segments=len(ring.layout.segments),
            pending_bytes=ring.unwritten_bytes,
            written_bytes=sum(each.chain.written_bytes for each in store.rings),
            syncs=store.committer.syncs,
            sync=store.committer.latency.snapshot(),
            evicted=dict(ring.chain.evicted),
            damaged=sum(len(each.recovered.damaged) for each in store.rings),
        )

    def _ingest(self) -> IngestStatus:
        ingest = self._gateway.ingest
        return IngestStatus(
            received=ingest.received,
            stored=ingest.stored,
            not_stored=ingest.not_stored,
            rejected=dict(ingest.rejected),
        )

    def _listener(self) -> ListenerStatus | None:
        listener, settings = self._gateway.listener, self._gateway.settings.listen
        if listener is None or settings is None:
            return None
        stats = listener.stats
        return ListenerStatus(
            address=f"{settings.host}:{listener.port}",
            connections=stats.connections,
            sessions=stats.sessions,
            subscriptions=stats.subscriptions,
            retained=stats.retained,
            received=stats.received_total,
            sent=stats.delivered_total,
            dropped=dict(stats.dropped_total),
            refused=dict(stats.refused_total),
            throttled=stats.throttled_total,
            unsettled_bytes=stats.unsettled_bytes,
        )

    def _broker(self) -> BrokerStatus | None:
        broker, settings = self._gateway.broker, self._gateway.settings.connect
        if broker is None or settings is None:
            return None
        stats = broker.stats
        return BrokerStatus(
            address=f"{settings.host}:{settings.port}",
            connected=stats.connected,
            reconnects=stats.reconnects,
            received=stats.received_total,
            unsettled_bytes=stats.unsettled_bytes,
            last_error=stats.last_error,
        )

    def _rules(self) -> tuple[RuleStatus, ...]:
        engine = self._gateway.rules.engine
        now_ns, wall_ns = self._gateway.store.events.elapsed_ns(), self._clock.wall_ns()
        kinds = {rule.id: "rule" for rule in engine.ruleset.rules}
        kinds |= {thermostat.id: "thermostat" for thermostat in engine.ruleset.thermostats}
        firings = engine.firings()
        latest: dict[str, Status] = {}
        for machine in engine.status(now_ns):
            known = latest.get(machine.rule)
            if known is None or machine.since_ns > known.since_ns:
                latest[machine.rule] = machine
        found = []
        for rule, kind in kinds.items():
            seen = latest.get(rule)
            fired_ns = seen.fired_ns if seen is not None else None
            found.append(
                RuleStatus(
                    id=rule,
                    kind=kind,
                    state=seen.phase if seen is not None else "inactive",
                    firings=firings.get(rule, 0),
                    last_fired_wall_ns=wall_ns - (now_ns - fired_ns) if fired_ns is not None else None,
                    detail=seen.readings if seen is not None else "",
                )
            )
        return tuple(found)

    def _notifications(self) -> dict[str, int]:
        notifier = self._gateway.notifier
        counts = {"told": notifier.told, "failed": notifier.failed, "dropped": notifier.dropped}
        return {what: count for what, count in counts.items() if count}

    def _dead_letters(self) -> DeadLetterStatus:
        letters = self._gateway.store.dead_letters
        ring = letters.ring
        return DeadLetterStatus(
            records=ring.appended.seq - ring.floor.seq,
            bytes=ring.layout.size_bytes,
            max_bytes=self._gateway.settings.log.dead_letters_max_size_bytes,
        )


def tell_recovery(store: Store, duration_s: float) -> None:
    """Tell what each log was found to hold, and what of it was damaged."""
    for ring in store.rings:
        found = ring.recovered
        events.log_recovered(
            ring.name,
            events=found.end.ordinal - ring.floor.ordinal,
            segments=len(found.segments),
            torn_bytes=found.torn.length_bytes if found.torn is not None else 0,
            duration_s=duration_s,
        )
        for damage in found.damaged:
            events.log_damaged(
                ring.name,
                segment=damage.segment,
                offset=damage.offset,
                length_bytes=damage.length_bytes,
                why=damage.why,
            )

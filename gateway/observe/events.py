"""Everything the gateway ever logs, one function per event: the one place where log events get their names.

The name of an event is the name of its function. Fields are values with units in their names; sentences belong to
people (`detail`, `error`), codes to machines.

Invariants:
- No event is said per sensor event or per message; what can happen that often is counted in the status instead.
- What a broken device, disk or uplink can repeat at will stands in `REPEATING` and is held to one line per interval.
- A retry is not an error: `sink_down` is said once per outage, not once per try.
- No secret is ever a field: addresses without credentials, never headers, tokens or passwords.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

REPEATING: dict[str, tuple[str, ...]] = {
    "command_ahead_of_record": (),
    "command_denied": ("topic",),
    "command_unconfirmed": ("topic",),
    "disk_failed": ("operation",),
    "disk_slow": (),
    "library_warned": ("library",),
    "log_damaged": (),
    "log_evicted": (),
    "notification_failed": ("to",),
    "payload_rejected": ("code",),
    "protocol_broken": ("code",),
    "queue_full": ("queue",),
    "request_failed": (),
    "rule_failed": ("rule",),
    "sink_dead_lettered": ("sink", "reason"),
    "sink_down": ("sink",),
    "sink_gap": ("sink",),
    "sink_up": ("sink",),
}
"""Events that may repeat, each with the fields that tell its subjects apart."""

_log: FilteringBoundLogger = structlog.get_logger()


# The gateway's life.


def started(gateway_id: str, version: str, config: str) -> None:
    """The process has read its configuration and begins to build itself."""
    _log.info("started", gateway_id=gateway_id, version=version, config=config)


def configuration_warned(warning: str) -> None:
    """The configuration or a rule file holds something that is allowed and probably not meant."""
    _log.warning("configuration_warned", warning=warning)


def ready(startup_s: float) -> None:
    """Recovered, bound and consuming."""
    _log.info("ready", startup_s=round(startup_s, 3))


def stopping(cause: str) -> None:
    """Draining begins; `cause` is a signal's name or a sentence."""
    _log.info("stopping", cause=cause)


def stopped(uptime_s: float, *, drained: bool) -> None:
    """The process ends. `drained`: every stage finished in time."""
    _log.info("stopped", uptime_s=round(uptime_s, 1), drained=drained)


def task_failed(task: str, error: BaseException) -> None:
    """A task ended that should have run on: a bug."""
    _log.error("task_failed", task=task, error=str(error), error_type=type(error).__name__, exc_info=error)


def task_retried(task: str, *, error: str, retry_s: float) -> None:
    """The disk refused something that can wait; nothing is lost by it."""
    _log.warning("task_retried", task=task, error=error, retry_s=retry_s)


def clock_jumped(by_s: float, *, synced: bool) -> None:
    """The wall clock was set. No duration in the gateway moved."""
    _log.info("clock_jumped", by_s=round(by_s, 3), synced=synced)


def library_warned(library: str, message: str, error: BaseException | None = None) -> None:
    """A library said something over `logging`."""
    _log.warning("library_warned", library=library, message=message, exc_info=error)


# The ring log and its disk.


def log_recovered(log: str, *, events: int, segments: int, torn_bytes: int, duration_s: float) -> None:
    """The log was read and is open for appending. `torn_bytes`: what a crash left half-written at the end."""
    _log.info(
        "log_recovered",
        log=log,
        events=events,
        segments=segments,
        torn_bytes=torn_bytes,
        duration_s=round(duration_s, 3),
    )


def log_damaged(log: str, *, segment: str, offset: int, length_bytes: int, why: str) -> None:
    """Bytes in the log are not what was written; the records around them are served."""
    _log.error("log_damaged", log=log, segment=segment, offset=offset, length_bytes=length_bytes, why=why)


def log_put_back(log: str, *, directory: str) -> None:
    """A repair broke off between two steps; what it had made, or the original, is the log now."""
    _log.warning("log_put_back", log=log, directory=directory)


def log_evicted(log: str, *, from_seq: int, to_seq: int, events: int, unsent: int, reason: str) -> None:
    """The oldest segment was given up. `unsent`: events in it that at least one sink had not seen."""
    say = _log.warning if unsent else _log.debug
    say("log_evicted", log=log, from_seq=from_seq, to_seq=to_seq, events=events, unsent=unsent, reason=reason)


def disk_slow(log: str, *, sync_s: float) -> None:
    """One sync took long enough for acknowledgements and commands to notice."""
    _log.warning("disk_slow", log=log, sync_s=round(sync_s, 3))


def disk_failed(log: str, *, operation: str, error: str) -> None:
    """A write or sync was refused: nothing is acknowledged until the disk takes data again."""
    _log.error("disk_failed", log=log, operation=operation, error=error)


def disk_full(log: str, *, error: str) -> None:
    """There is no room for more of this log, and nothing gives way: nothing is acknowledged until there is."""
    _log.error("disk_full", log=log, error=error)


def disk_recovered(log: str, *, after_s: float) -> None:
    """Data is being stored again."""
    _log.info("disk_recovered", log=log, after_s=round(after_s, 1))


# Receiving.


def listening(service: str, address: str) -> None:
    """A port is open. `service`: `mqtt` or `http`."""
    _log.info("listening", service=service, address=address)


def broker_connected(address: str, *, session_present: bool) -> None:
    """Connected to the broker beside us."""
    _log.info("broker_connected", address=address, session_present=session_present)


def broker_lost(address: str, *, error: str, retry_s: float) -> None:
    """The broker beside us is away."""
    _log.warning("broker_lost", address=address, error=error, retry_s=round(retry_s, 1))


def refused(action: str, *, peer: str, client_id: str, user: str, subject: str, code: str, detail: str) -> None:
    """A device wanted something and was not given it. Repetitions within a minute are counted in the audit trail."""
    shown = {key: value for key, value in (("client_id", client_id), ("user", user), ("subject", subject)) if value}
    _log.warning("refused", action=action, peer=peer, **shown, code=code, detail=detail)


def protocol_broken(peer: str, *, code: str, detail: str) -> None:
    """A device broke the protocol and was disconnected."""
    _log.warning("protocol_broken", peer=peer, code=code, detail=detail)


def queue_full(queue: str, *, dropped: int) -> None:
    """A bounded queue dropped what its overflow policy says."""
    _log.warning("queue_full", queue=queue, dropped=dropped)


def payload_rejected(topic: str, *, code: str, detail: str) -> None:
    """A payload became a dead letter."""
    _log.warning("payload_rejected", topic=topic, code=code, detail=detail)


# Rules and what they do.


def rules_loaded(*, rules: int, thermostats: int, files: int) -> None:
    """The rule files were compiled."""
    _log.info("rules_loaded", rules=rules, thermostats=thermostats, files=files)


def rule_failed(rule: str, *, key: str, error: str) -> None:
    """A rule's expression could not be evaluated: its condition is unknown, neither true nor false."""
    _log.warning("rule_failed", rule=rule, key=key, error=error)


def rules_reloaded(*, rules: int, dropped: list[str]) -> None:
    """Other rules decide from now on."""
    _log.info("rules_reloaded", rules=rules, dropped=dropped)


def rules_refused(*, problems: list[str]) -> None:
    """A reload found something wrong: the former rules go on deciding."""
    _log.error("rules_refused", problems=problems)


def command_denied(topic: str, *, rule: str, why: str) -> None:
    """The interlock held a command back."""
    _log.warning("command_denied", topic=topic, rule=rule, why=why)


def command_unconfirmed(topic: str, *, rule: str, tries: int) -> None:
    """A device never reported what it was told to do."""
    _log.error("command_unconfirmed", topic=topic, rule=rule, tries=tries)


def command_ahead_of_record(topic: str, *, waited_s: float) -> None:
    """The disk stalled, so a command left before its decision was durable."""
    _log.warning("command_ahead_of_record", topic=topic, waited_s=round(waited_s, 3))


def made_safe(topic: str, *, cause: str) -> None:
    """An actuator was sent its safe state."""
    _log.warning("made_safe", topic=topic, cause=cause)


def notification(to: str, text: str, *, rule: str) -> None:
    """A rule tells a person something."""
    _log.warning("notification", to=to, text=text, rule=rule)


def notification_failed(to: str, *, why: str) -> None:
    """A receiver was not told, or not at every address: it refused, never answered, or the gateway stopped first."""
    _log.error("notification_failed", to=to, why=why)


# Forwarding.


def sink_up(sink: str, *, pending: int, down_s: float | None = None) -> None:
    """A sink accepts events. `down_s`: how long it had not; None at the start."""
    _log.info("sink_up", sink=sink, pending=pending, down_s=None if down_s is None else round(down_s, 1))


def sink_down(sink: str, *, error: str, retry_s: float) -> None:
    """A sink cannot be reached or refuses for now. Said once per outage; events wait in the log."""
    _log.warning("sink_down", sink=sink, error=error, retry_s=round(retry_s, 1))


def sink_dead_lettered(sink: str, *, reason: str, events: int, detail: str) -> None:
    """A sink will never accept these events; they are in the dead-letter log."""
    _log.error("sink_dead_lettered", sink=sink, reason=reason, events=events, detail=detail)


def sink_gap(sink: str, *, from_seq: int, to_seq: int, events: int, reason: str) -> None:
    """A sink missed events for good: evicted before it saw them, or damaged on disk."""
    _log.error("sink_gap", sink=sink, from_seq=from_seq, to_seq=to_seq, events=events, reason=reason)


# The operator.


def request_failed(method: str, path: str, error: BaseException) -> None:
    """An HTTP request met a bug."""
    _log.error("request_failed", method=method, path=path, error=str(error), exc_info=error)


def dead_letters_replayed(*, events: int, by: str) -> None:
    """An operator put dead letters back into the log."""
    _log.info("dead_letters_replayed", events=events, by=by)

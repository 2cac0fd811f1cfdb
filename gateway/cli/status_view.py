"""A `GatewayStatus` for a person: tables for a terminal, plain lines for anything else. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gateway.cli.words import count, duration, moment, size
from gateway.observe.status import imbalances
from gateway.observe.text import escape, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType

    from gateway.observe.status import GatewayStatus, SinkStatus

_GOOD, _BAD, _WAITING, _QUIET = "green", "bold red", "yellow", "dim"
_MAX_ERROR_CHARS = 60


def table(status: GatewayStatus) -> RenderableType:
    """The whole status for a terminal of any width."""
    parts: list[RenderableType] = [_headline(status), _facts(status)]
    if status.sinks:
        parts.append(_sinks(status))
    if status.rules:
        parts.append(_rules(status))
    return Group(*parts)


def lines(status: GatewayStatus) -> list[str]:
    """The same as plain lines, one fact each, for pipes and logs."""
    found = [f"{escape(status.gateway_id)}: {condition(status)}, up {duration(status.uptime_s)}, {status.version}"]
    found += [f"problem: {escape(problem)}" for problem in status.problems]
    found += [f"does not balance: {escape(sentence)}" for sentence in imbalances(status)]
    found += [f"{name}: {value}" for name, value in _named_facts(status)]
    for sink in status.sinks:
        error = f", {shorten(sink.last_error, _MAX_ERROR_CHARS)}" if sink.last_error else ""
        found.append(
            f"sink {escape(sink.name)} ({sink.type}): {'up' if sink.up else 'down'}, {count(sink.received)} received,"
            f" {count(sink.delivered)} delivered, {count(sum(sink.dead_lettered.values()))} dead-lettered,"
            f" {count(sink.evicted)} evicted, {count(sink.pending)} pending{error}"
        )
    for rule in status.rules:
        detail = f", {shorten(rule.detail, _MAX_ERROR_CHARS)}" if rule.detail else ""
        found.append(f"{rule.kind} {escape(rule.id)}: {escape(rule.state)}, {count(rule.firings)} firings{detail}")
    return found


def condition(status: GatewayStatus) -> str:
    """One or two words."""
    if not status.healthy:
        return "unhealthy"
    return "ready" if status.ready else "not ready"


def _headline(status: GatewayStatus) -> RenderableType:
    fine = status.healthy and status.ready
    text = Text.assemble(
        ("● ", _GOOD if fine else _BAD),
        (escape(status.gateway_id), "bold"),
        "  ",
        (condition(status), _GOOD if fine else _BAD),
        (f"  up {duration(status.uptime_s)}  since {moment(status.started_wall_ns)[:-4]}  {status.version}", _QUIET),
    )
    for problem in (*status.problems, *(f"does not balance: {sentence}" for sentence in imbalances(status))):
        text.append(f"\n  {escape(problem)}", _BAD)
    text.append("\n")
    return text


def _facts(status: GatewayStatus) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=_QUIET)
    grid.add_column(overflow="fold")
    for name, value in _named_facts(status):
        grid.add_row(f"  {name}", value)
    return grid


def _named_facts(status: GatewayStatus) -> Iterator[tuple[str, str]]:
    log = status.log
    full = f" ({100 * log.bytes / log.max_bytes:.0f} %)" if log.max_bytes else ""
    yield (
        "log",
        f"{count(log.events)} events, {size(log.bytes)} of {size(log.max_bytes)}{full}, {log.segments} segments",
    )
    waiting = log.appended_seq - log.durable_seq
    yield "durable", f"up to {log.durable_seq:,}" + (f", {waiting:,} on their way to the disk" if waiting else "")
    if log.sync.count:
        usual, slow = duration(log.sync.quantile_s(0.5)), duration(log.sync.quantile_s(0.99))
        yield "sync", f"{usual} median, {slow} for 99 %, {duration(log.sync.max_s)} at most"
    if log.evicted:
        yield "evicted", _counts(log.evicted)
    if log.damaged:
        yield "damaged", f"{log.damaged} places; `gateway log verify` says where"
    ingest = status.ingest
    rejected = f", rejected {_counts(ingest.rejected)}" if ingest.rejected else ""
    yield (
        "ingest",
        f"{count(ingest.received)} received, {count(ingest.stored)} stored, {count(ingest.not_stored)} only routed"
        + rejected,
    )
    if status.listener is not None:
        yield "listener", f"{status.listener.address}, {count(status.listener.connections)} devices connected"
    if status.broker is not None:
        state = "connected" if status.broker.connected else f"away: {shorten(status.broker.last_error, 60)}"
        yield "broker", f"{escape(status.broker.address)}, {state}"
    if status.commands:
        took = status.event_to_command
        median = f"; {duration(took.quantile_s(0.5))} median from event to command" if took.count else ""
        yield "commands", _counts(status.commands) + median
    if status.notifications or status.notifications_waiting:
        now_waiting = {"waiting": status.notifications_waiting} if status.notifications_waiting else {}
        yield "notifications", _counts({**status.notifications, **now_waiting})
    letters = status.dead_letters
    if letters.records:
        yield "dead letters", f"{count(letters.records)}, {size(letters.bytes)}; `gateway dlq list` shows them"


def _sinks(status: GatewayStatus) -> RenderableType:
    found = _table("sink", "type", "", "received", "delivered", "dead", "evicted", "pending", "last error")
    for sink in status.sinks:
        dead = sum(sink.dead_lettered.values())
        found.add_row(
            escape(sink.name),
            sink.type,
            sink_state(sink),
            count(sink.received),
            count(sink.delivered),
            Text(count(dead), style=_BAD if dead else ""),
            Text(count(sink.evicted), style=_BAD if sink.evicted else ""),
            Text(count(sink.pending), style=_WAITING if sink.pending else ""),
            Text(shorten(sink.last_error, _MAX_ERROR_CHARS), style=_QUIET),
        )
    return found


def sink_state(sink: SinkStatus) -> Text:
    """`up`, or `down` with when it will be tried again."""
    if sink.up:
        return Text("up", style=_GOOD)
    wait = f", again in {duration(sink.next_try_s)}" if sink.next_try_s else ""
    return Text(f"down{wait}", style=_BAD)


def _rules(status: GatewayStatus) -> RenderableType:
    found = _table("rule", "kind", "state", "firings", "last", "")
    for rule in status.rules:
        found.add_row(
            escape(rule.id),
            rule.kind,
            escape(rule.state),
            count(rule.firings),
            moment(rule.last_fired_wall_ns)[:-4] if rule.last_fired_wall_ns else "-",
            Text(shorten(rule.detail, _MAX_ERROR_CHARS), style=_QUIET),
        )
    return found


_NUMBERS = ("received", "delivered", "dead", "evicted", "pending", "firings")


def _table(*columns: str) -> Table:
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style=_QUIET)
    for column in columns:
        found.add_column(column, justify="right" if column in _NUMBERS else "left", no_wrap=column in _NUMBERS)
    return found


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count(number)} {escape(name)}" for name, number in sorted(counts.items()))

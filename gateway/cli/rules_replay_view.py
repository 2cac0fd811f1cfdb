"""What `gateway rules backtest` found, as lines for a person and as JSON for a machine. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.cli.rules_history import local
from gateway.cli.words import count, duration, utc
from gateway.model import Command, Emit, Notify, Publish, Set
from gateway.observe.text import escape, preview, shorten
from gateway.rules.trying.tally import ActuatorCount, RuleCount

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import tzinfo

    from gateway.cli.rules_comparison import Backtest
    from gateway.cli.rules_history import History
    from gateway.model import Action, Decision
    from gateway.rules.trying.replay import Dates

_MOST_ROWS = 40
_MOST_DECISIONS = 5


def backtest_lines(done: Backtest, zone: tzinfo | None) -> Iterator[str]:
    """For a person, with times in the gateway's zone."""
    per_s = done.events / done.took_s if done.took_s > 0 else 0
    span = f"{when(done.began_ns, zone)} to {when(done.ended_ns, zone)}"
    yield f"{span}: {count(done.events)} events replayed in {duration(done.took_s)} ({count(per_s)}/s)"
    yield from reservations(done.history, zone)
    yield ""
    yield from _rule_lines(done, zone)
    if done.new.actuators or done.old.actuators:
        yield ""
        yield from _actuator_lines(done)
    yield ""
    yield from _difference_lines(done, zone)


def backtest_json(done: Backtest) -> str:
    """For a machine. Times in RFC 3339, UTC."""
    dates = done.history.dates

    def side(tally: Any) -> dict[str, Any]:
        return {
            "rules": {name: _rule_json(rule, dates) for name, rule in sorted(tally.rules.items())},
            "actuators": {
                topic: {"switched_on": each.switched_on, "on_s": each.on_ns / 1e9, "is_on": each.is_on}
                for topic, each in sorted(tally.actuators.items())
            },
        }

    first = done.difference
    found: dict[str, Any] = {
        "same": done.same,
        "from": utc(done.began_ns),
        "to": utc(done.ended_ns),
        "events": done.events,
        "took_s": round(done.took_s, 3),
        "warm_up_s": done.history.warmed_ns / 1e9,
        "missing": done.history.missing,
        "new": side(done.new),
        "log" if done.against_log else "against": side(done.old),
        "left_aside": dict(done.left_aside),
        "differences": done.differences,
        "differences_complete": not done.overflow,
        "first_difference": None
        if first is None
        else {
            "time": utc(dates.wall_ns(first.at_ns)),
            "new": [decision_json(each, dates) for each in first.new],
            "old": [decision_json(each, dates) for each in first.old],
        },
    }
    return msgspec.json.format(msgspec.json.encode(found)).decode()


def reservations(history: History, zone: tzinfo | None) -> Iterator[str]:
    """What is to be known before one believes the rest: what is missing, how far the log goes back."""
    for line in history.missing[:_MOST_ROWS]:
        yield f"missing: {line}"
    if len(history.missing) > _MOST_ROWS:
        yield f"missing: {count(len(history.missing) - _MOST_ROWS)} parts more"
    oldest_ns, evicted = history.oldest_ns, history.log.first_seq
    if oldest_ns is None:
        yield "the log is empty"
    elif oldest_ns > history.from_ns:
        gone = f", the {count(evicted)} records before have been evicted: rules begin there, knowing nothing"
        yield f"the log begins at {when(oldest_ns, zone)}{gone if evicted else ''}"
    elif evicted and history.warmed_ns < history.wanted_warm_up_ns:
        yield (
            f"the log holds {duration(history.warmed_ns / 1e9)} before that, rules want"
            f" {duration(history.wanted_warm_up_ns / 1e9)} to warm up: what they do at the beginning may be wrong"
        )


def _rule_lines(done: Backtest, zone: tzinfo | None) -> Iterator[str]:
    was = "was" if done.against_log else "against"
    rows = []
    for name in sorted({*done.new.rules, *done.old.rules}):
        new, old = done.new.rules.get(name, RuleCount()), done.old.rules.get(name, RuleCount())
        fired = "-" if new.firings is None else count(new.firings)
        if old.firings is not None and old.firings != new.firings:
            fired += f" ({was} {count(old.firings)})"
        span = ""
        if new.first_ns is not None and new.last_ns is not None:
            first, last = (when(done.history.dates.wall_ns(each), zone) for each in (new.first_ns, new.last_ns))
            span = first if first == last else f"{first} … {last}"
        rows.append((escape(name), fired, _counts(new.actions, old.actions, was) or "nothing", span))
        rows += [("", "", f"near miss: {what} {count(times)}", "") for what, times in sorted(new.near_misses.items())]
        if old.refused:
            rows.append(("", "", f"refused in life: {count(old.refused)}", ""))
    yield from _table([("rule", "fired", "what it did", "first and last"), *rows])


def _counts(new: Mapping[str, int], old: Mapping[str, int], was: str) -> str:
    parts = []
    for name in sorted({*new, *old}):
        now, before = new.get(name, 0), old.get(name, 0)
        parts.append(f"{name} {count(now)}" + (f" ({was} {count(before)})" if now != before else ""))
    return ", ".join(map(escape, parts))


def _actuator_lines(done: Backtest) -> Iterator[str]:
    was = "was" if done.against_log else "against"
    rows = [("actuator", "switched on", "on for")]
    for topic in sorted({*done.new.actuators, *done.old.actuators}):
        new = done.new.actuators.get(topic, ActuatorCount())
        old = done.old.actuators.get(topic, ActuatorCount())
        times, span = count(new.switched_on), duration(new.on_ns / 1e9)
        if new.switched_on != old.switched_on:
            times += f" ({was} {count(old.switched_on)})"
        if abs(new.on_ns - old.on_ns) >= 1_000_000_000:
            span += f" ({was} {duration(old.on_ns / 1e9)})"
        rows.append((escape(topic), times, span))
    yield from _table(rows)


def _difference_lines(done: Backtest, zone: tzinfo | None) -> Iterator[str]:
    old = "the log" if done.against_log else "against"
    if done.left_aside:
        names = ", ".join(f"{escape(name)} {count(times)}" for name, times in sorted(done.left_aside.items())[:10])
        yield f"left aside, since not on trial: decisions of {names}" + (", …" if len(done.left_aside) > 10 else "")
    first = done.difference
    if first is None:
        yield "no difference to what happened" if done.against_log else "no difference between the two"
        return
    least = "at least " if done.overflow else ""
    dates = done.history.dates
    at = when(dates.wall_ns(first.at_ns), zone)
    differ = "decision differs" if done.differences == 1 else "decisions differ"
    yield f"{least}{count(done.differences)} {differ}, the first at {at}:"
    for name, decisions, following in (("new", first.new, first.next_new), (old, first.old, first.next_old)):
        for decision in decisions[:_MOST_DECISIONS]:
            yield f"  {name}: {decision_line(decision)}"
        if len(decisions) > _MOST_DECISIONS:
            yield f"  {name}: {count(len(decisions) - _MOST_DECISIONS)} more"
        if not decisions:
            later = "" if following is None else f"; at {when(dates.wall_ns(following.elapsed_ns), zone)}"
            yield f"  {name}: nothing{later}" + ("" if following is None else f" {decision_line(following)}")


def decision_line(decision: Decision) -> str:
    """Who, what, and why, on one line."""
    key = f" [{escape(decision.key)}]" if decision.key else ""
    shadow = " (shadow)" if decision.shadow else ""
    return f"{escape(decision.rule)}{key}{shadow}: {action_text(decision.action)}: {shorten(decision.because, 200)}"


def action_text(action: Action) -> str:
    """What is done, on one line."""
    match action:
        case Command(topic, payload, state):
            word = f"command {escape(topic)}" + (f" {state}" if state is not None else "")
            return word if state is not None else f"{word} {preview(payload, 80)}"
        case Publish(topic, payload):
            return f"publish {escape(topic)} {preview(payload, 80)}"
        case Emit(topic, payload):
            return f"emit {escape(topic)} {preview(payload, 80)}"
        case Notify(to, text):
            return f"notify {escape(to)}: {shorten(text, 160)}"
        case Set(name, value):
            return f"set {escape(name)} = {shorten(msgspec.json.encode(value).decode(), 80)}"


def decision_json(decision: Decision, dates: Dates) -> dict[str, Any]:
    """A decision with its time."""
    return {"time": utc(dates.wall_ns(decision.elapsed_ns)), **msgspec.to_builtins(decision)}


def when(wall_ns: int, zone: tzinfo | None) -> str:
    """`2026-05-04 13:07:09`, in a zone."""
    return f"{local(wall_ns, zone):%Y-%m-%d %H:%M:%S}"


def _rule_json(rule: RuleCount, dates: Dates) -> dict[str, Any]:
    return {
        "firings": rule.firings,
        "actions": dict(sorted(rule.actions.items())),
        "near_misses": dict(sorted(rule.near_misses.items())),
        "refused": rule.refused,
        "first": None if rule.first_ns is None else utc(dates.wall_ns(rule.first_ns)),
        "last": None if rule.last_ns is None else utc(dates.wall_ns(rule.last_ns)),
    }


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Columns aligned; the last one is as long as it is."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for row in rows:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()

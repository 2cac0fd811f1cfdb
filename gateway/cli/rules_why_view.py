"""What `gateway rules why` found, as lines for a person and as JSON for a machine. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.cli.log_view import marks_of
from gateway.cli.rules_history import local
from gateway.cli.rules_replay_view import action_text, decision_json, reservations, when
from gateway.cli.words import count, duration, utc
from gateway.model import Command
from gateway.observe.text import escape, preview, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import tzinfo

    from gateway.cli.rules_account import Account, EventAccount
    from gateway.cli.rules_chain import Chain
    from gateway.model import Decision, Event, Outcome
    from gateway.rules.compiled import RuleSet
    from gateway.rules.trying.reasons import Hearing, Moment
    from gateway.rules.trying.replay import Dates

_MOST_MOMENTS = 200
_MOST_STANDING = 20
_WORDS = {
    "fired": "FIRED",
    "ended": "ENDED",
    "stale": "SILENT",
    "decided": "DECIDED",
    "again": "said again",
    "pending": "pending",
    "reset": "not for long enough",
    "late": "too late",
    "cooling": "cooling down",
    "gated": "not allowed",
    "unarmed": "not armed",
    "storm": "held back",
}
"""Changes stand out; everything else is a near miss."""


def account_lines(found: Account, rules: RuleSet | None, zone: tzinfo | None) -> Iterator[str]:
    """For a person, with times in the gateway's zone."""
    history = found.history
    yield f"{escape(found.rule)}, {when(history.from_ns, zone)} to {when(history.to_ns, zone)}"
    yield from reservations(history, zone)
    if rules is None:
        yield "only what the log says was decided: near misses need the rules, so give --config"
    yield from _edited_lines(found, zone)
    yield from _standing_lines(found, zone)
    yield ""
    yield from _moments_lines(found, zone)
    if not found.story.fired and not any(moment.decisions for moment in found.moments):
        yield from _why_nothing(found, rules, zone)


def _standing_lines(found: Account, zone: tzinfo | None) -> Iterator[str]:
    """Where it stood at the instant that was asked for."""
    dates, mark_ns = found.history.dates, found.history.mark_ns
    if mark_ns is None or found.hearing is None:
        return
    at = f"at {when(mark_ns, zone)}"
    if not found.standing:
        yield f"{at}: it had not seen anything yet"
    for status in found.standing[:_MOST_STANDING]:
        since = f" since {when(dates.wall_ns(status.since_ns), zone)}" if status.since_ns else ""
        yield f"{at}{_key(status.key)}: {status.phase}{since}, {escape(status.readings)}"
    if len(found.standing) > _MOST_STANDING:
        yield f"{at}: {count(len(found.standing) - _MOST_STANDING)} keys more; --device names one"


def _edited_lines(found: Account, zone: tzinfo | None) -> Iterator[str]:
    dates = found.history.dates
    if found.changed_ns:
        at = when(dates.wall_ns(found.changed_ns[-1]), zone)
        yield f"another rule stood under this id, the last time as rules were read at {at}: told is what today's does"
    if found.not_replayed:
        first = found.not_replayed[0]
        at = when(dates.wall_ns(first.elapsed_ns), zone)
        yield (
            f"the log holds {count(len(found.not_replayed))} decisions that today's rule does not take, the first at"
            f" {at}: {action_text(first.action)}: {shorten(first.because, 200)}"
        )


def _moments_lines(found: Account, zone: tzinfo | None) -> Iterator[str]:
    moments = found.moments
    earlier = len(moments) - _MOST_MOMENTS + found.story.forgotten
    if earlier > 0:
        some = "the newest of " if found.story.forgotten else ""
        yield f"{count(earlier)} moments before these; --json has {some}them"
    day = ""
    for moment in moments[-_MOST_MOMENTS:]:
        today = f"{local(found.history.dates.wall_ns(moment.at_ns), zone):%A %Y-%m-%d}"
        if today != day:
            day = today
            yield day
        yield from _moment_lines(moment, found.history.dates, zone, found.records.outcomes, found.not_logged)


def _moment_lines(
    moment: Moment,
    dates: Dates,
    zone: tzinfo | None,
    outcomes: Mapping[str, list[Outcome]],
    not_logged: Iterable[str] = (),
) -> Iterator[str]:
    word = _WORDS.get(moment.what, moment.what)
    line = f"  {clock(moment.at_ns, dates, zone)}{_key(moment.key)}  {word}: {shorten(moment.detail, 300)}"
    if moment.readings and moment.readings not in moment.detail:
        line += f" ({shorten(moment.readings, 300)})"
    if moment.pending_ns is not None:
        line += f", pending since {clock(moment.pending_ns, dates, zone)}"
    if moment.times > 1:
        line += f"; {count(moment.times)} times until {clock(moment.until_ns, dates, zone)}"
    yield line
    for decision in moment.decisions:
        yield f"      {action_text(decision.action)}: {_fate(decision, outcomes, not_logged)}"


def _fate(decision: Decision, outcomes: Mapping[str, list[Outcome]], not_logged: Iterable[str]) -> str:
    """What became of a decision."""
    if decision.shadow:
        return "on trial (shadow), nobody acted on it"
    if decision.id in not_logged:
        return "today's rule would have; the log holds no such decision"
    found = outcomes.get(decision.id, [])
    if not found:
        return "decided" if not isinstance(decision.action, Command) else "no end of it is recorded"
    return ", ".join(outcome_text(outcome, decision) for outcome in found)


def outcome_text(outcome: Outcome, decision: Decision) -> str:
    """`confirmed after 120 ms (at try 1)`, `denied: off for 20 s, min_off is 180 s`."""
    after_s = max(outcome.elapsed_ns - decision.elapsed_ns, 0) / 1e9
    after = "at once" if after_s < 0.001 else f"after {duration(after_s)}"
    detail = shorten(outcome.detail, 200)
    if outcome.state in {"denied", "expired"}:
        return f"{outcome.state}: {detail}"
    return f"{outcome.state} {after}" + (f" ({detail})" if detail else "")


def _why_nothing(found: Account, rules: RuleSet | None, zone: tzinfo | None) -> Iterator[str]:
    """It did nothing in all that time: what it heard, and what stood there."""
    hearing = found.hearing
    if hearing is None or rules is None:
        yield "it decided nothing"
        return
    owner = next(owner for owner in rules.everyone if owner.id == found.rule)
    topics = ", ".join(escape(source.text) for source in owner.sources)
    dates = found.history.dates
    if not topics:
        yield "it decided nothing: none of its times came, or its condition did not hold then"
    elif not hearing.events:
        last = "" if hearing.last_ns is None else f"; the last one came at {when(dates.wall_ns(hearing.last_ns), zone)}"
        back = "" if last else f", nor in the {duration(found.history.warmed_ns / 1e9)} before"
        yield f"no event came on {topics}{last}{back}"
    elif hearing.not_fresh == hearing.events:
        yield f"{count(hearing.events)} events came on {topics}, all of them retained, duplicates or replayed"
    else:
        yield from _what_it_heard(hearing, topics, dates, zone)


def _what_it_heard(hearing: Hearing, topics: str, dates: Dates, zone: tzinfo | None) -> Iterator[str]:
    odd = f", {count(hearing.not_fresh)} of them retained, duplicates or replayed" if hearing.not_fresh else ""
    heard = f"{count(hearing.events)} events came on {topics}{odd}"
    condition = hearing.condition
    if condition is not None and hearing.truths:
        truths = ", ".join(f"{name} {count(times)} times" for name, times in sorted(hearing.truths.items()))
        yield f"{heard}: `{condition.source}` was {truths}"
    else:
        yield heard
    for name, found in hearing.extremes.items():
        least, most = (when(dates.wall_ns(each), zone) for each in (found.least_ns, found.most_ns))
        yield f"  {escape(name)} was between {found.least:.6g} (at {least}) and {found.most:.6g} (at {most})"


def account_json(found: Account) -> str:
    """For a machine. Times in RFC 3339, UTC."""
    dates, outcomes = found.history.dates, found.records.outcomes
    hearing = found.hearing
    told: dict[str, Any] = {
        "rule": found.rule,
        "from": utc(found.history.from_ns),
        "to": utc(found.history.to_ns),
        "missing": found.history.missing,
        "warm_up_s": found.history.warmed_ns / 1e9,
        "fired": found.story.fired,
        "near_misses": dict(found.story.near_misses),
        "standing": [msgspec.to_builtins(status) for status in found.standing],
        "moments": [_moment_json(moment, dates, outcomes, found.not_logged) for moment in found.moments],
        "moments_left_out": found.story.forgotten,
        "edited_until": utc(dates.wall_ns(found.changed_ns[-1])) if found.changed_ns else None,
        "not_replayed": [decision_json(decision, dates) for decision in found.not_replayed],
        "heard": None
        if hearing is None
        else {
            "events": hearing.events,
            "not_fresh": hearing.not_fresh,
            "truths": dict(hearing.truths),
            "last": None if hearing.last_ns is None else utc(dates.wall_ns(hearing.last_ns)),
            "extremes": {name: {"least": each.least, "most": each.most} for name, each in hearing.extremes.items()},
        },
    }
    return _json(told)


def _moment_json(
    moment: Moment, dates: Dates, outcomes: Mapping[str, list[Outcome]], not_logged: Iterable[str] = ()
) -> dict[str, Any]:
    return {
        "time": utc(dates.wall_ns(moment.at_ns)),
        "key": moment.key,
        "what": moment.what,
        "change": moment.is_change,
        "detail": moment.detail,
        "readings": moment.readings,
        "seq": moment.seq,
        "times": moment.times,
        "until": utc(dates.wall_ns(moment.until_ns)),
        "pending_since": None if moment.pending_ns is None else utc(dates.wall_ns(moment.pending_ns)),
        "decisions": [
            {
                **decision_json(decision, dates),
                "logged": decision.id not in not_logged,
                "outcomes": [msgspec.to_builtins(outcome) for outcome in outcomes.get(decision.id, [])],
            }
            for decision in moment.decisions
        ],
    }


def event_lines(told: EventAccount, zone: tzinfo | None) -> Iterator[str]:
    """For a person: the event, then every rule that it concerned."""
    event, dates = told.event, told.history.dates
    yield _event_text(event, told.wall_ns, zone)
    yield from reservations(told.history, zone)
    if not told.reached:
        yield f"no rule listens to {escape(event.topic)}"
    for reached in told.reached:
        yield ""
        yield f"{escape(reached.rule)}{_key(reached.key)}" + (f": {reached.why_not}" if reached.why_not else "")
        for moment in reached.moments:
            yield from _moment_lines(moment, dates, zone, reached.outcomes)
        if reached.later:
            yield "  and later by itself, or with other events:"
            for moment in reached.later:
                yield from _moment_lines(moment, dates, zone, reached.outcomes)


def event_json(told: EventAccount) -> str:
    """For a machine."""
    dates = told.history.dates
    return _json(
        {
            "event": _event_json(told.event, told.wall_ns),
            "missing": told.history.missing,
            "rules": [
                {
                    "rule": each.rule,
                    "key": each.key,
                    "why_not": each.why_not or None,
                    "moments": [_moment_json(moment, dates, each.outcomes) for moment in each.moments],
                    "later": [_moment_json(moment, dates, each.outcomes) for moment in each.later],
                }
                for each in told.reached
            ],
        }
    )


def chain_lines(chain: Chain, zone: tzinfo | None) -> Iterator[str]:
    """For a person: one line for each link, with the time since the one before."""
    found = chain.found
    decision, zero_ns = found.decision, found.wall_ns - found.decision.elapsed_ns
    links: list[tuple[int, str, str]] = []
    events = {each.seq: each for each in (chain.began, chain.cause) if each is not None}
    links += [(each.stamp.elapsed_ns, "event", f"{each.seq} {_said(each)}") for each in events.values()]
    if chain.condition is not None:
        if chain.condition.pending_ns is not None and chain.began is None:
            links.append((chain.condition.pending_ns, "pending", "the condition holds"))
        links.append((chain.condition.at_ns, "condition", shorten(chain.condition.detail, 300)))
    who = f"{escape(decision.rule)}{_key(decision.key)}"
    links.append((decision.elapsed_ns, "decision", f"{who}: {shorten(decision.because, 300)}"))
    links.append((decision.elapsed_ns, "command", f"{action_text(decision.action)} (id {escape(decision.id)})"))
    if chain.confirmation is not None:
        links.append((chain.confirmation.stamp.elapsed_ns, "report", _said(chain.confirmation)))
    links += [(each.elapsed_ns, each.state, shorten(each.detail, 200)) for each in found.outcomes]
    links += [(each.elapsed_ns, "otherwise", action_text(each.action)) for each in found.compensations]
    links.sort(key=lambda link: link[0])
    before_ns = links[0][0]
    for at_ns, name, text in links:
        later = f"+{duration((at_ns - before_ns) / 1e9)}" if at_ns > before_ns else ""
        yield f"{_exactly(zero_ns + at_ns, zone)}  {later:>9}  {name:<11} {text}".rstrip()
        before_ns = at_ns
    if chain.cause_missing:
        yield chain.cause_missing
    elif not events:
        yield "no event led to it: time passed"
    if not found.outcomes:
        yield "no end of it is recorded"
    if found.repeated:
        until = when(found.repeated_wall_ns, zone)
        yield f"the same was said again {count(found.repeated)} times, the last time at {until}"
    if found.log != "events":
        yield f"told by the {found.log} trail: the events log no longer holds it"


def chain_json(chain: Chain) -> str:
    """For a machine."""
    found = chain.found
    zero_ns = found.wall_ns - found.decision.elapsed_ns
    cause, began, report, condition = chain.cause, chain.began, chain.confirmation, chain.condition
    return _json(
        {
            "time": utc(found.wall_ns),
            "decision": msgspec.to_builtins(found.decision),
            "log": found.log,
            "repeated": found.repeated,
            "event": None if cause is None else _event_json(cause, zero_ns + cause.stamp.elapsed_ns),
            "pending_since": None if began is None else _event_json(began, zero_ns + began.stamp.elapsed_ns),
            "event_missing": chain.cause_missing or None,
            "condition": None
            if condition is None
            else {"what": condition.what, "detail": condition.detail, "readings": condition.readings},
            "outcomes": [
                {
                    **msgspec.to_builtins(outcome),
                    "time": utc(zero_ns + outcome.elapsed_ns),
                    "after_s": (outcome.elapsed_ns - found.decision.elapsed_ns) / 1e9,
                }
                for outcome in found.outcomes
            ],
            "confirmation": None if report is None else _event_json(report, zero_ns + report.stamp.elapsed_ns),
            "otherwise": [msgspec.to_builtins(each) for each in found.compensations],
        }
    )


def clock(at_ns: int, dates: Dates, zone: tzinfo | None) -> str:
    """`13:07:09.250`, in a zone."""
    wall_ns = dates.wall_ns(at_ns)
    return f"{local(wall_ns, zone):%H:%M:%S}.{wall_ns // 1_000_000 % 1000:03d}"


def _event_text(event: Event, wall_ns: int, zone: tzinfo | None) -> str:
    return f"{_exactly(wall_ns, zone)}  {event.seq}  {_said(event)}"


def _exactly(wall_ns: int, zone: tzinfo | None) -> str:
    return f"{when(wall_ns, zone)}.{wall_ns // 1_000_000 % 1000:03d}"


def _said(event: Event) -> str:
    marks = marks_of(event.flags)
    return f"{escape(event.topic)} {preview(event.payload)}" + (f" [{', '.join(marks)}]" if marks else "")


def _event_json(event: Event, wall_ns: int) -> dict[str, Any]:
    return {
        "id": event.id,
        "seq": event.seq,
        "time": utc(wall_ns),
        "topic": event.topic,
        "payload": preview(event.payload),
        "marks": marks_of(event.flags),
    }


def _key(key: str) -> str:
    return f" [{escape(key)}]" if key else ""


def _json(told: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(told)).decode()

"""Verdicts on timelines: as text for a person, as JSON, and as JUnit's XML. Pure.

What a person sees of a failure: where and when, expected beside got, why it was decided, what came last, where the
rules stood and what they told of themselves.
"""

from __future__ import annotations

import html
import textwrap
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.cli.log_view import marks_of
from gateway.cli.words import duration, utc
from gateway.config.scalars import duration_text
from gateway.observe.text import escape, shorten
from gateway.rules.trying.difference import fields_of, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.model import Decision
    from gateway.rules.machines.machine import Status
    from gateway.rules.trying.difference import Row
    from gateway.rules.trying.testing import Failure, Verdict
    from gateway.rules.trying.timeline import Expected

_MOST_SHOWN = 8
"""Readings, rules and steps that are shown of a failure."""
_MOST_ROWS = 40
_MOST_CHARACTERS = 400
_LEAST_COLUMN = 20
_INDENT = " " * 6


def verdict_text(file: str, verdict: Verdict, width: int = 110) -> str:
    """One test: a line if it passed, else what went wrong.

    Args:
        file: where the test stands.
        verdict: what came of it.
        width: of the terminal, in characters.
    """
    name = escape(verdict.timeline.name)
    if verdict.failure is None:
        return f"ok    {escape(file)}  {name}"
    return "\n".join([f"FAIL  {escape(file)}  {name}", *_failure_lines(verdict.failure, width), ""])


def summary(verdicts: Sequence[tuple[str, Verdict]]) -> str:
    """One line over all."""
    files = len({file for file, _ in verdicts})
    failed = sum(verdict.failure is not None for _, verdict in verdicts)
    lasted = duration(sum(verdict.lasted_ns for _, verdict in verdicts) / 1e9)
    tests = f"{len(verdicts)} test{'s' * (len(verdicts) != 1)} in {files} file{'s' * (files != 1)}"
    return f"{f'{failed} failed' if failed else 'ok'}: {tests}, {lasted} of virtual time"


def verdicts_json(verdicts: Sequence[tuple[str, Verdict]]) -> str:
    """All of them as one object."""
    failed = sum(verdict.failure is not None for _, verdict in verdicts)
    tests = [_verdict_fields(file, verdict) for file, verdict in verdicts]
    return msgspec.json.encode({"ok": not failed, "failed": failed, "tests": tests}).decode()


def junit(verdicts: Sequence[tuple[str, Verdict]]) -> str:
    """All of them as JUnit's XML, a suite for each file."""
    suites = []
    for file in dict.fromkeys(file for file, _ in verdicts):
        own = [verdict for name, verdict in verdicts if name == file]
        failed = sum(verdict.failure is not None for verdict in own)
        cases = "".join(_case_xml(file, verdict) for verdict in own)
        suites.append(f'<testsuite name="{_xml(file)}" tests="{len(own)}" failures="{failed}">\n{cases}</testsuite>\n')
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n{"".join(suites)}</testsuites>\n'


def _case_xml(file: str, verdict: Verdict) -> str:
    head = f'<testcase classname="{_xml(file)}" name="{_xml(verdict.timeline.name)}" time="0"'
    if verdict.failure is None:
        return head + "/>\n"
    text = "\n".join(map(_xml, _failure_lines(verdict.failure, 110)))
    return f'{head}><failure message="{_xml(verdict.failure.message)}">\n{text}\n</failure></testcase>\n'


def _xml(text: str) -> str:
    return html.escape(escape(text))


def _verdict_fields(file: str, verdict: Verdict) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "file": file,
        "name": verdict.timeline.name,
        "place": verdict.timeline.place,
        "ok": verdict.failure is None,
        "events": verdict.events,
        "decisions": len(verdict.decisions),
        "lasted_s": verdict.lasted_ns / 1e9,
    }
    if verdict.failure is not None:
        fields["failure"] = _failure_fields(verdict.failure)
    return fields


def _failure_fields(failure: Failure) -> dict[str, Any]:
    return {
        "place": failure.place,
        "at_s": failure.at_ns / 1e9,
        "time": utc(failure.wall_ns),
        "message": failure.message,
        "rows": [
            {
                "ok": row.is_as_expected,
                "expected": None if row.expected is None else _expected_fields(row.expected),
                "got": None if row.got is None else _got_fields(row.got),
                "differs": row.differs,
            }
            for row in failure.rows
        ],
        "readings": [
            {"at_s": each.at_ns / 1e9, "topic": each.topic, "value": each.value, "marks": marks_of(each.flags)}
            for each in failure.readings[:_MOST_SHOWN]
        ],
        "rules": [
            {"rule": each.rule, "key": each.key, "phase": each.phase, "since_s": each.since_ns / 1e9}
            for each in _of_interest(failure)
        ],
        "traced": [
            {
                "at_s": each.elapsed_ns / 1e9,
                "rule": each.rule,
                "key": each.key,
                "what": each.what,
                "detail": each.detail,
            }
            for each in failure.traced[-_MOST_SHOWN:]
        ],
    }


def _expected_fields(expected: Expected) -> dict[str, Any]:
    at_s = None if expected.at_ns is None else expected.at_ns / 1e9
    around = {"rule": expected.rule, "key": expected.key, "at_s": at_s, "because": expected.because}
    written = {name: value for name, value in around.items() if value is not None}
    return {expected.kind: expected.fields, **written, **({"shadow": True} if expected.shadow else {})}


def _got_fields(decision: Decision) -> dict[str, Any]:
    return {
        kind_of(decision): fields_of(decision),
        "rule": decision.rule,
        "key": decision.key,
        "at_s": decision.elapsed_ns / 1e9,
        "because": decision.because,
        **({"shadow": True} if decision.shadow else {}),
    }


def _failure_lines(failure: Failure, width: int) -> Iterator[str]:
    when = f"at {_at(failure.at_ns)} ({utc(failure.wall_ns).replace('.000000', '')})"
    yield f"{_INDENT}{escape(failure.place)}: {when}: {escape(failure.message)}"
    if failure.rows:
        yield ""
        yield from _table(failure.rows, width)
    for title, lines in (
        ("the latest readings", list(_reading_lines(failure))),
        ("where the rules stand", [_status_line(each) for each in _of_interest(failure)]),
        ("what the rules tell", list(_trace_lines(failure))),
    ):
        if lines:
            yield ""
            yield f"{_INDENT}{title}"
            yield from (f"{_INDENT}  {line}" for line in lines)


def _table(rows: Sequence[Row], width: int) -> Iterator[str]:
    """Expected beside got; a mark before each row that is not as it should be."""
    column = max((width - len(_INDENT) - 3) // 2, _LEAST_COLUMN)
    yield f"{_INDENT}{'expected':{column}}   got"
    for row in rows[:_MOST_ROWS]:
        mark = " " if row.is_as_expected else "+" if row.expected is None else "-" if row.got is None else "≠"
        left = "" if row.expected is None else _expected_text(row.expected)
        right = "" if row.got is None else _got_text(row.got)
        for number, cells in enumerate(zip_longest(_wrap(left, column), _wrap(right, column), fillvalue="")):
            yield f"{_INDENT[:-2]}{mark if number == 0 else ' '} {cells[0]:{column}}   {cells[1]}".rstrip()
        if row.differs:
            yield f"{_INDENT}  differs in: {', '.join(map(escape, row.differs))}"
        if row.got is not None and not row.is_as_expected:
            yield f"{_INDENT}  because {shorten(row.got.because, _MOST_CHARACTERS)}"
    if len(rows) > _MOST_ROWS:
        yield f"{_INDENT}and {len(rows) - _MOST_ROWS} more"


def _expected_text(expected: Expected) -> str:
    around = [
        f"at {_at(expected.at_ns)}" if expected.at_ns is not None else "",
        f"by {_name(expected.rule or '…', expected.key or '')}" if expected.rule or expected.key else "",
        f"because …{expected.because}…" if expected.because else "",
        "(shadow)" if expected.shadow else "",
    ]
    return " ".join([_action_text(expected.kind, expected.fields), *filter(None, around)])


def _got_text(decision: Decision) -> str:
    text = _action_text(kind_of(decision), fields_of(decision))
    shadow = " (shadow)" if decision.shadow else ""
    return f"{text} at {_at(decision.elapsed_ns)} by {_name(decision.rule, decision.key)}{shadow}"


def _action_text(kind: str, fields: dict[str, Any]) -> str:
    return f"{kind} " + ", ".join(f"{name}: {_value(value)}" for name, value in fields.items())


def _value(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _wrap(text: str, column: int) -> list[str]:
    line = shorten(text, _MOST_CHARACTERS)
    return textwrap.wrap(line, column, break_on_hyphens=False, subsequent_indent="  ") or [""]


def _reading_lines(failure: Failure) -> Iterator[str]:
    for reading in failure.readings[:_MOST_SHOWN]:
        marks = marks_of(reading.flags)
        tail = f"  [{', '.join(marks)}]" if marks else ""
        yield f"{_at(reading.at_ns):>8}  {escape(reading.topic)}  {shorten(_value(reading.value), 100)}{tail}"


def _of_interest(failure: Failure) -> list[Status]:
    """Of the rules that the comparison names, or of all if it names none."""
    named = {row.got.rule for row in failure.rows if row.got} | {
        row.expected.rule for row in failure.rows if row.expected
    }
    known = [status for status in failure.statuses if status.rule in named] if named - {None} else []
    return (known or list(failure.statuses))[:_MOST_SHOWN]


def _status_line(status: Status) -> str:
    since = f" since {_at(status.since_ns)}" if status.phase != "unknown" else ""
    return f"{_name(status.rule, status.key)}  {status.phase}{since}  {shorten(status.readings, 100)}".rstrip()


def _trace_lines(failure: Failure) -> Iterator[str]:
    for step in failure.traced[-_MOST_SHOWN:]:
        yield f"{_at(step.elapsed_ns):>8}  {_name(step.rule, step.key)}  {step.what}: {shorten(step.detail, 200)}"


def _name(rule: str, key: str) -> str:
    return escape(f"{rule}[{key}]" if key else rule)


def _at(elapsed_ns: int) -> str:
    return duration_text(elapsed_ns / 1e9)

"""The steps of a test's timeline: YAML to moments.

    when      at: 10m | after: 1m | every: 1m, until: 10m      without any: as soon as the step before is over
    what      send | silence | restart | clock_jump | refuse   at most one of them
    look      expect, expect_state, expect_start               after it

Invariants:
- What is expected in a step is looked at when the step is over: after a silence, or once the gateway is there again.
- A series goes on beside the steps that follow it; a test is played in order of time, and within an instant from top to
  bottom.
- What could not happen, or would not be seen, is a problem: an event while the gateway is away or all is silent, a step
  that begins before the one above it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from gateway.config import scalars
from gateway.config.document import Scalar, cut, plain
from gateway.config.section import Section
from gateway.model import DUPLICATE, REPLAYED, RETAINED
from gateway.mqtt.topics import topic_problem
from gateway.rules.reading.phrases import read_ns
from gateway.rules.trying.expectation_reader import read_actions, read_phases, read_rule_id
from gateway.rules.trying.timeline import (
    ClockJump,
    Expect,
    ExpectStart,
    ExpectState,
    Moment,
    Refuse,
    Restart,
    Send,
    Silence,
)

if TYPE_CHECKING:
    from gateway.config.document import Mark, Node, Problems
    from gateway.rules.compiled import RuleSet
    from gateway.rules.trying.timeline import Happening, Look

MOST_MOMENTS = 100_000
"""Of one test."""
LONGEST_NS = 400 * 86_400 * 1_000_000_000
"""A year and its changes of the clock fit in."""
_FARTHEST_JUMP_S = 36_500 * 86_400
"""A clock that begins in 1970 is less than a century wrong."""
_HAPPENINGS = ("send", "silence", "restart", "clock_jump", "refuse")
_LOOKS = ("expect", "expect_start", "expect_state")
_FLAGS = {"retained": RETAINED, "duplicate": DUPLICATE, "replayed": REPLAYED}
_QOS = 1
_OUTCOMES = ("denied", "expired", "unconfirmed")


class _When(NamedTuple):
    """The instants of a step."""

    first_ns: int
    every_ns: int
    times: int

    @property
    def last_ns(self) -> int:
        return self.first_ns + self.every_ns * (self.times - 1)


class _Entry(NamedTuple):
    """A moment, and where it stands."""

    moment: Moment
    mark: Mark


def read_moments(section: Section, key: str, ruleset: RuleSet | None) -> tuple[Moment, ...]:
    """Read a timeline.

    Args:
        section: the test.
        key: where the timeline stands; must be there.
        ruleset: the rules that are tested; None: they could not be read, and names are not looked up.

    Returns:
        Every moment, in order. What is wrong is in `section.problems`.
    """
    steps = _Steps(ruleset)
    for node in section.each(key, required=True):
        steps.read(node, section.problems)
    if section.has(key) and not steps.is_looked_at:
        section.problems.add(section.at(key), "this test expects nothing; end it with `expect: none` at least")
    entries = sorted(steps.entries, key=lambda entry: entry.moment.at_ns)
    _check_possible(entries, section.problems)
    return tuple(entry.moment for entry in entries)


class _Steps:
    """The steps read so far."""

    def __init__(self, ruleset: RuleSet | None) -> None:
        self.entries: list[_Entry] = []
        self.is_looked_at = False
        self._ruleset = ruleset
        self._begun_ns = 0
        """When the latest step begins."""
        self._over_ns: int | None = None
        """When it is over; None before the first."""

    def read(self, node: Node, problems: Problems) -> None:
        before = len(problems.lines())
        step = Section(node, problems, node.mark)
        when = self._when(step)
        happening = self._happening(step)
        looks = self._looks(step)
        self.is_looked_at |= any(step.has(name) for name in _LOOKS)
        step.done()
        if happening is None and not looks and len(problems.lines()) == before:
            words = ", ".join((*_HAPPENINGS, *_LOOKS))
            problems.add(step.mark, f"nothing happens in this step; write one of {words}")
        if when is None or len(problems.lines()) > before:
            return
        if len(self.entries) + when.times > MOST_MOMENTS:
            problems.add(step.mark, f"a test has at most {MOST_MOMENTS} moments")
            return
        self._add(step.mark, when, happening, looks)

    def _add(self, mark: Mark, when: _When, happening: Happening | None, looks: list[tuple[Mark, Look]]) -> None:
        over_ns = when.last_ns
        for number in range(when.times if happening is not None else 0):
            at_ns = when.first_ns + number * when.every_ns
            self.entries.append(_Entry(Moment(at_ns, str(mark), happening), mark))  # type: ignore[arg-type]  # not None
        if isinstance(happening, Restart):
            over_ns += happening.pause_ns
        elif isinstance(happening, Silence):
            over_ns += happening.lasting_ns
            self.entries.append(_Entry(Moment(over_ns, str(mark), Silence(0)), mark))
        self.entries += [_Entry(Moment(over_ns, str(place), look), place) for place, look in looks]
        self._begun_ns, self._over_ns = when.first_ns, over_ns

    def _when(self, step: Section) -> _When | None:
        """None if something is wrong with it; then it has been told."""
        at_ns, after_ns, every_ns, until_ns = (read_ns(step, key) for key in ("at", "after", "every", "until"))
        every_ns = read_ns(step, "every", least_ns=1)
        if step.has("at") and step.has("after"):
            step.problems.add(
                step.at("after"), "`at` counts from the beginning, `after` from the step before: write one"
            )
        if step.has("every") != step.has("until"):
            step.problems.add(step.mark, "a series has both: `every`, and `until` when (from the beginning)")
            return None
        over_ns = self._over_ns
        if at_ns is not None:
            first_ns = at_ns
        elif after_ns is not None:
            first_ns = (over_ns or 0) + after_ns
        else:
            first_ns = 0 if over_ns is None else over_ns + (every_ns or 0)
        if first_ns < self._begun_ns:
            why = f"the step before begins at {_shown(self._begun_ns)}; steps stand in the order in which they begin"
            step.problems.add(step.at("at"), why)
        last_ns = first_ns if until_ns is None else until_ns
        if last_ns < first_ns:
            step.problems.add(step.at("until"), f"the series begins only at {_shown(first_ns)}")
        if last_ns > LONGEST_NS:
            step.problems.add(step.mark, f"a test lasts at most {_shown(LONGEST_NS)}")
        return _When(first_ns, every_ns or 0, 1 if not every_ns else (last_ns - first_ns) // every_ns + 1)

    def _happening(self, step: Section) -> Happening | None:
        kinds = [name for name in _HAPPENINGS if step.has(name)]
        for name in kinds[1:]:
            step.problems.add(step.at(name), f"one thing happens in a step; `{kinds[0]}` stands here already")
        for name in ("every", *_FLAGS):
            if step.has(name) and "send" not in kinds:
                step.problems.add(step.at(name), f"`{name}` belongs to `send`")
        if step.has("crash") and "restart" not in kinds:
            step.problems.add(step.at("crash"), "`crash` belongs to `restart`")
        flags = _QOS | sum(flag for name, flag in _FLAGS.items() if step.boolean(name))
        crash = step.boolean("crash")
        records = _read_records(step)
        silence_ns, pause_ns = read_ns(step, "silence", least_ns=1), read_ns(step, "restart")
        jump_ns = _read_jump(step)
        refuse = _read_refuse(step, self._ruleset)
        if records:
            return Send(tuple(records), flags)
        if silence_ns is not None:
            return Silence(silence_ns)
        if pause_ns is not None:
            return Restart(pause_ns, crash)
        return refuse if jump_ns is None else ClockJump(jump_ns)

    def _looks(self, step: Section) -> list[tuple[Mark, Look]]:
        if step.has("every"):
            for name in _LOOKS:
                if step.has(name):
                    step.problems.add(step.at(name), f"`{name}` stands in a step of its own, not in a series")
        found: list[tuple[Mark, Look]] = []
        # What was said at the start comes first, in time as well.
        if (actions := read_actions(step, "expect_start", self._ruleset)) is not None:
            found.append((step.at("expect_start"), ExpectStart(actions)))
        if (actions := read_actions(step, "expect", self._ruleset)) is not None:
            found.append((step.at("expect"), Expect(actions)))
        if (phases := read_phases(step, "expect_state", self._ruleset)) is not None:
            found.append((step.at("expect_state"), ExpectState(phases)))
        return found


def _read_records(step: Section) -> list[tuple[str, object]]:
    section = step.section("send")
    if section is None:
        return []
    records = []
    for topic in section.names():
        node = section.node(topic)
        assert node is not None, "its name was just read"
        problem = topic_problem(topic)
        if "{" in topic or "}" in topic:
            problem = "a constant in braces that `given` does not give"
        if problem:
            section.problems.add(node.mark, f"`{cut(topic)}`: {problem}")
        value = plain(node)
        if not _is_sendable(value):
            section.problems.add(node.mark, "no device can send this: numbers are finite and fit into 64 bits")
        records.append((topic, value))
    if not records:
        step.problems.add(step.at("send"), "`send` is a mapping, from topic to payload")
    return records


def _is_sendable(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_sendable, value.values()))
    if isinstance(value, list):
        return all(map(_is_sendable, value))
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return not isinstance(value, float) or math.isfinite(value)


def _read_jump(step: Section) -> int | None:
    """`2h`, `-30m`: how far the wall clock jumps, in nanoseconds."""
    node = step.node("clock_jump")
    if node is None:
        return None
    value = node.value if isinstance(node, Scalar) else None
    is_back = isinstance(value, str) and value.startswith("-")
    seconds = scalars.duration_s(value[1:] if is_back and isinstance(value, str) else value)
    if isinstance(seconds, scalars.Wrong) or not seconds:
        step.problems.add(node.mark, "`clock_jump` is a duration such as 2h, or -2h for a jump back")
        return None
    if seconds > _FARTHEST_JUMP_S:
        step.problems.add(node.mark, f"`clock_jump` is at most {scalars.duration_text(_FARTHEST_JUMP_S)}")
        return None
    return round(seconds * 1e9) * (-1 if is_back else 1)


def _read_refuse(step: Section, ruleset: RuleSet | None) -> Refuse | None:
    section = step.section("refuse")
    if section is None:
        return None
    node = section.node("rule", required=True)
    rule = "" if node is None else read_rule_id(node, section.problems, ruleset)
    state = section.choice("state", _OUTCOMES, required=True)
    refuse = Refuse(rule, section.text("key") or None, section.text("topic") or None, state or "")
    section.done()
    return refuse


def _check_possible(entries: list[_Entry], problems: Problems) -> None:
    """Note what happens while nobody is there, and what comes while nothing comes."""
    away_ns = silent_ns = 0
    for (at_ns, _, what), mark in entries:
        if at_ns < away_ns:
            problems.add(mark, f"at {_shown(at_ns)} the gateway is away, until {_shown(away_ns)}")
        elif isinstance(what, Send) and at_ns < silent_ns:
            problems.add(mark, f"something comes at {_shown(at_ns)}, in the silence until {_shown(silent_ns)}")
        if isinstance(what, Restart):
            away_ns = at_ns + what.pause_ns
        elif isinstance(what, Silence) and what.lasting_ns:
            silent_ns = at_ns + what.lasting_ns


def _shown(duration_ns: int) -> str:
    return scalars.duration_text(duration_ns / 1e9)

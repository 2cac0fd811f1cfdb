"""Tests of rules: `NAME.test.yaml` to timelines. The format is `docs/rule-tests.md`.

    rules, timezone, location, topics, start      what the tests of this file share
    tests:                                        name, given, only, start, timeline
      timeline:                                   at | after | every + until, and what happens or is looked at then

Invariants:
- Every problem of a file is told at once, each at its place, those of the rules that it names among them; a file with
  one problem has no tests.
- Steps stand in the order in which they begin, so that what is read from top to bottom is what happens.
- What a test says must be able to happen: no event while the gateway is away or while all is said to be silent.
"""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from gateway.config.document import Problems, Scalar, cut, parse_file
from gateway.config.section import Section, did_you_mean
from gateway.errors import ConfigError
from gateway.rules.reading.language import load_rules
from gateway.rules.reading.phrases import filter_of
from gateway.rules.reading.trigger_reader import Site
from gateway.rules.trying.expectation_reader import read_rule_id
from gateway.rules.trying.given import NAME, fill, words
from gateway.rules.trying.step_reader import read_moments
from gateway.rules.trying.timeline import Timeline

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.config.document import Mark, Node
    from gateway.mqtt.topics import TopicFilter
    from gateway.rules.compiled import RuleSet
    from gateway.rules.trying.given import Given

SUFFIX = ".test.yaml"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_US = (datetime(2100, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_DEFAULT_START_NS = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """All tests of one file, and the rules that they are about."""

    path: Path
    ruleset: RuleSet
    timelines: tuple[Timeline, ...]


def load_tests(path: Path, site: Site | None = None) -> Suite:
    """Read a file of tests, and the rules that they are about.

    Args:
        path: of the tests.
        site: what rules have to know of the gateway, where the file does not say it; None: UTC, nowhere, all topics.

    Returns:
        Its tests, in the order of the file; a test with several sets of constants once for each.

    Raises:
        ConfigError: with every problem of the file and of its rules.
    """
    problems = Problems()
    tree = parse_file(path, problems)
    if tree is None:
        raise ConfigError(problems.lines())
    top = Section(tree, problems, tree.mark)
    site = _read_site(top, site or Site())
    files = _rule_files(top, path)
    ruleset, wrong = _load(files, site)
    file = _File(site.zone, _read_start(top, site.zone, _DEFAULT_START_NS), ruleset)
    timelines = [timeline for node in top.each("tests", required=True) for timeline in file.read(node, problems)]
    if not timelines and not problems:
        problems.add(top.at("tests"), "there is no test in here")
    top.done()
    wrong += problems.lines()
    if wrong:
        raise ConfigError(wrong)
    assert ruleset is not None, "otherwise something is wrong with the rules"
    return Suite(path=path, ruleset=ruleset, timelines=tuple(timelines))


class _File:
    """What the tests of one file share."""

    def __init__(self, zone: zoneinfo.ZoneInfo, start_ns: int, ruleset: RuleSet | None) -> None:
        self._zone = zone
        self._start_ns = start_ns
        self._ruleset = ruleset
        self._names: dict[str, Mark] = {}

    def read(self, node: Node, problems: Problems) -> list[Timeline]:
        """One test, once for each set of constants. With a problem in the first, the others are not looked at."""
        raw = Section(node, problems, node.mark)
        cases = _read_given(raw)
        found: list[Timeline] = []
        for given in cases:
            before = len(problems.lines())
            section = Section(fill(node, given, problems), problems, node.mark)
            timeline = self._read_case(section)
            if len(problems.lines()) > before:
                return []
            found.append(timeline)
        names = [timeline.name for timeline in found]
        if len(set(names)) < len(names):
            pairs = zip(found, cases, strict=True)
            found = [replace(timeline, name=f"{timeline.name} [{words(given)}]") for timeline, given in pairs]
        for timeline in found:
            if timeline.name in self._names:
                where = self._names[timeline.name]
                problems.add(raw.at("name"), f"`{timeline.name}` is the name of another test, in line {where.line}")
            self._names[timeline.name] = raw.at("name")
        return found

    def _read_case(self, section: Section) -> Timeline:
        section.node("given")
        only = [name for node in section.each("only") if (name := read_rule_id(node, section.problems, self._ruleset))]
        timeline = Timeline(
            name=section.text("name", required=True),
            place=str(section.mark),
            start_ns=_read_start(section, self._zone, self._start_ns),
            only=frozenset(only),
            moments=read_moments(section, "timeline", self._ruleset),
        )
        section.done()
        return timeline


def _read_given(section: Section) -> list[Given]:
    """Each set of constants; one empty set if there are none."""
    found: list[Given] = []
    for node in section.each("given"):
        names = Section(node, section.problems, section.at("given"))
        given: Given = {}
        for name in names.names():
            value = names.node(name)
            if re.fullmatch(NAME, name) is None:
                section.problems.add(names.at(name), f"`{cut(name)}` is no name: letters, digits and _")
            elif not isinstance(value, Scalar):
                section.problems.add(names.at(name), f"`{name}` is a single value")
            else:
                given[name] = value.value
        found.append(given)
    return found or [{}]


def _read_site(top: Section, site: Site) -> Site:
    """What rules have to know of the gateway: what is written here comes first."""
    if top.has("timezone"):
        site = site._replace(zone=_read_zone(top) or site.zone)
    place = top.section("location")
    if place is not None:
        latitude = place.number("latitude", required=True, least=-90, most=90)
        longitude = place.number("longitude", required=True, least=-180, most=180)
        place.done()
        if latitude is not None and longitude is not None:
            site = site._replace(location=(latitude, longitude))
    topics: list[TopicFilter] = []
    for node in top.each("topics"):
        topic = filter_of(node, top.problems) if isinstance(node, Scalar) else None
        if topic is None and not isinstance(node, Scalar):
            top.problems.add(node.mark, "a topic filter is a text, such as devices/{device}/{type}")
        topics += [] if topic is None else [topic]
    return site._replace(topics=tuple(topics)) if topics else site


def _read_zone(top: Section) -> zoneinfo.ZoneInfo | None:
    name = top.text("timezone")
    try:
        return zoneinfo.ZoneInfo(name) if name else None
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = did_you_mean(name, sorted(zoneinfo.available_timezones())) or "; write it like Europe/Berlin"
        top.problems.add(top.at("timezone"), f"no time zone is named `{top.shown('timezone')}`{hint}")
        return None


def _read_start(section: Section, zone: zoneinfo.ZoneInfo, default_ns: int) -> int:
    """The wall clock at 0s, in nanoseconds since 1970; without an offset it is that of the zone."""
    text = section.text("start")
    if not text:
        return default_ns
    try:
        when = datetime.fromisoformat(text)
        when = when if when.tzinfo is not None else when.replace(tzinfo=zone)
        since_us = (when - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        why = f"`start: {section.shown('start')}` is no time; write it as 2026-03-28T22:00:00, or with Z or +01:00"
        section.problems.add(section.at("start"), why)
        return default_ns
    if not 0 <= since_us < _LATEST_US:
        section.problems.add(section.at("start"), "`start` lies in the years 1970 to 2099")
    return since_us * 1_000


def _rule_files(top: Section, path: Path) -> list[Path]:
    """The rules that are tested: those that are named, else those of the file of the same name."""
    found = []
    for node in top.each("rules"):
        if not isinstance(node, Scalar) or not isinstance(node.value, str) or not node.value:
            top.problems.add(node.mark, "a path is expected, such as greenhouse.yaml; it is relative to this file")
        elif node.value.endswith(SUFFIX):
            top.problems.add(node.mark, f"`{cut(node.raw)}` holds tests; name the file of the rules")
        elif not _is_file(path.parent / node.value):
            top.problems.add(node.mark, f"`{cut(node.raw)}` is not there; it is relative to this file")
        else:
            found.append(path.parent / node.value)
    if top.has("rules"):
        return list(dict.fromkeys(found))
    beside = path.with_name(path.name.removesuffix(SUFFIX) + ".yaml")
    if beside == path or not _is_file(beside):
        top.problems.add(top.mark, f"`rules` is missing, and there is no {beside.name} beside this file")
        return []
    return [beside]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or a NUL
        return False


def _load(files: list[Path], site: Site) -> tuple[RuleSet | None, list[str]]:
    """The rules, or what is wrong with them."""
    try:
        return load_rules(files, site), []
    except ConfigError as error:
        return None, error.problems

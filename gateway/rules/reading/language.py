"""Rule files to a `RuleSet`: the language of `docs/rules.md`.

    rules:         id, on, when, for, until, stale_after, then, finally        -> `rule_reader`
    thermostats:   id, mode, sensor, thresholds, times, on_stale, actuator     -> `thermostat_reader`

Every problem of every file is told at once, each at its place; a set with one problem is no set. What a reload keeps is
decided by fingerprints: a rule whose text is the same, wherever in whatever file it now stands, keeps its state.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import msgspec

from gateway.config.document import Mark, Problems, parse_file, plain
from gateway.config.section import Section
from gateway.mqtt.topics import compile_filter
from gateway.rules.actuators import actuator_limits
from gateway.rules.compiled import Rule, RuleSet
from gateway.rules.reading import checks, ranges
from gateway.rules.reading.rule_reader import read_rule
from gateway.rules.reading.thermostat_reader import read_thermostat
from gateway.rules.reading.trigger_reader import Site

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gateway.config.document import Node
    from gateway.config.settings import Settings
    from gateway.rules.thermostat_rule import Thermostat


def load_rules(paths: Sequence[Path], site: Site | None = None) -> RuleSet:
    """Read, compile and check rule files as one set.

    Args:
        paths: the files, in the order in which their rules are to be asked.
        site: what they have to know of the gateway; None: one in UTC, nowhere, that stores all topics.

    Returns:
        The set, with its warnings.

    Raises:
        ConfigError: with every problem of every file.
    """
    problems = Problems()
    trees = [tree for path in paths if (tree := parse_file(path, problems)) is not None]
    site = site or Site()
    files = _Files(problems, site._replace(emitted=_emitted(trees)))
    for tree in trees:
        files.read(tree)
    for rule, message in checks.loops(files.rules):
        problems.add(files.marks[rule.id], message)
    problems.raise_if_any()
    everyone: list[Rule | Thermostat] = [*files.rules, *files.thermostats]
    return RuleSet(
        rules=tuple(files.rules),
        thermostats=tuple(files.thermostats),
        warnings=(*files.warnings, *_doubtful(files.rules, everyone, files.site)),
        actuators=actuator_limits(files.rules, files.thermostats),
        recipients=checks.recipients(files.rules, files.thermostats),
        topics=files.site.topics,
    )


def _doubtful(rules: Sequence[Rule], everyone: Sequence[Rule | Thermostat], site: Site) -> Iterator[str]:
    """What is allowed and probably not meant."""
    yield from checks.shared_actuators(everyone)
    yield from checks.fluttering(rules)
    yield from ranges.unreachable(rules)
    if site.topics:
        yield from checks.unheard(everyone, site.topics)
        yield from checks.foreign_fields(everyone, site.topics, site.fields)


def site_of(settings: Settings) -> Site:
    """What rules have to know of a configured gateway."""
    topics = tuple(compile_filter(topic.topic) for topic in settings.topics)
    fields = tuple(topic.fields for topic in settings.topics)
    return Site(ZoneInfo(settings.timezone), settings.location, topics, fields)


def load_configured(settings: Settings) -> RuleSet:
    """The rules that a configuration names, as `load_rules` reads them."""
    return load_rules(settings.rules, site_of(settings))


class _Files:
    """What the files read so far hold."""

    def __init__(self, problems: Problems, site: Site) -> None:
        self.site = site
        self.rules: list[Rule] = []
        self.thermostats: list[Thermostat] = []
        self.warnings: list[str] = []
        self.marks: dict[str, Mark] = {}
        self._problems = problems

    def read(self, tree: Node) -> None:
        top = Section(tree, self._problems, tree.mark)
        for entry in top.each("rules"):
            section = Section(entry, self._problems, top.at("rules"))
            rule = read_rule(section, _fingerprint(entry), self.warnings, self.site)
            if self._is_new(section) and rule is not None:
                self.rules.append(rule)
        for entry in top.each("thermostats"):
            section = Section(entry, self._problems, top.at("thermostats"))
            thermostat = read_thermostat(section, _fingerprint(entry), self.site.zone)
            if self._is_new(section) and thermostat is not None:
                self.thermostats.append(thermostat)
        top.done()

    def _is_new(self, section: Section) -> bool:
        """Whether no rule of this id has been read before. The id itself has been judged by its reader."""
        node = section.node("id")
        name = None if node is None else plain(node)
        if not isinstance(name, str):
            return False
        if name in self.marks:
            self._problems.add(section.at("id"), f"`{name}` is the id of another rule, at {self.marks[name]}")
            return False
        self.marks[name] = section.at("id")
        return True


def _emitted(trees: Sequence[Node]) -> dict[str, tuple[str, ...]]:
    """Rule id to the topics of what it emits, as they are written: a rule may listen to one that stands below it."""
    found: dict[str, tuple[str, ...]] = {}
    for tree in trees:
        whole = plain(tree)
        rules = whole.get("rules") if isinstance(whole, dict) else None
        for rule in rules if isinstance(rules, list) else [rules]:
            if isinstance(rule, dict) and isinstance(rule.get("id"), str):
                found[rule["id"]] = tuple(_topics_in(rule))
    return found


def _topics_in(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _topics_in(item)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == "emit" and isinstance(inner, dict) and isinstance(inner.get("topic"), str):
                yield inner["topic"]
            else:
                yield from _topics_in(inner)


def _fingerprint(node: Node) -> str:
    """Of what a rule says, not of where or how it is written."""
    return hashlib.sha256(msgspec.json.encode(plain(node), order="sorted")).hexdigest()[:16]

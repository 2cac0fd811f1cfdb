"""A configuration with its rules, read as one: what `run` starts with and `check` reports on."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config.document import Mark, Problems, Scalar, parse_file
from gateway.config.loader import load
from gateway.config.section import Section
from gateway.errors import ConfigError
from gateway.rules.reading.language import load_configured, load_rules

if TYPE_CHECKING:
    from gateway.config.settings import Settings
    from gateway.rules.compiled import RuleSet

_PLACE = re.compile(r"^(.*?:\d+:\d+): (?!warning: )")


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration in which nothing is wrong."""

    settings: Settings
    rules: RuleSet
    warnings: tuple[str, ...]
    """What is allowed and probably not meant, each as `path:line:column: warning: message`."""

    def counts(self) -> dict[str, int]:
        """How much of what it holds, in the order in which a person wants to hear it."""
        return {
            "rules": len(self.rules.rules),
            "thermostats": len(self.rules.thermostats),
            "topics": len(self.settings.topics),
            "sinks": len(self.settings.forward),
        }


def load_all(path: Path) -> Configuration:
    """Read a configuration and all its rule files.

    Raises:
        ConfigError: with every problem in any of them, the configuration's first.
    """
    try:
        loaded = load(path)
    except ConfigError as error:
        raise ConfigError([*error.problems, *_rule_problems(path)]) from None
    rules = load_configured(loaded.settings)
    warnings = (*loaded.warnings, *rules.warnings, *_unknown_recipients(loaded.settings, rules))
    return Configuration(loaded.settings, rules, tuple(_PLACE.sub(r"\1: warning: ", line) for line in warnings))


def _rule_problems(path: Path) -> list[str]:
    """What is wrong in the rule files of a configuration that is itself not in order."""
    try:
        load_rules(_rule_files(path))
    except ConfigError as error:
        return error.problems
    return []


def _rule_files(path: Path) -> list[Path]:
    """The rule files that a broken configuration seems to mean. What is wrong with it has been told elsewhere."""
    untold = Problems()
    tree = parse_file(path, untold)
    if tree is None:
        return []
    patterns = Section(tree, untold, Mark(str(path), 1, 1)).each("rules")
    names = (
        name
        for node in patterns
        if isinstance(node, Scalar) and isinstance(node.value, str)
        for name in sorted(glob.glob(str(path.resolve().parent / node.value)))  # noqa: PTH207 - takes absolute patterns
    )
    return [Path(name) for name in dict.fromkeys(names) if not name.endswith(".test.yaml")]


def _unknown_recipients(settings: Settings, rules: RuleSet) -> list[str]:
    known = {webhook.name for webhook in settings.notify}
    return [
        f"{place}: nobody under `notify` is named `{name}`: what is said to them is a log line only"
        for name, place in rules.recipients.items()
        if name not in known
    ]

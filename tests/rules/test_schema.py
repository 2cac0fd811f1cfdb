"""The schema for editors: it takes what the readers take, and its keys are theirs."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from gateway.config.document import Mark, Problems, parse_file, plain
from gateway.config.section import Section
from gateway.rules.reading.rule_reader import read_rule
from gateway.rules.reading.schema import rules_schema
from gateway.rules.reading.thermostat_reader import read_thermostat
from gateway.rules.reading.trigger_reader import Site

SHIPPED = Path(__file__).parents[2] / "rules"
FILES = sorted(path for path in SHIPPED.glob("*.yaml") if not path.name.endswith(".test.yaml"))
SCHEMA = rules_schema()


def errors_in(value) -> list[str]:
    """What the schema has against a file's content."""
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(value)]


def test_it_is_a_schema():
    """Of the draft that it names."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_takes_every_file_that_ships(path):
    """What `check` takes, editors take."""
    assert errors_in(plain(parse_file(path, Problems()))) == []


def asked(read, source: str, tmp_path) -> set[str]:
    """The keys that a reader asks a mapping for."""
    path = tmp_path / "x.yaml"
    path.write_text(source)
    problems = Problems()
    section = Section(parse_file(path, problems), problems, Mark(str(path), 1, 1))
    read(section)
    return set(section._asked)


def test_the_keys_of_a_rule_are_those_of_its_reader(tmp_path):
    """Neither knows one that the other does not."""
    found = asked(lambda section: read_rule(section, "", [], Site()), "id: a\n", tmp_path)
    assert found | {"triggers", "conditions", "actions"} == set(SCHEMA["$defs"]["rule"]["properties"])


@pytest.mark.parametrize("mode", ["heat", "cool", "heat_cool"])
def test_the_keys_of_a_thermostat_are_those_of_its_reader(tmp_path, mode):
    """Those that belong to its mode, and no others."""
    found = asked(lambda section: read_thermostat(section, ""), f"id: a\nmode: {mode}\n", tmp_path)
    assert found <= set(SCHEMA["$defs"]["thermostat"]["properties"])


RULE = {"id": "a", "on": "t", "then": [{"notify": {"to": "x", "text": "y"}}]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"wen": "x > 1"},
        {"for": 5},
        {"for": "5"},
        {"mode": "twice"},
        {"on": {"topc": "t"}},
        {"on": {"sun": "noon"}},
        {"then": [{"notify": {"to": "x"}}]},
        {"then": [{"notify": {"to": "x", "text": "y"}, "wait": "5s"}]},
        {"id": "a/b"},
        {"triggers": "t"},
    ],
    ids=str,
)
def test_what_is_misspelt_is_refused(wrong):
    """A red line while one writes."""
    assert errors_in({"rules": [RULE]}) == []
    assert errors_in({"rules": [RULE | wrong]})

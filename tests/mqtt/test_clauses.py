"""Every clause of the specifications has a row in `docs/mqtt-clauses.md`, and the tests that the row names name it."""

import ast
import functools
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "mqtt-clauses.md"
OLD = " of 3.1.1"
"""Stands behind clauses that have a number in 3.1.1 alone, or where its number is meant."""

V5 = """
1.5.4-3 1.5.5-1 1.5.7-1 2.1.3-1 2.2.1-6 2.2.2-1
3.1.0-2 3.1.2-30 3.1.3-12 3.1.4-6 3.2.0-2 3.2.2-22 3.3.1-13 3.3.2-20 3.3.4-10 3.4.2-3 3.5.2-3 3.6.1-1 3.6.2-3 3.7.2-3
3.8.1-1 3.8.3-5 3.8.4-8 3.9.2-2 3.9.3-2 3.10.1-1 3.10.3-2 3.10.4-6 3.11.2-2 3.11.3-2 3.12.4-1
3.14.0-1 3.14.1-1 3.14.2-4 3.14.4-3 3.15.1-1 3.15.2-3
4.1.0-2 4.2.0-1 4.3.1-1 4.3.2-5 4.3.3-13 4.4.0-2 4.5.0-2 4.6.0-6 4.7.0-1 4.7.1-2 4.7.2-1 4.7.3-4 4.8.2-6 4.9.0-3
4.12.0-7 4.12.1-2 4.13.1-1 4.13.2-1 6.0.0-4
"""
"""Appendix B of 5.0: the last number of each section. Each counts from 1, but for 2.2.1, whose first is 2."""
V311 = """
1.5.3-3 2.2.2-2 2.3.1-7
3.1.0-2 3.1.2-24 3.1.3-11 3.1.4-5 3.2.0-1 3.2.2-6 3.3.1-12 3.3.2-3 3.3.4-1 3.3.5-2 3.6.1-1
3.8.1-1 3.8.3-4 3.8.4-6 3.9.3-2 3.10.1-1 3.10.3-2 3.10.4-6 3.12.4-1 3.14.1-1 3.14.4-3
4.1.0-2 4.3.1-1 4.3.2-2 4.3.3-2 4.4.0-1 4.5.0-2 4.6.0-6 4.7.1-3 4.7.2-1 4.7.3-4 4.8.0-2
6.0.0-4 7.0.0-2 7.1.1-1 7.1.2-1
"""
"""The same of 3.1.1."""

_LISTED = re.compile(r"\[MQTT-([^\]]+)\]")
_CLAUSE = re.compile(r"(to )?(?:(\d+\.\d+\.\d+))?-(\d+)")
_TEST = re.compile(r"`([\w./]+)::(test_\w+)`")


def all_of(sections: str, *, first: dict[str, int] | None = None) -> set[str]:
    """Every number, given the last of each section."""
    found = set()
    for each in sections.split():
        section, last = each.split("-")
        found |= {f"{section}-{number}" for number in range((first or {}).get(section, 1), int(last) + 1)}
    return found


def clauses(text: str) -> set[str]:
    """`[MQTT-4.6.0-2, -3]`, `[MQTT-4.3.3-1 to -7]`, `[MQTT-4.3.3-7, 4.4.0-1, 3.3.5-2 of 3.1.1]`, taken apart.

    `of 3.1.1` holds for the numbers of the section before it.
    """
    found = set()
    for listed in _LISTED.findall(text):
        section, last = "", 0
        parts = re.split(r",\s*(?=\d)", listed)
        for part in parts:
            suffix = OLD if part.endswith(OLD) else ""
            for to, named, number in _CLAUSE.findall(part.removesuffix(OLD)):
                section, begin = named or section, int(number)
                found |= {f"{section}-{each}{suffix}" for each in range(last + 1 if to else begin, begin + 1)}
                last = begin
    return found


def named_in(folder: Path) -> set[str]:
    return set().union(*(clauses(path.read_text()) for path in folder.rglob("*.py")))


class Row(NamedTuple):
    """One line of the page."""

    v5: str
    v311: tuple[str, ...]
    asks: str
    of_whom: str
    held_by: str

    @property
    def name(self) -> str:
        """By which a test names it."""
        return self.v5 or self.v311[0] + OLD

    @property
    def tests(self) -> list[tuple[str, str]]:
        return _TEST.findall(self.held_by)


@functools.cache
def rows() -> list[Row]:
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.match(r"\| (\d+\.\d+\.\d+-\d+)? ?\| ", line):
            v5, v311, asks, of_whom, held_by = cells
            found.append(Row(v5, tuple(v311.split(", ")) if v311 else (), asks, of_whom, held_by))
    return found


@functools.cache
def sources_of(file: str) -> dict[str, str]:
    """By name: the source of a test, and of the module's tables that it uses."""
    path = (HERE / f"{file}.py").resolve()
    if not path.is_file():
        return {}
    source = path.read_text()
    tree = ast.parse(source)
    tables = {
        target.id: ast.get_source_segment(source, node) or ""
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            text = ast.get_source_segment(source, node) or ""
            used = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            found[node.name] = text + "".join(tables[name] for name in sorted(used & tables.keys()))
    return found


def test_the_notation_is_read_as_it_is_meant():
    """Law of the test itself."""
    assert clauses("x [MQTT-4.6.0-2, -3] y [MQTT-4.3.3-1 to -3] z [MQTT-4.3.3-7, 4.4.0-1]") == {
        "4.6.0-2", "4.6.0-3", "4.3.3-1", "4.3.3-2", "4.3.3-3", "4.3.3-7", "4.4.0-1",
    }  # fmt: skip
    assert clauses("[MQTT-3.3.4-2, 3.3.5-1, -2 of 3.1.1]") == {"3.3.4-2", "3.3.5-1 of 3.1.1", "3.3.5-2 of 3.1.1"}


def test_every_clause_that_the_listener_names_is_named_by_a_test():
    """A clause at the code is a promise; here is who holds it to it."""
    promised = named_in(ROOT / "gateway" / "mqtt")
    assert len(promised) >= 40
    assert sorted(promised - named_in(HERE)) == []


def test_no_clause_is_named_that_there_is_not():
    """A number with a slip of the pen in it holds nobody to anything."""
    known = all_of(V5) | {clause + OLD for clause in all_of(V311)}
    for folder in ("gateway/mqtt", "gateway/web", "tests/mqtt", "tests/web", "tests/app", "tests/known_errors"):
        found = {
            clause
            for path in (ROOT / folder).rglob("*.py")
            if path != Path(__file__)
            for clause in clauses(path.read_text())
        }
        assert sorted(found - known) == [], folder


def test_every_clause_has_its_row():
    """5.0: 251, each in one row. 3.1.1: 141, some in several, where 5.0 counts their parts apart."""
    listed = [row.v5 for row in rows() if row.v5]
    assert len(all_of(V5, first={"2.2.1": 2})) == 251
    assert sorted(listed) == sorted(all_of(V5, first={"2.2.1": 2}))
    assert len(all_of(V311)) == 141
    assert {clause for row in rows() for clause in row.v311} == all_of(V311)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_a_row_names_tests_that_exist_and_name_its_clause(row):
    """What binds the server has a test, without exception; a test that was renamed takes its row along."""
    assert row.of_whom in {"server", "client", "both"}
    assert row.asks
    assert row.tests or (row.of_whom == "client" and len(row.held_by) > 10), "who holds us to it?"
    for file, test in row.tests:
        assert test in sources_of(file), f"{file}::{test} is gone"
        assert row.name in clauses(sources_of(file)[test]), f"{file}::{test} does not name it"

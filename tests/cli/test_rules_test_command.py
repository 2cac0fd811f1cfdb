"""`gateway rules test`: which tests run, how they end, and what a person sees of one that fails."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

SHIPPED = Path(__file__).parents[2]
RULES = """\
rules:
  - id: freezer-warm
    on: devices/{device}/climate
    when: temperature > -15
    for: 10m
    then: [{notify: {to: oncall, text: "{device} is at {temperature:.1f} °C"}}]
"""
GOOD = """\
tests:
  - name: warm for ten minutes
    timeline:
      - {at: 0s, send: {devices/a/climate: {temperature: -12}}}
      - {at: 10m, expect: [{notify: {text: a is at -12.0 °C}}]}
  - name: never warm
    timeline:
      - {at: 0s, send: {devices/a/climate: {temperature: -18}}}
      - {at: 10m, expect: none}
"""
BAD = """\
start: 2026-05-04T10:00:00Z
tests:
  - name: too early
    timeline:
      - {at: 0s, send: {devices/a/climate: {temperature: -12}}}
      - {at: 11m, expect: [{notify: {to: oncall, text: a is at -13.0 °C}, at: 9m}]}
  - name: fine
    timeline: [{expect: none}]
"""
CONFIG = """\
gateway: {id: g, data_dir: ./data, timezone: Europe/Berlin}
mqtt: {listen: "mqtt://127.0.0.1:1883"}
ingest: {topics: [{topic: "devices/{device}/{type}"}]}
rules: [rules/*.yaml]
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A configuration, two files of rules, and tests beside one of them; the working directory."""
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "freezer.yaml").write_text(RULES)
    (folder / "freezer.test.yaml").write_text(GOOD)
    (folder / "other.yaml").write_text(RULES.replace("freezer-warm", "other"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_passes_is_one_line(gateway, site):
    """Nothing to read where nothing is wrong."""
    ran = gateway("rules", "test", "rules")
    assert (ran.code, ran.out, ran.err) == (0, "ok: 2 tests in 1 file, 20 min of virtual time\n", "")


def test_the_tests_that_pass_are_named_when_asked(gateway, site):
    """`-v`, a line each."""
    ran = gateway("rules", "test", "-v", "rules/freezer.test.yaml")
    assert ran.lines[:2] == [
        "ok    rules/freezer.test.yaml  warm for ten minutes",
        "ok    rules/freezer.test.yaml  never warm",
    ]


def test_what_fails_is_shown_with_all_that_explains_it(gateway, site):
    """Place, time, both sides, the reason, the latest readings, the state; exit code 1."""
    (site / "rules" / "freezer.test.yaml").write_text(BAD)
    ran = gateway("rules", "test", "rules")
    assert ran.code == 1
    text = " ".join(ran.out.split())
    assert "FAIL rules/freezer.test.yaml too early" in text
    assert "rules/freezer.test.yaml:6:27: at 11m (2026-05-04T10:11:00Z): 1 action decided, as many as expected" in text
    for words in (
        "expected got",
        "≠ notify to: oncall, text: a is at -13.0 °C",
        "differs in: text, at",
        "because temperature > -15 for 10 min: temperature = -12",
        '0s devices/a/climate {"temperature":-12}',
        "freezer-warm[a] active since 10m",
        "0s freezer-warm[a] pending: for 10 min",
        "10m freezer-warm[a] fired: ",
    ):
        assert words in text, words
    assert ran.lines[-1].startswith("1 failed: 2 tests in 1 file")
    assert max(map(len, ran.lines)) < 150


def test_failures_as_json(gateway, site):
    """The same for a script."""
    (site / "rules" / "freezer.test.yaml").write_text(BAD)
    ran = gateway("rules", "test", "rules", "--json")
    found = json.loads(ran.out)
    assert (ran.code, found["ok"], found["failed"], [test["ok"] for test in found["tests"]]) == (
        1,
        False,
        1,
        [False, True],
    )
    failure = found["tests"][0]["failure"]
    assert (failure["at_s"], failure["time"]) == (660, "2026-05-04T10:11:00.000000Z")
    (row,) = failure["rows"]
    assert (row["ok"], row["differs"]) == (False, ["text", "at"])
    assert row["expected"] == {"notify": {"to": "oncall", "text": "a is at -13.0 °C"}, "at_s": 540.0}
    assert (row["got"]["notify"]["text"], row["got"]["at_s"], row["got"]["key"]) == ("a is at -12.0 °C", 600.0, "a")
    assert failure["readings"] == [
        {"at_s": 0, "topic": "devices/a/climate", "value": {"temperature": -12}, "marks": []}
    ]
    assert failure["rules"][0]["phase"] == "active"
    assert [step["what"] for step in failure["traced"]] == ["pending", "fired"]


def test_a_report_for_a_build_server(gateway, site):
    """JUnit's XML, a case for each test."""
    (site / "rules" / "freezer.test.yaml").write_text(BAD.replace("too early", "<&\\x1b>"))
    assert gateway("rules", "test", "rules", "--junit", "report.xml").code == 1
    (suite,) = ET.parse(site / "report.xml").getroot()
    assert suite.attrib == {"name": "rules/freezer.test.yaml", "tests": "2", "failures": "1"}
    assert [(case.get("name"), len(case)) for case in suite] == [("<&\\x1b>", 1), ("fine", 0)]
    assert "a is at -12.0 °C" in suite[0][0].text
    ran = gateway("rules", "test", "rules", "--junit", "nowhere/report.xml")
    assert (ran.code, ran.err) == (1, "gateway: nowhere/report.xml cannot be written: No such file or directory\n")


def test_tests_are_found_in_directories_and_beside_rules(gateway, site):
    """A directory, and all below it; a file of rules; twice the same is once. Hidden ones belong to editors."""
    deep = site / "rules" / "deep"
    deep.mkdir()
    (deep / "more.test.yaml").write_text("rules: [../freezer.yaml]\n" + GOOD)
    (deep / ".more.test.yaml").write_text("rubbish")
    assert gateway("rules", "test", "rules").out.startswith("ok: 4 tests in 2 files")
    assert gateway("rules", "test", "rules/freezer.yaml").out.startswith("ok: 2 tests in 1 file")
    assert gateway("rules", "test", "rules/freezer.yaml", "rules/freezer.test.yaml").out.startswith("ok: 2 tests in 1")


def test_a_configuration_means_the_tests_beside_its_rules(gateway, site):
    """And gives them its time zone: a file of rules without tests is none of theirs."""
    ran = gateway("rules", "test", "-c", "gateway.yaml")
    assert (ran.code, ran.out.split(",")[0]) == (0, "ok: 2 tests in 1 file")
    (site / "rules" / "freezer.test.yaml").write_text(BAD.replace("10:00:00Z", "10:00:00"))
    ran = gateway("rules", "test", "-c", "gateway.yaml")
    assert "2026-05-04T08:11:00Z" in ran.out


def test_a_word_chooses_by_name_or_file(gateway, site):
    """`-k`, in any case."""
    assert gateway("rules", "test", "rules", "-k", "NEVER").out.startswith("ok: 1 test in 1 file")
    assert gateway("rules", "test", "rules", "-k", "freezer").out.startswith("ok: 2 tests")
    ran = gateway("rules", "test", "rules", "-k", "boiler")
    assert (ran.code, ran.out) == (2, "")
    assert "no test has `boiler`" in ran.err


@pytest.mark.parametrize("arguments", [(), ("empty",), ("nowhere.yaml",), ("-c", "nowhere.yaml")])
def test_no_tests_are_not_all_tests_passed(gateway, site, arguments):
    """Exit code 2: a build server that tests nothing has to hear of it."""
    (site / "empty").mkdir()
    ran = gateway("rules", "test", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err


def test_every_problem_of_every_file_is_told_before_anything_runs(gateway, site):
    """Exit code 2, each with its place, those of the rules once."""
    (site / "rules" / "freezer.yaml").write_text(RULES.replace("for: 10m", "for: 10"))
    (site / "rules" / "b.test.yaml").write_text("rules: [freezer.yaml]\n" + GOOD.replace("at: 10m", "at: 10"))
    ran = gateway("rules", "test", "rules")
    assert (ran.code, ran.out) == (2, "")
    assert [":".join(line.split(":")[:3]) for line in ran.err.splitlines()] == [
        "rules/freezer.yaml:5:10",
        "rules/b.test.yaml:6:14",
        "rules/b.test.yaml:10:14",
    ]
    ran = gateway("rules", "test", "rules", "--json")
    assert (ran.code, len(json.loads(ran.out)["problems"])) == (2, 3)


def test_what_a_file_says_cannot_write_to_the_terminal(gateway, site):
    """Names, texts and payloads are shown escaped."""
    hostile = BAD.replace("too early", '"\\e[2J"').replace("{temperature: -12}", '{temperature: -12, x: "\\e]0;x\\a"}')
    hostile = hostile.replace("a is at -13.0 °C", '"\\u202e\\e[31m"')
    (site / "rules" / "freezer.test.yaml").write_text(hostile)
    ran = gateway("rules", "test", "rules")
    assert ran.code == 1
    assert all(line.isprintable() for line in ran.lines)


def test_the_examples_of_the_manual_pass_on_the_rules_that_ship(gateway, tmp_path):
    """What the page shows can be copied."""
    page = (SHIPPED / "docs" / "rule-tests.md").read_text(encoding="utf-8")
    examples = [block.split("```")[0] for block in page.split("```yaml\n")[1:]]
    assert len(examples) >= 2
    (tmp_path / "rules.yaml").write_text((SHIPPED / "rules" / "greenhouse.yaml").read_text(encoding="utf-8"))
    for number, example in enumerate(examples):
        path = tmp_path / f"{number}.test.yaml"
        path.write_text("rules: [rules.yaml]\n" + example, encoding="utf-8")
        assert gateway("rules", "test", path).code == 0


def test_the_manual_names_every_word_of_a_test():
    """What nobody can read about is not there."""
    from gateway.rules.trying import expectation_reader, step_reader

    page = (SHIPPED / "docs" / "rule-tests.md").read_text(encoding="utf-8")
    words = [*step_reader._HAPPENINGS, *step_reader._LOOKS, *step_reader._FLAGS, *step_reader._OUTCOMES]
    for word in (*words, *expectation_reader._KINDS, *expectation_reader._PHASES, "times", "because", "given", "only"):
        assert f"`{word}" in page, word


def test_a_file_of_tests_is_never_loaded_as_rules(gateway, site):
    """A configuration that names it anyway says so."""
    assert gateway("check", "-c", "gateway.yaml").out.startswith("ok: 2 rules")
    (site / "gateway.yaml").write_text(CONFIG.replace("*.yaml", "*.test.yaml"))
    ran = gateway("check", "-c", "gateway.yaml")
    assert (ran.code, "matches only tests" in ran.err) == (2, True)

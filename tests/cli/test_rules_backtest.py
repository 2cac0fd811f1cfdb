"""`gateway rules backtest`: other rules over the same history, and where they part from it."""

import json
import shutil
import textwrap

import pytest
import typer

from gateway.cli import rules_backtest
from gateway.errors import ConfigError
from gateway.rules.reading.language import load_rules
from tests.lived import Life

RULES = """
    rules:
      - id: damp
        on: devices/{device}/climate
        when: humidity > 70
        until: humidity < 60
        for: 2m
        stale_after: 30m
        on_stale: "off"
        then:
          - command: {topic: "devices/fan", payload: {state: "ON"}, state: "on"}
          - emit: {topic: "alerts/{device}/damp", payload: {humidity: "{humidity}"}}
        finally: [{command: {topic: "devices/fan", payload: {state: "OFF"}, state: "off"}}]
      - id: told
        on: alerts/{device}/damp
        then: [{notify: {to: oncall, text: "{device} is damp"}}]
"""
SINCE = "2023-11-14T22:13:20Z"
UNTIL = "2023-11-15T22:13:20Z"


@pytest.fixture
def write(tmp_path):
    """`write(name, yaml)` gives the path."""

    def make(name, source):
        path = tmp_path / name
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path

    return make


@pytest.fixture
def backtest(monkeypatch, capsys):
    """Runs `backtest ARGS...`; gives exit code, stdout, stderr."""
    app = typer.Typer()
    app.command()(rules_backtest.backtest)

    def run(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            app([str(arg) for arg in args])
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return run


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A day in which the air was damp twice, for ten minutes from the second hour on and for twenty from the fifth."""
    place = tmp_path_factory.mktemp("lived")
    (place / "rules.yaml").write_text(textwrap.dedent(RULES), encoding="utf-8")
    life = Life(place / "data", load_rules([place / "rules.yaml"]))
    steps = []
    for minute in range(8 * 60):
        damp = 120 <= minute < 130 or 300 <= minute < 320
        steps.append((60, "devices/a/climate", {"humidity": 75 + minute % 3 if damp else 50}))
        steps.append((0, "devices/a/noise", {"level": minute}))
    life.live(*steps)
    return life.data_dir


def test_the_rules_that_lived_there_would_have_done_the_same(backtest, lived, write):
    """L12: over the whole log, derived events included, and over a part of it: exit code 0."""
    old = write("old.yaml", RULES)
    for since in (SINCE, "2023-11-15T02:00:00Z", "2023-11-15T03:16:00Z"):
        code, out, err = backtest(old, "--data", lived, "--since", since, "--until", UNTIL)
        assert (code, err) == (0, ""), out
        assert "no difference to what happened" in out


def test_another_threshold_shows_in_counts_switchings_and_the_first_moment(backtest, lived, write):
    """A `for` of 15 minutes ignores the shorter spell: one switching on instead of two."""
    new = write("new.yaml", RULES.replace("for: 2m", "for: 15m"))
    code, out, _ = backtest(new, "--data", lived, "--since", SINCE, "--until", UNTIL, "--json")
    found = json.loads(out)
    assert code == 1
    assert found["same"] is False
    assert found["new"]["rules"]["damp"]["firings"] == 1
    assert found["new"]["rules"]["damp"]["near_misses"] == {"reset": 1}
    assert found["log"]["rules"]["damp"]["actions"] == {"command off": 2, "command on": 2, "emit": 2}
    assert found["new"]["rules"]["told"]["actions"] == {"notify oncall": 1}
    assert found["new"]["actuators"]["devices/fan"] == {"switched_on": 1, "on_s": 300.0, "is_on": False}
    assert found["log"]["actuators"]["devices/fan"] == {"switched_on": 2, "on_s": 480.0 + 1080.0, "is_on": False}
    first = found["first_difference"]
    assert first["time"].startswith("2023-11-15T00:16:20")
    assert first["new"] == []
    assert {each["rule"] for each in first["old"]} == {"damp", "told"}


def test_a_person_reads_the_same_in_words(backtest, lived, write):
    """Both sides of the first differing moment, and what changed in counts and on-time."""
    new = write("new.yaml", RULES.replace("for: 2m", "for: 15m"))
    code, out, _ = backtest(new, "--data", lived, "--since", SINCE, "--until", UNTIL)
    assert code == 1
    assert "command on 1 (was 2)" in out
    assert "1 (was 2)    5 min (was 26 min)" in out
    assert "new: nothing; at 2023-11-15" in out
    assert "the log: damp [a]: command devices/fan on: humidity > 70 for 2 min" in out


def test_two_files_are_compared_with_each_other_and_not_with_the_log(backtest, lived, write):
    """`--against` replays both over the same records."""
    old, new = write("old.yaml", RULES), write("new.yaml", RULES.replace("humidity > 70", "humidity > 75"))
    code, out, _ = backtest(new, "--data", lived, "--since", SINCE, "--until", UNTIL, "--against", old, "--json")
    found = json.loads(out)
    assert code == 1
    assert found["against"]["rules"]["damp"]["firings"] == 2
    code, out, _ = backtest(old, "--data", lived, "--since", SINCE, "--until", UNTIL, "--against", old)
    assert code == 0
    assert "no difference between the two" in out


def test_what_a_rule_emits_reaches_the_next_one_and_never_twice(backtest, lived, write):
    """The log's own derived events give way to those that the rules on trial derive."""
    louder = write("new.yaml", RULES.replace("humidity > 70", "humidity > 74"))
    _, out, _ = backtest(louder, "--data", lived, "--since", SINCE, "--until", UNTIL, "--json")
    assert json.loads(out)["new"]["rules"]["told"]["firings"] == 2
    # The rule that emits is not on trial: what the log holds of it is what happened.
    alone = write("alone.yaml", "rules:\n      - id: told" + RULES.split("- id: told")[1])
    code, out, _ = backtest(alone, "--data", lived, "--since", SINCE, "--until", UNTIL, "--json")
    found = json.loads(out)
    assert (code, found["new"]["rules"]["told"]["firings"]) == (0, 2)
    assert found["left_aside"] == {"damp": 6}


def test_state_is_right_at_the_beginning_because_of_what_came_before(backtest, lived, write):
    """In the midst of the second spell the fan is on: no switching on is counted, and the time until its end is."""
    old = write("old.yaml", RULES)
    since = "2023-11-15T03:20:20Z"
    code, out, _ = backtest(old, "--data", lived, "--since", since, "--until", UNTIL, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["new"]["actuators"]["devices/fan"] == {"switched_on": 0, "on_s": 840.0, "is_on": False}
    code, out, _ = backtest(old, "--data", lived, "--since", since, "--until", UNTIL, "--warm-up", "0s", "--json")
    assert code == 1


def test_usage_is_told_before_anything_is_read(backtest, lived, write, tmp_path):
    """Exit code 2: no place, a time that is none, an empty stretch; rules with mistakes name line and column."""
    old = write("old.yaml", RULES)
    for args, said in [
        ((old,), "--config FILE"),
        ((old, "--data", tmp_path / "nowhere"), "not a directory"),
        ((old, "--data", lived, "--since", "yesterday"), "--since: write 7d"),
        ((old, "--data", lived, "--since", "1h", "--until", "2h"), "not after"),
        ((old, "--data", lived, "--warm-up", "5"), "--warm-up"),
    ]:
        code, _, err = backtest(*args)
        assert code == 2
        assert said in " ".join(err.replace("│", " ").split()), err
    broken = write("broken.yaml", RULES.replace("humidity > 70", "humidity >"))
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(rules_backtest.backtest)
    with pytest.raises(ConfigError) as error:
        app([str(broken), "--data", str(lived)], standalone_mode=False)
    assert error.value.problems[0].startswith(f"{broken}:5:")


def test_damage_and_the_beginning_of_the_log_are_told(backtest, lived, write, tmp_path):
    """Whatever is missing stands in the output, so that nobody believes a count that cannot be right."""
    old, place = write("old.yaml", RULES), tmp_path / "data"
    shutil.copytree(lived, place)
    segment = max((place / "events").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    data[60_000] ^= 0xFF
    segment.write_bytes(data)
    _, out, _ = backtest(old, "--data", place, "--since", SINCE, "--until", UNTIL, "--json")
    assert any("damaged" in line for line in json.loads(out)["missing"])
    _, out, _ = backtest(old, "--data", place, "--since", "2023-11-01", "--until", UNTIL)
    assert "missing: damaged" in out
    assert "the log begins at 2023-11-14" in out


def test_an_empty_log_is_no_difference_and_said_to_be_empty(backtest, write, tmp_path):
    """Nothing was recorded: nothing would have been done, and nobody is told of 1970."""
    (tmp_path / "data" / "events").mkdir(parents=True)
    code, out, _ = backtest(write("old.yaml", RULES), "--data", tmp_path / "data", "--since", SINCE, "--until", UNTIL)
    assert code == 0
    assert "the log is empty" in out
    assert "1970" not in out

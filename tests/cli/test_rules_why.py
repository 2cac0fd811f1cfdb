"""`gateway rules why`: what happened, what nearly did, and what came of it, days later and from the log alone."""

import json
import textwrap

import pytest
import typer

from gateway.cli import rules_why
from gateway.model import DUPLICATE, RETAINED
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
          - command:
              topic: devices/{device}/fan/set
              payload: {state: "ON"}
              state: "on"
              expect: {topic: "devices/{device}/fan/state", where: state == wanted.state, within: 5s, retries: 1}
              otherwise: [{notify: {to: oncall, text: "{device}'s fan does not answer"}}]
        finally: [{command: {topic: "devices/{device}/fan/set", payload: {state: "OFF"}, state: "off"}}]
      - id: trial
        on: devices/{device}/climate
        when: humidity > 70
        shadow: true
        then: [{notify: {to: oncall, text: damp}}]
      - id: button
        on: devices/{device}/button
        cooldown: 1h
        then: [{notify: {to: oncall, text: pressed}}]
      - id: never
        on: devices/{device}/climate
        when: humidity > 90
        then: [{notify: {to: oncall, text: wet}}]
"""
CONFIG = """
    gateway: {{id: g, data_dir: {data}, timezone: Europe/Berlin}}
    mqtt: {{listen: "mqtt://127.0.0.1:1883"}}
    ingest: {{topics: [{{topic: "devices/{{device}}/#", format: json}}]}}
    rules: [rules.yaml]
    notify: [{{name: oncall}}]
"""
SPAN = ("--since", "2023-11-14T22:00:00Z", "--until", "2023-11-15T22:00:00Z")


@pytest.fixture
def config(tmp_path):
    """`config(rules)` writes both files and gives the configuration's path."""

    def write(rules=RULES):
        (tmp_path / "rules.yaml").write_text(textwrap.dedent(rules), encoding="utf-8")
        path = tmp_path / "gateway.yaml"
        path.write_text(textwrap.dedent(CONFIG.format(data=tmp_path / "data")), encoding="utf-8")
        return path

    return write


@pytest.fixture
def why(capsys):
    """Runs `why ARGS...`; gives exit code, stdout, stderr."""
    app = typer.Typer()
    app.command()(rules_why.why)

    def run(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            app([str(arg) for arg in args])
        said = capsys.readouterr()
        return end.value.code or 0, said.out, " ".join(said.err.replace("│", " ").split())

    return run


@pytest.fixture
def lived(tmp_path, config):
    """From 22:13:20 UTC, that is 23:13:20 in Berlin: the air of `a` is damp for five minutes, after near misses."""
    config()
    life = Life(tmp_path / "data", load_rules([tmp_path / "rules.yaml"]))
    wet, dry = {"humidity": 75}, {"humidity": 50}
    climate, fan = "devices/a/climate", "devices/a/fan/state"
    steps = [(60, climate, dry)]
    steps += [step for _ in range(14) for step in ((60, climate, wet), (60, climate, dry))]
    steps += [(60, climate, wet), (60, climate, wet), (60, climate, wet), (0.12, fan, {"state": "ON"})]
    steps += [(60, climate, wet), (60, climate, dry)]
    steps += [(60, "devices/a/button", {}), (10, "devices/a/button", {}), (10, "devices/a/button", {})]
    steps += [
        (10, (climate, 1 | RETAINED), wet),
        (10, (climate, 1 | DUPLICATE), wet),
        (60, climate, {"humidity": None}),
    ]
    steps += [(60, "devices/b/climate", {"humidity": 71}), (200, "devices/b/climate", {"humidity": 72})]
    steps += [(60, "devices/b/climate", dry), (10, "devices/b/other", 1)]
    life.live(*steps)
    return life.data_dir


def told(out):
    found = json.loads(out)
    return [(each["key"], each["what"], each["times"]) for each in found["moments"]]


def test_changes_and_folded_near_misses_come_in_the_order_of_time(why, lived, config):
    """Fourteen times it was damp for a minute: one line. Then it began, and ended."""
    code, out, err = why("damp", "-c", config(), *SPAN, "--device", "a", "--json")
    assert (code, err) == (0, "")
    assert told(out) == [("a", "reset", 14), ("a", "fired", 1), ("a", "ended", 1), ("a", "unknown", 1)]
    reset, fired, *_ = json.loads(out)["moments"]
    assert reset["detail"] == "true for 60 s of 2 min"
    assert reset["time"].startswith("2023-11-14T22:16:20")
    assert reset["until"].startswith("2023-11-14T22:42:20")
    assert fired["pending_since"].startswith("2023-11-14T22:43:20")
    assert fired["readings"] == "humidity = 75"
    (command,) = fired["decisions"]
    assert command["logged"] is True
    assert [(each["state"]) for each in command["outcomes"]] == ["confirmed"]


def test_a_person_reads_it_in_the_zone_of_the_gateway(why, lived, config):
    """Times in Berlin, what it read, and how long the device took to confirm."""
    code, out, _ = why("damp", "-c", config(), *SPAN, "--device", "a")
    assert code == 0
    assert "Tuesday 2023-11-14" in out
    assert "14 times until 23:42:20.000" in out
    assert "FIRED: humidity > 70 for 2 min: humidity = 75, pending since 23:43:20.000" in out
    assert "command devices/a/fan/set on: confirmed after 120 ms (at try 1)" in out


def test_a_command_that_nobody_confirmed_says_so(why, lived, config):
    """Device b has no fan that answers: unconfirmed after its tries."""
    code, out, _ = why("damp", "-c", config(), *SPAN, "--device", "b")
    assert code == 0
    assert "unconfirmed after 10 s (no confirmation on devices/b/fan/state after 2 tries)" in out


def test_what_cooled_down_and_what_was_on_trial_is_told(why, lived, config):
    """Near misses by cooldown are folded; a shadow rule's decisions say that nobody acted on them."""
    _, out, _ = why("button", "-c", config(), *SPAN, "--json")
    assert told(out) == [("a", "fired", 1), ("a", "cooling", 2)]
    _, out, _ = why("trial", "-c", config(), *SPAN)
    assert "on trial (shadow), nobody acted on it" in out


def test_where_it_stood_at_an_instant(why, lived, config):
    """`--at` tells the phase at that moment, and what lay around it."""
    code, out, _ = why("damp", "-c", config(), "--at", "2023-11-14T23:46:00", "--device", "a")
    assert code == 0
    assert "at 2023-11-14 23:46:00 [a]: active since 2023-11-14 23:45:20, humidity = 75" in out
    _, out, _ = why("damp", "-c", config(), "--at", "2023-11-14T23:44:00", "--device", "a")
    assert "at 2023-11-14 23:44:00 [a]: pending since 2023-11-14 23:43:20" in out


def test_if_nothing_happened_it_says_why_not(why, lived, config):
    """No event; a condition that was false, with how near it came; records that count for nothing."""
    _, out, _ = why("never", "-c", config(), *SPAN)
    assert "`humidity > 90` was false 37 times, unknown 1 times" in out
    assert "humidity was between 50" in out
    assert "and 75 (at 2023-11-14 23:15:20)" in out
    _, out, _ = why("never", "-c", config(), *SPAN, "--device", "c")
    assert "no event came on devices/{device}/climate" in out
    _, out, _ = why("button", "-c", config(), "--since", "2023-11-14T22:55:00Z", "--until", "2023-11-14T23:00:00Z")
    assert "the last one came at 2023-11-14 23:48:40" in out


def test_a_rule_that_has_been_edited_since_is_told_as_today_s(why, lived, config):
    """What the log holds and today's rule does not do is named, with where the other text was read."""
    edited = config(
        RULES.replace("humidity > 70\n        until", "humidity > 74\n        until").replace("for: 2m", "for: 1m")
    )
    code, out, _ = why("damp", "-c", edited, *SPAN)
    assert code == 0
    assert "another rule stood under this id, the last time as rules were read at 2023-11-14 23:13:20" in out
    assert "the log holds 3 decisions that today's rule does not take" in out
    assert "today's rule would have; the log holds no such decision" in out


def test_without_the_rules_it_tells_what_was_decided(why, lived):
    """`--data` alone: decisions and their ends, and that near misses need the configuration."""
    code, out, _ = why("damp", "--data", lived, *SPAN)
    assert code == 0
    assert "near misses need the rules" in out
    assert "command devices/a/fan/set on: confirmed after 120 ms" in out


def test_an_event_tells_which_rules_it_reached_and_what_each_made_of_it(why, lived, config):
    """The event that began it: pending, and fired two minutes later; a rule that it did not concern is not named."""
    _, out, _ = why("--command", "devices/a/fan/set", "-c", config(), "--at", "2023-11-14T23:46:00", "--json")
    identity = json.loads(out)["pending_since"]["id"]
    code, out, _ = why("--event", identity, "-c", config(), "--json")
    found = {each["rule"]: each for each in json.loads(out)["rules"]}
    assert code == 0
    assert set(found) == {"damp", "trial", "never"}
    assert [each["what"] for each in found["damp"]["later"]] == ["fired"]
    assert [each["what"] for each in found["trial"]["moments"]] == ["fired"]
    assert found["never"]["why_not"] == "`humidity > 90` is false: humidity = 75"
    _, out, _ = why("--event", identity.rsplit("/", 1)[1], "-c", config())
    assert 'devices/a/climate {"humidity": 75}' in out
    assert "later by itself" in out
    assert "FIRED: humidity > 70 for 2 min" in out


def test_an_event_that_triggers_nothing_says_why(why, lived, config):
    """Retained and duplicate records, and unknown readings."""
    said = [why("--event", seq, "-c", config()) for seq in range(60, 100)]
    text = "\n".join(out for _, out, _ in said)
    assert "the record is retained: it triggers nothing" in text
    assert "the record is marked as a duplicate: it triggers nothing" in text
    assert "unknown: the condition is neither true nor false (humidity = unknown)" in text
    assert "no rule listens to devices/b/other" in text


def test_a_command_tells_its_whole_chain_with_the_times_between(why, lived, config):
    """Sensor event, condition, decision, command, report, confirmation."""
    code, out, _ = why("--command", "devices/a/fan/set", "-c", config(), "--at", "2023-11-14T23:46:00")
    assert code == 0
    words = ("event", "condition", "decision", "command", "report", "confirmed")
    names = [next(word for word in line[24:].split() if word in words) for line in out.splitlines()]
    assert names == list(words)
    assert "+120 ms" in out
    identity = next(line for line in out.splitlines() if " command " in line).split("(id ")[1].rstrip(")")
    assert why("--command", identity, "-c", config(), *SPAN)[1] == out
    code, out, _ = why("--command", "devices/b/fan/set", "-c", config(), "--at", "2023-11-14T23:54:00", "--json")
    found = json.loads(out)
    assert [each["state"] for each in found["outcomes"]] == ["unconfirmed"]
    assert [each["action"]["type"] for each in found["otherwise"]] == ["notify"]


def test_what_has_been_evicted_is_told_and_the_audit_trail_still_knows_the_command(why, config, tmp_path):
    """L6: the log is too small for what came since; the command is told all the same, its event is said to be gone."""
    path = config()
    life = Life(tmp_path / "data", load_rules([tmp_path / "rules.yaml"]), max_size_bytes=1 << 20)
    life.segment_size_bytes = 64 << 10
    much = {"humidity": 50, "pad": "x" * 8_000}
    wet = [(60, "devices/a/climate", {"humidity": 75})] * 4
    life.live(*wet, *[(60, "devices/a/climate", much)] * 250)
    code, out, _ = why("--command", "devices/a/fan/set", "-c", path, "--at", "2023-11-14T23:17:00")
    assert code == 0
    assert "told by the audit trail: the events log no longer holds it" in out
    assert "unconfirmed" in out
    _, out, _ = why("damp", "-c", path, *SPAN)
    assert "records before have been evicted: rules begin there, knowing nothing" in out
    code, _, err = why("--event", "5", "-c", path)
    assert code == 1
    assert "no event 5 in the log: the number is not in" in err


def test_usage_is_told_in_one_sentence(why, lived, config):
    """Exit code 2 for what the operator must change, 1 for what the log does not hold."""
    path = config()
    for args, code, said in [
        (("-c", path), 2, "give one of RULE, --event ID, --command"),
        (("damp", "--event", "3", "-c", path), 2, "give one of RULE"),
        (("damn", "-c", path), 2, "did you mean `damp`?"),
        (("damp", "-c", path, "--at", "25:00"), 2, "--at: write 7d"),
        (("damp", "-c", path, "--at", "06:10", "--since", "1d"), 2, "exclude each other"),
        (("--event", "g/0123456789abcdef/1/3", "-c", path), 2, "that is an event of log"),
        (("--event", "x", "-c", path), 2, "--event: write an id"),
        (("--event", "3", "--data", lived), 2, "only --config can tell"),
        (("--event", "99999", "-c", path), 1, "no event 99999 in the log: the number is not in 0 to"),
        (("--event", "0", "-c", path), 1, "no event 0 in the log: the number is no event"),
        (("--command", "devices/x/set", "-c", path), 1, "no command devices/x/set"),
    ]:
        ran = why(*args)
        assert ran[0] == code, args
        assert said in ran[2], ran[2]

"""`gateway check`: everything that is wrong with a configuration and its rules, at once and with its place."""

import json

import pytest

CONFIG = """\
gateway:
  id: greenhouse-01
  data_dir: ./data
mqtt:
  listen: mqtt://127.0.0.1:1883
ingest:
  topics:
    - topic: devices/{device}/{type}
rules: [rules/*.yaml]
forward:
  - name: archive
    type: file
    path: ./archive.jsonl
"""

RULES = """\
rules:
  - id: freezer-warm
    on: devices/{device}/climate
    when: temperature > -15
    for: 10m
    then: [{notify: {to: oncall, text: "{device} is at {temperature} °C"}}]
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "rules").mkdir()
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    (tmp_path / "rules" / "freezer.yaml").write_text(RULES)
    return tmp_path


def test_a_sound_configuration_is_ok_with_its_counts(gateway, site):
    """One line that says what was understood."""
    ran = gateway("check", "-c", site / "gateway.yaml")
    assert (ran.code, ran.out) == (0, "ok: 1 rule, 0 thermostats, 1 topic, 1 sink\n")


def test_a_recipient_whom_nobody_configured_is_a_warning(gateway, site):
    """It is allowed, it is probably not meant, and it says where."""
    ran = gateway("check", "-c", site / "gateway.yaml")
    assert ran.code == 0
    (warning,) = ran.err.splitlines()
    assert warning.startswith(f"{site / 'rules' / 'freezer.yaml'}:")
    assert ": warning: " in warning
    assert "`oncall`" in warning


def test_check_as_json(gateway, site):
    """The same for a script."""
    ran = gateway("check", "-c", site / "gateway.yaml", "--json")
    found = json.loads(ran.out)
    assert (ran.code, found["ok"], found["rules"], len(found["warnings"])) == (0, True, 1, 1)


def test_every_problem_of_every_file_is_told_at_once(gateway, site):
    """Configuration and rules together, each problem with its place, exit code 2, nothing on stdout."""
    (site / "gateway.yaml").write_text(CONFIG.replace("data_dir", "data_dri"))
    (site / "rules" / "freezer.yaml").write_text(RULES.replace("for: 10m", "for: 10"))
    ran = gateway("check", "-c", site / "gateway.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert any(line.startswith(f"{site / 'gateway.yaml'}:3:3: ") for line in ran.err.splitlines())
    assert any(line.startswith(f"{site / 'rules' / 'freezer.yaml'}:5:") for line in ran.err.splitlines())
    ran = gateway("check", "-c", site / "gateway.yaml", "--json")
    assert ran.code == 2
    assert len(json.loads(ran.out)["problems"]) >= 2


def test_run_refuses_what_check_refuses(gateway, site):
    """Nothing is opened, bound or created before every problem is out of the way."""
    (site / "gateway.yaml").write_text(CONFIG.replace("data_dir", "data_dri"))
    ran = gateway("run", "-c", site / "gateway.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert not (site / "data").exists()


def test_a_file_that_is_not_there_is_a_configuration_error(gateway, tmp_path):
    """Exit code 2: the operator must act, not try again."""
    ran = gateway("check", "-c", tmp_path / "nowhere.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert "nowhere.yaml" in ran.err

"""Timelines against an engine: what `gateway rules test` plays, and what it takes for right."""

from __future__ import annotations

import textwrap

import msgspec
import pytest

from gateway.rules.trying import life
from gateway.rules.trying.testing import play
from gateway.rules.trying.timeline_reader import load_tests

WARM = """\
rules:
  - id: warm
    on: devices/{device}/climate
    when: t > 10
    for: 10m
    stale_after: 30m
    then: [{notify: {to: oncall, text: "{device} is warm"}}]
    finally: [{notify: {to: oncall, text: "{device} is cold"}}]
"""
CHAIN = """\
rules:
  - id: first
    on: a
    then: [{emit: {topic: b, payload: {n: "{n + 1}"}}}]
  - id: second
    on: b
    then: [{emit: {topic: c, payload: {n: "{n + 1}"}}}, {notify: {to: oncall, text: "{n}"}}]
  - id: third
    on: c
    then: [{emit: {topic: d, payload: {n: "{n + 1}"}}}]
  - id: fourth
    on: d
    then: [{emit: {topic: e, payload: {n: "{n + 1}"}}}, {notify: {to: oncall, text: "{n}"}}]
"""
LAMP = """\
rules:
  - id: lamp
    on: devices/lamp/wish
    when: on
    stale_after: 1h
    on_stale: "off"
    then:
      - command:
          topic: lamp/set
          payload: {power: 1}
          state: "on"
          expect: {topic: lamp/state, where: power == wanted.power, within: 5s, retries: 1}
          otherwise: [{notify: {to: oncall, text: no light}}, {emit: {topic: alerts/lamp, payload: {dark: true}}}]
    finally: [{command: {topic: lamp/set, payload: {power: 0}, state: "off"}}]
  - id: alarm
    on: alerts/lamp
    then: [{notify: {to: electrician, text: come}}]
"""


@pytest.fixture
def suite(tmp_path):
    """`suite(rules, tests)` reads both; `tests` is the text below `tests:`."""

    def build(rules: str, tests: str, head: str = ""):
        (tmp_path / "r.yaml").write_text(rules, encoding="utf-8")
        path = tmp_path / "r.test.yaml"
        path.write_text(f"{head}\ntests:\n{textwrap.dedent(tests)}", encoding="utf-8")
        return load_tests(path)

    return build


@pytest.fixture
def verdict(suite):
    """`verdict(rules, steps)` plays one timeline; `steps` is the text below `timeline:`."""

    def run(rules: str, steps: str, *, only: str = "[]", head: str = ""):
        lines = textwrap.indent(textwrap.dedent(steps), "      ")
        tests = suite(rules, f"  - name: it\n    only: {only}\n    timeline:\n{lines}", head)
        return play(tests.timelines[0], tests.ruleset)

    return run


@pytest.fixture
def failed(verdict):
    """The sentence with which a timeline fails; empty if it passes."""

    def run(*args, **kwargs) -> str:
        failure = verdict(*args, **kwargs).failure
        return "" if failure is None else failure.message

    return run


def test_a_deadline_decides_at_its_own_time_however_late_anybody_looks(verdict):
    """Nothing steps through time: what falls due between two steps is taken at its deadline (L12)."""
    ran = verdict(
        WARM, "- {at: 7s, send: {devices/a/climate: {t: 11}}}\n- {at: 25m, expect: [{notify: {}, at: 10m7s}]}\n"
    )
    assert ran.failure is None
    assert [decision.elapsed_ns for decision in ran.decisions] == [607 * 10**9]
    assert (ran.events, ran.lasted_ns) == (1, 25 * 60 * 10**9)


def test_the_same_timeline_gives_the_same_verdict(verdict):
    """No clock, no chance: ids and reasons are the same in every run (L12)."""
    steps = "- {every: 1m, until: 15m, send: {devices/a/climate: {t: 11}}}\n- {expect: [{notify: {}}]}\n"
    assert verdict(WARM, steps).decisions == verdict(WARM, steps).decisions


def test_what_is_emitted_comes_back_as_an_event_until_it_is_too_far_from_a_device(verdict):
    """Chains of rules run as in the gateway, and a loop ends after three derived events."""
    steps = """\
        - {at: 0s, send: {a: {n: 1}}}
        - expect:
            - {emit: {topic: b, payload: {n: 2}}, rule: first}
            - {emit: {topic: c, payload: {n: 3}}, rule: second}
            - {notify: {text: "2"}}
            - {emit: {topic: d, payload: {n: 4}}, rule: third}
            - {notify: {text: "4"}, rule: fourth}
        """
    ran = verdict(CHAIN, steps)
    assert ran.failure is None, ran.failure
    assert ran.events == 4
    assert [each.action.hops for each in ran.decisions if hasattr(each.action, "hops")] == [1, 2, 3]


def test_events_of_one_step_come_at_once_and_a_shadow_emits_nothing(verdict):
    """A rule on trial is seen only by who asks for it, and sets off nobody."""
    rules = CHAIN.replace("on: a\n", "on: a\n    shadow: true\n")
    assert verdict(rules, "- {at: 0s, send: {a: {n: 1}}, expect: [{emit: {}, shadow: true}]}\n").failure is None
    assert verdict(rules, "- {at: 0s, send: {a: {n: 1}}, expect: [{emit: {}}]}\n").failure.rows[0].differs == (
        "shadow",
    )
    assert verdict(rules, "- {at: 0s, send: {e: {n: 1}, f: 1}, expect: none}\n").events == 2


@pytest.mark.parametrize("crash", ["true", "false"])
def test_what_falls_due_while_nobody_is_there_is_decided_at_its_own_time(failed, crash):
    """A restart shortens and lengthens nothing, with or without a saved state (L12)."""
    steps = f"""\
        - {{at: 0s, send: {{devices/a/climate: {{t: 11}}}}}}
        - {{at: 9m, restart: 5m, crash: {crash}}}
        - {{expect: [{{notify: {{text: a is warm}}, at: 10m}}], expect_state: {{warm: active}}}}
        """
    assert failed(WARM, steps) == ""


def test_a_crash_after_a_restart_replays_from_there(failed):
    """What was saved is not replayed, what came after it is (L12)."""
    steps = """\
        - {at: 0s, send: {devices/a/climate: {t: 11}}}
        - {at: 1m, restart: 0s}
        - {at: 2m, send: {devices/b/climate: {t: 11}}}
        - {at: 11m, restart: 0s, crash: true}
        - {at: 13m, expect: [{notify: {text: a is warm}, at: 10m}, {notify: {text: b is warm}, at: 12m}]}
        """
    assert failed(WARM, steps) == ""


def test_an_engine_that_forgets_in_a_replay_fails_the_test(failed, monkeypatch):
    """The test of a rule is also one of L12: a replay has to decide what the log holds."""

    class Forgetful(life.Engine):
        made = 0

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            Forgetful.made += 1
            self.forgets = Forgetful.made == 2

        def run(self, batch):
            decisions = super().run(batch)
            return [] if self.forgets else decisions

    monkeypatch.setattr(life, "Engine", Forgetful)
    steps = "- {at: 0s, send: {a: {n: 1}}}\n- {at: 1s, restart: 0s, crash: true, expect: none}\n"
    assert "first//0/0 was decided, and a replay of the log does not decide it" in failed(CHAIN, steps)


@pytest.mark.parametrize("jump", ["2h", "-2h", "400d"])
def test_a_jump_of_the_wall_clock_moves_no_duration(failed, jump):
    """Durations are the log's own (L11)."""
    steps = f"""\
        - {{at: 0s, send: {{devices/a/climate: {{t: 11}}}}}}
        - {{at: 5m, clock_jump: {jump}}}
        - {{at: 5m, expect: none}}
        - {{at: 11m, expect: [{{notify: {{}}, at: 10m}}]}}
        """
    assert failed(WARM, steps) == ""


def test_the_wall_clock_begins_where_the_file_says_and_jumps_where_a_step_does(failed):
    """Schedules live on the stamps of records, as in the gateway: a jump is followed and fires nothing (L11)."""
    rules = 'rules: [{id: noon, on: {at: "12:00"}, then: [{notify: {to: a, text: b}}]}]'
    steps = """\
        - {at: 2h, expect: [{notify: {}, at: 2h}]}
        - {at: 20h, clock_jump: 7h}
        - {at: 43h, expect: [{notify: {}, at: 43h}]}
        - {at: 60h, clock_jump: -1h, expect: none}
        - {at: 68h, restart: 1h, crash: true, expect: [{notify: {}, at: 68h}]}
        """
    assert failed(rules, steps, head="timezone: Europe/Berlin\nstart: 2026-01-10T10:00:00") == ""


def test_a_schedule_is_tested_over_a_change_to_summer_time(failed):
    """The hour that there is not, and the same hour of the day after it."""
    rules = 'rules: [{id: early, on: {at: "06:30"}, then: [{notify: {to: a, text: b}}]}]'
    steps = "- {at: 36h, expect: [{notify: {}, at: 7h30m}, {notify: {}, at: 31h30m}]}"
    assert failed(rules, steps, head="timezone: Europe/Berlin\nstart: 2026-03-28T22:00:00") == ""


def test_an_event_that_is_not_fresh_moves_nothing(failed):
    """Retained, repeated and replayed messages are stored and decide nothing (L9)."""
    for mark in ("retained", "duplicate", "replayed"):
        assert (
            failed(
                WARM, f"- {{at: 0s, send: {{devices/a/climate: {{t: 11}}}}, {mark}: true}}\n- {{at: 1h, expect: none}}"
            )
            == ""
        )


def test_a_command_that_nobody_confirms_is_compensated_and_others_hear_of_it(failed):
    """`otherwise` follows as it does in the gateway: decisions of their own, derived events included."""
    steps = """\
        - {at: 0s, send: {devices/lamp/wish: {on: true}}, expect: [{command: {topic: lamp/set, state: "on"}}]}
        - {at: 10s, refuse: {rule: lamp, state: unconfirmed}}
        - expect:
            - {notify: {to: oncall, text: no light}, rule: lamp, because: confirmed}
            - {emit: {topic: alerts/lamp, payload: {dark: true}}, at: 10s}
            - {notify: {to: electrician}, rule: alarm}
        """
    assert failed(LAMP, steps) == ""


def test_a_command_that_was_denied_is_asked_for_again(failed):
    """The engine is told of what its actuators refused; so is an engine that replays the log (L12)."""
    steps = """\
        - {at: 0s, send: {devices/lamp/wish: {on: true}}, expect: [{command: {state: "on"}}]}
        - {at: 1s, refuse: {rule: lamp, state: denied, topic: lamp/set, key: ""}}
        - {at: 20s, restart: 1s, crash: true, expect_start: [{command: {payload: {power: 1}}}]}
        - {at: 31s, expect: [{command: {state: "on"}, at: 31s}]}
        """
    assert failed(LAMP, steps) == ""


def test_what_has_not_been_commanded_cannot_be_refused(failed):
    """A test that means another rule is told so."""
    assert failed(LAMP, "- {refuse: {rule: alarm, state: denied}}\n- {expect: none}").startswith(
        "nobody can refuse it: `alarm`"
    )


def test_what_is_said_at_a_start_is_looked_at_apart(failed):
    """The first start and each one after it; no rule has decided it, so `expect` does not see it."""
    off = '{command: {topic: lamp/set, payload: {power: 0}, state: "off"}, because: at the start}'
    assert failed(LAMP, f"- {{expect_start: [{off}], expect: none}}") == ""
    assert failed(LAMP, f"- {{restart: 1m, expect_start: [{off}], expect: none}}") == ""
    assert failed(LAMP, "- {expect_start: none}") == "no actions expected, 1 decided"


def test_an_expectation_looks_at_exactly_what_was_decided_since_the_one_before(failed):
    """Each decision is seen once, in its order; one too few and one too many are both failures."""
    send = "- {at: 0s, send: {devices/a/climate: {t: 11}, devices/b/climate: {t: 11}}}\n"
    both = "[{notify: {text: a is warm}}, {notify: {text: b is warm}}]"
    assert failed(WARM, send + f"- {{at: 10m, expect: {both}}}\n- {{at: 11m, expect: none}}") == ""
    assert failed(WARM, send + f"- {{at: 10m, expect: {both}}}\n- {{at: 11m, expect: {both}}}") == (
        "2 actions expected, none decided"
    )
    assert failed(WARM, send + "- {at: 10m, expect: [{notify: {}}]}") == "1 action expected, 2 decided"
    swapped = "[{notify: {text: b is warm}}, {notify: {text: a is warm}}]"
    assert "not the same" not in failed(WARM, send + f"- {{at: 10m, expect: {swapped}}}").replace(
        "but not the same", ""
    )
    assert failed(WARM, send + "- {at: 10m, expect: [{notify: {}, times: 2}]}") == ""


def test_what_is_decided_after_the_last_expectation_fails_the_test(failed):
    """No decision goes unseen; a test that looks at states alone has said that it does not care."""
    send = "- {at: 0s, send: {devices/a/climate: {t: 11}}}\n"
    assert failed(WARM, send + "- {expect: none}\n- {silence: 1h}") == "1 action decided after the last `expect`"
    assert failed(WARM, send + "- {at: 10m, expect_state: {warm: active}}") == ""


def test_only_narrows_what_is_looked_at_and_not_what_runs(failed):
    """The chain runs, and one link of it is looked at."""
    assert failed(CHAIN, "- {send: {a: {n: 1}}, expect: [{emit: {}}]}", only="second") != ""
    steps = "- {send: {a: {n: 1}}, expect: [{emit: {topic: b}}]}"
    assert failed(CHAIN, steps, only="first") == ""


def test_a_state_is_that_of_every_key_or_of_one(failed):
    """Where a rule stands, for all devices or for one; a device that has never spoken is inactive."""
    send = "- {at: 0s, send: {devices/a/climate: {t: 11}, devices/b/climate: {t: 1}}}\n"
    assert failed(WARM, send + "- {expect_state: {warm: {a: pending, b: inactive, c: inactive}}}") == ""
    assert failed(WARM, send + "- {expect_state: {warm: pending}}") == "warm[b] is inactive, not pending"
    assert (
        failed(WARM, send + "- {expect_state: {warm: {c: active}}}") == "warm[c] is not active: nothing has come for it"
    )
    assert failed(WARM, "- {expect_state: {warm: inactive}}") == ""


def test_a_failure_shows_what_a_person_needs_to_understand_it(verdict):
    """Where, when, both sides, the latest readings, the states, and the near misses since the look before."""
    steps = """\
        - {at: 0s, send: {devices/a/climate: {t: 11}}, expect: none}
        - {at: 9m, send: {devices/a/climate: {t: 3}}}
        - {at: 10m, expect: [{notify: {text: a is warm}}]}
        """
    failure = verdict(WARM, steps, head="start: 2026-03-28T22:00:00Z").failure
    assert failure.place.endswith("r.test.yaml:8:25")
    assert (failure.at_ns, failure.wall_ns) == (600 * 10**9, 1_774_735_800 * 10**9)
    assert [(row.expected.fields, row.got) for row in failure.rows] == [({"text": "a is warm"}, None)]
    assert [(each.topic, each.value) for each in failure.readings] == [("devices/a/climate", {"t": 3})]
    assert [(each.rule, each.key, each.phase) for each in failure.statuses] == [("warm", "a", "inactive")]
    assert [each.what for each in failure.traced] == ["reset"]


def test_the_stamps_and_numbers_of_records_are_those_that_a_log_would_give(suite, monkeypatch):
    """Numbers rise without a gap or a double, and all clocks but the wall's run evenly."""
    seen = []

    class Watched(life.Engine):
        def run(self, batch):
            seen.append(batch)
            return super().run(batch)

    monkeypatch.setattr(life, "Engine", Watched)
    tests = suite(
        CHAIN,
        """\
          - name: it
            timeline:
              - {at: 1s, send: {a: {n: 1}, c: 2}}
              - {at: 2s, clock_jump: 1h}
              - {at: 3s, send: {c: 3}, retained: true}
              - {expect_state: {first: inactive}}
        """,
    )
    play(tests.timelines[0], tests.ruleset)
    stamps = [batch.stamp for batch in seen]
    assert all(stamp.synced and len(stamp.boot_id) == 16 for stamp in stamps)
    assert len({stamp.mono_ns - stamp.elapsed_ns for stamp in stamps}) == 1
    assert [stamp.wall_ns - stamp.elapsed_ns - 1_767_225_600 * 10**9 for stamp in stamps][-1] == 3_600 * 10**9
    taken = [seq for batch in seen for seq in range(batch.seq, batch.end)]
    assert taken == sorted(set(taken))
    assert [msgspec.json.decode(payload) for payload in seen[-1].payloads] == seen[-1].values == [3]

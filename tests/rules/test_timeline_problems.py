"""Files of tests that are wrong: every problem is told at once, at its place, with what to write instead."""

from __future__ import annotations

import textwrap

import pytest

from gateway.errors import ConfigError
from gateway.rules.reading.trigger_reader import Site
from gateway.rules.trying.step_reader import MOST_MOMENTS
from gateway.rules.trying.timeline import ClockJump, Expect, Restart, Send, Silence
from gateway.rules.trying.timeline_reader import load_tests

RULES = """\
rules:
  - id: warm
    on: devices/{device}/climate
    when: t > 10
    then: [{notify: {to: oncall, text: "{device}"}}]
"""
SECOND_NS = 10**9
WORDS = "send, silence, restart, clock_jump, refuse, expect, expect_start, expect_state"


@pytest.fixture
def read(tmp_path):
    """`read(text)` reads a file of tests beside some rules."""
    (tmp_path / "r.yaml").write_text(RULES, encoding="utf-8")

    def load(text: str, name: str = "r.test.yaml"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return load_tests(path)

    return load


@pytest.fixture
def problems(read, tmp_path):
    """`problems(text)` gives what is wrong, each as `line:column: message`."""

    def find(text: str, name: str = "r.test.yaml") -> list[str]:
        try:
            read(text, name)
        except ConfigError as error:
            return [line.removeprefix(f"{tmp_path}/").removeprefix(f"{name}:") for line in error.problems]
        return []

    return find


@pytest.fixture
def steps(problems):
    """`steps(text)` gives what is wrong with one timeline; its first step stands in line 4."""

    def find(text: str) -> list[str]:
        return problems("tests:\n- name: it\n  timeline:\n" + textwrap.indent(textwrap.dedent(text), "  "))

    return find


@pytest.fixture
def moments(read):
    """`moments(text)` gives the moments of one timeline: seconds, and what happens."""

    def find(text: str):
        suite = read("tests:\n- name: it\n  timeline:\n" + textwrap.indent(textwrap.dedent(text), "  "))
        return [(moment.at_ns / SECOND_NS, moment.what) for moment in suite.timelines[0].moments]

    return find


HEADS = [
    ("", "1:1: the file is empty"),
    ("5", "1:1: a mapping (key: value) is expected here, not `5`"),
    ("tests: []", "1:8: there is no test in here"),
    ("rules: [no.yaml]\ntests: []", "1:9: `no.yaml` is not there; it is relative to this file"),
    ("rules: [r.test.yaml]\ntests: []", "1:9: `r.test.yaml` holds tests; name the file of the rules"),
    ("rules: [{}]\ntests: []", "1:9: a path is expected, such as greenhouse.yaml; it is relative to this file"),
    ("timezone: Europe/Berln\ntests: []", "1:11: no time zone is named `Europe/Berln`; did you mean `Europe/Berlin`?"),
    ("start: noon\ntests: []", "1:8: `start: noon` is no time; write it as 2026-03-28T22:00:00, or with Z or +01:00"),
    ("start: 0001-01-01T00:00:00+23:00\ntests: []", "1:8: `start` lies in the years 1970 to 2099"),
    ("start: 2026\ntests: []", '1:8: `start` is a text; quote it: "2026"'),
    ("location: {latitude: 91, longitude: 0}\ntests: []", "1:22: `latitude` is at least -90 and at most 90, not 91"),
    ("topics: ['a/{b}c']\ntests: []", "1:10: `{b}c`: a capture is written {name} and fills its whole level"),
    ("topics: [{a: b}]\ntests: []", "1:10: a topic filter is a text, such as devices/{device}/{type}"),
    ("test: []\ntests: []", "1:1: unknown key `test`; did you mean `tests`?"),
]


@pytest.mark.parametrize(("text", "problem"), HEADS, ids=[text for text, _ in HEADS])
def test_the_head_of_a_file(problems, text, problem):
    """What the tests of a file share is checked word by word."""
    assert problem in problems(text)


def test_a_file_of_another_name_says_what_it_is_about(problems):
    """Without `rules` it is the file of the same name, and if that is not there, so it says."""
    assert problems("tests: []", "x.test.yaml")[0] == "1:1: `rules` is missing, and there is no x.yaml beside this file"
    assert "rules" not in problems("rules: [r.yaml]\ntests: []", "x.test.yaml")[0]


STEPS = [
    ("- {at: 5, expect: none}", "4:10: `at`: a duration needs a unit: 5s or 5m?"),
    ("- {at: -5s, expect: none}", "4:10: `at`: `-5s`; write a duration as 250ms, 90s, 5m, 1h30m, 7d or 00:05:00"),
    ("- {at: 5s, after: 1s, expect: none}",
     "4:21: `at` counts from the beginning, `after` from the step before: write one"),
    ("- {at: 401d, expect: none}", "4:5: a test lasts at most 400d"),
    ("- {every: 1m, send: {a: 1}}", "4:5: a series has both: `every`, and `until` when (from the beginning)"),
    ("- {every: 0s, until: 1m, send: {a: 1}}", "4:13: `every` must be longer than zero"),
    ("- {at: 9m, every: 1m, until: 1m, send: {a: 1}}", "4:32: the series begins only at 9m"),
    ("- {every: 1m, until: 2m, silence: 1s}", "4:13: `every` belongs to `send`"),
    ("- {every: 1m, until: 2m, send: {a: 1}, expect: none}",
     "4:50: `expect` stands in a step of its own, not in a series"),
    ("- {every: 1ms, until: 1h, send: {a: 1}}", f"4:5: a test has at most {MOST_MOMENTS} moments"),
    ("- {at: 2m, send: {a: 1}}\n- {at: 1m, expect: none}",
     "5:10: the step before begins at 2m; steps stand in the order in which they begin"),
    ("- {at: 2m}",
     f"4:5: nothing happens in this step; write one of {WORDS}"),
    ("- 7", "4:5: a mapping (key: value) is expected here, not `7`"),
    ("- {sent: {a: 1}}", "4:6: unknown key `sent`; did you mean `send`?"),
    ("- {send: {a: 1}, silence: 1s}", "4:29: one thing happens in a step; `send` stands here already"),
    ("- {send: {}}", "4:12: `send` is a mapping, from topic to payload"),
    ("- {send: {a/+: 1}}", "4:18: `a/+`: a topic name holds no `+` and no `#`"),
    ('- {send: {"a/{b}": 1}}', "4:22: `a/{b}`: a constant in braces that `given` does not give"),
    ("- {send: {a: {b: [.nan]}}}", "4:16: no device can send this: numbers are finite and fit into 64 bits"),
    ("- {send: {a: 9223372036854775808}}", "4:16: no device can send this: numbers are finite and fit into 64 bits"),
    ("- {silence: 0s}", "4:15: `silence` must be longer than zero"),
    ("- {expect: none, retained: true}", "4:30: `retained` belongs to `send`"),
    ("- {expect: none, crash: true}", "4:27: `crash` belongs to `restart`"),
    ("- {clock_jump: 5}", "4:18: `clock_jump` is a duration such as 2h, or -2h for a jump back"),
    ("- {clock_jump: 999999999999w}", "4:18: `clock_jump` is at most 36500d"),
    ("- {clock_jump: [2h]}", "4:18: `clock_jump` is a duration such as 2h, or -2h for a jump back"),
    ("- {refuse: {state: denied}}", "4:14: `rule` is missing"),
    ("- {refuse: {rule: worm, state: denied}}", "4:21: no rule here is named `worm`; did you mean `warm`?"),
    ("- {refuse: {rule: warm, state: sent}}", "4:34: `state` is one of denied, expired, unconfirmed, not `sent`"),
    ("- {send: {a: 1}}", "4:3: this test expects nothing; end it with `expect: none` at least"),
    ("- {expect: }", "4:13: `expect` is none, or a list of actions such as {notify: {to: oncall}}"),
    ("- {expect: nothing}", "4:14: `expect` is none, or a list of actions such as {notify: {to: oncall}}"),
    ("- {expect: [{notfy: {}}]}",
     "4:15: an action is one of notify, command, emit, publish, set; did you mean `notify`?"),
    ("- {expect: [{notify: {}, emit: {}}]}", "4:15: an action is one of notify, command, emit, publish, set"),
    ("- {expect: [5]}", "4:15: a mapping (key: value) is expected here, not `5`"),
    ("- {expect: [{notify: {txt: a}}]}", "4:25: unknown key `txt`; did you mean `text`?"),
    ("- {expect: [{notify: {text: 5}}]}", '4:31: `text` is a text; quote it: "5"'),
    ("- {expect: [{command: {state: ON}}]}", "4:33: `state` is one of on, off, not `ON`"),
    ("- {expect: [{publish: {qos: 3}}]}", "4:31: `qos` is at least 0 and at most 2, not 3"),
    ("- {expect: [{notify: {}, rule: worm}]}", "4:34: no rule here is named `worm`; did you mean `warm`?"),
    ("- {expect: [{notify: {}, times: 0}]}", "4:35: `times` is at least 1 and at most 10000, not 0"),
    ("- {expect_state: {worm: active}}", "4:27: no rule here is named `worm`; did you mean `warm`?"),
    ("- {expect_state: {warm: hot}}", "4:27: `warm` is one of inactive, pending, active, unknown, not `hot`"),
    ("- {expect_state: {warm: {a: hot}}}", "4:31: `a` is one of inactive, pending, active, unknown, not `hot`"),
    ("- {expect_state: {}}", "4:20: `expect_state` is a mapping from rule to phase, such as {freezer-warm: active}"),
    ("- {silence: 5m}\n- {at: 4m, send: {a: 1}}", "5:5: something comes at 4m, in the silence until 5m"),
    ("- {every: 1m, until: 9m, send: {a: 1}}\n- {at: 3m, silence: 90s}",
     "4:5: something comes at 4m, in the silence until 4m30s"),
    ("- {restart: 5m}\n- {at: 4m, expect: none}", "5:22: at 4m the gateway is away, until 5m"),
    ("- {restart: 5m}\n- {at: 0s, send: {a: 1}}", "5:5: at 0s the gateway is away, until 5m"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), STEPS, ids=[text for text, _ in STEPS])
def test_a_step(steps, text, problem):
    """Each step says where it is wrong, and what to write."""
    assert problem in steps(text)


def test_every_problem_of_tests_and_rules_is_told_at_once(problems, tmp_path):
    """One run finds them all."""
    (tmp_path / "broken.yaml").write_text("rules: [{id: a, on: b, when: 1 +, then: []}]\n", encoding="utf-8")
    told = problems(
        """\
        rules: [broken.yaml]
        tests:
          - name: a
            timeline: [{at: 5, expect: none}]
          - timeline: [{expect: {notfy: {}}}]
        """
    )
    assert any(line.startswith("broken.yaml:1:") for line in told)
    assert [line.split(": ")[0] for line in told if not line.startswith("broken")] == ["4:21", "5:5", "5:25"]


def test_names_are_told_apart(problems):
    """`-k` and a build server go by names."""
    text = "tests:\n- {name: a, timeline: [{expect: none}]}\n- {name: a, timeline: [{expect: none}]}"
    assert problems(text) == ["3:10: `a` is the name of another test, in line 2"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("{1a: 1}", "2:27: `1a` is no name: letters, digits and _"),
        ("{a: [1]}", "2:26: `a` is a single value"),
        ("[5]", "2:23: a mapping (key: value) is expected here, not `5`"),
    ],
)
def test_constants_have_names_and_single_values(problems, given, problem):
    """What is put in a place fits there."""
    assert problem in problems(f"tests:\n- {{name: a, given:   {given}, timeline: [{{expect: none}}]}}")


def test_two_topics_may_not_become_one(problems):
    """A constant cannot hide a message behind another."""
    text = 'tests:\n- {name: a, given: {x: b}, timeline: [{send: {b: 1, "{x}": 2}, expect: none}]}'
    assert problems(text) == ["2:53: `b` stands twice, once its constants are in their places"]


def test_constants_are_put_into_topics_texts_and_payloads_with_their_kind(read):
    """A set for each run; braces of no constant stay as they are."""
    suite = read(
        """\
        tests:
          - name: it
            given: [{d: a, t: 1.50, ok: true}, {d: b, t: 2, ok: null}]
            timeline:
              - {send: {"devices/{d}/x": {t: "{t}", text: "{t} {ok} {other}", ok: "{ok}"}}}
              - {expect: [{notify: {text: "{d}{d}"}}]}
        """
    )
    assert [timeline.name for timeline in suite.timelines] == ["it [d=a, t=1.5, ok=true]", "it [d=b, t=2, ok=null]"]
    sends = [timeline.moments[0].what.records for timeline in suite.timelines]
    assert sends == [
        (("devices/a/x", {"t": 1.5, "text": "1.5 true {other}", "ok": True}),),
        (("devices/b/x", {"t": 2, "text": "2 null {other}", "ok": None}),),
    ]
    assert suite.timelines[1].moments[1].what.actions[0].fields == {"text": "bb"}


def test_times_are_counted_from_the_beginning_or_from_the_step_before(moments):
    """`at`, `after`, a series, and nothing at all."""
    found = moments(
        """\
        - {send: {a: 1}}
        - {every: 10s, until: 35s, send: {b: 1}}
        - {after: 1s, restart: 4s}
        - {clock_jump: -1h30m}
        - {at: 40s, silence: 5s, expect: none}
        - {every: 2s, until: 49s, send: {c: 1}}
        """
    )
    assert [at_s for at_s, _ in found] == [0, 10, 20, 30, 31, 35, 40, 45, 45, 47, 49]
    kinds = [type(what) for _, what in found]
    assert kinds == [*[Send] * 4, Restart, ClockJump, Silence, Silence, Expect, Send, Send]
    assert found[5][1].by_ns == -5_400 * SECOND_NS


def test_a_series_goes_on_beside_the_steps_below_it(moments):
    """Played in order of time; at one instant from top to bottom."""
    found = moments(
        "- {at: 0s, every: 1m, until: 3m, send: {a: 1}}\n- {at: 1m, expect: none}\n- {at: 90s, send: {b: 1}}\n"
    )
    assert [(at_s, type(what).__name__) for at_s, what in found] == [
        (0, "Send"), (60, "Send"), (60, "Expect"), (90, "Send"), (120, "Send"), (180, "Send"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("head", "start_s"),
    [
        ("", 1_767_225_600),
        ("start: 2026-03-28T22:00:00", 1_774_735_200),
        ("start: 2026-03-28T22:00:00Z\ntimezone: Europe/Berlin", 1_774_735_200),
        ("start: 2026-03-28T22:00:00\ntimezone: Europe/Berlin", 1_774_731_600),
        ("start: 2026-03-29T22:00:00\ntimezone: Europe/Berlin", 1_774_814_400),
        ("start: 2026-03-28T22:00:00.25+05:30", 1_774_715_400.25),
        ('start: "2026-03-28"', 1_774_656_000),
    ],
)
def test_the_wall_clock_begins_where_it_is_told_to(read, head, start_s):
    """In the zone of the file, or with an offset of its own; a test may begin elsewhere."""
    suite = read(head + "\ntests: [{name: a, timeline: [{expect: none}]}]")
    assert suite.timelines[0].start_ns == round(start_s * 4) * SECOND_NS // 4


def test_a_test_may_begin_at_a_time_of_its_own(read):
    """The file's start is only the default."""
    suite = read(
        "start: 2026-01-01T00:00:00Z\ntests: [{name: a, start: 1970-01-01T00:00:01Z, timeline: [{expect: none}]}]"
    )
    assert suite.timelines[0].start_ns == SECOND_NS


def test_what_the_file_says_of_the_gateway_goes_before_what_the_configuration_says(tmp_path):
    """So that a test runs the same with and without `-c`."""
    (tmp_path / "r.yaml").write_text(RULES, encoding="utf-8")
    path = tmp_path / "r.test.yaml"
    path.write_text("topics: ['x/{device}/#']\ntests: [{name: a, timeline: [{expect: none}]}]", encoding="utf-8")
    assert [topic.text for topic in load_tests(path, Site()).ruleset.topics] == ["x/{device}/#"]

"""`gateway.config.section`: a mapping taken apart; every accessor gives a value or notes a problem and goes on."""

import pytest

from gateway.config.document import Mark, Problems, parse
from gateway.config.section import Section, did_you_mean


def section_of(text):
    problems = Problems()
    tree = parse(text, "f", problems)
    return Section(tree, problems, Mark("f", 1, 1)), problems


def test_what_is_absent_has_its_default_and_is_no_problem():
    """Without `required`, silence is consent."""
    section, problems = section_of("{}")
    assert section.text("a", "x") == "x"
    assert section.number("b", 1.5) == 1.5
    assert section.integer("c") is None
    assert section.boolean("d", default=True) is True
    assert section.choice("e", ("x", "y"), "y") == "y"
    assert section.duration_s("f", 2.0) == 2.0
    assert section.size_bytes("g", 7) == 7
    assert section.section("h") is None
    assert list(section.each("i")) == []
    assert not problems


def test_what_is_required_and_absent_is_a_problem_each():
    """All of them, at the section's own place."""
    section, problems = section_of("\n{}")
    section.text("a", required=True)
    section.number("b", required=True)
    section.choice("c", ("x",), required=True)
    section.duration_s("d", required=True)
    section.section("e", required=True)
    list(section.each("f", required=True))
    assert problems.lines() == [f"f:2:1: `{key}` is missing" for key in "abcdef"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("x", "`n` is a number, not `x`"),
        ("true", "`n` is a number, not `true`"),
        ("", "`n` is a number, not nothing"),
        (".nan", "`n` is a finite number"),
        ("-.inf", "`n` is a finite number"),
        ("1e999", "`n` is a finite number"),
        ('"5"', '`n` is a number, not the text "5"; take the quotes away'),
        ("[5]", "`n` is a single value, not a list"),
        ("{a: 5}", "`n` is a single value, not a mapping"),
        ("11", "`n` is at least 0 and at most 10, not 11"),
        ("-1", "`n` is at least 0 and at most 10, not -1"),
    ],
)
def test_a_number_is_finite_and_within_its_bounds(value, problem):
    """Thresholds of .nan and .inf, texts and booleans never become numbers."""
    section, problems = section_of(f"n: {value}")
    assert section.number("n", 3.0, least=0, most=10) == 3.0
    (line,) = problems.lines()
    assert line.partition(" ")[2] == problem


def test_keys_that_nobody_asked_for_are_told_with_the_nearest_known_one():
    """A misspelt key is never silently ignored."""
    section, problems = section_of("treshold: 5\nzzz: 1\nthreshold_c: 4")
    section.number("threshold")
    section.number("threshold_c")
    section.done()
    assert problems.lines() == [
        "f:1:1: unknown key `treshold`; did you mean `threshold`?",
        "f:2:1: unknown key `zzz`; known here: threshold, threshold_c",
    ]


def test_a_single_item_counts_as_a_list_of_one():
    """`rules: a.yaml` and `rules: [a.yaml]` are the same."""
    for text in ("a: x", "a: [x]"):
        section, _ = section_of(text)
        assert [item.mark.line for item in section.each("a")] == [1]


def test_a_long_value_is_cut_in_messages():
    """A megabyte in a value is not a megabyte on the terminal."""
    section, problems = section_of(f"a: {'x' * 5_000}\n{'k' * 900}: 1")
    section.integer("a")
    section.choice("a", ("x",))
    section.done()
    assert all(len(line) < 200 for line in problems.lines())
    assert len(problems.lines()) == 3


@pytest.mark.parametrize(
    ("word", "hint"),
    [("forwrad", "; did you mean `forward`?"), ("xyz", ""), ("", ""), ("forward" * 1_000, "")],
)
def test_suggestions(word, hint):
    """The nearest word, or none; never slow."""
    assert did_you_mean(word, ("forward", "rules")) == hint

"""`gateway.config.document`: any bytes become a tree with places, or problems with places. Nothing is raised."""

import contextlib
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.config.document import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    Mapping,
    Mark,
    Problems,
    Scalar,
    Sequence,
    parse,
    parse_file,
    plain,
)
from gateway.errors import ConfigError


def read(text):
    problems = Problems()
    tree = parse(text, "f.yaml", problems)
    return tree, problems.lines()


@pytest.fixture
def read_bytes(tmp_path):
    def read_file(data):
        path = tmp_path / "f.yaml"
        path.write_bytes(data)
        problems = Problems()
        tree = parse_file(path, problems)
        return tree, [line.replace(str(path), "f.yaml") for line in problems.lines()]

    return read_file


def test_every_value_and_every_key_knows_its_place():
    """Lines and columns count from 1, in characters, whatever stands before them."""
    tree, problems = read("# note\nä: {ö: [1,  x]}\nb:\n  - c: true\n")
    assert not problems
    assert isinstance(tree, Mapping)
    assert tree.key_marks == {"ä": Mark("f.yaml", 2, 1), "b": Mark("f.yaml", 3, 1)}
    inner = tree.items["ä"]
    assert isinstance(inner, Mapping)
    listed = inner.items["ö"]
    assert isinstance(listed, Sequence)
    assert [item.mark[1:] for item in listed.items] == [(2, 9), (2, 13)]
    assert plain(tree) == {"ä": {"ö": [1, "x"]}, "b": [{"c": True}]}


def test_the_written_form_of_a_value_is_kept():
    """Messages quote what the operator wrote: 1.10, not 1.1."""
    tree, _ = read('[1.10, "1.10", 0100]')
    assert isinstance(tree, Sequence)
    scalars = [item for item in tree.items if isinstance(item, Scalar)]
    assert [scalar.raw for scalar in scalars] == ["1.10", "1.10", "0100"]
    assert [scalar.value for scalar in scalars] == [1.1, "1.10", "0100"]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "[{a: "])
@pytest.mark.parametrize("levels", [2_000, 100_000])
def test_nesting_is_bounded_before_it_recurses(opening, levels):
    """Thousands of brackets are one problem, not a RecursionError."""
    tree, (problem,) = read(opening * levels)
    assert tree is None
    assert problem.endswith(f": nested deeper than {MAX_DEPTH} levels")


def test_the_deepest_that_is_allowed_is_read():
    """The bound is where it says it is."""
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH)[0] is not None
    assert read("[" * (MAX_DEPTH + 1) + "x" + "]" * (MAX_DEPTH + 1))[0] is None


def test_the_number_of_values_is_bounded():
    """A small file cannot become a large tree."""
    assert read("[" + "1," * (MAX_NODES - 1) + "]")[0] is not None
    tree, (problem,) = read("[" + "1," * MAX_NODES + "]")
    assert tree is None
    assert problem.endswith(f": more than {MAX_NODES} values")


def test_an_alias_bomb_does_not_go_off():
    """Nine levels of nine aliases are 81 lines of problems, and no tree."""
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10)]
    tree, problems = read("l0: &l0 x\n" + "\n".join(levels) + "\n")
    assert tree is None
    assert sum("an alias" in line for line in problems) == 81
    assert sum("an anchor" in line for line in problems) == 10


def test_a_file_of_ten_megabytes_is_not_read_to_its_end(read_bytes):
    """The size is bounded before anything is decoded."""
    assert read_bytes(b"a: b\n" * 2_000_000) == (None, [f"f.yaml:1:1: larger than {MAX_BYTES} bytes"])
    assert read(" " * (MAX_BYTES + 1)) == (None, [f"f.yaml:1:1: larger than {MAX_BYTES} bytes"])
    assert read_bytes(b"a: b #" + b" " * (MAX_BYTES - 6))[0] is not None


@pytest.mark.parametrize(
    "data", [b"\xef\xbb\xbfa: 1\nb: 2\n", b"a: 1\r\nb: 2\r\n", b"a: 1\nb: 2", b"---\na: 1\nb: 2\n...\n"]
)
def test_a_byte_order_mark_and_foreign_line_ends_are_welcome(read_bytes, data):
    """What editors on other systems add changes nothing."""
    tree, problems = read_bytes(data)
    assert not problems
    assert tree is not None
    assert plain(tree) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("a: 1\nort: Zürich, Köln\n".encode("latin-1"), "2:7: not UTF-8; save the file as UTF-8"),
        ("ä: ".encode() + b"\xff", "1:4: not UTF-8; save the file as UTF-8"),
        ("a: 1".encode("utf-16"), "1:1: not UTF-8; save the file as UTF-8"),
        (b"a: 1\nb: \x00", "2:4: a character that YAML does not allow: U+0000"),
        (b"a: 1\nb: \x1b[31m", "2:4: a character that YAML does not allow: U+001B"),
        (b"", "1:1: the file is empty"),
        (b" \n# nothing\n", "1:1: the file is empty"),
        (b"\xef\xbb\xbf", "1:1: the file is empty"),
        (b"---\n...\n", "1:1: the file is empty"),
        (b"a:\n\tb: 1\n", "2:1: a tab; indent with spaces"),
    ],
)
def test_bytes_that_are_no_configuration(read_bytes, data, problem):
    """Encoding, control characters and nothing at all have sentences of their own, with a place."""
    assert read_bytes(data) == (None, [f"f.yaml:{problem}"])


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path):
    """Missing, or a directory: the operating system's word, at the file's first character."""
    for path, word in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        problems = Problems()
        assert parse_file(path, problems) is None
        assert problems.lines() == [f"{path}:1:1: cannot be read: {word}"]


def test_problems_are_told_in_file_order_and_on_one_printable_line_each():
    """A value cannot write to the terminal or forge a line, wherever it is quoted."""
    problems = Problems()
    problems.add(Mark("f", 10, 1), "later\x1b[2J\n2026-01-01 all is well\ud800")
    problems.add(Mark("f", 9, 2), "sooner, ä and €")
    with pytest.raises(ConfigError) as raised:
        problems.raise_if_any()
    assert raised.value.problems == [
        "f:9:2: sooner, ä and €",
        "f:10:1: later\\x1b[2J\\n2026-01-01 all is well\\ud800",
    ]


def test_a_settled_place_is_spoken_of_once():
    """What only follows from a value that could not be had is not told."""
    problems = Problems()
    problems.settle(Mark("f", 1, 1), "not set")
    problems.add(Mark("f", 1, 1), "empty")
    problems.add(Mark("f", 1, 2), "other")
    assert problems.lines() == ["f:1:1: not set", "f:1:2: other"]


_WORDS = [
    "a",
    "b:",
    ": ",
    "- ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\n",
    "  ",
    "\t",
    "&a ",
    "*a",
    "!!str ",
    "!",
    "|",
    ">",
    '"',
]
_WORDS += [
    "'",
    "\\",
    "\\x41",
    '"\\UFFFFFFFF"',
    "%YAML 1.1",
    "%TAG ! a",
    "---",
    "...",
    "<<",
    "#",
    "0x1f",
    "1e999",
    ".nan",
    "\ufeff",
]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(_WORDS), max_size=24).map("".join)))
@example('"\\UFFFFFFFF"')
@example('"\\ud800"')
@example("%YAML 1." + "9" * 5_000 + "\n--- a")
@example("!%ff a")
@example("\x85")
def test_any_text_gives_a_tree_or_a_problem(text):
    """Whatever is written, the answer is a tree, or at least one problem with its place."""
    tree, problems = read(text)
    assert tree is not None or problems
    assert all(line.startswith("f.yaml:") and line.isprintable() for line in problems)


@pytest.mark.parametrize("_round", range(3))
def test_any_damage_to_a_file_gives_a_tree_or_a_problem(read_bytes, smallest, seed, _round):
    """Bytes flipped, cut and doubled in a sound file never escape as an exception."""
    dice = random.Random(f"{seed}{_round}")
    for _ in range(300):
        data = bytearray(smallest.encode())
        for _ in range(dice.randint(1, 4)):
            place = dice.randrange(len(data))
            data[place : place + dice.choice((0, 1, 1, 8))] = dice.choice((b"", b"\n", dice.randbytes(2), data[:place]))
            data = data or bytearray(b" ")
        tree, problems = read_bytes(bytes(data))
        assert tree is not None or problems
        with contextlib.suppress(UnicodeDecodeError):
            assert read(bytes(data).decode("utf-8-sig"))[1] == problems

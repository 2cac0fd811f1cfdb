"""`gateway.config.scalars`: what an unquoted word means, durations and sizes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.scalars import Wrong, duration_s, duration_text, plain_scalar, size_bytes, size_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("True", True), ("FALSE", False), ("null", None), ("~", None), ("", None),
        ("1", 1), ("-7", -7), ("+7", 7), ("0", 0), ("1.10", 1.1), (".5", 0.5), ("5.", 5.0),
        ("1e3", 1000.0), ("-1E-2", -0.01),
        (".inf", math.inf), ("-.Inf", -math.inf), ("1e999", math.inf),
    ],
)  # fmt: skip
def test_words_that_are_more_than_text(text, value):
    """The core schema of YAML 1.2."""
    found = plain_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_number():
    """`.nan` is read as what it says; whoever asks for a number refuses it."""
    found = plain_scalar(".nan")
    assert isinstance(found, float)
    assert math.isnan(found)


@pytest.mark.parametrize(
    "text",
    [
        "on", "off", "yes", "no", "On", "NO", "y", "n", "tRUE", "nul",
        "12:30:00", "5:00", "010", "-010", "0o10", "0x1F", "0b1", "1_000", "1,000",
        "2026-01-01", "2026-01-01T00:00:00Z",
        "1e", "e3", ".", "-", "+", "--1", "1.2.3", "inf", "nan", "infinity", ".INF ", "٣", "١٢", "½",
         "9" * 301, "=", "<<",
    ],
)  # fmt: skip
def test_words_that_stay_text(text):
    """What YAML 1.1 or Python would turn into something else, and what readers disagree about."""
    assert plain_scalar(text) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25), ("90s", 90), ("5m", 300), ("1h30m", 5_400), ("7d", 604_800), ("2w", 1_209_600),
        ("1.5h", 5_400),
        ("1d2h3m4s5ms", 93_784.005), ("00:05:00", 300), ("100:00:01", 360_001), ("0s", 0),
    ],
)  # fmt: skip
def test_durations(text, seconds):
    """Every form that the documentation shows, in seconds."""
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "", "s", "5", "5 m", "-5m", "5m-", "30m1h", "1m1m", "5min", "5M", "1h 30m", "1h30", "٣s", "1_0s", "1e3s",
        "5:00", "00:60:00", "infs", "9" * 13 + "s", "1." + "1" * 13 + "s", "\n5m", "5m\n",
    ],
)  # fmt: skip
def test_words_that_are_no_duration(text):
    """Told what a duration looks like."""
    assert duration_s(text) == Wrong("write a duration as 250ms, 90s, 5m, 1h30m, 7d or 00:05:00")


def test_a_bare_number_is_asked_for_its_unit():
    """5 might be seconds, minutes or bytes; nobody guesses."""
    assert duration_s(5) == Wrong("a duration needs a unit: 5s or 5m?")
    assert duration_s(1.5) == Wrong("a duration needs a unit: 1.5s or 1.5m?")
    assert size_bytes(8) == Wrong("a size needs a unit: 8MiB or 8KiB?")


@pytest.mark.parametrize("value", [True, False, None])
def test_truth_and_nothing_are_no_quantities(value):
    """A boolean is an int to Python, and not to the operator."""
    assert isinstance(duration_s(value), Wrong)
    assert isinstance(size_bytes(value), Wrong)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1B", 1), ("64KiB", 65_536), ("8MiB", 8_388_608), ("1GiB", 1 << 30), ("1TiB", 1 << 40), ("1.5KiB", 1_536),
        ("1kB", 1_000), ("2MB", 2_000_000), ("1GB", 1_000_000_000), ("8 MiB", 8_388_608), ("0B", 0),
    ],
)  # fmt: skip
def test_sizes(text, expected):
    """Binary and decimal units, in bytes."""
    assert size_bytes(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "8", "MiB", "8mib", "8M", "8K", "8KB", "8 MB 8", "-8MiB", "8  MiB", "8\tMiB", "٣MiB", "1e3B", "9" * 16 + "B"],
)
def test_words_that_are_no_size(text):
    """`8M` and `8KB` mean different things to different people."""
    assert size_bytes(text) == Wrong("write a size as 64KiB, 8MiB or 1GiB (or kB, MB, GB)")


@given(st.integers(0, 10**12))
def test_a_duration_is_shown_as_one_would_write_it(milliseconds):
    """What a message proposes can be pasted into the file."""
    assert duration_s(duration_text(milliseconds / 1_000)) == pytest.approx(milliseconds / 1_000, abs=1e-3)


@given(st.integers(0, 10**14))
def test_a_size_is_shown_as_one_would_write_it(count):
    """What a message proposes can be pasted into the file, and is the same to the byte."""
    assert size_bytes(size_text(count)) == count


def test_shown_quantities_read_well():
    """The largest unit first, nothing that is zero."""
    assert [duration_text(each) for each in (0, 0.25, 90, 65_535, 604_800)] == [
        "0s",
        "250ms",
        "1m30s",
        "18h12m15s",
        "7d",
    ]
    assert [size_text(each) for each in (0, 1_000, 65_536, 8 << 20)] == ["0B", "1000B", "64KiB", "8MiB"]


@given(st.text(max_size=40))
def test_no_word_is_too_strange(text):
    """Every text has a meaning or a message."""
    plain_scalar(text)
    found = duration_s(text)
    assert isinstance(found, Wrong) or math.isfinite(found)
    size_bytes(text)

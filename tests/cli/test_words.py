"""How figures are put for a person."""

import pytest

from gateway.cli import words


@pytest.mark.parametrize(
    ("count_bytes", "text"),
    [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (8 << 20, "8.0 MiB"), (1 << 40, "1.0 TiB")],
)
def test_sizes_are_in_the_units_of_the_configuration(count_bytes, text):
    """What a person reads can be written into `max_size`."""
    assert words.size(count_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0.4 ms"),
        (0.0704, "70 ms"),
        (1.25, "1.2 s"),
        (12.4, "12 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7_500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations_are_told_in_the_two_units_that_matter(seconds, text):
    """Nobody counts the seconds of a week."""
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (12_345, "12,345"), (999_999, "999,999"), (1_234_567, "1.23 M"), (2.5e9, "2.50 G")]
)
def test_counts_stay_exact_up_to_a_million(number, text):
    """Accounts are compared by eye: they are not rounded where they need not be."""
    assert words.count(number) == text


def test_times_are_in_the_machine_s_zone_for_people_and_in_utc_for_machines(monkeypatch):
    """A person compares with the clock on the wall; a machine with other machines."""
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert words.moment(1_700_000_000_250_000_000) == "2023-11-14 23:13:20.250"
    finally:
        monkeypatch.undo()
        time.tzset()
    assert words.utc(1_700_000_000_250_001_999) == "2023-11-14T22:13:20.250001Z"
    assert words.moment(None) == "-"

"""Each fault does what it says, counts it, and leaves everything else alone."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest

from firmware_sim import Faults, Skew, Span, World
from firmware_sim.errors import OptionError
from firmware_sim.faults import FaultChain
from firmware_sim.message import Message
from firmware_sim.spans import parse_skew, parse_span

HOUR_S = 3_600.0


def _pair(faults: Faults, seed: int, devices: int = 6, duration_s: float = HOUR_S):
    """The stream without faults, with them, and the world of the latter."""
    world = World(seed, devices, 10.0, faults=faults)
    return World(seed, devices, 10.0).advance(duration_s), world.advance(duration_s) + world.flush(), world


def _ids(messages) -> list[tuple[str, int]]:
    return [(m.device, m.seq) for m in messages]


def _within(count: int, trials: int, rate: float) -> bool:
    return abs(count - trials * rate) <= 5 * math.sqrt(trials * rate * (1 - rate))


def test_no_fault_changes_nothing(seed):
    """Law: without faults the stream passes through unchanged."""
    clean, faulty, world = _pair(Faults(), seed)
    assert faulty == clean
    assert not world.fault_counts


def test_loss_leaves_gaps_at_its_rate(seed):
    """Law: what is missing is exactly what was counted; the rest is untouched and in order."""
    clean, faulty, world = _pair(Faults(loss=0.05), seed)
    lost = set(_ids(clean)) - set(_ids(faulty))
    assert world.fault_counts == {"loss": len(lost)}
    assert _within(len(lost), len(clean), 0.05)
    assert faulty == [m for m in clean if (m.device, m.seq) not in lost]


def test_duplicates_follow_their_original(seed):
    """Law: a duplicate is the same message again, at once."""
    clean, faulty, world = _pair(Faults(duplicates=0.1), seed)
    assert len(faulty) - len(clean) == world.fault_counts["duplicates"]
    assert _within(world.fault_counts["duplicates"], len(clean), 0.1)
    assert [m for i, m in enumerate(faulty) if i == 0 or m != faulty[i - 1]] == clean


def test_reordering_swaps_neighbours_of_one_device_and_loses_nothing(seed):
    """Law: a message overtakes at most one other of its device; after a flush all are there."""
    clean, faulty, world = _pair(Faults(reorder=0.1), seed)
    assert sorted(_ids(faulty)) == sorted(_ids(clean))
    swaps = 0
    for name in world.devices:
        seqs = [m.seq for m in faulty if m.device == name]
        assert all(abs(seq - place) <= 1 for place, seq in enumerate(seqs, 1))
        swaps += sum(a > b for a, b in pairwise(seqs))
    assert swaps == world.fault_counts["reorder"] > 0


def test_nan_strikes_measured_numbers_only(seed):
    """Law: temperature and the like read NaN, in JSON as the bare word; seq, ts, states and booleans stay."""
    clean, faulty, world = _pair(Faults(nan=0.2), seed)
    struck = 0
    for before, after in zip(clean, faulty, strict=True):
        struck += after.fields != before.fields
        for name, value in after.fields.items():
            if isinstance(value, float) and math.isnan(value):
                assert name in ("temperature", "humidity", "pressure", "power_w", "energy_wh")
                assert f'"{name}":NaN' in after.payload.decode()
            else:
                assert value == before.fields[name]
    assert world.fault_counts["nan"] == struck > 0


def test_nan_within_a_span_strikes_always():
    """Law: a span names its device, channel and time exactly."""
    span = Span("greenhouse", 100.0, 200.0, "climate")
    _, faulty, world = _pair(Faults(nan_spans=(span,)), 7)
    nans = [m for m in faulty if any(isinstance(v, float) and math.isnan(v) for v in m.fields.values())]
    meant = [m for m in faulty if m.topic == "devices/greenhouse/climate" and 100.0 <= m.at_s < 200.0]
    assert nans == meant
    assert world.fault_counts == {"nan": 10}


def test_stuck_sensor_repeats_its_first_reading_with_fresh_seq_and_ts():
    """Law: a stuck sensor looks alive."""
    clean, faulty, world = _pair(Faults(stuck=(Span("greenhouse", 600.0, 1_200.0, "climate"),)), 7)
    stuck = [m for m in faulty if m.topic == "devices/greenhouse/climate" and 600.0 <= m.at_s < 1_200.0]
    assert len(stuck) == 60
    assert len({(m.fields["temperature"], m.fields["humidity"]) for m in stuck}) == 1
    assert [(m.seq, m.fields["ts"]) for m in faulty] == [(m.seq, m.fields["ts"]) for m in clean]
    changed = sum(a.fields != b.fields for a, b in zip(clean, faulty, strict=True))
    assert world.fault_counts == {"stuck": changed}


def test_silence_takes_one_channel_or_the_whole_device():
    """Law: silence of a thermometer leaves its heater's voice."""
    _, faulty, world = _pair(Faults(silence=(Span("greenhouse", 600.0, math.inf, "climate"), Span("living"))), 7)
    late = [m for m in faulty if m.device == "greenhouse" and m.at_s >= 600.0]
    assert late
    assert {m.channel for m in late} <= {"heater/state", "door"}
    assert not [m for m in faulty if m.device == "living"]
    assert [m for m in faulty if m.topic == "devices/greenhouse/climate"]
    assert world.fault_counts["silence"] > 600


def test_clock_skew_shifts_ts_and_a_named_device_overrules_everyone():
    """Law: only ts moves, by the given offset."""
    clean, faulty, _ = _pair(Faults(clock_skew=(Skew("*", -3_600.0), Skew("living", 90.0))), 7)
    for before, after in zip(clean, faulty, strict=True):
        offset_s = 90.0 if before.device == "living" else -3_600.0
        assert after.fields["ts"] - before.fields["ts"] == pytest.approx(offset_s, abs=2e-3)
        assert {**after.fields, "ts": 0} == {**before.fields, "ts": 0}


def test_garbled_payloads_are_not_json_and_are_counted(seed):
    """Law: a cut payload is a true prefix, and no parser takes it."""
    clean, faulty, world = _pair(Faults(garble=0.1), seed)
    garbled = 0
    for before, after in zip(clean, faulty, strict=True):
        assert before.payload.startswith(after.payload)
        if after.payload != before.payload:
            garbled += 1
            with pytest.raises(ValueError, match=r"\w"):
                json.loads(after.payload)
    assert world.fault_counts == {"garble": garbled}
    assert _within(garbled, len(clean), 0.1)


def test_all_faults_together_account_for_every_difference(seed):
    """Law: sent = made - silent - lost + duplicated."""
    faults = Faults(loss=0.05, duplicates=0.05, reorder=0.05, garble=0.02, nan=0.02, silence=(Span("living", 0, 900),))
    clean, faulty, world = _pair(faults, seed)
    counts = world.fault_counts
    assert len(faulty) == len(clean) - counts["silence"] - counts["loss"] + counts["duplicates"]


def test_faults_are_deterministic_and_independent_of_other_devices():
    """Law: the same seed strikes the same messages, however many other devices there are and however time is cut."""
    faults = Faults(loss=0.1, duplicates=0.1, reorder=0.1)
    small = World(7, 3, faults=faults).advance(HOUR_S)
    world = World(7, 9, faults=faults)
    large = [m for _ in range(360) for m in world.advance(10.0)]
    for name in ("greenhouse", "living", "freezer"):
        assert [m.seq for m in small if m.device == name] == [m.seq for m in large if m.device == name]


def test_two_copies_of_one_message_that_change_places_are_not_counted_as_reordered():
    """Law: a count says what can be seen."""
    chain = FaultChain(Faults(duplicates=1.0, reorder=1.0), 7)
    message = Message("a", "climate", {"seq": 1, "ts": 0.0}, 0.0)
    assert chain.feed([message]) + chain.flush() == [message, message]
    assert chain.counts == {"duplicates": 1}


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("greenhouse@60s..2m", Span("greenhouse", 60.0, 120.0)),
        ("greenhouse/heater/state@1m..", Span("greenhouse", 60.0, math.inf, "heater/state")),
        ("*@..250ms", Span("*", 0.0, 0.25)),
        ("*@..", Span()),
    ],
)
def test_span_is_read_as_written(text, span):
    """Law: name, channel, start and end, where all but the name may be left out."""
    assert parse_span(text) == span


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("greenhouse", "not of the form name@start..end"),
        ("@1s..2s", "not of the form"),
        ("greenhouse@1s", "not of the form"),
        ("greenhouse@60..120", "write 60s for seconds"),
        ("greenhouse@2m..1m", "ends before it starts"),
        ("greenhouse@1 s..", "not a duration"),
    ],
)
def test_span_that_makes_no_sense_is_refused_in_a_sentence(text, sentence):
    """Law: the sentence says what is wrong."""
    with pytest.raises(OptionError, match=sentence):
        parse_span(text)


def test_skew_is_read_with_its_sign():
    """Law: a plus or no sign is ahead, a minus behind; without a name, all clocks are meant."""
    assert parse_skew("living=+90s") == parse_skew("living=1m30s") == Skew("living", 90.0)
    assert parse_skew("*=-1h") == parse_skew("-1h") == Skew("*", -3_600.0)
    for text in ("living", "living=", "=5s", "living=5"):
        with pytest.raises(OptionError):
            parse_skew(text)

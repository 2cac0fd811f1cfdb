"""`gateway log`: what the log of a data directory holds, whether or not a gateway is running on it."""

import asyncio
import json
import os
import shutil

import pytest

from gateway.cli import log_reading, log_view
from gateway.cli.progress import Reading
from gateway.config.settings import LogSettings
from gateway.model import REPLAYED, RETAINED, Format, Kind
from gateway.ringlog import Store, inspect


@pytest.fixture
def filled(filler, batch_of):
    filler.fill(
        batch_of(("devices/a/climate", b'{"t": 21.5}'), ("devices/b/climate", b'{"t": 3}')),
        batch_of(("rules/x", b'{"because": "cold"}'), kind=Kind.DECISIONS),
        batch_of(("devices/a/door", b"open"), form=Format.TEXT, flags=1 | RETAINED | REPLAYED),
        batch_of(("devices/a/raw", b"\xff\x00"), form=Format.RAW),
    )
    return filler.data_dir


def test_tail_shows_a_record_a_line(gateway, filled):
    """Time, number, topic, payload, and what is odd about it; decisions only when asked for."""
    ran = gateway("log", "tail", filled)
    assert ran.code == 0
    assert [line.split("  ", 1)[1] for line in ran.lines] == [
        '0  devices/a/climate  {"t": 21.5}',
        '1  devices/b/climate  {"t": 3}',
        "3  devices/a/door  open  [retained, replayed]",
        "4  devices/a/raw  0xff00",
    ]
    assert ran.lines[0].startswith("2023-11-1")


def test_tail_shows_decisions_when_asked(gateway, filled):
    """What rules decided stands in the same log, at its place."""
    ran = gateway("log", "tail", filled, "--decisions")
    assert '2  decisions rules/x  {"because": "cold"}' in ran.lines[2]


def test_tail_takes_the_newest(gateway, filled):
    """`-n` counts from the end."""
    assert [line.split()[2] for line in gateway("log", "tail", filled, "-n", 2).lines] == ["3", "4"]
    assert gateway("log", "tail", filled, "-n", 0).lines == []


def test_tail_filters_by_topic(gateway, filled):
    """An MQTT filter, with captures as in the configuration."""
    for topic in ("devices/+/climate", "devices/{device}/climate"):
        assert [line.split()[2] for line in gateway("log", "tail", filled, "--topic", topic).lines] == ["0", "1"]
    ran = gateway("log", "tail", filled, "--topic", "devices/#/x")
    assert ran.code == 2
    assert "#" in ran.err


def test_tail_as_json_is_an_object_a_line(gateway, filled):
    """Values as values where the format gives one, exact bytes otherwise."""
    records = [json.loads(line) for line in gateway("log", "tail", "-d", filled, "--json").lines]
    assert records[0] == {
        "seq": 0,
        "time": "2023-11-14T22:13:20.000000Z",
        "time_synced": True,
        "kind": "events",
        "topic": "devices/a/climate",
        "qos": 1,
        "marks": [],
        "value": {"t": 21.5},
    }
    assert (records[2]["value"], records[2]["marks"]) == ("open", ["retained", "replayed"])
    assert records[3]["payload_base64"] == "/wA="


def test_hostile_topics_and_payloads_are_shown_as_text(gateway, filler, batch_of):
    """A device cannot write to the operator's terminal."""
    filler.fill(batch_of(("devices/\x1b]0;x\x07", b'"\x1b[2J\n"'), form=Format.TEXT))
    (line,) = gateway("log", "tail", filler.data_dir).lines
    assert "\x1b" not in line
    assert r"devices/\x1b]0;x\x07" in line


def test_tail_reads_only_as_many_segments_as_it_needs(filler, batch_of, monkeypatch):
    """The newest records of a large log cost no reading of the whole log (L13)."""
    filler.segment_size_bytes = 64 * 1024
    filler.fill(*(batch_of(("devices/a/x", b'"%05d"' % n + b" " * 20_000)) for n in range(200)))
    read = []
    follow = log_reading.contents.follow

    def counted(*args, **kwargs):
        for item in follow(*args, **kwargs):
            read.append(item)
            yield item

    monkeypatch.setattr(log_reading.contents, "follow", counted)
    everything = log_view.selection("#", decisions=False)
    found = log_reading.newest(filler.data_dir, everything, 2)
    assert [event.seq for _, event in found.records] == [198, 199]
    assert (found.losses, found.end) == ([], 200)
    assert len(read) < 20
    found = log_reading.newest(filler.data_dir, everything, 150)
    assert [event.seq for _, event in found.records] == list(range(50, 200))
    assert len(log_reading.newest(filler.data_dir, everything, 1_000).records) == 200


async def test_following_sees_what_a_running_gateway_appends(filler, batch_of, clock):
    """Beside a running gateway: no lock, every record once, in order, none that is half-written."""
    store = Store(filler.data_dir, "g", LogSettings(), clock, lambda error: None)
    try:

        async def append(n):
            batch = batch_of(("devices/a/x", b"%d" % n))
            batch.stamp = store.events.stamp()
            store.events.append(batch)
            await store.committer.flush()

        await append(0)
        everything = log_view.selection("#", decisions=False)
        end = log_reading.newest(filler.data_dir, everything, 10).end
        await append(1)
        seen = []
        async with asyncio.timeout(20):
            async for _, event in log_reading.follow(filler.data_dir, end, everything):
                seen.append(event.payload)
                if len(seen) == 3:
                    break
                await append(len(seen) + 1)
            else:
                raise AssertionError
    finally:
        await store.close()
    assert seen == [b"1", b"2", b"3"]


def test_info_says_how_much_and_from_when_to_when(gateway, filled):
    """Both logs, in figures; the same in JSON."""
    ran = gateway("log", "info", filled)
    assert ran.code == 0
    assert ran.lines[0].startswith("events: 5 records (4 events), ")
    assert "numbers 0 to 4" in ran.out
    assert any(line.startswith("deadletters: 0 records") for line in ran.lines)
    found = json.loads(gateway("log", "info", filled, "--json").out)
    assert (found["events"]["records"], found["events"]["end_seq"]) == (5, 5)


def test_verify_finds_a_sound_log_sound(gateway, filled):
    """Exit code 0, and how much was checked."""
    ran = gateway("log", "verify", filled)
    assert ran.code == 0
    assert ran.lines[0].startswith("events: sound, 5 records in 4 frames")
    assert json.loads(gateway("log", "verify", filled, "--json").out)["events"]["damaged"] == []


def flip(path, at, bit=1):
    data = bytearray(path.read_bytes())
    data[at] ^= bit
    path.write_bytes(data)


def test_verify_names_the_range_and_the_records_that_one_flipped_bit_cost(gateway, filled):
    """Exit code 1; segment, offset, length, numbers; the records around it are still shown (L5)."""
    (segment,) = (filled / "events").glob("*.seg")
    flip(segment, segment.read_bytes().index(b"21.5"))
    ran = gateway("log", "verify", filled)
    assert ran.code == 1
    assert ran.lines[0].startswith("events: DAMAGED")
    assert ran.lines[1].startswith(f"  damaged: {segment.name}:64: ")
    assert ran.lines[1].endswith(" bytes, checksum does not match; lost: 2 records, 0 to 1")
    found = json.loads(gateway("log", "verify", filled, "--json").out)
    (loss,) = found["events"]["damaged"]
    assert (loss["segment"], loss["offset"], loss["from_seq"], loss["to_seq"]) == (segment.name, 64, 0, 2)
    ran = gateway("log", "tail", filled)
    assert (ran.code, len(ran.lines)) == (0, 2)
    assert "damaged: " in ran.err


def test_info_reads_every_byte_only_if_it_is_asked_to(gateway, filled, monkeypatch):
    """How much there is is told by headers (L13); damage is looked for with --damage, and then exit code 1."""
    (segment,) = (filled / "events").glob("*.seg")
    flip(segment, segment.read_bytes().index(b"21.5"))
    assert gateway("log", "info", filled).code == 0
    ran = gateway("log", "info", filled, "--damage")
    assert ran.code == 1
    assert "events: DAMAGED" in ran.out
    ran = gateway("log", "info", filled, "--damage", "--json")
    assert (ran.code, json.loads(ran.out)["damage"]["events"]["missing_records"]) == (1, 2)


def test_info_of_a_large_log_reads_little_of_it(filler, batch_of, monkeypatch):
    """The beginning of each segment and the headers of the newest, however much lies between (L13)."""
    filler.segment_size_bytes = 256 * 1024
    filler.fill(*(batch_of(("devices/a/x", b"%09d" % n + b" " * 20_000)) for n in range(200)))
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: read.append(data := pread(fd, size, offset)) or data)
    found = inspect.info(filler.data_dir)
    assert (found.records, found.events, found.end_seq) == (200, 200, 200)
    assert sum(map(len, read)) < found.size_bytes // 4


def test_the_audit_trail_is_a_log_like_the_others(gateway, filler, batch_of, clock):
    """`--log audit` and `--log deadletters`; a directory of an older release has no audit trail, and that is fine."""
    filler.fill(batch_of(("devices/a/x", b"1")))
    asyncio.run(_append_to_audit(filler.data_dir, clock, batch_of(("rules/x", b'{"why": 1}'), kind=Kind.DECISIONS)))
    ran = gateway("log", "tail", filler.data_dir, "--log", "audit")
    assert [line.split("  ", 1)[1] for line in ran.lines] == ['0  decisions rules/x  {"why": 1}']
    assert "audit: sound, 1 records" in gateway("log", "verify", filler.data_dir).out
    shutil.rmtree(filler.data_dir / "audit")
    assert "audit" not in gateway("log", "verify", filler.data_dir).out
    assert gateway("log", "info", filler.data_dir).code == 0
    ran = gateway("log", "tail", filler.data_dir, "--log", "audit")
    assert (ran.code, ran.out) == (1, "")
    assert "holds no log named audit" in ran.err


async def _append_to_audit(data_dir, clock, batch):
    store = Store(data_dir, "g", LogSettings(), clock, lambda error: None)
    batch.stamp = store.audit.stamp()
    store.audit.append(batch)
    await store.committer.flush()
    await store.close()


def test_tail_of_the_dead_letters_shows_them(gateway, filler, letter):
    """The log of what could not be processed, as it lies there."""
    filler.fill(letters=(letter("g/1/1/7"),))
    (line,) = gateway("log", "tail", filler.data_dir, "--log", "deadletters", "--json").lines
    record = json.loads(line)
    assert (record["kind"], record["value"]["id"]) == ("dead_letters", "g/1/1/7")


def test_times_before_the_clock_was_set_are_told_right(gateway, filler, batch_of, clock):
    """A machine without a battery clock starts in 1970; once a time source answers, all have their true time."""
    right_ns = clock.wall
    clock.wall, clock.is_synced = 0, False
    filler.fill(batch_of(("devices/a/x", b"1")))
    clock.advance(10)
    clock.wall, clock.is_synced = right_ns + 10 * 10**9, True
    filler.fill(batch_of(("devices/a/x", b"2")))
    first, second = (json.loads(line) for line in gateway("log", "tail", filler.data_dir, "--json").lines)
    assert (first["time"], first["time_synced"]) == ("2023-11-14T22:13:20.000000Z", False)
    assert (second["time"], second["time_synced"]) == ("2023-11-14T22:13:30.000000Z", True)


def test_a_verification_shows_a_bar_on_a_terminal_only(gateway, filled, monkeypatch):
    """Nothing but the result in a pipe; on a terminal, how far it is."""
    assert gateway("log", "verify", filled).err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    reading = Reading("reading", 100)
    assert reading._progress is not None
    with reading:
        reading.advance(100)
        reading.tell("a line [with] brackets")
    assert Reading("reading", 100, wanted=False)._progress is None


def test_a_directory_that_holds_no_log_is_said_in_one_line(gateway, tmp_path):
    """Exit code 1: it is a directory, and there is nothing in it to look at."""
    for command in ("info", "verify", "tail"):
        ran = gateway("log", command, tmp_path)
        assert (ran.code, ran.out) == (1, "")
        assert len(ran.err.splitlines()) == 1
        assert ran.err.startswith("gateway: ")


def test_a_payload_that_is_not_what_its_format_says_is_shown_exactly():
    """JSON output never fails on a record."""
    assert log_view.payload_fields(b"{", Format.JSON) == {"payload_base64": "ew=="}
    assert log_view.payload_fields(b"\xff", Format.TEXT) == {"payload_base64": "/w=="}
    assert log_view.payload_fields(b"", Format.JSON) == {"value": None}
    assert log_view.payload_fields(b"21.5", Format.NUMBER) == {"value": 21.5}

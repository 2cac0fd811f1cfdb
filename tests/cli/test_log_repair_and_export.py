"""`gateway log export` and `gateway log repair`: records for other programs, and a damaged log made whole."""

import asyncio
import csv
import errno
import io
import itertools
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.cli import log_export
from gateway.config.settings import LogSettings
from gateway.errors import StorageError
from gateway.model import DERIVED, DUPLICATE, REPLAYED, RETAINED, Format, Kind
from gateway.ringlog import Store

START = "2023-11-14T22:13:20.000000Z"


@pytest.fixture
def filled(filler, batch_of):
    filler.fill(
        batch_of(("devices/a/climate", b'{"t": 21.50, "t": 3}'), ("devices/b/climate", b'{\n "t": 3\n}')),
        batch_of(("rules/x", b'{"because": "cold"}'), kind=Kind.DECISIONS),
        batch_of(("devices/a/door", 'auf, "zu"\nü'.encode()), form=Format.TEXT, flags=2 | RETAINED | REPLAYED),
        batch_of(("devices/a/raw", b"\xff\x00"), form=Format.RAW, flags=DUPLICATE | DERIVED),
        batch_of(("devices/a/climate", b"not json after all")),
        batch_of(("devices/a/level", b"-17.5"), form=Format.NUMBER),
    )
    return filler.data_dir


def rows(ran):
    return [json.loads(line) for line in ran.lines]


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_json_lines_hold_every_field_and_the_payload_as_what_it_is(gateway, filled):
    """A JSON value where the topic's format says so, else text, else base64, and a field that says which."""
    ran = gateway("log", "export", filled, "--gateway", "greenhouse-01")
    assert (ran.code, ran.err) == (0, "")
    found = rows(ran)
    prefix = found[0]["id"].removesuffix("/0")
    assert prefix.startswith("greenhouse-01/")
    assert found[0] == {
        "id": f"{prefix}/0",
        "seq": 0,
        "kind": "events",
        "topic": "devices/a/climate",
        "time": START,
        "clock_synced": True,
        "qos": 1,
        "retained": False,
        "duplicate": False,
        "derived": False,
        "replayed": False,
        "payload": {"t": 3},
        "payload_as": "json",
    }
    assert [row["seq"] for row in found] == [0, 1, 3, 4, 5, 6]
    assert [(row["payload"], row["payload_as"]) for row in found[1:]] == [
        ({"t": 3}, "json"),
        ('auf, "zu"\nü', "text"),
        ("/wA=", "base64"),
        ("not json after all", "text"),
        (-17.5, "json"),
    ]
    assert [row["retained"] for row in found] == [False, False, True, False, False, False]
    assert (found[3]["duplicate"], found[3]["derived"], found[2]["replayed"], found[2]["qos"]) == (True, True, True, 2)


def test_a_json_payload_keeps_its_digits_and_its_keys(gateway, filled):
    """Law: what a device sent can be had back; only white space that would break the line goes."""
    lines = gateway("log", "export", filled).lines
    assert '"payload":{"t": 21.50, "t": 3},' in lines[0]
    assert '"payload":{"t":3},' in lines[1]


def test_without_the_gateways_name_an_id_is_the_rest_of_it(gateway, filled, tmp_path):
    """The log does not hold the name; a configuration does."""
    (row, *_) = rows(gateway("log", "export", filled))
    assert row["id"].count("/") == 2
    config = tmp_path / "gateway.yaml"
    config.write_text(
        f"gateway: {{id: from-config, data_dir: {filled}}}\n"
        "mqtt: {listen: 'mqtt://127.0.0.1:1883'}\n"
        "ingest: {topics: [{topic: '{x}/#', format: json}]}\n"
    )
    (named, *_) = rows(gateway("log", "export", "-c", config))
    assert named["id"] == f"from-config/{row['id']}"


def test_decisions_and_topics_are_chosen(gateway, filled):
    """The same filters as everywhere."""
    assert [row["seq"] for row in rows(gateway("log", "export", filled, "--decisions"))] == list(range(7))
    ran = gateway("log", "export", filled, "--topic", "devices/{device}/climate")
    assert [row["seq"] for row in rows(ran)] == [0, 1, 5]
    assert gateway("log", "export", filled, "--topic", "a/#/b").code == 2


def test_dead_letters_and_the_audit_trail_are_exported_too(gateway, filler, letter):
    """`--log`."""
    filler.fill(letters=(letter("g/1/1/7"),))
    (row,) = rows(gateway("log", "export", filler.data_dir, "--log", "deadletters"))
    assert (row["kind"], row["payload"]["id"]) == ("dead_letters", "g/1/1/7")
    assert gateway("log", "export", filler.data_dir, "--log", "audit").out == ""


@pytest.fixture
def by_minutes(filler, batch_of, clock):
    """A record a minute, ten of them; the first five before the clock was set."""
    right_ns, clock.wall, clock.is_synced = clock.wall, 0, False
    batches = []
    for minute in range(10):
        batches.append((minute, batch_of(("devices/a/x", b"%d" % minute))))

    async def fill():
        store = Store(filler.data_dir, "g", LogSettings(), clock, lambda error: None)
        for minute, batch in batches:
            if minute == 5:
                clock.wall, clock.is_synced = right_ns + 300 * 10**9, True
            batch.stamp = store.events.stamp()
            store.events.append(batch)
            await store.committer.flush()
            clock.advance(60)
        await store.close()

    asyncio.run(fill())
    return filler.data_dir


def test_a_range_of_times_is_of_corrected_times(gateway, by_minutes):
    """Law L11: what was written in 1970 is found when it happened. `--to` does not belong to the range."""
    ran = gateway("log", "export", by_minutes, "--from", "2023-11-14T22:15:20Z", "--to", "2023-11-14T22:19:20+00:00")
    assert [(row["payload"], row["clock_synced"]) for row in rows(ran)] == [
        (2, False),
        (3, False),
        (4, False),
        (5, True),
    ]
    assert rows(ran)[0]["time"] == "2023-11-14T22:15:20.000000Z"
    assert rows(gateway("log", "export", by_minutes, "--to", "1990-01-01")) == []
    assert len(rows(gateway("log", "export", by_minutes, "--from", "2023-11-14"))) == 10


def test_since_counts_back_from_now(gateway, by_minutes, monkeypatch):
    """`--since 3m`."""
    now_ns = int(datetime(2023, 11, 14, 22, 23, 20, tzinfo=UTC).timestamp()) * 10**9
    monkeypatch.setattr("gateway.clock.SystemClock.wall_ns", lambda self: now_ns)
    assert [row["payload"] for row in rows(gateway("log", "export", by_minutes, "--since", "3m"))] == [7, 8, 9]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--since", "7"], "--since"),
        (["--since", "1h", "--from", "2023-11-14"], "exclude each other"),
        (["--from", "yesterday"], "--from: write a time as"),
        (["--from", "2023-11-15", "--to", "2023-11-14"], "not after"),
        (["--format", "xml"], "xml"),
        (["--json", "--format", "csv"], "exclude each other"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_written(gateway, filled, tmp_path, args, said):
    """Exit code 2."""
    ran = gateway("log", "export", filled, "-o", tmp_path / "out", *args)
    assert ran.code == 2
    assert said in " ".join(ran.err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_csv_is_flat_and_no_spreadsheet_runs_it(gateway, filler, batch_of):
    """RFC 4180; a text that would be a formula is preceded by an apostrophe, a negative number is not."""
    texts = ["=1+1", "+A1", "@SUM(A1)", "-2+3", "\t=1", "-17.5", "+3e5", "plain", 'two\nlines, "quoted"']
    filler.fill(*(batch_of(("=cmd" if text == "plain" else "t", text.encode()), form=Format.TEXT) for text in texts))
    ran = gateway("log", "export", filler.data_dir, "--format", "csv")
    head, *found = csv.reader(io.StringIO(ran.out, newline=""))
    assert tuple(head) == log_export.COLUMNS
    assert [row[11] for row in found] == [
        "'=1+1", "'+A1", "'@SUM(A1)", "'-2+3", "'\t=1", "-17.5", "+3e5", "plain", 'two\nlines, "quoted"',
    ]  # fmt: skip
    assert found[7][3] == "'=cmd"
    assert found[0][4:11] == [START, "true", "1", "false", "false", "false", "false"]


def test_parquet_holds_the_same_rows(gateway, filled, tmp_path):
    """Read back by the library that others will use: names, types, values."""
    import pyarrow.parquet as pq

    out = tmp_path / "records.parquet"
    assert gateway("log", "export", filled, "--format", "parquet", "-o", out).code == 0
    table = pq.read_table(out)
    assert tuple(table.column_names) == log_export.COLUMNS
    assert str(table.schema.field("time").type) == "timestamp[us, tz=UTC]"
    found = table.to_pylist()
    told = rows(gateway("log", "export", filled))
    for name in log_export.COLUMNS:
        if name not in {"payload", "time"}:
            assert [row[name] for row in found] == [row[name] for row in told]
    assert found[0]["payload"] == '{"t": 21.50, "t": 3}'
    assert found[0]["time"] == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_parquet_is_written_in_row_groups(gateway, filler, batch_of, tmp_path, monkeypatch):
    """Law: memory does not grow with the log."""
    import pyarrow.parquet as pq

    from gateway.cli import log_parquet

    monkeypatch.setattr(log_parquet, "_GROUP_ROWS", 10)
    filler.fill(*(batch_of(*[("t", b"%d" % n)] * 7) for n in range(5)))
    out = tmp_path / "records.parquet"
    assert gateway("log", "export", filler.data_dir, "--format", "parquet", "-o", out).code == 0
    file = pq.ParquetFile(out)
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [10, 10, 10, 5]
    assert file.read().column("seq").to_pylist() == list(range(35))


def test_without_pyarrow_it_is_said_how_to_get_it(gateway, filled, tmp_path, monkeypatch):
    """One line, exit code 2, no file."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ran = gateway("log", "export", filled, "--format", "parquet", "-o", tmp_path / "out.parquet")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == ["--format parquet needs pyarrow: pip install 'edge-event-gateway[parquet]'"]
    assert not list(tmp_path.glob("*.parquet*"))


def test_a_file_appears_once_it_is_whole(filled, tmp_path):
    """Whatever breaks an export off leaves nothing under its name, and no leavings."""
    out = tmp_path / "out.jsonl"

    def broken_off():
        with log_export.target(out, force=False) as file:
            file.write(b"half")
            assert not out.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    with pytest.raises(StorageError, match="No space left"), log_export.target(out, force=False):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_file_that_is_there_is_not_overwritten_unless_forced(gateway, filled, tmp_path):
    """Exit code 1 and one line; with --force it is replaced as a whole; a device file never."""
    out = tmp_path / "out.jsonl"
    out.write_text("precious")
    ran = gateway("log", "export", filled, "--output", out)
    assert (ran.code, out.read_text()) == (1, "precious")
    assert "--force" in ran.err
    assert gateway("log", "export", filled, "--output", out, "--force").code == 0
    assert len(out.read_text().splitlines()) == 6
    assert gateway("log", "export", filled, "--output", "/dev/null", "--force").code == 1
    assert Path("/dev/null").is_char_device()


def test_what_is_damaged_is_told_and_the_rest_is_exported(gateway, filled, tmp_path):
    """Exit code 1 at the end, the file is there, stderr says what is missing (L5)."""
    (segment,) = (filled / "events").glob("*.seg")
    flip(segment, segment.read_bytes().index(b"\xff\x00", segment.read_bytes().index(b"devices/a/raw")))
    out = tmp_path / "out.jsonl"
    ran = gateway("log", "export", filled, "-o", out)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"damaged: {segment.name}:")
    assert ran.err.endswith("lost: 1 record, 4\n")
    assert [json.loads(line)["seq"] for line in out.read_text().splitlines()] == [0, 1, 3, 5, 6]


def test_it_works_beside_a_running_gateway(gateway, filler, batch_of, clock):
    """No lock; what is on disk is exported, and what is just being written is no damage."""

    async def while_it_runs():
        store = Store(filler.data_dir, "g", LogSettings(), clock, lambda error: None)
        try:
            for number in range(50):
                batch = batch_of(("devices/a/x", b"%d" % number))
                batch.stamp = store.events.stamp()
                store.events.append(batch)
                await store.committer.flush()
            return await asyncio.to_thread(gateway, "log", "export", filler.data_dir)
        finally:
            await store.close()

    ran = asyncio.run(while_it_runs())
    assert (ran.code, ran.err) == (0, "")
    assert [row["payload"] for row in rows(ran)] == list(range(50))


def test_an_export_holds_no_more_than_a_piece_of_the_log_in_memory(filler, batch_of, monkeypatch):
    """Law: records are written as they are read, batch by batch."""
    filler.segment_size_bytes = 64 * 1024
    filler.fill(*(batch_of(("devices/a/x", b" " * 10_000)) for _ in range(60)))

    from gateway.ringlog.by_time import Window

    seen = []
    out = io.BytesIO()
    sheet = log_export.JsonLines(out)
    for item in Window(filler.data_dir, "events"):
        sheet.write(log_export.rows_of(item.batch, item.wall_ns, [0]))
        seen.append(out.tell())
    assert len(seen) == 60
    assert all(later - before < 11_000 for before, later in itertools.pairwise(seen))


def test_repair_says_what_it_did(gateway, filled):
    """Kept, lost, where the original lies; exit code 0 because all is well now."""
    (segment,) = (filled / "events").glob("*.seg")
    flip(segment, segment.read_bytes().index(b"21.50"))
    ran = gateway("log", "repair", filled, "--dry-run")
    assert ran.code == 1
    assert ran.lines[0] == "events: DAMAGED, 5 records in 5 frames, 1 segments"
    assert not (filled / "events.damaged-1").exists()
    ran = gateway("log", "repair", filled)
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0] == "events: repaired, 5 records in 5 frames, 1 segments"
    assert ran.lines[1].endswith("lost: 2 records, 0 to 1")
    assert ran.lines[2] == "  lost in all: 2 records"
    assert any("events.damaged-1" in line for line in ran.lines)
    others = ("deadletters", "audit", "clients")
    assert ran.lines[-3:] == [f"{each}: sound, 0 records in 0 frames, 0 segments" for each in others]
    assert gateway("log", "verify", filled).code == 0
    assert gateway("log", "repair", filled, "--dry-run").code == 0


def test_repair_in_json(gateway, filled):
    """The same for a program."""
    (segment,) = (filled / "events").glob("*.seg")
    flip(segment, segment.read_bytes().index(b"21.50"))
    ran = gateway("log", "repair", filled, "--json")
    done = json.loads(ran.out)["events"]
    assert (ran.code, done["outcome"], done["lost"], done["original"]) == (0, "repaired", [[0, 2]], "events.damaged-1")
    assert done["quarantined_bytes"] == done["damaged"][0]["length_bytes"]


def test_repair_refuses_beside_a_running_gateway(gateway, filler, clock):
    """Exit code 1, one line, nothing touched."""

    async def while_it_runs():
        store = Store(filler.data_dir, "g", LogSettings(), clock, lambda error: None)
        try:
            return await asyncio.to_thread(gateway, "log", "repair", filler.data_dir)
        finally:
            await store.close()

    ran = asyncio.run(while_it_runs())
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"gateway: a gateway is running on {filler.data_dir}: stop it first\n"


def test_a_repair_that_broke_off_is_finished_and_said(gateway, filled):
    """The swap had begun: the copy is the log now."""
    (filled / "events").rename(filled / "events.damaged-1")
    ran = gateway("log", "verify", filled)
    assert ran.code == 1
    ran = gateway("log", "repair", filled)
    assert (ran.code, ran.lines[0]) == (0, "events: sound, 7 records in 6 frames, 1 segments")
    assert ran.lines[1] == "  events.damaged-1 was left by a repair that broke off: that is the log now"
    assert gateway("log", "verify", filled).code == 0

"""How events are written for others."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.settings import TopicSettings
from gateway.forward.captures import Captures, fill
from gateway.forward.envelope import CloudEvents, JsonLines, rfc3339
from gateway.forward.line import LineProtocol, fields
from gateway.model import DERIVED, REPLAYED, RETAINED, Format, Gap, Stamp
from tests.forward.conftest import ORIGIN, batch_of


def placed(batch, seq=1_000):
    batch.origin, batch.seq, batch.ordinal = ORIGIN, seq, seq
    return batch


def test_a_batch_is_cloudevents_one_point_oh():
    """The JSON batch format: required attributes, the stable id, a sortable sequence, the payload untouched."""
    batch = placed(
        batch_of([b'{"t": 21.50, "big": 12345678901234567890}', b""], topic=["devices/a/climate", 'q"\\/ü\n'])
    )
    body = CloudEvents("gw").batch([batch])
    assert b'"data":{"t": 21.50, "big": 12345678901234567890}' in body, "numbers keep every digit"
    first, second = json.loads(body)
    assert first == {
        "specversion": "1.0",
        "id": "gw/0123456789abcdef/1/1000",
        "source": "/gateways/gw",
        "type": "edge.gateway.event.v1",
        "subject": "devices/a/climate",
        "time": "2023-11-14T22:13:20.123456789Z",
        "timesynced": True,
        "gateway": "gw",
        "sequence": "00000000000000001000",
        "datacontenttype": "application/json",
        "data": {"t": 21.5, "big": 12345678901234567890},
    }
    assert second["subject"] == 'q"\\/ü\n'
    assert second["data"] is None
    assert all((name.isalnum() and name.islower()) or "_" in name for name in first)


@pytest.mark.parametrize(
    ("payload", "format_", "expected"),
    [
        (b"21.5", Format.NUMBER, {"data": 21.5, "datacontenttype": "application/json"}),
        (b"-0.5e3", Format.NUMBER, {"data": -500.0, "datacontenttype": "application/json"}),
        (b"007", Format.NUMBER, {"data": 7.0, "datacontenttype": "application/json"}),
        (b"", Format.NUMBER, {"data": None, "datacontenttype": "application/json"}),
        (b"nan", Format.NUMBER, {"data_base64": "bmFu", "datacontenttype": "application/octet-stream"}),
        ('ö"\n'.encode(), Format.TEXT, {"data": 'ö"\n', "datacontenttype": "text/plain"}),
        (b"\xff", Format.TEXT, {"data_base64": "/w==", "datacontenttype": "text/plain"}),
        (b"\x00\x01", Format.RAW, {"data_base64": "AAE=", "datacontenttype": "application/octet-stream"}),
        (b"{}", 99, {"data_base64": "e30=", "datacontenttype": "application/octet-stream"}),
    ],
)
def test_every_format_travels(payload, format_, expected):
    """What is not JSON becomes a JSON value or base64, never an invalid document."""
    [event] = json.loads(CloudEvents("gw").batch([placed(batch_of([payload], format_=format_))]))
    assert {key: event[key] for key in event if key.startswith("data")} == expected


def test_flags_are_told_where_they_matter():
    """A receiver can tell what was retained, derived or put back by an operator."""
    batch = placed(batch_of([b"1"] * 3))
    batch.flags = [1 | RETAINED, DERIVED, REPLAYED]
    told = [
        set(event) & {"retained", "derived", "replayed", "duplicate"}
        for event in json.loads(CloudEvents("g").batch([batch]))
    ]
    assert told == [{"retained"}, {"derived"}, {"replayed"}]


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=40), st.binary(max_size=60), st.sampled_from(list(Format))), min_size=1
    )
)
def test_whatever_devices_send_the_documents_stay_valid(rows):
    """Any topic, any bytes: one valid document, one valid line each, and the payload comes back."""
    usable = [
        (topic, json.dumps(payload.decode("latin-1")).encode() if format_ is Format.JSON else payload, format_)
        for topic, payload, format_ in rows
    ]
    batch = placed(batch_of([payload for _, payload, _ in usable], topic=[topic for topic, _, _ in usable]))
    batch.formats = [int(format_) for _, _, format_ in usable]
    events = json.loads(CloudEvents("gw").batch([batch]))
    lines = JsonLines().text(batch).splitlines(keepends=True)
    assert len(events) == len(lines) == len(usable)
    for (topic, payload, format_), event, line in zip(usable, events, lines, strict=True):
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        record = json.loads(line)
        assert event["subject"] == record["topic"] == topic
        assert event["id"] == record["id"]
        if format_ is Format.RAW:
            assert base64.b64decode(event["data_base64"]) == base64.b64decode(record["data_base64"]) == payload
        elif format_ is Format.JSON:
            assert event["data"] == record["data"] == json.loads(payload)


@pytest.mark.parametrize("seq", [0, 7, 990, 999, 1_000, 1_995, 999_990, 123_456_789_998])
def test_numbers_are_whole_wherever_a_batch_crosses_a_thousand(seq):
    """They are put together from a table: each record has its own, once in its id and once beside it."""
    batch = placed(batch_of([b"%d" % n for n in range(1_020)]))
    batch.seq = seq
    wanted = list(range(seq, seq + 1_020))
    lines = [json.loads(line) for line in JsonLines().text(batch).splitlines()]
    assert [line["seq"] for line in lines] == [int(line["id"].rpartition("/")[2]) for line in lines] == wanted
    events = json.loads(CloudEvents("gw").batch([batch]))
    assert [event["sequence"] for event in events] == [f"{number:020d}" for number in wanted]
    assert [event["id"].rpartition("/")[2] for event in events] == [str(number) for number in wanted]
    assert [event["data"] for event in events] == list(range(1_020))


def test_a_pretty_printed_payload_becomes_one_line():
    """A line is a record, whatever line ends the payload holds."""
    [line] = JsonLines().text(placed(batch_of([b'{\r\n  "t": 21.50\n}']))).splitlines(keepends=True)
    assert line.count(b"\n") == 1
    assert b'"data":{"t":21.50}' in line


def test_gaps_are_told_in_every_envelope():
    """L6: {from, to, count, reason}."""
    gap, value = Gap(5, 9, 3, "evicted"), {"from": 5, "to": 9, "count": 3, "reason": "evicted"}
    [event] = json.loads(CloudEvents("gw").gap(gap, 1_700_000_000_000_000_000))
    assert (event["type"], event["data"]) == ("edge.gateway.gap.v1", value)
    assert json.loads(JsonLines().gap(gap, 0))["gap"] == value
    assert LineProtocol("gw", "{type}", ()).gap(gap, 7) == (
        "gateway_gap,gateway=gw,reason=evicted count=3.0,from=5.0,to=9.0 7"
    )


@pytest.mark.parametrize(
    ("wall_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"),
        (2**62, "2116-02-20T23:53:38.427387904Z"),
        (10**21, "9999-12-31T23:59:59.000000000Z"),
    ],
)
def test_times_are_written_to_the_nanosecond(wall_ns, text):
    """RFC 3339, and no clock so wrong that it stops the stream."""
    assert rfc3339(wall_ns) == text


TOPICS = (
    TopicSettings(topic="devices/{device}/{type}"),
    TopicSettings(topic="plant/+/{time}/#"),
)


@pytest.mark.parametrize(
    ("topic", "captures"),
    [
        ("devices/7/climate", {"device": "7", "type": "climate"}),
        ("devices/7", {}),
        ("devices/7/climate/x", {}),
        ("devices//climate", {"device": "", "type": "climate"}),
        ("plant/a/b", {"time": "b"}),
        ("plant/a/b/c/d", {"time": "b"}),
        ("other", {}),
    ],
)
def test_topic_levels_get_their_names(topic, captures):
    """The first entry that matches names the levels."""
    looked_up = Captures(TOPICS)
    assert looked_up.of(topic) == captures
    assert looked_up.of(topic) is looked_up.of(topic)


def test_templates_are_filled_and_what_is_missing_has_a_stand_in():
    """An empty level counts as missing: it would make an empty tag or an empty topic level."""
    assert fill("s/{gateway}/{device}/{nothing}", {"gateway": "g", "device": ""}, "_") == "s/g/_/_"


def test_an_event_becomes_a_point():
    """Measurement and tags from captures, numbers as floats, time with the sequence below the millisecond."""
    batch = placed(
        batch_of([b'{"t":21,"ok":true,"s":"a b","none":null,"in":{"x":1.5,"l":[1,2]}}'], topic="devices/7/climate")
    )
    [line] = LineProtocol("gw", "{type}", TOPICS).lines(batch)
    assert line == (
        "climate,device=7,gateway=gw,topic=devices/7/climate,type=climate "
        't=21.0,ok=true,s="a b",in_x=1.5,in_l_0=1.0,in_l_1=2.0 1700000000123001000'
    )


def test_hostile_names_stay_names():
    """Commas, spaces, equals signs, backslashes, quotes and line ends in topics, keys and values are escaped."""
    batch = placed(batch_of([b'{"a b,c=d\\\\":"q\\"\\\\\\n","time":1}'], topic="devices/x y,z=\\/#m\nn"))
    [line] = LineProtocol("g w", "{type}", (TopicSettings(topic="devices/{time}/{type}"),)).lines(batch)
    assert line == (
        "_m\\\\nn,gateway=g\\ w,time_=x\\ y\\,z\\=\\\\,topic=devices/x\\ y\\,z\\=\\\\/#m\\\\nn,type=#m\\\\nn "
        'a\\ b\\,c\\=d\\\\="q\\"\\\\\\\\n",time_=1.0 1700000000123001000'
    )
    assert "\n" not in line


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (21, "value=21.0"),
        (21.5, "value=21.5"),
        (True, "value=true"),
        ("on", 'value="on"'),
        (None, "present=true"),
        ({}, "present=true"),
        ({"a": None}, "present=true"),
        ([], "present=true"),
        (b"\x00", "present=true"),
        ([1, [2]], "value_0=1.0,value_1_0=2.0"),
        ({"a": {"b": 1}, "a_b": 2}, "a_b=1.0"),
        ({"": 1}, "_=1.0"),
        ({'a"b': 1}, "a_b=1.0"),
        (10**400, "present=true"),
    ],
)
def test_every_value_has_fields(value, expected):
    """One event, one point, even when there is nothing to measure."""
    assert fields(value) == expected


def test_events_of_one_millisecond_keep_a_nanosecond_each():
    """§2.6: 100,000 events in one batch make 100,000 timestamps, and a repeat makes the same ones."""
    protocol = LineProtocol("gw", "{type}", TOPICS)
    stamp = Stamp(1_700_000_000_123_999_999, 0, 0, bytes(16), True)
    batch = placed(batch_of([b"1"] * 100_000, topic="devices/7/climate", stamp=stamp), seq=987_654)
    times = [line.rsplit(" ", 1)[1] for line in protocol.lines(batch)]
    assert len(set(times)) == 100_000
    assert {time[:13] for time in times} == {"1700000000123"}
    assert times == [line.rsplit(" ", 1)[1] for line in protocol.lines(batch)]

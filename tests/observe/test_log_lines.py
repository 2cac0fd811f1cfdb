"""The log: one line per event, harmless to read, and quiet when something repeats itself."""

import inspect
import io
import json
import logging

import pytest

from gateway.observe import events, log
from gateway.observe.text import escape, preview, shorten


@pytest.fixture
def lines(clock):
    stream = io.StringIO()
    log.configure(stream, clock=clock)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    log.configure(io.StringIO(), clock=clock)


def test_each_event_is_one_json_object_with_its_function_s_name(lines):
    """Machines find an event by the name under which the source says it."""
    events.started("greenhouse-01", "0.1.0", "gateway.yaml")
    assert lines() == [
        {
            "timestamp": "2023-11-14T22:13:20.000000Z",
            "level": "info",
            "event": "started",
            "gateway_id": "greenhouse-01",
            "version": "0.1.0",
            "config": "gateway.yaml",
        }
    ]


def _call(function):
    arguments = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind = str(parameter.annotation)
        arguments[name] = (
            RuntimeError("x")
            if "Exception" in kind
            else False
            if kind == "bool"
            else 1
            if kind in ("int", "float") or "float" in kind
            else "x"
        )
    function(**arguments)


PUBLIC = [f for name, f in inspect.getmembers(events, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize("function", PUBLIC, ids=lambda f: f.__name__)
def test_an_event_s_name_is_its_function_s(function, lines, clock):
    """One name per event, in one place; whoever greps for it finds the sentence that explains it."""
    stream = io.StringIO()
    log.configure(stream, level="debug", clock=clock)
    _call(function)
    record = json.loads(stream.getvalue())
    assert record["event"] == function.__name__
    if function.__name__ in events.REPEATING:
        assert set(events.REPEATING[function.__name__]) <= set(record)


def test_only_known_events_are_limited():
    """A name misspelt in the table would silently lift the limit."""
    assert set(events.REPEATING) <= {function.__name__ for function in PUBLIC}


def test_what_repeats_is_said_once_per_interval_with_a_count(lines, clock):
    """A broken disk that complains a thousand times a second costs a line per ten seconds."""
    for _ in range(1_000):
        events.disk_slow("events", sync_s=2.0)
    assert len(lines()) == 1
    clock.advance(log.INTERVAL_S)
    events.disk_slow("events", sync_s=3.0)
    assert [line.get("suppressed") for line in lines()] == [None, 999]
    clock.advance(log.INTERVAL_S)
    events.disk_slow("events", sync_s=4.0)
    assert "suppressed" not in lines()[-1]


def test_one_subject_does_not_silence_another(lines):
    """Two sinks that fail at once are both heard."""
    for _ in range(3):
        events.sink_down("cloud", error="refused", retry_s=1.0)
        events.sink_down("history", error="refused", retry_s=1.0)
    assert [line["sink"] for line in lines()] == ["cloud", "history"]


def test_life_cycle_events_are_never_suppressed(lines):
    """What happens once per cause is always said."""
    for _ in range(3):
        events.stopping("SIGTERM")
    assert len(lines()) == 3


def test_the_limit_remembers_a_bounded_number_of_subjects():
    """A device that varies its topic cannot grow the limiter."""
    limit = log.RateLimit(10.0, most_subjects=100)
    for n in range(1_000):
        assert limit.admit(n, 0.0) == 0
    assert len(limit._last) == 100


def test_hostile_text_stays_on_its_line(lines):
    """A topic with newlines and escapes forges no record and moves no cursor."""
    topic = 'a\n{"event":"stopped"}\r\x1b[2J\x9b31m\u202e\ud800'
    events.payload_rejected(topic, code="json", detail="x\x00")
    (record,) = lines()
    assert record["topic"] == 'a\\n{"event":"stopped"}\\r\\x1b[2J\\x9b31m\\u202e\\ud800'
    assert record["detail"] == "x\\x00"


def test_pretty_lines_escape_too(clock):
    """On a terminal, where escapes would work, none from outside gets through."""
    stream = io.StringIO()
    log.configure(stream, pretty=True, clock=clock)
    events.payload_rejected("a\x1b]0;owned\x07\nb", code="json", detail="")
    assert "\x1b]0" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 1
    assert r"a\x1b]0;owned\x07\nb" in stream.getvalue()


def test_a_bug_is_logged_with_its_traceback_and_without_local_variables(lines):
    """Where it failed is told as lines; what was in variables, passwords perhaps, is not."""

    def fails(password):
        raise ValueError("no")

    try:
        fails("canary-7d1")
    except ValueError as error:
        events.task_failed("gateway.x.y", error)
    (record,) = lines()
    assert record["traceback"][0].startswith("Traceback")
    assert record["traceback"][-1] == "ValueError: no"
    assert record["error_type"] == "ValueError"
    assert "canary" not in json.dumps([line for line in record["traceback"] if "fails(" not in line])


def test_what_libraries_log_comes_out_the_same_way(lines):
    """A library's warning is one JSON line, limited, and its info is not heard."""
    for _ in range(5):
        logging.getLogger("aiothing").warning("odd: %s", "a\nb")
    logging.getLogger("aiothing").info("chatter")
    (record,) = lines()
    assert (record["event"], record["library"], record["message"]) == ("library_warned", "aiothing", r"odd: a\nb")


def test_a_log_stream_that_is_gone_stops_nothing(clock):
    """A closed pipe behind stderr costs the line, not the gateway."""

    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    log.configure(Gone(), clock=clock)
    events.stopping("SIGTERM")
    closed = io.StringIO()
    log.configure(closed, clock=clock)
    closed.close()
    events.stopping("SIGTERM")


def test_numbers_that_json_does_not_know_are_written_as_text(lines):
    """Every line stays strict JSON."""
    events.ready(float("nan"))
    events.ready(float("inf"))
    assert [line["startup_s"] for line in lines()] == ["nan", "inf"]


def test_text_is_cut_with_a_sign_that_it_was():
    """Whoever reads a shortened text sees that it is one."""
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"
    assert len(shorten("\x1b" * 100, 10)) == 10
    assert escape("grün °C ✓ 温度") == "grün °C ✓ 温度"


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"t": 21.5}', '{"t": 21.5}'),
        (b"", ""),
        (b"\xff\x00", "0xff00"),
        ("é".encode() * 10, "é" * 10),
        (b"a\nb", r"a\nb"),
    ],
)
def test_a_payload_is_shown_as_text_or_as_hex(payload, shown):
    """Binary is never printed raw."""
    assert preview(payload) == shown


def test_a_long_payload_is_cut_between_characters():
    """Cutting bytes never turns text into hex."""
    for limit in range(1, 12):
        assert preview("€".encode() * 500, limit) == "€" * (limit - 1) + "…"
        assert preview(b"\xff" * 500, limit).startswith("0x"[: limit - 1])

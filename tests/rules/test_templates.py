"""Texts, topics and payloads with expressions inside."""

from __future__ import annotations

import json

import pytest

from gateway.rules.expressions.expression import ExpressionError
from gateway.rules.expressions.template import compile_template, compile_topic
from gateway.rules.plans import Payload, compile_shape

TEXTS = [
    ("plain", {}, "plain"),
    ("{t} °C", {"t": 21.5}, "21.5 °C"),
    ("{t}", {"t": 21.0}, "21"),
    ("{t}", {"t": 0.1 + 0.2}, "0.3"),
    ("{t:.1f} °C", {"t": 21.55}, "21.6 °C"),
    ("{t:.2f}", {"t": "x"}, "x"),
    ("{t}", {}, "unknown"),
    ("{t}", {"t": float("nan")}, "unknown"),
    ("{t:.1f}", {"t": None}, "unknown"),
    ("{b} {n}", {"b": True, "n": None}, "true unknown"),
    ("{{t}} {t}", {"t": 1}, "{t} 1"),
    ("{l}", {"l": [1, {"a": "x"}]}, '[1,{"a":"x"}]'),
    ("{'}' if t > 1 else '{'}", {"t": 2}, "}"),
    ("{t + 1} {device}", {"t": 1, "device": "liar"}, "2 a"),
    ("{s}", {"s": "{t}"}, "{t}"),
    ("{s}", {"s": "x" * 600}, "x" * 499 + "…"),
    ("{':' if t > 1 else ''}", {"t": 2}, ":"),
]


@pytest.mark.parametrize(("source", "fields", "text"), TEXTS, ids=[source for source, _, _ in TEXTS])
def test_a_text_reads(source, fields, text):
    """Each row: what a person is told."""
    assert compile_template(source, ("device",)).text(fields, {"device": "a"}) == text


def test_a_payload_keeps_the_kind_of_a_lone_expression():
    """A number stays a number, a mixed text becomes a text, unknown becomes null, constants stay as written."""
    shape = compile_shape({"t": "{t}", "s": "{t} °C", "r": "{t:.1f}", "n": "{x}", "c": [1, True, None, "on"]}, ())
    payload = Payload.of(shape)
    assert json.loads(payload.bytes({"t": 21.55}, {})) == {
        "t": 21.55,
        "s": "21.55 °C",
        "r": 21.6,
        "n": None,
        "c": [1, True, None, "on"],
    }


@pytest.mark.parametrize(
    ("plain", "as_json", "data"),
    [
        ("ON", False, b"ON"),
        ("{t}", False, b"5"),
        (5, False, b"5"),
        ("ON", True, b'"ON"'),
        ("{t}", True, b"5"),
        ("", False, b""),
    ],
)
def test_a_bare_text_is_sent_as_it_is_unless_json_is_asked_for(plain, as_json, data):
    """Devices that take `ON` get no quotes; derived events are always JSON."""
    assert Payload.of(compile_shape(plain, ()), json=as_json).bytes({"t": 5}, {}) == data


def test_a_computed_number_beyond_64_bits_is_sent_as_a_float():
    """What the gateway's own ingest would refuse is not what it sends."""
    payload = Payload.of(compile_shape({"n": "{n * n}"}, ()))
    assert payload.bytes({"n": 2**40}, {}) == b'{"n":1.2089258196146292e24}'


def test_a_constant_payload_is_rendered_once():
    """What no event can change costs nothing per event."""
    payload = Payload.of(compile_shape({"state": "ON", "{literal}": "{{x}}"}, ()))
    assert payload.bytes({}, {}) is payload.fixed
    assert json.loads(payload.fixed) == {"state": "ON", "{literal}": "{x}"}


@pytest.mark.parametrize(
    ("source", "column", "words"),
    [
        ("at {t", 4, "never closed"),
        ("at t}", 5, "closes nothing"),
        ("{}", 2, "empty"),
        ("°C {t +}", 7, "not an expression"),
        ("{t} and {u ** 2}", 10, "`**`"),
        ("{t:.1}", 4, "number format"),
        ("{t:>10}", 4, "number format"),
        ("x" * 4001, 1, "4000 characters"),
    ],
)
def test_a_template_says_where_it_is_wrong(source, column, words):
    """The column counts from the beginning of the whole text."""
    with pytest.raises(ExpressionError) as caught:
        compile_template(source)
    assert words in str(caught.value)
    assert caught.value.column == column


@pytest.mark.parametrize(
    "topic", ["", "a/+/b", "a/#", "a/{temperature}", "a/{device.x}", "a/{'x'}", "a/{upper(device)}"]
)
def test_no_payload_decides_where_a_message_goes(topic):
    """Topics insert captured levels and nothing else."""
    with pytest.raises(ExpressionError):
        compile_topic(topic, ("device",))


def test_a_topic_inserts_captured_levels():
    """Captures come from the topic that the device was allowed to publish to."""
    assert compile_topic("alerts/{device}/warm", ("device",)).text({"device": "b"}, {"device": "a"}) == "alerts/a/warm"

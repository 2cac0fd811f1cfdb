"""Random and hostile payloads: decoding never raises, and agrees with a slow reference wherever that accepts."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ingest.decode import CODES, MAX_DEPTH, MAX_KEYS, MAX_STRING_BYTES, decode, decode_flat, decode_json
from gateway.model import Format, Rejection

TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=30,
)
PIECES = [
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b" ", b"\n", b"0", b"1e999", b"-", b"9223372036854775808"),
    *(b'"a"', b'"a":', b'"b" :', b'"\\u0000"', b'"\\ud800"', b"\xff", b"NaN", b"true", b"null", b"1.5", b"[[", b"]]"),
]


class _RefusedError(Exception):
    """The reference will not have it."""


def reference(payload: bytes) -> object:
    """The rules once more, as slowly and plainly as they can be said."""

    def pairs(found: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal keys
        keys += len(found)
        if len({key for key, _ in found}) != len(found):
            raise _RefusedError
        for key, _ in found:
            judge(key)
        return dict(found)

    def judge(text: str) -> None:
        if "\0" in text or len(text.encode("utf-8", "surrogatepass")) > MAX_STRING_BYTES:
            raise _RefusedError
        text.encode()

    def walk(value: object, depth: int) -> None:
        if isinstance(value, dict | list) and depth >= MAX_DEPTH:
            raise _RefusedError
        if isinstance(value, str):
            judge(value)
        elif (isinstance(value, int) and not -(2**63) <= value < 2**63) or (
            isinstance(value, float) and abs(value) == float("inf")
        ):
            raise _RefusedError
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(inner, depth + 1)

    def refuse(_constant: str) -> object:
        raise _RefusedError

    keys = 0
    value = json.loads(payload.decode(), object_pairs_hook=pairs, parse_constant=refuse)
    walk(value, 0)
    if keys > MAX_KEYS:
        raise _RefusedError
    return value


def agree(payload: bytes) -> bool:
    """Check that both say the same; returns whether the payload was accepted."""
    found = decode_json(payload)
    for beside in ([], [b'{"b":1}']):
        together = decode_flat([*beside, payload, *beside]) if payload else None
        assert together is None or together[len(beside)] == found, "judged together it is nothing else"
    try:
        wanted = reference(payload)
    except (_RefusedError, ValueError, RecursionError):
        assert isinstance(found, Rejection), payload
        assert found.code in CODES
        return False
    assert found == wanted, payload
    assert json.dumps(found, allow_nan=False) == json.dumps(wanted), "equal in type as well: 1 is not true, nor 1.0"
    return True


@settings(max_examples=400, deadline=None, print_blob=True)
@given(TREES, st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r")]), st.booleans())
def test_whatever_python_can_write_is_read_as_python_reads_it(tree, separators, is_ascii):
    """The quick path and the slow one give what a plain reading gives, or refuse what the rules refuse."""
    agree(json.dumps(tree, separators=separators, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass"))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(list(Format)))
def test_no_bytes_raise(payload, payload_format):
    """A poison payload is a value or a rejection, in every format."""
    found = decode(payload, payload_format)
    assert not isinstance(found, Rejection) or found.code in CODES


def test_shuffled_pieces_of_json_are_judged_as_the_reference_judges_them(seed):
    """Near misses: what almost is JSON, with keys, colons and escapes where they mislead a byte count."""
    rng = random.Random(seed)
    accepted = 0
    for _ in range(8_000):
        accepted += agree(b"".join(rng.choices(PIECES, k=rng.randint(1, 9))))
    assert accepted > 20, "the reference must see both sides"


def test_one_changed_byte_is_judged_as_the_reference_judges_it(seed):
    """Telemetry with one byte replaced, inserted or lost: what a bad cable or a full buffer makes."""
    rng = random.Random(seed)
    template = b'{"at":"12:30:05","t":21.5,"in":{"a":1,"b":[1,2,{"c":"\\n"}]},"n":1234567890123456789}'
    accepted = 0
    for _ in range(8_000):
        at = rng.randrange(len(template))
        fresh = rng.choice([b"", bytes([rng.randrange(256)]), bytes([rng.choice(template)])])
        accepted += agree(template[:at] + fresh + template[at + rng.randint(0, 1) :])
    assert accepted > 500, "the reference must see both sides"


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"":'])
def test_every_depth_up_to_far_too_deep_is_decided(opening):
    """The limit is exact, and what lies far beyond it neither raises nor recurses."""
    levels = opening.count(b"[") + opening.count(b"{")
    closing = {b"[": b"]", b'{"a":': b"}", b'[{"":': b"}]"}[opening]
    for depth in [*range(1, 45), 400, 2_000, 50_000]:
        found = decode_json(opening * depth + b"1" + closing * depth)
        if depth * levels <= MAX_DEPTH:
            assert not isinstance(found, Rejection)
        else:
            assert isinstance(found, Rejection)
            assert found.code == "depth"


def test_what_is_usual_is_judged_together(seed):
    """Law of the quick way itself: it is taken for flat objects, also with times of day and white space in them."""
    rng = random.Random(seed)
    rows = [{"t": rng.random(), "at": "12:30:05", "n": rng.randrange(2**62), "ok": True, "x": None} for _ in range(100)]
    payloads = [json.dumps(row, indent=rng.choice([None, 1])).encode() for row in rows]
    assert decode_flat(payloads) == rows


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"1",
        b"[]",
        b'{"a":{}}',
        b'{"a":1,"a":2}',
        b'{"a" :1,"a":2}',
        b'{"a":"\\n"}',
        b'{"a":12345678901234567890}',
        b'{"a":NaN}',
        b"{",
    ],
)
def test_one_odd_payload_is_looked_at_by_itself(odd):
    """A duplicate key is not made up for by a colon in somebody else's text."""
    assert decode_flat([b'{"a":":"}', odd, b'{"a": 1}']) is None

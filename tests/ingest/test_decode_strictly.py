"""Every way in which a payload can be wrong, and what the gateway makes of it."""

from __future__ import annotations

import json

import pytest

from gateway.ingest.decode import CODES, MAX_DEPTH, MAX_KEYS, MAX_STRING_BYTES, decode, values_of
from gateway.model import Format, Rejection

LONGEST = "x" * MAX_STRING_BYTES
DIGITS = "1234567890" * 430


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + closing * depth).encode()


def objects(depth: int) -> bytes:
    return ('{"a":' * depth + "1" + "}" * depth).encode()


def with_keys(count: int) -> bytes:
    return json.dumps({f"k{number}": number for number in range(count)}).encode()


GOOD_JSON = {
    "a flat object": (
        b'{"t":21.5,"n":3,"s":"ok","b":true,"z":null}',
        {"t": 21.5, "n": 3, "s": "ok", "b": True, "z": None},
    ),
    "white space everywhere": (b' \r\n\t{ "t" : 1 ,\n"u"\t:\r2 } \n', {"t": 1, "u": 2}),
    "a time of day in a string": (b'{"at":"2026-11-23T17:09:07Z","t":1}', {"at": "2026-11-23T17:09:07Z", "t": 1}),
    "a string that begins with a colon": (b'{"a":":b","c":"d : e"}', {"a": ":b", "c": "d : e"}),
    "a string that looks like a key": (b'{"a":"\\"b\\":1","c":2}', {"a": '"b":1', "c": 2}),
    "a string full of brackets": (b'{"a":"%s"}' % (b"[{" * 100), {"a": "[{" * 100}),
    "an inner object": (b'{"d":{"t":1,"u":2},"m":{"t":3}}', {"d": {"t": 1, "u": 2}, "m": {"t": 3}}),
    "objects of objects of objects": (b'{"a":{"b":{"c":{"d":1}}}}', {"a": {"b": {"c": {"d": 1}}}}),
    "a list of readings": (b'[{"n":"t","v":21.5},{"n":"h","v":48}]', [{"n": "t", "v": 21.5}, {"n": "h", "v": 48}]),
    "lists in lists": (b'{"a":[[1,2],[3,[4]]]}', {"a": [[1, 2], [3, [4]]]}),
    "a bare number": (b"21.5", 21.5),
    "a bare string": ('"grün"'.encode(), "grün"),
    "null": (b"null", None),
    "the empty object": (b"{}", {}),
    "the empty key": (b'{"":1}', {"": 1}),
    "the same key in two objects": (b'{"a":{"x":1},"b":{"x":2}}', {"a": {"x": 1}, "b": {"x": 2}}),
    "an integer beyond 2^53, exactly": (b'{"a":9007199254740993}', {"a": 9007199254740993}),
    "the least and the most integer": (b"[-9223372036854775808,9223372036854775807]", [-(2**63), 2**63 - 1]),
    "a float with many digits": (b'{"a":0.12345678901234567890123}', {"a": 0.12345678901234567890123}),
    "many digits in a string": (b'{"a":"%s"}' % DIGITS.encode(), {"a": DIGITS}),
    "many digits as a key": (b'{"12345678901234567890":[[1]]}', {"12345678901234567890": [[1]]}),
    "a long integer as an exponent's float": (b"[[12345678901234567890e-5]]", [[12345678901234567890e-5]]),
    "an exponent with leading zeros": (b"[[1e-0000000000000000000001]]", [[0.1]]),
    "a surrogate pair": (b'"\\ud83c\\udf21"', "\N{THERMOMETER}"),
    "a backslash before u0000": (b'{"a":"\\\\u0000"}', {"a": "\\u0000"}),
    "the deepest list": (nested(MAX_DEPTH), json.loads(nested(MAX_DEPTH))),
    "the deepest object": (objects(MAX_DEPTH), json.loads(objects(MAX_DEPTH))),
    "the deepest list beside another": (
        b"[" + nested(MAX_DEPTH - 1) + b",[]]",
        [json.loads(nested(MAX_DEPTH - 1)), []],
    ),
    "a string that ends in a backslash": (
        b'{"a":"b\\\\","c":{"d":{"e":"\\\\"}}}',
        {"a": "b\\", "c": {"d": {"e": "\\"}}},
    ),
    "many lists, none deep": (b"[" + b",".join([b"[]"] * 1_000) + b"]", [[]] * 1_000),
    "as many keys as are allowed": (with_keys(MAX_KEYS), json.loads(with_keys(MAX_KEYS))),
    "the longest string": (json.dumps({"a": LONGEST}).encode(), {"a": LONGEST}),
    "the longest string, written longer": (b'{"a":"%s"}' % (b"\\n" * MAX_STRING_BYTES), {"a": "\n" * MAX_STRING_BYTES}),
    "many strings, none long": (json.dumps(["abc"] * 40_000).encode(), ["abc"] * 40_000),
}

BAD_JSON = {
    "not JSON at all": (b"21,5", "json"),
    "a missing end": (b'{"t":21.5', "json"),
    "two documents": (b"{}{}", "json"),
    "a trailing comma": (b'{"t":1,}', "json"),
    "single quotes": (b"{'t':1}", "json"),
    "a comment": (b'{"t":1} // warm', "json"),
    "white space only": (b"  \n", "json"),
    "a raw control character in a string": (b'"a\x01"', "json"),
    "a raw U+0000": (b'"a\x00"', "json"),
    "Python's 1_000": (b'{"t":1_000}', "json"),
    "a leading plus": (b'{"t":+1}', "json"),
    "a leading zero": (b'{"t":01}', "json"),
    "Arabic digits": ("[٣]".encode(), "json"),
    "NaN": (b'{"t":NaN}', "json"),
    "Infinity": (b'{"t":Infinity}', "json"),
    "minus Infinity, deep": (b'{"t":[[[-Infinity]]]}', "json"),
    "a number beyond a double": (b'{"t":1e999}', "number"),
    "the same, deep": (b'{"t":[[[-1e999]]]}', "number"),
    "an integer beyond 64 bits": (b'{"t":9223372036854775808}', "number"),
    "a negative one": (b'{"t":-9223372036854775809}', "number"),
    "one of 20 digits, deep": (b'{"t":[[12345678901234567890]]}', "number"),
    "one of 4,300 digits": (b'{"t":%s}' % DIGITS.encode(), "number"),
    "one of 5,000 digits": (b'{"t":%s}' % (b"1" * 5_000), "number"),
    "invalid UTF-8": (b'{"t":"\xff"}', "utf8"),
    "invalid UTF-8, deep": (b'{"t":[[["\xc3"]]]}', "utf8"),
    "invalid UTF-8 in a key": (b'{"\xff":1}', "utf8"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "json"),
    "UTF-16": ('{"t":1}'.encode("utf-16"), "json"),
    "UTF-16 without a mark": ('{"t":1}'.encode("utf-16-le"), "json"),
    "a lone surrogate": (b'{"t":"\\ud800"}', "json"),
    "the second half of a pair alone": (b'{"t":"\\udc00"}', "json"),
    "a duplicate key": (b'{"t":1,"t":2}', "duplicate_key"),
    "one that white space hides": (b'{"t":1,"t" :2}', "duplicate_key"),
    "one that a line end hides": (b'{"t":1,"t"\n:2}', "duplicate_key"),
    "one that an escape hides": (b'{"t":1,"\\u0074":2}', "duplicate_key"),
    "one after a string that ends in a backslash": (b'{"a":"\\\\","a":1}', "duplicate_key"),
    "one in an inner object": (b'{"a":{"t":1,"t":2}}', "duplicate_key"),
    "one in a list of objects": (b'[{"t":1},{"t":1,"t":2}]', "duplicate_key"),
    "one that is itself an object": (b'{"a":{"t":1},"a":{"t":2}}', "duplicate_key"),
    "one deep within": (b'{"a":{"b":{"c":[{"t":1,"t":1}]}}}', "duplicate_key"),
    "one beside a time of day": (b'{"t":"12:30","t":"12:31"}', "duplicate_key"),
    "the empty key twice": (b'{"":1,"":1}', "duplicate_key"),
    "one level too deep": (nested(MAX_DEPTH + 1), "depth"),
    "one object too deep": (objects(MAX_DEPTH + 1), "depth"),
    "deep beside shallow": (b"[[]," + nested(MAX_DEPTH) + b",{}]", "depth"),
    "100,000 levels": (nested(100_000), "depth"),
    "100,000 levels that never close": (b"[" * 100_000, "depth"),
    "one key too many": (with_keys(MAX_KEYS + 1), "keys"),
    "10,000 keys": (with_keys(10_000), "keys"),
    "too many keys over many objects": (json.dumps([{"a": 1}] * (MAX_KEYS + 1)).encode(), "keys"),
    "too many keys, all the same": (b"{" + b",".join([b'"a":1'] * 600) + b"}", "keys"),
    "a string too long": (json.dumps({"a": LONGEST + "x"}).encode(), "string_size"),
    "a string too long by its umlauts": (json.dumps("ü" * 40_000, ensure_ascii=False).encode(), "string_size"),
    "the same, escaped": (json.dumps("ü" * 40_000).encode(), "string_size"),
    "a key too long": (json.dumps({LONGEST + "x": 1}).encode(), "string_size"),
    "a megabyte of string": (b'"%s"' % (b"x" * 1_000_000), "string_size"),
    "U+0000 in a value": (b'{"a":"x\\u0000"}', "nul"),
    "U+0000 in a key": (b'{"\\u0000a":1}', "nul"),
    "U+0000 after a backslash": (b'{"a":"\\\\\\u0000"}', "nul"),
    "U+0000, deep": (b'[[["\\u0000"]]]', "nul"),
}

TEXTS = {
    "ASCII": (b"open", "open"),
    "UTF-8": ("geöffnet".encode(), "geöffnet"),
    "a line end is kept": (b"open\n", "open\n"),
    "invalid UTF-8": (b"\xff\xfe", "utf8"),
    "an encoded surrogate": (b"\xed\xa0\x80", "utf8"),
    "overlong": (b"\xc0\x80", "utf8"),
    "the longest": (LONGEST.encode(), LONGEST),
    "too long": (LONGEST.encode() + b"x", "string_size"),
    "U+0000": (b"a\0", "nul"),
}

NUMBERS = {
    "a float": (b"21.5", 21.5),
    "an integer stays one": (b"-40", -40),
    "a negative zero": (b"-0.0", -0.0),
    "an exponent": (b"2.5e-3", 0.0025),
    "white space around": (b" 21.5\r\n", 21.5),
    "the most": (b"9223372036854775807", 2**63 - 1),
    "too many for 64 bits": (b"9223372036854775808", "number"),
    "too small for a double is zero": (b"1e-999", 0.0),
    "too large for a double": (b"1e999", "number"),
    "quoted": (b'"21.5"', "number"),
    "a decimal comma": (b"21,5", "number"),
    "an underscore": (b"1_000", "number"),
    "Arabic digits": ("٣".encode(), "number"),
    "infinity": (b"infinity", "number"),
    "minus inf": (b"-inf", "number"),
    "nan": (b"nan", "number"),
    "a word": (b"true", "number"),
    "a unit": (b"21.5 C", "number"),
    "hexadecimal": (b"0x1F", "number"),
    "no digit before the point": (b".5", "number"),
    "no digit after the point": (b"5.", "number"),
    "two signs": (b"--5", "number"),
    "a plus": (b"+5", "number"),
    "white space within": (b"2 1", "number"),
    "white space only": (b" ", "number"),
    "5,000 digits": (b"1" * 5_000, "number"),
}


def check(payload: bytes, payload_format: Format, wanted: object) -> None:
    found = decode(payload, payload_format)
    if isinstance(found, Rejection):
        assert found.code == wanted, found
        assert found.code in CODES
        assert found.detail
        assert len(found.detail) < 200
    else:
        assert found == wanted
        assert type(found) is type(wanted)


@pytest.mark.parametrize(("payload", "value"), GOOD_JSON.values(), ids=GOOD_JSON)
def test_good_json_is_taken_as_it_is(payload, value):
    """Strictness never costs a payload that is well formed and within the limits."""
    check(payload, Format.JSON, value)


@pytest.mark.parametrize(("payload", "code"), BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json_is_refused_with_its_reason(payload, code):
    """What a sink, a rule or a database would later stumble over stops here."""
    check(payload, Format.JSON, code)


@pytest.mark.parametrize(("payload", "wanted"), TEXTS.values(), ids=TEXTS)
def test_text_is_utf8_and_nothing_else(payload, wanted):
    """A text can be written out again by every sink."""
    check(payload, Format.TEXT, wanted)


@pytest.mark.parametrize(("payload", "wanted"), NUMBERS.values(), ids=NUMBERS)
def test_a_number_is_plain_and_decimal(payload, wanted):
    """What Python's float() would take on top of that is a broken sensor."""
    check(payload, Format.NUMBER, wanted)


@pytest.mark.parametrize("payload", [b"\x00\xff", b"{", b"\x1f\x8b\x08\x00" * 1_000])
def test_raw_bytes_are_opaque(payload):
    """Binary payloads pass untouched; a zip bomb is not even looked into."""
    assert decode(payload, Format.RAW) == payload


@pytest.mark.parametrize("payload_format", Format)
def test_an_empty_payload_is_no_value_and_no_error(payload_format):
    """It is what clears a retained message: an event without a reading."""
    assert decode(b"", payload_format) is None


@pytest.mark.parametrize("payload", [b'"x"', b"[1]", b"7", b"true"])
def test_booleans_are_no_numbers_and_strings_stay_strings(payload):
    """Values keep the type that the device gave them."""
    assert decode(payload, Format.JSON) == json.loads(payload)
    assert type(decode(payload, Format.JSON)) is type(json.loads(payload))


def test_stored_payloads_are_parsed_and_not_judged_again(make_batch):
    """Law L12: a replay sees the values that were seen live, whatever today's limits say."""
    derived = with_keys(MAX_KEYS + 1)
    assert values_of(make_batch([b'{"t":1}', derived, b""])) == [{"t": 1}, json.loads(derived), None]


def test_what_no_longer_decodes_is_none_and_costs_only_itself(make_batch):
    """Law L5: a record whose bytes make no sense does not take its batch with it."""
    batch = make_batch([b'{"t":1}', b"\xff", b"[" * 5_000, b"NaN", b'{"t":2}'])
    assert values_of(batch) == [{"t": 1}, None, None, None, {"t": 2}]


def test_a_stored_batch_may_mix_formats_even_unknown_ones(make_batch):
    """A format of a later release has no value here, and its neighbours keep theirs."""
    batch = make_batch([b"on", b"7", b"\x00", b"{}", b"?", b"x", b"{"])
    batch.formats = [Format.TEXT, Format.NUMBER, Format.RAW, Format.JSON, 200, Format.NUMBER, Format.JSON]
    assert values_of(batch) == ["on", 7, b"\x00", {}, None, None, None]


def test_values_that_are_there_are_not_decoded_again(make_batch):
    """What ingest has decoded is decoded once."""
    batch = make_batch([b"not json"])
    batch.values = ["kept"]
    assert values_of(batch) is batch.values

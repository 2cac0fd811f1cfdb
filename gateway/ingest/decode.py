r"""Payload bytes into values, strictly: what a sink or a rule would later stumble over is refused here, with a reason.

    bytes ──▶ parse as a shallow document ──▶ as many colons as keys kept? ──▶ value          (nearly every payload)
                   │ deeper, or an integer too long        │ no
                   ▼                                       ▼
              parse as anything ──────────────────▶ inspect the text outside its strings ──▶ value or Rejection

Invariants:
- Nothing raises: a payload is a value or a `Rejection`, whatever the bytes.
- What passes can be written out again as JSON and as UTF-8: no NaN, no infinity, no lone surrogate, no integer beyond
  64 bits, no duplicate key that one reader would take and another drop, and no U+0000, which databases refuse.
- Which of two paths a payload takes decides what it costs, never what it means.
- No payload within the size limit costs more than some milliseconds: what grows with its length is done by C code.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import msgspec

from gateway.model import Batch, Format, Rejection, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CODES = ("json", "utf8", "duplicate_key", "depth", "keys", "string_size", "nul", "number", "topic", "too_large")
"""Every reason for which ingest refuses a record: the values of the metric label."""
MAX_DEPTH = 32
MAX_KEYS = 512
MAX_STRING_BYTES = 64 * 1024
_MAX_NUMBER_BYTES = 64
_BACKSLASH = ord("\\")  # as a number: bytes are searched for it seven times as fast as for b"\\"
_LEAST_INT, _MOST_INT = -(2**63), 2**63 - 1

_Scalar = Annotated[int, msgspec.Meta(ge=_LEAST_INT, le=_MOST_INT)] | float | str | bool | None
_Flat = dict[str, _Scalar]
_Shallow = dict[str, _Scalar | _Flat | list[_Scalar]] | list[_Scalar | _Flat] | _Scalar
_parse_shallow: Callable[[bytes], Value] = msgspec.json.Decoder(_Shallow).decode
"""At the price of an untyped parse this also says that no integer is too long and that nothing lies deep."""
_parse_flat: Callable[[bytes], Value] = msgspec.json.Decoder(_Flat).decode
_parse: Callable[[bytes], Value] = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_LONG_INTEGER = re.compile(rb"(?<![0-9.eE+-])-?[0-9]{19,}(?![0-9.eE])")
_NUMBER = re.compile(rb"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_NINETEEN_DIGITS = b"0" * 19
_BRACES_AS_BRACKETS = bytes.maketrans(b"{}", b"[]")
_SPACED_COLONS = tuple((space, bytes((space,)) + b":") for space in b" \n\t\r")
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))


def decode(payload: bytes, payload_format: int) -> Value | Rejection:
    """The value of a payload, or why it has none. An empty payload is the value None in every format.

    Args:
        payload: as it came from the device.
        payload_format: one of `gateway.model.Format`.
    """
    if not payload:
        return None
    return _DECODERS[payload_format](payload)


def decode_flat(payloads: Sequence[bytes]) -> list[Value] | None:
    """The values of payloads that are all flat JSON objects with nothing unusual in them: what most sensors send.

    What `decode_json` says of each of them, at two thirds of the price: they are parsed one by one and judged together.

    Returns:
        None if any of them needs a closer look.
    """
    try:
        values = list(map(_parse_flat, payloads))
    except _BROKEN:
        return None
    text = b"".join(payloads)
    sizes = list(map(len, values))
    if _BACKSLASH in text or max(sizes) > MAX_KEYS or max(map(len, payloads)) > MAX_STRING_BYTES:
        return None
    # As for one payload: a key has its colon, so that as many colons as keys kept, over all, are as many in each.
    keys = sum(sizes)
    return values if text.count(b":") == keys or _colons_behind_keys(text) == keys else None


def decode_json(payload: bytes) -> Value | Rejection:
    """Strict JSON (RFC 8259) in UTF-8 without a byte order mark. See the module for what else is refused."""
    try:
        value = _parse_shallow(payload)
    except msgspec.ValidationError:
        return _decode_any(payload)
    except _BROKEN as error:
        return _say_why(error)
    # Each key of the text is followed by a colon. No more colons than keys that were kept: none was dropped as a
    # duplicate, and none lies deeper. No backslash: no escape. So the usual payload costs one parse and two scans.
    if (
        type(value) is dict
        and payload.count(b":") == len(value) <= MAX_KEYS
        and len(payload) <= MAX_STRING_BYTES
        and _BACKSLASH not in payload
    ):
        return value
    return _check_shallow(payload, value)


def _check_shallow(payload: bytes, value: Value) -> Value | Rejection:
    """The next cheapest: inner objects and lists, and colons within strings, as in a time of day."""
    if (
        len(payload) <= MAX_STRING_BYTES
        and _BACKSLASH not in payload
        and _colons_behind_keys(payload) == _count_keys(value) <= MAX_KEYS
    ):
        return value
    return _inspect(payload, value)


def _colons_behind_keys(text: bytes) -> int:
    """How many colons follow a quote or white space: all that end a key, and few others."""
    follow = text.count(b'":')
    for space, colon in _SPACED_COLONS:
        if space in text:
            follow += text.count(colon)
    return follow


def _count_keys(shallow: Value) -> int:
    if type(shallow) is dict:
        return len(shallow) + sum([len(inner) for inner in shallow.values() if type(inner) is dict])
    if type(shallow) is list:
        return sum([len(inner) for inner in shallow if type(inner) is dict])
    return 0


def _decode_any(payload: bytes) -> Value | Rejection:
    if _is_deep(payload):  # before the parse: building thousands of nested lists is what would take the time
        return Rejection("depth", f"nested deeper than {MAX_DEPTH} levels")
    try:
        value = _parse(payload)
    except _BROKEN as error:
        return _say_why(error)
    return _inspect(payload, value)


def _say_why(error: Exception) -> Rejection:
    match error:
        case msgspec.ValidationError():
            return Rejection("number", "a number is beyond the range of a 64-bit float")
        case UnicodeDecodeError():
            return Rejection("utf8", _not_utf8(error))
        case RecursionError():
            return Rejection("depth", f"nested deeper than {MAX_DEPTH} levels")
        case _:
            return Rejection("json", str(error))


def _inspect(payload: bytes, value: Value) -> Value | Rejection:
    """Every check, on what stands outside the strings of a text that is known to be JSON."""
    pieces = _split(payload)
    bare = b"".join(pieces[::2])
    keys = bare.count(b":")
    if keys > MAX_KEYS:
        return Rejection("keys", f"{keys} keys, {MAX_KEYS} are allowed")
    kept = b"".join(_split(_encode(value))[::2]).count(b":") if keys else 0
    if keys != kept:
        return Rejection("duplicate_key", f"of {keys} keys, {keys - kept} stood in the same object before")
    if _has_long_integer(bare):
        return Rejection("number", "an integer does not fit into 64 bits with its sign")
    if max(map(len, pieces)) > MAX_STRING_BYTES and _has_long_string(payload):
        return Rejection("string_size", f"a string is longer than {MAX_STRING_BYTES} bytes")
    if rb"\u0000" in payload and rb"\u0000" in payload.replace(rb"\\", b"##"):
        return Rejection("nul", "a string holds U+0000")
    return value


def _split(text: bytes) -> list[bytes]:
    """JSON cut at its quotes: what stands outside of strings in the even places, the strings in the odd ones.

    Escaped quotes and backslashes are masked, everything keeps its length.
    """
    if _BACKSLASH in text:
        text = text.replace(rb"\\", b"##").replace(rb"\"", b"##")
    return text.split(b'"')


def _is_deep(payload: bytes) -> bool:
    """Exact for what is JSON; of what is none it may say so or not."""
    if payload.count(b"{") + payload.count(b"[") <= MAX_DEPTH:
        return False
    nest = b"".join(_split(payload)[::2]).translate(_BRACES_AS_BRACKETS, _NO_BRACKETS)
    for taken in range(MAX_DEPTH):  # each round takes the innermost levels away
        if b"[" * (MAX_DEPTH + 1 - taken) in nest:
            return True
        nest = nest.replace(b"[]", b"")
        if not nest:
            return False
    return True


def _has_long_integer(bare: bytes) -> bool:
    if _NINETEEN_DIGITS not in bare.translate(_DIGITS_AS_ZEROS):
        return False
    return any(not _LEAST_INT <= int(digits) <= _MOST_INT for digits in _LONG_INTEGER.findall(bare))


def _has_long_string(payload: bytes) -> bool:
    """Exactly: an escape is longer than what it stands for, so a string may be shorter than it is written."""
    quoted = (each for each in _STRING.findall(payload) if len(each) - 2 > MAX_STRING_BYTES)
    return any(len(_parse(each).encode()) > MAX_STRING_BYTES for each in quoted)


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 at byte {error.start}: {error.reason}"


def _decode_text(payload: bytes) -> Value | Rejection:
    if len(payload) > MAX_STRING_BYTES:
        return Rejection("string_size", f"{len(payload)} bytes of text, {MAX_STRING_BYTES} are allowed")
    if b"\0" in payload:
        return Rejection("nul", "the text holds U+0000")
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        return Rejection("utf8", _not_utf8(error))


def _decode_number(payload: bytes) -> Value | Rejection:
    text = payload.strip(b" \t\r\n")
    # Python's own float() takes 1_000, infinity and Arabic digits; a sensor that sends those is broken.
    if len(text) > _MAX_NUMBER_BYTES or _NUMBER.fullmatch(text) is None:
        return Rejection("number", "not a plain decimal number")
    if text.lstrip(b"-").isdigit():
        whole = int(text)
        if _LEAST_INT <= whole <= _MOST_INT:
            return whole
        return Rejection("number", "an integer does not fit into 64 bits with its sign")
    number = float(text)
    if abs(number) == float("inf"):
        return Rejection("number", "a number is beyond the range of a 64-bit float")
    return number


def _decode_raw(payload: bytes) -> Value | Rejection:
    return payload


_DECODERS: dict[int, Callable[[bytes], Value | Rejection]] = {
    Format.RAW: _decode_raw,
    Format.JSON: decode_json,
    Format.TEXT: _decode_text,
    Format.NUMBER: _decode_number,
}


def values_of(batch: Batch) -> list[Value]:
    """The decoded payloads of a batch, one for each record. None for what does not decode; never raises.

    What stands in the log was let in once, by the rules of its day, or was derived by a rule of ours. It is parsed here
    and not judged again, so that a replay sees the values that were seen live (L12).
    """
    if batch.values is not None:
        return batch.values
    if all(fmt == Format.JSON for fmt in batch.formats):
        try:
            return [_parse(payload) if payload else None for payload in batch.payloads]
        except _BROKEN:
            pass  # one at a time, then
    return [_parse_stored(payload, fmt) for payload, fmt in zip(batch.payloads, batch.formats, strict=True)]


def _parse_stored(payload: bytes, payload_format: int) -> Value:
    if not payload:
        return None
    if payload_format == Format.JSON:
        try:
            return _parse(payload)
        except _BROKEN:
            return None
    value = _DECODERS.get(payload_format, _decode_unknown)(payload)
    return None if type(value) is Rejection else value


def _decode_unknown(_payload: bytes) -> None:
    """A format of a later release."""

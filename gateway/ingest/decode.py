"""Payload bytes into values, strictly: what a sink or a rule would later stumble over is refused here, with a reason.

Invariants:
- Nothing raises: a payload is a value or a `Rejection`, whatever the bytes.
- What passes can be written out again as JSON and as UTF-8: no NaN, no infinity, no lone surrogate, no integer beyond
  64 bits, no duplicate key that one reader would take and another drop.
- The usual payload, a flat JSON object, costs one parse and three byte counts.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.model import Batch, Format, Rejection, Value

if TYPE_CHECKING:
    from collections.abc import Callable

CODES = ("json", "utf8", "duplicate_key", "depth", "keys", "string_size", "number", "topic", "too_large")
"""Every reason for which ingest refuses a record: the values of the metric label."""
MAX_DEPTH = 32
MAX_KEYS = 512
MAX_STRING_BYTES = 64 * 1024
_INT64 = range(-(2**63), 2**63)
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_NINETEEN_DIGITS = b"0" * 19
_NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_parse = msgspec.json.Decoder().decode


class _DuplicateKeyError(ValueError):
    """Raised inside the slow check only."""


def decode(payload: bytes, payload_format: int) -> Value | Rejection:
    """The value of a payload, or why it has none. An empty payload is the value None in every format.

    Args:
        payload: as it came from the device.
        payload_format: one of `gateway.model.Format`.
    """
    if not payload:
        return None
    return _DECODERS[payload_format](payload)


def decode_json(payload: bytes) -> Value | Rejection:
    """Strict JSON (RFC 8259) in UTF-8 without a byte order mark. See the module for what else is refused."""
    try:
        value = _parse(payload)
    except msgspec.ValidationError as error:
        return Rejection("number", str(error))
    except UnicodeDecodeError as error:
        return Rejection("utf8", str(error))
    except RecursionError:
        return Rejection("depth", f"nested deeper than {MAX_DEPTH} levels")
    except msgspec.DecodeError as error:
        return Rejection("json", str(error))
    kind = type(value)
    if kind is dict:
        # Every key of the text is followed by one colon. If there are no more colons than keys that were kept, then no
        # key was dropped as a duplicate, and none lies deeper; without a bracket there is no list either.
        colons = payload.count(b":")
        if colons != len(value) or colons > MAX_KEYS or b"[" in payload or len(payload) > MAX_STRING_BYTES:
            return _check_whole(payload, value)
    elif kind is list or len(payload) > MAX_STRING_BYTES:
        return _check_whole(payload, value)
    if _NINETEEN_DIGITS in payload.translate(_DIGITS_AS_ZEROS):
        return _check_whole(payload, value)
    return value


def _check_whole(payload: bytes, value: Value) -> Value | Rejection:
    """Everything that the shape of a plain flat object rules out, checked the long way."""
    if payload.count(b"{") + payload.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        return Rejection("depth", f"nested deeper than {MAX_DEPTH} levels")
    if payload.count(b":") > _count_keys(value):
        try:
            json.loads(payload, object_pairs_hook=_unique)
        except _DuplicateKeyError as error:
            return Rejection("duplicate_key", str(error))
        except (ValueError, RecursionError) as error:
            return Rejection("json", str(error))
    return _check_sizes(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _DuplicateKeyError(f"key {twice[:40]!r} stands twice")
    return found


def _count_keys(value: Value) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_count_keys, value.values()))
    if isinstance(value, list):
        return sum(map(_count_keys, value))
    return 0


def _depth(value: Value) -> int:
    depth, level = 0, [value]
    while level:
        containers = [one for one in level if isinstance(one, dict | list)]
        depth += bool(containers)
        level = [inner for one in containers for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _check_sizes(value: Value) -> Value | Rejection:
    keys = 0
    level = [value]
    while level:
        below: list[Value] = []
        for one in level:
            if isinstance(one, dict):
                keys += len(one)
                below += one
                below += one.values()
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str):
                if len(one) > MAX_STRING_BYTES // 4 and len(one.encode()) > MAX_STRING_BYTES:
                    return Rejection("string_size", f"a string is longer than {MAX_STRING_BYTES} bytes")
            elif isinstance(one, int) and one not in _INT64:
                return Rejection("number", "an integer does not fit into 64 bits")
        level = below
    if keys > MAX_KEYS:
        return Rejection("keys", f"{keys} keys, {MAX_KEYS} are allowed")
    return value


def _decode_text(payload: bytes) -> Value | Rejection:
    if len(payload) > MAX_STRING_BYTES:
        return Rejection("string_size", f"text is longer than {MAX_STRING_BYTES} bytes")
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        return Rejection("utf8", str(error))


def _decode_number(payload: bytes) -> Value | Rejection:
    text = payload.strip(b" \t\r\n")
    # Python's own float() takes 1_000, infinity and Arabic digits; a sensor that sends those is broken.
    if len(text) > 64 or _NUMBER.fullmatch(text) is None:
        return Rejection("number", "not a plain decimal number")
    if text.lstrip(b"-").isdigit():
        whole = int(text)
        return whole if whole in _INT64 else Rejection("number", "an integer does not fit into 64 bits")
    number = float(text)
    return number if abs(number) != float("inf") else Rejection("number", "beyond the range of a 64-bit float")


def _decode_raw(payload: bytes) -> Value | Rejection:
    return payload


_DECODERS: dict[int, Callable[[bytes], Value | Rejection]] = {
    Format.RAW: _decode_raw,
    Format.JSON: decode_json,
    Format.TEXT: _decode_text,
    Format.NUMBER: _decode_number,
}


def values_of(batch: Batch) -> list[Value]:
    """The decoded payloads of a batch. What no longer decodes (the rules have become stricter since) is None."""
    if batch.values is not None:
        return batch.values
    values = [decode(payload, fmt) for payload, fmt in zip(batch.payloads, batch.formats, strict=True)]
    return [None if isinstance(value, Rejection) else value for value in values]

"""The engine's state as bytes: MessagePack of [version, rules, world].

    rules    rule id -> [fingerprint, {key -> what its machine dumped}]
    world    what `World.dump` gave

Whole numbers beyond 64 bits, which JSON may hold and MessagePack may not, travel as extension 1: their decimal digits.
So a state that was saved and taken up again is the same to the last digit (L12).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

VERSION = 5
_BIG_NUMBER = 1
_LEAST, _MOST = -(2**63), 2**64 - 1


class Snapshot(NamedTuple):
    """See the module."""

    rules: dict[str, tuple[str, dict[str, Any]]]
    world: list[Any]


def encode(snapshot: Snapshot) -> bytes:
    """The bytes of a state."""
    state = [VERSION, *snapshot]
    try:
        return msgspec.msgpack.encode(state)
    except OverflowError:
        return msgspec.msgpack.encode(_storable(state))


def decode(data: bytes) -> Snapshot:
    """The state of some bytes.

    Raises:
        ValueError: what is wrong with them, as part of a sentence.
    """
    try:
        version, *state = _DECODER.decode(data)
        if version == VERSION:
            return msgspec.convert(state, Snapshot)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(f"the snapshot cannot be read ({error})") from error
    raise ValueError(f"the snapshot has version {version}, not {VERSION}")


def _number(code: int, data: memoryview) -> int:
    if code != _BIG_NUMBER:
        raise ValueError(f"extension {code}")
    return int(bytes(data))


_DECODER = msgspec.msgpack.Decoder(list[Any], ext_hook=_number)


def _storable(value: Any) -> Any:
    """The same, with whole numbers beyond 64 bits in their own form."""
    if isinstance(value, dict):
        return {key: _storable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(inner) for inner in value]
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        return msgspec.msgpack.Ext(_BIG_NUMBER, str(value).encode())
    return value

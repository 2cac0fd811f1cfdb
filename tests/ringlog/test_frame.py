"""The frame: bytes in, the same batch out, and nothing else is ever taken for one."""

from __future__ import annotations

import random
import struct
from zlib import crc32

import pytest
import zstandard

from gateway.model import Batch, Format, Kind, Origin, Stamp
from gateway.ringlog.frame import CRC_SEED, HEADER_BYTES, MAX_RECORDS, Header, NeedMore, Torn, check, decode, encode

LOG_ID = 0x1122334455667788
STAMP = Stamp(1_700_000_000_123_456_789, 42, 7, bytes(range(16)), True)


def batch_of(payloads, topics=None, seq=100, ordinal=90, kind=Kind.EVENTS):
    count = len(payloads)
    return Batch(
        kind=kind,
        stamp=STAMP,
        topics=topics or ["devices/a/climate"] * count,
        formats=[Format.JSON] * count,
        flags=[1] * count,
        payloads=payloads,
        origin=Origin("gw", f"{LOG_ID:016x}", 3),
        seq=seq,
        ordinal=ordinal,
    )


@pytest.mark.parametrize("compressor", [None, zstandard.ZstdCompressor(level=1)], ids=["plain", "zstd"])
@pytest.mark.parametrize(
    "payloads",
    [[b""], [b"x"], [b"a", b"", b"c" * 70_000], [b'{"t": 21.5}'] * 500, [b"1"] * MAX_RECORDS],
    ids=["empty payload", "one byte", "mixed sizes", "typical", "as many as fit"],
)
def test_a_batch_comes_back_from_its_frame_unchanged(payloads, compressor):
    """Law: what was stored is what is read."""
    batch = batch_of(payloads, [f"devices/{i % 7}/ü" for i in range(len(payloads))])
    data = encode(batch, LOG_ID, compressor)
    header = check(data, 0, LOG_ID)
    assert isinstance(header, Header)
    assert header.frame_bytes == len(data)
    assert decode(data, 0, header, "gw") == batch


def test_the_format_is_the_one_that_was_published():
    """Law: a log written by an older release opens for ever. Literal bytes, not made by the code under test."""
    body = b"\x01\x00" + b"\x01\x03\x00" + b"a/b" + b"\x00\x00" + b"\x05" + b"\x02\x00\x00\x00" + b"21"
    head = struct.pack(
        "<4sBBBBQIIQQqqq16sII", b"EGLF", 1, 0, 0, 1, LOG_ID, 3, 1, 100, 90, 1, 2, 3, bytes(16), len(body), len(body)
    )
    data = head + struct.pack("<I", crc32(head + body, 0x45474C46)) + body
    header = check(data, 0, LOG_ID)
    assert isinstance(header, Header)
    batch = decode(data, 0, header, "gw")
    assert (batch.topics, batch.formats, batch.flags, batch.payloads) == (["a/b"], [1], [5], [b"21"])
    assert batch.stamp == Stamp(1, 2, 3, bytes(16), True)
    assert batch.event(0).id == "gw/1122334455667788/3/100"
    assert encode(batch, LOG_ID, None) == data


def test_the_columns_of_several_topics_and_formats_are_the_ones_that_were_published():
    """Law: the same, for a batch whose topics come back, in several formats. Literal bytes."""
    table = b"\x03\x00" + b"\x01\x01\x00" + b"\x03\x01\x00" + b"\x03\x02\x00" + b"a" + b"a" + "ü".encode()
    body = (
        table
        + b"\x00\x00\x01\x00\x02\x00\x00\x00"
        + b"\x01\x04\x00\x81"
        + b"\x02\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00"
        + b"{}" + b"7" + b"" + b"true"
    )  # fmt: skip
    batch = batch_of([b"{}", b"7", b"", b"true"], ["a", "a", "ü", "a"])
    batch.formats, batch.flags = [1, 3, 3, 1], [0x01, 0x04, 0x00, 0x81]
    data = encode(batch, LOG_ID, None)
    assert data[HEADER_BYTES:] == body
    header = check(data, 0, LOG_ID)
    assert isinstance(header, Header)
    assert decode(data, 0, header, "gw") == batch


def test_columns_of_unequal_length_are_never_written():
    """Law: a bug on the way to the log is met before the disk, not by a reader."""
    for column in ("formats", "flags", "payloads"):
        for change in (lambda values: values[:-1], lambda values: values + values[:1]):
            batch = batch_of([b"1", b"2", b"3"])
            setattr(batch, column, change(getattr(batch, column)))
            with pytest.raises(AssertionError):
                encode(batch, LOG_ID, None)


def test_random_batches_come_back_whatever_their_topics_and_formats(seed):
    """Law: what was stored is what is read, also where nothing repeats."""
    rng = random.Random(seed)
    compressor = zstandard.ZstdCompressor(level=1)
    decompressor = zstandard.ZstdDecompressor()
    for _ in range(300):
        count = rng.choice((1, 2, 3, 20, 200))
        payloads = [rng.randbytes(rng.randrange(40)) for _ in range(count)]
        batch = batch_of(payloads, [f"{rng.randrange(rng.choice((1, 5, 500)))}/é" for _ in range(count)])
        batch.formats = rng.choices([1] if rng.random() < 0.5 else list(Format), k=count)
        batch.flags = rng.choices(range(256), k=count)
        data = encode(batch, LOG_ID, rng.choice((None, compressor)))
        header = check(data, 0, LOG_ID)
        assert isinstance(header, Header)
        assert decode(data, 0, header, "gw", rng.choice((None, decompressor))) == batch


def test_every_body_that_lies_is_torn_not_raised(seed):
    """Law: even a broken writer cannot stop a reader. Any bytes at all behind a right checksum."""
    rng = random.Random(seed)
    good = encode(batch_of([b"abc"] * 3, ["a", "b", "a"]), LOG_ID, None)[HEADER_BYTES:]
    for _ in range(3_000):
        body = bytearray(good)
        for _ in range(rng.randrange(1, 5)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        del body[rng.randrange(len(body) * 4) :]
        head = struct.pack(
            "<4sBBBBQIIQQqqq16sII", b"EGLF", 1, 0, rng.choice((0, 0, 1)), 0, LOG_ID, 1, 3, 0, 0, 0, 0, 0, bytes(16),
            len(body), rng.choice((len(body), 10)),
        )  # fmt: skip
        data = head + struct.pack("<I", crc32(head + body, CRC_SEED)) + body
        header = check(data, 0, LOG_ID)
        assert isinstance(header, Header)
        assert isinstance(decode(data, 0, header, "gw"), Batch | Torn)


def test_every_single_bit_flip_is_noticed():
    """Law L5: damage is never served as data."""
    data = encode(batch_of([b'{"t": 21.5}', b'{"t": 22}']), LOG_ID, None)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << (bit % 8)
        assert not isinstance(check(bytes(flipped), 0, LOG_ID), Header), f"bit {bit} went unnoticed"


def test_every_cut_asks_for_more_and_is_never_valid():
    """Law: a torn frame is not a frame."""
    data = encode(batch_of([b"abc", b"defg"]), LOG_ID, None)
    for length in range(len(data)):
        assert isinstance(check(data[:length], 0, LOG_ID), NeedMore), length


def test_zeros_are_never_a_frame():
    """Law: the zero-filled tail that a power cut leaves holds no records, though CRC-32 of nothing is zero."""
    for length in range(HEADER_BYTES, 4 * HEADER_BYTES):
        assert isinstance(check(bytes(length), 0, LOG_ID), Torn)
    assert crc32(b"", CRC_SEED) != 0


def test_a_valid_frame_of_another_log_is_refused():
    """Law: stale bytes from an older life of the same blocks are not records, however good their checksum."""
    data = encode(batch_of([b"abc"]), LOG_ID + 1, None)
    assert check(data, 0, LOG_ID) == Torn("belongs to another log")


def test_random_bytes_never_pass_and_never_raise(seed):
    """Law: no input on disk can raise out of the reader."""
    rng = random.Random(seed)
    good = encode(batch_of([b"abc"] * 3), LOG_ID, None)
    for _ in range(5_000):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        found = check(bytes(data), 0, LOG_ID)
        assert bytes(data) == good or not isinstance(found, Header)


def test_a_body_that_lies_behind_a_right_checksum_is_torn_not_raised():
    """Law: even a broken writer cannot stop a reader."""
    body = b"\x01\x00\x01\xff\x00abc"
    head = struct.pack(
        "<4sBBBBQIIQQqqq16sII", b"EGLF", 1, 0, 0, 0, LOG_ID, 1, 2, 0, 0, 0, 0, 0, bytes(16), len(body), len(body)
    )
    data = head + struct.pack("<I", crc32(head + body, CRC_SEED)) + body
    header = check(data, 0, LOG_ID)
    assert isinstance(header, Header)
    assert isinstance(decode(data, 0, header, "gw"), Torn)


def test_decisions_carry_no_ordinal():
    """Law L7: what sinks count is events; decisions between them do not shift the count."""
    header = check(encode(batch_of([b"{}"] * 4, kind=Kind.DECISIONS), LOG_ID, None), 0, LOG_ID)
    assert isinstance(header, Header)
    assert (header.end, header.end_ordinal) == (104, 90)

"""One batch, as bytes: the unit that is written, checked, skipped and read back.

All integers are little-endian. A frame is a header and a body; the body may be compressed.

    offset size  header
         0    4  magic "EGLF"
         4    1  format version (1)
         5    1  kind: 0 events, 1 decisions, 2 dead letters
         6    1  codec of the body: 0 none, 1 zstd
         7    1  bit 0: the wall clock was synchronised
         8    8  log id
        16    4  epoch: counts openings of the log
        20    4  count of records, at least 1
        24    8  sequence number of the first record
        32    8  ordinal of the first record (numbers events only)
        40    8  wall clock, ns since 1970 UTC (signed)
        48    8  monotonic clock, ns since boot (signed)
        56    8  elapsed clock of the log, ns (signed)
        64   16  boot id
        80    4  bytes of the body as stored
        84    4  bytes of the body when decoded
        88    4  CRC-32 over bytes 0-87 and the stored body

    size             body, decoded
    2                T: count of distinct topics, at least 1
    3 x T            per topic: payload format (1), bytes of its name (2)
    sum of the above names, UTF-8, one after the other
    2 x count        per record: index into the topics
    1 x count        per record: flags (`gateway.model`)
    4 x count        per record: bytes of its payload
    sum of the above payloads, one after the other

A frame is valid if and only if
  (1) its magic and version are the above,
  (2) its kind and codec are known and its count is at least 1,
  (3) its log id is that of the log,
  (4) the stored body lies within the file,
  (5) the CRC matches, and
  (6) its sequence number is not below what the reader has already seen (else it is a leftover, and is passed over).

The CRC is CRC-32/ISO-HDLC (`zlib.crc32`, the polynomial of IEEE 802.3, not CRC-32C), started from `CRC_SEED` instead of
0, so that a run of zeros is never valid. Since header and body are covered, a frame from an older life of the same disk
blocks fails (3) or (6), not merely luck.
"""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import zstandard

from gateway.model import Batch, Format, Kind, Origin, Stamp

if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC = b"EGLF"
VERSION = 1
CRC_SEED = 0x45474C46
MAX_RECORDS = 16_384
"""Per frame; a longer batch is written as several. Keeps topic indexes within 16 bits and one frame within reason."""
MAX_BODY_BYTES = 256 * 1024 * 1024
"""What a reader is willing to allocate on the word of a header whose CRC it has not seen yet."""

_PLAIN, _ZSTD = 0, 1
_HEADER = struct.Struct("<4sBBBBQIIQQqqq16sII")
_CRC = struct.Struct("<I")
_ENTRY = struct.Struct("<BH")
HEADER_BYTES = _HEADER.size + _CRC.size
_COMPRESS_FROM_BYTES = 256
_KINDS = frozenset(Kind)
_FORMATS = frozenset(Format)


class NeedMore(NamedTuple):
    """The bytes at hand end before the frame does."""

    wanted_bytes: int


class Torn(NamedTuple):
    """No valid frame starts here."""

    why: str


class Header(NamedTuple):
    """A frame's own account of itself; trustworthy only once the CRC has been checked."""

    kind: int
    codec: int
    synced: bool
    log_id: int
    epoch: int
    records: int
    seq: int
    ordinal: int
    wall_ns: int
    mono_ns: int
    elapsed_ns: int
    boot_id: bytes
    stored_bytes: int
    decoded_bytes: int
    crc: int

    @property
    def frame_bytes(self) -> int:
        """Header and stored body together."""
        return HEADER_BYTES + self.stored_bytes

    @property
    def end(self) -> int:
        """Sequence number after the last record."""
        return self.seq + self.records

    @property
    def end_ordinal(self) -> int:
        """Ordinal after the last record."""
        return self.ordinal + (self.records if self.kind == Kind.EVENTS else 0)


def _table(batch: Batch) -> tuple[list[int], list[bytes], Iterable[int]]:
    """Formats and names of the distinct topics, in the order of their first coming, and the place of each record."""
    topics, formats = batch.topics, batch.formats
    if formats.count(formats[0]) == len(formats):
        # Nearly always: then the topics alone tell the entries apart.
        distinct = dict.fromkeys(topics)
        index = dict(zip(distinct, range(len(distinct)), strict=True))
        return [formats[0]] * len(distinct), list(map(str.encode, distinct)), map(index.__getitem__, topics)
    keys = list(zip(topics, formats, strict=True))
    pairs = dict.fromkeys(keys)
    places = dict(zip(pairs, range(len(pairs)), strict=True))
    return [fmt for _, fmt in pairs], [topic.encode() for topic, _ in pairs], map(places.__getitem__, keys)


def _encode_body(batch: Batch) -> bytes:
    """Column by column: no step of the interpreter's per record."""
    count = len(batch)
    assert len(batch.formats) == len(batch.flags) == len(batch.payloads) == count, "columns have one length"
    formats, names, places = _table(batch)
    return b"".join(
        (
            len(names).to_bytes(2, "little"),
            *map(_ENTRY.pack, formats, map(len, names)),
            *names,
            struct.pack(f"<{count}H", *places),
            bytes(batch.flags),
            struct.pack(f"<{count}I", *map(len, batch.payloads)),
            *batch.payloads,
        )
    )


def encode(batch: Batch, log_id: int, compressor: zstandard.ZstdCompressor | None) -> bytes:
    """One frame.

    Args:
        batch: 1 to `MAX_RECORDS` records with seq, ordinal and origin assigned.
        log_id: 64 bits.
        compressor: None stores the body as it is. A body that does not shrink is stored as it is in any case.
    """
    assert 0 < len(batch) <= MAX_RECORDS, "a frame holds between 1 and MAX_RECORDS records"
    body = _encode_body(batch)
    decoded_bytes = len(body)
    codec = _PLAIN
    if compressor is not None and decoded_bytes >= _COMPRESS_FROM_BYTES:
        squeezed = compressor.compress(body)
        if len(squeezed) < decoded_bytes:
            body, codec = squeezed, _ZSTD
    stamp = batch.stamp
    head = _HEADER.pack(
        MAGIC,
        VERSION,
        batch.kind,
        codec,
        stamp.synced,
        log_id,
        batch.origin.epoch,
        len(batch),
        batch.seq,
        batch.ordinal,
        stamp.wall_ns,
        stamp.mono_ns,
        stamp.elapsed_ns,
        stamp.boot_id,
        len(body),
        decoded_bytes,
    )
    return b"".join((head, _CRC.pack(crc32(body, crc32(head, CRC_SEED))), body))


def frame_log_id(data: bytes, offset: int) -> int:
    """Which log the frame at `offset` says it belongs to, for a reader who cannot know."""
    return int.from_bytes(data[offset + 8 : offset + 16], "little")


def peek(data: bytes, offset: int, log_id: int) -> Header | NeedMore | Torn:
    """The header at `offset`, unchecked but for what makes its length usable. The CRC is left to `check`."""
    if len(data) - offset < HEADER_BYTES:
        return NeedMore(HEADER_BYTES)
    fields = _HEADER.unpack_from(data, offset)
    if fields[0] != MAGIC:
        return Torn("no frame starts here")
    if fields[1] != VERSION:
        return Torn(f"format version {fields[1]}, this release reads {VERSION}")
    (crc,) = _CRC.unpack_from(data, offset + _HEADER.size)
    header = Header._make((fields[2], fields[3], bool(fields[4] & 1), *fields[5:], crc))
    if header.log_id != log_id:
        return Torn("belongs to another log")
    if header.kind not in _KINDS or header.codec > _ZSTD or header.records == 0 or header.records > MAX_RECORDS:
        return Torn("header out of range")
    if header.stored_bytes > MAX_BODY_BYTES or header.decoded_bytes > MAX_BODY_BYTES:
        return Torn("body length out of range")
    return header


def check(data: bytes, offset: int, log_id: int) -> Header | NeedMore | Torn:
    """The header at `offset`, if a valid frame stands there (conditions 1 to 5)."""
    header = peek(data, offset, log_id)
    if not isinstance(header, Header):
        return header
    start = offset + HEADER_BYTES
    if len(data) < start + header.stored_bytes:
        return NeedMore(header.frame_bytes)
    view = memoryview(data)
    crc = crc32(view[start : start + header.stored_bytes], crc32(view[offset : offset + _HEADER.size], CRC_SEED))
    return header if crc == header.crc else Torn("checksum does not match")


def decode(
    data: bytes, offset: int, header: Header, gateway: str, decompressor: zstandard.ZstdDecompressor | None = None
) -> Batch | Torn:
    """The batch of a frame that `check` has found valid. Torn only if the writer itself was broken.

    Args:
        data: bytes that hold the whole frame.
        offset: where in them it begins.
        header: what `check` returned.
        gateway: whose log it is, part of every event id.
        decompressor: to be used again and again by one thread, which saves about 10 µs a frame; None makes one.
    """
    start = offset + HEADER_BYTES
    body = data[start : start + header.stored_bytes]
    if header.codec == _ZSTD:
        decompressor = decompressor or zstandard.ZstdDecompressor()
        try:
            body = decompressor.decompress(body, max_output_size=header.decoded_bytes)
        except zstandard.ZstdError as error:
            return Torn(f"body does not decompress: {error}")
    try:
        topics, formats, flags, payloads = _decode_body(body, header.records)
    except (IndexError, ValueError, struct.error) as error:
        return Torn(f"body does not decode: {error}")
    return Batch(
        kind=Kind(header.kind),
        stamp=Stamp(header.wall_ns, header.mono_ns, header.elapsed_ns, header.boot_id, header.synced),
        topics=topics,
        formats=formats,
        flags=flags,
        payloads=payloads,
        origin=Origin(gateway, f"{header.log_id:016x}", header.epoch),
        seq=header.seq,
        ordinal=header.ordinal,
    )


def _decode_body(body: bytes, count: int) -> tuple[list[str], list[int], list[int], list[bytes]]:
    topic_count = int.from_bytes(body[:2], "little")
    at = 2 + _ENTRY.size * topic_count
    names: list[str] = []
    formats: list[int] = []
    for fmt, length in _ENTRY.iter_unpack(body[2:at]):
        if fmt not in _FORMATS:
            raise ValueError(f"payload format {fmt}")
        names.append(body[at : at + length].decode())
        formats.append(fmt)
        at += length
    columns = struct.Struct(f"<{count}H{count}s{count}I")
    fields = columns.unpack_from(body, at)
    places, flags, lengths = fields[:count], fields[count], fields[count + 1 :]
    ends = tuple(accumulate(lengths, initial=at + columns.size))
    if ends[-1] != len(body):
        raise ValueError("columns do not add up")
    payloads = [body[start:end] for start, end in pairwise(ends)]
    return [names[place] for place in places], [formats[place] for place in places], list(flags), payloads

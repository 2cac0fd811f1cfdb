"""What decoding costs, beside a bare parse that checks nothing and beside the standard library, in one run.

    python -m benches.decode [--seconds 0.2]

One row per shape of payload: CPU time per event in microseconds, the least of several rounds. The last rows are
payloads made to be slow, as large as ingest lets them in: there the figure is milliseconds for one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import msgspec

from gateway.config.settings import TopicSettings
from gateway.ingest.decode import decode_json

LIMIT = TopicSettings(topic="x").max_payload_bytes
TELEMETRY = {
    "flat, 110 bytes": b'{"temperature":21.53,"humidity":48.2,"battery":3.01,"rssi":-67,"state":"ok","seq":12345,'
    b'"device":"climate-7"}',
    "the same, spaced": b'{"temperature": 21.53, "humidity": 48.2, "battery": 3.01, "rssi": -67, "state": "ok", '
    b'"seq": 12345}',
    "a time of day in it": b'{"at":"2026-11-23T17:09:07.123Z","temperature":21.53,"humidity":48.2,"rssi":-67}',
    "inner objects": b'{"device":"climate-7","data":{"temperature":21.53,"humidity":48.2},"meta":{"rssi":-67,"b":3.0}}',
    "a list of samples": b'{"device":"vibration-3","samples":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18],"u":"mg"}',
    "a list of readings": b'[{"n":"t","v":21.5},{"n":"h","v":48.2},{"n":"b","v":3.01},{"n":"r","v":-67}]',
    "three levels deep": b'{"d":{"room":{"temperature":21.53,"humidity":48.2}},"meta":{"rssi":-67,"battery":3.01}}',
}


def _list_of(piece: bytes) -> bytes:
    return b"[" + b",".join([piece] * ((LIMIT - 2) // (len(piece) + 1))) + b"]"


HOSTILE = {
    "a list of integers": _list_of(b"1"),
    "a list of strings": _list_of(b'"a"'),
    "a list of objects": _list_of(b"{}"),
    "one key over and over": b"{" + _list_of(b'"a":1')[1:-1] + b"}",
    "brackets, 900 deep": _list_of(b"[" * 900 + b"]" * 900),
    "brackets that never close": b"[" * LIMIT,
    "escapes": b'"' + b"\\\\" * ((LIMIT - 2) // 2) + b'"',
}


def least_s(work: Callable[[], object], seconds: float) -> float:
    """CPU seconds of one call: the least of ten rounds that take `seconds` together."""
    calls, took_s = 1, 0.0
    while took_s < seconds / 20:
        calls *= 2
        took_s = _round_s(work, calls)
    return min(_round_s(work, calls) for _ in range(10)) / calls


def _round_s(work: Callable[[], object], calls: int) -> float:
    start_s = time.process_time()
    for _ in range(calls):
        work()
    return time.process_time() - start_s


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.2, help="per figure")
    seconds = parser.parse_args().seconds
    bare = msgspec.json.Decoder().decode
    print(f"{'µs per event':26} {'json.loads':>10} {'bare parse':>10} {'ingest':>10} {'ratio':>6}")
    for name, payload in TELEMETRY.items():
        figures = [
            least_s(lambda parse=parse, payload=payload: parse(payload), seconds) * 1e6
            for parse in (json.loads, bare, decode_json)
        ]
        print(f"{name:26} {figures[0]:10.2f} {figures[1]:10.2f} {figures[2]:10.2f} {figures[2] / figures[1]:6.1f}")
    print(f"\n{'ms for one':26} {'ingest':>10}   ({LIMIT // 1024} KiB)")
    for name, payload in HOSTILE.items():
        print(f"{name:26} {least_s(lambda payload=payload: decode_json(payload), seconds) * 1e3:10.1f}")


if __name__ == "__main__":
    main()

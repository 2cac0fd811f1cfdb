"""What writing an event for others costs: CloudEvents, JSON lines, line protocol, and MQTT user properties.

    python benches/envelope.py

Fixed input: 104-byte climate readings of 50 devices, stamped once per batch as ingest does. Prints the median and the
best of `ROUNDS` rounds in µs per event, for batches of several sizes, beside `json.dumps` of the same CloudEvents (what
one would write without thinking) in the same run.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from typing import TYPE_CHECKING

from gateway.config.settings import TopicSettings
from gateway.forward.envelope import CloudEvents, JsonLines, rfc3339
from gateway.forward.line import LineProtocol
from gateway.forward.sinks.uplink import user_properties
from gateway.model import Batch, Format, Kind, Origin, Stamp

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 31
SIZES = (20, 500, 2_000)
NAMES = ("CloudEvents", "JSON lines", "line protocol", "MQTT properties", "json.dumps")


def batch_of(count: int) -> Batch:
    """A batch as it comes from the log: payloads not decoded."""
    payloads = [
        b'{"temperature":%.2f,"humidity":%.1f,"battery_v":3.31,"n":%d,"unit":"celsius","status":"nominal"}'
        % (20 + n % 100 / 10, 40 + n % 30, 100_000 + n)
        for n in range(count)
    ]
    return Batch(
        kind=Kind.EVENTS,
        stamp=Stamp(1_700_000_000_123_456_789, 1, 1, bytes(16), True),
        topics=[f"devices/d{n % 50:02d}/climate" for n in range(count)],
        formats=[int(Format.JSON)] * count,
        flags=[1] * count,
        payloads=payloads,
        origin=Origin("greenhouse-01", "0123456789abcdef", 3),
        seq=1_000_000,
        ordinal=900_000,
    )


def plainly(batch: Batch) -> str:
    """The same CloudEvents, one dict each."""
    return json.dumps(
        [
            {
                "specversion": "1.0",
                "source": "/gateways/greenhouse-01",
                "type": "edge.gateway.event.v1",
                "time": rfc3339(batch.stamp.wall_ns),
                "id": event.id,
                "sequence": f"{event.seq:020d}",
                "subject": event.topic,
                "datacontenttype": "application/json",
                "data": json.loads(event.payload),
            }
            for event in batch.events()
        ]
    )


def measure(call: Callable[[], object], count: int) -> tuple[float, float]:
    """Median and best, µs per event."""
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) / count * 1e6)
    return statistics.median(taken), min(taken)


def main() -> None:
    """Measure and print."""
    events, lines = CloudEvents("greenhouse-01"), JsonLines()
    points = LineProtocol("greenhouse-01", "{type}", [TopicSettings(topic="devices/{device}/{type}")])
    print(f"{platform.platform()}, Python {platform.python_version()}; µs per event, median / best of {ROUNDS}")
    print(f"{'batch':>6}" + "".join(f"{name:>16}" for name in NAMES))
    for size in SIZES:
        batch = batch_of(size)
        prefix, stamped = batch.origin.prefix(), ("time", rfc3339(batch.stamp.wall_ns))
        columns = [
            measure(lambda batch=batch: events.batch([batch]), size),
            measure(lambda batch=batch: lines.text(batch), size),
            measure(lambda batch=batch: "\n".join(points.lines(batch)).encode(), size),
            measure(
                lambda batch=batch, prefix=prefix, stamped=stamped: [
                    user_properties([("id", f"{prefix}{seq}"), stamped]) for seq in range(batch.seq, batch.end)
                ],
                size,
            ),
            measure(lambda batch=batch: plainly(batch), size),
        ]
        print(f"{size:>6} " + " ".join(f"{median:>8.2f} /{best:>5.2f}" for median, best in columns))


if __name__ == "__main__":
    main()

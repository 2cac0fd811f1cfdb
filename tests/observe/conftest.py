"""A status with something in every field."""

import pytest

from gateway.observe import status as s


def sample_status(**changes) -> s.GatewayStatus:
    syncs = s.LatencyRecorder()
    for duration_s in (0.0004, 0.002, 0.002, 20.0):
        syncs.observe(duration_s)
    commands = s.LatencyRecorder(s.COMMAND_BOUNDS_S)
    commands.observe(0.003)
    fields = {
        "gateway_id": "greenhouse-01",
        "version": "0.1.0",
        "started_wall_ns": 1_700_000_000_000_000_000,
        "uptime_s": 61.5,
        "ready": True,
        "healthy": True,
        "log": s.LogStatus(
            appended_seq=120,
            durable_seq=118,
            appended=120,
            events=100,
            bytes=4_096,
            max_bytes=65_536,
            segments=2,
            written_bytes=9_000,
            syncs=4,
            sync=syncs.snapshot(),
            evicted={"size": 7},
        ),
        "ingest": s.IngestStatus(received=107, stored=100, not_stored=2, rejected={"json": 3, "utf8": 2}),
        "listener": s.ListenerStatus(
            address="127.0.0.1:1883",
            connections=20,
            sessions=21,
            refused={"publish": 5},
            dropped={"slow": 6},
            throttled=7,
        ),
        "broker": s.BrokerStatus(address="127.0.0.1:1884", connected=True),
        "rules": (s.RuleStatus(id="freezer-warm", kind="rule", state="off", firings=3),),
        "commands": {"confirmed": 4, "denied": 1},
        "notifications": {"told": 5, "failed": 2},
        "notifications_waiting": 4,
        "event_to_command": commands.snapshot(),
        "sinks": (
            s.SinkStatus(
                name="cloud",
                type="http",
                up=False,
                received=100,
                delivered=80,
                dead_lettered={"http_400": 2, "too_large": 1},
                evicted=7,
                pending=10,
                last_error="connection refused",
                next_try_s=1.5,
            ),
        ),
        "dead_letters": s.DeadLetterStatus(records=8, bytes=900),
    }
    return s.GatewayStatus(**(fields | changes))


@pytest.fixture
def status() -> s.GatewayStatus:
    return sample_status()

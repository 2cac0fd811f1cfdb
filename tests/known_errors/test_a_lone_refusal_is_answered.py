"""2026-11-24: a turn that held nothing but refused QoS 1 messages was thrown away, and their PUBACKs with it."""

from gateway.config.settings import Permission, User
from tests.mqtt.conftest import open_listener, publish

__all__ = ["open_listener"]


async def test_a_refused_message_is_answered_also_when_nothing_else_comes_in(open_listener):
    """The client waits for its PUBACK, with the reason, and would wait for ever."""
    mine = Permission(publish=("d/{device}/#",))
    bench = await open_listener(users=(User(username="a", password="x"),), permissions=(mine,))
    client = await bench.client("c", v5=True, username="a", password="x", properties=b"\x17\0")
    for mid in (1, 2):
        client.send(publish("d/b/t", qos=1, mid=mid, v5=True))
        assert await client.packet() == (0x40, bytes([0, mid, 0x87]))
    assert bench.desk.arrivals == []

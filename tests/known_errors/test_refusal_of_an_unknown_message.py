"""2026-11-28: a PUBREC that refused a message which was not under way was answered by PUBREL."""

from tests.mqtt.conftest import bench, open_listener, packet

__all__ = ["bench", "open_listener"]


async def test_a_pubrec_with_an_error_is_never_followed_by_pubrel(bench):
    """[MQTT-4.3.3-4]: PUBREL follows a PUBREC below 0x80 and no other. Seen beside mosquitto."""
    client = await bench.client("a", v5=True)
    client.send(packet(0x50, b"\xff\xf0\x80"))
    await client.silence()
    client.send(packet(0x50, b"\xff\xf0\x10"))
    assert await client.packet() == (0x62, b"\xff\xf0\x92")

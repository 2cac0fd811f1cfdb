"""2026-11-28: retained messages came as the last of two equal filters in one SUBSCRIBE wanted them, for both."""

from tests.mqtt.conftest import bench, both, open_listener, packet, publish, taken_apart, text

__all__ = ["bench", "open_listener"]


@both
async def test_each_of_two_equal_filters_brings_what_is_retained_at_its_own_qos(bench, v5):
    """[MQTT-3.8.4-5]: as if they had come in two packets, one after the other. Seen beside mosquitto."""
    client = await bench.client("a", v5=v5)
    client.send(publish("t", b"1", qos=1, v5=v5, retain=True))
    assert (await client.packet())[0] == 0x40
    filters = text("t") + b"\1" + text("t") + b"\0"
    client.send(packet(0x82, b"\0\7" + (b"\0" if v5 else b"") + filters))
    came = [await client.packet() for _ in range(3)]
    messages = [taken_apart(first, body, v5=v5) for first, body in came if first >> 4 == 3]
    assert [(one.payload, one.qos, one.retain) for one in messages] == [(b"1", 1, True), (b"1", 0, True)]

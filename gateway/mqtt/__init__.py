"""MQTT, both ways: the gateway's own listener for devices, and the client beside a broker that is already there."""

"""An edge event gateway: devices in over MQTT, a log on disk, rules, and an uplink that may be gone for days."""

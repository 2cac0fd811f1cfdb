"""Simulated thermostat rooms, climate, power and door sensors that speak MQTT.

An independent witness: it shares no code with the gateway. The pure half (`World`, devices, faults) knows no clock and
no network; the shell (`Fleet`) connects it over aiomqtt.
"""

from firmware_sim.faults import Faults
from firmware_sim.fleet import DeviceState, Fleet
from firmware_sim.link import LinkSettings
from firmware_sim.message import Message
from firmware_sim.spans import Skew, Span
from firmware_sim.summary import Summary
from firmware_sim.world import World

__all__ = ["DeviceState", "Faults", "Fleet", "LinkSettings", "Message", "Skew", "Span", "Summary", "World"]

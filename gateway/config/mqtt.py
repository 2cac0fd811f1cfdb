"""`mqtt`: the gateway's own listener, and the broker beside which it may stand.

Both are written as a URL, or as a mapping with the URL under `url` where more is to be said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.access import read_permissions, read_users, read_websocket
from gateway.config.document import Scalar
from gateway.config.section import Section
from gateway.config.settings import KIB, ConnectSettings, ListenSettings
from gateway.config.tls import read_tls
from gateway.config.values import (
    LONGEST_EXPIRY_S,
    LONGEST_KEEPALIVE_S,
    MQTT_PORTS,
    SHORTEST_KEEPALIVE_S,
    Address,
    Context,
    Session,
    as_section,
    read_address,
    read_credentials,
)

if TYPE_CHECKING:
    from gateway.config.document import Mark

_SMALLEST_PACKET_BYTES = KIB
_LARGEST_PACKET_BYTES = 268_435_455  # what the four length bytes of MQTT can say
_SMALLEST_UNSETTLED_BYTES = 64 * KIB


def read_mqtt(context: Context, root: Section) -> tuple[ListenSettings | None, ConnectSettings | None]:
    """`mqtt.listen` and `mqtt.connect`: at least one of them."""
    mqtt = root.section("mqtt", required=True)
    if mqtt is None:
        return None, None
    listen = _read_listen(context, mqtt) if mqtt.has("listen") else None
    connect = _read_connect(context, mqtt) if mqtt.has("connect") else None
    if not mqtt.has("listen") and not mqtt.has("connect"):
        mqtt.node("listen"), mqtt.node("connect")  # known keys, for the suggestion beside a misspelt one
        root.problems.add(mqtt.mark, "neither `listen` nor `connect`: no event could ever arrive")
    mqtt.done()
    return listen, connect


def _read_listen(context: Context, mqtt: Section) -> ListenSettings | None:
    section, key = as_section(mqtt, "listen", "url")
    address = read_address(section, key, MQTT_PORTS, is_bound=True)
    mark = section.at(key)
    is_nested = section is not mqtt
    below = section if is_nested else Section(None, mqtt.problems, mark)
    default = ListenSettings()
    is_secure = address is not None and address.scheme == "mqtts"
    max_packet_bytes = below.size_bytes(
        "max_packet",
        default.max_packet_bytes,
        least_bytes=_SMALLEST_PACKET_BYTES,
        most_bytes=_LARGEST_PACKET_BYTES,
    )
    assert max_packet_bytes is not None, "a default was given"
    tls = read_tls(context, below, wanted=is_secure, is_server=True, mark=mark)
    users = tuple(read_users(context, below))
    has_certificates = tls is not None and tls.ca is not None
    below.node("permissions")  # a known key, also where it is absent
    permissions = (
        read_permissions(below, users, has_certificates=has_certificates) if below.has("permissions") else None
    )
    listen = ListenSettings(
        host=address.host if address else default.host,
        port=address.port if address else default.port,
        tls=tls,
        users=users,
        permissions=permissions,
        websocket=read_websocket(context, below) if is_nested else None,
        max_packet_bytes=max_packet_bytes,
        max_connections=below.integer("max_connections", default.max_connections, least=1) or 1,
        max_queued_messages=below.integer("max_queued_messages", default.max_queued_messages, least=1) or 1,
        max_queued_bytes=below.size_bytes("max_queued", default.max_queued_bytes, least_bytes=KIB) or KIB,
        max_subscriptions=below.integer("max_subscriptions", default.max_subscriptions, least=1) or 1,
        max_in_flight=below.integer("max_in_flight", default.max_in_flight, least=1, most=default.max_in_flight) or 1,
        max_messages_per_s=below.integer("max_messages_per_s", least=1),
        max_bytes_per_s=below.size_bytes("max_bytes_per_s", least_bytes=KIB),
        max_unsettled_bytes=below.size_bytes(
            "max_unsettled",
            max(default.max_unsettled_bytes, max_packet_bytes),
            least_bytes=max(_SMALLEST_UNSETTLED_BYTES, max_packet_bytes),
        )
        or 0,
        session_expiry_max_s=int(
            below.duration_s("session_expiry_max", default.session_expiry_max_s, most_s=LONGEST_EXPIRY_S) or 0
        ),
        connect_timeout_s=below.duration_s("connect_timeout", default.connect_timeout_s, least_s=0.1, most_s=600.0)
        or 0.0,
    )
    if is_nested:
        below.done()
    if address is None:
        return None
    context.listeners.append((mark, "mqtt.listen", address))
    _warn_of_open_doors(context, listen, address, mark)
    return listen


def _warn_of_open_doors(context: Context, listen: ListenSettings, address: Address, mark: Mark) -> None:
    if address.is_local_only():
        return
    has_certificates = listen.tls is not None and listen.tls.ca is not None and listen.tls.are_clients_certified
    if not listen.users and not has_certificates:
        context.warnings.add(mark, "whoever reaches this port may publish and subscribe; set `users`")
    elif listen.users and listen.tls is None:
        context.warnings.add(mark, "passwords of devices cross the network readable; use mqtts://")


def _read_connect(context: Context, mqtt: Section) -> ConnectSettings | None:
    section, key = as_section(mqtt, "connect", "url")
    address = read_address(section, key, MQTT_PORTS)
    mark = section.at(key)
    node = section.node(key)
    is_nested = section is not mqtt
    below = section if is_nested else Section(None, mqtt.problems, mark)
    default = ConnectSettings(host="", port=0)
    is_secure = address is not None and address.scheme == "mqtts"
    connect = ConnectSettings(
        host=address.host if address else "",
        port=address.port if address else 0,
        tls=read_tls(context, below, wanted=is_secure, is_server=False, mark=mark),
        credentials=read_credentials(context, below, address, mark, node if isinstance(node, Scalar) else None),
        client_id=below.text("client_id"),
        keepalive_s=int(
            below.duration_s("keepalive", default.keepalive_s, least_s=SHORTEST_KEEPALIVE_S, most_s=LONGEST_KEEPALIVE_S)
            or 0
        ),
        session_expiry_s=int(
            below.duration_s("session_expiry", default.session_expiry_s, least_s=1.0, most_s=LONGEST_EXPIRY_S) or 0
        ),
        max_unsettled_bytes=below.size_bytes(
            "max_unsettled", default.max_unsettled_bytes, least_bytes=_SMALLEST_UNSETTLED_BYTES
        )
        or 0,
    )
    if is_nested:
        below.done()
    if address is None:
        return None
    client_id = connect.client_id or f"gateway-{context.gateway_id}"
    context.sessions.append(Session(mark, address, client_id, is_sink=False))
    return connect

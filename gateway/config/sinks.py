"""The entries of `forward`: which keys each type of sink has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.config.section import Section
from gateway.config.settings import (
    FileSinkSettings,
    HttpSinkSettings,
    InfluxSinkSettings,
    MqttSinkSettings,
    RetrySettings,
    SinkSettings,
)
from gateway.config.values import HTTP_PORTS, MQTT_PORTS, Context, read_address, read_credentials, read_tls

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config.document import Node

NAME_PATTERN = r"[A-Za-z0-9_-]{1,64}"
_RESERVED = ("act", "rules", "ingest")


def read_sinks(context: Context, root: Section) -> tuple[SinkSettings, ...]:
    """Every entry of `forward`, those that are wrong left out with their problems noted."""
    sinks: dict[str, SinkSettings] = {}
    for node in root.each("forward"):
        sink = _read_sink(context, root, node)
        if sink is None:
            continue
        if sink.name in sinks:
            root.problems.add(node.mark, f"a sink named `{sink.name}` stands twice")
        sinks[sink.name] = sink
    return tuple(sinks.values())


def _read_sink(context: Context, root: Section, node: Node) -> SinkSettings | None:
    section = Section(node, root.problems, node.mark)
    name = section.text("name", required=True, pattern=NAME_PATTERN)
    if name in _RESERVED:
        root.problems.add(section.at("name"), f"`{name}` is taken by the gateway itself; choose another name")
    kind = section.choice("type", tuple(_READERS), required=True)
    if kind is None or not name:
        return None
    window = section.integer("window", 2_000, least=1, most=100_000) or 2_000
    batch = section.integer("batch", min(500, window), least=1, most=10_000) or 500
    if batch > window:
        root.problems.add(section.at("batch"), f"`batch` ({batch}) is larger than `window` ({window})")
    common = {
        "name": name,
        "batch_records": batch,
        "window_records": window,
        "timeout_s": _positive(section, "timeout", 30.0),
        "retry": _read_retry(section),
        "start": section.choice("start", ("oldest", "now"), "oldest"),
    }
    sink = _READERS[kind](context, section, common)
    section.done()
    return sink


def _positive(section: Section, key: str, default: float) -> float:
    value = section.duration_s(key, default)
    if value is None or value <= 0:
        section.problems.add(section.at(key), f"`{key}` is longer than nothing")
        return default
    return value


def _read_retry(section: Section) -> RetrySettings:
    below = section.section("retry")
    if below is None:
        return RetrySettings()
    retry = RetrySettings(base_s=_positive(below, "base", 0.5), max_s=_positive(below, "max", 120.0))
    if retry.base_s > retry.max_s:
        section.problems.add(below.at("base"), "`base` is longer than `max`")
    below.done()
    return retry


def _mqtt(context: Context, section: Section, common: dict[str, Any]) -> SinkSettings | None:
    text = context.text(section, "broker", required=True)
    address = read_address(text, section, "broker", MQTT_PORTS) if text else None
    mark = section.at("broker")
    secure = address is not None and address.scheme == "mqtts"
    sink = MqttSinkSettings(
        **common,
        host=address.host if address else "",
        port=address.port if address else 0,
        tls=read_tls(context, section, wanted=secure, server=False, where=mark),
        credentials=read_credentials(context, section, address, mark),
        client_id=section.text("client_id"),
        topic=_topic_template(section),
        keepalive_s=int(_positive(section, "keepalive", 30.0)),
    )
    return sink if address is not None else None


def _topic_template(section: Section) -> str:
    template = section.text("topic", "{gateway}/{topic}")
    if "+" in template or "#" in template or not template:
        section.problems.add(section.at("topic"), "a topic that is published to holds no `+` and no `#`")
    return template


def _http(context: Context, section: Section, common: dict[str, Any]) -> SinkSettings | None:
    url = context.text(section, "url", required=True)
    address = read_address(url, section, "url", HTTP_PORTS, path_allowed=True) if url else None
    headers: list[tuple[str, str]] = []
    below = section.section("headers")
    if below is not None:
        headers = [(key, context.text(below, key)) for key in below.names()]
    token = context.secret(section, "token")
    if token:
        headers.append(("Authorization", f"Bearer {token}"))
    return HttpSinkSettings(**common, url=url, headers=tuple(headers)) if address is not None else None


def _influxdb(context: Context, section: Section, common: dict[str, Any]) -> SinkSettings | None:
    url = context.text(section, "url", required=True)
    address = read_address(url, section, "url", HTTP_PORTS, path_allowed=True) if url else None
    sink = InfluxSinkSettings(
        **common,
        url=url,
        bucket=section.text("bucket", required=True),
        org=section.text("org"),
        token=context.secret(section, "token"),
        measurement=section.text("measurement", "{type}"),
    )
    return sink if address is not None else None


def _file(context: Context, section: Section, common: dict[str, Any]) -> SinkSettings | None:
    path = context.text(section, "path", required=True)
    return FileSinkSettings(**common, path=context.path(path)) if path else None


_READERS: dict[str, Callable[[Context, Section, dict[str, Any]], SinkSettings | None]] = {
    "mqtt": _mqtt,
    "http": _http,
    "influxdb": _influxdb,
    "file": _file,
}

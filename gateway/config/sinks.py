"""The entries of `forward`: which keys each type of sink has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypedDict

from gateway.config.document import Scalar, cut
from gateway.config.environment import has_reference
from gateway.config.section import Section, did_you_mean
from gateway.config.settings import (
    FileSinkSettings,
    HttpSinkSettings,
    InfluxSinkSettings,
    MqttSinkSettings,
    RetrySettings,
    SinkSettings,
)
from gateway.config.tls import read_tls
from gateway.config.values import (
    HTTP_PORTS,
    LONGEST_KEEPALIVE_S,
    MQTT_PORTS,
    SHORTEST_KEEPALIVE_S,
    Context,
    Session,
    cut_path,
    read_address,
    read_credentials,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.config.settings import TopicSettings

NAME_PATTERN = r"[A-Za-z0-9_-]{1,64}"
_RESERVED = ("act", "rules", "ingest")  # consumers of the log that have a cursor of their own
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization", "x-api-key")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_SHORTEST_S = 0.001
_LONGEST_S = 86_400.0


class _Common(TypedDict):
    """What all sinks have in common, as keyword arguments."""

    name: str
    batch_records: int
    window_records: int
    timeout_s: float
    retry: RetrySettings
    start: str


def read_sinks(context: Context, root: Section, topics: Iterable[TopicSettings]) -> tuple[SinkSettings, ...]:
    """Every entry of `forward`, those that are wrong left out with their problems noted.

    Args:
        context: see `Context`.
        root: the whole configuration.
        topics: entries of `ingest.topics`, for the names that templates may use.
    """
    captures = {name for topic in topics for name in _PLACEHOLDER.findall(topic.topic)}
    names: dict[str, int] = {}
    sinks = []
    for node in root.each("forward"):
        section = Section(node, root.problems, node.mark)
        sink = _read_sink(context, section, captures)
        name = section.text("name")
        if name and name in names:
            problem = f"a sink named `{section.shown('name')}` stands twice; first in line {names[name]}"
            root.problems.add(section.at("name"), problem)
        names.setdefault(name, section.at("name").line)
        if sink is not None:
            sinks.append(sink)
    return tuple(sinks)


def _read_sink(context: Context, section: Section, captures: set[str]) -> SinkSettings | None:
    problems = section.problems
    name = section.text("name", required=True, pattern=NAME_PATTERN)
    if name in _RESERVED:
        problems.add(section.at("name"), f"`{name}` is taken by the gateway itself; choose another name")
    kind = section.choice("type", tuple(_READERS), required=True)
    if kind is None:
        return None
    default = SinkSettings(name=name)
    window = section.integer("window", default.window_records, least=1, most=100_000) or 1
    batch = section.integer("batch", min(default.batch_records, window), least=1, most=10_000) or 1
    if batch > window:
        problems.add(section.at("batch"), f"`batch` ({batch}) is larger than `window` ({window})")
    common = _Common(
        name=name,
        batch_records=batch,
        window_records=window,
        timeout_s=_pause_s(section, "timeout", default.timeout_s),
        retry=_read_retry(section, default.retry),
        start=section.choice("start", ("oldest", "now"), default.start) or default.start,
    )
    sink = _READERS[kind](context, section, common, captures)
    section.done()
    return sink


def _pause_s(section: Section, key: str, default_s: float) -> float:
    return section.duration_s(key, default_s, least_s=_SHORTEST_S, most_s=_LONGEST_S) or default_s


def _read_retry(section: Section, default: RetrySettings) -> RetrySettings:
    below = section.section("retry")
    if below is None:
        return default
    retry = RetrySettings(base_s=_pause_s(below, "base", default.base_s), max_s=_pause_s(below, "max", default.max_s))
    if retry.base_s > retry.max_s:
        section.problems.add(below.at("base"), "`base` is longer than `max`")
    below.done()
    return retry


def _mqtt(context: Context, section: Section, common: _Common, captures: set[str]) -> SinkSettings | None:
    address = read_address(section, "broker", MQTT_PORTS)
    mark = section.at("broker")
    node = section.node("broker")
    is_secure = address is not None and address.scheme == "mqtts"
    sink = MqttSinkSettings(
        **common,
        host=address.host if address else "",
        port=address.port if address else 0,
        tls=read_tls(context, section, wanted=is_secure, is_server=False, mark=mark),
        credentials=read_credentials(context, section, address, mark, node if isinstance(node, Scalar) else None),
        client_id=section.text("client_id"),
        topic=_read_topic(section, captures),
        keepalive_s=int(
            section.duration_s("keepalive", 30.0, least_s=SHORTEST_KEEPALIVE_S, most_s=LONGEST_KEEPALIVE_S) or 0
        ),
    )
    if address is None:
        return None
    client_id = sink.client_id or f"gateway-{context.gateway_id}-{sink.name}"
    context.sessions.append(Session(mark, address, client_id, is_sink=True))
    return sink


def _read_topic(section: Section, captures: set[str]) -> str:
    template = section.text("topic", "{gateway}/{topic}")
    mark = section.at("topic")
    if not template or "\0" in template or "+" in template or "#" in template:
        section.problems.add(mark, "a topic that is published to is not empty and holds no `+`, no `#`, no U+0000")
    elif template.startswith("$"):
        section.problems.add(mark, "topics that begin with `$` belong to the broker")
    _check_placeholders(section, "topic", template, captures | {"gateway", "topic"})
    return template


def _check_placeholders(section: Section, key: str, template: str, known: set[str]) -> None:
    for name in _PLACEHOLDER.findall(template) if section.has(key) else ():
        if name not in known:
            hint = did_you_mean(name, sorted(known)) or f"; known here: {', '.join(sorted(known))}"
            shown = section.shown(key)
            named = f"{{{cut(name)}}}" if f"{{{name}}}" in shown else f"what `{shown}` names"
            section.problems.add(section.at(key), f"no entry of `ingest.topics` captures {named}{hint}")


def _http(context: Context, section: Section, common: _Common, captures: set[str]) -> SinkSettings | None:
    del captures
    address = read_address(section, "url", HTTP_PORTS, is_base=True)
    headers = _read_headers(context, section)
    token = context.secret(section, "token")
    if token:
        if any(name.lower() == "authorization" for name, _ in headers):
            section.problems.add(section.at("headers"), "`token` is sent as Authorization, which stands here as well")
        headers.append(("Authorization", f"Bearer {token}"))
    return HttpSinkSettings(**common, url=section.text("url"), headers=tuple(headers)) if address is not None else None


def _read_headers(context: Context, section: Section) -> list[tuple[str, str]]:
    below = section.section("headers")
    if below is None:
        return []
    headers = []
    for name in below.names():
        value = below.text(name)
        if _HEADER_NAME.fullmatch(name) is None:
            section.problems.add(below.at(name), f"`{cut(name)}` is not the name of a header")
        if not value.isprintable():
            section.problems.add(below.at(name), f"`{cut(name)}`: a header is one line without control characters")
        if name.lower() in _SECRET_HEADERS and value and not has_reference(below.node(name)):
            context.warnings.add(below.at(name), f"`{name}` stands in the file; better: {name}: ${{NAME}}")
        headers.append((name, value))
    return headers


def _influxdb(context: Context, section: Section, common: _Common, captures: set[str]) -> SinkSettings | None:
    address = read_address(section, "url", HTTP_PORTS, is_base=True)
    default = InfluxSinkSettings(name="", url="", bucket="")
    sink = InfluxSinkSettings(
        **common,
        url=section.text("url"),
        bucket=section.text("bucket", required=True),
        org=section.text("org"),
        token=context.secret(section, "token"),
        measurement=section.text("measurement", default.measurement),
    )
    _check_placeholders(section, "measurement", sink.measurement, captures)
    return sink if address is not None else None


def _file(context: Context, section: Section, common: _Common, captures: set[str]) -> SinkSettings | None:
    del captures
    path = context.path(section, "path", required=True)
    if path is None:
        return None
    if path.is_dir():
        section.problems.add(section.at("path"), f"{cut_path(path)} is a directory")
    context.files.append((section.at("path"), path))
    return FileSinkSettings(**common, path=path)


_READERS: dict[str, Callable[[Context, Section, _Common, set[str]], SinkSettings | None]] = {
    "mqtt": _mqtt,
    "http": _http,
    "influxdb": _influxdb,
    "file": _file,
}

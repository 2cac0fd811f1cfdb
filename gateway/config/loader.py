"""The configuration file, as `Settings`: all of its problems in one go, before anything has started."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.config.document import Mark, Node, Problems, Scalar, parse_file
from gateway.config.section import Section, did_you_mean
from gateway.config.settings import (
    ActSettings,
    ConnectSettings,
    Credentials,
    HttpSettings,
    ListenSettings,
    LogSettings,
    Settings,
    TopicSettings,
    WebhookSettings,
)
from gateway.config.sinks import NAME_PATTERN, read_sinks
from gateway.config.values import (
    HTTP_PORTS,
    MQTT_PORTS,
    Context,
    as_section,
    read_address,
    read_credentials,
    read_tls,
)
from gateway.model import Format

if TYPE_CHECKING:
    from collections.abc import Iterator

_ID_PATTERN = r"[A-Za-z0-9_.:-]{1,64}"
_FORMATS = {each.name.lower(): each for each in Format}
_NOT_YET = ("msgpack", "cbor")
_SMALLEST_SEGMENT_BYTES = 64 * 1024
_CAPTURE = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")
_TEST_SUFFIX = ".test.yaml"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration without problems."""

    settings: Settings
    warnings: tuple[str, ...]
    """What is allowed and should not stay so, each as `path:line:column: message`."""


def load(path: Path) -> Loaded:
    """Read a configuration file and everything that it refers to, but for the contents of rule files.

    Raises:
        ConfigError: with every problem as `path:line:column: message`.
    """
    problems = Problems()
    context = Context(path.resolve().parent, [])
    start = Mark(str(path), 1, 1)
    tree = parse_file(path, problems)
    if tree is None:
        problems.raise_if_any()
    _check_permissions(path, start, problems)
    root = Section(tree, problems, start)
    settings = _read(context, root, path)
    root.done()
    problems.raise_if_any()
    return Loaded(settings, tuple(context.warnings))


def _check_permissions(path: Path, start: Mark, problems: Problems) -> None:
    if path.stat().st_mode & stat.S_IWOTH:
        problems.add(start, f"anyone on this machine can write this file; chmod o-w {path}")


def _read(context: Context, root: Section, path: Path) -> Settings:
    gateway = root.section("gateway", required=True) or Section(None, Problems(), root.mark)
    listen, connect = _read_mqtt(context, root)
    settings = Settings(
        gateway_id=gateway.text("id", required=True, pattern=_ID_PATTERN),
        data_dir=_read_data_dir(context, gateway),
        timezone=_read_timezone(gateway),
        listen=listen,
        connect=connect,
        topics=_read_topics(root),
        log=_read_log(root),
        rules=_read_rules(context, root),
        forward=read_sinks(context, root),
        notify=_read_notify(context, root),
        http=_read_http(context, root),
        act=_read_act(root),
        path=path,
    )
    gateway.done()
    return settings


def _read_data_dir(context: Context, gateway: Section) -> Path:
    text = context.text(gateway, "data_dir", "./data")
    if ".." in Path(text).parts:
        gateway.problems.add(gateway.at("data_dir"), "`data_dir` holds `..`; write the path out")
    return context.path(text)


def _read_timezone(gateway: Section) -> str:
    name = gateway.text("timezone", "UTC")
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        gateway.problems.add(gateway.at("timezone"), f"no time zone named `{name}`; write it like Europe/Berlin")
    return name


def _read_mqtt(context: Context, root: Section) -> tuple[ListenSettings | None, ConnectSettings | None]:
    mqtt = root.section("mqtt", required=True)
    if mqtt is None:
        return None, None
    listen = _read_listen(context, mqtt) if mqtt.has("listen") else None
    connect = _read_connect(context, mqtt) if mqtt.has("connect") else None
    if not mqtt.has("listen") and not mqtt.has("connect"):
        root.problems.add(mqtt.mark, "neither `listen` nor `connect`: no event could ever arrive")
    mqtt.done()
    return listen, connect


def _read_listen(context: Context, mqtt: Section) -> ListenSettings | None:
    section, key = as_section(mqtt, "listen", "url")
    text = context.text(section, key, required=True)
    address = read_address(text, section, key, MQTT_PORTS) if text else None
    mark = section.at(key)
    if section is mqtt:
        if address is not None and address.scheme == "mqtts":
            mqtt.problems.add(mark, "mqtts:// needs `listen:` as a mapping with `url` and `tls`")
        return ListenSettings(host=address.host, port=address.port) if address is not None else None
    secure = address is not None and address.scheme == "mqtts"
    default = ListenSettings()
    listen = ListenSettings(
        host=address.host if address else default.host,
        port=address.port if address else default.port,
        tls=read_tls(context, section, wanted=secure, server=True, where=mark),
        users=tuple(_read_users(context, section)),
        max_packet_bytes=section.size_bytes("max_packet", default.max_packet_bytes) or default.max_packet_bytes,
        max_connections=section.integer("max_connections", default.max_connections, least=1) or 1,
        max_queued_messages=section.integer("max_queued_messages", default.max_queued_messages, least=1) or 1,
        max_unsettled_bytes=section.size_bytes("max_unsettled", default.max_unsettled_bytes) or 1,
        session_expiry_max_s=int(section.duration_s("session_expiry_max", default.session_expiry_max_s) or 0),
        connect_timeout_s=section.duration_s("connect_timeout", default.connect_timeout_s) or 1.0,
    )
    section.done()
    return listen


def _read_users(context: Context, section: Section) -> Iterator[Credentials]:
    seen: set[str] = set()
    for node in section.each("users"):
        user = Section(node, section.problems, node.mark)
        name = user.text("username", required=True)
        if name in seen:
            section.problems.add(node.mark, f"user `{name}` stands twice")
        seen.add(name)
        password = context.secret(user, "password")
        if not user.has("password") and not user.has("password_file"):
            section.problems.add(node.mark, f"user `{name}` has no password")
        user.done()
        yield Credentials(username=name, password=password)


def _read_connect(context: Context, mqtt: Section) -> ConnectSettings | None:
    section, key = as_section(mqtt, "connect", "url")
    text = context.text(section, key, required=True)
    address = read_address(text, section, key, MQTT_PORTS) if text else None
    mark = section.at(key)
    nested = section is not mqtt
    below = section if nested else Section(None, mqtt.problems, mark)
    secure = address is not None and address.scheme == "mqtts"
    default = ConnectSettings(host="", port=0)
    connect = ConnectSettings(
        host=address.host if address else "",
        port=address.port if address else 0,
        tls=read_tls(context, below, wanted=secure, server=False, where=mark),
        credentials=read_credentials(context, below, address, mark),
        client_id=below.text("client_id"),
        keepalive_s=int(below.duration_s("keepalive", default.keepalive_s) or default.keepalive_s),
        session_expiry_s=int(below.duration_s("session_expiry", default.session_expiry_s) or 0),
        max_unsettled_bytes=below.size_bytes("max_unsettled", default.max_unsettled_bytes) or 1,
    )
    if nested:
        section.done()
    return connect if address is not None else None


def _read_topics(root: Section) -> tuple[TopicSettings, ...]:
    ingest = root.section("ingest", required=True)
    if ingest is None:
        return ()
    topics: dict[str, TopicSettings] = {}
    for node in ingest.each("topics", required=True):
        section = Section(node, root.problems, node.mark)
        topic = section.text("topic", required=True)
        problem = _filter_problem(topic) if topic else ""
        if problem:
            root.problems.add(section.at("topic"), f"`{topic}`: {problem}")
        if topic in topics:
            root.problems.add(section.at("topic"), f"`{topic}` stands twice")
        default = TopicSettings(topic=topic)
        topics[topic] = TopicSettings(
            topic=topic,
            format=_read_format(section),
            max_payload_bytes=section.size_bytes("max_payload", default.max_payload_bytes) or 1,
        )
        section.done()
    ingest.done()
    return tuple(topics.values())


def _read_format(section: Section) -> Format:
    name = section.text("format", "json")
    if name in _FORMATS:
        return _FORMATS[name]
    mark = section.at("format")
    listed = ", ".join(sorted(_FORMATS))
    if name in _NOT_YET:
        section.problems.add(mark, f"format `{name}` is planned and not built yet; this release reads {listed}")
    else:
        section.problems.add(mark, f"`format` is one of {listed}, not `{name}`{did_you_mean(name, tuple(_FORMATS))}")
    return Format.RAW


def _filter_problem(topic: str) -> str:
    """What is wrong with a topic filter. `gateway.mqtt.topics` lies above this package, so the check is here too."""
    levels = topic.split("/")
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != len(levels) - 1):
            return "`#` must stand alone in the last level"
        if "+" in level and level != "+":
            return "`+` must stand alone in its level"
        if ("{" in level or "}" in level) and _CAPTURE.fullmatch(level) is None:
            return f"`{level}`: a capture is written {{name}} and fills its whole level"
        if _CAPTURE.fullmatch(level) and level in levels[:index]:
            return f"{level} stands twice"
    if "\0" in topic:
        return "a topic holds no U+0000"
    return "topics that begin with `$` belong to the gateway" if topic.startswith("$") else ""


def _read_log(root: Section) -> LogSettings:
    default = LogSettings()
    section = root.section("log")
    if section is None:
        return default
    log = LogSettings(
        max_size_bytes=section.size_bytes("max_size", default.max_size_bytes) or 0,
        segment_size_bytes=section.size_bytes("segment_size", default.segment_size_bytes) or 0,
        sync_interval_s=_read_sync(section),
        tip_bytes=section.size_bytes("memory", default.tip_bytes) or 0,
        dead_letters_max_size_bytes=section.size_bytes("dead_letters_max_size", default.dead_letters_max_size_bytes)
        or 0,
        compress=section.boolean("compress", default.compress),
    )
    if log.segment_size_bytes < _SMALLEST_SEGMENT_BYTES:
        root.problems.add(section.at("segment_size"), "`segment_size` is at least 64KiB")
    if log.max_size_bytes < 2 * log.segment_size_bytes:
        root.problems.add(section.at("max_size"), "`max_size` holds at least two segments (`segment_size`)")
    if log.dead_letters_max_size_bytes < 4 * _SMALLEST_SEGMENT_BYTES:
        root.problems.add(section.at("dead_letters_max_size"), "`dead_letters_max_size` is at least 256KiB")
    section.done()
    return log


def _read_sync(section: Section) -> float | None:
    node = section.node("sync")
    if node is None:
        return 0.0
    if isinstance(node, Scalar) and node.value in {"always", "none"}:
        return 0.0 if node.value == "always" else None
    if isinstance(node, Scalar) and isinstance(node.value, str) and node.value.isalpha():
        hint = did_you_mean(node.value, ("always", "none"))
        section.problems.add(node.mark, f"`sync` is always, none, or a duration, not `{node.value}`{hint}")
        return 0.0
    return section.duration_s("sync", 0.0)


def _read_rules(context: Context, root: Section) -> tuple[Path, ...]:
    found: dict[Path, None] = {}
    for node in root.each("rules"):
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            root.problems.add(node.mark, "a path is expected, such as ../rules/*.yaml")
            continue
        paths = [path for path in _glob(context.base, node.value) if not path.name.endswith(_TEST_SUFFIX)]
        if not paths:
            root.problems.add(node.mark, f"`{node.value}` matches no rule file (looked in {context.base})")
        found.update(dict.fromkeys(paths))
    return tuple(found)


def _glob(base: Path, pattern: str) -> list[Path]:
    absolute = Path(pattern).is_absolute()
    anchor = Path(Path(pattern).anchor) if absolute else base
    relative = str(Path(pattern).relative_to(anchor)) if absolute else pattern
    try:
        return sorted(path.resolve() for path in anchor.glob(relative) if path.is_file())
    except (ValueError, NotImplementedError, OSError):
        return []


def _read_notify(context: Context, root: Section) -> tuple[WebhookSettings, ...]:
    receivers: dict[str, WebhookSettings] = {}
    for node in root.each("notify"):
        section = Section(node, root.problems, node.mark)
        name = section.text("name", required=True, pattern=NAME_PATTERN)
        url = context.text(section, "webhook")
        if url:
            read_address(url, section, "webhook", HTTP_PORTS, path_allowed=True)
        if name in receivers:
            root.problems.add(node.mark, f"a receiver named `{name}` stands twice")
        receivers[name] = WebhookSettings(name=name, url=url or None)
        section.done()
    return tuple(receivers.values())


def _read_http(context: Context, root: Section) -> HttpSettings | None:
    node: Node | None = root.node("http")
    if node is None:
        return HttpSettings()
    if isinstance(node, Scalar) and node.value == "off":
        return None
    section = Section(node, root.problems, node.mark)
    text = context.text(section, "listen", "127.0.0.1:8080")
    address = read_address(f"http://{text}", section, "listen", HTTP_PORTS)
    section.done()
    return HttpSettings(host=address.host, port=address.port) if address is not None else None


def _read_act(root: Section) -> ActSettings:
    section = root.section("act")
    default = ActSettings()
    if section is None:
        return default
    act = ActSettings(
        act_within_s=section.duration_s("act_within", default.act_within_s) or 0.0,
        max_age_s=section.duration_s("max_age", default.max_age_s) or default.max_age_s,
    )
    section.done()
    return act

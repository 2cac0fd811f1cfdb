"""The configuration file, as `Settings`: all of its problems in one go, before anything has started.

The one module of the gateway that reads the environment. Rule files are found here; what stands in them is for
`gateway.rules.reading.language`.
"""

from __future__ import annotations

import glob
import os
import zoneinfo
from dataclasses import dataclass
from pathlib import Path

from gateway.config import environment
from gateway.config.conflicts import note_conflicts
from gateway.config.document import Mapping, Mark, Problems, Scalar, cut, parse_file
from gateway.config.ingest import read_topics
from gateway.config.mqtt import read_mqtt
from gateway.config.notify import read_receivers
from gateway.config.section import Section, did_you_mean
from gateway.config.settings import KIB, MIB, ActSettings, HttpSettings, Location, LogSettings, Settings
from gateway.config.sinks import read_sinks
from gateway.config.values import (
    Address,
    Context,
    check_permissions,
    cut_path,
    split_host_port,
)

_ID_PATTERN = r"[A-Za-z0-9_.:-]{1,64}"
_SMALLEST_SEGMENT_BYTES = 64 * KIB
_LARGEST_SEGMENT_BYTES = 1024 * MIB
_SMALLEST_DEAD_LETTERS_BYTES = 4 * _SMALLEST_SEGMENT_BYTES
_SHORTEST_AGE_S = 3_600.0
_LONGEST_SYNC_S = 60.0
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
        ConfigError: with every problem as `path:line:column: message`. Anything else is a bug.
    """
    problems = Problems()
    start = Mark(str(path), 1, 1)
    tree = parse_file(path, problems)
    if tree is None:
        problems.raise_if_any()
    if not isinstance(tree, Mapping):
        problems.add(start, "a configuration is a mapping (gateway: ..., mqtt: ..., ingest: ...), nothing else")
        problems.raise_if_any()
    assert isinstance(tree, Mapping), "everything else has been raised"
    _check_writers(path, start, problems)
    context = Context(_directory(path))
    root = Section(environment.resolve(tree, os.environ, problems), problems, start)
    settings = _read(context, root, path)
    root.done()
    note_conflicts(context, problems)
    problems.raise_if_any()
    return Loaded(settings, tuple(context.warnings.lines()))


def _directory(path: Path) -> Path:
    """Where relative paths begin: beside the file, and where the file really lies if the name is a link."""
    return path.resolve().parent


def _check_writers(path: Path, mark: Mark, problems: Problems) -> None:
    try:
        check_permissions(path, path.stat().st_mode, mark, problems)
    except OSError as error:
        problems.add(mark, f"cannot be read: {error.strerror}")


def _read(context: Context, root: Section, path: Path) -> Settings:
    gateway = root.section("gateway", required=True) or Section(None, Problems(), root.mark)
    context.gateway_id = gateway.text("id", required=True, pattern=_ID_PATTERN)
    listen, connect = read_mqtt(context, root)
    topics = read_topics(context, root, listen)
    settings = Settings(
        gateway_id=context.gateway_id,
        data_dir=_read_data_dir(context, gateway),
        timezone=_read_timezone(gateway),
        location=_read_location(gateway),
        listen=listen,
        connect=connect,
        topics=topics,
        log=_read_log(root),
        rules=_read_rules(context, root),
        forward=read_sinks(context, root, topics),
        notify=read_receivers(context, root),
        http=_read_http(context, root),
        act=_read_act(root),
        path=path,
    )
    gateway.done()
    return settings


def _read_data_dir(context: Context, gateway: Section) -> Path:
    node = gateway.node("data_dir")
    if isinstance(node, Scalar) and ".." in Path(str(node.value)).parts:
        gateway.problems.add(node.mark, "`data_dir` holds `..`; write the path out")
    path = context.path(gateway, "data_dir", "./data")
    if path is not None and path.is_file():
        gateway.problems.add(gateway.at("data_dir"), f"{cut_path(path)} is a file")
    return path or context.base


def _read_timezone(gateway: Section) -> str:
    name = gateway.text("timezone", "UTC")
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = did_you_mean(name, sorted(zoneinfo.available_timezones())) or "; write it like Europe/Berlin"
        gateway.problems.add(gateway.at("timezone"), f"no time zone is named `{gateway.shown('timezone')}`{hint}")
    return name


def _read_location(gateway: Section) -> Location | None:
    section = gateway.section("location")
    if section is None:
        return None
    latitude = section.number("latitude", required=True, least=-90, most=90)
    longitude = section.number("longitude", required=True, least=-180, most=180)
    section.done()
    return Location(float(latitude), float(longitude)) if latitude is not None and longitude is not None else None


def _read_log(root: Section) -> LogSettings:
    default = LogSettings()
    section = root.section("log")
    if section is None:
        return default
    log = LogSettings(
        max_size_bytes=section.size_bytes("max_size", default.max_size_bytes) or 0,
        segment_size_bytes=section.size_bytes(
            "segment_size",
            default.segment_size_bytes,
            least_bytes=_SMALLEST_SEGMENT_BYTES,
            most_bytes=_LARGEST_SEGMENT_BYTES,
        )
        or 0,
        sync_interval_s=_read_sync(section),
        tip_bytes=section.size_bytes("memory", default.tip_bytes) or 0,
        dead_letters_max_size_bytes=section.size_bytes(
            "dead_letters_max_size", default.dead_letters_max_size_bytes, least_bytes=_SMALLEST_DEAD_LETTERS_BYTES
        )
        or 0,
        audit_max_size_bytes=section.size_bytes(
            "audit_max_size", default.audit_max_size_bytes, least_bytes=_SMALLEST_DEAD_LETTERS_BYTES
        )
        or 0,
        max_age_s=section.duration_s("max_age", default.max_age_s, least_s=_SHORTEST_AGE_S),
        when_full="hold" if section.choice("when_full", ("evict", "hold")) == "hold" else "evict",
        compress=section.boolean("compress", default.compress),
    )
    if log.max_size_bytes < 2 * log.segment_size_bytes:
        root.problems.add(section.at("max_size"), "`max_size` holds at least two segments (`segment_size`)")
    section.done()
    return log


def _read_sync(section: Section) -> float | None:
    default_s = LogSettings().sync_interval_s
    node = section.node("sync")
    if isinstance(node, Scalar) and node.value in ("always", "none"):
        return 0.0 if node.value == "always" else None
    if isinstance(node, Scalar) and isinstance(node.value, str) and node.value.isalpha():
        hint = did_you_mean(node.value, ("always", "none"))
        section.problems.add(node.mark, f"`sync` is always, none, or a duration, not `{cut(node.raw)}`{hint}")
        return default_s
    return section.duration_s("sync", default_s, most_s=_LONGEST_SYNC_S)


def _read_rules(context: Context, root: Section) -> tuple[Path, ...]:
    found: set[Path] = set()
    for node in root.each("rules"):
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            root.problems.add(node.mark, "a path is expected, such as ../rules/*.yaml")
            continue
        matched = _rule_files(context.base, node.value)
        paths = [path for path in matched if not path.name.endswith(_TEST_SUFFIX)]
        if not paths:
            only = "only tests (*.test.yaml)" if matched else f"no rule file (looked in {cut_path(context.base)})"
            root.problems.add(node.mark, f"`{cut(node.raw)}` matches {only}")
        for path in paths:
            _check_writers(path, node.mark, root.problems)
        found.update(paths)
    return tuple(sorted(found))


def _rule_files(base: Path, pattern: str) -> list[Path]:
    """Files that a pattern means, hidden ones left out: editors and archivers leave theirs beside ours."""
    try:
        names = glob.glob(os.path.join(glob.escape(str(base)), pattern), recursive=True)  # noqa: PTH118, PTH207 - Path.glob takes no absolute pattern, and hidden files
        return [path.resolve() for path in map(Path, names) if path.is_file()]
    except (OSError, ValueError, RuntimeError):
        return []


def _read_http(context: Context, root: Section) -> HttpSettings | None:
    node = root.node("http")
    if isinstance(node, Scalar) and node.value == "off":
        return None
    default = HttpSettings()
    section = Section(node, root.problems, root.mark)
    text = section.text("listen", f"{default.host}:{default.port}")
    mark = section.at("listen")
    section.done()
    parts = split_host_port(text)
    if parts is None:
        root.problems.add(mark, f"`{section.shown('listen')}` is not HOST:PORT; write 127.0.0.1:8080")
        return default
    address = Address("http", *parts)
    context.listeners.append((mark, "http.listen", address))
    if not address.is_local_only():
        context.warnings.add(mark, "whoever reaches this port reads status and metrics; put a proxy that asks in front")
    return HttpSettings(host=address.host, port=address.port)


def _read_act(root: Section) -> ActSettings:
    section = root.section("act")
    default = ActSettings()
    if section is None:
        return default
    act_within_s = section.duration_s("act_within", default.act_within_s, most_s=60.0)
    max_age_s = section.duration_s("max_age", default.max_age_s, least_s=1.0)
    section.done()
    assert act_within_s is not None, "a default was given"
    assert max_age_s is not None, "a default was given"
    return ActSettings(act_within_s=act_within_s, max_age_s=max_age_s)

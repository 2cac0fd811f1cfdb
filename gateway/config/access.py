"""`users`, `permissions` and `websocket` of `mqtt.listen`: who may connect, what they may do, and which pages."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING

from gateway.config.document import Mapping, Scalar, cut
from gateway.config.ingest import filter_problem
from gateway.config.section import Section, did_you_mean
from gateway.config.settings import Permission, User, WebSocketSettings
from gateway.config.tls import read_tls
from gateway.config.values import WEBSOCKET_PORTS, as_section, read_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.document import Node
    from gateway.config.values import Context

_HASH = re.compile(r"\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,2})\$[A-Za-z0-9+/]{8,}\$[A-Za-z0-9+/]{16,}")
_MOST_MEMORY_KIB = 256 * 1024
_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_EXTRA = "argon2"
_CAPTURES = ("device", "client_id")
_ORIGIN = re.compile(r"\*|https?://[^/\s]+")
_PASSWORD_KEYS = ("password", "password_file", "password_hash", "password_hash_file")


def read_users(context: Context, section: Section) -> Iterator[User]:
    """`users`: a name and a password, or its hash, each."""
    seen: set[str] = set()
    for node in section.each("users"):
        user = Section(node, section.problems, node.mark)
        name = user.text("username", required=True)
        if name in seen:
            section.problems.add(user.at("username"), f"the user `{user.shown('username')}` stands twice")
        seen.add(name)
        password, password_hash = context.secret(user, "password"), ""
        if user.has("password_hash") or user.has("password_hash_file"):
            password_hash = _read_hash(context, user)
        if name and not any(map(user.has, _PASSWORD_KEYS)):
            problem = f"the user `{user.shown('username')}` has no password; set `password_hash` or `password_file`"
            section.problems.add(node.mark, problem)
        elif user.text("password") == "" and user.has("password") and not password:
            section.problems.add(user.at("password"), "`password` is empty")
        user.done()
        yield User(username=name, password=password, password_hash=password_hash)


def _read_hash(context: Context, user: Section) -> str:
    key = "password_hash" if user.has("password_hash") else "password_hash_file"
    if user.has("password") or user.has("password_file"):
        user.problems.add(user.at(key), f"`{key}` and a password exclude each other")
    text = context.secret(user, "password_hash", may_stand_here=True)
    found = _HASH.fullmatch(text)
    if text and found is None:
        user.problems.add(
            user.at(key), f"`{key}` is no argon2id hash ($argon2id$v=19$...); `gateway password` makes one"
        )
    elif found is not None and int(found[1]) > _MOST_MEMORY_KIB:
        user.problems.add(user.at(key), f"`{key}` needs more than {_MOST_MEMORY_KIB // 1024} MiB to check (m=)")
    if importlib.util.find_spec(_EXTRA) is None:
        problem = "needs the extra `passwords`: pip install 'edge-event-gateway[passwords]'"
        user.problems.add(user.at(key), f"`{key}` {problem}")
    return text


def read_permissions(section: Section, users: tuple[User, ...], *, has_certificates: bool) -> tuple[Permission, ...]:
    """`permissions`: what some users, or everybody, may publish and subscribe to."""
    found: list[Permission] = []
    names = [user.username for user in users]
    for node in section.each("permissions"):
        below = Section(node, section.problems, node.mark)
        if not isinstance(node, Mapping):
            continue  # noted by Section
        listed = tuple(_names(below, names, has_certificates=has_certificates))
        publish = tuple(_patterns(below, "publish"))
        subscribe = tuple(_patterns(below, "subscribe"))
        if not below.has("publish") and not below.has("subscribe"):
            section.problems.add(node.mark, "neither `publish` nor `subscribe`: this permits nothing")
        if not users and not has_certificates and _asks_for_device(publish + subscribe):
            section.problems.add(
                node.mark, "{device} is who a client has proved to be; set `users`, or `tls.ca` for certificates"
            )
        below.done()
        found.append(Permission(users=listed, publish=publish, subscribe=subscribe))
    return tuple(found)


def _names(section: Section, names: list[str], *, has_certificates: bool) -> Iterator[str]:
    for node in section.each("users"):
        text = _text(section, node)
        if text and "*" not in text and text not in names and not has_certificates:
            section.problems.add(node.mark, f"no user is called `{cut(text)}`{did_you_mean(text, names)}")
        if text:
            yield text


def _patterns(section: Section, key: str) -> Iterator[str]:
    for node in section.each(key):
        text = _text(section, node)
        if not text:
            continue
        problem = filter_problem(text)
        if problem:
            section.problems.add(node.mark, f"`{key}: {cut(text)}`: {problem}")
            continue
        unknown = [name for name in _NAME.findall(text) if name not in _CAPTURES]
        if unknown:
            hint = did_you_mean(unknown[0], _CAPTURES) or "; for any one level write +"
            section.problems.add(node.mark, f"{{{cut(unknown[0])}}}: known here are {{device}} and {{client_id}}{hint}")
            continue
        yield text


def _text(section: Section, node: Node) -> str:
    if isinstance(node, Scalar) and isinstance(node.value, str) and node.value:
        return node.value
    section.problems.add(node.mark, "a text is expected here")
    return ""


def _asks_for_device(patterns: tuple[str, ...]) -> bool:
    return any("{device}" in pattern for pattern in patterns)


def read_websocket(context: Context, listen: Section) -> WebSocketSettings | None:
    """`websocket`: an address, or a mapping with the address under `url`."""
    if listen.node("websocket") is None:
        return None
    section, key = as_section(listen, "websocket", "url")
    address = read_address(section, key, WEBSOCKET_PORTS, is_bound=True)
    mark = section.at(key)
    is_nested = section is not listen
    below = section if is_nested else Section(None, listen.problems, mark)
    is_secure = address is not None and address.scheme == "wss"
    tls = read_tls(context, below, wanted=is_secure, is_server=True, mark=mark, secure="wss")
    origins = frozenset(_origins(below))
    if is_nested:
        below.done()
    if address is None:
        return None
    context.listeners.append((mark, "mqtt.listen.websocket", address))
    return WebSocketSettings(host=address.host, port=address.port, tls=tls, origins=origins)


def _origins(section: Section) -> Iterator[str]:
    for node in section.each("origins"):
        text = _text(section, node)
        if text and _ORIGIN.fullmatch(text) is None:
            section.problems.add(
                node.mark, f"`{cut(text)}` is no origin; write https://dashboard.example, without a path"
            )
        elif text:
            yield text.lower()

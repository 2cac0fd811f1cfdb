"""Values that several parts of the configuration share: addresses, paths, secrets, credentials, TLS.

Invariants:
- No message repeats an address as it is: what stands before `@` is a password more often than not.
- A file that holds a secret, or that could give orders, is not writable by everyone.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from gateway.config.document import Problems, Scalar, cut
from gateway.config.environment import has_reference
from gateway.config.section import Section, did_you_mean
from gateway.config.settings import Credentials

if TYPE_CHECKING:
    from gateway.config.document import Mark

MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}
WEBSOCKET_PORTS = {"ws": 9001, "wss": 9001}
HTTP_PORTS = {"http": 80, "https": 443}
SHORTEST_KEEPALIVE_S = 1.0
LONGEST_KEEPALIVE_S = 65_535.0  # two bytes in CONNECT
LONGEST_EXPIRY_S = 4_294_967_295.0  # four bytes in CONNECT
_LARGEST_SECRET_BYTES = 64 * 1024
_HOST = re.compile(r"[^\s\x00-\x1f\x7f/?#@\\]+")
_USER_INFO = re.compile(r"^([A-Za-z]*://)?.*@", re.DOTALL)
_SHOWN_PATH_CHARACTERS = 200
_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class Address:
    """A URL, taken apart."""

    scheme: str
    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)

    def is_local_only(self) -> bool:
        """Whether binding it is out of the network's reach."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")

    def reaches(self, listener: Address) -> bool:
        """Whether connecting here ends at that listener of this process, as far as the words tell."""
        if self.port != listener.port or not self.port:
            return False
        return self.host == listener.host or (
            self.is_local_only() and (listener.is_local_only() or listener.host in _ANY_ADDRESS)
        )


class Session(NamedTuple):
    """A place where the gateway will be an MQTT client."""

    mark: Mark
    address: Address
    client_id: str
    is_sink: bool


@dataclass(slots=True)
class Context:
    """What readers of values share."""

    base: Path
    """Relative paths in the file are relative to this."""
    warnings: Problems = field(default_factory=Problems)
    """What is allowed and should not stay so."""
    gateway_id: str = ""
    listeners: list[tuple[Mark, str, Address]] = field(default_factory=list)
    """Every address that is bound, and the key that says so."""
    sessions: list[Session] = field(default_factory=list)
    files: list[tuple[Mark, Path]] = field(default_factory=list)
    """Every file that is appended to."""

    def path(self, section: Section, key: str, default: str = "", *, required: bool = False) -> Path | None:
        """A path, absolute; None, with a problem noted, if it cannot be one, and None if the key is absent."""
        text = section.text(key, default, required=required)
        if not text:
            return None
        try:
            return (self.base / Path(text).expanduser()).resolve()
        except (OSError, ValueError, RuntimeError):  # too long, a NUL, a loop of links, the home of nobody
            section.problems.add(section.at(key), f"`{key}` is not a path")
            return None

    def file(self, section: Section, key: str, *, is_secret: bool = False) -> Path | None:
        """The path of a file that must be there and readable; None, with a problem noted, if it is not."""
        path = self.path(section, key)
        if path is None:
            return None
        mark = section.at(key)
        try:
            with path.open("rb") as opened:
                opened.read(1)
            mode = path.stat().st_mode
        except OSError as error:
            section.problems.add(mark, f"{cut_path(path)}: {error.strerror or 'cannot be read'}")
            return None
        check_permissions(path, mode, mark, section.problems)
        if is_secret and mode & stat.S_IROTH:
            self.warnings.add(mark, f"anyone on this machine can read {cut_path(path)}; chmod o-r it")
        return path

    def secret(self, section: Section, key: str, *, may_stand_here: bool = False) -> str:
        """A secret: `key: ${NAME}`, or `key_file: path` (as systemd's LoadCredential gives). Inline ones are noted."""
        node = section.node(key)
        text = section.text(key)
        path = self.file(section, f"{key}_file", is_secret=True)
        if section.has(f"{key}_file"):
            if node is not None:
                section.problems.add(section.at(key), f"`{key}` and `{key}_file` exclude each other")
            return _read_secret(path, section, f"{key}_file") if path is not None else ""
        if text and not may_stand_here and not has_reference(node):
            self.warnings.add(
                section.at(key), f"`{key}` stands in the file; better: {key}: ${{NAME}} or {key}_file: PATH"
            )
        _check_secret(text, section, key)
        return text


def cut_path(path: Path) -> str:
    """A path, short enough for a message."""
    return cut(str(path), _SHOWN_PATH_CHARACTERS)


def check_permissions(path: Path, mode: int, mark: Mark, problems: Problems) -> None:
    """Note a regular file that everyone may change."""
    if stat.S_ISREG(mode) and mode & stat.S_IWOTH:
        problems.add(mark, f"anyone on this machine can write {cut_path(path)}; chmod o-w it")


def read_address(
    section: Section, key: str, ports: dict[str, int], *, is_base: bool = False, is_bound: bool = False
) -> Address | None:
    """`scheme://[user[:password]@]host[:port]`. None, with a problem noted, if it is not that.

    Args:
        section: where it stands.
        key: under which key; must be there.
        ports: the schemes that are allowed, each with the port that it means by default.
        is_base: whether a path and a query may follow. No user may then be named: what carries it is up to headers.
        is_bound: whether it is listened on: port 0 is allowed, a user is not.
    """
    text = section.text(key, required=True)
    if not text:
        return None
    mark = section.at(key)
    shown = _shown(section, key, text)
    example = f"{next(iter(ports))}://127.0.0.1:{next(iter(ports.values()))}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # its words are not repeated: they may quote half a password
        section.problems.add(mark, f"`{shown}` is not an address; write {example}")
        return None
    if parts.scheme not in ports:
        hint = did_you_mean(parts.scheme, tuple(ports)) or f"; write {example}"
        section.problems.add(mark, f"`{shown}` must begin with {' or '.join(f'{each}://' for each in ports)}{hint}")
        return None
    host = parts.hostname or ""
    if _HOST.fullmatch(host) is None or not text.isprintable() or " " in text:
        section.problems.add(mark, f"`{shown}` names no host; write {example}")
        return None
    if not is_base and (parts.path not in {"", "/"} or parts.query or parts.fragment):
        section.problems.add(mark, f"`{shown}` goes on after the port; write {example}")
        return None
    if port == 0 and not is_bound:
        section.problems.add(mark, f"`{shown}`: nobody listens on port 0")
        return None
    if parts.username is not None and (is_base or is_bound):
        instead = "`users`" if is_bound else "`token` or `headers`"
        section.problems.add(mark, f"`{shown}`: no user stands in this address; use {instead}")
        return None
    return Address(
        parts.scheme,
        host,
        port if port is not None else ports[parts.scheme],
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def split_host_port(text: str) -> tuple[str, int] | None:
    """`127.0.0.1:8080` or `[::1]:8080`; None if it is neither."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    is_port = colon and port.isascii() and port.isdecimal() and len(port) <= 5
    if not is_port or int(port) > 65_535 or _HOST.fullmatch(host) is None:
        return None
    return host, int(port)


def as_section(section: Section, key: str, url_key: str) -> tuple[Section, str]:
    """A value that is a plain URL, or a mapping with the URL under `url_key`: where to go on, and under which key."""
    node = section.node(key)
    if isinstance(node, Scalar):
        return section, key
    return Section(node, section.problems, section.mark), url_key


def read_credentials(
    context: Context, section: Section, address: Address | None, mark: Mark, node: Scalar | None
) -> Credentials | None:
    """`username` and `password`, from their keys or from the address that stands in `node`."""
    username = section.text("username")
    password = context.secret(section, "password")
    if address is not None and address.username:
        if username:
            section.problems.add(mark, "a user name stands in the address and in `username`")
        if address.password and not has_reference(node):
            context.warnings.add(mark, "the password stands in the address; better: password: ${NAME}")
        username, password = address.username, address.password or password
    if password and not username:
        key = "password" if section.has("password") else "password_file"
        section.problems.add(section.at(key), f"`{key}` without `username`")
    return Credentials(username=username, password=password) if username else None


def _read_secret(path: Path, section: Section, key: str) -> str:
    mark = section.at(key)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_SECRET_BYTES + 1)
        text = data.decode("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        section.problems.add(mark, f"{cut_path(path)} is not UTF-8 text")
        return ""
    if not text or len(data) > _LARGEST_SECRET_BYTES:
        section.problems.add(mark, f"{cut_path(path)} is {'too large for a secret' if text else 'empty'}")
        return ""
    _check_secret(text, section, key)
    return text


def _check_secret(text: str, section: Section, key: str) -> None:
    if not text.isprintable():
        section.problems.add(section.at(key), f"`{key}`: a secret is one line without control characters")


def _shown(section: Section, key: str, text: str) -> str:
    """An address for a message: as it stands in the file, without what stands before `@`."""
    node = section.node(key)
    written = node.raw if isinstance(node, Scalar) else text
    return cut(_USER_INFO.sub(r"\1***@", written))

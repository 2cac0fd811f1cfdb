"""Values that several parts of the configuration share: addresses, credentials, TLS, environment references."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.config.document import Scalar
from gateway.config.section import Section, did_you_mean
from gateway.config.settings import Credentials, TlsSettings

if TYPE_CHECKING:
    from gateway.config.document import Mark

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}
HTTP_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """A URL, taken apart."""

    scheme: str
    host: str
    port: int
    username: str = ""
    password: str = ""


@dataclass(slots=True)
class Context:
    """What readers of values share."""

    base: Path
    """Relative paths in the file are relative to this."""
    warnings: list[str]

    def path(self, text: str) -> Path:
        """A path as written in the file, absolute."""
        return (self.base / Path(text).expanduser()).resolve()

    def text(self, section: Section, key: str, default: str = "", *, required: bool = False) -> str:
        """A text in which `${NAME}` stands for an environment variable; one that is not set is a problem."""
        value = section.text(key, default, required=required)

        def resolve(match: re.Match[str]) -> str:
            name = match[1]
            if _NAME.fullmatch(name) is None:
                section.problems.add(section.at(key), f"`${{{name}}}` is not the name of an environment variable")
                return ""
            found = os.environ.get(name)
            if found is None:
                section.problems.add(section.at(key), f"the environment variable {name} is not set")
            return found or ""

        return _REFERENCE.sub(resolve, value)

    def file_path(self, section: Section, key: str) -> Path | None:
        """The path of a file that must be there; None if the key is absent."""
        text = self.text(section, key)
        if not text:
            return None
        path = self.path(text)
        if not path.is_file():
            section.problems.add(section.at(key), f"no such file: {path}")
        return path

    def secret(self, section: Section, key: str) -> str:
        """A secret: `key: ${NAME}`, or `key_file: path` (as systemd's LoadCredential gives). Inline ones are noted."""
        file = self.file_path(section, f"{key}_file")
        if file is not None:
            if section.has(key):
                section.problems.add(section.at(key), f"`{key}` and `{key}_file` exclude each other")
            try:
                return file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                section.problems.add(section.at(f"{key}_file"), "cannot be read")
                return ""
        if section.has(key) and "${" not in section.text(key):
            self.warn(section.at(key), f"`{key}` stands in the file; better: {key}: ${{NAME}} or {key}_file: PATH")
        return self.text(section, key)

    def warn(self, mark: Mark, message: str) -> None:
        """Something that works and should not stay so."""
        self.warnings.append(f"{mark}: {message}")


def read_address(
    text: str, section: Section, key: str, ports: dict[str, int], *, path_allowed: bool = False
) -> Address | None:
    """`scheme://[user[:password]@]host[:port]`. None, with a problem noted, if it is not that."""
    mark = section.at(key)
    example = f"{next(iter(ports))}://127.0.0.1:{next(iter(ports.values()))}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        section.problems.add(mark, f"`{text}` is not an address: {error}; write {example}")
        return None
    if parts.scheme not in ports:
        hint = did_you_mean(parts.scheme, tuple(ports)) or f"; write {example}"
        section.problems.add(mark, f"`{text}` must begin with {' or '.join(f'{each}://' for each in ports)}{hint}")
        return None
    if not parts.hostname:
        section.problems.add(mark, f"`{text}` names no host; write {example}")
        return None
    if not path_allowed and (parts.path not in {"", "/"} or parts.query or parts.fragment):
        section.problems.add(mark, f"`{text}` ends in something that is no port; write {example}")
    return Address(
        parts.scheme,
        parts.hostname,
        port if port is not None else ports[parts.scheme],
        parts.username or "",
        parts.password or "",
    )


def as_section(section: Section, key: str, url_key: str) -> tuple[Section, str]:
    """A value that is a plain URL, or a mapping with the URL under `url_key`: where to go on, and under which key."""
    node = section.node(key)
    if isinstance(node, Scalar):
        return section, key
    return Section(node, section.problems, section.mark), url_key


def read_tls(context: Context, section: Section, *, wanted: bool, server: bool, where: Mark) -> TlsSettings | None:
    """The `tls:` part beside an address."""
    below = section.section("tls")
    if below is None:
        if wanted and server:
            section.problems.add(where, "mqtts:// needs `tls:` with `certificate` and `key`")
        return TlsSettings() if wanted else None
    if not wanted:
        section.problems.add(below.mark, "`tls` is set, but the address is not mqtts://")
    tls = TlsSettings(
        ca=context.file_path(below, "ca"),
        certificate=context.file_path(below, "certificate"),
        key=context.file_path(below, "key"),
    )
    if server and not below.has("certificate"):
        section.problems.add(below.mark, "`certificate` is missing")
    below.done()
    return tls


def read_credentials(context: Context, section: Section, address: Address | None, mark: Mark) -> Credentials | None:
    """`username` and `password`, from their keys or from the address."""
    username = context.text(section, "username")
    password = context.secret(section, "password")
    if address is not None and address.username:
        if username:
            section.problems.add(mark, "a user name stands in the address and in `username`")
        context.warn(mark, "the password stands in the address; better: password: ${NAME}")
        username, password = address.username, address.password
    if password and not username:
        section.problems.add(mark, "`password` without `username`")
    return Credentials(username=username, password=password) if username else None

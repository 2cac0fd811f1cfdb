"""The entries of `notify`: which keys each type of receiver has.

Invariants:
- Credentials never go out in the clear, unless the host is this machine.
- What goes into the header of a mail is checked here as far as it stands in the file: one line, nothing but an address.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import re
from typing import TYPE_CHECKING, Literal, TypedDict

from gateway.config.document import Scalar, cut
from gateway.config.section import Section, did_you_mean
from gateway.config.settings import EmailSettings, NtfySettings, ReceiverSettings, WebhookSettings
from gateway.config.sinks import NAME_PATTERN
from gateway.config.values import HTTP_PORTS, cut_path, read_address, read_credentials

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.config.values import Context

PRIORITIES = {"min": 1, "low": 2, "default": 3, "high": 4, "urgent": 5}
TEMPLATE_FIELDS = ("count", "gateway", "key", "rule", "text")
_EXTRA = "aiosmtplib"
_SMTP_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_MOST_RECIPIENTS = 50
_MOST_MESSAGES = 1_000
_SHORTEST_EVERY_S = 1.0
_LONGEST_EVERY_S = 86_400.0
_LONGEST_GROUP_S = 3_600.0
_LONGEST_ADDRESS = 254  # RFC 5321, 4.5.3.1.3, less the angle brackets
# A dot-atom of RFC 5322 at a host name: no quotes, no comments, no second address.
_MAIL_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_TOPIC_PATH = re.compile(r"/([A-Za-z0-9_-]{1,64})")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class _Common(TypedDict):
    """What all receivers have in common, as keyword arguments."""

    name: str
    every_s: float
    most: int
    group_s: float


def read_receivers(context: Context, root: Section) -> tuple[ReceiverSettings, ...]:
    """Every entry of `notify`, those that are wrong left out with their problems noted."""
    receivers: dict[str, ReceiverSettings] = {}
    seen: set[str] = set()
    for node in root.each("notify"):
        section = Section(node, root.problems, node.mark)
        name = section.text("name", required=True, pattern=NAME_PATTERN)
        receiver = _read_receiver(context, section, name)
        if name and name in seen:
            root.problems.add(section.at("name"), f"a receiver named `{section.shown('name')}` stands twice")
        seen.add(name)
        if receiver is not None:
            receivers[receiver.name] = receiver
    return tuple(receivers.values())


def _read_receiver(context: Context, section: Section, name: str) -> ReceiverSettings | None:
    kind = section.choice("type", tuple(_READERS), "" if section.has("type") else "webhook")
    if not kind:
        return None  # of a type that is none, every other key would seem wrong
    default = WebhookSettings(name=name) if kind == "webhook" else ReceiverSettings(name=name)
    every_s = section.duration_s("every", default.every_s, least_s=_SHORTEST_EVERY_S, most_s=_LONGEST_EVERY_S)
    group_s = section.duration_s("group", default.group_s, least_s=0.0, most_s=_LONGEST_GROUP_S)
    most = section.integer("most", default.most, least=1, most=_MOST_MESSAGES)
    assert every_s is not None, "a default was given"
    assert group_s is not None, "a default was given"
    assert most is not None, "a default was given"
    receiver = _READERS[kind](context, section, _Common(name=name, every_s=every_s, most=most, group_s=group_s))
    section.done()
    return receiver


def _webhook(context: Context, section: Section, common: _Common) -> ReceiverSettings | None:
    del context
    if not section.has("webhook"):
        section.node("webhook")  # a known key, for the suggestion beside a misspelt one
        return WebhookSettings(**common)
    address = read_address(section, "webhook", HTTP_PORTS, is_base=True)
    return WebhookSettings(**common, url=section.text("webhook")) if address is not None else None


def _email(context: Context, section: Section, common: _Common) -> ReceiverSettings | None:
    if importlib.util.find_spec(_EXTRA) is None:
        section.problems.add(section.at("type"), f"e-mail needs {_EXTRA}: pip install 'edge-event-gateway[email]'")
    host = _read_host(section)
    security = _read_security(section)
    port = section.integer("port", _SMTP_PORTS[security], least=1, most=65_535)
    credentials = read_credentials(context, section, None, section.mark, None)
    if credentials is not None and security == "none" and host and not _is_this_machine(host):
        section.problems.add(
            section.at("tls"),
            "the password would go out in the clear; write `tls: starttls` or `tls: tls` "
            "(without TLS a user is allowed on this machine only)",
        )
    ca = context.file(section, "ca")
    if ca is not None:
        _check_anchors(ca, section, security)
    sender = section.text("from", required=True)
    if sender:
        _check_mail_address(section, "from", section.node("from"))
    receiver = EmailSettings(
        **common,
        host=host,
        port=port or 0,
        security=security,
        ca=ca,
        credentials=credentials,
        sender=sender,
        recipients=_read_recipients(section),
        subject=_read_template(context, section, "subject", "{gateway}: {text}"),
    )
    return receiver if host and sender and receiver.recipients else None


def _read_host(section: Section) -> str:
    host = section.text("host", required=True)
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if host and not _HOST.fullmatch(host) and not _is_ip_address(plain):
        section.problems.add(
            section.at("host"), f"`{section.shown('host')}` is not a host; write mail.example.org, and the port beside"
        )
        return ""
    return plain


def _read_security(section: Section) -> Literal["starttls", "tls", "none"]:
    word = section.choice("tls", tuple(_SMTP_PORTS), "starttls")
    return "tls" if word == "tls" else "none" if word == "none" else "starttls"


def _read_recipients(section: Section) -> tuple[str, ...]:
    found: dict[str, None] = {}
    nodes = list(section.each("to", required=True))
    if section.has("to") and not nodes:
        section.problems.add(section.at("to"), "`to` is empty: nobody would be told")
    for node in nodes:
        if isinstance(node, Scalar) and isinstance(node.value, str) and _check_mail_address(section, "to", node):
            if node.value in found:
                section.problems.add(node.mark, f"`{cut(node.raw)}` stands twice")
            found[node.value] = None
        elif not isinstance(node, Scalar) or not isinstance(node.value, str):
            section.problems.add(node.mark, "an address is expected, such as oncall@example.org")
    if len(found) > _MOST_RECIPIENTS:
        section.problems.add(section.at("to"), f"more than {_MOST_RECIPIENTS} addresses; write to a mailing list")
    return tuple(found)


def _check_mail_address(section: Section, key: str, node: object) -> bool:
    assert isinstance(node, Scalar), "texts are asked for before"
    text = str(node.value)
    if len(text) <= _LONGEST_ADDRESS and _MAIL_ADDRESS.fullmatch(text):
        return True
    section.problems.add(node.mark, f"`{key}`: `{cut(node.raw)}` is not an address such as oncall@example.org")
    return False


def _ntfy(context: Context, section: Section, common: _Common) -> ReceiverSettings | None:
    address = read_address(section, "url", HTTP_PORTS, is_base=True)
    server, topic = _split_topic(section) if address is not None else ("", "")
    token = context.secret(section, "token")
    if token and address is not None and address.scheme == "http" and not _is_this_machine(address.host):
        context.warnings.add(section.at("url"), "the token goes out in the clear; better: https://")
    word = section.choice("priority", tuple(PRIORITIES), "default") or "default"
    title = _read_template(context, section, "title", "{gateway}: {rule}")
    if address is None or not topic:
        return None
    return NtfySettings(**common, server=server, topic=topic, token=token, priority=PRIORITIES[word], title=title)


def _split_topic(section: Section) -> tuple[str, str]:
    """The server's root and the topic: `https://ntfy.example/greenhouse`."""
    scheme, _, rest = section.text("url").partition("://")
    host, slash, path = rest.partition("/")
    topic = _TOPIC_PATH.fullmatch(slash + path)
    if topic is None:
        section.problems.add(
            section.at("url"),
            f"`{section.shown('url')}` names no topic; write https://ntfy.example/TOPIC (A-Z a-z 0-9 _ -)",
        )
        return "", ""
    return f"{scheme}://{host}/", topic[1]


def _read_template(context: Context, section: Section, key: str, default: str) -> str:
    """A line with `{names}`. `{gateway}` is filled in here, the rest when there is something to say."""
    template = section.text(key, default)
    mark = section.at(key)
    if not template.isprintable():
        section.problems.add(mark, f"`{key}` is one line without control characters")
    for name in _PLACEHOLDER.findall(template):
        if name not in TEMPLATE_FIELDS:
            hint = did_you_mean(name, TEMPLATE_FIELDS) or f"; known here: {', '.join(TEMPLATE_FIELDS)}"
            shown = f"{{{cut(name)}}}" if f"{{{name}}}" in section.shown(key) else f"what `{section.shown(key)}` names"
            section.problems.add(mark, f"`{key}` knows no {shown}{hint}")
    return template.replace("{gateway}", context.gateway_id)


def _check_anchors(path: Path, section: Section, security: str) -> None:
    if security == "none":
        section.problems.add(section.at("ca"), "`ca` is set, but `tls: none`")
    import ssl  # noqa: PLC0415 - costs 10 ms at the start, and only TLS needs it

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, OSError):
        section.problems.add(section.at("ca"), f"{cut_path(path)} holds no certificate (PEM)")


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_this_machine(host: str) -> bool:
    """Whether a host is loopback. Only addresses and `localhost`: a name such as 127.example.org is anywhere."""
    return ipaddress.ip_address(host).is_loopback if _is_ip_address(host) else host == "localhost"


_READERS: dict[str, Callable[[Context, Section, _Common], ReceiverSettings | None]] = {
    "webhook": _webhook,
    "email": _email,
    "ntfy": _ntfy,
}

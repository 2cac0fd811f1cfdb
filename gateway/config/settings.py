"""What the operator decided, parsed once and frozen. Durations in seconds, sizes in bytes.

Nothing below `gateway.config` reads a file or an environment variable: it is handed one of these. Defaults stand here
and nowhere else, so that tests change a size by passing another value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from gateway.model import Format

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsSettings:
    """Certificates of one side of a TLS connection."""

    ca: Path | None = None
    """Trust anchors (PEM). None: the system's."""
    certificate: Path | None = None
    """Own certificate chain (PEM). Required to listen."""
    key: Path | None = None
    """Own private key (PEM). None: it stands in `certificate`."""
    crl: Path | None = None
    """Certificates of clients that are revoked (PEM)."""
    are_clients_certified: bool = True
    """Whether a client must show a certificate that leads to `ca`; otherwise it may."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """A user name and its password."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """Who may connect to the listener with a password."""

    username: str
    password: str = field(default="", repr=False)
    password_hash: str = field(default="", repr=False)
    """argon2id, in place of the password."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Permission:
    """One entry of `mqtt.listen.permissions`: what some users may do."""

    users: tuple[str, ...] = ()
    """Names, or patterns with `*`; empty: everybody."""
    publish: tuple[str, ...] = ()
    """Topics that they may publish to: filters, in which `{device}` and `{client_id}` stand for their own."""
    subscribe: tuple[str, ...] = ()
    """Filters that cover those which they may subscribe to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WebSocketSettings:
    """`mqtt.listen.websocket`: the same listener, for browsers."""

    host: str
    port: int
    tls: TlsSettings | None = None
    origins: frozenset[str] = frozenset()
    """Of pages that may connect, `scheme://host[:port]` in lower case; `*`: all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListenSettings:
    """`mqtt.listen`: the gateway's own listener."""

    host: str = "127.0.0.1"
    port: int = 1883
    """0 takes a free one (tests)."""
    tls: TlsSettings | None = None
    users: tuple[User, ...] = ()
    """Empty: anyone who reaches the port may connect."""
    websocket: WebSocketSettings | None = None
    permissions: tuple[Permission, ...] | None = None
    """None: everything is permitted."""
    max_packet_bytes: int = MIB
    """A larger packet closes the connection (5.0: announced, 0x95). Payload limits are ingest's own, and gentler."""
    max_connections: int = 10_000
    max_queued_messages: int = 1_000
    """Per session, waiting for a subscriber that is away or slow. Further ones are dropped and counted."""
    max_queued_bytes: int = 16 * MIB
    """The same, of topics and payloads."""
    max_subscriptions: int = 1_000
    """Per session."""
    max_in_flight: int = 65_535
    """Per client: QoS 1 and 2 messages from it that are not answered yet."""
    max_messages_per_s: int | None = None
    """Per client. Who sends faster is read more slowly."""
    max_bytes_per_s: int | None = None
    max_unsettled_bytes: int = 16 * MIB
    """Received and not yet on disk. Beyond it no socket is read until the disk has caught up."""
    session_expiry_max_s: int = 7 * 86_400
    connect_timeout_s: float = 10.0
    """From TCP accept to a complete CONNECT."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectSettings:
    """`mqtt.connect`: be the client of a broker that is already there."""

    host: str
    port: int
    tls: TlsSettings | None = None
    credentials: Credentials | None = None
    client_id: str = ""
    """Empty: `gateway-{gateway.id}`. Fixed per installation, so that the broker keeps the session."""
    keepalive_s: int = 30
    session_expiry_s: int = 7 * 86_400
    max_unsettled_bytes: int = 16 * MIB
    """Unacknowledged bytes beyond which the socket is not read: the broker's window is not to be trusted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicSettings:
    """One entry of `ingest.topics`."""

    topic: str
    """A filter; `{name}` matches one level and names it."""
    format: Format = Format.JSON
    max_payload_bytes: int = 256 * KIB
    fields: tuple[str, ...] = ()
    """What payloads there hold at their first level, for `check` to compare rules with; empty: it is not said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSettings:
    """`log`: the ring log."""

    max_size_bytes: int = 512 * MIB
    segment_size_bytes: int = 8 * MIB
    sync_interval_s: float | None = 0.0
    """0: every batch (`always`). More: what a power cut may take (`50ms`). None: never ask for a sync (`none`)."""
    tip_bytes: int = 16 * MIB
    """Recent batches kept in memory, so that consumers at the tip read no disk."""
    dead_letters_max_size_bytes: int = 32 * MIB
    audit_max_size_bytes: int = 32 * MIB
    """Decisions and their outcomes, kept apart so that telemetry cannot evict them."""
    max_age_s: float | None = None
    """How long events are kept at most; None: as long as they fit."""
    when_full: Literal["evict", "hold"] = "evict"
    """Ring or disk full of what a sink has not seen: give up the oldest, or acknowledge nothing until there is room."""
    compress: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrySettings:
    """Full-jitter backoff: a pause drawn from [0, min(max, base * 2^attempt)]."""

    base_s: float = 0.5
    max_s: float = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SinkSettings:
    """What all sinks have in common: one entry of `forward`."""

    name: str
    batch_records: int = 500
    window_records: int = 2_000
    """Sent and not yet under a durable cursor: the most that a crash can repeat."""
    timeout_s: float = 30.0
    retry: RetrySettings = RetrySettings()
    start: str = "oldest"
    """Where a sink that has no cursor yet begins: `oldest` or `now`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MqttSinkSettings(SinkSettings):
    """`type: mqtt`: publish to an upstream broker at QoS 1."""

    host: str
    port: int
    tls: TlsSettings | None = None
    credentials: Credentials | None = None
    client_id: str = ""
    """Empty: `gateway-{gateway.id}-{name}`."""
    topic: str = "{gateway}/{topic}"
    keepalive_s: int = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpSinkSettings(SinkSettings):
    """`type: http`: POST a CloudEvents 1.0 batch (JSON)."""

    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """May hold a token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InfluxSinkSettings(SinkSettings):
    """`type: influxdb`: write points over influxdb-client (also to VictoriaMetrics)."""

    url: str
    bucket: str
    org: str = ""
    token: str = field(default="", repr=False)
    measurement: str = "{type}"
    """A template over captures; falls back to `event` where the topic has no such capture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSinkSettings(SinkSettings):
    """`type: file`: append JSON lines, synced batch by batch."""

    path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiverSettings:
    """What all receivers of `notify` have in common: whom rules name in `to`."""

    name: str
    every_s: float = 60.0
    most: int = 10
    """At most so many messages in any `every_s`. What is over it goes with the next one, or is counted there."""
    group_s: float = 10.0
    """What is said within so long of the first goes out as one message. 0: each on its own, as far as `most` allows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookSettings(ReceiverSettings):
    """`type: webhook`: POST JSON to a program, which can sort for itself: nothing is grouped unless asked for."""

    group_s: float = 0.0
    url: str | None = field(default=None, repr=False)
    """None: only a log line. Whoever knows the address of a webhook may use it: it is a secret."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmailSettings(ReceiverSettings):
    """`type: email`: plain text over SMTP."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"] = "starttls"
    """`starttls` never goes on in the clear if the server does not offer it."""
    ca: Path | None = None
    """Trust anchors (PEM). None: the system's."""
    credentials: Credentials | None = None
    """Never without TLS, unless the host is this machine."""
    sender: str
    recipients: tuple[str, ...]
    subject: str = "{text}"
    """A template over `rule`, `key`, `count` and `text`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NtfySettings(ReceiverSettings):
    """`type: ntfy`: publish to a topic of an ntfy server."""

    server: str
    """The root of the server, with a slash at its end."""
    topic: str = field(repr=False)
    """Whoever knows the name of a topic may read it, unless its server asks for a token: it is a secret."""
    token: str = field(default="", repr=False)
    priority: int = 3
    """1 (min) to 5 (urgent)."""
    title: str = "{rule}"
    """A template over `rule`, `key`, `count` and `text`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpSettings:
    """`http`: API, health and metrics."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0 takes a free one (tests)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActSettings:
    """`act`: how decisions are carried out."""

    act_within_s: float = 0.25
    """How long a command waits for a stalled disk before it goes out ahead of its record (counted)."""
    max_age_s: float = 60.0
    """A decision older than this is recorded as expired and moves nothing."""


class Location(NamedTuple):
    """`gateway.location`: where the sun rises and sets for rules."""

    latitude: float
    """Degrees, north positive, -90 to 90."""
    longitude: float
    """Degrees, east positive, -180 to 180."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The whole configuration."""

    gateway_id: str
    data_dir: Path
    timezone: str = "UTC"
    location: Location | None = None
    """None: rules that follow the sun name their own."""
    listen: ListenSettings | None = None
    connect: ConnectSettings | None = None
    topics: tuple[TopicSettings, ...] = ()
    log: LogSettings = LogSettings()
    rules: tuple[Path, ...] = ()
    """Rule files, globs already resolved, `*.test.yaml` already left out, in sorted order."""
    forward: tuple[SinkSettings, ...] = ()
    notify: tuple[ReceiverSettings, ...] = ()
    http: HttpSettings | None = HttpSettings()
    act: ActSettings = ActSettings()
    path: Path | None = None
    """The file that this came from."""

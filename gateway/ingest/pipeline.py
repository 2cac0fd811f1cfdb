"""What receivers bring, into the log: route, decode, append, and settle once it is on disk.

Invariants:
- Every record ends in exactly one of: stored, dead-lettered, not to be stored. `received` is their sum.
- A bad payload is acknowledged like a good one, after its dead letter is on disk, so that it can never block or loop.
- Nothing is settled before everything in its batch is durable; batches settle in the order in which they came.
- Flat JSON objects on known topics cost a parse each and nothing else of the interpreter's. What is unusual about one
  costs those beside it a pass of their own, and one not to be stored costs its batch the columns behind it.
- A broken device cannot flood the gateway's own log: one line per batch and code, and `observe` holds back most.
"""

from __future__ import annotations

import hashlib
import re
import sys
from typing import TYPE_CHECKING

from gateway.ingest.decode import decode, decode_flat, decode_json
from gateway.model import Arrivals, Batch, DeadLetter, Format, Kind, Rejection
from gateway.mqtt.topics import TopicFilter, compile_filter
from gateway.observe import events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config.settings import TopicSettings
    from gateway.model import Stamp, Value
    from gateway.ringlog import DeadLetters, RingLog
    from gateway.ringlog.committer import Committer

_MAX_ROUTES = 50_000
_FEW, _TOGETHER = 4, 512
"""Up to so many records each is judged by itself, which is quicker then; and so many at most are judged together: one
that is unusual costs the others a closer look."""
_KEPT_OF_OVERSIZED_BYTES = 1_024
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class _Route:
    """What the configuration says of one topic."""

    __slots__ = ("format", "max_payload_bytes", "rejection")

    def __init__(self, payload_format: int, max_payload_bytes: int, rejection: Rejection | None) -> None:
        self.format = payload_format
        self.max_payload_bytes = max_payload_bytes
        self.rejection = rejection


class Ingest:
    """Takes arrivals on the loop. `accept` is what receivers are given as their intake."""

    def __init__(
        self, topics: Sequence[TopicSettings], log: RingLog, dead_letters: DeadLetters, committer: Committer
    ) -> None:
        self._topics: list[tuple[TopicFilter, TopicSettings]] = [(compile_filter(each.topic), each) for each in topics]
        self._log = log
        self._dead_letters = dead_letters
        self._committer = committer
        self._routes: dict[str, _Route | None] = {}
        self.received = 0
        self.stored = 0
        self.not_stored = 0
        self.rejected: dict[str, int] = {}

    def mqtt_filters(self) -> list[str]:
        """What to subscribe to at a broker, so that everything that is to be stored arrives."""
        return sorted({wanted.mqtt for wanted, _ in self._topics})

    def accept(self, arrivals: Arrivals) -> None:
        """Append what is to be stored, and settle the arrivals once it is durable."""
        self.received += len(arrivals.topics)
        stamp = self._log.stamp()
        values = self._decode_plain(arrivals)
        if len(values) == len(arrivals.topics):
            formats: list[int] = [Format.JSON] * len(values)
            self._append(Batch(Kind.EVENTS, stamp, arrivals.topics, formats, arrivals.flags, arrivals.payloads, values))
        else:
            self._accept_mixed(arrivals, values, stamp)
        self._committer.when_durable(arrivals.settle)

    def _decode_plain(self, arrivals: Arrivals) -> list[Value]:
        """The values of the records up to the first that is not the usual: a known topic, JSON, nothing wrong."""
        values: list[Value] = []
        for start in range(0, len(arrivals.topics), _TOGETHER):
            topics = arrivals.topics[start : start + _TOGETHER]
            payloads = arrivals.payloads[start : start + _TOGETHER]
            is_worth_it = len(topics) > _FEW and self._are_json(topics, payloads)
            found = decode_flat(payloads) if is_worth_it else None
            if found is None:
                found = self._decode_each(topics, payloads)
            values += found
            if len(found) < len(topics):
                break
        return values

    def _are_json(self, topics: list[str], payloads: list[bytes]) -> bool:
        """Whether all are payloads on known topics for JSON, neither empty nor too large."""
        limit_bytes = sys.maxsize
        for route in map(self._routes.get, set(topics)):
            if route is None or route.format is not Format.JSON or route.rejection is not None:
                return False
            limit_bytes = min(limit_bytes, route.max_payload_bytes)
        sizes = list(map(len, payloads))
        return min(sizes) > 0 and max(sizes) <= limit_bytes

    def _decode_each(self, topics: list[str], payloads: list[bytes]) -> list[Value]:
        """One by one, up to the first that is not the usual."""
        routes = self._routes
        values: list[Value] = []
        add = values.append
        json = Format.JSON
        for topic, payload in zip(topics, payloads, strict=True):
            route = routes.get(topic)
            if route is None or route.format is not json or not 0 < len(payload) <= route.max_payload_bytes:
                break
            value = decode_json(payload)
            if type(value) is Rejection or route.rejection is not None:
                break
            add(value)
        return values

    def _accept_mixed(self, arrivals: Arrivals, values: list[Value], stamp: Stamp) -> None:
        """The batch whose first `values` are plain: the others one by one."""
        plain = len(values)
        topics = arrivals.topics[:plain]
        formats: list[int] = [Format.JSON] * plain
        flags = arrivals.flags[:plain]
        payloads = arrivals.payloads[:plain]
        letters: list[DeadLetter] = []
        rest = (arrivals.topics[plain:], arrivals.flags[plain:], arrivals.payloads[plain:])
        for topic, flag, payload in zip(*rest, strict=True):
            route = self._route(topic)
            if route is None:
                self.not_stored += 1
                continue
            value = self._judge(route, payload)
            if type(value) is Rejection:
                letters.append(_letter(topic, payload, flag, value, stamp))
                continue
            topics.append(topic)
            formats.append(route.format)
            flags.append(flag)
            payloads.append(payload)
            values.append(value)
        if letters:
            self._reject(letters)
        self._append(Batch(Kind.EVENTS, stamp, topics, formats, flags, payloads, values))

    def _reject(self, letters: list[DeadLetter]) -> None:
        self._dead_letters.append(letters)
        for letter in letters:
            self.rejected[letter.code] = self.rejected.get(letter.code, 0) + 1
        for letter in {letter.code: letter for letter in letters}.values():
            events.payload_rejected(letter.topic, code=letter.code, detail=letter.detail)

    def _append(self, batch: Batch) -> None:
        if batch.topics:
            self.stored += len(batch.topics)
            self._log.append(batch)

    def _judge(self, route: _Route, payload: bytes) -> Value | Rejection:
        if len(payload) > route.max_payload_bytes:
            digest = hashlib.sha256(payload).hexdigest()
            detail = f"{len(payload)} bytes, {route.max_payload_bytes} are allowed; sha256 {digest}"
            return Rejection("too_large", detail)
        return decode(payload, route.format) if route.rejection is None else route.rejection

    def _route(self, topic: str) -> _Route | None:
        """The route of a topic: the first entry of `ingest.topics` that matches. None: not to be stored."""
        if topic in self._routes:
            return self._routes[topic]
        if len(self._routes) >= _MAX_ROUTES:
            self._routes.clear()
        route = self._routes[topic] = self._find(topic)
        return route

    def _find(self, topic: str) -> _Route | None:
        for wanted, settings in self._topics:
            captured = wanted.match(topic)
            if captured is not None:
                return _Route(settings.format, settings.max_payload_bytes, _judge_captures(captured))
        return None


def _judge_captures(captured: dict[str, str]) -> Rejection | None:
    """Captured levels become parts of topics, labels and paths elsewhere: they must be names and nothing else."""
    for name, level in captured.items():
        if _ID.fullmatch(level) is None or ".." in level:
            return Rejection("topic", f"{{{name}}} is not 1 to 64 of A-Z a-z 0-9 _ . : - (and no ..)")
    return None


def _letter(topic: str, payload: bytes, flags: int, why: Rejection, stamp: Stamp) -> DeadLetter:
    kept = payload[:_KEPT_OF_OVERSIZED_BYTES] if why.code == "too_large" else payload
    return DeadLetter("", topic, kept, flags, "ingest", why.code, why.detail, 1, stamp.wall_ns, stamp.wall_ns)

"""Planted breaches of MQTT: each goes against a clause, and the tests of that clause must notice."""

from __future__ import annotations

from tests.mutants.plan import Mutant

CONFORMANCE = ("tests/mqtt/test_session.py", "tests/mqtt/conformance")


def _breach(clause: str, module: str, old: str, new: str) -> Mutant:
    return Mutant(f"MQTT-{clause}", f"gateway/mqtt/{module}.py", old, new, CONFORMANCE)


BREACHES = (
    _breach("1.5.4-2", "wire", 'if "\\0" in text:', "if False:"),
    _breach("1.5.4-3", "wire", "text = raw.decode()", 'text = raw.decode("utf-8-sig")'),
    _breach(
        "1.5.5-1",
        "wire",
        "    out.append(value)\n    return bytes(out)",
        "    return bytes(out) + bytes((value | 0x80, 0))",
    ),
    _breach("2.1.3-1", "codec", "if first & 0x0F != flags:", "if False:"),
    _breach("2.2.1-3", "codec", "    if not mid:\n", "    if False:\n"),
    _breach("2.2.1-4", "session", "while mid in self.in_flight:", "while False:"),
    _breach("3.1.0-2", "conversation", "if first >> 4 == PacketType.CONNECT:", "if False:"),
    _breach("3.1.2-3", "codec", "if flags & 0x01 or will_qos", "if will_qos"),
    _breach("3.1.2-4", "exchange", "if session is not None and clean:", "if False:"),
    _breach("3.1.2-10", "exchange", "session.will = session.will_due_s = None\n\n    def _end", "pass\n\n    def _end"),
    _breach("3.1.2-11, -13", "codec", "or (not has_will and flags & 0x38):", "or False:"),
    _breach("3.1.2-12", "codec", "or will_qos == 3 or", "or"),
    _breach("3.1.2-14", "codec", "retain=bool(flags & 0x20)) if has_will", "retain=True) if has_will"),
    _breach("3.1.2-22", "conversation", "1.5 * self._keepalive_s", "3 * self._keepalive_s"),
    _breach("3.1.2-22 of 3.1.1", "codec", "if level == V311 and has_password", "if level == 9 and has_password"),
    _breach(
        "3.1.2-24 (CONNACK)", "admission", "if most_bytes is not None and len(connack()) > most_bytes:", "if False:"
    ),
    _breach("3.1.2-24 (SUBACK)", "conversation", "if not data:  # a part", "if False:  # a part"),
    _breach("3.1.2-26", "session", "len(self._aliases) < self._max_aliases", "True"),
    _breach(
        "3.1.2-29",
        "conversation",
        'fitting(build, why if self._wants_sentences else "", session',
        "fitting(build, why, session",
    ),
    _breach("3.1.3-7", "admission", "if not packet.client_id:\n", "if False:\n"),
    _breach(
        "3.1.3-9", "exchange", "session.will, session.will_due_s = will, None", "session.will = session.will or will"
    ),
    _breach("3.1.4-3", "exchange", "rival.outlet.cut(Reason.TAKEN_OVER)", "pass"),
    _breach("3.2.2-3", "exchange", "is_present = session is not None", "is_present = False"),
    _breach("3.2.2-8", "admission", "V5 if speaks_v5 else V311, error.reason_code", "V5 if speaks_v5 else V311, 0x8D"),
    _breach("3.3.1-1", "codec", "first = 0x30 | dup << 3 | qos", "first = 0x30 | qos"),
    _breach("3.3.1-2", "codec", "if qos == 3 or (dup and not qos):", "if qos == 3:"),
    _breach("3.3.1-4", "codec", "if qos == 3 or (dup and not qos):", "if dup and not qos:"),
    _breach("3.3.1-7", "retained", "        if not message.payload:\n            return\n", ""),
    _breach("3.3.1-10", "exchange", "(wanted.retain_handling == 1 and is_new)", "wanted.retain_handling == 1"),
    _breach("3.3.1-11", "exchange", "wants = wanted.retain_handling == 0 or", "wants = wanted.retain_handling != 1 or"),
    _breach("3.3.1-13", "passing", "any(one.as_published for one in matching)", "False"),
    _breach("3.3.2-2", "topics", 'if "+" in text or "#" in text:', "if False:"),
    _breach("3.3.2-5", "session", "message.expires_s <= now_s and not dup:", "False:"),
    _breach("3.3.2-6", "session", "max(1, ceil(", "max(1, int("),
    _breach("3.3.2-7", "session", "self._aliases = {}  # they belong to one connection", "pass"),
    _breach("3.3.2-9", "aliases", "if not 0 < alias <= MAX_ALIASES:", "if not 0 < alias:"),
    _breach("3.3.2-14", "codec", "if answer_to is not None and topic_problem(answer_to):", "if False:"),
    _breach("3.3.2-16", "passing", "    Property.CORRELATION_DATA,\n", ""),
    _breach("3.3.4-2", "passing", "max(one.qos for one in matching)", "min(one.qos for one in matching)"),
    _breach("3.3.4-3", "passing", "tuple(one.identifier for one in matching if one.identifier)", "()"),
    _breach(
        "3.3.4-6", "properties", "if place not in row.places:", "if place not in row.places and identifier != 0x0B:"
    ),
    _breach(
        "3.3.4-7",
        "conversation",
        "if self.unacknowledged > self._terms.max_in_flight:",
        "if self.unacknowledged > self._terms.max_in_flight + 1:",
    ),
    _breach("3.3.4-9", "session", "is_first and len(self.in_flight) < self.window:", "is_first:"),
    _breach("3.4.2-1", "codec", "if reason not in _REASONS[kind]:", "if reason > 0xFF:"),
    _breach("3.4.2-2", "conversation", "session.max_packet_bytes - 2", "session.max_packet_bytes + 2"),
    _breach("3.8.3-2", "codec", "    if not filters:\n", "    if False:\n"),
    _breach(
        "3.8.3-3", "passing", "return self.own if self.no_local and self.session is sender else self", "return self"
    ),
    _breach("3.8.3-4", "conversation", "if any(wanted.no_local and name.startswith(SHARED_PREFIX)", "if any(False"),
    _breach("3.8.3-5", "codec", "(0xFC if version == V311 else 0xC0)", "(0xFC if version == V311 else 0x80)"),
    _breach("3.8.4-8", "exchange", "qos = min(message.qos, subscription.qos)", "qos = message.qos"),
    _breach(
        "3.9.3-1",
        "codec",
        "encode_properties(said) + bytes(reasons))",
        "encode_properties(said) + bytes(reasons[::-1]))",
    ),
    _breach(
        "3.10.4-2",
        "exchange",
        "self._subscriptions.remove(session, mqtt_filter)\n        if session.is_kept",
        "if session.is_kept",
    ),
    _breach("3.14.4-3", "conversation", "self.keeps_will = packet.reason != Reason.SUCCESS", "self.keeps_will = True"),
    _breach("4.1.0-2", "exchange", "if session.ends_s is not None and session.ends_s <= now_s:", "if False:"),
    _breach("4.3.3-4", "session", "if reason >= Reason.UNSPECIFIED:  # it will", "if False:  # it will"),
    _breach(
        "4.3.3-9",
        "conversation",
        "        build = partial(encode_refused, packet.mid, Reason.NOT_AUTHORIZED)\n",
        "        session.receiving.add(packet.mid)\n"
        "        build = partial(encode_refused, packet.mid, Reason.NOT_AUTHORIZED)\n",
    ),
    _breach(
        "4.3.2-5",
        "conversation",
        "        if packet.qos == 2:\n            session.rec",
        "        if packet.qos:\n            session.rec",
    ),
    _breach("4.3.3-10", "conversation", "if packet.qos == 2 and packet.mid in session.receiving:", "if False:"),
    _breach("4.3.3-12", "conversation", "session.receiving.discard(mid)", "pass"),
    _breach("4.4.0-1", "session", "self.resend = deque(self.in_flight)", "self.resend = deque()"),
    _breach(
        "4.6.0-1", "session", "self.resend = deque(self.in_flight)", "self.resend = deque(reversed(self.in_flight))"
    ),
    _breach(
        "4.6.0-2",
        "gathering",
        "while self._unsettled and self._unsettled[0].is_settled:\n            done = self._unsettled.popleft()",
        "for done in [turn]:\n            self._unsettled.remove(done)",
    ),
    _breach("4.6.0-4", "session", "        del self.in_flight[mid]  # to the end", "        # to the end"),
    _breach("4.7.2-1", "routing", 'is_hidden = topic.startswith("$")', "is_hidden = False"),
    _breach("4.8.2-1", "shared", "if not name or not", "if not"),
    _breach(
        "3.1.2-25",
        "session",
        "        self.in_flight.pop(mid, None)\n        self._is_over(held.number)",
        "        self._is_over(held.number)",
    ),
    _breach("4.12.0-1", "admission", "if Property.AUTHENTICATION_METHOD in packet.properties:", "if False:"),
)
"""By the clause that is broken."""

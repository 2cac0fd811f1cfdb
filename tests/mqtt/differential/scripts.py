"""Random conversations of up to three clients, most of their packets sound, some bent.

A bent packet keeps a true length: bytes that leave a broker waiting for more are the business of `test_fuzz`.
"""

from __future__ import annotations

import dataclasses
import random

from tests.mqtt.conftest import connect, packet, publish, text, varint

TOPICS = ["t", "t/a", "t/b", "t/a/b", "u", "/", "t//b", "$x/t", "\u00e9/\U0001f600"]
BAD_TOPICS = ["", "t/+", "#", "t\0", "\ufdd0"]
FILTERS = ["t", "t/a", "t/+", "t/#", "#", "+", "+/a", "+/+", "/", "/+", "$x/#", "$x/+", "t/+/b", "\u00e9/+", "u"]
SHARED = ["$share/{g}/t/#", "$share/{g}/t/#", "$share/{g}/t/a", "$share/{g}/#"]
BAD_FILTERS = ["", "t/#/a", "t+", "#a", "t/a#", "$share/{g}", "$share//t", "$share/+/t", "$share/{g}/", "t\0"]


@dataclasses.dataclass(frozen=True)
class Step:
    """What one client does."""

    client: str
    data: bytes = b""
    opens: bool = False
    """On a new connection."""
    acks: bool = True
    """Acknowledges what it gets (on an opening step, for that connection)."""
    releases: bool = True
    """Sends PUBREL when PUBREC has come (the same)."""
    late: int | None = None
    """Sends one of the acknowledgements that it has not sent: the how manieth, counted round and round."""
    drops: bool = False
    """Closes the socket without a word."""
    bent: bool = False


@dataclasses.dataclass(frozen=True)
class Script:
    """A conversation."""

    name: str
    client_ids: tuple[str, ...]
    steps: tuple[Step, ...]

    def until(self, index: int) -> str:
        """The steps up to this one, for a report."""
        return "\n".join(f"  {at:2} {step}" for at, step in enumerate(self.steps[: index + 1]))


class Author:
    """Writes one script."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.group = f"g{seed}"
        self.v5 = {name: self.rng.random() < 0.6 for name in "abc"}
        self.mids = dict.fromkeys("abc", 0)
        self.messages = 0
        self.here: set[str] = set()
        """Who has a connection that another one under the same client id would take over."""
        self.odd: dict[str, bool] = {}
        """Who has one that goes by another client id than its own."""

    def script(self) -> Script:
        rng = self.rng
        steps = [self.hello(name) for name in "abc"[: rng.choice([1, 2, 2, 3, 3])]]
        names = [step.client for step in steps]
        for _ in range(rng.randrange(3, 22)):
            steps.append(self.next(rng.choice(names)))
        return Script(str(self.seed), tuple(self.client_id(name) for name in names), tuple(steps))

    def client_id(self, name: str) -> str:
        return f"{name * 3}{self.seed}"  # so that no bent one is another's

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def next(self, name: str) -> Step:
        rng, v5 = self.rng, self.v5[name]
        match rng.choices(range(8), [8, 5, 2, 2, 1, 1, 2, 0.4])[0]:
            case 0:
                data = self.publishing(name)
            case 1:
                data = self.subscribing(name)
            case 2:
                data = self.unsubscribing(name)
            case 3:
                return self.hello(name)
            case 4:
                return self.drop(name)
            case 5:
                data = rng.choice(
                    [b"\xc0\0", b"\xe0\0", b"\xe0\1\4" if v5 else b"\xe0\0", b"\xe0\2\0\0" if v5 else b"\xc0\0"]
                )
            case 6:  # an answer that is late, or to something that was never sent
                if self.chance(0.7):
                    return Step(name, late=rng.randrange(8))
                first = rng.choice([0x40, 0x50, 0x62, 0x70])
                head = self.head(name) if first == 0x62 else b"\xff\xf0"
                data = packet(first, head + (rng.choice([b"", b"\0", b"\0\0"]) if v5 else b""))
            case _:
                data = packet(rng.randrange(256), rng.randbytes(rng.randrange(12)))
        if self.chance(0.06):
            return Step(name, self.bend(data), bent=True)
        return Step(name, data)

    def hello(self, name: str) -> Step:
        rng = self.rng
        if self.chance(0.1):
            self.v5[name] = not self.v5[name]
        v5 = self.v5[name]
        willing = self.chance(0.3)
        listed = b""
        if v5:
            listed += self.some(0.5, b"\x11" + rng.choice([0, 5_000, 0xFFFFFFFF]).to_bytes(4, "big"))
            listed += self.some(0.2, b"\x21" + rng.choice([1, 2, 100]).to_bytes(2, "big"))
            tight = self.some(0.1, b"\x27" + rng.choice([30, 60, 100_000]).to_bytes(4, "big"))
            willing = willing and not tight  # mosquitto publishes the will of a client that it could not answer
            listed += tight
            listed += self.some(0.2, b"\x22" + rng.choice([0, 1, 10]).to_bytes(2, "big"))
            listed += self.some(0.1, b"\x19\1")
            listed += self.some(0.1, b"\x26" + text("k") + text("v"))
        if self.odd.pop(name, None):
            return self.drop(name)  # a new connection would not take this one over
        is_first = name not in self.here
        client_id = "" if is_first and self.chance(0.1) else self.client_id(name)
        data = connect(
            client_id,
            v5=v5,
            clean=self.chance(0.5),
            keepalive=rng.choice([0, 60, 65_535]),
            will=(rng.choice(TOPICS if not self.chance(0.05) else BAD_TOPICS), self.own_payload()) if willing else None,
            will_flags=rng.choice([0, 0x08, 0x10, 0x20, 0x28]) if willing else 0,
            will_properties=self.will_properties() if willing and v5 and self.chance(0.4) else b"",
            properties=listed,
        )
        bent = is_first and self.chance(0.1)
        if bent or not client_id:
            self.odd[name] = True
        else:
            self.here.add(name)
        data = self.bend(data) if bent else data
        return Step(name, data, opens=True, acks=self.chance(0.8), releases=self.chance(0.95), bent=bent)

    def drop(self, name: str) -> Step:
        self.here.discard(name)
        return Step(name, drops=True)

    def some(self, share: float, data: bytes) -> bytes:
        return data if self.chance(share) else b""

    def will_properties(self) -> bytes:
        return self.some(0.4, b"\x18\0\0\x27\x10") + self.message_properties()

    def message_properties(self) -> bytes:
        return (
            self.some(0.3, b"\x01\1")
            + self.some(0.3, b"\x02" + self.rng.choice([1_000, 0xFFFFFFFF]).to_bytes(4, "big"))
            + self.some(0.3, b"\x03" + text("text/plain"))
            + self.some(0.3, b"\x08" + text("reply/to"))
            + self.some(0.3, b"\x09" + text(b"\0\xff"))
            + self.some(0.3, b"\x26" + text("a") + text("b") + b"\x26" + text("a") + text("a"))
        )

    def head(self, name: str) -> bytes:
        return self.mid(name).to_bytes(2, "big")

    def mid(self, name: str) -> int:
        """Mostly the next one; now and then one that was used, or 0."""
        if self.chance(0.02):
            return 0
        if self.chance(0.1):
            return self.rng.randrange(1, 4)
        self.mids[name] += 1
        return self.mids[name]

    def publishing(self, name: str) -> bytes:
        rng, v5 = self.rng, self.v5[name]
        listed = self.message_properties() if v5 and self.chance(0.3) else b""
        topic = rng.choice(BAD_TOPICS if self.chance(0.02) else ["$SYS/t"] if self.chance(0.005) else TOPICS)
        if v5 and self.chance(0.15):
            listed += b"\x23" + rng.choice([1, 1, 2, 0, 11 if self.chance(0.1) else 3]).to_bytes(2, "big")
            topic = "" if self.chance(0.5) else topic
        qos = rng.choice([0, 0, 1, 1, 2, 2, 3 if self.chance(0.05) else 2])
        return publish(
            topic,
            self.payload() if not qos else self.own_payload(),
            qos=qos,
            mid=self.mid(name),
            v5=v5,
            retain=self.chance(0.25),
            dup=self.chance(0.1 if qos else 0.01),
            properties=listed,
        )

    def payload(self) -> bytes:
        return b"" if self.chance(0.1) else self.own_payload()

    def own_payload(self) -> bytes:
        """One like no other, so that a message can be known by it."""
        self.messages += 1
        return b"%d" % self.messages + (b"z" * 200 if self.chance(0.1) else b"")

    def subscribing(self, name: str) -> bytes:
        rng, v5 = self.rng, self.v5[name]
        listed = self.some(0.3, b"\x0b" + varint(rng.choice([1, 2, 300, 0 if self.chance(0.1) else 7]))) if v5 else b""
        body = b"".join(
            text(self.filter()) + bytes([self.options(v5=v5)])
            for _ in range(rng.choice([1, 1, 1, 2, 3, 0 if self.chance(0.1) else 1]))
        )
        return packet(0x82, self.head(name) + (varint(len(listed)) + listed if v5 else b"") + body)

    def filter(self) -> str:
        if self.chance(0.02):
            chosen = self.rng.choice(BAD_FILTERS)
        else:
            chosen = self.rng.choice(SHARED if self.chance(0.15) else FILTERS)
        return chosen.replace("{g}", self.group)

    def options(self, *, v5: bool) -> int:
        rng = self.rng
        qos = rng.choice([0, 1, 2, 2, 3 if self.chance(0.05) else 1])
        if not v5 or self.chance(0.5):
            return qos | (0x40 if self.chance(0.01) else 0)
        return (
            qos
            | (4 if self.chance(0.3) else 0)
            | rng.choice([0, 8])
            | rng.choice([0, 0x10, 0x20, 0x30 if self.chance(0.1) else 0])
        )

    def unsubscribing(self, name: str) -> bytes:
        body = b"".join(text(self.filter()) for _ in range(self.rng.choice([1, 1, 2])))
        return packet(0xA2, self.head(name) + (b"\0" if self.v5[name] else b"") + body)

    def bend(self, data: bytes) -> bytes:
        """One packet with something wrong, and a length that is true."""
        rng = self.rng
        at = 1
        while data[at] & 0x80:
            at += 1
        first, body = data[0], bytearray(data[at + 1 :])
        for _ in range(rng.choice([1, 1, 2])):
            place = rng.randrange(len(body) + 1)
            match rng.randrange(5):
                case 0:
                    first ^= 1 << rng.randrange(8)
                case 1 if place < len(body):
                    body[place] ^= 1 << rng.randrange(8)
                case 2 if place < len(body):
                    body[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
                case 3:
                    del body[place : place + rng.randrange(1, 4)]
                case _:
                    body[place:place] = rng.randbytes(rng.randrange(1, 4))
        return packet(first, bytes(body))
